//! See [`crate::fuzzing`].

use raft_core::{Configuration, LogIndex, NodeId, Term};

use super::format::{
    HeaderMeta, PREAMBLE_BYTES, TRAILER_BYTES, Trailer, frame_header, header_bytes, open_frame,
};

/// The header, a chunk and the trailer of a snapshot file: as they are, and with checksums that fit.
#[must_use]
pub fn snapshot_parts(bytes: &[u8]) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    let mut note = |kind, is_found: bool| kinds.extend(is_found.then_some(kind));
    if let Some((preamble, _)) = bytes.split_first_chunk::<PREAMBLE_BYTES>() {
        note("preamble", header_bytes(preamble).is_ok());
    }
    note("header", HeaderMeta::from_header(bytes).is_ok());
    let header = HeaderMeta::from_header(&with_checksum(bytes));
    note("contents of a header", header.is_ok());
    note("chunk", open_frame(0, bytes).is_ok());
    if let Some((trailer, _)) = bytes.split_first_chunk::<TRAILER_BYTES>() {
        note("trailer", Trailer::from_bytes(trailer).is_ok());
        let sealed = with_checksum(&trailer[..TRAILER_BYTES - 4]);
        let trailer = sealed.first_chunk().map(Trailer::from_bytes);
        if let Some(Ok(trailer)) = trailer {
            let _ = trailer.fits(bytes.len() as u64);
            let _ = trailer.file_checksum();
        }
    }
    kinds
}

fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32fast::hash(bytes).to_be_bytes()].concat()
}

/// Headers, a chunk and a trailer as good as any.
#[must_use]
pub fn snapshot_parts_seeds() -> Vec<Vec<u8>> {
    let meta = HeaderMeta {
        last_included_index: LogIndex(70_000),
        last_included_term: Term(9),
        configuration: Configuration::of_voters([1, 2, 3].map(NodeId)),
    };
    let trailer = Trailer {
        chunks: 2,
        payload_bytes: 100_000,
        body_checksum: 1,
    };
    let data = [4; 200];
    let chunk = [&frame_header(0, &data)[..], &data].concat();
    let mut seeds = vec![trailer.to_bytes().to_vec(), chunk];
    if let Ok(mut header) = meta.to_header() {
        seeds.push(header.clone());
        // Without its checksum, which is put there again.
        header.truncate(header.len() - 4);
        seeds.push(header);
    }
    seeds
}

//! See [`crate::fuzzing`].

use raft_core::{Configuration, LogIndex, NodeId, Term};

use super::format::{HeaderMeta, PREAMBLE_BYTES, TRAILER_BYTES, Trailer, header_bytes, open_frame};

/// The header, a chunk and the trailer of a snapshot file: as they are, and with checksums that fit.
pub fn snapshot_parts(bytes: &[u8]) {
    if let Some((preamble, _)) = bytes.split_first_chunk::<PREAMBLE_BYTES>() {
        let _ = header_bytes(preamble);
    }
    let _ = HeaderMeta::from_header(bytes);
    let _ = HeaderMeta::from_header(&with_checksum(bytes));
    let _ = open_frame(0, bytes);
    if let Some((trailer, _)) = bytes.split_first_chunk::<TRAILER_BYTES>() {
        let _ = Trailer::from_bytes(trailer);
        let sealed = with_checksum(&trailer[..TRAILER_BYTES - 4]);
        let trailer = sealed.first_chunk().map(Trailer::from_bytes);
        if let Some(Ok(trailer)) = trailer {
            let _ = trailer.fits(bytes.len() as u64);
            let _ = trailer.file_checksum();
        }
    }
}

fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32fast::hash(bytes).to_be_bytes()].concat()
}

/// A header and a trailer as good as any.
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
    let mut seeds = vec![trailer.to_bytes().to_vec()];
    if let Ok(mut header) = meta.to_header() {
        // Without its checksum, which is put there again.
        header.truncate(header.len() - 4);
        seeds.push(header);
    }
    seeds
}

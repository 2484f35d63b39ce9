//! Header, chunks and trailer as bytes. See the [module](super) for the format.

use crc32fast::Hasher;
use raft_core::{Configuration, LogIndex, SnapshotMeta, Term};
use serde::{Deserialize, Serialize};

use crate::codec;

/// The payload in each chunk but the last, in bytes.
pub const CHUNK_BYTES: usize = 64 * 1024;

pub(super) const FRAME_HEADER_BYTES: usize = 8;
pub(super) const FRAME_BYTES: usize = FRAME_HEADER_BYTES + CHUNK_BYTES;
pub(super) const TRAILER_BYTES: usize = 32;
/// Magic, version and length: the part of the header whose size is fixed.
pub(super) const PREAMBLE_BYTES: usize = 16;

const FORMAT_VERSION: u32 = 2;
const HEADER_MAGIC: &[u8; 8] = b"RAFTSNAP";
const TRAILER_MAGIC: &[u8; 8] = b"SNAPTAIL";
const META_LIMIT_BYTES: usize = 32 * 1024;
const CRC_BYTES: usize = 4;

/// How long a snapshot file with a payload of `payload_bytes` is at most, in bytes.
#[must_use]
pub fn snapshot_file_bytes(payload_bytes: u64) -> u64 {
    const REST_BYTES: usize = PREAMBLE_BYTES + META_LIMIT_BYTES + CRC_BYTES + TRAILER_BYTES;
    let chunks = payload_bytes.div_ceil(CHUNK_BYTES as u64);
    payload_bytes.saturating_add(chunks * FRAME_HEADER_BYTES as u64 + REST_BYTES as u64)
}

/// Which state the snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeaderMeta {
    pub(super) last_included_index: LogIndex,
    pub(super) last_included_term: Term,
    pub(super) configuration: Configuration,
}

impl HeaderMeta {
    pub(super) fn of(snapshot: &SnapshotMeta) -> Self {
        Self {
            last_included_index: snapshot.last_included_index,
            last_included_term: snapshot.last_included_term,
            configuration: snapshot.configuration.clone(),
        }
    }

    /// The header, or what is wrong with this meta.
    pub(super) fn to_header(&self) -> Result<Vec<u8>, String> {
        let meta = codec::encode(self, META_LIMIT_BYTES).map_err(|error| error.to_string())?;
        let length = u32::try_from(meta.len()).map_err(|error| error.to_string())?;
        let mut header = Vec::with_capacity(PREAMBLE_BYTES + meta.len() + CRC_BYTES);
        header.extend_from_slice(HEADER_MAGIC);
        header.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&meta);
        header.extend_from_slice(&crc32fast::hash(&header).to_be_bytes());
        Ok(header)
    }

    /// Reads back a whole header.
    pub(super) fn from_header(header: &[u8]) -> Result<Self, String> {
        let (body, crc) = header
            .split_last_chunk::<CRC_BYTES>()
            .ok_or("its header is cut short")?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err("the checksum of its header does not match".to_owned());
        }
        let meta = body.get(PREAMBLE_BYTES..).ok_or("its header is cut short")?;
        codec::decode(meta, META_LIMIT_BYTES).map_err(|error| format!("its header cannot be read ({error})"))
    }
}

/// The length of the whole header, from its first bytes.
pub(super) fn header_bytes(preamble: &[u8; PREAMBLE_BYTES]) -> Result<usize, String> {
    let [magic @ .., v0, v1, v2, v3, l0, l1, l2, l3] = preamble;
    if magic != HEADER_MAGIC {
        return Err("it does not begin as a snapshot file does".to_owned());
    }
    let version = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
    if version != FORMAT_VERSION {
        return Err(format!(
            "it has format version {version}, and this program reads {FORMAT_VERSION}"
        ));
    }
    match usize::try_from(u32::from_be_bytes([*l0, *l1, *l2, *l3])) {
        Ok(length) if length <= META_LIMIT_BYTES => Ok(PREAMBLE_BYTES + length + CRC_BYTES),
        _ => Err("its header is too long".to_owned()),
    }
}

/// The header of the chunk with this number and payload of at most [`CHUNK_BYTES`].
pub(super) fn frame_header(number: u64, data: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
    let length = u32::try_from(data.len()).expect("a chunk is at most CHUNK_BYTES long");
    let mut hasher = Hasher::new();
    hasher.update(&number.to_be_bytes());
    hasher.update(&length.to_be_bytes());
    hasher.update(data);
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4..].copy_from_slice(&hasher.finalize().to_be_bytes());
    header
}

/// The payload of a whole chunk.
pub(super) fn open_frame(number: u64, frame: &[u8]) -> Result<&[u8], String> {
    match frame.split_first_chunk::<FRAME_HEADER_BYTES>() {
        Some((header, data)) if data.len() <= CHUNK_BYTES && frame_header(number, data) == *header => {
            Ok(data)
        }
        _ => Err(format!("the checksum of its chunk {number} does not match")),
    }
}

/// What the end of the file says about the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) chunks: u64,
    pub(super) payload_bytes: u64,
    /// CRC-32 of everything before the trailer.
    pub(super) body_checksum: u32,
}

impl Trailer {
    pub(super) fn to_bytes(self) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        bytes[..8].copy_from_slice(TRAILER_MAGIC);
        bytes[8..16].copy_from_slice(&self.chunks.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.payload_bytes.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.body_checksum.to_be_bytes());
        let checksum = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; TRAILER_BYTES]) -> Result<Self, String> {
        let number = |at: usize| {
            let eight = bytes[at..at + 8]
                .try_into()
                .expect("eight bytes, within the trailer");
            u64::from_be_bytes(eight)
        };
        let body_checksum = bytes[24..28].try_into().expect("four bytes, within the trailer");
        let trailer = Self {
            chunks: number(8),
            payload_bytes: number(16),
            body_checksum: u32::from_be_bytes(body_checksum),
        };
        // Writing it again checks magic and checksum at once.
        if trailer.to_bytes() == *bytes {
            Ok(trailer)
        } else {
            Err("its trailer is damaged".to_owned())
        }
    }

    /// CRC-32 of the whole file: the checksum before the trailer, continued over the trailer.
    pub(super) fn file_checksum(self) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.body_checksum);
        hasher.update(&self.to_bytes());
        hasher.finalize()
    }

    /// Whether a file with these bytes between header and trailer can have this trailer.
    pub(super) fn fits(self, frames_bytes: u64) -> bool {
        let headers = self.chunks.checked_mul(FRAME_HEADER_BYTES as u64);
        let expected = headers.and_then(|headers| headers.checked_add(self.payload_bytes));
        expected == Some(frames_bytes) && self.chunks == self.payload_bytes.div_ceil(CHUNK_BYTES as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        CHUNK_BYTES, FORMAT_VERSION, FRAME_HEADER_BYTES, HEADER_MAGIC, PREAMBLE_BYTES, Trailer, frame_header,
        header_bytes, open_frame, snapshot_file_bytes,
    };

    #[test]
    fn a_file_is_as_long_as_its_payload_its_chunks_and_the_longest_header_with_the_trailer() {
        // 16 bytes of preamble, 32 KiB of meta, a checksum and the trailer.
        let rest = 16 + 32 * 1024 + 4 + 32;
        for (payload_bytes, chunks) in [(0, 0), (1, 1), (65_536, 1), (65_537, 2), (655_361, 11)] {
            assert_eq!(
                snapshot_file_bytes(payload_bytes),
                payload_bytes + 8 * chunks + rest,
                "{payload_bytes} bytes"
            );
        }
        assert_eq!(snapshot_file_bytes(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_header_longer_than_any_is_refused_before_it_is_read() {
        let header = |meta_bytes: u32| {
            let numbers = [FORMAT_VERSION.to_be_bytes(), meta_bytes.to_be_bytes()].concat();
            let preamble: [u8; PREAMBLE_BYTES] =
                [HEADER_MAGIC.as_slice(), &numbers].concat().try_into().unwrap();
            header_bytes(&preamble)
        };
        assert_eq!(header(7), Ok(16 + 7 + 4));
        assert_eq!(header(32 * 1024), Ok(16 + 32 * 1024 + 4));
        assert!(header(32 * 1024 + 1).is_err());
    }

    #[test]
    fn a_chunk_longer_than_any_is_refused_though_its_checksum_matches() {
        let chunk = |bytes| {
            let data = vec![7; bytes];
            [frame_header(3, &data).as_slice(), &data].concat()
        };
        let longest = chunk(CHUNK_BYTES);
        assert_eq!(open_frame(3, &longest), Ok(&longest[FRAME_HEADER_BYTES..]));
        assert!(open_frame(4, &longest).is_err());
        assert!(open_frame(3, &chunk(CHUNK_BYTES + 1)).is_err());
    }

    #[test]
    fn a_trailer_fits_a_file_of_as_many_bytes_and_chunks_and_no_other() {
        let payload_bytes = CHUNK_BYTES as u64 + 1;
        let trailer = |chunks| Trailer {
            chunks,
            payload_bytes,
            body_checksum: 0,
        };
        let of_chunks = |chunks| payload_bytes + chunks * FRAME_HEADER_BYTES as u64;
        assert!(trailer(2).fits(of_chunks(2)));
        assert!(!trailer(2).fits(of_chunks(2) - 1));
        assert!(!trailer(3).fits(of_chunks(3)), "two chunks hold it");
        assert!(!trailer(u64::MAX).fits(of_chunks(2)));
    }
}

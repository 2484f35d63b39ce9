//! See [`crate::fuzzing`].

use std::path::Path;

use super::file::{HEADER_LIMIT_BYTES, Header, HeaderPages, header_pages, newest_copy, next_record, scan};
use super::frame::{Found, HEAD_BYTES, Place, SECTOR_BYTES, encode, find, seal};
use crate::codec;
use crate::overlay::{Batch, Change};

/// Where the records begin.
const HEADER_BYTES: usize = size_of::<HeaderPages>();

const PLACE: Place = Place {
    generation: 3,
    salt: 5,
};

/// A record of the journal: as it is, and with a checksum that fits.
#[must_use]
pub fn journal_record(bytes: &[u8]) -> Vec<&'static str> {
    let mut sealed = bytes.to_vec();
    sealed.resize(bytes.len().max(1).next_multiple_of(SECTOR_BYTES), 0);
    seal(&mut sealed, PLACE, 1);
    let is_record = [("record", is_record(bytes)), ("contents", is_record(&sealed))];
    kinds_of(is_record)
}

fn is_record(bytes: &[u8]) -> bool {
    match find(bytes, PLACE) {
        Found::Record(frame) => frame.decode().is_some(),
        Found::Bad(_) | Found::Nothing => false,
    }
}

fn kinds_of<const N: usize>(found: [(&'static str, bool); N]) -> Vec<&'static str> {
    let found = found.into_iter().filter(|(_, is_found)| *is_found);
    found.map(|(kind, _)| kind).collect()
}

/// Records as good as any.
#[must_use]
pub fn journal_record_seeds() -> Vec<Vec<u8>> {
    let mut record = record(7);
    if !record.is_empty() {
        seal(&mut record, PLACE, 1);
    }
    vec![record]
}

/// The record of a batch with each kind of change, not sealed.
fn record(number: u64) -> Vec<u8> {
    let change = |value: Option<Vec<u8>>, existed| Change {
        value: value.map(Into::into),
        existed,
    };
    let batch = Batch {
        number,
        changes: [
            (b"added".to_vec(), change(Some(vec![1; 100]), false)),
            (b"removed".to_vec(), change(None, true)),
            (b"replaced".to_vec(), change(Some(vec![2; 700]), true)),
        ]
        .into(),
    };
    let mut record = Vec::new();
    match encode(&batch, &mut record) {
        Ok(()) => record,
        Err(_) => Vec::new(),
    }
}

/// A file of the journal: as it is, and put together, with checksums that fit, of the length of a header (1 byte), the
/// header without its envelope, and records.
#[must_use]
pub fn journal_file(bytes: &[u8]) -> Vec<&'static str> {
    let is_made = put_together(bytes).is_some_and(|file| is_file(&file));
    kinds_of([("file", is_file(bytes)), ("parts", is_made)])
}

/// Whether a header can be read, and at least one record behind it.
fn is_file(bytes: &[u8]) -> bool {
    let path = Path::new("journal");
    let pages = &bytes[..bytes.len().min(HEADER_BYTES)];
    let Ok(header) = newest_copy(path, pages) else {
        return false;
    };
    let Ok(scanned) = scan(path, &header, bytes, |_, _| ()) else {
        return false;
    };
    let _ = next_record(&header, bytes, scanned.position);
    scanned.last_start < scanned.position
}

fn put_together(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first()?;
    let (header, records) = rest.split_at_checked(usize::from(*length))?;
    let header: Header = codec::decode(header, HEADER_LIMIT_BYTES).ok()?;
    let mut file = header_pages(&header).concat();
    file.extend_from_slice(records);
    file.resize(file.len().next_multiple_of(SECTOR_BYTES), 0);
    seal_all(&mut file[HEADER_BYTES..], &header);
    Some(file)
}

/// Seals each record as the one that follows the one before it.
fn seal_all(mut records: &mut [u8], header: &Header) {
    let mut previous = header.previous;
    while let Some((head, _)) = records.split_first_chunk::<HEAD_BYTES>() {
        let body = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let length = (body as usize).saturating_add(HEAD_BYTES);
        let length = length.checked_next_multiple_of(SECTOR_BYTES);
        let Some((record, rest)) = length.and_then(|length| records.split_at_mut_checked(length)) else {
            return;
        };
        previous = seal(record, header.place(), previous);
        records = rest;
    }
}

/// Files as good as any: one that is whole, one of which a header and the last record were torn, and one in parts.
#[must_use]
pub fn journal_file_seeds() -> Vec<Vec<u8>> {
    let header = Header {
        owner: 0x89ab_cdef,
        generation: 3,
        first_batch: 7,
        previous: 1,
        bytes: 1 << 20,
        salt: 5,
    };
    let records = [record(7), record(8)].concat();
    let content = codec::encode(&header, HEADER_LIMIT_BYTES).unwrap_or_default();
    let length = u8::try_from(content.len()).unwrap_or_default();
    let parts = [&[length], content.as_slice(), &records].concat();
    let whole = put_together(&parts).unwrap_or_default();
    let mut torn = whole.clone();
    torn.truncate(whole.len() - SECTOR_BYTES);
    if let Some(byte) = torn.get_mut(3) {
        *byte ^= 1;
    }
    vec![whole, torn, parts]
}

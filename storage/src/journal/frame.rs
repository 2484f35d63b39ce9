//! One record of the journal: a batch, in bytes.
//!
//! All numbers big endian.
//!
//! ```text
//! magic "RJR" (3) | version (1) | length of the body (4) | generation (8) | batch (8)
//! | checksum of the record before (4) | CRC-32 (4)
//! | body: for each change  kind (1) | length of the key (1) | key | length of the value (4) | value
//! | zeroes up to the next multiple of 512
//! ```
//!
//! The CRC-32 covers the salt of the file and all of the record but itself, the zeroes included. It is also
//! the checksum that the next record names.

use std::collections::BTreeMap;

use crc32fast::Hasher;

use crate::overlay::{Batch, Change};

/// Records begin at multiples of this, so that a torn write of one cannot touch the one before it.
pub(super) const SECTOR_BYTES: usize = 512;

/// The version of every record that this program writes, and the only one that it reads.
pub(super) const RECORD_VERSION: u8 = 1;

const MAGIC: [u8; 3] = *b"RJR";
pub(super) const HEAD_BYTES: usize = 32;
const CHECKSUM_AT: usize = 28;

const REMOVED: u8 = 0;
const ADDED: u8 = 1;
const REPLACED: u8 = 2;

/// Where a record belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) generation: u64,
    /// Known to the journal file alone, see [`file`](super::file).
    pub(super) salt: u64,
}

/// A record whose checksum matched.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) version: u8,
    pub(super) batch: u64,
    pub(super) previous: u32,
    pub(super) checksum: u32,
    /// The length of the record, zeroes included.
    pub(super) length: usize,
    body: &'a [u8],
}

/// What is found where a record should be.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Record(Frame<'a>),
    /// The beginning of a record of this file, and what is wrong with it.
    Bad(&'static str),
    /// Nothing of this file: zeroes, or what an earlier use of the file left.
    Nothing,
}

/// Why a batch cannot be put into a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Replaces the content of `buffer` by the record for `batch`, but for what [`seal`] fills in.
pub(super) fn encode(batch: &Batch, buffer: &mut Vec<u8>) -> Result<(), TooLarge> {
    buffer.clear();
    buffer.resize(HEAD_BYTES, 0);
    for (key, change) in &batch.changes {
        let kind = match (&change.value, change.existed) {
            (None, _) => REMOVED,
            (Some(_), false) => ADDED,
            (Some(_), true) => REPLACED,
        };
        let value = change.value.as_deref().unwrap_or_default();
        buffer.push(kind);
        buffer.push(u8::try_from(key.len()).map_err(|_| TooLarge)?);
        buffer.extend_from_slice(key);
        buffer.extend_from_slice(&u32::try_from(value.len()).map_err(|_| TooLarge)?.to_be_bytes());
        buffer.extend_from_slice(value);
    }
    let body = u32::try_from(buffer.len() - HEAD_BYTES).map_err(|_| TooLarge)?;
    buffer[..3].copy_from_slice(&MAGIC);
    buffer[3] = RECORD_VERSION;
    buffer[4..8].copy_from_slice(&body.to_be_bytes());
    buffer[16..24].copy_from_slice(&batch.number.to_be_bytes());
    buffer.resize(buffer.len().next_multiple_of(SECTOR_BYTES), 0);
    Ok(())
}

/// Where the value of each change of `batch` begins in the record that [`encode`] makes for it: so many bytes behind its
/// start. In the order of the keys; where a change has no value, it would be there.
pub(super) fn value_offsets(batch: &Batch) -> impl Iterator<Item = usize> {
    batch.changes.iter().scan(HEAD_BYTES, |position, (key, change)| {
        let value = *position + 2 + key.len() + 4;
        *position = value + change.value.as_deref().map_or(0, <[u8]>::len);
        Some(value)
    })
}

/// Completes a record that [`encode`] began; yields its checksum.
pub(super) fn seal(record: &mut [u8], place: Place, previous: u32) -> u32 {
    record[8..16].copy_from_slice(&place.generation.to_be_bytes());
    record[24..28].copy_from_slice(&previous.to_be_bytes());
    let checksum = checksum(record, place.salt);
    record[CHECKSUM_AT..HEAD_BYTES].copy_from_slice(&checksum.to_be_bytes());
    checksum
}

fn checksum(record: &[u8], salt: u64) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&salt.to_be_bytes());
    hasher.update(&record[..CHECKSUM_AT]);
    hasher.update(&record[HEAD_BYTES..]);
    hasher.finalize()
}

/// Looks for a record at the start of `bytes`.
pub(super) fn find(bytes: &[u8], place: Place) -> Found<'_> {
    let Some((head, _)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Found::Nothing;
    };
    if head[..3] != MAGIC || number(&head[8..16]) != place.generation {
        return Found::Nothing;
    }
    let body = usize::try_from(number(&head[4..8])).unwrap_or(usize::MAX);
    let length = body
        .saturating_add(HEAD_BYTES)
        .checked_next_multiple_of(SECTOR_BYTES);
    let Some((length, record)) = length.and_then(|length| Some((length, bytes.get(..length)?))) else {
        return Found::Bad("runs past the end of the file");
    };
    let stored = number(&head[CHECKSUM_AT..]);
    if u64::from(checksum(record, place.salt)) != stored {
        return Found::Bad("has a checksum that does not match");
    }
    Found::Record(Frame {
        version: head[3],
        batch: number(&head[16..24]),
        previous: u32::try_from(number(&head[24..28])).unwrap_or_default(),
        checksum: u32::try_from(stored).unwrap_or_default(),
        length,
        body: &record[HEAD_BYTES..HEAD_BYTES + body],
    })
}

impl Frame<'_> {
    /// The batch in the record. `None` when the body is not what [`encode`] makes.
    pub(super) fn decode(&self) -> Option<Batch> {
        let mut changes = BTreeMap::new();
        let mut rest = self.body;
        while !rest.is_empty() {
            let kind = take(&mut rest, 1)?[0];
            let key_bytes = usize::from(take(&mut rest, 1)?[0]);
            let key = take(&mut rest, key_bytes)?.to_vec();
            let value_bytes = usize::try_from(number(take(&mut rest, 4)?)).ok()?;
            let value = take(&mut rest, value_bytes)?;
            let change = match kind {
                REMOVED => Change {
                    value: None,
                    existed: true,
                },
                ADDED | REPLACED => Change {
                    value: Some(value.into()),
                    existed: kind == REPLACED,
                },
                _ => return None,
            };
            changes.insert(key, change);
        }
        Some(Batch {
            number: self.batch,
            changes,
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// The big-endian number in at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::{Found, Place, SECTOR_BYTES, encode, find, seal};
    use crate::overlay::{Batch, Change};

    const PLACE: Place = Place {
        generation: 3,
        salt: 0x1234_5678,
    };

    fn batch() -> Batch {
        let change = |value: Option<&[u8]>, existed| Change {
            value: value.map(Into::into),
            existed,
        };
        Batch {
            number: 7,
            changes: [
                (b"a".to_vec(), change(Some(b"added"), false)),
                (b"b".to_vec(), change(Some(b""), true)),
                (b"c".to_vec(), change(None, true)),
                (b"d".to_vec(), change(Some(&[9; 700]), true)),
            ]
            .into(),
        }
    }

    fn record() -> Vec<u8> {
        let mut record = Vec::new();
        encode(&batch(), &mut record).unwrap();
        seal(&mut record, PLACE, 99);
        record
    }

    #[test]
    fn a_record_is_read_back_only_at_its_place() {
        let record = record();
        assert_eq!(record.len(), 2 * SECTOR_BYTES);
        let Found::Record(frame) = find(&record, PLACE) else {
            panic!("not found");
        };
        assert_eq!((frame.batch, frame.previous, frame.length), (7, 99, record.len()));
        assert_eq!(frame.decode(), Some(batch()));
        let another = |place| find(&record, place);
        assert!(matches!(
            another(Place {
                generation: 4,
                ..PLACE
            }),
            Found::Nothing
        ));
        assert!(matches!(another(Place { salt: 1, ..PLACE }), Found::Bad(_)));
    }

    #[test]
    fn every_flipped_bit_and_every_shortening_is_noticed() {
        let record = record();
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(find(&flipped, PLACE), Found::Record(_)), "bit {bit}");
        }
        for length in 0..record.len() {
            assert!(!matches!(find(&record[..length], PLACE), Found::Record(_)));
        }
    }
}

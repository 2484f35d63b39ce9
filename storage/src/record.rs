//! The log as records: one for each appended batch, or several when the batch is large.
//!
//! A record holds consecutive entries. Its key is the letter `l`, the index of its first entry and a fragment
//! number, both big endian, so that the order of the keys is the order of the log. An entry too large for one
//! record is cut into fragments, which share the index and are numbered from 0.
//!
//! A record is at most [`MAX_RECORD_BYTES`] long. The reason is sled: an item over a quarter of a segment
//! becomes a *blob*, a file of its own that sled never syncs, and whose loss would be ours. The items that
//! sled writes are not only our records: after ten changes to a leaf of its tree it writes the whole leaf,
//! of 16 records and a few more between splits and merges, as one item. So the segment is chosen
//! ([`SLED_SEGMENT_BYTES`]) such that a leaf of 24 of the largest records, with their keys, is still no
//! blob; half as long would do for that, and [`spacers`](crate::spacers) tells the other reason.
//!
//! Each record names the serial of the record before it, see [`hard_state`](crate::hard_state). Thus a
//! missing, repeated, swapped or outdated record breaks the chain even though each record by itself is
//! intact.

use bytes::{Bytes, BytesMut};
use raft_core::{Entry, LogIndex};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::error::StorageError;
use crate::sealed::{self, ENVELOPE_BYTES, Flaw};

/// The largest record, in bytes of sled's value.
pub(crate) const MAX_RECORD_BYTES: usize = 32 * 1024;

/// sled's segment size. See the module's comment.
pub(crate) const SLED_SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// The most records that a leaf of sled's tree can hold: it splits above 16, and a merge can add up to 4.
pub(crate) const MAX_RECORDS_IN_A_LEAF: usize = 24;

const _: () = assert!(
    MAX_RECORDS_IN_A_LEAF * (MAX_RECORD_BYTES + 64) < SLED_SEGMENT_BYTES / 4 - 64,
    "a leaf full of the largest records must not become a blob"
);

/// The most bytes of entries or of a fragment in a record: what is left after the envelope, the two
/// serials, and the lengths, of at most 9 bytes each.
const MAX_CONTENT_BYTES: usize = MAX_RECORD_BYTES - ENVELOPE_BYTES - 64;

/// The largest encoded entry, in bytes. The service's own limit on commands is well below it.
pub(crate) const MAX_ENTRY_BYTES: usize = 4 * 1024 * 1024;

/// The first byte of the key of every log record.
pub(crate) const LOG_PREFIX: u8 = b'l';

const KEY_BYTES: usize = 13;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordKey {
    pub(crate) first_index: LogIndex,
    pub(crate) fragment: u32,
}

impl RecordKey {
    pub(crate) fn new(first_index: LogIndex, fragment: u32) -> Self {
        Self {
            first_index,
            fragment,
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [LOG_PREFIX; KEY_BYTES];
        bytes[1..9].copy_from_slice(&self.first_index.get().to_be_bytes());
        bytes[9..].copy_from_slice(&self.fragment.to_be_bytes());
        bytes
    }

    /// `None` when the bytes are not the key of a log record.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; KEY_BYTES] = bytes.try_into().ok()?;
        let (prefix, numbers) = bytes.split_first()?;
        let (index, fragment) = numbers.split_first_chunk::<8>()?;
        let fragment = fragment.try_into().ok()?;
        (*prefix == LOG_PREFIX)
            .then(|| Self::new(LogIndex(u64::from_be_bytes(*index)), u32::from_be_bytes(fragment)))
    }
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) serial: u64,
    /// The serial of the record before this one when it was written; 0 if the log was empty.
    pub(crate) previous_serial: u64,
    pub(crate) content: Content,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Content {
    /// Whole entries, with consecutive indexes. Never empty.
    Entries(Vec<Entry>),
    /// A piece of one entry too large for a record.
    Fragment {
        /// How many pieces there are.
        count: u32,
        /// This piece.
        piece: Bytes,
    },
}

impl LogRecord {
    /// Puts the sealed record in the place of what is in `sealed`.
    pub(crate) fn seal_into(&self, key: RecordKey, sealed: &mut Vec<u8>) -> Result<(), CodecError> {
        sealed::seal_into(&key.to_bytes(), self, MAX_RECORD_BYTES - ENVELOPE_BYTES, sealed)
    }

    pub(crate) fn unseal(key: RecordKey, value: &[u8]) -> Result<Self, Flaw> {
        sealed::unseal(&key.to_bytes(), value, MAX_RECORD_BYTES - ENVELOPE_BYTES)
    }
}

/// A run of entries that goes into one record, or into the fragments of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first_index: LogIndex,
    pub(crate) last_index: LogIndex,
    /// One content, or one for each fragment.
    pub(crate) contents: Vec<Content>,
}

/// Cuts `entries` into runs: as many whole entries as fit in each record, and a run of its own for each entry
/// that does not fit in one.
pub(crate) fn split(entries: &[Entry]) -> Result<Vec<Run>, StorageError> {
    let mut runs = Vec::new();
    let mut pending: Vec<Entry> = Vec::new();
    let mut pending_bytes = 0;
    for entry in entries {
        let size = codec::encoded_len(entry, MAX_ENTRY_BYTES).map_err(|_| too_large(entry))?;
        if pending_bytes + size > MAX_CONTENT_BYTES {
            push_whole(&mut runs, std::mem::take(&mut pending));
            pending_bytes = 0;
        }
        if size > MAX_CONTENT_BYTES {
            runs.push(fragments_of(entry)?);
        } else {
            pending_bytes += size;
            pending.push(entry.clone());
        }
    }
    push_whole(&mut runs, pending);
    Ok(runs)
}

fn too_large(entry: &Entry) -> StorageError {
    StorageError::invalid_write(format!(
        "entry {} has {} bytes, over the limit of {MAX_ENTRY_BYTES}",
        entry.index,
        entry.size_bytes()
    ))
}

fn push_whole(runs: &mut Vec<Run>, entries: Vec<Entry>) {
    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
        runs.push(Run {
            first_index: first.index,
            last_index: last.index,
            contents: vec![Content::Entries(entries)],
        });
    }
}

fn fragments_of(entry: &Entry) -> Result<Run, StorageError> {
    let encoded = Bytes::from(codec::encode(entry, MAX_ENTRY_BYTES).map_err(|_| too_large(entry))?);
    let count = u32::try_from(encoded.len().div_ceil(MAX_CONTENT_BYTES)).map_err(|_| too_large(entry))?;
    let pieces = (0..encoded.len()).step_by(MAX_CONTENT_BYTES);
    let contents = pieces
        .map(|start| {
            let end = encoded.len().min(start + MAX_CONTENT_BYTES);
            Content::Fragment {
                count,
                piece: encoded.slice(start..end),
            }
        })
        .collect();
    Ok(Run {
        first_index: entry.index,
        last_index: entry.index,
        contents,
    })
}

/// Puts the fragments of one entry together again.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    bytes: BytesMut,
    received: u32,
}

impl Assembly {
    /// How many fragments have been added.
    pub(crate) fn received(&self) -> u32 {
        self.received
    }

    /// Adds the next fragment of `count`; yields the entry when it was the last one.
    pub(crate) fn add(&mut self, count: u32, piece: &[u8]) -> Result<Option<Entry>, CodecError> {
        self.bytes.extend_from_slice(piece);
        self.received += 1;
        if self.received < count && self.bytes.len() <= MAX_ENTRY_BYTES {
            return Ok(None);
        }
        let encoded = std::mem::take(self).bytes;
        codec::decode(&encoded, MAX_ENTRY_BYTES).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use raft_core::{Entry, LogIndex, Payload, Term};

    use super::{
        Assembly, Content, LogRecord, MAX_CONTENT_BYTES, MAX_ENTRY_BYTES, MAX_RECORD_BYTES, RecordKey, Run,
        split,
    };
    use crate::{codec, sealed};

    fn command(index: u64, length: usize) -> Entry {
        Entry {
            term: Term(u64::MAX),
            index: LogIndex(index),
            payload: Payload::Command(Bytes::from(vec![7; length])),
        }
    }

    fn joined(runs: &[Run]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut assembly = Assembly::default();
        for content in runs.iter().flat_map(|run| &run.contents) {
            match content {
                Content::Entries(whole) => entries.extend(whole.iter().cloned()),
                Content::Fragment { count, piece } => entries.extend(assembly.add(*count, piece).unwrap()),
            }
        }
        entries
    }

    fn assert_records_fit(runs: &[Run]) {
        for run in runs {
            for (fragment, content) in (0..).zip(&run.contents) {
                let record = LogRecord {
                    serial: u64::MAX,
                    previous_serial: u64::MAX,
                    content: content.clone(),
                };
                let key = RecordKey::new(run.first_index, fragment);
                let mut sealed = Vec::new();
                record.seal_into(key, &mut sealed).unwrap();
                assert!(sealed.len() <= MAX_RECORD_BYTES);
                assert_eq!(LogRecord::unseal(key, &sealed).unwrap(), record);
            }
        }
    }

    #[test]
    fn keys_sort_in_the_order_of_the_log_and_read_back() {
        let keys: Vec<RecordKey> = [
            (1, 0),
            (1, 1),
            (2, 0),
            (255, 0),
            (256, 0),
            (256, 256),
            (u64::MAX, u32::MAX),
        ]
        .map(|(index, fragment)| RecordKey::new(LogIndex(index), fragment))
        .to_vec();
        assert!(
            keys.windows(2)
                .all(|pair| pair[0].to_bytes() < pair[1].to_bytes())
        );
        for key in keys {
            assert_eq!(RecordKey::from_bytes(&key.to_bytes()), Some(key));
        }
        assert_eq!(RecordKey::from_bytes(b"a/hard-state"), None);
        assert_eq!(RecordKey::from_bytes(b"x000000000000"), None);
    }

    #[test]
    fn a_small_batch_is_one_record() {
        let entries: Vec<Entry> = (1..=100).map(|index| command(index, 200)).collect();
        let runs = split(&entries).unwrap();
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].contents.len(), 1);
    }

    /// An entry of so many bytes, encoded.
    fn entry_of(index: u64, encoded_bytes: usize) -> Entry {
        let entry = command(index, encoded_bytes - 16);
        let rest = codec::encoded_len(&entry, 2 * MAX_ENTRY_BYTES).unwrap() - (encoded_bytes - 16);
        command(index, encoded_bytes - rest)
    }

    #[test]
    fn a_record_is_filled_to_the_last_byte_and_only_what_is_longer_is_cut() {
        let contents = |lengths: &[usize]| -> Vec<usize> {
            let entries: Vec<Entry> = (1..)
                .zip(lengths)
                .map(|(index, length)| entry_of(index, *length))
                .collect();
            let runs = split(&entries).unwrap();
            assert_eq!(joined(&runs), entries);
            assert_records_fit(&runs);
            runs.iter().map(|run| run.contents.len()).collect()
        };
        const FULL: usize = MAX_CONTENT_BYTES;
        assert_eq!(contents(&[FULL]), [1], "one entry");
        assert_eq!(contents(&[FULL + 1]), [2], "two pieces of one entry");
        assert_eq!(contents(&[400, FULL - 400]), [1], "two entries in one record");
        assert_eq!(contents(&[400, FULL - 399]), [1, 1], "two records");
        assert_eq!(contents(&[400, FULL - 400, 400, FULL - 400]), [1, 1]);
        assert!(matches!(
            &split(&[entry_of(1, FULL)]).unwrap()[0].contents[0],
            Content::Entries(_)
        ));
    }

    #[test]
    fn a_record_over_the_limit_is_neither_sealed_nor_opened() {
        let key = RecordKey::new(LogIndex(1), 0);
        let record = |piece_bytes| LogRecord {
            serial: 2,
            previous_serial: 1,
            content: Content::Fragment {
                count: 1,
                piece: vec![7; piece_bytes].into(),
            },
        };
        let sealed =
            |record: &LogRecord, limit_bytes| sealed::seal(&key.to_bytes(), record, limit_bytes).unwrap();
        let rest = sealed(&record(32_000), 2 * MAX_RECORD_BYTES).len() - 32_000;
        for (bytes, is_taken) in [(MAX_RECORD_BYTES, true), (MAX_RECORD_BYTES + 1, false)] {
            let record = record(bytes - rest);
            let sealed = sealed(&record, 2 * MAX_RECORD_BYTES);
            assert_eq!(sealed.len(), bytes);
            assert_eq!(record.seal_into(key, &mut Vec::new()).is_ok(), is_taken);
            assert_eq!(LogRecord::unseal(key, &sealed).is_ok(), is_taken);
        }
    }

    #[test]
    fn pieces_that_are_longer_than_any_entry_are_refused_before_the_last() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.add(4, &[0]), Ok(None));
        assert_eq!(assembly.received(), 1);
        assert_eq!(assembly.add(4, &vec![0; MAX_ENTRY_BYTES - 1]), Ok(None));
        assert_eq!(assembly.received(), 2);
        assert!(assembly.add(4, &[0]).is_err());
    }

    #[test]
    fn an_entry_over_the_limit_is_refused() {
        let largest = [entry_of(1, 4 * 1024 * 1024)];
        assert_eq!(joined(&split(&largest).unwrap()), largest);
        let larger = [entry_of(1, 4 * 1024 * 1024 + 1)];
        let refusal = split(&larger).unwrap_err().to_string();
        assert!(refusal.contains("entry 1"), "{refusal}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_entries_split_into_records_that_fit_and_join_again(
            lengths in proptest::collection::vec(
                prop_oneof![0..300_usize, 32_000..33_500_usize, 60_000..200_000_usize], 1..12),
        ) {
            let entries: Vec<Entry> =
                (1..).zip(&lengths).map(|(index, length)| command(index, *length)).collect();
            let runs = split(&entries).unwrap();
            assert_records_fit(&runs);
            prop_assert_eq!(joined(&runs), entries);
        }
    }
}

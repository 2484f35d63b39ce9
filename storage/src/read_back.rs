//! Entries of the log read back while the store is in use, for peers that need what the node has no longer in memory.
//!
//! Such entries are durable and never change again. When they are asked for, what the journal holds of them is read at
//! once; the rest is in sled by then, or will be when the thread that owns sled has done what it was given before. What removes
//! it from there is given to that thread later. So the one queue makes the read see the store as it was at that moment.

use std::collections::VecDeque;
use std::path::Path;

use raft_core::{Entry, LogRead};

use crate::changes::{Span, State};
use crate::error::StorageError;
use crate::hard_state::Root;
use crate::record::RecordKey;
use crate::restore::{Fault, LogReader};

/// The most records for one read: with small ones, their keys would take more than what they hold.
const MAX_RECORDS: usize = 4_096;

/// Where a record is.
enum Place {
    /// It was read from the journal.
    Here(Vec<u8>),
    InSled,
}

/// A read with everything that it needs beside sled.
pub(crate) struct ReadBack {
    read: LogRead,
    root: Root,
    records: Vec<(RecordKey, Place)>,
}

impl ReadBack {
    /// Finds the records; `journaled` tells the value that the journal holds under a key.
    pub(crate) fn prepare(
        read: &LogRead,
        state: &State,
        journaled: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, StorageError>,
    ) -> Result<Self, StorageError> {
        let mut records = Vec::new();
        let mut copied_bytes = 0;
        for span in spans_of(read, state) {
            if records.len() >= MAX_RECORDS || copied_bytes >= read.max_bytes {
                break;
            }
            for fragment in 0..span.records {
                let key = RecordKey::new(span.first_index, fragment);
                let value = journaled(&key.to_bytes())?;
                copied_bytes += value.as_ref().map_or(0, Vec::len);
                records.push((key, value.map_or(Place::InSled, Place::Here)));
            }
        }
        Ok(Self {
            read: *read,
            root: state.root,
            records,
        })
    }

    /// Whether sled is needed.
    pub(crate) fn needs_sled(&self) -> bool {
        self.records
            .iter()
            .any(|(_, place)| matches!(place, Place::InSled))
    }

    /// The entries, verified as when a store is opened. `get` reads a record of sled, whose file is `path`.
    pub(crate) fn entries(
        self,
        path: &Path,
        mut get: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, StorageError>,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut reader = LogReader::from_the_middle(self.root);
        let mut bytes = 0;
        for (key, place) in self.records {
            // The fragments of an entry come together.
            if key.fragment == 0 && bytes >= self.read.max_bytes {
                break;
            }
            let value = match place {
                Place::Here(value) => Some(value),
                Place::InSled => get(&key.to_bytes())?,
            };
            let value = value.ok_or_else(|| Fault::missing(key).at_path(path))?;
            bytes += value.len();
            reader
                .visit(&key.to_bytes(), &value)
                .map_err(|fault| fault.at_path(path))?;
        }
        Ok(within(&self.read, reader.into_entries()))
    }
}

/// The records that hold entries of `read`; none if the log starts behind its first.
fn spans_of<'a>(read: &LogRead, state: &'a State) -> impl Iterator<Item = &'a Span> {
    let spans: &VecDeque<Span> = &state.spans;
    let start = if read.from < state.root.first_index {
        spans.len()
    } else {
        spans.partition_point(|span| span.last_index < read.from)
    };
    let to = read.to;
    spans
        .range(start..)
        .take_while(move |span| span.first_index <= to)
}

/// Those of `entries` that were asked for.
pub(crate) fn within(read: &LogRead, entries: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let wanted = entries
        .into_iter()
        .filter(|entry| (read.from..=read.to).contains(&entry.index));
    let mut bytes = 0;
    wanted
        .take_while(|entry| {
            bytes += entry.size_bytes();
            entry.index == read.from || bytes <= read.max_bytes
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use bytes::Bytes;
    use raft_core::{LogIndex, LogRead, NodeId};

    use super::{MAX_RECORDS, ReadBack};
    use crate::changes::{Span, State};
    use crate::codec;
    use crate::conformance::command;
    use crate::hard_state::Root;
    use crate::record::{Content, LogRecord, MAX_ENTRY_BYTES, RecordKey};

    /// What a store remembers of a log with a record for each entry, but for the second, which has two.
    fn state(last: u64) -> State {
        let span = |index| Span {
            first_index: LogIndex(index),
            last_index: LogIndex(index),
            records: if index == 2 { 2 } else { 1 },
            serial: if index < 2 { index } else { index + 1 },
        };
        State {
            root: Root {
                first_index: LogIndex(1),
                last_index: LogIndex(last),
                last_serial: last + 1,
                ..Root::default()
            },
            spans: (1..=last).map(span).collect(),
            ..State::default()
        }
    }

    /// The record under `key` in that log.
    fn sealed(key: &[u8]) -> Vec<u8> {
        let key = RecordKey::from_bytes(key).unwrap();
        let index = key.first_index.get();
        let entry = command(1, index, 9);
        let (serial, content) = if index == 2 {
            let encoded = Bytes::from(codec::encode(&entry, MAX_ENTRY_BYTES).unwrap());
            let piece = match key.fragment {
                0 => encoded.slice(..2),
                _ => encoded.slice(2..),
            };
            (2 + u64::from(key.fragment), Content::Fragment { count: 2, piece })
        } else {
            (index + u64::from(index > 2), Content::Entries(vec![entry]))
        };
        let record = LogRecord {
            serial,
            previous_serial: serial - 1,
            content,
        };
        let mut sealed = Vec::new();
        record.seal_into(key, &mut sealed).unwrap();
        sealed
    }

    fn read(from: u64, max_bytes: usize) -> LogRead {
        LogRead {
            peer: NodeId(1),
            from: LogIndex(from),
            to: LogIndex(u64::MAX),
            max_bytes,
        }
    }

    #[test]
    fn no_more_is_copied_from_the_journal_than_was_asked_for() {
        let prepared = ReadBack::prepare(&read(1, 100), &state(9), |_| Ok(Some(vec![0; 60]))).unwrap();
        let found: Vec<_> = prepared.records.iter().map(|(key, _)| key.first_index).collect();
        assert_eq!(found, [1, 2, 2].map(LogIndex));
        assert!(!prepared.needs_sled());
    }

    #[test]
    fn a_read_is_of_so_many_records_at_most_however_short_they_are() {
        let state = state(2 * MAX_RECORDS as u64);
        let prepared = ReadBack::prepare(&read(3, usize::MAX), &state, |_| Ok(None)).unwrap();
        assert_eq!(prepared.records.len(), MAX_RECORDS);
        assert!(prepared.needs_sled());
    }

    #[test]
    fn the_database_is_asked_for_no_record_too_many_and_for_all_fragments_of_an_entry() {
        for (from, records) in [(1, 1), (2, 2)] {
            let prepared = ReadBack::prepare(&read(from, 1), &state(2), |_| Ok(None)).unwrap();
            let asked = Cell::new(0);
            let entries = prepared.entries(Path::new("sled/db"), |key| {
                asked.set(asked.get() + 1);
                Ok(Some(sealed(key)))
            });
            assert_eq!(entries.unwrap(), [command(1, from, 9)]);
            assert_eq!(asked.get(), records, "from {from}");
        }
    }
}

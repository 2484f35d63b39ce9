//! Reads every record back and verifies that they belong together.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;

use raft_core::{Entry, LogIndex, Restored};
use serde::de::DeserializeOwned;

use crate::changes::{Span, State};
use crate::error::StorageError;
use crate::hard_state::{
    HARD_STATE_KEY, HardStateRecord, IDENTITY_KEY, Owner, ROOT_KEY, Root, SMALL_RECORD_LIMIT_BYTES,
    SNAPSHOT_KEY, SnapshotRecord,
};
use crate::overlay::View;
use crate::record::{Assembly, Content, LOG_PREFIX, LogRecord, RecordKey};
use crate::rules::MAX_INDEX;
use crate::sealed;

/// A store as read back.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) restored: Restored,
}

/// What is wrong, before it is known which directory it is wrong in.
#[derive(Debug)]
pub(crate) struct Fault {
    what: String,
    index: Option<LogIndex>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self { what, index: None }
    }
}

impl Fault {
    /// The record that should be under `key` is not there.
    pub(crate) fn missing(key: RecordKey) -> Self {
        missing(key.first_index, None)
    }

    /// The error that tells it, of the data file `path`.
    pub(crate) fn at_path(self, path: &Path) -> StorageError {
        StorageError::Damaged {
            path: path.to_path_buf(),
            what: self.what,
            index: self.index,
        }
    }
}

fn at(index: LogIndex, what: impl Into<String>) -> Fault {
    Fault {
        what: what.into(),
        index: Some(index),
    }
}

/// Takes a key and its value, or refuses them.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), Fault> + 'a;

/// Records that can be read back, wherever they are.
pub(crate) trait Stored {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String>;

    /// Hands every record to `visit`, in the order of the keys, until one is refused.
    fn for_each(&self, visit: &mut Visit<'_>) -> Result<(), Fault>;

    /// Where they are.
    fn path(&self) -> &Path;
}

impl Stored for View<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        View::get(self, key)
    }

    fn for_each(&self, visit: &mut Visit<'_>) -> Result<(), Fault> {
        View::for_each(self, visit)
    }

    fn path(&self) -> &Path {
        View::path(self)
    }
}

/// Reads the store, which must belong to `owner`.
pub(crate) fn load(stored: &dyn Stored, owner: &Owner) -> Result<Loaded, StorageError> {
    try_load(stored, owner).map_err(|fault| damaged(stored, fault))
}

/// The number of the batch that the root of the store names.
pub(crate) fn last_batch(tree: &View<'_>) -> Result<u64, StorageError> {
    let root = read_small(tree, ROOT_KEY).and_then(|root: Root| check_root(&root).map(|()| root.batch));
    root.map_err(|fault| damaged(tree, fault))
}

fn damaged(tree: &dyn Stored, fault: Fault) -> StorageError {
    fault.at_path(tree.path())
}

fn try_load(tree: &dyn Stored, owner: &Owner) -> Result<Loaded, Fault> {
    let root: Root = read_small(tree, ROOT_KEY)?;
    check_root(&root)?;
    let stored: Owner = read_small(tree, IDENTITY_KEY)?;
    if stored.identity != owner.identity {
        return Err(Fault::from(format!(
            "the database belongs to node {} of cluster {:?} and the directory does not",
            stored.identity.node_id, stored.identity.cluster_id
        )));
    }
    if stored.incarnation != owner.incarnation {
        return Err(Fault::from(format!(
            "the database is of store {} of this node and the directory of store {}",
            stored.incarnation, owner.incarnation
        )));
    }
    let hard_state: HardStateRecord = read_small(tree, HARD_STATE_KEY)?;
    check_serial("hard state", hard_state.serial, root.hard_state_serial)?;
    let snapshot: SnapshotRecord = read_small(tree, SNAPSHOT_KEY)?;
    check_serial("snapshot", snapshot.serial, root.snapshot_serial)?;
    check_snapshot(&root, &snapshot)?;

    let mut log = LogReader::new(root);
    tree.for_each(&mut |key, value| log.visit(key, value))?;
    let (entries, spans) = log.finish()?;
    Ok(Loaded {
        state: State {
            root,
            snapshot: snapshot.snapshot.clone(),
            spans,
        },
        restored: Restored {
            hard_state: hard_state.hard_state,
            snapshot: snapshot.snapshot,
            entries,
        },
    })
}

pub(crate) fn name_of(key: &[u8]) -> String {
    format!("record {:?}", key.escape_ascii().to_string())
}

fn read_small<T: DeserializeOwned>(tree: &dyn Stored, key: &[u8]) -> Result<T, Fault> {
    let value = tree
        .get(key)?
        .ok_or_else(|| format!("{} is missing", name_of(key)))?;
    sealed::unseal(key, &value, SMALL_RECORD_LIMIT_BYTES)
        .map_err(|flaw| Fault::from(format!("{}: {flaw}", name_of(key))))
}

/// The checksum says that these numbers were written; this says that they can be counted with.
fn check_root(root: &Root) -> Result<(), Fault> {
    let indexes_fit = root.last_index <= MAX_INDEX
        && root.first_index > LogIndex::ZERO
        && root.first_index <= root.last_index.next();
    let counters_fit = root.batch < u64::MAX / 2 && root.last_serial < u64::MAX / 2;
    if indexes_fit && counters_fit {
        return Ok(());
    }
    Err(Fault::from(format!(
        "{} says that the log goes from {} to {}, which cannot be",
        name_of(ROOT_KEY),
        root.first_index,
        root.last_index
    )))
}

fn check_serial(what: &str, found: u64, expected: u64) -> Result<(), Fault> {
    if found == expected {
        return Ok(());
    }
    Err(Fault::from(format!(
        "the {what} record has serial {found} and should have {expected}: it is outdated"
    )))
}

fn check_snapshot(root: &Root, record: &SnapshotRecord) -> Result<(), Fault> {
    let index = record.snapshot.last_included_index;
    if root.first_index.previous() <= index && index <= root.last_index {
        return Ok(());
    }
    Err(at(
        index,
        format!(
            "the snapshot ends at index {index}, which does not join the log from {} to {}",
            root.first_index, root.last_index
        ),
    ))
}

/// Follows the chain of log records.
#[derive(Debug)]
pub(crate) struct LogReader {
    root: Root,
    entries: Vec<Entry>,
    spans: VecDeque<Span>,
    /// The key that the next record must have, and the serial that it must name; `None` before the first.
    expected: Option<(RecordKey, u64)>,
    assembly: Assembly,
    /// What comes next is not known, because a record before it cannot be read, or was not.
    lost: bool,
}

impl LogReader {
    pub(crate) fn new(root: Root) -> Self {
        Self {
            root,
            entries: Vec::new(),
            spans: VecDeque::new(),
            expected: None,
            assembly: Assembly::default(),
            lost: false,
        }
    }

    /// A reader whose first record may be any; those behind it are checked to follow.
    pub(crate) fn from_the_middle(root: Root) -> Self {
        Self {
            lost: true,
            ..Self::new(root)
        }
    }

    /// What was read.
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    pub(crate) fn visit(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        if key.first() != Some(&LOG_PREFIX) {
            let known = [HARD_STATE_KEY, IDENTITY_KEY, ROOT_KEY, SNAPSHOT_KEY].contains(&key);
            return if known {
                Ok(())
            } else {
                Err(format!("{} is not ours", name_of(key)).into())
            };
        }
        let key = RecordKey::from_bytes(key).ok_or_else(|| format!("{} is not ours", name_of(key)))?;
        self.check_key(key)?;
        let record = LogRecord::unseal(key, value).map_err(|flaw| {
            at(
                key.first_index,
                format!("the log record at index {}: {flaw}", key.first_index),
            )
        })?;
        self.check_chain(key, &record)?;
        let serial = record.serial;
        let next = match record.content {
            Content::Entries(entries) => self.take_entries(key, entries, serial)?,
            Content::Fragment { count, piece } => self.take_fragment(key, count, &piece, serial)?,
        };
        self.expected = Some((next, serial));
        self.lost = false;
        Ok(())
    }

    /// Goes on behind a record that was refused; `record` is its content, if that can be read.
    pub(crate) fn go_on_behind(&mut self, key: RecordKey, record: Option<&LogRecord>) {
        self.assembly = Assembly::default();
        self.lost = true;
        self.expected = None;
        let Some(record) = record else { return };
        if let Content::Entries(entries) = &record.content {
            self.entries.extend(entries.iter().cloned());
            let last = entries.last().map_or(key.first_index, |entry| entry.index);
            self.expected = Some((RecordKey::new(last.next(), 0), record.serial));
            self.lost = false;
        }
    }

    fn check_key(&self, key: RecordKey) -> Result<(), Fault> {
        match self.expected {
            // The rest of an entry whose first fragment cannot be read is of no use.
            None if self.lost && key.fragment == 0 => Ok(()),
            None if self.lost => Err(at(
                key.first_index,
                format!(
                    "a record before it, of the entry at index {}, is missing or damaged",
                    key.first_index
                ),
            )),
            None if key.fragment == 0 && key.first_index <= self.root.first_index => Ok(()),
            None => Err(missing(self.root.first_index, Some(key))),
            Some((expected, _)) if expected == key => Ok(()),
            Some((expected, _)) if key < expected => Err(at(
                key.first_index,
                format!(
                    "the log record at index {} overlaps the one before it",
                    key.first_index
                ),
            )),
            Some((expected, _)) => Err(missing(expected.first_index, Some(key))),
        }
    }

    fn check_chain(&self, key: RecordKey, record: &LogRecord) -> Result<(), Fault> {
        let follows = self
            .expected
            .is_none_or(|(_, serial)| serial == record.previous_serial);
        if follows && record.serial > record.previous_serial && record.serial <= self.root.last_serial {
            return Ok(());
        }
        let index = key.first_index;
        let what = format!(
            "the log record at index {index} does not follow the one before it: one of the two is outdated"
        );
        Err(at(index, what))
    }

    fn take_entries(&mut self, key: RecordKey, entries: Vec<Entry>, serial: u64) -> Result<RecordKey, Fault> {
        let first_index = key.first_index;
        let consecutive = (first_index.get()..)
            .zip(&entries)
            .all(|(index, entry)| entry.index.get() == index);
        let last_index = entries
            .last()
            .map(|entry| entry.index)
            .filter(|last| *last <= self.root.last_index);
        let (true, 0, Some(last_index)) = (consecutive, key.fragment, last_index) else {
            let what = format!("the log record at index {first_index} holds entries of other indexes");
            return Err(at(first_index, what));
        };
        self.entries.extend(entries);
        self.spans.push_back(Span {
            first_index,
            last_index,
            records: 1,
            serial,
        });
        Ok(RecordKey::new(last_index.next(), 0))
    }

    fn take_fragment(
        &mut self,
        key: RecordKey,
        count: u32,
        piece: &[u8],
        serial: u64,
    ) -> Result<RecordKey, Fault> {
        let index = key.first_index;
        let unreadable = |why: String| {
            at(
                index,
                format!("the entry at index {index} in {count} records {why}"),
            )
        };
        if key.fragment >= count || index > self.root.last_index {
            return Err(unreadable("has a record too many".to_owned()));
        }
        let entry = self
            .assembly
            .add(count, piece)
            .map_err(|error| unreadable(error.to_string()))?;
        let Some(entry) = entry else {
            return Ok(RecordKey::new(index, self.assembly.received()));
        };
        if entry.index != index || key.fragment + 1 != count {
            return Err(unreadable("is not the entry of that index".to_owned()));
        }
        self.entries.push(entry);
        self.spans.push_back(Span {
            first_index: index,
            last_index: index,
            records: count,
            serial,
        });
        Ok(RecordKey::new(index.next(), 0))
    }

    fn finish(mut self) -> Result<(Vec<Entry>, VecDeque<Span>), Fault> {
        self.check_end()?;
        self.entries.retain(|entry| entry.index >= self.root.first_index);
        Ok((self.entries, self.spans))
    }

    /// The entries that were read, and whether the log ended where it should.
    pub(crate) fn finish_as_it_is(self) -> (Vec<Entry>, Result<(), Fault>) {
        let end = if self.lost { Ok(()) } else { self.check_end() };
        (self.entries, end)
    }

    fn check_end(&self) -> Result<(), Fault> {
        let root = self.root;
        let end = RecordKey::new(root.last_index.next(), 0);
        match self.expected {
            None if root.first_index == end.first_index && root.last_record_serial == 0 => {}
            None => return Err(missing(root.first_index, None)),
            Some((next, _)) if next != end => return Err(missing(next.first_index, None)),
            Some((_, serial)) if serial != root.last_record_serial => {
                return Err(at(
                    root.last_index,
                    format!(
                        "the log record that ends at index {} is outdated",
                        root.last_index
                    ),
                ));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

fn missing(index: LogIndex, found: Option<RecordKey>) -> Fault {
    let then = match found {
        Some(key) if key.first_index == index => "a part of it is there".to_owned(),
        Some(key) => format!("the next one is at index {}", key.first_index),
        None => "the log ends before it".to_owned(),
    };
    at(
        index,
        format!("the log record at index {index} is missing, {then}"),
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::{LogIndex, SnapshotMeta};

    use super::{LogReader, check_root, check_serial, check_snapshot};
    use crate::codec;
    use crate::conformance::command;
    use crate::hard_state::{Root, SnapshotRecord};
    use crate::record::{Content, LogRecord, MAX_ENTRY_BYTES, RecordKey};
    use crate::rules::MAX_INDEX;

    /// A record, and the key that it stands under.
    type Placed = (RecordKey, LogRecord);

    fn root(first: u64, last: u64, last_record_serial: u64) -> Root {
        Root {
            first_index: LogIndex(first),
            last_index: LogIndex(last),
            last_serial: 9,
            last_record_serial,
            ..Root::default()
        }
    }

    /// The record of the entries from `first` to `last`, with its serial and that of the one before it.
    fn whole(first: u64, last: u64, serial: u64, previous_serial: u64) -> Placed {
        let entries = (first..=last).map(|index| command(1, index, 3)).collect();
        let content = Content::Entries(entries);
        placed(first, 0, serial, previous_serial, content)
    }

    /// One of two fragments of the entry `entry`, under the key of `index`.
    fn half(index: u64, entry: u64, fragment: u32, serial: u64) -> Placed {
        let encoded = Bytes::from(codec::encode(&command(1, entry, 3), MAX_ENTRY_BYTES).unwrap());
        let piece = match fragment {
            0 => encoded.slice(..2),
            _ => encoded.slice(2..),
        };
        let content = Content::Fragment { count: 2, piece };
        placed(index, fragment, serial, serial - 1, content)
    }

    fn placed(index: u64, fragment: u32, serial: u64, previous_serial: u64, content: Content) -> Placed {
        let record = LogRecord {
            serial,
            previous_serial,
            content,
        };
        (RecordKey::new(LogIndex(index), fragment), record)
    }

    /// The indexes of the entries that were read, or the index that the refusal names, and its text.
    fn read(mut reader: LogReader, records: &[Placed]) -> Result<Vec<u64>, (u64, String)> {
        let mut sealed = Vec::new();
        let visited = records.iter().try_for_each(|(key, record)| {
            record.seal_into(*key, &mut sealed).unwrap();
            reader.visit(&key.to_bytes(), &sealed)
        });
        let read = visited.and_then(|()| reader.finish());
        read.map(|(entries, _)| entries.iter().map(|entry| entry.index.get()).collect())
            .map_err(|fault| (fault.index.unwrap().get(), fault.what))
    }

    fn assert_refused(reader: LogReader, records: &[Placed], at: u64, because: &str) {
        let (index, what) = read(reader, records).unwrap_err();
        assert!(index == at && what.contains(because), "at {index}: {what}");
    }

    #[test]
    fn a_root_is_refused_where_its_numbers_cannot_be_counted_with() {
        let LogIndex(max) = MAX_INDEX;
        let counted = |batch, last_serial| Root {
            batch,
            last_serial,
            ..root(1, 1, 0)
        };
        let largest = u64::MAX / 2 - 1;
        let fine = [
            root(1, 0, 0),
            root(1, 1, 0),
            root(5, 4, 0),
            root(1, max, 0),
            counted(largest, largest),
        ];
        for root in fine {
            assert!(check_root(&root).is_ok(), "{root:?}");
        }
        let refused = [
            root(0, 0, 0),
            root(5, 3, 0),
            root(1, max + 1, 0),
            counted(largest + 1, 0),
            counted(0, largest + 1),
        ];
        for root in refused {
            assert!(check_root(&root).is_err(), "{root:?}");
        }
    }

    #[test]
    fn the_hard_state_and_the_snapshot_must_be_those_of_the_root() {
        assert!(check_serial("hard state", 2, 2).is_ok());
        for found in [1, 3] {
            assert!(check_serial("hard state", found, 2).is_err());
        }
        for (index, joins) in [(3, false), (4, true), (8, true), (9, false)] {
            let snapshot = SnapshotMeta {
                last_included_index: LogIndex(index),
                ..SnapshotMeta::default()
            };
            let record = SnapshotRecord { serial: 0, snapshot };
            assert_eq!(check_snapshot(&root(5, 8, 0), &record).is_ok(), joins, "{index}");
        }
    }

    #[test]
    fn a_log_is_read_where_its_records_follow_each_other() {
        let records = [whole(1, 3, 2, 1), half(4, 4, 0, 3), half(4, 4, 1, 4)];
        let read_from = |first| read(LogReader::new(root(first, 4, 4)), &records);
        assert_eq!(read_from(1), Ok(vec![1, 2, 3, 4]));
        assert_eq!(read_from(3), Ok(vec![3, 4]), "what is forgotten is left out");
        assert_eq!(read(LogReader::new(root(5, 4, 0)), &[]), Ok(vec![]));
    }

    #[test]
    fn a_log_begins_where_the_root_says() {
        let new = || LogReader::new(root(2, 4, 2));
        assert_refused(new(), &[whole(3, 4, 2, 1)], 2, "the next one is at index 3");
        assert_refused(new(), &[half(2, 2, 1, 2)], 2, "a part of it is there");
        assert_refused(new(), &[half(1, 1, 1, 2)], 2, "the next one is at index 1");
        assert_refused(new(), &[], 2, "the log ends before it");
        assert_refused(LogReader::new(root(5, 4, 2)), &[], 5, "the log ends before it");
        // Where it may begin anywhere, it does not begin within an entry.
        let middle = || LogReader::from_the_middle(root(2, 4, 2));
        assert_eq!(read(middle(), &[whole(3, 4, 2, 1)]), Ok(vec![3, 4]));
        assert_refused(middle(), &[half(3, 3, 1, 2)], 3, "a record before it");
    }

    #[test]
    fn a_log_goes_on_where_the_record_before_ends() {
        let new = || LogReader::new(root(1, 6, 3));
        let first = || whole(1, 3, 2, 1);
        assert_refused(new(), &[first(), whole(3, 6, 3, 2)], 3, "overlaps");
        assert_refused(
            new(),
            &[first(), whole(5, 6, 3, 2)],
            4,
            "the next one is at index 5",
        );
        let fragment = || half(1, 1, 0, 2);
        assert_refused(
            new(),
            &[fragment(), whole(2, 6, 3, 2)],
            1,
            "the next one is at index 2",
        );
        let of_the_same = placed(1, 2, 3, 2, half(1, 1, 1, 3).1.content);
        assert_refused(new(), &[fragment(), of_the_same], 1, "a part of it is there");
    }

    #[test]
    fn a_log_ends_where_the_root_says() {
        let records = [whole(1, 3, 2, 1)];
        assert_refused(
            LogReader::new(root(1, 4, 2)),
            &records,
            4,
            "the log ends before it",
        );
        assert_refused(LogReader::new(root(1, 3, 1)), &records, 3, "outdated");
        assert_refused(LogReader::new(root(1, 2, 2)), &records, 1, "other indexes");
    }

    #[test]
    fn a_record_of_another_time_does_not_follow() {
        let new = || LogReader::new(root(1, 6, 3));
        let follows = "does not follow";
        let first = || whole(1, 3, 2, 1);
        assert_refused(new(), &[first(), whole(4, 6, 3, 1)], 4, follows);
        assert_refused(new(), &[whole(1, 3, 2, 2)], 1, follows);
        assert_refused(new(), &[whole(1, 3, 10, 1)], 1, follows);
    }

    #[test]
    fn fragments_are_those_of_the_entry_at_their_index() {
        let new = |last| LogReader::new(root(1, last, 3));
        let records = [half(1, 1, 0, 2), half(1, 1, 1, 3)];
        assert_eq!(read(new(1), &records), Ok(vec![1]));
        let behind_the_log = [half(2, 2, 0, 2)];
        let reader = LogReader::from_the_middle(root(1, 1, 3));
        assert_refused(reader, &behind_the_log, 2, "a record too many");
        let of_another = [half(1, 2, 0, 2), half(1, 2, 1, 3)];
        assert_refused(new(2), &of_another, 1, "not the entry of that index");
    }
}

//! Turns the writes of one call into one batch of record changes.
//!
//! Writes of one call may build on each other (an append, then another that overwrites its end), so changes
//! collect in a map that later writes read first. What is in the map when all writes are done is the batch,
//! but for records that were both added and removed in it.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use raft_core::{Entry, HardState, LogIndex, SnapshotMeta, Write};
use serde::Serialize;

use crate::codec::CodecError;
use crate::error::StorageError;
use crate::hard_state::{
    HARD_STATE_KEY, HardStateRecord, ROOT_KEY, Root, SMALL_RECORD_LIMIT_BYTES, SNAPSHOT_KEY, SnapshotRecord,
};
use crate::overlay::{Batch, Change, Value};
use crate::record::{self, Content, LogRecord, RecordKey, Run};
use crate::rules::LogBounds;
use crate::sealed;

/// How many records a batch removes at most. A compaction can forget hundreds of thousands, which would hold
/// up the writes behind it for seconds; so the rest goes with the batches after it. Until then restoring
/// skips them.
const FORGOTTEN_RECORDS_PER_BATCH: usize = 512;

/// What a record, or the fragments of one entry, hold. Kept in memory for every record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first_index: LogIndex,
    pub(crate) last_index: LogIndex,
    /// How many records: 1, or the number of fragments.
    pub(crate) records: u32,
    /// The serial of the last of them.
    pub(crate) serial: u64,
}

/// What the store remembers of its records between writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) root: Root,
    pub(crate) snapshot: SnapshotMeta,
    /// The records of the log, in order.
    pub(crate) spans: VecDeque<Span>,
}

impl State {
    pub(crate) fn bounds(&self) -> LogBounds {
        LogBounds {
            first: self.root.first_index,
            last: self.root.last_index,
            snapshot: self.snapshot.last_included_index,
        }
    }
}

/// The records as they are before a batch.
pub(crate) trait Records {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Where the records are.
    fn path(&self) -> &Path;
}

/// The changes of one batch while they are collected.
///
/// `state` changes as the writes are applied. When anything fails it no longer matches the disk; the store
/// must then not be used any more, which is the rule after a failed write anyway.
pub(crate) struct Changes<'a> {
    before: &'a dyn Records,
    state: &'a mut State,
    changes: BTreeMap<Vec<u8>, Change>,
    /// Where a record is put together. Kept for its memory.
    sealed: Vec<u8>,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(before: &'a dyn Records, state: &'a mut State) -> Self {
        Self {
            before,
            state,
            changes: BTreeMap::new(),
            sealed: Vec::new(),
        }
    }

    /// Adds one write.
    pub(crate) fn apply(&mut self, write: &Write) -> Result<(), StorageError> {
        self.state.bounds().check(write)?;
        match write {
            Write::HardState(hard_state) => self.set_hard_state(*hard_state),
            Write::Append(entries) => self.append(entries),
            Write::InstallSnapshot {
                snapshot,
                keep_suffix,
            } => self.install(snapshot, *keep_suffix),
            Write::Compact {
                snapshot,
                first_retained,
            } => {
                self.set_snapshot(snapshot)?;
                self.drop_before(*first_retained);
                Ok(())
            }
        }
    }

    /// Adds a small record.
    pub(crate) fn put_small<T: Serialize>(&mut self, key: &[u8], value: &T) -> Result<(), StorageError> {
        let sealed = sealed::seal(key, value, SMALL_RECORD_LIMIT_BYTES)
            .map_err(|error| StorageError::invalid_write(format!("a record is too large: {error}")))?;
        self.change(key, Some(sealed.into()), true);
        Ok(())
    }

    /// Changes one record. `existed` tells whether it was there before the batch, if this is the first change
    /// to it.
    fn change(&mut self, key: &[u8], value: Option<Value>, existed: bool) {
        match self.changes.get_mut(key) {
            Some(change) => change.value = value,
            None => drop(self.changes.insert(key.to_vec(), Change { value, existed })),
        }
    }

    /// Seals the batch with a new root.
    pub(crate) fn finish(mut self) -> Result<Batch, StorageError> {
        self.remove_forgotten();
        self.state.root.batch += 1;
        self.state.root.last_record_serial = self.state.spans.back().map_or(0, |span| span.serial);
        let root: Root = self.state.root;
        self.put_small(ROOT_KEY, &root)?;
        self.changes
            .retain(|_, change| change.existed || change.value.is_some());
        Ok(Batch {
            number: root.batch,
            changes: self.changes,
        })
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) -> Result<(), StorageError> {
        let serial = self.next_serial();
        self.state.root.hard_state_serial = serial;
        self.put_small(HARD_STATE_KEY, &HardStateRecord { serial, hard_state })
    }

    pub(crate) fn set_snapshot(&mut self, snapshot: &SnapshotMeta) -> Result<(), StorageError> {
        let serial = self.next_serial();
        self.state.root.snapshot_serial = serial;
        self.state.snapshot = snapshot.clone();
        self.put_small(
            SNAPSHOT_KEY,
            &SnapshotRecord {
                serial,
                snapshot: snapshot.clone(),
            },
        )
    }

    fn install(&mut self, snapshot: &SnapshotMeta, keep_suffix: bool) -> Result<(), StorageError> {
        self.set_snapshot(snapshot)?;
        let start = snapshot.last_included_index.next();
        if keep_suffix {
            self.drop_before(start);
        } else {
            while let Some(span) = self.state.spans.pop_back() {
                self.remove(span);
            }
            self.state.root.first_index = start;
            self.state.root.last_index = snapshot.last_included_index;
        }
        Ok(())
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), StorageError> {
        let runs = record::split(entries)?;
        for run in runs {
            self.truncate_from(run.first_index)?;
            self.push(run)?;
        }
        Ok(())
    }

    fn push(&mut self, run: Run) -> Result<(), StorageError> {
        let mut previous_serial = self.state.spans.back().map_or(0, |span| span.serial);
        let mut records = 0;
        for content in run.contents {
            let serial = self.next_serial();
            let key = RecordKey::new(run.first_index, records);
            let record = LogRecord {
                serial,
                previous_serial,
                content,
            };
            self.put_log_record(key, &record, false)?;
            previous_serial = serial;
            records += 1;
        }
        let Run {
            first_index,
            last_index,
            ..
        } = run;
        self.state.spans.push_back(Span {
            first_index,
            last_index,
            records,
            serial: previous_serial,
        });
        self.state.root.last_index = last_index;
        Ok(())
    }

    /// Removes the entries from `index` on (Raft §5.3). A record that holds `index` in its middle is
    /// rewritten without its end.
    fn truncate_from(&mut self, index: LogIndex) -> Result<(), StorageError> {
        while let Some(span) = self.state.spans.pop_back_if(|span| span.first_index >= index) {
            self.remove(span);
        }
        if let Some(span) = self.state.spans.pop_back_if(|span| span.last_index >= index) {
            self.shorten(span, index)?;
        }
        self.state.root.last_index = self.state.root.last_index.min(index.previous());
        Ok(())
    }

    fn shorten(&mut self, span: Span, end: LogIndex) -> Result<(), StorageError> {
        let key = RecordKey::new(span.first_index, 0);
        let mut record = self.read(key)?;
        if let Content::Entries(entries) = &mut record.content {
            entries.retain(|entry| entry.index < end);
        }
        let serial = self.next_serial();
        record.serial = serial;
        self.put_log_record(key, &record, true)?;
        self.state.spans.push_back(Span {
            last_index: end.previous(),
            serial,
            ..span
        });
        Ok(())
    }

    /// Forgets the entries before `first_retained`. Their records go in [`finish`](Self::finish).
    fn drop_before(&mut self, first_retained: LogIndex) {
        let root = &mut self.state.root;
        root.first_index = root.first_index.max(first_retained);
    }

    /// Removes records that hold only forgotten entries, oldest first and not too many at once.
    fn remove_forgotten(&mut self) {
        let first_index = self.state.root.first_index;
        for _ in 0..FORGOTTEN_RECORDS_PER_BATCH {
            match self
                .state
                .spans
                .pop_front_if(|span| span.last_index < first_index)
            {
                Some(span) => self.remove(span),
                None => return,
            }
        }
    }

    fn remove(&mut self, span: Span) {
        for fragment in 0..span.records {
            let key = RecordKey::new(span.first_index, fragment);
            self.change(&key.to_bytes(), None, true);
        }
    }

    fn put_log_record(
        &mut self,
        key: RecordKey,
        record: &LogRecord,
        existed: bool,
    ) -> Result<(), StorageError> {
        record
            .seal_into(key, &mut self.sealed)
            .map_err(|error: CodecError| {
                StorageError::invalid_write(format!(
                    "the record at {} is too large: {error}",
                    key.first_index
                ))
            })?;
        let sealed = Value::from(self.sealed.as_slice());
        self.change(&key.to_bytes(), Some(sealed), existed);
        Ok(())
    }

    fn read(&self, key: RecordKey) -> Result<LogRecord, StorageError> {
        let bytes = key.to_bytes();
        let value = match self.changes.get(bytes.as_slice()) {
            Some(change) => change.value.as_deref().map(<[u8]>::to_vec),
            None => self.before.get(&bytes)?,
        };
        let unsealed = match value {
            Some(sealed) => LogRecord::unseal(key, &sealed).map_err(|flaw| flaw.to_string()),
            None => Err("it is missing".to_owned()),
        };
        unsealed.map_err(|flaw| StorageError::Damaged {
            path: self.before.path().to_path_buf(),
            what: format!("the log record at index {}: {flaw}", key.first_index),
            index: Some(key.first_index),
        })
    }

    fn next_serial(&mut self) -> u64 {
        self.state.root.last_serial += 1;
        self.state.root.last_serial
    }
}

//! The replicated state machine: keys and values, and the session table (Raft §2, thesis §6.3).
//!
//! The same entries give the same state and the same replies on every replica. Nothing here looks at a
//! clock, at a setting or at chance, and every error of a command is such a reply too. What is not a
//! reply, an entry that cannot be decoded, stops the node.

use std::sync::Arc;

use bytes::Bytes;
use raft_core::{Entry, LogIndex, Payload, Term};
use rpc::client::{GetReply, KvError, SessionId};
use thiserror::Error;

use crate::command::{Command, CommandError, Operation, validate_value_len};
use crate::map::{Batch, LONGEST_COPIED_BYTES, SharedMap, Value, Versioned, key_of};
use crate::sessions::{Answer, DEFAULT_SESSION_CAP, Outcome, SessionTable};
use crate::state_reader::{Progress, StateReader};
use crate::state_snapshot::{self, StateSnapshot, stored_bytes};

/// What an entry gave, for whoever waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The entry was none of a client's: a leader's no-op or a configuration.
    Nothing,
    /// The session is open.
    SessionOpened(SessionId),
    /// What the write did, or why it was not done.
    Written(Result<Outcome, KvError>),
    /// What a read through the log found.
    Read(GetReply),
}

/// One applied entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The entry's position in the log.
    pub index: LogIndex,
    /// The entry's term. A waiter for another term at this index waits in vain.
    pub term: Term,
    /// What the entry gave.
    pub reply: Reply,
}

/// Why the state machine cannot go on, or cannot be read back. The node must stop.
#[derive(Debug, Error)]
pub enum StateError {
    /// A committed entry is not a command.
    #[error("entry {index} of the log cannot be applied: {source}")]
    Undecodable {
        /// The entry.
        index: LogIndex,
        /// What is wrong with it.
        source: CommandError,
    },
    /// A snapshot could not be read or written.
    #[error("the state snapshot could not be read or written: {0}")]
    SnapshotIo(#[from] std::io::Error),
    /// A snapshot of another format.
    #[error(
        "the state snapshot has format {found}, this program reads format {known}: \
         run the release that wrote it, or a newer one",
        known = crate::state_snapshot::SNAPSHOT_FORMAT
    )]
    SnapshotFormat {
        /// The format found.
        found: u8,
    },
    /// The bytes are not a snapshot, or not one that any replica wrote.
    #[error("the state snapshot is damaged: {0}")]
    SnapshotDamaged(&'static str),
}

/// The state of one replica. Owned by whoever applies entries; others read through [`StateReader`].
#[derive(Debug)]
pub struct StateMachine {
    pub(crate) map: SharedMap,
    pub(crate) sessions: SessionTable,
    pub(crate) last_applied: LogIndex,
    pub(crate) last_applied_term: Term,
    /// What the keys and values take in a snapshot, in bytes.
    map_bytes: u64,
    progress: Arc<Progress>,
    reader: StateReader,
}

impl Default for StateMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl StateMachine {
    /// The empty state, before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self::with_session_cap(DEFAULT_SESSION_CAP)
    }

    /// The empty state with another cap on sessions, for tests. All replicas of a cluster must start with
    /// the same one.
    ///
    /// # Panics
    ///
    /// When `cap` is 0.
    #[must_use]
    pub fn with_session_cap(cap: u32) -> Self {
        Self::from_parts(
            (SharedMap::default(), 0),
            SessionTable::new(cap),
            LogIndex::ZERO,
            Term::ZERO,
        )
    }

    /// `map_bytes` is what [`stored_bytes`] says of all that is in `map`.
    pub(crate) fn from_parts(
        (map, map_bytes): (SharedMap, u64),
        sessions: SessionTable,
        last_applied: LogIndex,
        last_applied_term: Term,
    ) -> Self {
        let progress = Arc::new(Progress::new(last_applied, sessions.len()));
        let reader = StateReader::new(map.clone(), Arc::clone(&progress));
        Self {
            map,
            sessions,
            last_applied,
            last_applied_term,
            map_bytes,
            progress,
            reader,
        }
    }

    /// The last entry that was applied; 0 before the first.
    #[must_use]
    pub fn last_applied(&self) -> LogIndex {
        self.last_applied
    }

    /// The term of that entry.
    #[must_use]
    pub fn last_applied_term(&self) -> Term {
        self.last_applied_term
    }

    /// How long a snapshot of the state as it is now would be, in bytes. Kept along: costs nothing.
    #[must_use]
    pub fn snapshot_bytes(&self) -> u64 {
        state_snapshot::frame_bytes(&self.sessions).saturating_add(self.map_bytes)
    }

    /// A handle for reading while entries are applied. It follows the state machine across
    /// [`StateMachine::install`].
    #[must_use]
    pub fn reader(&self) -> StateReader {
        self.reader.clone()
    }

    /// Applies committed entries, in order, each once. Readers see all of the batch or none of it.
    ///
    /// # Errors
    ///
    /// When an entry cannot be decoded. Nothing of the batch was applied; the node must stop.
    ///
    /// # Panics
    ///
    /// When the entries do not follow the last applied one without a gap, or a term goes back.
    pub fn apply_batch(&mut self, entries: &[Entry]) -> Result<Vec<Applied>, StateError> {
        self.assert_follow(entries);
        let commands = entries.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = entries.last() else {
            return Ok(Vec::new());
        };

        let Self {
            map,
            sessions,
            map_bytes,
            progress,
            ..
        } = self;
        let applied = map.write(|list| {
            let applied = entries
                .iter()
                .zip(commands)
                .map(|(entry, command)| {
                    let reply = command.map_or(Reply::Nothing, |command| {
                        let mut keys = CountedList {
                            list,
                            bytes: map_bytes,
                        };
                        apply(&mut keys, sessions, entry, command)
                    });
                    Applied {
                        index: entry.index,
                        term: entry.term,
                        reply,
                    }
                })
                .collect();
            // Under the list's lock, so that no reader sees the index without the data or the data
            // without the index.
            progress.publish(last.index, sessions.len());
            applied
        });
        self.last_applied = last.index;
        self.last_applied_term = last.term;
        Ok(applied)
    }

    /// Replaces the whole state by one that a leader's snapshot held (Raft §7). Readers switch at once. Yields the state
    /// that was replaced: to drop a large one takes as long as a second.
    ///
    /// # Panics
    ///
    /// When the new state is older than this one: applied entries would be undone.
    #[must_use = "dropping it takes its time"]
    pub fn install(&mut self, restored: Self) -> Self {
        assert!(
            restored.last_applied >= self.last_applied,
            "a snapshot of entry {} cannot replace the state of entry {}",
            restored.last_applied,
            self.last_applied
        );
        self.reader.switch_to(&restored.reader);
        let reader = self.reader.clone();
        std::mem::replace(self, Self { reader, ..restored })
    }

    /// The state as it is now, to be written out while entries go on being applied. Costs a few
    /// microseconds, however large the state is; see [`SessionTable::freeze`].
    #[must_use]
    pub fn snapshot(&self) -> StateSnapshot {
        StateSnapshot::new(
            self.map.snapshot(),
            self.sessions.freeze(),
            self.last_applied,
            self.last_applied_term,
        )
    }

    /// A hash of everything that replicas must agree on: keys, values, versions, sessions and how far
    /// the log is applied. Equal states have equal hashes in any process. Walks the whole state.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        self.snapshot().hash()
    }

    fn assert_follow(&self, entries: &[Entry]) {
        let (mut index, mut term) = (self.last_applied, self.last_applied_term);
        for entry in entries {
            assert!(
                entry.index == index.next(),
                "entry {} cannot be applied after entry {index}",
                entry.index
            );
            assert!(
                entry.term >= term,
                "entry {index} has term {term}, the next one has term {}",
                entry.term
            );
            (index, term) = (entry.index, entry.term);
        }
    }
}

fn decode(entry: &Entry) -> Result<Option<Command>, StateError> {
    match &entry.payload {
        Payload::Noop { .. } | Payload::Configuration(_) => Ok(None),
        Payload::Command(encoded) => {
            Command::decode(encoded)
                .map(Some)
                .map_err(|source| StateError::Undecodable {
                    index: entry.index,
                    source,
                })
        }
    }
}

/// The keys and values, counted as they change.
struct CountedList<'a, 'b> {
    list: &'a mut Batch<'b>,
    /// What they take in a snapshot.
    bytes: &'a mut u64,
}

impl CountedList<'_, '_> {
    fn get(&self, key: &[u8]) -> Option<&Versioned> {
        self.list.get(key)
    }

    /// Yields what was replaced.
    fn insert(&mut self, key: Bytes, value: Versioned) -> Option<Versioned> {
        let key_len = key.len();
        *self.bytes += stored_bytes(key_len, value.value.len());
        let replaced = self.list.insert(key_of(key), value);
        if let Some(replaced) = &replaced {
            *self.bytes -= stored_bytes(key_len, replaced.value.len());
        }
        replaced
    }

    /// The value of `key`, out of the map, so that it can grow where it stands. An empty one is in its place, which nobody
    /// sees if another is [inserted](Self::insert) before the batch ends.
    fn take(&mut self, key: Bytes) -> Option<Value> {
        let nothing = Versioned {
            value: Value::from(Bytes::new()),
            version: LogIndex::ZERO,
        };
        self.insert(key, nothing).map(|held| held.value)
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let removed = self.list.remove(key);
        if let Some(removed) = &removed {
            *self.bytes -= stored_bytes(key.len(), removed.value.len());
        }
        removed.is_some()
    }
}

fn apply(
    list: &mut CountedList<'_, '_>,
    sessions: &mut SessionTable,
    entry: &Entry,
    command: Command,
) -> Reply {
    match command {
        Command::OpenSession { secret } => Reply::SessionOpened(sessions.open(entry.index, secret)),
        Command::Write { id, op } => {
            Reply::Written(sessions.execute_once(entry.index, &id, || execute(list, entry.index, op)))
        }
        Command::Get { key } => {
            let found = list.get(&key).map(Versioned::to_found);
            Reply::Read(GetReply {
                found,
                applied_index: entry.index,
                term: entry.term,
            })
        }
    }
}

fn execute(list: &mut CountedList<'_, '_>, index: LogIndex, op: Operation) -> Answer {
    op.validate()?;
    let (key, value) = match op {
        Operation::Put { key, value } => (key, Value::from(value)),
        Operation::Append { key, value } => {
            let held = list.get(&key).map(|held| &held.value);
            let held_len = held.map_or(0, |held| held.len());
            validate_value_len(held_len + value.len())?;
            let held = if held_len > LONGEST_COPIED_BYTES {
                list.take(key.clone())
            } else {
                held.cloned()
            };
            let value = match held {
                Some(held) => held.appended(value),
                None => Value::from(value),
            };
            (key, value)
        }
        Operation::Delete { key } => {
            return Ok(Outcome::Deleted {
                existed: list.remove(&key),
            });
        }
    };
    let value = Versioned {
        value,
        version: index,
    };
    list.insert(key, value);
    Ok(Outcome::Stored { version: index })
}

#[cfg(test)]
#[path = "state_machine_tests.rs"]
mod tests;

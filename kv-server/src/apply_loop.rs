//! The apply loop: committed entries change the state, snapshots of it are cut as it goes, and one that was received takes
//! its place (Raft §5.3, §7).
//!
//! [`ApplyLoop`] decides; it has no thread and no clock, and reads no file. Who runs it does elsewhere what takes long, and
//! tells what came of it: [writes](Cut::write) a snapshot that was begun, [loads](load) one that is to be restored.
//!
//! ```
//! use kv_server::apply_loop::{ApplyLoop, CutEnd};
//! use kv_server::state_machine::StateMachine;
//! use raft_core::{Configuration, Entry, LogIndex, Payload, SnapshotMeta, Term};
//!
//! let snapshots = storage::MemorySnapshots::new();
//! // A snapshot whenever one byte of log was applied.
//! let mut apply_loop = ApplyLoop::new(StateMachine::new(), SnapshotMeta::default(), 1);
//! let first = Entry { index: LogIndex(1), term: Term(1), payload: Payload::Configuration(Configuration::default()) };
//! let progress = apply_loop.apply(vec![first])?.expect("no snapshot is being loaded");
//! assert_eq!(progress.up_to, LogIndex(1));
//!
//! let cut = apply_loop.begin_cut().expect("none is under way");
//! let end = apply_loop.cut_finished(cut.write(&snapshots))?;
//! assert!(matches!(end, CutEnd::Written(snapshot) if snapshot.last_included_index == LogIndex(1)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::VecDeque;
use std::io;

use raft_core::{Configuration, Entry, LogIndex, Payload, SnapshotMeta};
use storage::{SnapshotStore, StorageError};

use crate::state_machine::{Applied, StateError, StateMachine};
use crate::state_snapshot::StateSnapshot;

/// Less room than this is not worth a snapshot that is cut to make it.
const WORTHWHILE_BYTES: u64 = 1 << 20;

/// Why a snapshot could not be loaded, or cut.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file cannot be opened or is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file does not hold a state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file cannot be written.
    #[error("the snapshot at {index} could not be written: {source}. {}", advice(source))]
    Write {
        /// The last entry that it was to cover.
        index: LogIndex,
        /// What the operating system said.
        source: io::Error,
    },
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "The disk is full: make room on it",
        io::ErrorKind::FileTooLarge => {
            "A limit on the size of files stops it: raise it (ulimit -f in a shell, LimitFSIZE= in a unit file)"
        }
        _ => "Check the disk: is it full, or failing?",
    }
}

impl SnapshotError {
    /// Whether the next one may well be written: only room was lacking, on the disk or in a quota, or somebody removed
    /// the file that was being written.
    fn may_pass(&self) -> bool {
        use io::ErrorKind::{NotFound, QuotaExceeded, StorageFull};
        let kind = match self {
            Self::Write { source, .. } => source.kind(),
            Self::Storage(StorageError::Io { source, .. }) => source.kind(),
            Self::Storage(_) | Self::State(_) => return false,
        };
        matches!(kind, StorageFull | QuotaExceeded | NotFound)
    }
}

/// Loads the state that `snapshot` holds; that of no entry at all is `empty`.
///
/// # Errors
///
/// When the file is missing, damaged, or of another format.
pub fn load(
    snapshots: &dyn SnapshotStore,
    snapshot: &SnapshotMeta,
    empty: impl FnOnce() -> StateMachine,
) -> Result<StateMachine, SnapshotError> {
    if snapshot.last_included_index == LogIndex::ZERO {
        return Ok(empty());
    }
    let mut content = snapshots.open(snapshot)?.content();
    Ok(StateMachine::read_from(&mut content)?)
}

/// A snapshot that was begun: the state and the members at one point of the log, unchanged by what is applied later.
#[derive(Debug)]
pub struct Cut {
    state: StateSnapshot,
    configuration: Configuration,
}

impl Cut {
    /// The last entry that it covers.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.state.last_applied()
    }

    /// Writes it out. Takes long where the state is large.
    ///
    /// # Errors
    ///
    /// When the file cannot be written. There is then no snapshot.
    pub fn write(&self, snapshots: &dyn SnapshotStore) -> Result<SnapshotMeta, SnapshotError> {
        let index = self.index();
        let mut file = snapshots.create(index, self.state.last_applied_term(), &self.configuration)?;
        let written = self.state.write_to(&mut file);
        written.map_err(|source| SnapshotError::Write { index, source })?;
        Ok(file.finish()?)
    }
}

/// What came of a snapshot that was cut.
#[derive(Debug)]
pub enum CutEnd {
    /// It is in place, and the core is to know.
    Written(SnapshotMeta),
    /// Only room was lacking. Nothing depends on a snapshot that was not written: the log is still there, and another one
    /// is written later.
    PutOff(SnapshotError),
}

/// The state went on.
#[derive(Debug)]
pub struct Progress {
    /// The entries that were applied; none if a snapshot was restored.
    pub entries: Vec<Entry>,
    /// What came of them.
    pub applied: Vec<Applied>,
    /// The last entry that the state covers now.
    pub up_to: LogIndex,
}

/// A snapshot is in the place of the state.
#[derive(Debug)]
pub struct Restored {
    /// Up to where the state goes now.
    pub progress: Progress,
    /// What came behind it meanwhile, to be [applied](ApplyLoop::apply) in this order.
    pub waiting: VecDeque<Vec<Entry>>,
    /// The state that was replaced. To drop a large one takes long, so better not where entries are applied.
    pub replaced: StateMachine,
}

/// The state machine, and when snapshots of it are cut.
#[derive(Debug)]
pub struct ApplyLoop {
    state: StateMachine,
    /// The members as of the last applied entry; goes into the next snapshot.
    configuration: Configuration,
    /// The latest snapshot: the state was loaded from it, or is being loaded from it, or it was cut here.
    snapshot: SnapshotMeta,
    snapshot_log_bytes: u64,
    /// Bytes of the log applied since the last snapshot.
    log_bytes: u64,
    /// While a snapshot is written: the bytes of the log that it covers.
    cutting: Option<u64>,
    is_put_off: bool,
    /// While a snapshot is being loaded, what comes behind it.
    restoring: Option<VecDeque<Vec<Entry>>>,
}

impl ApplyLoop {
    /// For a `state` that was loaded from `snapshot`. A snapshot is due when so many bytes of the log were applied since
    /// the last one.
    #[must_use]
    pub fn new(state: StateMachine, snapshot: SnapshotMeta, snapshot_log_bytes: u64) -> Self {
        Self {
            state,
            configuration: snapshot.configuration.clone(),
            snapshot,
            snapshot_log_bytes,
            log_bytes: 0,
            cutting: None,
            is_put_off: false,
            restoring: None,
        }
    }

    /// The state as it is.
    #[must_use]
    pub fn state(&self) -> &StateMachine {
        &self.state
    }

    /// Bytes of the log applied since the last snapshot.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Applies committed entries, which come in order and without gap. `None` while a snapshot is being loaded: they are
    /// applied behind it.
    ///
    /// # Errors
    ///
    /// When one does not follow the last, or cannot be read. The node must stop.
    pub fn apply(&mut self, entries: Vec<Entry>) -> Result<Option<Progress>, StateError> {
        if let Some(waiting) = &mut self.restoring {
            waiting.push_back(entries);
            return Ok(None);
        }
        let applied = self.state.apply_batch(&entries)?;
        for entry in &entries {
            self.log_bytes += entry.size_bytes() as u64;
            if let Payload::Configuration(configuration) = &entry.payload {
                self.configuration = configuration.clone();
            }
        }
        Ok(Some(Progress {
            entries,
            applied,
            up_to: self.state.last_applied(),
        }))
    }

    /// Whether so much was applied since the last snapshot that another one is due: to be asked when something was applied, and
    /// when [nothing is in the way](Self::may_cut) any more.
    #[must_use]
    pub fn is_cut_due(&self) -> bool {
        self.log_bytes >= self.snapshot_log_bytes.max(1)
    }

    /// Whether a snapshot that takes `next_bytes` gives back enough room for what it costs: by the log that it replaces, or
    /// because much that is in the last one was deleted since. At least half of what it takes for a moment, so that the
    /// disk is not kept busy by a state that fills it.
    #[must_use]
    pub fn makes_room(&self, next_bytes: u64) -> bool {
        let smaller = self.snapshot.size_bytes.saturating_sub(next_bytes);
        self.log_bytes.saturating_add(smaller) >= WORTHWHILE_BYTES.max(next_bytes / 2)
    }

    /// Whether another snapshot is to be cut because the file of this one is damaged or lost. Not if it is one that this
    /// loop has not heard of: then it is about to be restored.
    #[must_use]
    pub fn is_to_replace(&self, damaged: &SnapshotMeta) -> bool {
        damaged.last_included_index <= self.snapshot.last_included_index
    }

    /// Whether a snapshot can be begun: none is being written, loaded, or put off.
    #[must_use]
    pub fn may_cut(&self) -> bool {
        self.cutting.is_none() && !self.is_put_off && self.restoring.is_none()
    }

    /// Freezes the state, which is cheap. `None` if that [must not be](Self::may_cut) now.
    pub fn begin_cut(&mut self) -> Option<Cut> {
        if !self.may_cut() {
            return None;
        }
        self.cutting = Some(std::mem::take(&mut self.log_bytes));
        Some(Cut {
            state: self.state.snapshot(),
            configuration: self.configuration.clone(),
        })
    }

    /// The snapshot that was begun is written, or not. If snapshots are [put off](Self::is_put_off) then, that ends with
    /// [`resume_cuts`](Self::resume_cuts).
    ///
    /// # Errors
    ///
    /// The same error where the next one would fail as well: the node must stop.
    pub fn cut_finished(
        &mut self,
        outcome: Result<SnapshotMeta, SnapshotError>,
    ) -> Result<CutEnd, SnapshotError> {
        let covered = self.cutting.take().unwrap_or_default();
        match outcome {
            Ok(snapshot) => {
                // One that was restored meanwhile is newer and stays.
                if snapshot.last_included_index > self.snapshot.last_included_index {
                    self.snapshot = snapshot.clone();
                } else if !snapshot.is_of_same_file(&self.snapshot) {
                    // A newer one is being restored; or another version wrote the one on record, and this one takes its
                    // place when there is a newer state.
                    self.is_put_off = true;
                }
                Ok(CutEnd::Written(snapshot))
            }
            Err(error) if error.may_pass() => {
                self.log_bytes += covered;
                self.is_put_off = true;
                Ok(CutEnd::PutOff(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether no snapshot is begun for now.
    #[must_use]
    pub fn is_put_off(&self) -> bool {
        self.is_put_off
    }

    /// Snapshots are put off no longer.
    pub fn resume_cuts(&mut self) {
        self.is_put_off = false;
    }

    /// `snapshot` is to take the place of the state, once it is loaded: what comes behind waits for it. A newer snapshot
    /// replaces one that is still being loaded, and what was to come behind that.
    pub fn begin_restore(&mut self, snapshot: SnapshotMeta) {
        self.restoring = Some(VecDeque::new());
        self.snapshot = snapshot;
    }

    /// `snapshot` was loaded, or not. `None` if a newer one is to be restored.
    ///
    /// # Errors
    ///
    /// The same error where there is no newer one: the node must stop. Nobody has replaced the file meanwhile, for the core
    /// installs no second snapshot before the state was restored from the first.
    pub fn restored(
        &mut self,
        snapshot: &SnapshotMeta,
        loaded: Result<StateMachine, SnapshotError>,
    ) -> Result<Option<Restored>, SnapshotError> {
        if *snapshot != self.snapshot {
            return Ok(None);
        }
        let state = loaded?;
        let waiting = self.restoring.take().unwrap_or_default();
        let replaced = self.state.install(state);
        self.configuration = snapshot.configuration.clone();
        self.log_bytes = 0;
        let progress = Progress {
            entries: Vec::new(),
            applied: Vec::new(),
            up_to: self.state.last_applied(),
        };
        Ok(Some(Restored {
            progress,
            waiting,
            replaced,
        }))
    }
}

#[cfg(test)]
#[path = "apply_loop_tests.rs"]
mod tests;

//! A workload that uses everything a store can do, told step by step, and the checks of what is left of it. The
//! files of the journal are small, so that they are filled and carried into the database again and again.
#![allow(dead_code, reason = "each test program uses its share")]

use std::any::Any;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use raft_core::{
    Configuration, HardState, LogIndex, NodeId, Restored, SnapshotMeta, Storage as _, Term, Write,
};
use storage::conformance::{Model, command, initial_configuration};
use storage::{SledStorage, SnapshotStore, StagedVerdict, StorageError};

use crate::common;

/// The longest that anything may take: far beyond what it takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `work` on a thread, which must end in time. `Err` with the reason if it does not, or panics.
pub(crate) fn within_deadline<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = channel();
    let thread = thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(DEADLINE) {
        Ok(result) => Ok(result),
        Err(RecvTimeoutError::Timeout) => Err(format!("still not done after {DEADLINE:?}")),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => Err(format!("it panicked: {}", message_of(&*panic))),
            Ok(_) => unreachable!("the result is sent before the thread ends"),
        },
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

/// How far the disk is, as the number of events that it has seen.
pub(crate) type Clock = Box<dyn Fn() -> usize>;

/// A step that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// The [`Clock`] when it was acknowledged.
    pub(crate) end: usize,
    /// What the store holds from then on.
    pub(crate) state: Restored,
}

/// The store at work, and what it has acknowledged.
pub(crate) struct Session {
    dir: PathBuf,
    clock: Clock,
    store: Option<SledStorage>,
    model: Model,
    steps: Vec<Step>,
    /// What the store would hold if the write under way were done.
    in_flight: Option<Restored>,
}

impl Session {
    pub(crate) fn new(dir: &Path, clock: Clock) -> Self {
        Self {
            dir: dir.to_path_buf(),
            clock,
            store: None,
            model: Model::new(&initial_configuration()),
            steps: Vec::new(),
            in_flight: None,
        }
    }

    /// Goes on from a store that holds `state`.
    pub(crate) fn continuing(dir: &Path, clock: Clock, state: &Restored) -> Self {
        let mut session = Self::new(dir, clock);
        let Restored {
            hard_state,
            snapshot,
            entries,
        } = state.clone();
        session.model.apply_all(&[
            Write::HardState(hard_state),
            Write::InstallSnapshot {
                snapshot,
                keep_suffix: false,
            },
        ]);
        if !entries.is_empty() {
            session.model.apply_all(&[Write::Append(entries)]);
        }
        session
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What the store must hold: all that was acknowledged, and whole or not at all what was under way.
    pub(crate) fn candidates(&self) -> Vec<Restored> {
        std::iter::once(self.model.restored())
            .chain(self.in_flight.clone())
            .collect()
    }

    pub(crate) fn store(&mut self) -> &mut SledStorage {
        self.store.as_mut().expect("it was opened")
    }

    pub(crate) fn close(&mut self) {
        self.store = None;
    }

    fn acknowledge(&mut self, name: &'static str) {
        self.in_flight = None;
        self.steps.push(Step {
            name,
            end: (self.clock)(),
            state: self.model.restored(),
        });
    }

    pub(crate) fn open(&mut self, name: &'static str) -> Result<(), StorageError> {
        self.store = None;
        let mut store = common::open_small(&self.dir)?;
        let found = store.restore()?;
        assert_eq!(found, self.model.restored(), "{name}");
        self.store = Some(store);
        self.acknowledge(name);
        Ok(())
    }

    pub(crate) fn write(&mut self, name: &'static str, writes: &[Write]) -> Result<(), StorageError> {
        let mut after = self.model.clone();
        after.apply_all(writes);
        self.in_flight = Some(after.restored());
        self.store().write(writes)?;
        self.model = after;
        self.acknowledge(name);
        Ok(())
    }

    fn append(
        &mut self,
        name: &'static str,
        term: u64,
        first: u64,
        last: u64,
        length: usize,
    ) -> Result<(), StorageError> {
        self.write(name, &[append(term, first, last, length)])
    }

    /// Cuts a snapshot and, in a step of its own, has it recorded.
    fn compact(&mut self, index: u64, first_retained: u64) -> Result<(), StorageError> {
        let snapshots = self.store().snapshots();
        let snapshot = cut(&*snapshots, index)?;
        self.acknowledge("a snapshot is cut");
        let first_retained = LogIndex(first_retained);
        self.write(
            "compaction",
            &[Write::Compact {
                snapshot,
                first_retained,
            }],
        )
    }

    /// Receives a snapshot in chunks and installs it.
    fn install(&mut self, index: u64, and_then: Write) -> Result<(), StorageError> {
        let source = tempfile::tempdir().expect("a temporary directory");
        let other = common::open(source.path())?.snapshots();
        let snapshot = cut(&*other, index)?;
        let mut reader = other.open(&snapshot)?;
        let snapshots = self.store().snapshots();
        let mut offset = 0;
        while offset < snapshot.size_bytes {
            let chunk = reader.read_chunk(offset, 17_000)?;
            snapshots.stage(&snapshot, offset, &chunk)?;
            offset += chunk.len() as u64;
        }
        assert_eq!(snapshots.finish_staged(&snapshot)?, StagedVerdict::Good);
        self.acknowledge("a snapshot is received");
        let install = Write::InstallSnapshot {
            snapshot,
            keep_suffix: false,
        };
        self.write("installation", &[install, and_then])
    }
}

pub(crate) fn append(term: u64, first: u64, last: u64, length: usize) -> Write {
    Write::Append((first..=last).map(|index| command(term, index, length)).collect())
}

pub(crate) fn vote(term: u64) -> Write {
    Write::HardState(HardState {
        current_term: Term(term),
        voted_for: Some(NodeId(term % 3 + 1)),
        ..HardState::default()
    })
}

/// The state machine as of `index`.
fn payload(index: LogIndex) -> Vec<u8> {
    let length = 40_000 + 7 * index.get();
    (0..length)
        .map(|at| (at * index.get() % 249).to_le_bytes()[0])
        .collect()
}

fn cut(snapshots: &dyn SnapshotStore, index: u64) -> Result<SnapshotMeta, StorageError> {
    let index = LogIndex(index);
    let mut writer = snapshots.create(index, Term(1), &Configuration::of_voters([1, 2, 3].map(NodeId)))?;
    writer
        .write_all(&payload(index))
        .map_err(|error| StorageError::Io {
            action: "write a snapshot in",
            path: PathBuf::new(),
            source: error.into(),
        })?;
    writer.finish()
}

/// Creation, votes, appends small, many and large, truncations, snapshots cut and received, restarts.
pub(crate) fn everything(session: &mut Session) -> Result<(), StorageError> {
    session.open("creation")?;
    session.write("first vote", &[vote(1)])?;
    session.append("first append", 1, 1, 5, 100)?;
    session.write("vote and append", &[vote(2), append(2, 6, 20, 30)])?;
    session.append("large append", 2, 21, 23, 90_000)?;
    session.append("overlapping append", 2, 18, 25, 300)?;
    for first in (26..46).step_by(4) {
        session.append("small append", 2, first, first + 3, 50)?;
    }
    session.compact(30, 28)?;
    session.append("append after a compaction", 2, 46, 48, 2_000)?;
    session.open("restart")?;
    session.write("vote after a restart", &[vote(3)])?;
    session.append("append after a restart", 3, 49, 52, 10)?;
    session.install(100, append(3, 101, 104, 700))?;
    session.append("truncation of all that follows a snapshot", 4, 101, 101, 10)?;
    session.append("append to it", 4, 102, 110, 5_000)?;
    session.compact(108, 105)?;
    session.write("vote at the end", &[vote(5)])?;
    session.open("last restart")?;
    session.append("last append", 5, 111, 113, 64)
}

/// The same in short: every kind of step once.
pub(crate) fn a_little_of_everything(session: &mut Session) -> Result<(), StorageError> {
    session.open("creation")?;
    session.write("vote and append", &[vote(1), append(1, 1, 8, 200)])?;
    session.append("overlapping append", 2, 6, 9, 40_000)?;
    session.compact(7, 6)?;
    session.open("restart")?;
    session.install(20, append(3, 21, 22, 50))?;
    session.append("last append", 3, 23, 24, 100)
}

/// Appends of large records and compactions after them, in both small and large batches, so that the segments of
/// sled's file become free and are used anew, over and over.
pub(crate) fn turnover(session: &mut Session) -> Result<(), StorageError> {
    const ROUNDS: u64 = 52;
    const ENTRY_BYTES: usize = 30_000;
    const KEPT: u64 = 60;
    session.open("creation")?;
    let mut next = 1;
    for round in 1..=ROUNDS {
        // More than one batch of sled at once, and then some that fill one file of the journal each.
        for count in [40, 3, 3, 3, 3] {
            session.append("append", round, next, next + count - 1, ENTRY_BYTES)?;
            next += count;
        }
        if next > 2 * KEPT {
            session.compact(next - 10, next - KEPT)?;
        }
        session.write("vote", &[vote(round + 1)])?;
    }
    Ok(())
}

/// What a store in `dir` holds, its snapshot read to the end.
pub(crate) fn read_all(dir: &Path) -> Result<(SledStorage, Restored), StorageError> {
    let mut store = common::open_small(dir)?;
    let restored = store.restore()?;
    let snapshot = &restored.snapshot;
    if snapshot.size_bytes > 0 {
        let mut found = Vec::new();
        let read = store
            .snapshots()
            .open(snapshot)?
            .content()
            .read_to_end(&mut found);
        read.map_err(|error| StorageError::SnapshotDamaged {
            path: dir.to_path_buf(),
            index: snapshot.last_included_index,
            what: error.to_string(),
        })?;
        assert!(
            found == payload(snapshot.last_included_index),
            "another state than was saved"
        );
    }
    Ok((store, restored))
}

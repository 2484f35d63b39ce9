//! What any implementation of [`Storage`] must do, as a suite that any implementation can run.
//!
//! [`run`] runs every scenario on a device of its own and reopens the store in between, because what counts
//! is what a restart finds. [`Model`] is the plain description of the rules, to compare with under random
//! writes.
//!
//! ```
//! use raft_core::{Configuration, NodeId};
//! use storage::conformance::{self, Device};
//! use storage::{Identity, MemoryDisk, MemoryStorage, SnapshotStore, StorageError};
//!
//! struct InMemory(MemoryDisk);
//!
//! impl Device for InMemory {
//!     type Store = MemoryStorage;
//!
//!     fn open(&mut self, initial: &Configuration) -> Result<MemoryStorage, StorageError> {
//!         let identity = Identity { cluster_id: "demo".to_owned(), node_id: NodeId(1) };
//!         MemoryStorage::open(&self.0, &identity, initial)
//!     }
//!
//!     fn snapshots(store: &MemoryStorage) -> std::sync::Arc<dyn SnapshotStore> {
//!         store.snapshots()
//!     }
//! }
//!
//! conformance::run(|| InMemory(MemoryDisk::new()));
//! ```
//!
//! # Panics
//!
//! Everything in this module panics, with the name of the rule, when an implementation breaks it.

mod log;
mod model;
mod snapshots;

use std::io::Write as _;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    Configuration, Entry, HardState, LogIndex, LogRead, NodeId, Payload, Restored, SnapshotMeta, Storage,
    Term, Write,
};

use crate::error::StorageError;
use crate::snapshot_file::SnapshotStore;

pub use model::Model;

/// Something that a store can be opened on, again and again, as on the disk of one machine.
pub trait Device {
    /// The store under test.
    type Store: Storage<Error = StorageError>;

    /// Opens the store; on a fresh device, creates it with the configuration `initial`.
    ///
    /// # Errors
    ///
    /// Whatever the store says.
    fn open(&mut self, initial: &Configuration) -> Result<Self::Store, StorageError>;

    /// The snapshot files of an open store.
    fn snapshots(store: &Self::Store) -> Arc<dyn SnapshotStore>;
}

/// Runs all scenarios, each on a device that `make` yields.
pub fn run<D: Device>(mut make: impl FnMut() -> D) {
    for (name, scenario) in scenarios::<D>() {
        scenario(&mut Session::start(name, make()));
    }
}

type Scenario<D> = fn(&mut Session<D>);

fn scenarios<D: Device>() -> Vec<(&'static str, Scenario<D>)> {
    let mut all = log::scenarios();
    all.extend(snapshots::scenarios());
    all
}

/// The configuration that every store of the suite starts with.
#[must_use]
pub fn initial_configuration() -> Configuration {
    Configuration::of_voters([1, 2, 3].map(NodeId))
}

/// An entry with a command of `length` bytes.
#[must_use]
pub fn command(term: u64, index: u64, length: usize) -> Entry {
    let fill = u8::try_from(index % 251).expect("a remainder below 251");
    let payload = Payload::Command(Bytes::from(vec![fill; length]));
    Entry {
        term: Term(term),
        index: LogIndex(index),
        payload,
    }
}

/// Cuts a snapshot as of `index` with `payload`, and has its file in place.
///
/// # Errors
///
/// Whatever the store says.
pub fn cut_snapshot(
    snapshots: &dyn SnapshotStore,
    index: u64,
    term: u64,
    payload: &[u8],
) -> Result<SnapshotMeta, StorageError> {
    let mut writer = snapshots.create(LogIndex(index), Term(term), &initial_configuration())?;
    writer
        .write_all(payload)
        .map_err(|error| StorageError::invalid_write(format!("the snapshot writer failed: {error}")))?;
    writer.finish()
}

/// How long a read of the log may take on a starved machine.
const READ_PATIENCE: Duration = Duration::from_secs(60);

/// Reads entries back, and waits for them.
///
/// # Errors
///
/// Whatever the store says.
///
/// # Panics
///
/// When the store does not answer.
pub fn read_back<S>(store: &mut S, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError>
where
    S: Storage<Error = StorageError>,
{
    let read = LogRead {
        peer: NodeId(1),
        from: LogIndex(from),
        to: LogIndex(to),
        max_bytes,
    };
    let (reply, answer) = mpsc::channel();
    store.read(&read, Box::new(move |entries| drop(reply.send(entries))));
    answer
        .recv_timeout(READ_PATIENCE)
        .expect("a read of the log is answered")
}

/// One scenario at work: a device, the store open on it, and what it should hold.
struct Session<D: Device> {
    name: &'static str,
    device: D,
    store: Option<D::Store>,
    model: Model,
}

impl<D: Device> Session<D> {
    fn start(name: &'static str, device: D) -> Self {
        let model = Model::new(&initial_configuration());
        let mut session = Self {
            name,
            device,
            store: None,
            model,
        };
        session.restart();
        session
    }

    fn fail(&self, what: impl std::fmt::Display) -> ! {
        panic!("{}: {what}", self.name)
    }

    fn store(&mut self) -> &mut D::Store {
        self.store.as_mut().expect("start and restart leave a store open")
    }

    fn snapshots(&mut self) -> Arc<dyn SnapshotStore> {
        D::snapshots(self.store())
    }

    /// Writes one batch, and then finds it after a restart.
    fn write(&mut self, writes: &[Write]) {
        if let Err(error) = self.store().write(writes) {
            self.fail(format_args!("a valid write was refused: {error}"));
        }
        self.model.apply_all(writes);
        self.expect_reads();
        self.restart();
        self.expect_reads();
    }

    /// Whatever the log holds can be read back, whole or an entry at a time.
    fn expect_reads(&mut self) {
        let Restored {
            snapshot, entries, ..
        } = self.model.restored();
        let first = entries
            .first()
            .map_or(snapshot.last_included_index.next(), |entry| entry.index)
            .get();
        let last = first + entries.len() as u64 - 1;
        let ranges = [
            (first, last),
            (first, first),
            (last, last),
            (first.midpoint(last), last),
        ];
        for (from, to) in ranges.into_iter().filter(|_| !entries.is_empty()) {
            let wanted = usize::try_from(from - first).expect("a short log")
                ..=usize::try_from(to - first).expect("a short log");
            let all = self.read_back(from, to, usize::MAX);
            assert!(all == entries[wanted.clone()], "{}: {from} to {to}", self.name);
            let one = self.read_back(from, to, 1);
            assert!(
                one == entries[*wanted.start()..=*wanted.start()],
                "{}: {from}",
                self.name
            );
            // Fewer than fit may come, never more.
            let two_bytes = entries[wanted.clone()]
                .iter()
                .take(2)
                .map(Entry::size_bytes)
                .sum();
            let some = self.read_back(from, to, two_bytes);
            let is_right = !some.is_empty() && some.len() <= 2 && entries[wanted].starts_with(&some);
            assert!(is_right, "{}: two from {from}", self.name);
        }
        assert_eq!(self.read_back(first - 1, last, usize::MAX), [], "{}", self.name);
        assert_eq!(
            self.read_back(last + 1, last + 9, usize::MAX),
            [],
            "{}",
            self.name
        );
    }

    fn read_back(&mut self, from: u64, to: u64, max_bytes: usize) -> Vec<Entry> {
        match read_back(self.store(), from, to, max_bytes) {
            Ok(entries) => entries,
            Err(error) => self.fail(format_args!("entries {from} to {to} cannot be read: {error}")),
        }
    }

    /// Writes a batch that must be refused, and finds nothing of it after a restart.
    fn must_refuse(&mut self, why: &str, writes: &[Write]) {
        let Err(first) = self.store().write(writes) else {
            self.fail(format_args!("accepted {why}"))
        };
        let valid = [Write::HardState(HardState {
            current_term: Term(999),
            voted_for: None,
            ..HardState::default()
        })];
        let Err(second) = self.store().write(&valid) else {
            self.fail(format_args!("went on writing after it had refused {why}"))
        };
        if first.to_string() != second.to_string() {
            self.fail(format_args!("answered {second} after {first}"));
        }
        self.restart();
    }

    /// Closes the store, opens it again and compares what it restores with the model.
    fn restart(&mut self) {
        self.store = None;
        match self.device.open(&initial_configuration()) {
            Ok(store) => self.store = Some(store),
            Err(error) => self.fail(format_args!("does not open: {error}")),
        }
        let restored = self.restore();
        assert_eq!(
            restored,
            self.model.restored(),
            "{}: the state after a restart",
            self.name
        );
    }

    fn restore(&mut self) -> Restored {
        match self.store().restore() {
            Ok(restored) => restored,
            Err(error) => self.fail(format_args!("does not restore: {error}")),
        }
    }

    /// Cuts a snapshot of the present state at `index`.
    fn cut(&mut self, index: u64) -> SnapshotMeta {
        let payload = format!("the state as of {index}");
        match cut_snapshot(&*self.snapshots(), index, 1, payload.as_bytes()) {
            Ok(snapshot) => snapshot,
            Err(error) => self.fail(format_args!("cannot cut a snapshot: {error}")),
        }
    }
}

fn append(term: u64, indexes: impl IntoIterator<Item = u64>) -> Write {
    Write::Append(
        indexes
            .into_iter()
            .map(|index| command(term, index, 20))
            .collect(),
    )
}

fn vote(term: u64, node: u64) -> Write {
    Write::HardState(HardState {
        current_term: Term(term),
        voted_for: Some(NodeId(node)),
        ..HardState::default()
    })
}

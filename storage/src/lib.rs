//! Durable storage for Raft: the state that a server must have on disk before it answers (Raft figure 2), and
//! its snapshots (Raft §7).
//!
//! [`SledStorage`] keeps term, vote, log and the record of the latest snapshot in a
//! [sled](https://docs.rs/sled/0.34.7) database, with a journal in front of it that makes a write durable with
//! one sync, and snapshots in files beside it. [`MemoryStorage`] is its
//! twin without a disk, for tests and simulations. Both implement [`raft_core::Storage`], and the
//! [`conformance`] suite says what that means.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use raft_core::{Configuration, Entry, HardState, LogIndex, NodeId, Payload, Storage, Term, Write};
//! use storage::{Identity, Options, SledStorage};
//! # use std::io::{Read, Write as _};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let dir = temporary.path();
//! let identity = Identity { cluster_id: "demo".to_owned(), node_id: NodeId(1) };
//! let initial = Configuration::of_voters([1, 2, 3].map(NodeId));
//!
//! // A missing or empty directory becomes a fresh store.
//! let mut store = SledStorage::open(dir, &identity, &initial, &Options::default())?;
//! assert_eq!(store.restore()?.snapshot.configuration, initial);
//!
//! // All the writes of one call are durable together when it returns.
//! let entry = |index| Entry {
//!     term: Term(1),
//!     index: LogIndex(index),
//!     payload: Payload::Command(Bytes::from_static(b"set x 1")),
//! };
//! store.write(&[
//!     Write::HardState(HardState { current_term: Term(1), voted_for: Some(NodeId(1)), ..HardState::default() }),
//!     Write::Append(vec![entry(1), entry(2), entry(3)]),
//! ])?;
//!
//! // A snapshot: first its file, then its record together with the compaction of the log.
//! let mut writer = store.snapshots().create(LogIndex(2), Term(1), &initial)?;
//! writer.write_all(b"x = 1")?;
//! let snapshot = writer.finish()?;
//! store.write(&[Write::Compact { snapshot, first_retained: LogIndex(2) }])?;
//!
//! // After a restart.
//! drop(store);
//! let mut store = SledStorage::open(dir, &identity, &initial, &Options::default())?;
//! let restored = store.restore()?;
//! assert_eq!(restored.hard_state.voted_for, Some(NodeId(1)));
//! assert_eq!(restored.entries, [entry(2), entry(3)]);
//! let mut state = String::new();
//! store.snapshots().open(&restored.snapshot)?.content().read_to_string(&mut state)?;
//! assert_eq!(state, "x = 1");
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - When `write` returns `Ok`, a power loss takes nothing of it back. When it fails, nothing of it may be
//!   acknowledged, and the store answers every later call with the same error: a failed sync is never tried
//!   again.
//! - After a crash the store holds the state before or after the write that was under way, never one between.
//! - No call waits for ever for a database that does not answer, see [`Options::checkpoint_wait`].
//! - Memory is bounded: sled's cache, and for each record of the log and of two files of the journal where it is, see
//!   [`Options`].
//! - What comes back is what was written. Every record and every chunk of a snapshot has a checksum, the log
//!   is a chain in which no link can be missing, and a file outside the database knows how far it was
//!   acknowledged. A store that was damaged, emptied or rolled back is refused with a message that says what
//!   is wrong and what to do: its node might vote twice in a term.
//! - No panic for anything that the files contain.
//!
//! # What it does not do
//!
//! - It repairs nothing. Raft's answer to a lost disk is another replica.
//! - It cannot tell a directory that was emptied completely from a new one: emptying it is the operator's
//!   word that the node is new. But it gives each store a number of its own, by which a cluster finds out
//!   (`raft_core::Standing`), and [`Options::join`] makes a store that says of itself that it is to replace one.
//! - `write` does not run on a thread of its own: it blocks until the disk is done. Group commit is up to the
//!   caller, who passes everything that has queued as one call.
//! - It does not know what is in a command or in a snapshot's payload.
//!
//! # Looking into a store
//!
//! [`inspect`] reads the directory of a stopped node without changing it, and goes on behind damage.
//!
//! # Where to read on
//!
//! The modules are private and documented in the source: `sled_storage` (the order of every write),
//! `journal` (how a batch becomes durable), `carrying` and `checkpoint` (what reaches sled, when and how), `spacers` (how the log lies in it), `upkeep` (what sled would leave undone), `database` (how sled is opened), `directory` (creation, lock, marker), `record` and `hard_state` (what
//! the records hold), `restore` (what is verified), `durability` (why flushing sled is not enough),
//! `high_water`, `snapshot_file` (the format of a snapshot file).
#![forbid(unsafe_code)]

mod carrying;
mod changes;
mod checkpoint;
mod codec;
pub mod conformance;
mod database;
mod deadline;
mod directory;
mod durability;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod hard_state;
mod high_water;
pub mod inspect;
mod journal;
mod journaled;
mod memory;
mod overlay;
mod panics;
mod presence;
mod progress;
mod quiet;
mod read_back;
mod record;
mod restore;
mod rules;
mod sealed;
mod sled_storage;
mod snapshot_file;
mod spacers;
mod upkeep;

pub use error::StorageError;
pub use hard_state::Identity;
pub use memory::{MemoryDisk, MemoryStorage, WriteFault};
pub use presence::{Missing, Presence};
pub use progress::Progress;
pub use sled_storage::{Options, SledStorage, snapshot_path};
pub use snapshot_file::{
    CHUNK_BYTES, FileSnapshots, MemorySnapshots, SnapshotReader, SnapshotStore, SnapshotWriter,
    StagedVerdict, snapshot_file_bytes,
};

//! A replicated, linearizable key-value server on Raft.
//!
//! Three, five or seven of these make up a cluster: they run [Raft](raft_core) among themselves, keep what they
//! acknowledge on [disk](storage), and serve clients over [rpc]. A write is acknowledged when it is on disk on a
//! majority and applied; a retried write is applied once; a read sees every write that finished before it
//! began.
//!
//! # Running it
//!
//! The program is [`run`] behind a `main`: `kv-server --config cluster.toml --id 1` starts node 1 of the cluster
//! that the file describes, and `--check` only says whether the file is good. `kv-server --help` has an example
//! of the file.
//!
//! # How it is built
//!
//! Plain structs do the work, without actors, threads or clocks, so that tests and a simulator can drive them:
//!
//! | module | what it does |
//! |---|---|
//! | [`driver`] | feeds the consensus core, takes its outputs apart, holds promises back until they are durable |
//! | [`group_commit`] | makes everything that queued while the disk was busy durable with one sync |
//! | [`replication`] | when to dial a peer again; how far a snapshot transfer is |
//! | [`apply_loop`] | applies what is committed; when snapshots are cut, restored and put off |
//! | [`command`] | what a log entry says |
//! | [`state_machine`], [`state_reader`], [`state_snapshot`] | the keys and values: applied to, read from, frozen and written out |
//! | [`sessions`] | exactly once: which write of which client was applied, and with what answer |
//! | [`pending`] | requests that wait for their entry or their read index, each of which ends |
//! | [`disk_room`] | how much room is left on the disks, and what is still admitted |
//! | [`config`], [`cli`], [`logging`] | how a server is told what to do, and what it tells |
//!
//! Around them, in private modules, stand six actors that only receive, call and send: the Raft node, the two
//! tickers, the persister, a replicator for each peer, the applier, and the KV server. ARCHITECTURE.md at the top
//! of the repository draws how they exchange messages.
//!
//! # Using the parts
//!
//! The state machine by itself, as the applier uses it:
//!
//! ```
//! use bytes::Bytes;
//! use kv_server::command::{Command, Operation};
//! use kv_server::state_machine::{Reply, StateMachine};
//! use raft_core::{Entry, LogIndex, Payload, Term};
//! use rpc::client::{Sequence, WriteId};
//!
//! let entry = |index: u64, command: &Command| Entry {
//!     term: Term(1),
//!     index: LogIndex(index),
//!     payload: Payload::Command(command.encode()),
//! };
//! let mut state = StateMachine::new();
//!
//! // A client registers a session through the log ...
//! let applied = state.apply_batch(&[entry(1, &Command::OpenSession { secret: 7 })])?;
//! let Reply::SessionOpened(session) = applied[0].reply else { panic!("a session was asked for") };
//!
//! // ... and its writes carry numbers, so that the second copy of one is not executed again.
//! let append = Command::Write {
//!     id: WriteId { session, sequence: Sequence(1), lowest_outstanding: Sequence(1) },
//!     op: Operation::Append { key: Bytes::from("k"), value: Bytes::from("v") },
//! };
//! state.apply_batch(&[entry(2, &append), entry(3, &append)])?;
//!
//! let found = state.reader().get(b"k", Term(1)).found.expect("the key is there");
//! assert_eq!(found.value, "v");
//! # Ok::<(), kv_server::state_machine::StateError>(())
//! ```
//!
//! # What it will not do
//!
//! Change its members while it runs, speak TLS, spread keys over several Raft groups, or expire keys.
#![forbid(unsafe_code)]

mod actors;
pub mod apply_loop;
pub mod cli;
mod client_service;
mod codec;
pub mod command;
pub mod config;
mod data_files;
mod descriptors;
pub mod disk_room;
mod disk_watch;
pub mod driver;
mod election_clock;
mod exit;
#[cfg(test)]
mod full_disk;
pub mod group_commit;
mod held_up;
mod inspect;
mod intake;
mod limits;
pub mod logging;
mod map;
mod not_taken;
mod peer_service;
pub mod pending;
pub mod replication;
mod run;
mod server;
mod server_error;
pub mod sessions;
mod shared_lease;
mod shutdown;
pub mod state_machine;
pub mod state_reader;
pub mod state_snapshot;

pub use run::run;

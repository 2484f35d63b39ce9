//! The Raft consensus algorithm as a pure, deterministic state machine.
//!
//! A cluster of servers keeps copies of one log. As long as a majority of them is up and can talk, commands
//! are appended to it, every copy gets the same commands in the same order, and what was once acknowledged is
//! never lost. A state machine that applies the log, on any server, is then the same as on every other.
//!
//! This crate is the part that decides. It has no clock, no thread, no socket and no disk: inputs go in by
//! the methods of [`Node`], and everything that is to be done comes out as a [`Ready`] batch. The same inputs
//! in the same order always give the same outputs, so a run can be replayed from its seed.
//!
//! References are to the paper, D. Ongaro and J. Ousterhout, *In Search of an Understandable Consensus
//! Algorithm (Extended Version)*, as "Raft §5.2", and to Ongaro's thesis, *Consensus: Bridging Theory and
//! Practice*, as "thesis §6.4".
//!
//! # The protocol in short
//!
//! **Terms and elections (Raft §5.1, §5.2).** Time is cut into numbered terms with at most one leader each. A
//! server starts as a follower. If it hears from no leader for an election timeout, drawn at random so that
//! servers seldom time out together, it asks the others whether it could win (*pre-vote*, thesis §9.6: the
//! question changes nothing, so a server that was cut off cannot disturb a healthy cluster). If a majority
//! would vote for it, it becomes a candidate: it raises the term, votes for itself, and asks for votes. A
//! server gives one vote a term, and only to a candidate whose log is at least as up to date as its own
//! (Raft §5.4.1). A majority of votes makes a leader.
//!
//! **Replication (Raft §5.3).** Only the leader appends. `AppendEntries` carries new entries and the place of
//! the entry before them. A follower whose log has another entry there refuses, and the leader backs up, a
//! term at a time, until the logs meet; then the follower's log is made equal from there on. Messages are
//! pipelined up to a window ([`ProgressState::Replicate`]); where the logs meet is searched with one message
//! at a time ([`ProgressState::Probe`]). An `AppendEntries` without entries is a heartbeat.
//!
//! **Commitment (Raft §5.4.2).** An entry of the leader's own term is committed when a majority has it on
//! disk, and everything before it is committed with it. Entries of older terms are never committed by
//! counting: a later leader could still replace them (figure 8 of the paper). So a new leader begins with a
//! no-op, whose commitment settles all that came before.
//!
//! **Snapshots (Raft §7).** The state machine's state stands for the beginning of the log, which is then
//! forgotten. A follower that needs what is forgotten receives the snapshot in chunks
//! ([`ProgressState::Snapshot`]).
//!
//! **Reads (Raft §8, thesis §6.4).** A leader may have been replaced without knowing. Before it serves a
//! read it notes its commit index, makes sure by one round of heartbeats that it still leads, and waits until
//! its state machine has come to that index. One round serves all the reads that wait.
//!
//! **Stepping down (thesis §6.2, §3.10).** A leader that hears from no majority for an election timeout steps
//! down; so does one whose own disk stands still. On an orderly shutdown it hands its office over:
//! [`Node::transfer_leadership`].
//!
//! # What holds, and where it is kept
//!
//! | Invariant (Raft figure 3) | Kept by |
//! |---|---|
//! | Election safety: one leader a term | one vote a term (`candidate.rs`), durable before it is told or counted ([`Ready::messages_after_persist`]; [`HardState`] is one record) |
//! | Leader append-only | `leader.rs` only ever appends; `log.rs` asserts that nothing committed is cut |
//! | Log matching | the consistency check of `AppendEntries` (`follower.rs`), gapless logs (`log.rs`) |
//! | Leader completeness | the voters' log check (`candidate.rs`), commitment only in the own term (`leader.rs`) |
//! | A lost disk promises nothing | the registry of stores in the log, and one gate for every message (`standing.rs`) |
//! | State machine safety | only committed, durable entries are handed out, each once ([`Ready::committed`]) |
//! | Linearizable reads | rounds numbered within a term, and the wait for the no-op (`read_index.rs`) |
//!
//! Several batches may be on their way to the disk at once. A node knows which entries each of them vouches
//! for, and takes that back when the log is cut meanwhile. A leader counts its own copy only once its write
//! is durable, and may commit before that if a majority of others has the entry (thesis §10.2.1). It applies the entry, and
//! answers its client, once its own copy is durable, too: so what a node has applied is never ahead of what it finds after a
//! restart, and a write takes at least as long as the leader's own disk.
//!
//! A broken invariant is a panic, in release builds too: a node that has lost its footing must stop before
//! it acknowledges anything.
//!
//! # How to drive a node
//!
//! Call [`Node::tick_election`] and [`Node::tick_heartbeat`] at steady rates, [`Node::step`] for every
//! message that arrives, [`Node::propose`] and [`Node::read_index`] for clients. Then, whenever
//! [`Node::has_ready`], take [`Node::ready`] and obey it as [`Ready`] says. Here is a cluster of three in one
//! process, whose disks and network are instant:
//!
//! ```
//! use raft_core::{Config, Configuration, Node, NodeId, Payload, Restored, Role, SnapshotMeta};
//!
//! /// Obeys every node until all is quiet. Returns the commands that node 3 applied.
//! fn run(nodes: &mut [Node]) -> Vec<Payload> {
//!     let mut applied_by_3 = Vec::new();
//!     while let Some(node) = nodes.iter_mut().find(|node| node.has_ready()) {
//!         let ready = node.ready();
//!         // A real driver sends `ready.messages` here, beside the write.
//!         if ready.must_persist() {
//!             // A real driver makes `ready.writes` durable first.
//!             node.persisted(ready.number);
//!         }
//!         if let Some(last) = ready.committed.last() {
//!             node.applied(last.index);
//!         }
//!         if node.id() == NodeId(3) {
//!             applied_by_3.extend(ready.committed.into_iter().map(|entry| entry.payload));
//!         }
//!         for envelope in ready.messages.into_iter().chain(ready.messages_after_persist) {
//!             // A real driver would wait for the response to this call.
//!             let receiver = nodes.iter_mut().find(|node| node.id() == envelope.to);
//!             receiver.expect("all nodes are here").step(envelope);
//!         }
//!     }
//!     applied_by_3
//! }
//!
//! // Every server starts from what its storage holds: here, only who the members are.
//! let fresh = Restored {
//!     snapshot: SnapshotMeta {
//!         configuration: Configuration::of_voters([1, 2, 3].map(NodeId)),
//!         ..SnapshotMeta::default()
//!     },
//!     ..Restored::default()
//! };
//! let mut nodes = [1, 2, 3]
//!     .map(|id| Node::new(Config::new(NodeId(id)), fresh.clone()).expect("the settings are valid"));
//!
//! // Node 1 is the first to run out of patience.
//! while nodes[0].role() != Role::Leader {
//!     nodes[0].tick_election();
//!     run(&mut nodes);
//! }
//! nodes[0].propose("x = 1".into())?;
//! run(&mut nodes);
//! // The others learn with the next message that it is committed.
//! nodes[0].tick_heartbeat();
//! assert!(run(&mut nodes).contains(&Payload::Command("x = 1".into())));
//! # Ok::<(), raft_core::ProposeError>(())
//! ```
//!
//! What a driver must add: a transport (it may lose, repeat and reorder), stable storage that keeps the rules
//! of [`Storage`], a state machine, the streaming of snapshots ([`SnapshotToSend`]), and limits on how many
//! clients wait. A proposal whose answer got lost may or may not have been committed; to apply a retried
//! command only once is the state machine's business.
//!
//! # What it does not do
//!
//! - The members of a cluster do not change while it lives, only the stores by which they take part
//!   ([`Standing`]). [`Configuration`] travels in the log and in
//!   snapshots and its arithmetic knows joint majorities and learners, but no operation changes it yet
//!   (Raft §6).
//! - Reads by [lease] (thesis §6.4.1) are off unless asked for: they trust clocks. A follower
//!   that serves reads must get its read index from the leader by other means than messages of this crate.
//! - No protection against servers that lie. Peers are trusted to run this protocol; a message that no correct
//!   server sends may stop a node with a panic, though it cannot corrupt its log.
//! - No witness or non-storing voters, no flexible quorums, no priorities in elections.
//! - It does not limit how many reads may wait, nor how long a message is: whoever calls it does.
//!
//! # How it is tested
//!
//! `tests/paper.rs` and `tests/thesis.rs` hold one test a claim, named by section. `tests/testscripts/` tells
//! scenarios as stories. `tests/random.rs` runs clusters through lost, repeated and reordered messages, slow
//! disks, crashes and partitions, checks the invariants above after every step, and then that a healed cluster
//! makes progress. `tests/corners.rs` keeps the bugs that were found.
#![forbid(unsafe_code)]

mod candidate;
mod config;
mod configuration;
mod event;
mod follower;
mod leader;
pub mod lease;
mod log;
mod message;
mod node;
mod progress;
mod read_index;
mod ready;
mod standing;
mod storage;
mod types;

pub use config::{Config, ConfigError};
pub use configuration::Configuration;
pub use event::{Event, StepDownReason, VoteRefusal};
pub use lease::ReadLease;
pub use message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Envelope, InstallSnapshot, InstallSnapshotResponse,
    Message, SnapshotOutcome, TimeoutNow, TimeoutNowResponse, VoteRequest, VoteResponse,
};
pub use node::{Node, ProposeError, Status};
pub use progress::ProgressState;
pub use read_index::ReadOutcome;
pub use ready::{Ready, SnapshotChunk, SnapshotToSend, SoftState};
pub use standing::{Refusal, Sender, Standing};
pub use storage::{LogRead, LogReadReply, Restored, Storage, Write};
pub use types::{
    CallId, Entry, HardState, Incarnation, Leadership, LogIndex, NodeId, Payload, ReadId, ReadyNumber, Role,
    SnapshotMeta, Term, TermStart, Ticks,
};

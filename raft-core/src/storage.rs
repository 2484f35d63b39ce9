//! What the core asks of stable storage: the writes of one batch, durable together.

use crate::types::{Entry, HardState, LogIndex, NodeId, SnapshotMeta};

/// One change to stable storage. Changes take effect in the order in which the core yields them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Replaces the hard state.
    HardState(HardState),
    /// Replaces the log from the first of these entries on: whatever stood at that index and behind it
    /// goes (Raft §5.3). Never empty; indexes are consecutive; the first follows the log or lies in it.
    Append(Vec<Entry>),
    /// A snapshot from the leader becomes the start of the log. Its file is in place and verified.
    InstallSnapshot {
        /// The snapshot.
        snapshot: SnapshotMeta,
        /// Whether the entries behind the snapshot stay, because the log held its last included entry
        /// (Raft §7). Otherwise the whole log goes.
        keep_suffix: bool,
    },
    /// This node cut a snapshot itself: the log may be forgotten before `first_retained`.
    Compact {
        /// The snapshot. Its file is in place.
        snapshot: SnapshotMeta,
        /// The first entry that stays; at most `snapshot.last_included_index` + 1. A few entries before
        /// the snapshot are kept so that a follower just behind needs no snapshot.
        first_retained: LogIndex,
    },
}

/// What stable storage holds when a node starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The hard state; the default on a fresh node.
    pub hard_state: HardState,
    /// The latest snapshot. On a fresh node the empty one, with the initial configuration.
    pub snapshot: SnapshotMeta,
    /// The log, oldest first, without gaps. Its first entry is at most one behind the snapshot's last; it
    /// may start before that.
    pub entries: Vec<Entry>,
}

/// Entries of the log that the core needs and no longer has in memory. All of them are committed and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// Who needs them; nothing to storage.
    pub peer: NodeId,
    /// The first.
    pub from: LogIndex,
    /// The last that may be read.
    pub to: LogIndex,
    /// The most bytes of entries ([`Entry::size_bytes`]), though at least one entry. Fewer may be read.
    pub max_bytes: usize,
}

/// Takes the outcome of a [`Storage::read`], once, on any thread.
pub type LogReadReply<E> = Box<dyn FnOnce(Result<Vec<Entry>, E>) + Send>;

/// Stable storage of one node: the rules that any implementation must keep.
///
/// The `storage` crate holds two, one on disk and one in memory, and a conformance suite for both.
pub trait Storage {
    /// Why a write or a start failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Reads back everything. Called once, before the first write.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or is damaged. The node must not start.
    fn restore(&mut self) -> Result<Restored, Self::Error>;

    /// Makes all the writes durable, in order, as one batch: after a crash either all of a prefix is there
    /// or the state before. When this returns `Ok`, a power loss takes nothing of it back.
    ///
    /// # Errors
    ///
    /// When any of it failed. What is on disk is then unknown, so the node must stop and never try again
    /// with the same open store.
    fn write(&mut self, writes: &[Write]) -> Result<(), Self::Error>;

    /// Reads entries back for [`Ready::log_reads`](crate::Ready::log_reads): consecutive ones from `read.from` on, or
    /// none if the log has been compacted past that. Waits for no disk: `reply` is called from here or later, from
    /// another thread. It gets an error when the entries cannot be read or are damaged; the node must stop then.
    fn read(&mut self, read: &LogRead, reply: LogReadReply<Self::Error>);
}

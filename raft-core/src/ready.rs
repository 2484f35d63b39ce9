//! What a node wants done: one batch of outputs for everything that went in since the last.

use bytes::Bytes;

use crate::event::Event;
use crate::message::Envelope;
use crate::read_index::ReadOutcome;
use crate::standing::Refusal;
use crate::storage::{LogRead, Write};
use crate::types::{CallId, Entry, NodeId, ReadyNumber, Role, SnapshotMeta, Term};

/// One batch of outputs. The driver must obey it in this way:
///
/// 1. send [`messages`](Self::messages) at once;
/// 2. stage [`snapshot_chunks`](Self::snapshot_chunks), then make [`writes`](Self::writes) durable, both in
///    the order of the batches, and report [`Node::persisted`](crate::Node::persisted) with the batch's
///    number when that is done;
/// 3. send [`messages_after_persist`](Self::messages_after_persist) only when this batch and every earlier
///    one is durable: these messages are promises (Raft figure 2: "respond to RPCs after updating stable
///    storage");
/// 4. replace the state machine by [`restore`](Self::restore), then apply
///    [`committed`](Self::committed), both in order, and report [`Node::applied`](crate::Node::applied);
/// 5. answer [`reads`](Self::reads) when the state machine has come to their index;
/// 6. read [`log_reads`](Self::log_reads) from storage, in no hurry, and report each with
///    [`Node::log_was_read`](crate::Node::log_was_read).
///
/// A leader's own write runs beside its messages to the others (thesis §10.2.1): its entries leave in
/// `messages`, and it counts itself only when its write is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The batch's number, one higher than the one before.
    pub number: ReadyNumber,
    /// To be made durable, in order, as one batch.
    pub writes: Vec<Write>,
    /// May leave now.
    pub messages: Vec<Envelope>,
    /// May leave only when all writes so far are durable.
    pub messages_after_persist: Vec<Envelope>,
    /// Pieces of a snapshot to put aside, before the writes.
    pub snapshot_chunks: Vec<SnapshotChunk>,
    /// Snapshots to stream to peers.
    pub snapshots_to_send: Vec<SnapshotToSend>,
    /// Entries that are no longer in memory, for peers that are far behind. At most one a peer waits at a time.
    pub log_reads: Vec<LogRead>,
    /// The state machine is to be replaced by this snapshot, which is durable.
    pub restore: Option<SnapshotMeta>,
    /// Committed entries, in order, without gap from batch to batch (but for `restore`).
    pub committed: Vec<Entry>,
    /// Reads that may be served, or must be refused.
    pub reads: Vec<ReadOutcome>,
    /// Role, term or leader, when one of them changed.
    pub soft_state: Option<SoftState>,
    /// What happened, for the log.
    pub events: Vec<Event>,
    /// This node must not take part: stop it, and tell its operator why. Nothing comes after this batch.
    pub refusal: Option<Refusal>,
}

impl Ready {
    /// Whether [`Node::persisted`](crate::Node::persisted) must be called for this batch.
    #[must_use]
    pub fn must_persist(&self) -> bool {
        !self.writes.is_empty() || !self.snapshot_chunks.is_empty()
    }
}

/// What a node is and whom it follows; never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftState {
    /// The node's role.
    pub role: Role,
    /// The node's term.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader_id: Option<NodeId>,
}

/// A piece of a snapshot that a follower received.
///
/// When the last piece is staged, the driver verifies the file and reports
/// [`Node::snapshot_received`](crate::Node::snapshot_received).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// Which snapshot.
    pub snapshot: SnapshotMeta,
    /// Where the piece starts in the file, in bytes. Zero starts the file anew.
    pub offset: u64,
    /// The piece.
    pub data: Bytes,
    /// Whether it is the last.
    pub done: bool,
}

/// A snapshot that a leader must stream to a peer, as `InstallSnapshot` chunks of its own making.
///
/// The driver passes every answer to [`Node::step`](crate::Node::step) and, when the transfer ends
/// without [`SnapshotOutcome::Installed`](crate::SnapshotOutcome::Installed), reports
/// [`Node::snapshot_failed`](crate::Node::snapshot_failed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotToSend {
    /// The receiver.
    pub to: NodeId,
    /// The leader's term, to put in every chunk.
    pub term: Term,
    /// Which snapshot.
    pub snapshot: SnapshotMeta,
}

/// What a node gathers for the next [`Ready`], beside what it can read off its state.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) writes: Vec<Write>,
    pub(crate) messages: Vec<Envelope>,
    pub(crate) messages_after_persist: Vec<Envelope>,
    pub(crate) snapshot_chunks: Vec<SnapshotChunk>,
    pub(crate) snapshots_to_send: Vec<SnapshotToSend>,
    pub(crate) log_reads: Vec<LogRead>,
    pub(crate) restore: Option<SnapshotMeta>,
    pub(crate) reads: Vec<ReadOutcome>,
    pub(crate) events: Vec<Event>,
    pub(crate) refusal: Option<Refusal>,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
            && self.messages.is_empty()
            && self.messages_after_persist.is_empty()
            && self.snapshot_chunks.is_empty()
            && self.snapshots_to_send.is_empty()
            && self.log_reads.is_empty()
            && self.restore.is_none()
            && self.reads.is_empty()
            && self.events.is_empty()
            && self.refusal.is_none()
    }
}

/// Where an answer goes: the caller and the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    pub(crate) to: NodeId,
    pub(crate) call: CallId,
}

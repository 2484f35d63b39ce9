//! The messages that servers exchange: the RPCs of the Raft paper (figures 2 and 13) and of the thesis.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::log::leader_named_by;
use crate::standing::Sender;
use crate::types::{CallId, Entry, Leadership, LogIndex, NodeId, SnapshotMeta, Term};

/// A message with its sender and receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// On a response: the call that it answers. See [`CallId`].
    pub call: CallId,
    /// The message itself.
    pub message: Message,
}

/// Every message of the protocol. Each request is answered by exactly one response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Would you vote for me? Changes no state at the receiver (thesis §9.6).
    PreVote(VoteRequest),
    /// The answer to [`Message::PreVote`].
    PreVoteResponse(VoteResponse),
    /// Vote for me (Raft §5.2).
    RequestVote(VoteRequest),
    /// The answer to [`Message::RequestVote`].
    RequestVoteResponse(VoteResponse),
    /// Replicates entries; without entries, a heartbeat (Raft §5.3).
    AppendEntries(AppendEntries),
    /// The answer to [`Message::AppendEntries`].
    AppendEntriesResponse(AppendEntriesResponse),
    /// One chunk of a snapshot (Raft §7).
    InstallSnapshot(InstallSnapshot),
    /// The answer to [`Message::InstallSnapshot`].
    InstallSnapshotResponse(InstallSnapshotResponse),
    /// Start an election at once: leadership is handed over (thesis §3.10).
    TimeoutNow(TimeoutNow),
    /// The answer to [`Message::TimeoutNow`].
    TimeoutNowResponse(TimeoutNowResponse),
}

impl Message {
    /// Which store sent it. The messages on which nothing is counted do not say it: chunks of snapshots and
    /// the hand-over, which a leader sends beside its `AppendEntries`.
    #[must_use]
    pub fn sender(&self) -> Option<Sender> {
        match self {
            Self::PreVote(request) | Self::RequestVote(request) => Some(request.sender),
            Self::PreVoteResponse(response) | Self::RequestVoteResponse(response) => Some(response.sender),
            Self::AppendEntries(request) => Some(request.sender),
            Self::AppendEntriesResponse(response) => Some(response.sender),
            Self::InstallSnapshotResponse(response) => Some(response.sender),
            Self::InstallSnapshot(_) | Self::TimeoutNow(_) | Self::TimeoutNowResponse(_) => None,
        }
    }
}

/// Arguments of `RequestVote` and `PreVote` (Raft figure 2; thesis §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRequest {
    /// The term of the election: the candidate's own, or for a pre-vote the one it would start.
    pub term: Term,
    /// The candidate.
    pub candidate_id: NodeId,
    /// Index of the candidate's last log entry (Raft §5.4.1).
    pub last_log_index: LogIndex,
    /// Term of the candidate's last log entry (Raft §5.4.1).
    pub last_log_term: Term,
    /// The old leader asked for this election with `TimeoutNow`, so voters need not wait until they
    /// believe it gone (thesis §4.2.3).
    pub leadership_transfer: bool,
    /// Which store asks.
    pub sender: Sender,
}

/// Results of `RequestVote` and `PreVote` (Raft figure 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteResponse {
    /// The responder's current term, for the candidate to update itself; on a granted pre-vote, the
    /// term that was asked about.
    pub term: Term,
    /// Whether the candidate received the vote.
    pub vote_granted: bool,
    /// Which store answers.
    pub sender: Sender,
}

/// Arguments of `AppendEntries` (Raft figure 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The leader, so that followers can redirect clients.
    pub leader_id: NodeId,
    /// By which election it leads in `term`.
    pub leadership: Leadership,
    /// Index of the entry immediately before `entries`.
    pub prev_log_index: LogIndex,
    /// Term of that entry.
    pub prev_log_term: Term,
    /// The leadership of that term, if the leader's log still tells it.
    pub prev_log_leadership: Option<Leadership>,
    /// Entries to store, in order; empty for a heartbeat.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub leader_commit: LogIndex,
    /// The leader's latest round of leadership confirmation (thesis §6.4); echoed in the response.
    pub read_round: u64,
    /// How far the receiver has acknowledged the log to this leader in this term. A receiver that has less
    /// has lost it.
    pub acknowledged: LogIndex,
    /// Which store leads.
    pub sender: Sender,
}

impl AppendEntries {
    /// The leaderships that the message tells: of its term, of the term before the entries, and of those that begin
    /// with one of them.
    pub(crate) fn leaderships(&self) -> impl Iterator<Item = (Term, Leadership)> {
        let before = self.prev_log_leadership;
        let begun = self.entries.iter().filter_map(|entry| {
            let (_, leadership) = leader_named_by(&entry.payload)?;
            Some((entry.term, leadership))
        });
        std::iter::once((self.term, self.leadership))
            .chain(before.map(|leadership| (self.prev_log_term, leadership)))
            .chain(begun)
    }

    /// Whether the entries follow `prev_log_index` without a gap and their terms never fall or pass the
    /// leader's. No server sends anything else; a request that is not well formed is not looked at.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let mut before = (self.prev_log_index, self.prev_log_term);
        self.entries.iter().all(|entry| {
            let follows = Some(entry.index.get()) == before.0.get().checked_add(1) && entry.term >= before.1;
            before = (entry.index, entry.term);
            follows && entry.term <= self.term
        })
    }
}

/// Results of `AppendEntries` (Raft figure 2), with the fast backup of Raft §5.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendEntriesResponse {
    /// The responder's current term, for the leader to update itself.
    pub term: Term,
    /// Whether the logs matched.
    pub outcome: AppendOutcome,
    /// How far the responder knows its own log to be committed, whether that was compared with the leader's or not: a
    /// leader that lacks some of it must not lead.
    pub committed: LogIndex,
    /// The request's `read_round`.
    pub read_round: u64,
    /// Which store answers.
    pub sender: Sender,
}

/// Whether the follower's log matched at `prev_log_index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// The follower's log is durable and equal to the leader's up to this index.
    Matched {
        /// The last index known to be equal and durable.
        match_index: LogIndex,
    },
    /// The follower's log has no entry of that term at `prev_log_index`.
    Conflict {
        /// The `prev_log_index` that was refused.
        rejected_index: LogIndex,
        /// The term of the follower's entry at `rejected_index`; `None` if its log is shorter.
        conflict_term: Option<Term>,
        /// The first index the follower stores of `conflict_term`; if its log is shorter, the index
        /// after its last entry.
        conflict_index: LogIndex,
    },
    /// The request was of an older term, or not well formed, and was not looked at.
    Stale,
}

/// Arguments of `InstallSnapshot` (Raft figure 13): one chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// The leader, so that followers can redirect clients.
    pub leader_id: NodeId,
    /// `last_included_index`, `last_included_term` and which file it is.
    pub snapshot: SnapshotMeta,
    /// Where in the file the chunk starts, in bytes.
    pub offset: u64,
    /// The chunk.
    pub data: Bytes,
    /// Whether this is the last chunk.
    pub done: bool,
}

/// Results of `InstallSnapshot` (Raft figure 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallSnapshotResponse {
    /// The responder's current term, for the leader to update itself.
    pub term: Term,
    /// The snapshot that the request was about.
    pub last_included_index: LogIndex,
    /// What the responder has of it.
    pub outcome: SnapshotOutcome,
    /// Which store answers.
    pub sender: Sender,
}

/// How far a snapshot transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotOutcome {
    /// The file is held up to this offset; send on from there.
    Continue {
        /// The offset of the next byte that the follower needs.
        next_offset: u64,
    },
    /// The follower's state covers the snapshot, durably. Log replication can go on after it.
    Installed,
    /// The file that arrived is damaged and was thrown away: start again at offset 0.
    Damaged,
    /// The request was of an older term, or about a snapshot that its leader has since replaced by a later
    /// one. It was not looked at.
    Stale,
}

/// Arguments of `TimeoutNow` (thesis §3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
    /// The leader that hands over.
    pub leader_id: NodeId,
}

/// Results of `TimeoutNow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutNowResponse {
    /// The responder's current term.
    pub term: Term,
}

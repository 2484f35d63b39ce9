//! Messages by hand. A place in the log is a pair `(index, term)`.

use bytes::Bytes;
use raft_core::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Entry, Incarnation, InstallSnapshot,
    InstallSnapshotResponse, Leadership, LogIndex, Message, NodeId, Sender, SnapshotMeta, SnapshotOutcome,
    Standing, Term, TimeoutNow, VoteRequest, VoteResponse,
};

use super::disk::checksum;
use super::voters;

/// Any server of a cluster as [`voters`] makes it.
pub(crate) const SENDER: Sender = Sender {
    incarnation: Incarnation::ZERO,
    standing: Standing::Founder,
    knows_receiver_as: Some(Incarnation::ZERO),
    cluster_founder: None,
};

/// `RequestVote` of `candidate` for `term`, whose log ends at `(last_log_index, last_log_term)`.
pub(crate) fn vote_request(candidate: u64, term: u64, last_log_index: u64, last_log_term: u64) -> Message {
    Message::RequestVote(VoteRequest {
        term: Term(term),
        candidate_id: NodeId(candidate),
        last_log_index: LogIndex(last_log_index),
        last_log_term: Term(last_log_term),
        leadership_transfer: false,
        sender: SENDER,
    })
}

/// As [`vote_request`], because the old leader hands over.
pub(crate) fn vote_request_of_transfer(candidate: u64, term: u64, last: (u64, u64)) -> Message {
    let Message::RequestVote(request) = vote_request(candidate, term, last.0, last.1) else {
        unreachable!()
    };
    Message::RequestVote(VoteRequest {
        leadership_transfer: true,
        ..request
    })
}

pub(crate) fn pre_vote(candidate: u64, term: u64, last: (u64, u64)) -> Message {
    let Message::RequestVote(request) = vote_request(candidate, term, last.0, last.1) else {
        unreachable!()
    };
    Message::PreVote(request)
}

pub(crate) fn vote(term: u64, vote_granted: bool) -> Message {
    Message::RequestVoteResponse(VoteResponse {
        term: Term(term),
        vote_granted,
        sender: SENDER,
    })
}

/// `AppendEntries` of server 2, the leader of `term`.
pub(crate) fn append(term: u64, prev: (u64, u64), entries: Vec<Entry>, leader_commit: u64) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        leader_id: NodeId(2),
        leadership: Leadership(70),
        prev_log_index: LogIndex(prev.0),
        prev_log_term: Term(prev.1),
        prev_log_leadership: None,
        entries,
        leader_commit: LogIndex(leader_commit),
        read_round: 0,
        acknowledged: LogIndex::ZERO,
        sender: SENDER,
    })
}

pub(crate) fn matched(term: u64, match_index: u64) -> Message {
    answer_to_round(term, match_index, 0)
}

/// The answer to a message of this read round, whose logs matched.
pub(crate) fn answer_to_round(term: u64, match_index: u64, read_round: u64) -> Message {
    Message::AppendEntriesResponse(AppendEntriesResponse {
        term: Term(term),
        outcome: AppendOutcome::Matched {
            match_index: LogIndex(match_index),
        },
        committed: LogIndex::ZERO,
        read_round,
        sender: SENDER,
    })
}

/// The answer of a server whose log ends at `last_log_index`, before what was sent: nothing is at `rejected_index`.
pub(crate) fn conflict(term: u64, rejected_index: u64, last_log_index: u64) -> Message {
    let Message::AppendEntriesResponse(answer) = matched(term, 0) else {
        unreachable!()
    };
    Message::AppendEntriesResponse(AppendEntriesResponse {
        outcome: AppendOutcome::Conflict {
            rejected_index: LogIndex(rejected_index),
            conflict_term: None,
            conflict_index: LogIndex(last_log_index).next(),
        },
        ..answer
    })
}

pub(crate) fn snapshot(index: u64, term: u64, file: &[u8]) -> SnapshotMeta {
    SnapshotMeta {
        last_included_index: LogIndex(index),
        last_included_term: Term(term),
        terms: Vec::new(),
        configuration: voters(3),
        size_bytes: file.len() as u64,
        checksum: checksum(file),
    }
}

/// A piece of a snapshot, from server 2, the leader of `term`; the last one if the file ends with it.
pub(crate) fn chunk(term: u64, snapshot: &SnapshotMeta, offset: u64, data: &[u8]) -> Message {
    Message::InstallSnapshot(InstallSnapshot {
        term: Term(term),
        leader_id: NodeId(2),
        snapshot: snapshot.clone(),
        offset,
        data: Bytes::copy_from_slice(data),
        done: offset + data.len() as u64 >= snapshot.size_bytes,
    })
}

pub(crate) fn snapshot_answer(term: u64, index: u64, outcome: SnapshotOutcome) -> Message {
    Message::InstallSnapshotResponse(InstallSnapshotResponse {
        term: Term(term),
        last_included_index: LogIndex(index),
        outcome,
        sender: SENDER,
    })
}

/// `TimeoutNow` of server 2, the leader of `term`.
pub(crate) fn timeout_now(term: u64) -> Message {
    Message::TimeoutNow(TimeoutNow {
        term: Term(term),
        leader_id: NodeId(2),
    })
}

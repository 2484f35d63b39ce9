//! Messages as short lines of the trace.

use std::fmt;

use raft_core::{AppendOutcome, Message, SnapshotOutcome};

/// Prints a message in one short line.
pub(crate) struct Described<'a>(pub(crate) &'a Message);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::PreVote(request) | Message::RequestVote(request) => {
                let name = if matches!(self.0, Message::PreVote(_)) {
                    "PreVote"
                } else {
                    "RequestVote"
                };
                let (last, of) = (request.last_log_index, request.last_log_term);
                write!(f, "{name} term={} last={last}/t{of}", request.term)
            }
            Message::PreVoteResponse(answer) => {
                write!(
                    f,
                    "PreVote answer term={} granted={}",
                    answer.term, answer.vote_granted
                )
            }
            Message::RequestVoteResponse(answer) => {
                write!(
                    f,
                    "RequestVote answer term={} granted={}",
                    answer.term, answer.vote_granted
                )
            }
            Message::AppendEntries(request) => write!(
                f,
                "AppendEntries term={} prev={}/t{} entries={} commit={} round={}",
                request.term,
                request.prev_log_index,
                request.prev_log_term,
                request.entries.len(),
                request.leader_commit,
                request.read_round
            ),
            Message::AppendEntriesResponse(answer) => {
                write!(f, "AppendEntries answer term={} ", answer.term)?;
                match answer.outcome {
                    AppendOutcome::Matched { match_index } => write!(f, "matched={match_index}"),
                    AppendOutcome::Conflict {
                        rejected_index,
                        conflict_index,
                        ..
                    } => write!(f, "conflict at {rejected_index}, try {conflict_index}"),
                    AppendOutcome::Stale => f.write_str("stale"),
                }
            }
            Message::InstallSnapshot(request) => write!(
                f,
                "InstallSnapshot term={} at={} offset={} bytes={} done={}",
                request.term,
                request.snapshot.last_included_index,
                request.offset,
                request.data.len(),
                request.done
            ),
            Message::InstallSnapshotResponse(answer) => {
                let (term, at) = (answer.term, answer.last_included_index);
                write!(f, "InstallSnapshot answer term={term} at={at} ")?;
                match answer.outcome {
                    SnapshotOutcome::Continue { next_offset } => write!(f, "next={next_offset}"),
                    SnapshotOutcome::Installed => f.write_str("installed"),
                    SnapshotOutcome::Damaged => f.write_str("damaged"),
                    SnapshotOutcome::Stale => f.write_str("stale"),
                }
            }
            Message::TimeoutNow(request) => write!(f, "TimeoutNow term={}", request.term),
            Message::TimeoutNowResponse(answer) => write!(f, "TimeoutNow answer term={}", answer.term),
        }
    }
}

//! Messages as short lines of the trace.

use std::fmt;

use raft_core::{AppendOutcome, LogIndex, Message, SnapshotOutcome};

/// Prints a message in one short line.
pub(crate) struct Described<'a>(pub(crate) &'a Message);

impl Described<'_> {
    /// All that the line says, if it is one of the two kinds of messages that are most of them.
    pub(crate) fn numbers(&self) -> Option<[u64; 7]> {
        match self.0 {
            Message::AppendEntries(request) => Some([
                1,
                request.term.get(),
                request.prev_log_index.get(),
                request.prev_log_term.get(),
                request.entries.len() as u64,
                request.leader_commit.get(),
                request.read_round,
            ]),
            Message::AppendEntriesResponse(answer) => {
                let (kind, one, other) = match answer.outcome {
                    AppendOutcome::Matched { match_index } => (1, match_index, match_index),
                    AppendOutcome::Conflict {
                        rejected_index,
                        conflict_index,
                        ..
                    } => (2, rejected_index, conflict_index),
                    AppendOutcome::Stale => (3, LogIndex::ZERO, LogIndex::ZERO),
                };
                Some([2, answer.term.get(), kind, one.get(), other.get(), 0, 0])
            }
            _ => None,
        }
    }
}

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

#[cfg(test)]
mod tests {
    use raft_core::{AppendEntriesResponse, AppendOutcome, LogIndex, Message, Sender, Term};

    use super::Described;

    #[test]
    fn another_line_has_other_numbers() {
        let answer = |term, outcome| {
            Message::AppendEntriesResponse(AppendEntriesResponse {
                term: Term(term),
                outcome,
                committed: LogIndex(1),
                read_round: 1,
                sender: Sender::default(),
            })
        };
        let matched = |index| AppendOutcome::Matched {
            match_index: LogIndex(index),
        };
        let answers = [
            answer(1, matched(1)),
            answer(1, matched(2)),
            answer(2, matched(1)),
            answer(1, AppendOutcome::Stale),
        ];
        for one in &answers {
            for other in &answers {
                let (one, other) = (Described(one), Described(other));
                let is_same_line = one.to_string() == other.to_string();
                assert_eq!(one.numbers() == other.numbers(), is_same_line, "{one}, {other}");
            }
        }
    }
}

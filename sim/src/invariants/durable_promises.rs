//! A promise that leaves a node is on its disk (Raft figure 2: "respond to RPCs after updating stable
//! storage"). Promises are granted votes, a candidate's own among them, matched logs and installed snapshots.
//!
//! A promise of a term that the disk has left behind is not looked at closely: a vote of an older term cannot
//! be given again, and entries that a later leader replaced were never committed.

use raft_core::{AppendEntries, AppendOutcome, LogIndex, Message, NodeId, Restored, SnapshotOutcome, Term};

use super::Violation;

/// How many promises were checked.
#[derive(Debug, Default)]
pub(crate) struct DurablePromises {
    pub(crate) checked: u64,
}

impl DurablePromises {
    /// `node`, whose disk holds `durable`, answers `request` with `response`.
    pub(crate) fn leaves(
        &mut self,
        node: NodeId,
        durable: &Restored,
        request: &Message,
        response: &Message,
    ) -> Result<(), Violation> {
        let missing = match (request, response) {
            (Message::RequestVote(asked), Message::RequestVoteResponse(answer)) if answer.vote_granted => {
                missing_vote(durable, asked.candidate_id, answer.term)
            }
            (Message::AppendEntries(asked), Message::AppendEntriesResponse(answer)) => match answer.outcome {
                AppendOutcome::Matched { match_index } => {
                    missing_entry(durable, asked, answer.term, match_index)
                }
                _ => return Ok(()),
            },
            (Message::InstallSnapshot(asked), Message::InstallSnapshotResponse(answer))
                if answer.outcome == SnapshotOutcome::Installed =>
            {
                missing_snapshot(durable, asked.snapshot.last_included_index)
            }
            _ => return Ok(()),
        };
        self.checked += 1;
        kept(node, missing)
    }

    /// `node`, whose disk holds `durable`, sends `request`. A candidate that asks for votes has given its own.
    pub(crate) fn asks(
        &mut self,
        node: NodeId,
        durable: &Restored,
        request: &Message,
    ) -> Result<(), Violation> {
        let Message::RequestVote(asked) = request else {
            return Ok(());
        };
        self.checked += 1;
        kept(node, missing_vote(durable, asked.candidate_id, asked.term))
    }
}

fn kept(node: NodeId, missing: Option<String>) -> Result<(), Violation> {
    missing.map_or(Ok(()), |what| {
        Err(Violation::new("durable promises", format!("node {node} {what}")))
    })
}

fn missing_vote(durable: &Restored, candidate: NodeId, term: Term) -> Option<String> {
    let stored = durable.hard_state;
    let is_stored = stored.current_term == term && stored.voted_for == Some(candidate);
    (!is_stored && stored.current_term <= term).then(|| {
        format!(
            "votes for node {candidate} in term {term}; its disk says term {}, vote {:?}",
            stored.current_term, stored.voted_for
        )
    })
}

fn missing_entry(
    durable: &Restored,
    request: &AppendEntries,
    term: Term,
    match_index: LogIndex,
) -> Option<String> {
    if durable.hard_state.current_term > term {
        return None;
    }
    let promised = request.entries.iter().filter(|entry| entry.index <= match_index);
    for entry in promised {
        if !covers(durable, entry.index, entry.term) {
            return Some(format!(
                "says that it has entry {} of term {}, which is not on its disk",
                entry.index, entry.term
            ));
        }
    }
    (last_index(durable) < match_index).then(|| {
        format!(
            "says that its log matches up to {match_index}; its disk ends at {}",
            last_index(durable)
        )
    })
}

fn missing_snapshot(durable: &Restored, index: LogIndex) -> Option<String> {
    (last_index(durable) < index).then(|| {
        format!(
            "says that it has the snapshot at {index}; its disk ends at {}",
            last_index(durable)
        )
    })
}

fn last_index(durable: &Restored) -> LogIndex {
    let snapshot = durable.snapshot.last_included_index;
    durable
        .entries
        .last()
        .map_or(snapshot, |last| last.index.max(snapshot))
}

fn covers(durable: &Restored, index: LogIndex, term: Term) -> bool {
    let in_log = |first: LogIndex| {
        let position = usize::try_from(index.get().checked_sub(first.get())?).ok()?;
        durable.entries.get(position)
    };
    index <= durable.snapshot.last_included_index
        || durable
            .entries
            .first()
            .and_then(|first| in_log(first.index))
            .is_some_and(|entry| entry.term == term)
}

#[cfg(test)]
mod tests {
    use raft_core::{
        HardState, LogIndex, Message, NodeId, Restored, Sender, Term, VoteRequest, VoteResponse,
    };

    use super::DurablePromises;

    /// A request of node 1 in term 2.
    fn request() -> Message {
        Message::RequestVote(VoteRequest {
            term: Term(2),
            candidate_id: NodeId(1),
            last_log_index: LogIndex(0),
            last_log_term: Term(0),
            leadership_transfer: false,
            sender: Sender::default(),
        })
    }

    fn vote(durable: HardState) -> bool {
        let response = Message::RequestVoteResponse(VoteResponse {
            term: Term(2),
            vote_granted: true,
            sender: Sender::default(),
        });
        let durable = Restored {
            hard_state: durable,
            ..Restored::default()
        };
        let mut invariant = DurablePromises::default();
        invariant
            .leaves(NodeId(3), &durable, &request(), &response)
            .is_ok()
    }

    #[test]
    fn a_vote_must_be_on_disk_or_of_a_term_that_is_over() {
        let state = |term, voted_for: Option<u64>| HardState {
            current_term: Term(term),
            voted_for: voted_for.map(NodeId),
            ..HardState::default()
        };
        assert!(vote(state(2, Some(1))));
        assert!(vote(state(3, None)));
        assert!(!vote(state(2, Some(2))));
        assert!(!vote(state(2, None)));
        assert!(!vote(state(1, Some(1))));
    }

    #[test]
    fn a_candidate_that_asks_has_its_own_vote_on_disk() {
        let asks = |voted_for| {
            let hard_state = HardState {
                current_term: Term(2),
                voted_for,
                ..HardState::default()
            };
            let durable = Restored {
                hard_state,
                ..Restored::default()
            };
            DurablePromises::default()
                .asks(NodeId(1), &durable, &request())
                .is_ok()
        };
        assert!(asks(Some(NodeId(1))));
        assert!(!asks(None));
        assert!(!asks(Some(NodeId(2))));
    }
}

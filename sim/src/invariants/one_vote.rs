//! A server votes at most once in a term, whatever happens to it in between (Raft §5.2).

use std::collections::BTreeMap;

use raft_core::{Incarnation, Message, NodeId, Term};

use super::Violation;

/// Every vote that ever left a node.
#[derive(Debug, Default)]
pub(crate) struct OneVote {
    /// For whom, by the voter, the store by which it took part, and the term.
    votes: BTreeMap<(NodeId, Incarnation, Term), NodeId>,
}

impl OneVote {
    /// `voter`, on the store `store`, answers `request` with `response`.
    pub(crate) fn answers(
        &mut self,
        voter: NodeId,
        store: Incarnation,
        request: &Message,
        response: &Message,
    ) -> Result<(), Violation> {
        match (request, response) {
            (Message::RequestVote(asked), Message::RequestVoteResponse(answer)) if answer.vote_granted => {
                self.votes_for(voter, store, answer.term, asked.candidate_id)
            }
            _ => Ok(()),
        }
    }

    /// `candidate`, on the store `store`, sends `request`. If it asks for votes, it has given its own to itself.
    pub(crate) fn asks(
        &mut self,
        candidate: NodeId,
        store: Incarnation,
        request: &Message,
    ) -> Result<(), Violation> {
        match request {
            Message::RequestVote(asked) => self.votes_for(candidate, store, asked.term, candidate),
            _ => Ok(()),
        }
    }

    fn votes_for(
        &mut self,
        voter: NodeId,
        store: Incarnation,
        term: Term,
        candidate: NodeId,
    ) -> Result<(), Violation> {
        let first = *self.votes.entry((voter, store, term)).or_insert(candidate);
        if first == candidate {
            return Ok(());
        }
        let what = format!("node {voter} votes for node {first} and for node {candidate} in term {term}");
        Err(Violation::new("one vote", what))
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{Incarnation, NodeId, Term};

    use super::OneVote;

    #[test]
    fn a_second_vote_in_a_term_is_caught_and_a_repeated_one_is_not() {
        let mut invariant = OneVote::default();
        let mut votes = |store, term, candidate| {
            let (voter, store) = (NodeId(3), Incarnation(store));
            invariant
                .votes_for(voter, store, Term(term), NodeId(candidate))
                .is_ok()
        };
        assert!(votes(1, 1, 1) && votes(1, 1, 1) && votes(1, 2, 2));
        assert!(!votes(1, 1, 2));
        assert!(votes(2, 1, 2), "that is another store");
    }
}

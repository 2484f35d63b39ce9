//! What is committed in a term is in the log of every leader of a later term (Raft figure 3).

use raft_core::{LogIndex, NodeId, Term};

use super::Violation;
use super::committed_never_lost::Committed;

/// Looks at every leader when it is elected.
#[derive(Debug, Default)]
pub(crate) struct LeaderCompleteness;

impl LeaderCompleteness {
    /// `node` leads `term` from now on, with a log that has these terms, from its first entry on. What it has no
    /// term for before that is in its snapshot.
    pub(crate) fn elected(
        &self,
        node: NodeId,
        term: Term,
        committed: &Committed,
        first: LogIndex,
        term_at: impl Fn(LogIndex) -> Option<Term>,
    ) -> Result<(), Violation> {
        for (index, commit) in committed.from(first) {
            if commit.by < term && term_at(index) != Some(commit.term) {
                let what = format!(
                    "node {node} leads term {term} without entry {index} of term {}, which was committed in term {}",
                    commit.term, commit.by
                );
                return Err(Violation::new("leader completeness", what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{
        Configuration, Entry, Incarnation, Leadership, LogIndex, NodeId, Payload, Restored, Role, Term,
    };

    use super::{Committed, LeaderCompleteness};
    use crate::invariants::tests::change;

    #[test]
    fn a_leader_without_an_entry_of_an_earlier_term_is_caught() {
        let mut committed = Committed::default();
        let entry = Entry {
            term: Term(1),
            index: LogIndex(1),
            payload: Payload::Noop {
                leader_id: NodeId(1),
                leadership: Leadership(70),
            },
        };
        let disk = Restored {
            entries: vec![entry],
            ..Restored::default()
        };
        let mut commits = change(Role::Leader, Term(2), None, &[]);
        commits.committed = vec![(LogIndex(1), Term(1))];
        commits.configuration =
            Configuration::of_voters([NodeId(1)]).with_incarnation(NodeId(1), Incarnation(7));
        committed.is_on_disk(NodeId(1), Incarnation(7), &disk).unwrap();
        committed.changed(NodeId(1), &commits).unwrap();
        let elected = |term, held: Option<u64>| {
            let term_at = |_| held.map(Term);
            LeaderCompleteness.elected(NodeId(2), Term(term), &committed, LogIndex(1), term_at)
        };
        assert!(elected(3, Some(1)).is_ok());
        assert!(elected(3, None).is_err());
        assert!(elected(3, Some(2)).is_err());
        assert!(
            elected(2, None).is_ok(),
            "a late winner of an older term harms nobody"
        );
    }
}

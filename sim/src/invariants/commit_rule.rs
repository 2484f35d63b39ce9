//! A leader commits by counting only entries of its own term; older ones are committed with them (Raft §5.4.2).

use raft_core::{NodeId, Role};

use super::Violation;
use crate::server::LogChange;

/// Looks at what leaders commit.
#[derive(Debug, Default)]
pub(crate) struct CommitRule;

impl CommitRule {
    /// `node` learned that entries are committed; a leader has counted them itself.
    pub(crate) fn changed(&self, node: NodeId, change: &LogChange) -> Result<(), Violation> {
        match change.committed.last() {
            Some((index, term)) if change.role == Role::Leader && *term != change.term => {
                let what = format!(
                    "node {node}, the leader of term {}, commits entry {index} of term {term} and none of its own",
                    change.term
                );
                Err(Violation::new("commit rule", what))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{LogIndex, NodeId, Role, Term};

    use super::CommitRule;
    use crate::invariants::tests::change;

    #[test]
    fn an_entry_of_an_older_term_alone_is_caught_and_one_before_an_own_is_not() {
        let holds = |role, committed: &[(u64, u64)]| {
            let mut change = change(role, Term(2), None, &[]);
            let committed = committed.iter();
            change.committed = committed
                .map(|(index, term)| (LogIndex(*index), Term(*term)))
                .collect();
            CommitRule.changed(NodeId(1), &change).is_ok()
        };
        assert!(holds(Role::Leader, &[(1, 1), (2, 2)]));
        assert!(!holds(Role::Leader, &[(1, 1)]));
        assert!(holds(Role::Follower, &[(1, 1)]), "it was told");
    }
}

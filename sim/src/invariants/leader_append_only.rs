//! A leader never overwrites or deletes entries of its log, it only appends (Raft figure 3).

use std::collections::BTreeMap;

use raft_core::{LogIndex, NodeId, Role};

use super::Violation;
use crate::server::LogChange;

/// Where each node's log ended when it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct LeaderAppendOnly {
    last: BTreeMap<NodeId, LogIndex>,
}

impl LeaderAppendOnly {
    /// `node` starts with a log that ends at `last`.
    pub(crate) fn started(&mut self, node: NodeId, last: LogIndex) {
        self.last.insert(node, last);
    }

    /// The log of `node` has changed.
    pub(crate) fn changed(&mut self, node: NodeId, change: &LogChange) -> Result<(), Violation> {
        let mut last = self.last.insert(node, change.last_log_index).unwrap_or_default();
        if change.role != Role::Leader {
            return Ok(());
        }
        if change.has_installed {
            return Err(violation(node, change, "replaces its log by a snapshot"));
        }
        for appended in &change.appended {
            let Some(first) = appended.entries.first().map(|entry| entry.index) else {
                continue;
            };
            if first != last.next() {
                let what = format!("writes entry {first} although its log ended at {last}");
                return Err(violation(node, change, &what));
            }
            last = appended.entries.last().map_or(last, |entry| entry.index);
        }
        if change.last_log_index < last {
            let what = format!("deletes from its log, which ended at {last}");
            return Err(violation(node, change, &what));
        }
        Ok(())
    }
}

fn violation(node: NodeId, change: &LogChange, what: &str) -> Violation {
    let what = format!("node {node}, leader of term {}, {what}", change.term);
    Violation::new("leader append-only", what)
}

#[cfg(test)]
mod tests {
    use raft_core::{LogIndex, NodeId, Role, Term};

    use super::LeaderAppendOnly;
    use crate::invariants::tests::change;

    #[test]
    fn a_leader_that_writes_over_its_log_is_caught_and_a_follower_is_not() {
        let mut invariant = LeaderAppendOnly::default();
        invariant.started(NodeId(1), LogIndex(4));
        let mut next = change(Role::Leader, Term(2), Some(Term(1)), &[(5, 2), (6, 2)]);
        assert!(invariant.changed(NodeId(1), &next).is_ok());
        assert!(invariant.changed(NodeId(1), &next).is_err());
        next.role = Role::Follower;
        assert!(invariant.changed(NodeId(1), &next).is_ok());
    }

    #[test]
    fn a_leader_that_deletes_from_its_log_is_caught_and_a_follower_is_not() {
        let mut invariant = LeaderAppendOnly::default();
        invariant.started(NodeId(1), LogIndex(4));
        let mut next = change(Role::Follower, Term(2), None, &[]);
        next.last_log_index = LogIndex(3);
        assert!(invariant.changed(NodeId(1), &next).is_ok());
        next.role = Role::Leader;
        assert!(invariant.changed(NodeId(1), &next).is_ok());
        next.last_log_index = LogIndex(2);
        assert!(invariant.changed(NodeId(1), &next).is_err());
    }
}

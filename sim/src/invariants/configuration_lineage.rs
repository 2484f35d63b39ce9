//! The members that a snapshot names are those of the last configuration in the log before it, or the first ones
//! (Raft §6, §7).

use std::collections::BTreeMap;

use raft_core::{Configuration, LogIndex, NodeId, Payload, SnapshotMeta, Term};

use super::Violation;
use super::committed_never_lost::Committed;
use crate::server::LogChange;

/// Every configuration that was ever in a log.
#[derive(Debug)]
pub(crate) struct ConfigurationLineage {
    initial: Configuration,
    entries: BTreeMap<(LogIndex, Term), Configuration>,
}

impl ConfigurationLineage {
    pub(crate) fn new(initial: Configuration) -> Self {
        Self {
            initial,
            entries: BTreeMap::new(),
        }
    }

    /// The log of `node` has changed.
    pub(crate) fn changed(
        &mut self,
        node: NodeId,
        change: &LogChange,
        committed: &Committed,
    ) -> Result<(), Violation> {
        for entry in change.appended.iter().flat_map(|appended| &appended.entries) {
            if let Payload::Configuration(configuration) = &entry.payload {
                self.entries
                    .insert((entry.index, entry.term), configuration.clone());
            }
        }
        change
            .snapshots
            .iter()
            .try_for_each(|snapshot| self.follows(node, snapshot, committed))
    }

    /// The last configuration before `index` that is committed, or the first of all.
    pub(super) fn before(&self, index: LogIndex, committed: &Committed) -> &Configuration {
        let is_committed = |index, term| committed.at(index).is_some_and(|commit| commit.term == term);
        self.entries
            .range(..(index, Term::ZERO))
            .rev()
            .find(|((index, term), _)| is_committed(*index, *term))
            .map_or(&self.initial, |(_, configuration)| configuration)
    }

    fn follows(&self, node: NodeId, snapshot: &SnapshotMeta, committed: &Committed) -> Result<(), Violation> {
        let index = snapshot.last_included_index;
        let expected = self.before(index.next(), committed);
        if *expected == snapshot.configuration {
            return Ok(());
        }
        let what = format!(
            "the snapshot of node {node} at {index} has the members {:?} instead of {expected:?}",
            snapshot.configuration
        );
        Err(Violation::new("configuration lineage", what))
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{Configuration, LogIndex, NodeId, Role, SnapshotMeta, Term};

    use super::ConfigurationLineage;
    use crate::invariants::committed_never_lost::Committed;
    use crate::invariants::tests::change;

    #[test]
    fn a_snapshot_with_other_members_is_caught() {
        let members = |ids: &[u64]| Configuration::of_voters(ids.iter().copied().map(NodeId));
        let mut invariant = ConfigurationLineage::new(members(&[1, 2, 3]));
        let committed = Committed::default();
        let mut cut = |ids: &[u64]| {
            let mut change = change(Role::Follower, Term(1), None, &[]);
            change.snapshots.push(SnapshotMeta {
                last_included_index: LogIndex(4),
                configuration: members(ids),
                ..SnapshotMeta::default()
            });
            invariant.changed(NodeId(1), &change, &committed)
        };
        assert!(cut(&[1, 2, 3]).is_ok());
        assert!(cut(&[1, 2]).is_err());
    }
}

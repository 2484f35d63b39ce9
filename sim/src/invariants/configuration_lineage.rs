//! The members that a snapshot names are those of the last configuration in the log before it, or the first ones
//! (Raft §6, §7).

use std::collections::BTreeMap;

use raft_core::{Configuration, Incarnation, LogIndex, NodeId, Payload, SnapshotMeta, Term};

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

    /// Whether some log names a later store of `node`, committed or not. Whoever has that entry does not count
    /// `store`, and nobody counts the later one yet.
    pub(crate) fn is_given_up(&self, node: NodeId, store: Incarnation) -> bool {
        let named = self
            .entries
            .values()
            .filter_map(|members| members.incarnation_of(node));
        named.max().is_some_and(|latest| latest > store)
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
    use raft_core::{Configuration, Entry, Incarnation, LogIndex, NodeId, Payload, Role, SnapshotMeta, Term};

    use super::ConfigurationLineage;
    use crate::invariants::committed_never_lost::Committed;
    use crate::invariants::tests::change;
    use crate::server::Appended;

    #[test]
    fn a_store_is_given_up_when_any_log_names_a_later_one() {
        let node = NodeId(1);
        let members = Configuration::of_voters([node]);
        let mut invariant = ConfigurationLineage::new(members.clone());
        let mut named = |store| {
            let mut change = change(Role::Leader, Term(1), None, &[]);
            change.appended.push(Appended {
                previous_term: None,
                entries: vec![Entry {
                    term: Term(1),
                    index: LogIndex(store),
                    payload: Payload::Configuration(
                        members.clone().with_incarnation(node, Incarnation(store)),
                    ),
                }],
            });
            invariant.changed(node, &change, &Committed::default()).unwrap();
            invariant.is_given_up(node, Incarnation(7))
        };
        assert!(!named(7));
        assert!(named(8));
    }

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

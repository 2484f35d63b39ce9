//! Who the members of the cluster are, and what counts as a majority of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::types::{Incarnation, LogIndex, NodeId};

/// The members of the cluster (Raft §6), as carried in the log and in snapshots.
///
/// A decision needs a majority of `voters` and, while `outgoing_voters` is not empty (a joint
/// configuration), also a majority of those. Learners receive the log and decide nothing (thesis §4.2.1).
/// Today every cluster has fixed voters; the arithmetic is ready for the rest.
///
/// It also says by which store each member takes part: the registry. See [`Standing`](crate::Standing).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    voters: BTreeSet<NodeId>,
    outgoing_voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    /// By which store each member takes part. Empty until the cluster is founded.
    registry: BTreeMap<NodeId, Incarnation>,
    /// By whose election the cluster was founded: what tells its log from that of another cluster of the same
    /// nodes.
    founder: Option<Incarnation>,
}

impl Configuration {
    /// A configuration of voters alone.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            voters: voters.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A joint configuration: decisions need a majority of `incoming` and one of `outgoing` (Raft §6).
    #[must_use]
    pub fn joint(
        incoming: impl IntoIterator<Item = NodeId>,
        outgoing: impl IntoIterator<Item = NodeId>,
    ) -> Self {
        Self {
            voters: incoming.into_iter().collect(),
            outgoing_voters: outgoing.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The same configuration with these learners.
    #[must_use]
    pub fn with_learners(mut self, learners: impl IntoIterator<Item = NodeId>) -> Self {
        self.learners = learners.into_iter().collect();
        self
    }

    /// The same configuration, in which `id` takes part by the store `incarnation` and by no other.
    #[must_use]
    pub fn with_incarnation(mut self, id: NodeId, incarnation: Incarnation) -> Self {
        self.registry.insert(id, incarnation);
        self
    }

    /// The same configuration, of the cluster that was founded by the election of the store `founder`.
    #[must_use]
    pub fn founded_by(mut self, founder: Incarnation) -> Self {
        self.founder = Some(founder);
        self
    }

    /// The store by whose election the cluster was founded.
    #[must_use]
    pub fn founder(&self) -> Option<Incarnation> {
        self.founder
    }

    /// The store by which `id` takes part; `None` if it was never heard of.
    #[must_use]
    pub fn incarnation_of(&self, id: NodeId) -> Option<Incarnation> {
        self.registry.get(&id).copied()
    }

    /// Whether it says by which stores the members take part. Only before the first election it does not.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        !self.registry.is_empty()
    }

    /// The voters, in order of their ids.
    #[must_use]
    pub fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    /// Every member once, in order of their ids: voters of both halves, and learners.
    #[must_use]
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.voters
            .iter()
            .chain(&self.outgoing_voters)
            .chain(&self.learners)
            .copied()
            .collect()
    }

    /// Whether `id` may vote.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing_voters.contains(&id)
    }

    /// Whether the members for which `agrees` holds are enough to decide.
    #[must_use]
    pub fn has_quorum(&self, agrees: impl Fn(NodeId) -> bool) -> bool {
        let majority_of = |voters: &BTreeSet<NodeId>| {
            let agreeing = voters.iter().filter(|id| agrees(**id)).count();
            agreeing * 2 > voters.len()
        };
        !self.voters.is_empty()
            && majority_of(&self.voters)
            && (self.outgoing_voters.is_empty() || majority_of(&self.outgoing_voters))
    }

    /// The highest index that a quorum has reached, given how far each member is (Raft §5.3).
    #[must_use]
    pub fn quorum_index(&self, reached: impl Fn(NodeId) -> LogIndex) -> LogIndex {
        self.reached_by_quorum(reached)
    }

    /// The most that each member of some quorum has reached; nothing, where nobody can decide.
    pub(crate) fn reached_by_quorum<T: Ord + Copy + Default>(&self, reached: impl Fn(NodeId) -> T) -> T {
        let by_majority = |voters: &BTreeSet<NodeId>| {
            let mut all: Vec<T> = voters.iter().map(|id| reached(*id)).collect();
            all.sort_unstable();
            // With n voters in rising order, the one at (n - 1) / 2 and all behind it are a majority.
            all.get(all.len().saturating_sub(1) / 2).copied()
        };
        let incoming = by_majority(&self.voters).unwrap_or_default();
        by_majority(&self.outgoing_voters).map_or(incoming, |outgoing| outgoing.min(incoming))
    }

    pub(crate) fn size_bytes(&self) -> usize {
        let members = self.voters.len() + self.outgoing_voters.len() + self.learners.len();
        members * size_of::<NodeId>() + self.registry.len() * size_of::<(NodeId, Incarnation)>()
    }
}

#[cfg(test)]
mod tests {
    use super::Configuration;
    use crate::types::{Incarnation, LogIndex, NodeId};

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_quorum_is_more_than_half_of_the_voters() {
        for (voters, agreeing, expected) in [
            (1, 1, true),
            (1, 0, false),
            (2, 1, false),
            (3, 2, true),
            (4, 2, false),
            (5, 3, true),
            (7, 3, false),
        ] {
            let configuration = Configuration::of_voters((1..=voters).map(NodeId));
            assert_eq!(
                configuration.has_quorum(|id| id.get() <= agreeing),
                expected,
                "{agreeing} of {voters}"
            );
        }
    }

    #[test]
    fn nobody_decides_in_an_empty_configuration() {
        assert!(!Configuration::default().has_quorum(|_| true));
        assert_eq!(
            Configuration::default().quorum_index(|_| LogIndex(9)),
            LogIndex::ZERO
        );
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let joint = Configuration::joint(ids(&[1, 2, 3]), ids(&[3, 4, 5]));
        assert!(!joint.has_quorum(|id| id.get() <= 3));
        assert!(joint.has_quorum(|id| id.get() != 1 && id.get() != 5));
        assert_eq!(
            joint.quorum_index(|id| LogIndex(if id.get() <= 3 { 8 } else { 2 })),
            LogIndex(2)
        );
    }

    #[test]
    fn learners_do_not_count() {
        let configuration = Configuration::of_voters(ids(&[1, 2, 3])).with_learners(ids(&[4, 5]));
        assert!(!configuration.has_quorum(|id| id.get() >= 3));
        assert!(!configuration.is_voter(NodeId(4)));
        assert_eq!(configuration.members().len(), 5);
    }

    #[test]
    fn the_quorum_index_is_what_a_majority_has_reached() {
        let configuration = Configuration::of_voters(ids(&[1, 2, 3, 4, 5]));
        let reached = [0, 9, 3, 7, 5, 1];
        let index = |id: NodeId| LogIndex(reached[usize::try_from(id.get()).unwrap()]);
        assert_eq!(configuration.quorum_index(index), LogIndex(5));
    }

    #[test]
    fn every_member_and_every_registered_store_counts_as_memory() {
        let joint = Configuration::joint(ids(&[1, 2, 3]), ids(&[3, 4, 5])).with_learners(ids(&[6]));
        assert_eq!(joint.size_bytes(), 7 * 8);
        let registered = joint
            .with_incarnation(NodeId(1), Incarnation(1))
            .with_incarnation(NodeId(2), Incarnation(2));
        assert_eq!(registered.size_bytes(), 7 * 8 + 2 * 16);
    }
}

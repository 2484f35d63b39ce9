//! The network: which links are cut, which connections broke, and what becomes of a message.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::NodeId;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use crate::clock::{MILLISECOND, Micros};
use crate::faults::{FaultCounts, FaultKind};
use crate::scenario::NetworkSettings;

/// How long a straggler is held up at most.
const STRAGGLER_DELAY_MAX: Micros = 500 * MILLISECOND;

/// What is told to a node and waits to be heard.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    since: Micros,
    most: Micros,
}

/// Links are directed: a cut from 1 to 2 lets 2 still reach 1.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) settings: NetworkSettings,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Clients and the nodes that they cannot reach.
    clients_cut: BTreeSet<(u64, NodeId)>,
    /// Clients and the nodes that refuse them at once.
    clients_refused: BTreeSet<(u64, NodeId)>,
    /// Nodes that do not keep up with what they are told.
    backlogs: BTreeMap<NodeId, Backlog>,
    /// How often the connection between two nodes broke, the lower id first.
    breaks: BTreeMap<(NodeId, NodeId), u64>,
}

impl Network {
    pub(crate) fn new(settings: NetworkSettings) -> Self {
        Self {
            settings,
            cut: BTreeSet::new(),
            clients_cut: BTreeSet::new(),
            clients_refused: BTreeSet::new(),
            backlogs: BTreeMap::new(),
            breaks: BTreeMap::new(),
        }
    }

    /// Whether a message can pass now.
    pub(crate) fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Whether a client and a node reach each other.
    pub(crate) fn serves(&self, client: u64, node: NodeId) -> bool {
        !self.clients_cut.contains(&(client, node))
    }

    /// Cuts every link from a node of `side` to one that is not; both ways unless `one_way`.
    pub(crate) fn cut_off(&mut self, side: &BTreeSet<NodeId>, all: &BTreeSet<NodeId>, one_way: bool) {
        for inner in side {
            for outer in all.difference(side) {
                self.cut.insert((*inner, *outer));
                if !one_way {
                    self.cut.insert((*outer, *inner));
                }
            }
        }
    }

    /// Cuts one direction of one link.
    pub(crate) fn cut_one_way(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Cuts one link.
    pub(crate) fn cut_link(&mut self, one: NodeId, other: NodeId) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Leaves only the links between nodes for which `stays` holds.
    pub(crate) fn keep_only(&mut self, nodes: &[NodeId], stays: impl Fn(usize, usize) -> bool) {
        for (i, one) in nodes.iter().enumerate() {
            for (j, other) in nodes.iter().enumerate().skip(i + 1) {
                if !stays(i, j) {
                    self.cut_link(*one, *other);
                }
            }
        }
    }

    /// `client` cannot reach `node`.
    pub(crate) fn cut_client(&mut self, client: u64, node: NodeId) {
        self.clients_cut.insert((client, node));
    }

    /// `client` is refused by `node`, and knows it at once.
    pub(crate) fn refuse_client(&mut self, client: u64, node: NodeId) {
        self.clients_refused.insert((client, node));
    }

    /// Whether `client` is refused by `node`.
    pub(crate) fn refuses(&self, client: u64, node: NodeId) -> bool {
        self.clients_refused.contains(&(client, node))
    }

    /// What other nodes tell `node` arrives later and later from `since` on, at half the pace, until it is late by
    /// `most`.
    pub(crate) fn falls_behind(&mut self, node: NodeId, since: Micros, most: Micros) {
        self.backlogs.insert(node, Backlog { since, most });
    }

    /// How much later `node` hears what arrives `now`.
    pub(crate) fn lateness(&self, node: NodeId, now: Micros) -> Micros {
        let backlog = self.backlogs.get(&node);
        backlog.map_or(0, |backlog| (now - backlog.since).min(backlog.most))
    }

    /// All links of `node` work again.
    pub(crate) fn reconnect_node(&mut self, node: NodeId) {
        self.cut.retain(|(from, to)| *from != node && *to != node);
    }

    /// The two reach each other again.
    pub(crate) fn reconnect_link(&mut self, one: NodeId, other: NodeId) {
        self.cut.remove(&(one, other));
        self.cut.remove(&(other, one));
    }

    /// All links work again.
    pub(crate) fn reconnect(&mut self) {
        self.cut.clear();
        self.clients_cut.clear();
        self.clients_refused.clear();
        self.backlogs.clear();
    }

    /// No faults from now on.
    pub(crate) fn heal(&mut self) {
        self.reconnect();
        self.settings = NetworkSettings::HEALTHY;
    }

    /// Names the connection between two nodes as it is now. What was sent over an earlier one is lost.
    pub(crate) fn connection(&self, one: NodeId, other: NodeId) -> u64 {
        self.breaks
            .get(&(one.min(other), one.max(other)))
            .copied()
            .unwrap_or(0)
    }

    /// Everything under way between the two is lost.
    pub(crate) fn break_connection(&mut self, one: NodeId, other: NodeId) {
        *self.breaks.entry((one.min(other), one.max(other))).or_default() += 1;
    }

    /// When the copies of a message arrive. None is a lost message, two are a duplicated one.
    pub(crate) fn deliveries(&self, generator: &mut Pcg64Mcg, counts: &mut FaultCounts) -> Vec<Micros> {
        if chance(generator, self.settings.loss_permille) {
            counts.count(FaultKind::MessageLost);
            return Vec::new();
        }
        let is_doubled = chance(generator, self.settings.duplication_permille);
        if is_doubled {
            counts.count(FaultKind::MessageDuplicated);
        }
        (0..1 + usize::from(is_doubled))
            .map(|_| self.delay(generator, counts))
            .collect()
    }

    fn delay(&self, generator: &mut Pcg64Mcg, counts: &mut FaultCounts) -> Micros {
        if chance(generator, self.settings.straggler_permille) {
            counts.count(FaultKind::MessageDelayed);
            return generator.random_range(self.settings.delay_max..=STRAGGLER_DELAY_MAX);
        }
        generator.random_range(self.settings.delay_min..=self.settings.delay_max)
    }
}

fn chance(generator: &mut Pcg64Mcg, permille: u32) -> bool {
    permille > 0 && generator.random_ratio(permille, 1_000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use raft_core::NodeId;

    use super::Network;
    use crate::scenario::NetworkSettings;

    #[test]
    fn a_one_way_cut_lets_the_other_way_pass() {
        let all = BTreeSet::from([1, 2, 3].map(NodeId));
        let mut network = Network::new(NetworkSettings::HEALTHY);
        network.cut_off(&BTreeSet::from([NodeId(1)]), &all, true);
        assert!(!network.is_open(NodeId(1), NodeId(2)));
        assert!(network.is_open(NodeId(2), NodeId(1)));
        assert!(network.is_open(NodeId(2), NodeId(3)));
        network.reconnect();
        assert!(network.is_open(NodeId(1), NodeId(2)));
    }

    #[test]
    fn a_node_that_falls_behind_hears_at_half_the_pace_and_no_later_than_it_may() {
        let mut network = Network::new(NetworkSettings::HEALTHY);
        network.falls_behind(NodeId(1), 1_000, 500);
        assert_eq!(
            [1_000, 1_100, 1_500, 9_000].map(|now| network.lateness(NodeId(1), now)),
            [0, 100, 500, 500]
        );
        assert_eq!(network.lateness(NodeId(2), 9_000), 0);
        network.reconnect();
        assert_eq!(network.lateness(NodeId(1), 9_000), 0);
    }

    #[test]
    fn a_chain_keeps_the_links_between_neighbours() {
        let nodes = [1, 2, 3].map(NodeId);
        let mut network = Network::new(NetworkSettings::HEALTHY);
        network.keep_only(&nodes, |one, other| other - one == 1);
        assert!(network.is_open(NodeId(1), NodeId(2)) && network.is_open(NodeId(3), NodeId(2)));
        assert!(!network.is_open(NodeId(1), NodeId(3)) && !network.is_open(NodeId(3), NodeId(1)));
    }

    #[test]
    fn a_connection_that_broke_is_another_one_in_both_directions() {
        let mut network = Network::new(NetworkSettings::HEALTHY);
        let before = network.connection(NodeId(1), NodeId(2));
        network.break_connection(NodeId(2), NodeId(1));
        assert_ne!(network.connection(NodeId(1), NodeId(2)), before);
        assert_eq!(network.connection(NodeId(1), NodeId(3)), before);
    }
}

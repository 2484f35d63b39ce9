//! The network between the nodes: which links are cut, and what becomes of a message.

use std::collections::BTreeSet;

use raft_core::NodeId;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use crate::clock::{MILLISECOND, Micros};
use crate::scenario::NetworkSettings;

/// How long a straggler is held up at most.
const STRAGGLER_DELAY_MAX: Micros = 500 * MILLISECOND;

/// Links are directed: a cut from 1 to 2 lets 2 still reach 1.
#[derive(Debug)]
pub(crate) struct Network {
    settings: NetworkSettings,
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl Network {
    pub(crate) fn new(settings: NetworkSettings) -> Self {
        Self {
            settings,
            cut: BTreeSet::new(),
        }
    }

    /// Whether a message can pass now.
    pub(crate) fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.contains(&(from, to))
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

    /// All links work again.
    pub(crate) fn reconnect(&mut self) {
        self.cut.clear();
    }

    /// No faults from now on.
    pub(crate) fn heal(&mut self) {
        self.reconnect();
        self.settings = NetworkSettings::HEALTHY;
    }

    /// When the copies of a message arrive. None is a lost message, two are a duplicated one.
    pub(crate) fn deliveries(&self, generator: &mut Pcg64Mcg) -> Vec<Micros> {
        if chance(generator, self.settings.loss_permille) {
            return Vec::new();
        }
        let copies = 1 + usize::from(chance(generator, self.settings.duplication_permille));
        (0..copies).map(|_| self.delay(generator)).collect()
    }

    /// When a message arrives that is neither lost nor duplicated.
    pub(crate) fn delay(&self, generator: &mut Pcg64Mcg) -> Micros {
        if chance(generator, self.settings.straggler_permille) {
            return generator.random_range(self.settings.delay_max..=STRAGGLER_DELAY_MAX);
        }
        generator.random_range(self.settings.delay_min..=self.settings.delay_max)
    }
}

fn chance(generator: &mut Pcg64Mcg, permille: u32) -> bool {
    generator.random_ratio(permille, 1_000)
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
}

//! Links that are cut and connections that break.

use std::collections::BTreeSet;

use raft_core::NodeId;
use rand::RngExt;
use rand::seq::SliceRandom as _;

use crate::server::Server;
use crate::simulation::Simulation;

impl Simulation<'_> {
    /// Some nodes cannot reach the others; nor be reached, unless `one_way`.
    pub(super) fn partition(&mut self, one_way: bool) -> bool {
        let all: BTreeSet<NodeId> = self.machines.keys().copied().collect();
        let mut side: BTreeSet<NodeId> = all
            .iter()
            .copied()
            .filter(|_| self.generator.random_ratio(1, 2))
            .collect();
        // A leader that is cut off and does not know it yet is the hardest case for reads.
        if self.generator.random_ratio(1, 2) {
            side = self.leaders().into_iter().collect();
        }
        self.network.cut_off(&side, &all, one_way);
        let way = if one_way { "can only hear" } else { "cannot reach" };
        let side: Vec<u64> = side.into_iter().map(NodeId::get).collect();
        self.tell(format_args!("nodes {side:?} {way} the others"));
        true
    }

    /// Every node still reaches somebody, and not everybody reaches everybody.
    pub(super) fn cut_in_part(&mut self) -> bool {
        let mut nodes = self.all_nodes();
        nodes.shuffle(&mut self.generator);
        let last = nodes.len() - 1;
        let shape = match self.generator.random_range(0..4) {
            0 => {
                self.network.cut_link(nodes[0], nodes[last]);
                "all but one link"
            }
            1 => {
                self.network.keep_only(&nodes, |one, other| other - one == 1);
                "a chain"
            }
            2 => {
                self.network
                    .keep_only(&nodes, |one, other| other - one == 1 || other - one == last);
                "a ring"
            }
            _ => {
                self.network.keep_only(&nodes, |one, _| one == 0);
                "a star"
            }
        };
        let order: Vec<u64> = nodes.into_iter().map(NodeId::get).collect();
        self.tell(format_args!("what works of {order:?} is {shape}"));
        true
    }

    pub(super) fn break_some_connection(&mut self) -> bool {
        let mut nodes = self.all_nodes();
        nodes.shuffle(&mut self.generator);
        self.break_connection(nodes[0], nodes[1]);
        true
    }

    pub(crate) fn break_connection(&mut self, one: NodeId, other: NodeId) {
        self.network.break_connection(one, other);
        self.tell(format_args!(
            "the connection between nodes {one} and {other} breaks"
        ));
    }

    /// Breaks a connection over which a snapshot is on its way.
    pub(super) fn break_some_transfer(&mut self) -> bool {
        let under_way = self.machines.iter().find_map(|(node, machine)| {
            let server = machine.server.as_ref();
            server
                .and_then(Server::receiver_of_snapshot)
                .map(|peer| (*node, peer))
        });
        if let Some((node, peer)) = under_way {
            self.break_connection(node, peer);
        }
        under_way.is_some()
    }
}

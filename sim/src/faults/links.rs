//! Links that are cut and connections that break.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use raft_core::{Message, NodeId};
use rand::RngExt;
use rand::seq::SliceRandom as _;

use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::faults::FaultKind;
use crate::simulation::{Event, Simulation};

/// How long a fault waits for a snapshot transfer that it can break.
const TRANSFER_AWAITED: Micros = 10 * SECOND;
/// How long a follower is cut off, so that it needs a snapshot afterwards.
const FALL_BEHIND_FOR: RangeInclusive<Micros> = 500 * MILLISECOND..=1_500 * MILLISECOND;

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
        // Then there is nothing to cut.
        if side.is_empty() || side == all {
            return false;
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
            // Of three nodes that would be every link.
            2 if nodes.len() > 3 => {
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

    /// The next connection that has carried a part of a snapshot, and is to carry more, will break; see
    /// [`Self::may_break_transfer`]. Transfers are short and seldom, so a follower is cut off for a while, in which the
    /// others cut snapshots: when it comes back there is a transfer.
    pub(super) fn break_next_transfer(&mut self) {
        self.transfer_breaks_until = self.queue.now() + TRANSFER_AWAITED;
        let leaders = self.leaders();
        let mut followers = self.all_nodes();
        followers.retain(|node| !leaders.contains(node));
        if followers.is_empty() {
            return;
        }
        let away = followers[self.generator.random_range(0..followers.len())];
        let all = self.all_nodes().into_iter().collect();
        self.network.cut_off(&BTreeSet::from([away]), &all, false);
        self.tell(format_args!(
            "node {away} is cut off, and the next snapshot transfer will break"
        ));
        let pause = self.generator.random_range(FALL_BEHIND_FOR);
        self.queue.schedule(pause, Event::ComeBack(away));
    }

    /// A node that was cut off so that it needs a snapshot reaches the others again.
    pub(crate) fn come_back(&mut self, node: NodeId) {
        self.network.reconnect_node(node);
        self.tell(format_args!("node {node} reaches the others again"));
    }

    /// A message of a snapshot transfer between `one` and `other` has just left, and belongs behind the first chunk:
    /// the connection may break, and the message is lost. Whether the first or a later one, a chunk or its answer,
    /// is chance.
    pub(crate) fn may_break_transfer(&mut self, one: NodeId, other: NodeId, message: &Message) {
        let is_in_the_middle = matches!(message, Message::InstallSnapshot(chunk) if chunk.offset > 0);
        if is_in_the_middle
            && self.queue.now() < self.transfer_breaks_until
            && self.generator.random_ratio(1, 2)
        {
            self.transfer_breaks_until = 0;
            self.break_connection(one, other);
            self.totals.faults.count(FaultKind::TransferBroken);
        }
    }
}

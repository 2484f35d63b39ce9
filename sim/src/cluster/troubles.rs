//! What a test does to its cluster.

use std::collections::BTreeSet;

use raft_core::{NodeId, Standing};
use rand::RngExt;
use storage::WriteFault;

use super::Cluster;
use crate::clock::MILLISECOND;

impl Cluster {
    /// `node` and the other nodes cannot reach each other. Clients still reach it.
    pub fn cut_off(&mut self, node: NodeId) -> &mut Self {
        self.split(&[node])
    }

    /// The nodes of `side` and the other ones cannot reach each other.
    pub fn split(&mut self, side: &[NodeId]) -> &mut Self {
        self.cut(side, false)
    }

    /// `node` hears the others, and they do not hear it.
    pub fn mute(&mut self, node: NodeId) -> &mut Self {
        self.cut(&[node], true)
    }

    /// The others hear `node`, and it does not hear them.
    pub fn deafen(&mut self, node: NodeId) -> &mut Self {
        let others = self.others(&[node]);
        self.cut(&others, true)
    }

    fn cut(&mut self, side: &[NodeId], one_way: bool) -> &mut Self {
        let all: BTreeSet<NodeId> = self.nodes().into_iter().collect();
        let side = side.iter().copied().collect();
        self.simulation.network.cut_off(&side, &all, one_way);
        self
    }

    /// The two cannot reach each other.
    pub fn cut_link(&mut self, one: NodeId, other: NodeId) -> &mut Self {
        self.simulation.network.cut_link(one, other);
        self
    }

    /// Every node reaches only the one before it and the one behind it.
    pub fn chain(&mut self, nodes: &[NodeId]) -> &mut Self {
        self.simulation
            .network
            .keep_only(nodes, |one, other| other - one == 1);
        self
    }

    /// The nodes fall apart into two sides, by chance.
    pub fn split_at_random(&mut self) -> &mut Self {
        let mut side = self.nodes();
        let generator = &mut self.simulation.generator;
        side.retain(|_| generator.random_ratio(1, 2));
        self.reconnect_all().split(&side)
    }

    /// All links of `node` work again.
    pub fn reconnect(&mut self, node: NodeId) -> &mut Self {
        self.simulation.network.reconnect_node(node);
        self
    }

    /// All links work again.
    pub fn reconnect_all(&mut self) -> &mut Self {
        self.simulation.network.reconnect();
        self
    }

    /// From now on the network loses a tenth of the messages, repeats some, and lets others come late.
    pub fn becomes_unreliable(&mut self) -> &mut Self {
        self.simulation.network.settings = crate::scenario::NetworkSettings::UNRELIABLE;
        self
    }

    /// All links work, and no message is lost any more.
    pub fn network_heals(&mut self) -> &mut Self {
        self.simulation.network.heal();
        self
    }

    /// All that is under way between the two is lost.
    pub fn break_connection(&mut self, one: NodeId, other: NodeId) -> &mut Self {
        self.simulation.break_connection(one, other);
        self
    }

    /// `node` goes down at once; what is not on its disk is gone.
    pub fn crash(&mut self, node: NodeId) -> &mut Self {
        self.simulation.crash(node);
        self
    }

    /// All nodes go down at once.
    pub fn crash_all(&mut self) -> &mut Self {
        for node in self.nodes() {
            self.crash(node);
        }
        self
    }

    /// `node` starts from its disk, if it is down.
    pub fn restart(&mut self, node: NodeId) -> &mut Self {
        let restarted = self.simulation.restart(node);
        self.must(restarted);
        self
    }

    /// All nodes that are down start.
    pub fn restart_all(&mut self) -> &mut Self {
        for node in self.nodes() {
            self.restart(node);
        }
        self
    }

    /// `node` stands still, and does not know it.
    pub fn pause(&mut self, node: NodeId) -> &mut Self {
        self.simulation.pause(node);
        self
    }

    /// `node` goes on.
    pub fn resume(&mut self, node: NodeId) -> &mut Self {
        self.simulation.resume(node);
        self
    }

    /// `node` takes this many hundredths of the time for a tick that it should.
    pub fn set_clock(&mut self, node: NodeId, percent: u64) -> &mut Self {
        self.simulation.set_clock(node, percent);
        self
    }

    /// What `node` writes from now on takes this much longer.
    pub fn stall_disk_ms(&mut self, node: NodeId, stall_ms: u64) -> &mut Self {
        self.simulation.stall_disk(node, stall_ms * MILLISECOND);
        self
    }

    /// The next write of `node` fails, and nothing of it is on the disk. The node stops, and is started again
    /// after a while.
    pub fn fail_disk(&mut self, node: NodeId) -> &mut Self {
        self.simulation.fail_next_write(node, WriteFault::LostBatch);
        self
    }

    /// Flips a bit of the snapshot file of `node`.
    ///
    /// # Panics
    ///
    /// When it has none.
    pub fn flip_bit(&mut self, node: NodeId, bit: u64) -> &mut Self {
        if !self.simulation.flip_bit(node, bit) {
            self.fail("there is no snapshot to damage");
        }
        self
    }

    /// `node` goes down, and a bit flips in its log, its hard state or another record. `bit` is taken modulo their
    /// length.
    ///
    /// # Panics
    ///
    /// When it has never run.
    pub fn flip_record_bit(&mut self, node: NodeId, bit: u64) -> &mut Self {
        self.simulation.crash(node);
        if !self.simulation.flip_record_bit(node, bit) {
            self.fail("there is no record to damage");
        }
        self
    }

    /// `node` goes down and loses its whole disk.
    pub fn lose_disk(&mut self, node: NodeId) -> &mut Self {
        self.simulation.lose_disk(node, Standing::Founder);
        self
    }

    /// A copy of the disk of `node` is put aside.
    pub fn copy_disk(&mut self, node: NodeId) -> &mut Self {
        self.simulation.take_copy(node);
        self
    }

    /// `node` goes down, and the copy of its disk that was put aside is put back, or the disk that it lost.
    ///
    /// # Panics
    ///
    /// When there is neither.
    pub fn put_back_disk(&mut self, node: NodeId) -> &mut Self {
        if !self.simulation.put_back_copy(node) {
            self.fail("there is no copy to put back");
        }
        self
    }

    /// `node`, which refuses to start or was turned away, is started on an empty disk, to join.
    pub fn join(&mut self, node: NodeId) -> &mut Self {
        let joined = self.simulation.join(node);
        self.must(joined);
        self
    }

    /// An operator asks `node` to hand leadership over.
    pub fn hand_over(&mut self, node: NodeId) -> &mut Self {
        self.simulation.step_aside(node);
        self
    }

    /// The same. Returns who is to lead, if there is somebody.
    pub fn hand_over_to_whom(&mut self, node: NodeId) -> Option<NodeId> {
        self.simulation.step_aside(node)
    }

    /// What `from` sends does not reach `to`.
    pub fn cut_one_way(&mut self, from: NodeId, to: NodeId) -> &mut Self {
        self.simulation.network.cut_one_way(from, to);
        self
    }

    /// The two reach each other again.
    pub fn reconnect_link(&mut self, one: NodeId, other: NodeId) -> &mut Self {
        self.simulation.network.reconnect_link(one, other);
        self
    }

    /// What other nodes tell `node` arrives later and later from now on, until it is late by `most_ms`. Reconnecting
    /// all links ends that.
    pub fn falls_behind_ms(&mut self, node: NodeId, most_ms: u64) -> &mut Self {
        let now = self.simulation.queue.now();
        self.simulation
            .network
            .falls_behind(node, now, most_ms * MILLISECOND);
        self
    }
}

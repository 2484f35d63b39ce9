//! A node's place: its disk, its clock and what ails it outlive the server that runs there.

use raft_core::{Incarnation, NodeId, Restored, Standing, Ticks};
use storage::{MemoryDisk, WriteFault};

use crate::clock::Micros;
use crate::scenario::ELECTION_TICK;
use crate::server::Server;
use crate::simulation::Event;

/// The stores of a node are numbered from here on, so that a trace shows whose they are.
const STORES_PER_NODE: u64 = 1_000;

/// One life of a node, from a start to a crash. What was meant for an earlier one is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
}

/// The machine of one node.
pub(crate) struct Machine {
    pub(crate) disk: MemoryDisk,
    /// The last store that was made here.
    last_store: Incarnation,
    /// A bit of what is on the disk has flipped.
    pub(crate) is_damaged: bool,
    /// The disk was emptied, or a copy was put back: the cluster may find that this is not what it knows.
    pub(crate) is_foreign: bool,
    /// What the disk held earlier, or a disk that was lost. It may be put back.
    pub(crate) old_copy: Option<MemoryDisk>,
    pub(crate) server: Option<Server>,
    pub(crate) incarnation: u64,
    /// How long a tick takes by this clock, in hundredths of what it should.
    clock_percent: u64,
    /// What the clock read, and when, before it took on its present speed.
    clock_set: (Micros, Micros),
    pub(crate) has_slow_disk: bool,
    /// Until then the disk does nothing.
    pub(crate) disk_stalls_until: Micros,
    pub(crate) applies_slowly: bool,
    /// What the next write does instead of succeeding.
    pub(crate) write_fault: Option<WriteFault>,
    /// Whether the node crashes in the middle of the next write.
    pub(crate) crashes_in_write: bool,
    /// What waits until the paused node goes on.
    pub(crate) paused: Option<Vec<Event>>,
    /// Why the node is not started any more: its disk is damaged, or the cluster does not take it.
    pub(crate) refused: Option<String>,
}

impl Machine {
    pub(crate) fn new(node: NodeId, clock_percent: u64) -> Self {
        let last_store = Incarnation(node.get() * STORES_PER_NODE);
        Self {
            disk: MemoryDisk::of_store(last_store, Standing::Founder),
            last_store,
            is_damaged: false,
            is_foreign: false,
            old_copy: None,
            server: None,
            incarnation: 0,
            clock_percent,
            clock_set: (0, 0),
            has_slow_disk: false,
            disk_stalls_until: 0,
            applies_slowly: false,
            write_fault: None,
            crashes_in_write: false,
            paused: None,
            refused: None,
        }
    }

    /// One unit of the election clock.
    pub(crate) fn tick(&self) -> Micros {
        ELECTION_TICK * self.clock_percent / 100
    }

    /// From `now` on a tick takes this many hundredths of what it should.
    pub(crate) fn set_clock(&mut self, now: Micros, percent: u64) {
        self.clock_set = (self.clock(now), now);
        self.clock_percent = percent;
    }

    /// What the clock reads.
    fn clock(&self, now: Micros) -> Micros {
        let (read, at) = self.clock_set;
        read + (now - at) * 100 / self.clock_percent
    }

    /// The node that runs here looks at the clock.
    pub(crate) fn look_at_clock(&mut self, now: Micros) {
        let ticks = Ticks(self.clock(now) / ELECTION_TICK);
        if let Some(server) = &mut self.server {
            server.clock_reads(ticks);
        }
    }

    /// The disk is lost, and the node gets an empty one, for a store of its own.
    pub(crate) fn empty_disk(&mut self, standing: Standing) -> MemoryDisk {
        self.last_store = Incarnation(self.last_store.get() + 1);
        self.is_damaged = false;
        let empty = MemoryDisk::of_store(self.last_store, standing);
        std::mem::replace(&mut self.disk, empty)
    }

    /// What is on stable storage, if the node runs.
    pub(crate) fn durable(&self) -> Option<&Restored> {
        self.server.as_ref().map(Server::durable)
    }
}

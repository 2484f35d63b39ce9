//! Nodes that crash, stand still or have a wrong clock.

use raft_core::{NodeId, Role, Standing};
use rand::RngExt;
use storage::MemoryDisk;

use crate::clock::{MILLISECOND, SECOND};
use crate::invariants::Violation;
use crate::machine::Life;
use crate::planted_bug::PlantedBug;
use crate::server::Server;
use crate::simulation::{Event, Simulation};

/// How long a crashed node is down at most.
const DOWN_TIME_MAX: u64 = 5 * SECOND;
/// How long a node stands still at most: less than its callers wait.
const PAUSE_MAX: u64 = 4 * SECOND;

impl Simulation<'_> {
    /// A random node, the leader, or all of them: now, or each in the next write that it makes, also if it is down until
    /// then.
    pub(super) fn crash_some(&mut self, in_write: bool) -> bool {
        let all = self.all_nodes();
        let victims = match self.generator.random_range(0..8) {
            0 => all,
            1..4 => self.leaders(),
            _ => vec![all[self.generator.random_range(0..all.len())]],
        };
        let mut happened = false;
        for node in victims {
            if in_write {
                self.crash_in_next_write(node);
            } else {
                happened |= self.crash(node);
                self.restart_later(node);
            }
        }
        // What is to come with a write is counted when it does.
        happened
    }

    pub(super) fn restart_later(&mut self, node: NodeId) {
        let down_time = self.generator.random_range(50 * MILLISECOND..=DOWN_TIME_MAX);
        self.queue.schedule(down_time, Event::Restart(node));
    }

    /// The nodes that believe that they lead.
    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let leads = |server: &Server| server.role() == Role::Leader;
        self.machines
            .iter()
            .filter(|(_, machine)| machine.server.as_ref().is_some_and(leads))
            .map(|(node, _)| *node)
            .collect()
    }

    /// Stops `node` at once; what is not durable is gone. Whether it ran.
    pub(crate) fn crash(&mut self, node: NodeId) -> bool {
        let loses_disk = self.bug == Some(PlantedBug::LoseDiskInCrash);
        let Some(machine) = self.machines.get_mut(&node) else {
            return false;
        };
        let Some(server) = machine.server.take() else {
            return false;
        };
        machine.disk.crash();
        if loses_disk {
            // The cluster takes the empty disk for the one that it knows.
            machine.disk = MemoryDisk::of_store(machine.disk.incarnation(), Standing::Founder);
        }
        let waiting = machine.paused.take().unwrap_or_default();
        self.tell(format_args!("node {node} crashes"));
        for origin in server.into_unanswered() {
            self.lose(origin.caller(), node, origin.chunk);
        }
        for event in waiting {
            if let Event::Request { origin, .. } = event {
                self.lose(origin.caller(), node, origin.chunk);
            }
        }
        true
    }

    /// Starts `node` if it is down.
    pub(crate) fn restart(&mut self, node: NodeId) -> Result<(), Violation> {
        let seed = self.generator.random();
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        if machine.server.is_some() || machine.refused.is_some() {
            return Ok(());
        }
        machine.incarnation += 1;
        let incarnation = machine.incarnation;
        let life = Life { node, incarnation };
        let server = match Server::start(node, &machine.disk, &self.scenario, seed, self.bug) {
            Ok(server) => server,
            Err(reason) => return self.refused(node, reason),
        };
        let (term, last) = (server.status().soft_state.term, server.status().last_log_index);
        let store = machine.disk.incarnation();
        self.invariants.started(node, store, server.durable(), last)?;
        // All of it was read, so there is no damage, or none any more.
        machine.is_damaged = false;
        machine.server = Some(server);
        self.tell(format_args!(
            "node {node} starts in term {term}, its log ends at {last}"
        ));
        self.schedule_ticks(life);
        self.obey(life)
    }

    pub(super) fn pause_some(&mut self) -> bool {
        let node = self.some_node();
        let happened = self.pause(node);
        if happened {
            let pause = self.generator.random_range(100 * MILLISECOND..=PAUSE_MAX);
            self.queue.schedule(pause, Event::Resume(node));
        }
        happened
    }

    /// `node` stands still: what arrives waits. Whether it ran.
    pub(crate) fn pause(&mut self, node: NodeId) -> bool {
        let Some(machine) = self.machines.get_mut(&node) else {
            return false;
        };
        if machine.server.is_none() || machine.paused.is_some() {
            return false;
        }
        machine.paused = Some(Vec::new());
        self.tell(format_args!("node {node} stands still"));
        true
    }

    /// A node that stood still goes on with what arrived meanwhile.
    pub(crate) fn resume(&mut self, node: NodeId) {
        let waiting = self
            .machines
            .get_mut(&node)
            .and_then(|machine| machine.paused.take());
        let Some(waiting) = waiting else {
            return;
        };
        self.tell(format_args!("node {node} goes on"));
        for event in waiting {
            self.queue.schedule(0, event);
        }
    }

    pub(super) fn skew_some_clock(&mut self) -> bool {
        let node = self.some_node();
        let skew = self.scenario.clock_skew_percent;
        let percent = self.generator.random_range(100 - skew..=100 + skew);
        self.set_clock(node, percent);
        true
    }

    /// A tick of `node`'s clock takes this many hundredths of what it should.
    pub(crate) fn set_clock(&mut self, node: NodeId, percent: u64) {
        let now = self.queue.now();
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.set_clock(now, percent);
        }
        self.tell(format_args!("a tick of node {node} takes {percent} %"));
    }
}

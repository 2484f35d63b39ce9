//! What goes wrong, and how it is made good.

use std::collections::BTreeSet;

use raft_core::{NodeId, Role};
use rand::RngExt;

use crate::clock::{MILLISECOND, SECOND};
use crate::invariants::Violation;
use crate::planted_bug::PlantedBug;
use crate::server::Server;
use crate::simulation::{Event, Life, Simulation};

/// How long a crashed node is down at most.
const DOWN_TIME_MAX: u64 = 5 * SECOND;

impl Simulation<'_> {
    /// One fault, or the repair of earlier ones.
    pub(crate) fn fault(&mut self) {
        let kinds = self.scenario.faults;
        match self.generator.random_range(0..10) {
            0 | 1 if kinds.crashes => self.crash_some(),
            2..5 if kinds.partitions => self.partition(false),
            5 if kinds.one_way_partitions => self.partition(true),
            6 if kinds.slow_disks => self.change_disks(),
            7 if kinds.transfers => self.hand_over(),
            8 | 9 => {
                self.network.reconnect();
                self.tell(format_args!("all links work"));
            }
            _ => {}
        }
        let interval = self.scenario.fault_interval;
        let pause = self.generator.random_range(interval / 4..=interval * 2);
        self.queue.schedule(pause, Event::Fault);
    }

    /// A random node, the leader, or all of them.
    fn crash_some(&mut self) {
        let all: Vec<NodeId> = self.machines.keys().copied().collect();
        let victims = match self.generator.random_range(0..8) {
            0 => all,
            1..4 => self.leaders(),
            _ => vec![all[self.generator.random_range(0..all.len())]],
        };
        for node in victims {
            self.crash(node);
        }
    }

    fn leaders(&self) -> Vec<NodeId> {
        let leads = |server: &Server| server.status().soft_state.role == Role::Leader;
        self.machines
            .iter()
            .filter(|(_, machine)| machine.server.as_ref().is_some_and(leads))
            .map(|(node, _)| *node)
            .collect()
    }

    fn crash(&mut self, node: NodeId) {
        let loses_disk = self.bug == Some(PlantedBug::LoseDiskInCrash);
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        let Some(server) = machine.server.take() else {
            return;
        };
        machine.disk.crash();
        if loses_disk {
            machine.disk = storage::MemoryDisk::new();
        }
        self.totals.crashes += 1;
        self.tell(format_args!("node {node} crashes"));
        for origin in server.into_unanswered() {
            let caller = Life {
                node: origin.from,
                incarnation: origin.incarnation,
            };
            self.lose(caller, node, origin.chunk);
        }
        let down_time = self.generator.random_range(50 * MILLISECOND..=DOWN_TIME_MAX);
        self.queue.schedule(down_time, Event::Restart(node));
    }

    /// Starts `node` if it is down.
    pub(crate) fn restart(&mut self, node: NodeId) -> Result<(), Violation> {
        let seed = self.generator.random();
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        if machine.server.is_some() {
            return Ok(());
        }
        machine.incarnation += 1;
        let life = Life {
            node,
            incarnation: machine.incarnation,
        };
        let server = Server::start(node, &machine.disk, &self.scenario, seed, self.bug)?;
        let (term, last) = (server.status().soft_state.term, server.status().last_log_index);
        machine.server = Some(server);
        self.tell(format_args!(
            "node {node} starts in term {term}, its log ends at {last}"
        ));
        self.schedule_ticks(life);
        self.obey(life)
    }

    fn partition(&mut self, one_way: bool) {
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
    }

    fn change_disks(&mut self) {
        let mut slow = Vec::new();
        for (node, machine) in &mut self.machines {
            machine.has_slow_disk = self.generator.random_ratio(1, 3);
            if machine.has_slow_disk {
                slow.push(node.get());
            }
        }
        self.tell(format_args!("slow disks: {slow:?}"));
    }

    fn hand_over(&mut self) {
        for node in self.leaders() {
            let life = self.life_of(node);
            let target = self.server(life).and_then(Server::step_aside);
            self.tell(format_args!("node {node} is asked to hand over: to {target:?}"));
            self.after_input.push(life);
        }
    }

    /// Everything works from now on.
    pub(crate) fn heal(&mut self) -> Result<(), Violation> {
        self.tell(format_args!("the faults end"));
        self.healed_at = Some(self.queue.now());
        self.operations_at_heal = self.totals.operations;
        self.network.heal();
        for client in &mut self.clients {
            client.never_give_up();
        }
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        for node in nodes {
            if let Some(machine) = self.machines.get_mut(&node) {
                machine.has_slow_disk = false;
            }
            self.restart(node)?;
        }
        Ok(())
    }
}

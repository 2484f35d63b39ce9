//! A leader that the others leave for a new one, while some of its clients stay and read: what stale reads are made
//! of.
//!
//! One fault in three steps. First the clients part, the clocks run apart as far as they may, and what is needed for
//! the way in which the leader will be left begins. Then the others leave it. In the end all is as before.

use std::collections::BTreeSet;

use raft_core::NodeId;
use rand::RngExt;

use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::scenario::CLOCK_PERCENT;
use crate::simulation::{Event, Simulation};

/// How far what the leader is told falls behind at most.
const BACKLOG_MAX: Micros = SECOND;

/// A leader that is being left.
#[derive(Debug)]
pub(crate) struct Desertion {
    leader: NodeId,
    way: Way,
    /// The clients that stay with it.
    loyal: Vec<usize>,
}

/// How the others come to a new leader without the old one.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// What it is told comes later and later; then the others hear it no more. Answers to heartbeats of long ago still
    /// arrive when there is a new leader.
    TooLate,
    /// It hands over, and is told late that somebody took it.
    HandedOver,
    /// Those that it still reached have just started again, and one that it did not reach stands for election.
    Restarted,
    /// It is cut off with less than a majority.
    CutOff,
}

impl Simulation<'_> {
    /// Some of the clients stay with the leader, which will be left. Whether there is one.
    pub(super) fn desert_leader(&mut self) -> bool {
        let &[leader] = self.leaders().as_slice() else {
            return false;
        };
        if self.desertion.is_some() {
            return false;
        }
        let way = match self.generator.random_range(0..8) {
            0..3 => Way::TooLate,
            3..5 => Way::CutOff,
            5..7 => Way::HandedOver,
            _ => Way::Restarted,
        };
        self.tell(format_args!("node {leader} will be deserted: {way:?}"));
        self.run_clocks_apart(leader);
        let loyal = self.part_clients(leader);
        self.desertion = Some(Desertion { leader, way, loyal });
        let pause = self.prepare_desertion(leader, way);
        self.queue.schedule(pause, Event::Desert);
        true
    }

    /// Returns how long it takes until the others leave.
    fn prepare_desertion(&mut self, leader: NodeId, way: Way) -> Micros {
        let now = self.queue.now();
        match way {
            Way::TooLate => {
                let backlog = self.generator.random_range(0..=BACKLOG_MAX);
                self.network.falls_behind(leader, now, backlog);
                backlog + self.generator.random_range(0..=100 * MILLISECOND)
            }
            Way::HandedOver => {
                let backlog = self.generator.random_range(BACKLOG_MAX / 4..=BACKLOG_MAX);
                self.network
                    .falls_behind(leader, now.saturating_sub(backlog), backlog);
                self.step_aside(leader);
                0
            }
            Way::Restarted => {
                if let Some(candidate) = self.others_of(leader).first() {
                    self.network.cut_link(leader, *candidate);
                }
                self.generator.random_range(SECOND / 2..=SECOND)
            }
            Way::CutOff => self.generator.random_range(0..=50 * MILLISECOND),
        }
    }

    fn others_of(&self, node: NodeId) -> Vec<NodeId> {
        let mut others = self.all_nodes();
        others.retain(|other| *other != node);
        others
    }

    /// The clock of the leader is slow, and those of the others are fast.
    fn run_clocks_apart(&mut self, leader: NodeId) {
        let skew = self.scenario.clock_skew_percent;
        for node in self.all_nodes() {
            let percent = if node == leader {
                100 + skew
            } else {
                100 - skew.min(4)
            };
            self.set_clock(node, percent);
        }
    }

    /// About half of the clients reach nobody else from now on, and read. Returns them.
    fn part_clients(&mut self, leader: NodeId) -> Vec<usize> {
        let loyal: Vec<usize> = (0..self.clients.len())
            .filter(|_| self.generator.random_ratio(1, 2))
            .collect();
        for client in &loyal {
            self.clients[*client].only_reads(true);
            for node in self.others_of(leader) {
                self.network.refuse_client(*client as u64 + 1, node);
            }
        }
        loyal
    }

    /// The others leave the leader.
    pub(crate) fn desert(&mut self) {
        let Some(Desertion { leader, way, loyal }) = &self.desertion else {
            return;
        };
        let (leader, way, loyal) = (*leader, *way, loyal.clone());
        let all: BTreeSet<NodeId> = self.all_nodes().into_iter().collect();
        let mut side = BTreeSet::from([leader]);
        match way {
            Way::TooLate => self.network.cut_off(&side, &all, true),
            // Nothing of what the others say arrives in time.
            Way::HandedOver => {}
            Way::Restarted => {
                self.network.cut_off(&side, &all, false);
                self.restart_all_but_one_of(&self.others_of(leader));
            }
            Way::CutOff => {
                let most = all.len().div_ceil(2) - 2;
                let few = self.generator.random_range(0..=most);
                side.extend(self.others_of(leader).into_iter().take(few));
                self.network.cut_off(&side, &all, false);
            }
        }
        self.tell(format_args!("node {leader} is deserted"));
        for client in (0..self.clients.len()).filter(|client| !loyal.contains(client)) {
            self.network.refuse_client(client as u64 + 1, leader);
            // Its connection breaks: it waits no longer for an answer.
            self.wake_after(client, 0, 10 * MILLISECOND);
        }
        let pause = self
            .generator
            .random_range(600 * MILLISECOND..=1_500 * MILLISECOND);
        self.queue.schedule(pause, Event::Reunite);
    }

    /// The clients that did not stay with the old leader try again soon after there is a new one.
    pub(crate) fn leader_is_replaced(&mut self, by: NodeId) {
        let loyal = match &self.desertion {
            Some(desertion) if desertion.leader != by => desertion.loyal.clone(),
            _ => return,
        };
        for client in (0..self.clients.len()).filter(|client| !loyal.contains(client)) {
            self.wake_after(client, 0, 10 * MILLISECOND);
        }
    }

    /// The first one goes on, and has not heard from the leader for long.
    fn restart_all_but_one_of(&mut self, nodes: &[NodeId]) {
        for node in nodes.iter().skip(1) {
            self.crash(*node);
            let down_time = self.generator.random_range(MILLISECOND..=20 * MILLISECOND);
            self.queue.schedule(down_time, Event::Restart(*node));
        }
    }

    /// Everybody reaches everybody again, if a leader was deserted.
    pub(crate) fn reunite(&mut self) {
        let Some(Desertion { leader, loyal, .. }) = self.desertion.take() else {
            return;
        };
        for client in loyal {
            self.clients[client].only_reads(false);
        }
        self.network.reconnect();
        for node in self.all_nodes() {
            let percent = self.generator.random_range(CLOCK_PERCENT);
            self.set_clock(node, percent);
        }
        self.tell(format_args!("node {leader} and the others are together again"));
    }

    /// What was to happen to a node in the meantime happens late, if it does not keep up with what it is told.
    pub(crate) fn unless_late(&mut self, event: Event) -> Option<Event> {
        let (to, event) = match event {
            Event::Late(event) => return Some(*event),
            Event::Request { to, .. } => (to, event),
            Event::Response { to, .. } => (to.node, event),
            event => return Some(event),
        };
        let lateness = self.network.lateness(to, self.queue.now());
        if lateness == 0 {
            return Some(event);
        }
        self.queue.schedule(lateness, Event::Late(Box::new(event)));
        None
    }
}

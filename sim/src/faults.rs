//! What goes wrong, and how it is made good.

mod desertion;
mod disks;
mod kinds;
mod links;
mod lost_disks;
mod nodes;

use rand::RngExt;

use raft_core::NodeId;

use crate::clock::{MILLISECOND, SECOND};
use crate::invariants::Violation;
use crate::scenario::{BUSY_THINK_TIME_MAX, CLOCK_PERCENT};
use crate::server::Server;
use crate::simulation::{Event, Simulation};

pub(crate) use desertion::Desertion;
pub(crate) use kinds::FaultMix;
pub use kinds::{FaultCounts, FaultKind};

/// How long a client that crashed is away at most.
const CLIENT_AWAY_MAX: u64 = 3 * SECOND;

/// How long a fault lasts at most where they are rare.
const LASTS_MAX: u64 = 10 * SECOND;

impl Simulation<'_> {
    /// One fault, or the repair of earlier ones; and the time of the next.
    pub(crate) fn fault(&mut self) -> Result<(), Violation> {
        let mut lasts = 0;
        match self.scenario.faults.next(&mut self.generator) {
            Some(kind) => {
                self.inject(kind)?;
                if self.scenario.is_quiet {
                    lasts = self.generator.random_range(SECOND..=LASTS_MAX);
                    self.queue.schedule(lasts, Event::Mend);
                }
            }
            None => self.reconnect_all(),
        }
        let interval = self.scenario.fault_interval;
        let pause = self.generator.random_range(interval / 4..=interval * 2);
        self.queue.schedule(lasts + pause, Event::Fault);
        Ok(())
    }

    fn reconnect_all(&mut self) {
        self.network.reconnect();
        self.tell(format_args!("all links work"));
    }

    /// All links work again, and disks and appliers are as fast as they were.
    pub(crate) fn mend(&mut self) {
        self.reconnect_all();
        for machine in self.machines.values_mut() {
            machine.has_slow_disk = false;
            machine.applies_slowly = false;
        }
    }

    fn inject(&mut self, kind: FaultKind) -> Result<(), Violation> {
        let happened = match kind {
            FaultKind::Partition => self.partition(false),
            FaultKind::OneWayCut => self.partition(true),
            FaultKind::PartialCut => self.cut_in_part(),
            FaultKind::ConnectionBroken => self.break_some_connection(),
            // These are counted when they happen.
            FaultKind::TransferBroken => {
                self.break_next_transfer();
                false
            }
            FaultKind::DiskFailed => {
                self.fail_some_disk();
                false
            }
            FaultKind::Crash => self.crash_some(false),
            FaultKind::CrashInWrite => self.crash_some(true),
            FaultKind::Pause => self.pause_some(),
            FaultKind::ClockSkewed => self.skew_some_clock(),
            FaultKind::DiskSlow => self.slow_disks(),
            FaultKind::DiskStalled => self.stall_some_disk(),
            FaultKind::BitFlipped => self.flip_some_bit(),
            FaultKind::RecordFlipped => self.flip_some_record_bit(),
            FaultKind::DiskLost => self.lose_some_disk(),
            FaultKind::CopyPutBack => self.put_back_some_copy(),
            FaultKind::ApplierSlow => self.slow_appliers(),
            FaultKind::HandOver => self.hand_over(),
            FaultKind::ClientCrash => self.crash_some_client(),
            FaultKind::ClientCutOff => self.cut_off_some_client(),
            FaultKind::LeaderDeserted => self.desert_leader(),
            // The network does these to single messages.
            FaultKind::MessageLost | FaultKind::MessageDuplicated | FaultKind::MessageDelayed => false,
        };
        if happened {
            self.totals.faults.count(kind);
        }
        Ok(())
    }

    pub(crate) fn all_nodes(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    /// A node, more often than not the leader: most that can go wrong goes wrong there.
    fn some_node(&mut self) -> NodeId {
        let leaders = self.leaders();
        let candidates = if leaders.is_empty() || self.generator.random_ratio(1, 2) {
            self.all_nodes()
        } else {
            leaders
        };
        candidates[self.generator.random_range(0..candidates.len())]
    }

    fn hand_over(&mut self) -> bool {
        let leaders = self.leaders();
        for node in &leaders {
            self.step_aside(*node);
        }
        !leaders.is_empty()
    }

    /// An operator asks `node` to hand leadership over.
    pub(crate) fn step_aside(&mut self, node: NodeId) -> Option<NodeId> {
        let life = self.life_of(node);
        let target = self.server(life).and_then(Server::step_aside);
        self.tell(format_args!("node {node} is asked to hand over: to {target:?}"));
        self.after_input.push(life);
        target
    }

    fn crash_some_client(&mut self) -> bool {
        if self.clients.is_empty() {
            return false;
        }
        let client = self.generator.random_range(0..self.clients.len());
        let forgets = self.generator.random_ratio(1, 2);
        self.crash_client(client, forgets);
        self.wake_after(client, 50 * MILLISECOND, CLIENT_AWAY_MAX);
        true
    }

    /// A client crashes. It keeps its session; whether it keeps the operation under way is `forgets`.
    pub(crate) fn crash_client(&mut self, client: usize, forgets: bool) {
        let now = self.queue.now();
        self.clients[client].crash(forgets, now, &mut self.history);
        let (id, what) = (client + 1, if forgets { "forgets" } else { "will repeat" });
        self.tell(format_args!("client {id} crashes and {what} what it was doing"));
    }

    fn cut_off_some_client(&mut self) -> bool {
        if self.clients.is_empty() {
            return false;
        }
        let client = self.generator.random_range(0..self.clients.len()) as u64 + 1;
        let all = self.generator.random_ratio(1, 3);
        let nodes = self.all_nodes();
        let first = self.generator.random_range(0..nodes.len());
        for (place, node) in nodes.into_iter().enumerate() {
            if all || place == first || self.generator.random_ratio(1, 2) {
                self.network.cut_client(client, node);
            }
        }
        self.tell(format_args!(
            "client {client} cannot reach {}",
            if all { "anybody" } else { "some" }
        ));
        true
    }

    /// Everything works from now on.
    pub(crate) fn heal(&mut self) -> Result<(), Violation> {
        self.tell(format_args!("the faults end"));
        self.healed_at = Some(self.queue.now());
        // Who rests for seconds might begin nothing in the time in which something must be done.
        self.scenario.think_time_max = self.scenario.think_time_max.min(BUSY_THINK_TIME_MAX);
        self.operations_at_heal = self.history.operations().len();
        self.reunite();
        self.transfer_breaks_until = 0;
        self.network.heal();
        for client in &mut self.clients {
            client.never_give_up();
        }
        for node in self.all_nodes() {
            let (now, percent) = (self.queue.now(), self.generator.random_range(CLOCK_PERCENT));
            if let Some(machine) = self.machines.get_mut(&node) {
                machine.has_slow_disk = false;
                machine.applies_slowly = false;
                machine.write_fault = None;
                machine.crashes_in_write = false;
                machine.disk_stalls_until = 0;
                machine.set_clock(now, percent);
            }
            self.resume(node);
            self.join(node)?;
            self.restart(node)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_core::NodeId;
    use rand::SeedableRng;
    use rand_pcg::Pcg64Mcg;

    use crate::scenario::Scenario;
    use crate::simulation::Simulation;
    use crate::trace::Trace;

    #[test]
    fn mending_reconnects_links_and_makes_disks_and_appliers_as_fast_as_they_were() {
        let generator = Pcg64Mcg::seed_from_u64(1);
        let mut run = Simulation::of(Scenario::calm(3), generator, None, Trace::new(None));
        run.network.cut_link(NodeId(1), NodeId(2));
        for machine in run.machines.values_mut() {
            machine.has_slow_disk = true;
            machine.applies_slowly = true;
        }
        run.mend();
        assert!(run.network.is_open(NodeId(1), NodeId(2)));
        assert!(
            run.machines
                .values()
                .all(|machine| !machine.has_slow_disk && !machine.applies_slowly)
        );
    }
}

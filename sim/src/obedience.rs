//! What the servers want done, and when: clocks, disks, appliers, messages.

use raft_core::{Event as CoreEvent, LogIndex};
use rand::RngExt;

use crate::clock::{MILLISECOND, Micros};
use crate::faults::FaultKind;
use crate::invariants::Violation;
use crate::machine::{Life, Machine};
use crate::scenario::{ELECTION_TICK, HEARTBEAT_INTERVAL};
use crate::server::{Output, Server};
use crate::simulation::{Event, Simulation};

/// How long a peer is left alone that verifies a snapshot, as in kv-server.
const VERIFY_PAUSE: Micros = 50 * MILLISECOND;
/// How long a slow applier takes for a batch at most.
const SLOW_APPLY_MAX: Micros = 300 * MILLISECOND;

impl Simulation<'_> {
    pub(crate) fn schedule_ticks(&mut self, life: Life) {
        let first = self.generator.random_range(0..ELECTION_TICK);
        self.queue.schedule(first, Event::ElectionTick(life));
        let first = self.generator.random_range(0..HEARTBEAT_INTERVAL);
        self.queue.schedule(first, Event::HeartbeatTick(life));
    }

    fn tick_of(&self, life: Life) -> Micros {
        self.machines.get(&life.node).map_or(ELECTION_TICK, Machine::tick)
    }

    pub(crate) fn election_tick(&mut self, life: Life) {
        if self.server(life).is_some() {
            self.queue.schedule(self.tick_of(life), Event::ElectionTick(life));
        }
        self.input(life, Server::tick_election);
    }

    pub(crate) fn heartbeat_tick(&mut self, life: Life) {
        if self.server(life).is_some() {
            let interval = self.tick_of(life) * (HEARTBEAT_INTERVAL / ELECTION_TICK);
            self.queue.schedule(interval, Event::HeartbeatTick(life));
        }
        self.input(life, Server::tick_heartbeat);
    }

    /// A disk that fails stops its node; any other refusal is a defect.
    pub(crate) fn disk_writes(&mut self, life: Life) -> Result<(), Violation> {
        let node = life.node;
        let machine = self.machines.get_mut(&node);
        let machine = machine.filter(|machine| machine.incarnation == life.incarnation);
        let Some(machine) = machine.filter(|machine| machine.server.is_some()) else {
            return Ok(());
        };
        if std::mem::take(&mut machine.crashes_in_write) {
            self.crash_in_write(node);
            return Ok(());
        }
        if let Some(fault) = machine.write_fault.take() {
            machine.disk.fail_next_write(fault);
            self.totals.faults.count(FaultKind::DiskFailed);
        }
        let written = machine.server.as_mut().map_or(Ok(()), Server::disk_writes);
        match written {
            Ok(()) => self.after_input.push(life),
            Err(error @ storage::StorageError::WriteFailed { .. }) => {
                self.disk_failed(node, &error.to_string());
                return Ok(());
            }
            Err(error) => return Err(Violation::new("storage", format!("node {node}: {error}"))),
        }
        let store = machine.disk.incarnation();
        if let Some(durable) = machine.durable() {
            self.invariants.committed.is_on_disk(node, store, durable)?;
        }
        Ok(())
    }

    pub(crate) fn snapshot_written(&mut self, life: Life) -> Result<(), Violation> {
        let index: LogIndex = self.try_input(life, Server::snapshot_written)?;
        if index > LogIndex::ZERO {
            self.totals.snapshots_cut += 1;
            self.tell(format_args!("node {} has cut a snapshot at {index}", life.node));
        }
        Ok(())
    }

    pub(crate) fn log_read(&mut self, life: Life) -> Result<(), Violation> {
        let count: usize = self.try_input(life, Server::log_read)?;
        self.totals.entries_read_back += count as u64;
        Ok(())
    }

    /// Does what a server wants done.
    pub(crate) fn obey(&mut self, life: Life) -> Result<(), Violation> {
        let outputs = self.server(life).map(Server::take_outputs).unwrap_or_default();
        for output in outputs {
            match output {
                Output::Request { to, message, chunk } => self.send_request(life, to, message, chunk)?,
                Output::Response { origin, message } => self.send_response(life, &origin, message)?,
                Output::DiskBusy => self.disk_step(life, Event::DiskWrites(life)),
                Output::DiskWritten => self.disk_step(life, Event::DiskReports(life)),
                Output::ApplySoon => self.apply_soon(life),
                Output::LogReadBegun => self.disk_step(life, Event::LogRead(life)),
                Output::SnapshotBegun => {
                    let delay = self.generator.random_range(100..=100 * MILLISECOND);
                    self.queue.schedule(delay, Event::SnapshotWritten(life));
                }
                Output::AskAgain(tag) => self.queue.schedule(VERIFY_PAUSE, Event::AskAgain(life, tag)),
                Output::Answer(id, answer) => self.send_answer(life.node, id, &answer),
                Output::AskIndex { leader, read } => self.ask_index(life, leader, read),
                Output::IndexAnswer { question, index } => self.answer_index(life.node, question, index),
                Output::Changed(change) => self.invariants.changed(life.node, &change)?,
                Output::Happened(event) => self.core_event(life, event)?,
                Output::Applied(batch) => {
                    let (node, up_to) = (life.node, batch.up_to);
                    match batch.state_hash {
                        Some(hash) => self.tell(format_args!(
                            "node {node} applied up to {up_to}: state {hash:016x}"
                        )),
                        None => self.tell(format_args!("node {node} applied up to {up_to}")),
                    }
                    self.invariants.applied(node, &batch)?;
                }
                Output::Refused(refusal) => self.turned_away(life.node, refusal)?,
                Output::CannotRestore(reason) => self.cannot_restore(life.node, &reason)?,
            }
        }
        Ok(())
    }

    fn apply_soon(&mut self, life: Life) {
        let is_slow = self
            .machines
            .get(&life.node)
            .is_some_and(|machine| machine.applies_slowly);
        let longest = if is_slow { SLOW_APPLY_MAX } else { 500 };
        let delay = self.generator.random_range(5..=longest);
        self.queue.schedule(delay, Event::Applies(life));
    }

    fn disk_step(&mut self, life: Life, event: Event) {
        let now = self.queue.now();
        let machine = self.machines.get(&life.node);
        let is_slow = machine.is_some_and(|machine| machine.has_slow_disk);
        let stall = machine.map_or(0, |machine| machine.disk_stalls_until.saturating_sub(now));
        let longest = if is_slow {
            self.scenario.slow_disk_delay_max
        } else {
            self.scenario.disk_delay_max
        };
        let delay = stall + self.generator.random_range(20..=longest);
        self.queue.schedule(delay, event);
    }

    fn core_event(&mut self, life: Life, event: CoreEvent) -> Result<(), Violation> {
        let Life { node, incarnation } = life;
        self.tell(format_args!("node {node} {event}"));
        match event {
            CoreEvent::BecameLeader { term } => {
                self.totals.elections += 1;
                self.leader_is_replaced(node);
                self.invariants.election_safety.elected(term, node, incarnation)?;
                if let Some(server) = self
                    .machines
                    .get(&node)
                    .and_then(|machine| machine.server.as_ref())
                {
                    let committed = &self.invariants.committed;
                    let first = server.snapshot_index().next();
                    let term_at = |index| server.term_at(index);
                    self.invariants
                        .leader_completeness
                        .elected(node, term, committed, first, term_at)?;
                }
            }
            CoreEvent::SnapshotInstalled { .. } => self.totals.snapshots_installed += 1,
            CoreEvent::Admitted { .. } => self.totals.admitted += 1,
            _ => {}
        }
        Ok(())
    }
}

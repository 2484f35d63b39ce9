//! The run of one seed: machines, network and clients around one queue of events.

use std::collections::BTreeMap;
use std::fmt;

use raft_core::{Event as CoreEvent, LogIndex, Message, NodeId};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use storage::MemoryDisk;

use crate::client::Client;
use crate::clock::{EventQueue, MILLISECOND, Micros, SECOND};
use crate::invariants::{Invariants, Violation};
use crate::network::Network;
use crate::planted_bug::PlantedBug;
use crate::report::Totals;
use crate::scenario::{ELECTION_TICK, ELECTION_TIMEOUT_MAX, HEARTBEAT_INTERVAL, Scenario};
use crate::server::{Answer, ChunkTag, ClientRequest, Output, RequestId, Server, TransferTag};
use crate::trace::Trace;

/// How long a peer is left alone that verifies a snapshot, as in kv-server.
const VERIFY_PAUSE: Micros = 50 * MILLISECOND;
/// After healing, some operation must be done within this time.
const PROGRESS_WITHIN: Micros = 10 * ELECTION_TIMEOUT_MAX;

/// One life of a node, from a start to a crash. What was meant for an earlier one is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
}

/// Something that happens at some time.
#[derive(Debug)]
pub(crate) enum Event {
    ElectionTick(Life),
    HeartbeatTick(Life),
    Request {
        from: Life,
        to: NodeId,
        message: Message,
        chunk: Option<ChunkTag>,
    },
    Response {
        to: Life,
        from: NodeId,
        message: Message,
        chunk: Option<ChunkTag>,
    },
    Lost {
        life: Life,
        peer: NodeId,
        chunk: Option<ChunkTag>,
    },
    DiskWrites(Life),
    DiskReports(Life),
    Applies(Life),
    SnapshotWritten(Life),
    AskAgain(Life, TransferTag),
    ClientWakes {
        client: usize,
        wake: u64,
    },
    ClientAsks(NodeId, ClientRequest),
    ClientHears(NodeId, RequestId, Answer),
    Fault,
    Restart(NodeId),
    Heal,
    CheckProgress,
    CheckAgreement,
}

/// A node's place: its disk outlives it.
pub(crate) struct Machine {
    pub(crate) disk: MemoryDisk,
    pub(crate) server: Option<Server>,
    pub(crate) incarnation: u64,
    pub(crate) has_slow_disk: bool,
    /// Its clock runs this much fast or slow.
    tick: Micros,
}

/// One run.
pub(crate) struct Simulation<'a> {
    pub(crate) scenario: Scenario,
    pub(crate) generator: Pcg64Mcg,
    pub(crate) queue: EventQueue<Event>,
    pub(crate) trace: Trace<'a>,
    pub(crate) network: Network,
    pub(crate) machines: BTreeMap<NodeId, Machine>,
    pub(crate) clients: Vec<Client>,
    /// The wake-up that each client waits for. Earlier ones are void.
    pub(crate) wakes: Vec<u64>,
    pub(crate) invariants: Invariants,
    pub(crate) totals: Totals,
    pub(crate) healed_at: Option<Micros>,
    pub(crate) operations_at_heal: u64,
    pub(crate) may_begin: bool,
    pub(crate) is_over: bool,
    /// Servers that were given an input and whose outputs are not obeyed yet.
    pub(crate) after_input: Vec<Life>,
    pub(crate) bug: Option<PlantedBug>,
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(seed: u64, bug: Option<PlantedBug>, trace: Trace<'a>) -> Self {
        let mut generator = Pcg64Mcg::seed_from_u64(seed);
        let scenario = Scenario::draw(&mut generator);
        let clients = (1..=scenario.clients)
            .map(|id| Client::new(id, scenario.clients, scenario.shared_keys, bug))
            .collect();
        let mut machine = |id| {
            let machine = Machine {
                disk: MemoryDisk::new(),
                server: None,
                incarnation: 0,
                has_slow_disk: false,
                tick: ELECTION_TICK * generator.random_range(95..=105) / 100,
            };
            (id, machine)
        };
        Self {
            machines: scenario.node_ids().map(&mut machine).collect(),
            queue: EventQueue::new(),
            network: Network::new(scenario.network),
            wakes: vec![0; usize::try_from(scenario.clients).unwrap_or(0)],
            clients,
            generator,
            scenario,
            trace,
            invariants: Invariants::default(),
            totals: Totals::default(),
            healed_at: None,
            operations_at_heal: 0,
            may_begin: true,
            is_over: false,
            after_input: Vec::new(),
            bug,
        }
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        self.start()?;
        while !self.is_over {
            let Some((sequence, event)) = self.queue.next() else {
                return Err(Violation::new("liveness", "nothing is left to happen"));
            };
            self.totals.simulated_us = self.queue.now();
            self.trace.event(self.queue.now(), sequence);
            self.happen(event)?;
            for life in std::mem::take(&mut self.after_input) {
                self.obey(life)?;
            }
        }
        Ok(())
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    pub(crate) fn tell(&mut self, what: fmt::Arguments<'_>) {
        self.trace.tell(self.queue.now(), what);
    }

    fn start(&mut self) -> Result<(), Violation> {
        let scenario = self.scenario.clone();
        self.tell(format_args!("{scenario:?}"));
        for node in scenario.node_ids() {
            self.restart(node)?;
        }
        for client in 0..self.clients.len() {
            self.wake_after(client, 0, SECOND);
        }
        self.queue.schedule(scenario.fault_interval, Event::Fault);
        self.queue.schedule(scenario.chaos, Event::Heal);
        let (progress, agreement) = (PROGRESS_WITHIN, PROGRESS_WITHIN + 1);
        self.queue
            .schedule(scenario.chaos + progress, Event::CheckProgress);
        self.queue
            .schedule(scenario.chaos + agreement, Event::CheckAgreement);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::ElectionTick(life) => self.election_tick(life),
            Event::HeartbeatTick(life) => self.heartbeat_tick(life),
            Event::Request {
                from,
                to,
                message,
                chunk,
            } => self.request_arrives(from, to, message, chunk),
            Event::Response {
                to,
                from,
                message,
                chunk,
            } => self.response_arrives(to, from, message, chunk),
            Event::Lost { life, peer, chunk } => {
                self.input(life, |server| server.request_lost(peer, chunk));
            }
            Event::DiskWrites(life) => self.disk_writes(life)?,
            Event::DiskReports(life) => self.input(life, Server::disk_reports),
            Event::Applies(life) => self.try_input(life, Server::apply_next)?,
            Event::SnapshotWritten(life) => self.snapshot_written(life)?,
            Event::AskAgain(life, tag) => self.input(life, |server| server.ask_again(tag)),
            Event::ClientWakes { client, wake } => self.client_wakes(client, wake),
            Event::ClientAsks(node, request) => {
                let life = self.life_of(node);
                self.input(life, |server| server.receive_client(request));
            }
            Event::ClientHears(from, id, answer) => self.client_hears(from, id, answer)?,
            Event::Fault if self.healed_at.is_some() => {}
            Event::Fault => self.fault(),
            Event::Restart(node) => self.restart(node)?,
            Event::Heal => self.heal()?,
            Event::CheckProgress => self.check_progress()?,
            Event::CheckAgreement => self.check_agreement()?,
        }
        Ok(())
    }

    pub(crate) fn life_of(&self, node: NodeId) -> Life {
        let incarnation = self.machines.get(&node).map_or(0, |machine| machine.incarnation);
        Life { node, incarnation }
    }

    /// The server, if it is still in that life.
    pub(crate) fn server(&mut self, life: Life) -> Option<&mut Server> {
        self.machines
            .get_mut(&life.node)
            .filter(|machine| machine.incarnation == life.incarnation)?
            .server
            .as_mut()
    }

    pub(crate) fn input(&mut self, life: Life, give: impl FnOnce(&mut Server)) {
        if let Some(server) = self.server(life) {
            give(server);
            self.after_input.push(life);
        }
    }

    fn try_input<T: Default>(
        &mut self,
        life: Life,
        give: impl FnOnce(&mut Server) -> Result<T, Violation>,
    ) -> Result<T, Violation> {
        let Some(server) = self.server(life) else {
            return Ok(T::default());
        };
        let given = give(server)?;
        self.after_input.push(life);
        Ok(given)
    }

    pub(crate) fn schedule_ticks(&mut self, life: Life) {
        let first = self.generator.random_range(0..ELECTION_TICK);
        self.queue.schedule(first, Event::ElectionTick(life));
        let first = self.generator.random_range(0..HEARTBEAT_INTERVAL);
        self.queue.schedule(first, Event::HeartbeatTick(life));
    }

    fn tick_of(&self, life: Life) -> Micros {
        self.machines
            .get(&life.node)
            .map_or(ELECTION_TICK, |machine| machine.tick)
    }

    fn election_tick(&mut self, life: Life) {
        if self.server(life).is_some() {
            self.queue.schedule(self.tick_of(life), Event::ElectionTick(life));
        }
        self.input(life, Server::tick_election);
    }

    fn heartbeat_tick(&mut self, life: Life) {
        if self.server(life).is_some() {
            let interval = self.tick_of(life) * (HEARTBEAT_INTERVAL / ELECTION_TICK);
            self.queue.schedule(interval, Event::HeartbeatTick(life));
        }
        self.input(life, Server::tick_heartbeat);
    }

    fn disk_writes(&mut self, life: Life) -> Result<(), Violation> {
        self.try_input(life, |server| {
            let node = server.id();
            server
                .disk_writes()
                .map_err(|error| Violation::new("storage", format!("node {node}: {error}")))
        })
    }

    fn snapshot_written(&mut self, life: Life) -> Result<(), Violation> {
        let index: LogIndex = self.try_input(life, Server::snapshot_written)?;
        if index > LogIndex::ZERO {
            self.totals.snapshots_cut += 1;
            self.tell(format_args!("node {} has cut a snapshot at {index}", life.node));
        }
        Ok(())
    }

    /// Does what a server wants done.
    pub(crate) fn obey(&mut self, life: Life) -> Result<(), Violation> {
        let outputs = self.server(life).map(Server::take_outputs).unwrap_or_default();
        for output in outputs {
            match output {
                Output::Request { to, message, chunk } => self.send_request(life, to, &message, chunk),
                Output::Response { origin, message } => self.send_response(life, &origin, &message)?,
                Output::DiskBusy => self.disk_step(life, Event::DiskWrites(life)),
                Output::DiskWritten => self.disk_step(life, Event::DiskReports(life)),
                Output::ApplySoon => {
                    let delay = self.generator.random_range(5..=500);
                    self.queue.schedule(delay, Event::Applies(life));
                }
                Output::SnapshotBegun => {
                    let delay = self.generator.random_range(100..=100 * MILLISECOND);
                    self.queue.schedule(delay, Event::SnapshotWritten(life));
                }
                Output::AskAgain(tag) => self.queue.schedule(VERIFY_PAUSE, Event::AskAgain(life, tag)),
                Output::Answer(id, answer) => self.send_answer(life.node, id, &answer),
                Output::Happened(event) => self.core_event(life, event)?,
                Output::Applied(batch) => {
                    let (node, up_to, hash) = (life.node, batch.up_to, batch.state_hash.unwrap_or(0));
                    self.tell(format_args!(
                        "node {node} applied up to {up_to}: state {hash:016x}"
                    ));
                    self.invariants.state_machine_safety.applied(node, &batch)?;
                }
            }
        }
        Ok(())
    }

    fn disk_step(&mut self, life: Life, event: Event) {
        let is_slow = self
            .machines
            .get(&life.node)
            .is_some_and(|machine| machine.has_slow_disk);
        let longest = if is_slow {
            self.scenario.slow_disk_delay_max
        } else {
            self.scenario.disk_delay_max
        };
        let delay = self.generator.random_range(20..=longest);
        self.queue.schedule(delay, event);
    }

    fn core_event(&mut self, life: Life, event: CoreEvent) -> Result<(), Violation> {
        let Life { node, incarnation } = life;
        self.tell(format_args!("node {node} {event}"));
        match event {
            CoreEvent::BecameLeader { term } => {
                self.totals.elections += 1;
                self.invariants.election_safety.elected(term, node, incarnation)?;
            }
            CoreEvent::SnapshotInstalled { .. } => self.totals.snapshots_installed += 1,
            _ => {}
        }
        Ok(())
    }
}

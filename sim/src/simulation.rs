//! The run of one seed: machines, network and clients around one queue of events.

use std::collections::BTreeMap;
use std::fmt;

use raft_core::NodeId;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::client::{Client, Program};
use crate::clock::{EventQueue, Micros, SECOND};
use crate::faults::Desertion;
use crate::history::History;
use crate::invariants::{Invariants, Violation};
use crate::machine::{Life, Machine};
use crate::messages::{Loss, PeerAnswer};
use crate::network::Network;
use crate::planted_bug::PlantedBug;
use crate::report::Totals;
use crate::scenario::{CLOCK_PERCENT, ELECTION_TIMEOUT_MAX, Scenario};
use crate::server::{Answer, ChunkTag, ClientRequest, IndexMessage, Origin, RequestId, Server, TransferTag};
use crate::trace::Trace;
use crate::traffic::Traffic;

/// After healing, some operation must be done within this time.
const PROGRESS_WITHIN: Micros = 10 * ELECTION_TIMEOUT_MAX;

/// Makes another stream of random numbers from a seed: that for runs of another kind than most.
const TEMPER: u64 = 0x6465_7365_7274_6564;

/// Something that happens at some time.
#[derive(Debug)]
pub(crate) enum Event {
    ElectionTick(Life),
    HeartbeatTick(Life),
    Request {
        to: NodeId,
        origin: Box<Origin>,
    },
    Response {
        to: Life,
        from: NodeId,
        answer: Box<PeerAnswer>,
    },
    Lost {
        life: Life,
        peer: NodeId,
        chunk: Option<ChunkTag>,
        loss: Loss,
    },
    DiskWrites(Life),
    DiskReports(Life),
    Applies(Life),
    LogRead(Life),
    SnapshotWritten(Life),
    AskAgain(Life, TransferTag),
    ClientWakes {
        client: usize,
        wake: u64,
    },
    ClientAsks(NodeId, ClientRequest),
    ClientHears(NodeId, RequestId, Answer),
    ReadIndex(IndexMessage),
    /// A message to a node that does not keep up with what it is told: it hears it now.
    Late(Box<Event>),
    Fault,
    /// Links, disks and appliers are made good again.
    Mend,
    /// The others leave a leader.
    Desert,
    /// They are together again.
    Reunite,
    Restart(NodeId),
    /// A node that was cut off by itself reaches the others again.
    ComeBack(NodeId),
    /// An operator lets a node join anew.
    Join(NodeId),
    Resume(NodeId),
    Heal,
    CheckProgress,
    CheckAgreement,
}

impl Event {
    /// The node that must be awake for it.
    fn needs(&self) -> Option<NodeId> {
        match self {
            Self::ElectionTick(life)
            | Self::HeartbeatTick(life)
            | Self::Response { to: life, .. }
            | Self::Lost { life, .. }
            | Self::DiskWrites(life)
            | Self::DiskReports(life)
            | Self::Applies(life)
            | Self::LogRead(life)
            | Self::SnapshotWritten(life)
            | Self::AskAgain(life, _) => Some(life.node),
            Self::Request { to: node, .. } | Self::ClientAsks(node, _) => Some(*node),
            Self::ReadIndex(message) => Some(message.receiver()),
            _ => None,
        }
    }
}

/// One run.
pub(crate) struct Simulation<'a> {
    pub(crate) scenario: Scenario,
    pub(crate) generator: Pcg64Mcg,
    pub(crate) queue: EventQueue<Event>,
    pub(crate) trace: Trace<'a>,
    pub(crate) network: Network,
    pub(crate) traffic: Traffic,
    pub(crate) machines: BTreeMap<NodeId, Machine>,
    pub(crate) clients: Vec<Client>,
    /// Of the client that was added last.
    program: Program,
    /// The wake-up that each client waits for. Earlier ones are void.
    pub(crate) wakes: Vec<u64>,
    pub(crate) history: History,
    pub(crate) invariants: Invariants,
    pub(crate) totals: Totals,
    pub(crate) desertion: Option<Desertion>,
    /// A snapshot transfer breaks, if there is one before this time.
    pub(crate) transfer_breaks_until: Micros,
    pub(crate) healed_at: Option<Micros>,
    pub(crate) operations_at_heal: usize,
    pub(crate) may_begin: bool,
    pub(crate) is_over: bool,
    /// Servers that were given an input and whose outputs are not obeyed yet.
    pub(crate) after_input: Vec<Life>,
    pub(crate) bug: Option<PlantedBug>,
}

impl<'a> Simulation<'a> {
    /// The run of `seed`: the scenario is drawn from it.
    pub(crate) fn new(seed: u64, bug: Option<PlantedBug>, trace: Trace<'a>) -> Self {
        let mut generator = Pcg64Mcg::seed_from_u64(seed);
        let mut scenario = Scenario::draw(&mut generator);
        // From a stream of its own: the runs without stay what they were.
        let mut temper = Pcg64Mcg::seed_from_u64(seed ^ TEMPER);
        if temper.random_ratio(1, 6) {
            scenario.deserts_leaders(&mut temper);
        } else if temper.random_ratio(1, 5) {
            scenario.make_quiet(&mut temper);
        }
        Self::of(scenario, generator, bug, trace)
    }

    /// A run of `scenario`.
    pub(crate) fn of(
        scenario: Scenario,
        mut generator: Pcg64Mcg,
        bug: Option<PlantedBug>,
        trace: Trace<'a>,
    ) -> Self {
        let mut machine = |id| (id, Machine::new(id, generator.random_range(CLOCK_PERCENT)));
        let mut simulation = Self {
            machines: scenario.node_ids().map(&mut machine).collect(),
            queue: EventQueue::new(),
            network: Network::new(scenario.network),
            traffic: Traffic::default(),
            wakes: Vec::new(),
            clients: Vec::new(),
            program: Program::default(),
            history: History::default(),
            invariants: Invariants::new(&scenario),
            generator,
            scenario,
            trace,
            totals: Totals::default(),
            desertion: None,
            transfer_breaks_until: 0,
            healed_at: None,
            operations_at_heal: 0,
            may_begin: true,
            is_over: false,
            after_input: Vec::new(),
            bug,
        };
        for _ in 0..simulation.scenario.clients {
            simulation.add_client(true);
        }
        simulation
    }

    /// One client more; a random one, or one that waits to be told what to do. Returns its place.
    pub(crate) fn add_client(&mut self, is_random: bool) -> usize {
        let place = self.clients.len();
        let id = place as u64 + 1;
        let seed = self.generator.random();
        // Those that share a session come one after the other.
        let starts_program = !is_random || (place as u64).is_multiple_of(self.scenario.clients_per_session);
        if starts_program {
            self.program = Program::default();
        }
        let program = self.program.clone();
        let mut client = Client::new(id, seed, program, &self.scenario, self.bug);
        if is_random {
            client.does_random_operations(&self.scenario);
        }
        self.clients.push(client);
        self.wakes.push(0);
        place
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        self.start()?;
        let (chaos, progress) = (self.scenario.chaos, PROGRESS_WITHIN);
        self.queue.schedule(self.scenario.fault_interval, Event::Fault);
        self.queue.schedule(chaos, Event::Heal);
        self.queue.schedule(chaos + progress, Event::CheckProgress);
        self.queue.schedule(chaos + progress + 1, Event::CheckAgreement);
        while !self.is_over {
            self.step()?;
        }
        Ok(())
    }

    /// All nodes start, and the clients begin.
    pub(crate) fn start(&mut self) -> Result<(), Violation> {
        let scenario = self.scenario.clone();
        self.tell(format_args!("{scenario:?}"));
        for node in scenario.node_ids() {
            self.restart(node)?;
        }
        for client in 0..self.clients.len() {
            self.wake_after(client, 0, SECOND);
        }
        Ok(())
    }

    /// The next event happens.
    pub(crate) fn step(&mut self) -> Result<(), Violation> {
        let Some((sequence, event)) = self.queue.next() else {
            return Err(Violation::new("liveness", "nothing is left to happen"));
        };
        self.totals.simulated_us = self.queue.now();
        self.trace.event(self.queue.now(), sequence);
        let in_time = self.unless_late(event);
        if let Some(event) = in_time.and_then(|event| self.unless_paused(event)) {
            self.happen(event)?;
        }
        self.settle()
    }

    /// Obeys everybody who was given an input.
    pub(crate) fn settle(&mut self) -> Result<(), Violation> {
        let mut next = 0;
        // Who obeys may give others an input.
        while let Some(life) = self.after_input.get(next).copied() {
            next += 1;
            self.obey(life)?;
        }
        self.after_input.clear();
        Ok(())
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    pub(crate) fn tell(&mut self, what: fmt::Arguments<'_>) {
        self.trace.tell(self.queue.now(), what);
    }

    /// What a paused node should do waits.
    fn unless_paused(&mut self, event: Event) -> Option<Event> {
        let machine = event.needs().and_then(|node| self.machines.get_mut(&node));
        match machine.and_then(|machine| machine.paused.as_mut()) {
            Some(waiting) => {
                waiting.push(event);
                None
            }
            None => Some(event),
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::ElectionTick(life) => self.election_tick(life),
            Event::HeartbeatTick(life) => self.heartbeat_tick(life),
            Event::Request { to, origin } => self.request_arrives(to, *origin),
            Event::Response { to, from, answer } => self.response_arrives(to, from, *answer),
            Event::Lost {
                life,
                peer,
                chunk,
                loss,
            } => {
                self.input(life, |server| server.request_lost(peer, chunk, loss));
            }
            Event::DiskWrites(life) => self.disk_writes(life)?,
            Event::DiskReports(life) => self.input(life, Server::disk_reports),
            Event::Applies(life) => self.try_input(life, Server::apply_next)?,
            Event::LogRead(life) => self.log_read(life)?,
            Event::SnapshotWritten(life) => self.snapshot_written(life)?,
            Event::AskAgain(life, tag) => self.input(life, |server| server.ask_again(tag)),
            Event::ClientWakes { client, wake } => self.client_wakes(client, wake)?,
            Event::ClientAsks(node, request) => {
                let life = self.life_of(node);
                self.input(life, |server| server.receive_client(request));
            }
            Event::ClientHears(from, id, answer) => self.client_hears(from, id, answer)?,
            Event::ReadIndex(message) => self.read_index_arrives(message),
            Event::Fault | Event::Mend if self.healed_at.is_some() => {}
            Event::Fault => self.fault()?,
            Event::Mend => self.mend(),
            Event::Late(event) => self.happen(*event)?,
            Event::Desert => self.desert(),
            Event::Reunite => self.reunite(),
            Event::Restart(node) => self.restart(node)?,
            Event::ComeBack(node) => self.come_back(node),
            Event::Join(node) => self.join(node)?,
            Event::Resume(node) => self.resume(node),
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

    /// A node looks at its machine's clock before it does anything: leases are measured by it.
    fn look_at_clock(&mut self, life: Life) {
        let now = self.queue.now();
        if let Some(machine) = self.machines.get_mut(&life.node) {
            machine.look_at_clock(now);
        }
    }

    pub(crate) fn input(&mut self, life: Life, give: impl FnOnce(&mut Server)) {
        self.look_at_clock(life);
        if let Some(server) = self.server(life) {
            give(server);
            self.after_input.push(life);
        }
    }

    pub(crate) fn try_input<T: Default>(
        &mut self,
        life: Life,
        give: impl FnOnce(&mut Server) -> Result<T, Violation>,
    ) -> Result<T, Violation> {
        self.look_at_clock(life);
        let Some(server) = self.server(life) else {
            return Ok(T::default());
        };
        let given = give(server)?;
        self.after_input.push(life);
        Ok(given)
    }
}

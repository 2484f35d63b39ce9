//! A vocabulary for scenarios: a cluster that does what a test tells it, so that the test reads like the
//! sentence that it proves.
//!
//! ```
//! use sim::cluster::cluster;
//!
//! let mut cluster = cluster(3).start();
//! let leader = cluster.expect_leader();
//! cluster.put("k", "1").cut_off(leader);
//! assert_ne!(cluster.expect_new_leader(leader), leader);
//! cluster.expect_value("k", Some("1")).reconnect_all().expect_agreement();
//! ```
//!
//! It is the same simulation that runs the seeds, with the same invariants, which are checked all the time. What
//! happens by chance (delays, election timeouts) is drawn from a fixed seed. Time is virtual, so no test waits.
//! Whatever does not hold is a panic that ends with the last lines of the trace.

mod clients;
mod expectations;
mod troubles;

use std::fmt;

pub use clients::{ClientId, Ending};
use kv_server::command::Command;
use raft_core::{Entry, LogIndex, NodeId, Payload, Restored, Term};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::invariants::Violation;
use crate::planted_bug::PlantedBug;
use crate::report::Totals;
use crate::scenario::{NetworkSettings, Scenario};
use crate::server::Server;
use crate::simulation::Simulation;
use crate::trace::Trace;

/// How much of the trace a failure prints.
const KEPT_LINES: usize = 150;
/// What must come, must come within this time: ten election timeouts.
const PATIENCE: Micros = 6 * SECOND;

/// A cluster that is not started yet.
#[derive(Debug)]
pub struct Setup {
    scenario: Scenario,
    seed: u64,
    bug: Option<PlantedBug>,
}

/// A running cluster with its clients. See the [module](self).
pub struct Cluster {
    simulation: Simulation<'static>,
    /// Numbers the commands that the test proposes itself.
    commands: u64,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("nodes", &self.simulation.scenario.nodes)
            .field("now_us", &self.simulation.queue.now())
            .finish_non_exhaustive()
    }
}

/// A cluster of so many nodes, on a good network, with good disks.
#[must_use]
pub fn cluster(nodes: u64) -> Setup {
    Setup {
        scenario: Scenario::calm(nodes),
        seed: nodes,
        bug: None,
    }
}

impl Setup {
    /// Draws chance from another seed.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The network loses a tenth of the messages, repeats some, and lets others come late.
    #[must_use]
    pub fn unreliable(mut self) -> Self {
        self.scenario.network = NetworkSettings::UNRELIABLE;
        self
    }

    /// So many of a thousand messages come twice.
    #[must_use]
    pub fn repeating(mut self, permille: u32) -> Self {
        self.scenario.network.duplication_permille = permille;
        self
    }

    /// Nodes cut a snapshot whenever they have applied this many bytes of log, and keep no log behind it.
    /// The states of all nodes are compared at every index, and not at some.
    #[must_use]
    pub fn comparing_every_state(mut self) -> Self {
        self.scenario.states_compared_every = 1;
        self
    }

    /// Snapshots travel in pieces of 200 bytes.
    #[must_use]
    pub fn snapshots_every(mut self, log_bytes: u64) -> Self {
        self.scenario.snapshot_log_bytes = log_bytes;
        self.scenario.snapshot_chunk_bytes = 200;
        self
    }

    /// A message carries one entry, and the next leaves when it was answered: what a leader left behind arrives before
    /// the first entry of its successor.
    #[must_use]
    pub fn one_entry_a_message(mut self) -> Self {
        self.scenario.max_append_bytes = 1;
        self.scenario.max_inflight_messages = 1;
        self
    }

    /// Snapshots travel in pieces of so many bytes.
    #[must_use]
    pub fn chunks_of(mut self, bytes: usize) -> Self {
        self.scenario.snapshot_chunk_bytes = bytes;
        self
    }

    /// So many clients go on by themselves: they put, append, delete, get and scan.
    #[must_use]
    pub fn clients(mut self, clients: u64) -> Self {
        self.scenario.clients = clients;
        self
    }

    /// The keys that these clients use together.
    #[must_use]
    pub fn keys(mut self, keys: u64) -> Self {
        self.scenario.shared_keys = keys.div_ceil(2);
        self.scenario.mixed_keys = keys;
        self
    }

    /// The cluster keeps no more sessions than this.
    #[must_use]
    pub fn sessions(mut self, cap: u32) -> Self {
        self.scenario.session_cap = cap;
        self
    }

    /// Leaders serve reads on their lease, if a client asks for that.
    #[must_use]
    pub fn lease_reads(mut self) -> Self {
        self.scenario.lease_reads = true;
        self
    }

    /// A client gives an operation up after this time.
    #[must_use]
    pub fn operations_take_at_most_ms(mut self, timeout_ms: u64) -> Self {
        self.scenario.operation_timeout = timeout_ms * MILLISECOND;
        self
    }

    /// Something is broken on purpose, to see that it is noticed.
    #[must_use]
    pub fn planted(mut self, bug: PlantedBug) -> Self {
        self.bug = Some(bug);
        self
    }

    /// All nodes and clients start.
    ///
    /// # Panics
    ///
    /// When a node does not start.
    #[must_use]
    pub fn start(self) -> Cluster {
        let generator = Pcg64Mcg::seed_from_u64(self.seed);
        let simulation = Simulation::of(self.scenario, generator, self.bug, Trace::keeping(KEPT_LINES));
        let mut cluster = Cluster {
            simulation,
            commands: 0,
        };
        let started = cluster.simulation.start();
        cluster.must(started);
        cluster
    }
}

impl Cluster {
    /// Lets time pass.
    pub fn run_ms(&mut self, time_ms: u64) -> &mut Self {
        let until = self.simulation.queue.now() + time_ms * MILLISECOND;
        self.run_until(until);
        self
    }

    fn run_until(&mut self, until: Micros) {
        let settled = self.simulation.settle();
        self.must(settled);
        while self
            .simulation
            .queue
            .next_time()
            .is_some_and(|time| time <= until)
        {
            let stepped = self.simulation.step();
            self.must(stepped);
        }
        self.simulation.queue.wait_until(until);
    }

    /// Lets time pass until `holds`, or for `patience` in all. Whether it came.
    fn wait(&mut self, patience: Micros, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = self.simulation.queue.now() + patience;
        let settled = self.simulation.settle();
        self.must(settled);
        while !holds(self) {
            if self
                .simulation
                .queue
                .next_time()
                .is_none_or(|time| time > deadline)
            {
                return false;
            }
            let stepped = self.simulation.step();
            self.must(stepped);
        }
        true
    }

    /// Everything so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.simulation.totals
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.simulation.all_nodes()
    }

    /// All nodes but these.
    #[must_use]
    pub fn others(&self, than: &[NodeId]) -> Vec<NodeId> {
        let mut nodes = self.nodes();
        nodes.retain(|node| !than.contains(node));
        nodes
    }

    /// The highest term of a running node.
    #[must_use]
    pub fn term(&self) -> Term {
        let servers = self
            .simulation
            .machines
            .values()
            .filter_map(|machine| machine.server.as_ref());
        servers
            .map(|server| server.status().soft_state.term)
            .max()
            .unwrap_or_default()
    }

    /// The last entry that `node` applied; zero if it is down.
    #[must_use]
    pub fn applied(&self, node: NodeId) -> LogIndex {
        let machine = self.simulation.machines.get(&node);
        let server = machine.and_then(|machine| machine.server.as_ref());
        server.map_or(LogIndex::ZERO, |server| server.state().last_applied())
    }

    /// The nodes that do not run.
    #[must_use]
    pub fn down(&self) -> Vec<NodeId> {
        let machines = self.simulation.machines.iter();
        machines
            .filter(|(_, machine)| machine.server.is_none())
            .map(|(node, _)| *node)
            .collect()
    }

    /// The nodes that run and have the entry of this term at `index` on their disks.
    #[must_use]
    pub fn holders(&self, index: LogIndex, term: Term) -> Vec<NodeId> {
        let holds = |node: &NodeId| {
            let log = self.durable(*node).map(|durable| durable.entries.iter());
            log.is_some_and(|mut log| log.any(|entry| (entry.index, entry.term) == (index, term)))
        };
        self.nodes().into_iter().filter(holds).collect()
    }

    /// The term on `node`'s disk, and for whom it voted in it; `None` if it is down.
    #[must_use]
    pub fn vote_on_disk(&self, node: NodeId) -> Option<(Term, Option<NodeId>)> {
        let durable = self.durable(node)?;
        Some((durable.hard_state.current_term, durable.hard_state.voted_for))
    }

    /// The term of `node`, and how far it knows entries to be committed; `None` if it is down.
    #[must_use]
    pub fn known_to(&self, node: NodeId) -> Option<(Term, LogIndex)> {
        let machine = self.simulation.machines.get(&node)?;
        let status = machine.server.as_ref()?.status();
        Some((status.soft_state.term, status.commit_index))
    }

    /// How many sessions were opened, on any node: those that were applied first.
    #[must_use]
    pub fn sessions_opened(&self) -> usize {
        let applied = self.simulation.invariants.state_machine_safety.applied_entries();
        let opens = |entry: &&Entry| match &entry.payload {
            Payload::Command(command) => {
                matches!(Command::decode(command), Ok(Command::OpenSession { .. }))
            }
            _ => false,
        };
        applied.filter(opens).count()
    }

    /// At how many indexes the states of nodes were compared.
    #[must_use]
    pub fn states_compared(&self) -> usize {
        self.simulation.invariants.state_machine_safety.states_compared()
    }

    /// How many chunks of snapshots the network delivered twice.
    #[must_use]
    pub fn repeated_chunks(&self) -> u64 {
        self.simulation.traffic.repeated_chunks()
    }

    /// How many requests of clients wait at `node`; none if it is down.
    #[must_use]
    pub fn waiting_at(&self, node: NodeId) -> usize {
        let machine = self.simulation.machines.get(&node);
        let server = machine.and_then(|machine| machine.server.as_ref());
        server.map_or(0, Server::waiters)
    }

    /// The bytes of the log on `node`'s disk; zero if it is down.
    #[must_use]
    pub fn log_bytes(&self, node: NodeId) -> usize {
        self.durable(node)
            .map_or(0, |durable| durable.entries.iter().map(Entry::size_bytes).sum())
    }

    /// The bytes of the snapshot on `node`'s disk; zero if it is down.
    #[must_use]
    pub fn snapshot_bytes(&self, node: NodeId) -> u64 {
        self.durable(node)
            .map_or(0, |durable| durable.snapshot.size_bytes)
    }

    /// A hash of the state of each node that runs.
    #[must_use]
    pub fn state_hashes(&self) -> Vec<u64> {
        let servers = self
            .simulation
            .machines
            .values()
            .filter_map(|machine| machine.server.as_ref());
        servers.map(|server| server.state().state_hash()).collect()
    }

    fn durable(&self, node: NodeId) -> Option<&Restored> {
        self.simulation.machines.get(&node)?.durable()
    }

    /// All messages that nodes sent each other.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.simulation.traffic.messages()
    }

    /// Bytes of entries and snapshots that went from one node to another.
    #[must_use]
    pub fn bytes_sent(&self, from: NodeId, to: NodeId) -> u64 {
        self.simulation.traffic.between(from, to).bytes
    }

    /// Entries that went from one node to another.
    #[must_use]
    pub fn entries_sent(&self, from: NodeId, to: NodeId) -> u64 {
        self.simulation.traffic.between(from, to).entries
    }

    fn must<T>(&self, result: Result<T, Violation>) -> T {
        match result {
            Ok(value) => value,
            Err(violation) => {
                let window = violation.window.as_deref().unwrap_or_default();
                self.fail(format!("{violation}\n{window}").trim_end())
            }
        }
    }

    fn fail(&self, what: &str) -> ! {
        let trace: Vec<&str> = self.simulation.trace.last_lines().map(String::as_str).collect();
        panic!("{what}\n\nthe last lines of the trace:\n{}", trace.join("\n"));
    }
}

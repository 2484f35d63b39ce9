//! Several servers and the network between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft_core::{Config, Envelope, LogIndex, NodeId, ReadId, Refusal, Role, Standing, Status, Term};

use super::disk::Disk;
use super::invariants::Invariants;
use super::server::{Happening, Server};
use super::{ELECTION_TIMEOUT_MAX, ELECTION_TIMEOUT_MIN, story, voters};

/// Rounds that [`Cluster::settle`] allows before it calls the traffic a storm.
const MAX_ROUNDS: u32 = 2_000;

/// A cluster of servers 1, 2, 3 and so on.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) servers: BTreeMap<NodeId, Server>,
    pub(crate) crashed: BTreeMap<NodeId, Disk>,
    /// Disks that were thrown away. What they promised was true when they did.
    lost: BTreeMap<NodeId, Vec<Disk>>,
    pub(crate) network: VecDeque<Envelope>,
    pub(crate) invariants: Invariants,
    /// What happened, told in words.
    pub(crate) story: Vec<String>,
    /// Everything that happened.
    pub(crate) history: Vec<(NodeId, Happening)>,
    configs: BTreeMap<NodeId, Config>,
    cut: BTreeSet<(NodeId, NodeId)>,
    slow_disks: BTreeSet<NodeId>,
    reads: u64,
    incarnations: u64,
    keeps_history: bool,
}

impl Cluster {
    /// Fresh servers with these settings.
    pub(crate) fn new(count: u64, configure: impl Fn(u64) -> Config) -> Self {
        let disks = (1..=count).map(|id| (id, Disk::new(voters(count)))).collect();
        Self::from_disks(disks, configure)
    }

    /// Servers on new disks, of which none has heard of another: the first start of a cluster. None is up.
    pub(crate) fn unfounded(count: u64, configure: impl Fn(u64) -> Config) -> Self {
        let disks = (1..=count)
            .map(|id| (id, Disk::fresh(count, id, Standing::Founder)))
            .collect();
        let mut cluster = Self::from_disks(disks, configure);
        (1..=count).for_each(|id| cluster.crash(id));
        cluster
    }

    /// Servers that start from what is on their disks.
    pub(crate) fn from_disks(disks: BTreeMap<u64, Disk>, configure: impl Fn(u64) -> Config) -> Self {
        let configs = disks.keys().map(|id| (NodeId(*id), configure(*id))).collect();
        let mut cluster = Self {
            servers: BTreeMap::new(),
            crashed: disks.into_iter().map(|(id, disk)| (NodeId(id), disk)).collect(),
            lost: BTreeMap::new(),
            network: VecDeque::new(),
            invariants: Invariants::default(),
            story: Vec::new(),
            history: Vec::new(),
            configs,
            cut: BTreeSet::new(),
            slow_disks: BTreeSet::new(),
            reads: 0,
            incarnations: 0,
            keeps_history: true,
        };
        for id in cluster.ids() {
            cluster.restart(id.get());
        }
        cluster
    }

    /// Whether what happens is kept; long runs need not be told.
    pub(crate) fn keep_history(&mut self, keeps_history: bool) {
        self.keeps_history = keeps_history;
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.configs.keys().copied().collect()
    }

    pub(crate) fn server(&self, id: u64) -> &Server {
        &self.servers[&NodeId(id)]
    }

    pub(crate) fn status(&self, id: u64) -> Status {
        self.server(id).node.status()
    }

    pub(crate) fn role(&self, id: u64) -> Role {
        self.server(id).node.role()
    }

    pub(crate) fn term(&self, id: u64) -> Term {
        self.server(id).node.soft_state().term
    }

    pub(crate) fn commit_index(&self, id: u64) -> LogIndex {
        self.status(id).commit_index
    }

    /// The leader of the highest term, if any server leads.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.servers
            .values()
            .filter(|server| server.node.role() == Role::Leader)
            .max_by_key(|server| server.node.soft_state().term)
            .map(Server::id)
    }

    /// What the state machine of a server holds, as lines.
    pub(crate) fn lines(&self, id: u64) -> Vec<String> {
        let text = String::from_utf8(self.server(id).machine.lines.clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Does something with a server that is up, and notes and checks what came of it.
    pub(crate) fn with<T>(&mut self, id: NodeId, act: impl FnOnce(&mut Server) -> T) -> Option<T> {
        let server = self.servers.get_mut(&id)?;
        let result = act(server);
        let happenings = server.take_happenings();
        for happening in happenings {
            self.note(id, happening);
        }
        Some(result)
    }

    /// The same with the leader of the highest term, if any server leads.
    pub(crate) fn with_leader<T>(&mut self, act: impl FnOnce(&mut Server) -> T) -> Option<T> {
        let leader = self.leader()?;
        self.with(leader, act)
    }

    fn note(&mut self, id: NodeId, happening: Happening) {
        let running = self.servers.iter().map(|(id, server)| (*id, &server.disk));
        let mut disks: BTreeMap<NodeId, Vec<&Disk>> = BTreeMap::new();
        for (id, disk) in running.chain(self.crashed.iter().map(|(id, disk)| (*id, disk))) {
            disks.entry(id).or_default().push(disk);
        }
        for (id, lost) in &self.lost {
            disks.entry(*id).or_default().extend(lost);
        }
        self.invariants.check(&self.servers[&id], &happening, &disks);
        if let Happening::Sends(envelope) = &happening {
            self.network.push_back(envelope.clone());
        }
        if self.keeps_history {
            self.story.push(story::tell(id.get(), &happening));
            self.history.push((id, happening));
        }
    }

    // Time.

    /// One tick of one server's election clock.
    pub(crate) fn tick(&mut self, id: u64) {
        self.with(NodeId(id), Server::tick_election);
    }

    pub(crate) fn heartbeat(&mut self, id: u64) {
        self.with(NodeId(id), Server::tick_heartbeat);
    }

    /// Every server that is up ticks once; leaders also send heartbeats.
    pub(crate) fn tick_all(&mut self) {
        for id in self.ids() {
            self.tick(id.get());
            self.heartbeat(id.get());
        }
    }

    /// Ticks everywhere, with all queues worked off after each.
    pub(crate) fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.tick_all();
            self.settle();
        }
    }

    /// The other followers' clocks go on by the shortest election timeout, so that they trust no leader any
    /// more; then the clock of `id`, until it acts.
    pub(crate) fn time_out(&mut self, id: u64) {
        let others: Vec<NodeId> = self.ids().into_iter().filter(|other| other.get() != id).collect();
        for _ in 0..ELECTION_TIMEOUT_MIN {
            for other in &others {
                if self
                    .servers
                    .get(other)
                    .is_some_and(|server| server.node.role() == Role::Follower)
                {
                    self.tick(other.get());
                }
            }
        }
        self.time_out_alone(id);
    }

    /// Only this server's election timeout runs out.
    pub(crate) fn time_out_alone(&mut self, id: u64) {
        let before = (self.role(id), self.term(id), self.network.len());
        for _ in 0..=ELECTION_TIMEOUT_MAX {
            self.tick(id);
            if (self.role(id), self.term(id), self.network.len()) != before {
                return;
            }
        }
    }

    // The network.

    /// Delivers the message, if its link is whole and its receiver is up; else it is lost.
    pub(crate) fn deliver(&mut self, envelope: Envelope) {
        if !self.cut.contains(&(envelope.from, envelope.to)) {
            self.with(envelope.to, |server| server.receive(envelope));
        }
    }

    /// Delivers what is on its way now, and nothing that comes of it.
    pub(crate) fn deliver_round(&mut self) {
        for envelope in std::mem::take(&mut self.network) {
            self.deliver(envelope);
        }
    }

    /// Loses the messages on their way for which `is_lost` holds. Returns how many.
    pub(crate) fn lose(&mut self, is_lost: impl Fn(&Envelope) -> bool) -> usize {
        let before = self.network.len();
        self.network.retain(|envelope| !is_lost(envelope));
        before - self.network.len()
    }

    /// No message goes from one to the other.
    pub(crate) fn cut_one_way(&mut self, from: u64, to: u64) {
        self.cut.insert((NodeId(from), NodeId(to)));
    }

    /// Cuts all links of a server.
    pub(crate) fn isolate(&mut self, id: u64) {
        self.partition(&[&[id]]);
    }

    /// Cuts the links between servers of different groups; who is in none is in a group with the rest.
    pub(crate) fn partition(&mut self, groups: &[&[u64]]) {
        let group = |id: NodeId| groups.iter().position(|group| group.contains(&id.get()));
        for from in self.ids() {
            for to in self.ids().into_iter().filter(|to| group(*to) != group(from)) {
                self.cut.insert((from, to));
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    // Disks, crashes, state machines.

    /// This server's disk keeps every write waiting until [`Self::release_persists`].
    pub(crate) fn hold_persists(&mut self, id: u64) {
        self.slow_disks.insert(NodeId(id));
    }

    pub(crate) fn release_persists(&mut self, id: u64) {
        self.slow_disks.remove(&NodeId(id));
    }

    pub(crate) fn persist(&mut self, id: u64, batches: usize) {
        self.with(NodeId(id), |server| server.persist(batches));
    }

    pub(crate) fn crash(&mut self, id: u64) {
        let id = NodeId(id);
        if let Some(server) = self.servers.remove(&id) {
            self.crashed.insert(id, server.crash());
            self.invariants.crashed(id);
        }
    }

    pub(crate) fn restart(&mut self, id: u64) {
        let id = NodeId(id);
        if let Some(disk) = self.crashed.remove(&id) {
            let server = Server::start(self.configs[&id].clone(), disk);
            self.servers.insert(id, server);
            self.with(id, |_| ());
        }
    }

    /// This server's disk is replaced by an empty one. It is down until [`Self::restart`].
    pub(crate) fn wipe(&mut self, id: u64, standing: Standing) {
        self.crash(id);
        self.incarnations += 1;
        let fresh = Disk::fresh(self.configs.len() as u64, 100 + self.incarnations, standing);
        let lost = self
            .crashed
            .insert(NodeId(id), fresh)
            .expect("it was just crashed");
        self.lost.entry(NodeId(id)).or_default().push(lost);
    }

    /// As [`Self::wipe`], and up again.
    pub(crate) fn start_wiped(&mut self, id: u64, standing: Standing) {
        self.wipe(id, standing);
        self.restart(id);
    }

    /// Why this server must not take part, if it was told so.
    pub(crate) fn refusal(&self, id: u64) -> Option<Refusal> {
        self.server(id).refusal
    }

    pub(crate) fn disk(&self, id: NodeId) -> &Disk {
        self.servers
            .get(&id)
            .map_or_else(|| &self.crashed[&id], |server| &server.disk)
    }

    pub(crate) fn cut_snapshot(&mut self, id: u64) {
        self.with(NodeId(id), Server::cut_snapshot);
    }

    /// Works every queue off: messages are delivered, writes persisted (but on disks that are held),
    /// entries applied, until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        let mut rounds = 0;
        while self.settle_once() {
            rounds += 1;
            assert!(rounds < MAX_ROUNDS, "a message storm: {:?}", self.network);
        }
    }

    fn settle_once(&mut self) -> bool {
        let mut moved = !self.network.is_empty();
        for id in self.ids() {
            let is_slow = self.slow_disks.contains(&id);
            moved |= self
                .with(id, |server| {
                    let disk_works = !is_slow && (server.has_to_persist() || server.has_to_read());
                    let works = disk_works || server.has_to_apply();
                    if !is_slow {
                        server.persist_all();
                        server.read_log();
                    }
                    while server.has_to_apply() {
                        server.apply();
                    }
                    works
                })
                .unwrap_or_default();
        }
        self.deliver_round();
        moved
    }

    // Clients.

    /// Makes `id` the leader, by its election timeout running out first, and settles.
    pub(crate) fn elect(&mut self, id: u64) {
        self.time_out(id);
        self.settle();
        assert_eq!(self.role(id), Role::Leader, "{:#?}", self.story);
    }

    pub(crate) fn propose(&mut self, id: u64, command: &str) -> Option<(Term, LogIndex)> {
        self.with(NodeId(id), |server| server.propose(command)).flatten()
    }

    /// Begins a read at `id`. Returns its number if it was taken.
    pub(crate) fn read(&mut self, id: u64) -> Option<ReadId> {
        self.reads += 1;
        let read = ReadId(self.reads);
        let server = self.servers.get_mut(&NodeId(id))?;
        if server.node.role() == Role::Leader {
            self.invariants.read_begins(NodeId(id), read);
        }
        let taken = self.with(NodeId(id), |server| server.read(read.get()));
        taken.filter(|taken| *taken).map(|_| read)
    }

    /// Every server has applied `command`.
    pub(crate) fn everybody_has(&self, command: &str) -> bool {
        self.ids()
            .iter()
            .all(|id| self.lines(id.get()).iter().any(|line| line == command))
    }
}

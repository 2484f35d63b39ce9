//! Random runs: a cluster suffers whatever a network, a disk or an operator can do to it, in an order that a
//! seed decides, and the invariants of `common::invariants` are checked after every single step. Then the
//! faults end, and it must make progress within ten election timeouts.
//!
//! A failure prints its seed. `RAFT_SEED=17` replays seed 17 and tells its whole story; `RAFT_SEEDS=50000`
//! runs that many seeds:
//!
//! ```text
//! RAFT_SEED=17 cargo test -p raft-core --test it random
//! RAFT_SEEDS=50000 cargo test --release -p raft-core --test it random
//! ```

use crate::common::cluster::Cluster;
use crate::common::server::Server;
use crate::common::{ELECTION_TIMEOUT_MAX, config};
use bytes::Bytes;
use raft_core::{Config, Envelope, LogIndex, Message, NodeId, Standing, Ticks};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Runs of the default test: some five seconds in a debug build.
const DEFAULT_SEEDS: u64 = 600;
/// Steps with faults in one run.
const STEPS: u32 = 2_500;
/// The network forgets messages beyond this many, like any that has finite buffers.
const NETWORK_LIMIT: usize = 300;
/// How soon a healed cluster must make progress.
const PROGRESS_LIMIT_TICKS: u64 = 10 * ELECTION_TIMEOUT_MAX;

#[test]
fn no_run_of_faults_breaks_an_invariant_and_every_healed_cluster_makes_progress() {
    let number = |name: &str| setting(name).map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("RAFT_SEED") {
        Run::new(seed).tell_story().play();
        return;
    }
    for seed in 0..number("RAFT_SEEDS").unwrap_or(DEFAULT_SEEDS) {
        Run::new(seed).play();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the environment chooses what to run; a run itself depends on its seed alone"
)]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// How likely each fault is in this run, in thousandths of a step or message.
#[derive(Debug)]
struct Faults {
    loss: u32,
    duplication: u32,
    damage: u32,
    reordering: bool,
    crash: u32,
    partition: u32,
    transfer: u32,
    /// A node loses its disk.
    wipe: u32,
    /// One step in so many does the disks' and the state machines' work.
    disk_slowness: u32,
}

struct Run {
    seed: u64,
    rng: Pcg64Mcg,
    faults: Faults,
    cluster: Cluster,
    proposals: u64,
    tells_story: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let count = [3, 3, 5, 5, 7][rng.random_range(0..5)];
        let faults = Faults {
            loss: [0, 20, 200][rng.random_range(0..3)],
            duplication: [0, 20, 150][rng.random_range(0..3)],
            damage: [0, 0, 100][rng.random_range(0..3)],
            reordering: rng.random_ratio(1, 2),
            crash: [0, 2, 10][rng.random_range(0..3)],
            partition: [0, 2, 8][rng.random_range(0..3)],
            transfer: [0, 0, 3][rng.random_range(0..3)],
            disk_slowness: [1, 2, 6][rng.random_range(0..3)],
            wipe: [0, 0, 4][rng.random_range(0..3)],
        };
        let is_new = rng.random_ratio(1, 3);
        let template = random_config(&mut rng);
        let configure = |id| Config {
            id: NodeId(id),
            seed: seed * 16 + id,
            ..template.clone()
        };
        let mut cluster = if is_new {
            Cluster::unfounded(count, configure)
        } else {
            Cluster::new(count, configure)
        };
        (1..=count).for_each(|id| cluster.restart(id));
        cluster.keep_history(false);
        Self {
            seed,
            rng,
            faults,
            cluster,
            proposals: 0,
            tells_story: false,
        }
    }

    fn tell_story(mut self) -> Self {
        self.tells_story = true;
        self.cluster.keep_history(true);
        self
    }

    fn play(mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        self.heal();
        self.expect_progress();
        self.expect_order();
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..50 => self.deliver(),
            50..66 => self.on_some_server(Server::tick_election),
            66..70 => self.on_some_server(Server::tick_heartbeat),
            70..90 if self.rng.random_ratio(1, self.faults.disk_slowness) => self.work(),
            90..96 => self.propose(),
            96..98 => self.read(),
            98 => self.on_some_server(Server::cut_snapshot),
            _ => {}
        }
        self.cause_faults();
        let surplus = self.cluster.network.len().saturating_sub(NETWORK_LIMIT);
        self.cluster.network.drain(..surplus);
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        self.rng.random_ratio(thousandths, 1_000)
    }

    fn some_id(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        ids[self.rng.random_range(0..ids.len())]
    }

    fn on_some_server(&mut self, act: impl FnOnce(&mut Server)) {
        let id = self.some_id();
        self.cluster.with(id, act);
    }

    fn deliver(&mut self) {
        let length = self.cluster.network.len();
        if length == 0 {
            return;
        }
        let position = if self.faults.reordering {
            self.rng.random_range(0..length)
        } else {
            0
        };
        let envelope = self.cluster.network.remove(position).expect("a position inside");
        if self.chance(self.faults.loss) {
            return;
        }
        if self.chance(self.faults.duplication) {
            self.cluster.network.push_back(envelope.clone());
        }
        let envelope = self.damage(envelope);
        self.cluster.deliver(envelope);
    }

    /// Damages some snapshot chunks on the way.
    fn damage(&mut self, mut envelope: Envelope) -> Envelope {
        if let Message::InstallSnapshot(chunk) = &mut envelope.message
            && !chunk.data.is_empty()
            && self.chance(self.faults.damage)
        {
            let mut data = chunk.data.to_vec();
            data[0] ^= 1;
            chunk.data = Bytes::from(data);
        }
        envelope
    }

    /// Disks and state machines get on with it.
    fn work(&mut self) {
        let batches = self.rng.random_range(1..4);
        let work = self.rng.random_range(0..4);
        self.on_some_server(|server| match work {
            0 | 1 => server.apply(),
            2 => server.persist(batches),
            _ => {
                server.persist(batches);
                server.read_log();
            }
        });
    }

    fn propose(&mut self) {
        let id = self.some_id();
        self.proposals += 1;
        let command = format!("command {}", self.proposals);
        self.cluster.propose(id.get(), &command);
    }

    fn read(&mut self) {
        let id = self.some_id();
        self.cluster.read(id.get());
    }

    fn cause_faults(&mut self) {
        if self.chance(self.faults.crash) {
            let id = self.some_id();
            self.cluster.crash(id.get());
        }
        if self.chance(self.faults.crash * 2) {
            let id = self.some_id();
            self.cluster.restart(id.get());
        }
        if self.chance(self.faults.partition) {
            self.change_partition();
        }
        if self.chance(self.faults.transfer) {
            self.on_some_server(|server| {
                server.transfer_leadership();
            });
        }
        if self.chance(self.faults.partition) {
            let peer = self.some_id().get();
            self.on_some_server(|server| server.peer_unreachable(peer));
        }
        if self.chance(self.faults.wipe) {
            self.wipe();
        }
        if self.chance(self.faults.wipe * 10) {
            self.replace_refused();
        }
    }

    /// A node loses its disk, and comes back as if it were new, or to join.
    fn wipe(&mut self) {
        let id = self.some_id();
        let standing = [Standing::Founder, Standing::Joining][self.rng.random_range(0..2)];
        if self.bears_the_loss_of(id) {
            self.cluster.start_wiped(id.get(), standing);
        }
    }

    /// Whether a majority that counts is left without `id`, and too few nodes that hold nothing to found
    /// another cluster: more than that, and no rule helps.
    fn bears_the_loss_of(&self, id: NodeId) -> bool {
        let Some(registry) = self.cluster.invariants.registry() else {
            return false;
        };
        let counting: Vec<_> = registry
            .members()
            .into_iter()
            .filter(|other| *other != id)
            .map(|other| (other, self.cluster.disk(other)))
            .filter(|(other, disk)| {
                let standing = disk.hard_state().standing;
                registry.incarnation_of(*other) == Some(disk.incarnation())
                    && matches!(standing, Standing::Founder | Standing::Member)
            })
            .collect();
        let nodes = registry.members().len();
        let founded = counting.iter().filter(|(_, disk)| disk.is_founded()).count();
        counting.len() * 2 > nodes && founded > (nodes - 1) / 2
    }

    /// Whoever was told that it must not take part is made to join, as its operator was told.
    fn replace_refused(&mut self) {
        for id in self.cluster.ids() {
            if self
                .cluster
                .servers
                .get(&id)
                .is_some_and(|server| server.refusal.is_some())
            {
                self.cluster.start_wiped(id.get(), Standing::Joining);
            }
        }
    }

    fn change_partition(&mut self) {
        match self.rng.random_range(0..4) {
            0 | 1 => self.cluster.heal(),
            2 => {
                let ids = self.cluster.ids();
                let side: Vec<u64> = ids
                    .iter()
                    .map(|id| id.get())
                    .filter(|_| self.rng.random_ratio(1, 2))
                    .collect();
                self.cluster.partition(&[&side]);
            }
            _ => {
                let (from, to) = (self.some_id(), self.some_id());
                self.cluster.cut_one_way(from.get(), to.get());
            }
        }
    }

    /// All faults end.
    fn heal(&mut self) {
        self.cluster.heal();
        for id in self.cluster.ids() {
            self.cluster.restart(id.get());
        }
    }

    /// A command proposed after the faults is applied by everybody in time.
    fn expect_progress(&mut self) {
        let committed_before = self.cluster.invariants.committed_index();
        let mut proposed = None;
        for _ in 0..PROGRESS_LIMIT_TICKS {
            self.cluster.tick_all();
            self.cluster.settle();
            self.replace_refused();
            if let Some(leader) = self.cluster.leader()
                && proposed.is_none_or(|index| self.is_lost(index))
            {
                proposed = self.cluster.propose(leader.get(), "healed");
            }
            self.cluster.settle();
            let all_count = self
                .cluster
                .servers
                .values()
                .all(|server| matches!(server.node.standing(), Standing::Founder | Standing::Member));
            let applied_by_all = |index: LogIndex| {
                self.cluster
                    .servers
                    .values()
                    .all(|server| server.machine.applied >= index)
            };
            if all_count
                && proposed.is_some_and(|(term, index)| {
                    index > committed_before && !self.is_lost((term, index)) && applied_by_all(index)
                })
            {
                return;
            }
        }
        panic!("no progress within {PROGRESS_LIMIT_TICKS} ticks");
    }

    /// Whether another entry took the place of the one proposed.
    fn is_lost(&self, (term, index): (raft_core::Term, LogIndex)) -> bool {
        self.cluster
            .invariants
            .applied_entry(index)
            .is_some_and(|entry| entry.term != term)
    }

    /// When all is quiet, reads are served, no request is left unanswered, and all states are equal.
    fn expect_order(&mut self) {
        let leader = self.cluster.leader().expect("progress needs a leader");
        self.cluster.read(leader.get()).expect("leaders take reads");
        self.cluster.pass(3);
        assert_eq!(self.cluster.invariants.open_reads(), 0, "a read waits for ever");
        let servers = &self.cluster.servers;
        for (id, server) in servers {
            assert_eq!(server.unanswered(), 0, "server {id} owes answers");
            assert_eq!(
                server.machine, servers[&leader].machine,
                "servers {id} and {leader}"
            );
        }
    }
}

/// Tight limits, so that short runs reach them; pre-vote and check quorum sometimes off.
fn random_config(rng: &mut Pcg64Mcg) -> Config {
    let config = Config {
        election_timeout_max: Ticks(ELECTION_TIMEOUT_MAX),
        pre_vote: rng.random_ratio(4, 5),
        check_quorum: rng.random_ratio(4, 5),
        max_append_bytes: [1, 100, 10_000][rng.random_range(0..3)],
        max_inflight_messages: [1, 4, 64][rng.random_range(0..3)],
        max_inflight_bytes: [1, 500, 10_000][rng.random_range(0..3)],
        max_uncommitted_bytes: 4_000,
        max_unapplied_bytes: [1, 200, 10_000][rng.random_range(0..3)],
        retained_log_bytes: [0, 150, 2_000][rng.random_range(0..3)],
        ..config(1)
    };
    Config {
        max_unpacked_log_bytes: config.retained_log_bytes,
        max_packed_log_bytes: [0, 200, usize::MAX][rng.random_range(0..3)],
        ..config
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if self.tells_story {
            eprintln!("{}", self.cluster.story.join("\n"));
        }
        eprintln!("{:?}", self.faults);
        eprintln!(
            "replay with: RAFT_SEED={} cargo test -p raft-core --test it random",
            self.seed
        );
    }
}

//! Thesis §6.4.1: reads on the leader's lease, and what makes it true.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;

/// How long a lease of [`with_leases`] lasts, in ticks: the promise of 10, less the slack of 3, less the drift.
const LEASE: u64 = 6;

fn with_leases(id: u64) -> Config {
    Config {
        silent_start: true,
        lease_reads: true,
        ..config(id)
    }
}

/// A cluster of `count` led by 1, all of whose clocks read 0, with its first entries committed.
fn led_by_1_with_leases(count: u64) -> Cluster {
    let mut cluster = Cluster::new(count, with_leases);
    cluster.elect(1);
    cluster
}

/// What a lease gives at server `id` when its clock reads `now`.
fn lease_at(cluster: &mut Cluster, id: u64, now: u64) -> Option<LogIndex> {
    let read = |server: &mut Server| {
        server.node.clock_reads(Ticks(now));
        server.node.read_lease()?.read_index(Ticks(now))
    };
    cluster.with(NodeId(id), read).flatten()
}

#[test]
fn a_heartbeat_that_a_majority_answered_gives_a_lease_from_when_it_was_sent() {
    let mut cluster = led_by_1_with_leases(3);
    assert_eq!(lease_at(&mut cluster, 1, 0), None, "no round has begun");
    cluster.heartbeat(1);
    assert_eq!(lease_at(&mut cluster, 1, 3), None, "nobody has answered");
    cluster.settle();
    assert_eq!(
        lease_at(&mut cluster, 1, LEASE - 1),
        Some(cluster.commit_index(1))
    );
    assert_eq!(lease_at(&mut cluster, 1, LEASE), None);
    cluster.heartbeat(1);
    cluster.settle();
    assert!(lease_at(&mut cluster, 1, 2 * LEASE - 1).is_some());
}

#[test]
fn a_late_answer_gives_a_lease_from_when_its_own_heartbeat_was_sent_and_not_a_later_one() {
    let mut cluster = led_by_1_with_leases(3);
    cluster.heartbeat(1);
    cluster.deliver_round();
    assert_eq!(lease_at(&mut cluster, 1, 3), None, "the answers are on their way");
    cluster.heartbeat(1);
    let lost = cluster.lose(|envelope| matches!(envelope.message, Message::AppendEntries(_)));
    assert_eq!(lost, 2, "nobody gets the second heartbeat");
    cluster.settle();
    assert!(lease_at(&mut cluster, 1, LEASE - 1).is_some());
    assert_eq!(lease_at(&mut cluster, 1, LEASE), None);
}

#[test]
fn a_round_for_a_read_renews_the_lease_too() {
    let mut cluster = led_by_1_with_leases(3);
    cluster.read(1);
    cluster.settle();
    assert!(lease_at(&mut cluster, 1, LEASE - 1).is_some());
    assert_eq!(cluster.invariants.open_reads(), 0);
}

#[test]
fn heartbeats_that_renew_the_lease_do_not_hold_reads_up() {
    let mut cluster = led_by_1_with_leases(3);
    cluster.read(1);
    cluster.heartbeat(1);
    // The answers to the read's own round come when a later one has begun.
    cluster.deliver_round();
    cluster.lose(|envelope| {
        matches!(&envelope.message, Message::AppendEntriesResponse(answer) if answer.read_round > 1)
    });
    cluster.settle();
    assert_eq!(cluster.invariants.open_reads(), 0);
}

#[test]
fn a_minority_gives_no_lease() {
    let mut cluster = led_by_1_with_leases(5);
    cluster.partition(&[&[1, 2]]);
    cluster.heartbeat(1);
    cluster.settle();
    assert_eq!(lease_at(&mut cluster, 1, 0), None);
}

#[test]
fn without_the_setting_there_is_no_lease() {
    let mut cluster = led_by_1();
    cluster.heartbeat(1);
    cluster.settle();
    assert_eq!(lease_at(&mut cluster, 1, 0), None);
}

#[test]
fn the_clock_of_a_leader_that_was_stopped_has_gone_on() {
    let mut cluster = led_by_1_with_leases(3);
    cluster.heartbeat(1);
    cluster.settle();
    // Not one tick of its election clock: only the clock of leases knows.
    assert_eq!(lease_at(&mut cluster, 1, 1_000), None);
    assert_eq!(cluster.role(1), Role::Leader);
}

#[test]
fn a_new_leader_has_no_lease_before_its_no_op_is_committed() {
    let mut cluster = Cluster::new(3, with_leases);
    for id in 2..=3 {
        cluster.hold_persists(id);
    }
    cluster.time_out(1);
    cluster.deliver_round(); // the questions whether it could win
    cluster.deliver_round();
    cluster.settle();
    for id in 2..=3 {
        cluster.persist(id, 1); // their votes, and nothing more
    }
    cluster.settle();
    assert_eq!(cluster.role(1), Role::Leader);
    cluster.heartbeat(1);
    cluster.settle();
    assert_eq!(cluster.commit_index(1), LogIndex::ZERO);
    assert_eq!(lease_at(&mut cluster, 1, 0), None);
    cluster.release_persists(2);
    cluster.settle();
    assert!(lease_at(&mut cluster, 1, 0).is_some());
}

#[test]
fn a_hand_over_ends_the_lease_before_it_begins_and_for_good() {
    let mut cluster = led_by_1_with_leases(3);
    cluster.heartbeat(1);
    cluster.settle();
    assert!(lease_at(&mut cluster, 1, 0).is_some());
    cluster.with(NodeId(1), Server::transfer_leadership);
    assert_eq!(lease_at(&mut cluster, 1, 0), None);
    // The request to take over is lost, as far as anyone can tell.
    cluster.lose(|envelope| matches!(envelope.message, Message::TimeoutNow(_)));
    cluster.pass(ELECTION_TIMEOUT_MIN);
    assert!(cluster.propose(1, "x").is_some(), "the hand-over was given up");
    cluster.pass(2);
    assert_eq!(lease_at(&mut cluster, 1, 0), None, "it may arrive yet");
}

#[test]
fn a_hand_over_that_waits_for_its_target_gives_no_lease_and_gives_it_back_if_nothing_came_of_it() {
    let mut cluster = led_by_1_with_leases(3);
    cluster.hold_persists(2);
    cluster.hold_persists(3);
    cluster.propose(1, "what the target has to have");
    cluster.with(NodeId(1), Server::transfer_leadership);
    cluster.heartbeat(1);
    cluster.settle();
    assert_eq!(lease_at(&mut cluster, 1, 0), None);
    for _ in 0..ELECTION_TIMEOUT_MIN {
        cluster.tick(1);
    }
    assert!(
        lease_at(&mut cluster, 1, 0).is_some(),
        "nobody was asked to take over"
    );
}

#[test]
fn who_answered_a_leader_gives_no_vote_even_if_a_higher_term_becomes_known() {
    let mut voter = Server::start(with_leases(1), Disk::new(voters(3)));
    voter.receive_from(2, append(1, (0, 0), vec![], 0));
    voter.persist_all();
    voter.sent();
    // A late answer to a question of its own, from before it knew the leader.
    let refusal = raft_core::VoteResponse {
        term: Term(7),
        vote_granted: false,
        sender: crate::common::messages::SENDER,
    };
    voter.receive_from(3, Message::PreVoteResponse(refusal));
    assert_eq!(voter.node.soft_state().term, Term(7));
    voter.receive_from(3, pre_vote(3, 8, (9, 7)));
    voter.receive_from(3, vote_request(3, 8, 9, 7));
    voter.persist_all();
    assert_eq!(granted(&voter.sent()), [false, false]);
}

#[test]
fn who_restarts_gives_no_vote_for_an_election_timeout() {
    let disk = Disk::new(voters(3)).with_hard_state(1, None);
    let mut voter = Server::start(with_leases(1), disk);
    voter.receive_from(3, pre_vote(3, 2, (9, 1)));
    voter.receive_from(3, vote_request(3, 2, 9, 1));
    assert_eq!(granted(&voter.sent()), [false, false]);
    assert_eq!(voter.node.soft_state().term, Term(1));
    for _ in 0..ELECTION_TIMEOUT_MIN {
        voter.tick_election();
    }
    voter.receive_from(3, vote_request(3, 2, 9, 1));
    voter.persist_all();
    assert!(granted(&voter.sent()).contains(&true));
}

/// Figure 2 of the paper: what is answered in a term is answered once the term is on the disk. Who forgets the first term of
/// all would vote at once after a restart.
#[test]
fn an_append_is_answered_when_its_term_is_durable() {
    let mut follower = Server::start(with_leases(1), Disk::new(voters(3)));
    let append_of = |prev| append(1, prev, vec![], 0);
    for request in [append_of((5, 1)), append_of((0, 0))] {
        follower.receive_from(2, request);
    }
    assert!(follower.sent().is_empty(), "neither conflict nor match");
    follower.persist_all();
    assert_eq!(follower.sent().len(), 2);
    follower.receive_from(2, append_of((5, 1)));
    assert_eq!(follower.sent().len(), 1, "from then on at once");
}

#[test]
fn who_never_saw_a_term_votes_at_once() {
    let mut voter = Server::start(with_leases(1), Disk::new(voters(3)));
    voter.receive_from(3, vote_request(3, 1, 0, 0));
    voter.persist_all();
    assert_eq!(granted(&voter.sent()), [true]);
}

/// A cluster in time that passes: clocks that drift apart as far as is assumed, ticks that come late and then
/// close together, servers that stand still, crash and come back, messages lost and late.
struct Run {
    rng: Pcg64Mcg,
    cluster: Cluster,
    now: u64,
    /// How many hundredths of a tick each server's ticker owes.
    owed: [u64; 5],
    fast: [bool; 5],
    stopped_until: [u64; 5],
    leases_seen: u64,
}

/// Where the arrays of a run hold what belongs to a server.
fn place(id: NodeId) -> usize {
    usize::try_from(id.get()).expect("the servers are numbered from 1 to 5") - 1
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let count = [3, 5][rng.random_range(0..2)];
        let mut cluster = Cluster::new(count, |id| Config {
            seed: seed.wrapping_mul(31) + id,
            // Elections come as soon as they may.
            election_timeout_max: Ticks(ELECTION_TIMEOUT_MIN + 1),
            ..with_leases(id)
        });
        cluster.keep_history(false);
        Self {
            fast: std::array::from_fn(|_| rng.random_bool(0.5)),
            rng,
            cluster,
            now: 0,
            owed: [0; 5],
            stopped_until: [0; 5],
            leases_seen: 0,
        }
    }

    fn is_stopped(&self, id: NodeId) -> bool {
        self.stopped_until[place(id)] > self.now
    }

    fn any_server(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        ids[self.rng.random_range(0..ids.len())]
    }

    fn step(&mut self) {
        // Messages and disks are fast against the ticks, or no election would fit into a lease.
        match self.rng.random_range(0..1_000) {
            0..600 => self.deliver(),
            600..610 => drop(self.cluster.network.pop_front()),
            610..615 => self.crash_or_restart(),
            615..621 => self.cut_or_heal(),
            621..624 => {
                let id = self.any_server();
                self.stopped_until[place(id)] = self.now + self.rng.random_range(1..25);
            }
            624..627 => drop(self.cluster.with_leader(Server::transfer_leadership)),
            627..640 => drop(self.cluster.with_leader(|server| server.propose("x"))),
            640..950 => self.work(),
            _ => self.pass(),
        }
        self.check();
    }

    /// The clock of leases is read before anything else is done, as the core asks for.
    fn with<T>(&mut self, id: NodeId, act: impl FnOnce(&mut Server) -> T) -> Option<T> {
        let now = Ticks(self.now);
        self.cluster.with(id, |server| {
            server.node.clock_reads(now);
            act(server)
        })
    }

    fn deliver(&mut self) {
        let waiting = self.cluster.network.len();
        if waiting == 0 {
            return;
        }
        let at = self.rng.random_range(0..waiting.min(4));
        let to = self.cluster.network[at].to;
        if self.is_stopped(to) {
            return;
        }
        let Some(envelope) = self.cluster.network.remove(at) else {
            return;
        };
        self.with(to, |_| ());
        self.cluster.deliver(envelope);
    }

    fn crash_or_restart(&mut self) {
        let id = self.any_server();
        if self.cluster.crashed.contains_key(&id) {
            self.cluster.restart(id.get());
            self.owed[place(id)] = 0;
        } else {
            self.cluster.crash(id.get());
            if self.rng.random_bool(0.7) {
                self.cluster.restart(id.get());
            }
        }
    }

    fn cut_or_heal(&mut self) {
        self.cluster.heal();
        let id = self.any_server();
        match self.rng.random_range(0..4) {
            0 => self.cluster.isolate(id.get()),
            1 | 2 => {
                let leader = self.cluster.leader().unwrap_or(id);
                self.cluster.isolate(leader.get());
            }
            _ => {}
        }
    }

    fn work(&mut self) {
        let id = self.any_server();
        if !self.is_stopped(id) {
            self.with(id, |server| {
                server.persist_all();
                while server.has_to_apply() {
                    server.apply();
                }
            });
        }
    }

    /// One tick of real time. Whoever does not stand still ticks now or a little later.
    fn pass(&mut self) {
        self.now += 1;
        for id in self.cluster.ids() {
            let at = place(id);
            self.owed[at] = (self.owed[at] + if self.fast[at] { 110 } else { 100 }).min(299);
            let due = self.owed[at] / 100;
            if self.is_stopped(id) || due == 0 {
                continue;
            }
            let ticks = self.rng.random_range(0..=due);
            self.owed[at] -= ticks * 100;
            let beats = self.now.is_multiple_of(2);
            self.with(id, |server| {
                (0..ticks).for_each(|_| server.tick_election());
                if beats {
                    server.tick_heartbeat();
                }
            });
        }
        let excess = self.cluster.network.len().saturating_sub(60);
        self.cluster.network.drain(..excess);
    }

    /// Whoever holds a lease has everything that was ever committed.
    fn check(&mut self) {
        let committed = self.cluster.invariants.committed_index();
        for id in self.cluster.ids() {
            let Some(index) = lease_at(&mut self.cluster, id.get(), self.now) else {
                continue;
            };
            self.leases_seen += 1;
            assert!(
                index >= committed,
                "{id} reads at {index}, committed is {committed}"
            );
        }
    }
}

/// `LEASE_SEEDS=20000` runs so many.
#[test]
fn whoever_holds_a_lease_has_all_that_was_committed() {
    #[allow(
        clippy::disallowed_methods,
        reason = "the environment chooses how much to run; a run itself depends on its seed alone"
    )]
    let seeds = std::env::var("LEASE_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let mut leases_seen = 0;
    for seed in 0..seeds.unwrap_or(150) {
        let mut run = Run::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..3_000).for_each(|_| run.step());
        }));
        assert!(outcome.is_ok(), "seed {seed}");
        leases_seen += run.leases_seen;
    }
    assert!(leases_seen > 1_000, "only {leases_seen} leases were looked at");
}

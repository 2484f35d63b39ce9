//! What was promised outlives crashes, and agreement outlives bad networks.

use raft_core::Term;
use sim::cluster::{Cluster, cluster};

/// All crash, then the leader, then another, and nothing that was agreed on is lost.
#[test]
fn persist_1() {
    let mut cluster = cluster(3).start();
    cluster.expect_leader();
    cluster.agree(3);
    cluster.crash_all().restart_all();
    cluster.agree(3);
    let leader = cluster.expect_leader();
    cluster.crash(leader).restart(leader);
    cluster.agree(3);
    let leader = cluster.expect_leader();
    cluster.crash(leader);
    cluster.agree(2);
    cluster.restart(leader);
    let last = cluster.agree(3);
    cluster.expect_applied(last, 3).expect_agreement();
}

/// Of five nodes, ever other ones crash and come back while the rest goes on.
#[test]
fn persist_2() {
    let mut cluster = cluster(5).start();
    for round in 0..3 {
        cluster.expect_leader();
        cluster.agree(5);
        let nodes = cluster.nodes();
        let at = |place: usize| nodes[(round + place) % nodes.len()];
        cluster.crash(at(1)).crash(at(2));
        cluster.expect_leader();
        cluster.agree(3);
        cluster.crash(at(0)).crash(at(3)).crash(at(4));
        cluster.restart(at(1)).restart(at(2)).run_ms(700).restart(at(3));
        cluster.expect_leader();
        cluster.agree(3);
        cluster.restart(at(4)).restart(at(0));
    }
    cluster.agree(5);
}

/// The leader and a follower are parted from the third, and crash; the third and the follower go on.
#[test]
fn persist_3() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    cluster.agree(3);
    let followers = cluster.others(&[leader]);
    cluster.cut_off(followers[1]);
    cluster.agree(2);
    cluster
        .crash(leader)
        .crash(followers[0])
        .reconnect_all()
        .restart(leader);
    cluster.agree(2);
    cluster.restart(followers[0]);
    cluster.agree(3);
}

/// Lets time pass, millisecond by millisecond. In how many of them a leader had spread an entry of an older term to a
/// majority, and nobody knew it to be committed.
fn run_and_count_old_entries(cluster: &mut Cluster, time_ms: u64) -> usize {
    let old_on_a_majority = |cluster: &Cluster| {
        let leader = cluster
            .leaders()
            .into_iter()
            .max_by_key(|leader| cluster.known_to(*leader))?;
        let (term, committed) = cluster.known_to(leader)?;
        let index = committed.next();
        let old = (1..term.get())
            .map(Term)
            .find(|old| cluster.holders(index, *old).len() > 2)?;
        cluster.committed(index).is_none().then_some(old)
    };
    let step = |_: &u64| old_on_a_majority(cluster.run_ms(1)).is_some();
    (0..time_ms).filter(step).count()
}

/// Leaders crash before or after they have committed in their term: what an older leader left is never committed
/// by counting, and what is committed stays.
#[test]
fn figure_8() {
    let mut old_on_a_majority = 0;
    for seed in 0..3 {
        let mut cluster = cluster(5).seeded(seed).one_entry_a_message().start();
        cluster.expect_leader();
        cluster.agree(1);
        for round in 0_usize..25 {
            let leaders = cluster.leaders();
            for leader in &leaders {
                cluster.propose(*leader, 8);
            }
            // Some have time to commit, most have not.
            let pause = if round.is_multiple_of(5) {
                300
            } else {
                1 + round as u64 % 13
            };
            old_on_a_majority += run_and_count_old_entries(&mut cluster, pause);
            for leader in leaders {
                cluster.crash(leader);
            }
            let down = |cluster: &sim::cluster::Cluster| cluster.down();
            while down(&cluster).len() > 2 {
                let first = down(&cluster)[round % down(&cluster).len()];
                cluster.restart(first);
            }
            old_on_a_majority += run_and_count_old_entries(&mut cluster, 600);
        }
        cluster.restart_all().expect_leader();
        cluster.agree(5);
        cluster.expect_agreement();
    }
    assert!(
        old_on_a_majority > 0,
        "no old entry came to a majority before a new one"
    );
}

/// Many commands are agreed on over a bad network.
#[test]
fn unreliable_agree() {
    let mut cluster = cluster(5).unreliable().start();
    cluster.expect_leader();
    for _ in 0..15 {
        for leader in cluster.leaders() {
            for _ in 0..4 {
                cluster.propose(leader, 8);
            }
        }
        cluster.agree(1);
    }
    cluster.network_heals();
    cluster.agree(5);
    cluster.expect_agreement();
}

/// As figure 8, over a bad network, with leaders that are cut off, alone or with another, instead of crashing.
#[test]
fn figure_8_unreliable() {
    let mut old_on_a_majority = 0;
    for seed in 0..3 {
        let mut cluster = cluster(5).seeded(seed).unreliable().one_entry_a_message().start();
        cluster.expect_leader();
        cluster.agree(1);
        for round in 0_u64..30 {
            for leader in cluster.leaders() {
                cluster.propose(leader, 8);
            }
            let pause = if round % 10 < 3 { 100 } else { round % 13 };
            old_on_a_majority += run_and_count_old_entries(&mut cluster, pause);
            if let Some(leader) = cluster.leader() {
                let partner = cluster.others(&[leader])[0];
                match round % 3 {
                    0 => cluster.cut_off(leader),
                    1 => cluster.split(&[leader, partner]),
                    _ => cluster.reconnect_all(),
                };
                cluster.propose(leader, 8);
            } else {
                cluster.reconnect_all();
            }
            old_on_a_majority += run_and_count_old_entries(&mut cluster, 300);
        }
        cluster.network_heals().expect_leader();
        cluster.agree(5);
        cluster.expect_agreement();
    }
    assert!(
        old_on_a_majority > 0,
        "no old entry came to a majority before a new one"
    );
}

/// Nodes crash, are cut off and come back while clients go on.
fn churn(unreliable: bool) {
    let setup = cluster(5).clients(3);
    let setup = if unreliable { setup.unreliable() } else { setup };
    let mut cluster = setup.start();
    cluster.expect_leader();
    for round in 0..12 {
        let node = cluster.nodes()[round * 7 % 5];
        match round % 4 {
            0 => cluster.cut_off(node),
            1 => cluster.restart_all().reconnect_all(),
            2 if cluster.down().len() < 2 => cluster.crash(node),
            _ => cluster.reconnect_all(),
        };
        cluster.run_ms(420);
    }
    cluster.network_heals().restart_all().expect_leader();
    cluster.expect_agreement().expect_linearizable();
    assert!(cluster.operations() > 5);
}

/// Nodes come and go, over a good network.
#[test]
fn reliable_churn() {
    churn(false);
}

/// Nodes come and go, over a bad network.
#[test]
fn unreliable_churn() {
    churn(true);
}

//! What was promised outlives crashes, and agreement outlives bad networks.

use sim::cluster::cluster;

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

/// Leaders crash before or after they have committed in their term: what an older leader left is never committed
/// by counting, and what is committed stays.
#[test]
fn figure_8() {
    for seed in 0..3 {
        let mut cluster = cluster(5).seeded(seed).start();
        cluster.expect_leader();
        cluster.agree(1);
        for round in 0_usize..25 {
            let leaders = cluster.leaders();
            for leader in &leaders {
                cluster.propose(*leader, 8);
            }
            // Some have time to commit, most have not.
            cluster.run_ms(if round.is_multiple_of(5) {
                300
            } else {
                1 + round as u64 % 13
            });
            for leader in leaders {
                cluster.crash(leader);
            }
            let down = |cluster: &sim::cluster::Cluster| cluster.down();
            while down(&cluster).len() > 2 {
                let first = down(&cluster)[round % down(&cluster).len()];
                cluster.restart(first);
            }
            cluster.run_ms(600);
        }
        cluster.restart_all().expect_leader();
        cluster.agree(5);
        cluster.expect_agreement();
    }
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

/// As figure 8, over a bad network, with leaders that are cut off instead of crashing.
#[test]
fn figure_8_unreliable() {
    let mut cluster = cluster(5).unreliable().start();
    cluster.expect_leader();
    cluster.agree(1);
    for round in 0_u64..40 {
        for leader in cluster.leaders() {
            cluster.propose(leader, 8);
        }
        cluster.run_ms(if round % 10 < 3 { 200 } else { round % 13 });
        for leader in cluster.leaders() {
            if round % 2 == 0 {
                cluster.cut_off(leader);
            }
        }
        if round % 3 == 0 {
            cluster.reconnect_all();
        }
        cluster.run_ms(150);
    }
    cluster.network_heals().expect_leader();
    cluster.agree(5);
    cluster.expect_agreement();
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

//! Cases 13 to 16: the cluster goes on.

use sim::cluster::{Cluster, cluster};

/// Whoever keeps committing does so within this time.
const TEN_ELECTION_TIMEOUTS_MS: u64 = 6_000;

/// Case 13: A follower that can send and not receive does not disturb the others.
#[test]
fn s13_a_node_that_can_send_but_not_receive_leaves_the_rest_a_stable_leader() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    let deaf = cluster.others(&[leader])[0];
    cluster.deafen(deaf).expect_stable_leader_for_ms(leader, 10_000);
    cluster.put("k", "1").reconnect_all().run_ms(1_000);
    cluster
        .expect_stable_leader_for_ms(leader, 2_000)
        .expect_agreement();
}

/// Case 13: Nor does a follower that can receive and not send; and a leader that cannot receive steps down.
#[test]
fn s13_a_node_that_can_receive_but_not_send_leaves_the_rest_a_stable_leader() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    let mute = cluster.others(&[leader])[0];
    cluster.mute(mute).expect_stable_leader_for_ms(leader, 10_000);
    cluster.put("k", "1").reconnect_all().run_ms(1_000);
    cluster.expect_stable_leader_for_ms(leader, 2_000);

    cluster.deafen(leader);
    let next = cluster.expect_new_leader(leader);
    cluster.put("k", "2").expect_stable_leader_for_ms(next, 5_000);
    cluster.reconnect_all().run_ms(1_000).expect_agreement();
}

/// Case 14: Three nodes with one link cut: whichever link it is, the majority goes on and terms do not run away.
#[test]
fn s14_three_nodes_with_one_link_cut_keep_committing() {
    let mut cluster = cluster(3)
        .operations_take_at_most_ms(TEN_ELECTION_TIMEOUTS_MS)
        .start();
    let nodes = cluster.nodes();
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        cluster.expect_leader();
        let before = cluster.term();
        cluster.cut_link(nodes[one], nodes[other]);
        for _ in 0..10 {
            cluster.put("k", "v").run_ms(1_000);
        }
        let terms = cluster.term().get() - before.get();
        assert!(terms <= 2, "{terms} new terms in ten seconds");
        cluster.reconnect_all().run_ms(1_000);
    }
    cluster.expect_agreement().expect_linearizable();
}

/// Case 14: Five nodes in a chain, with any of them in the middle.
#[test]
fn s14_five_nodes_in_a_chain_keep_committing() {
    for turn in 0..5 {
        let mut cluster = cluster(5)
            .seeded(turn as u64)
            .operations_take_at_most_ms(TEN_ELECTION_TIMEOUTS_MS)
            .start();
        cluster.expect_leader();
        let mut order = cluster.nodes();
        order.rotate_left(turn);
        cluster.chain(&order);
        cluster.expect_leader();
        cluster.put("k", "v");
        let before = cluster.term();
        for _ in 0..5 {
            cluster.put("k", "v").run_ms(1_000);
        }
        let terms = cluster.term().get() - before.get();
        assert!(terms <= 2, "{terms} new terms in five seconds");
        cluster.reconnect_all().expect_agreement();
    }
}

/// Case 15: A node that was cut off for long comes back, and the leader stays. One that comes back at a higher term costs
/// one election at most.
#[test]
fn s15_a_node_that_comes_back_does_not_unseat_a_healthy_leader() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    let away = cluster.others(&[leader])[0];
    cluster.cut_off(away).run_ms(10_000);
    cluster.put("k", "1");
    cluster.reconnect_all().expect_stable_leader_for_ms(leader, 3_000);
    cluster.expect_agreement();

    // One to whom the leader hands over, and whom nobody hears, is in a term that the others do not know.
    let term = cluster.term();
    let away = cluster.hand_over_to_whom(leader).expect("there is somebody");
    cluster.mute(away).run_ms(3_000);
    assert_eq!(cluster.leader(), Some(leader));
    let known = |cluster: &Cluster, node| cluster.known_to(node).map(|known| known.0);
    assert_eq!(known(&cluster, leader), Some(term));
    assert!(known(&cluster, away) > Some(term), "the node is at a higher term");
    cluster.put("k", "2").reconnect_all();
    cluster.expect_leader();
    cluster.run_ms(1_000);
    // The term at which the node comes back, and that of the election.
    let terms = cluster.term().get() - term.get();
    assert!(terms <= 2, "{terms} new terms for one node that came back");
    cluster.put("k", "3");
    cluster.expect_agreement();
}

/// Case 16: Everything goes wrong at once, then a majority is connected again, and commits within ten election timeouts.
#[test]
fn s16_after_the_faults_a_connected_majority_commits_within_ten_election_timeouts() {
    for seed in 0..6 {
        let mut cluster = cluster(5).seeded(seed).unreliable().clients(3).start();
        for round in 0..5 {
            cluster.split_at_random();
            let node = cluster.nodes()[round];
            match round % 3 {
                0 => cluster.crash(node),
                1 => cluster.stall_disk_ms(node, 700),
                _ => cluster.pause(node),
            };
            cluster.run_ms(500);
        }
        // Two of five stay away.
        let nodes = cluster.nodes();
        cluster.restart_all();
        for node in &nodes {
            cluster.resume(*node);
        }
        cluster.network_heals().split(&nodes[..2]);
        // What must come in these expectations must come within ten election timeouts.
        cluster.agree(3);
        cluster.network_heals();
        cluster.agree(5);
        cluster.expect_agreement().expect_linearizable();
    }
}

//! Cases 5 to 7: logs and snapshots.

use sim::cluster::cluster;

/// Case 5: Leaders with entries that nobody else has come back and have to give them up, while snapshots are cut and
/// installed all the time. The core asserts that what is committed is never cut, and "log matching" and "committed
/// never lost" watch.
#[test]
fn s05_truncation_never_touches_what_is_committed_and_a_racing_snapshot_leaves_a_whole_log() {
    let mut cluster = cluster(3).snapshots_every(300).clients(3).start();
    for _ in 0..6 {
        let leader = cluster.expect_leader();
        cluster.cut_off(leader);
        for _ in 0..20 {
            cluster.propose(leader, 40);
        }
        cluster.expect_new_leader(leader);
        cluster
            .run_ms(700)
            .reconnect_all()
            .run_ms(40)
            .crash(leader)
            .restart(leader);
    }
    cluster.expect_agreement().expect_linearizable();
    let totals = cluster.totals();
    assert!(totals.snapshots_installed > 0 && totals.snapshots_cut > 20);
}

/// Case 6: Snapshots follow each other while one is on its way; pieces get lost, come twice and out of order, and the
/// connection breaks in the middle.
#[test]
fn s06_snapshots_in_quick_succession_twice_out_of_order_and_in_part() {
    let (mut installed, mut repeated_chunks) = (0, 0);
    for seed in 0..3 {
        let mut cluster = cluster(3)
            .seeded(seed)
            .snapshots_every(250)
            .chunks_of(60)
            .unreliable()
            .repeating(300)
            .start();
        for round in 0..5 {
            let leader = cluster.expect_leader();
            let away = cluster.others(&[leader])[round % 2];
            cluster.cut_off(away);
            for _ in 0..5 {
                for _ in 0..10 {
                    cluster.propose(leader, 40);
                }
                cluster.run_ms(60);
            }
            cluster.reconnect_all();
            for _ in 0..6 {
                cluster.propose(leader, 40);
                cluster.run_ms(25).break_connection(leader, away);
            }
            cluster.run_ms(400);
        }
        // A piece that got lost without a sign holds its transfer up for longer than ten election timeouts.
        cluster.network_heals();
        cluster.agree(2);
        cluster.expect_agreement();
        installed += cluster.totals().snapshots_installed;
        repeated_chunks += cluster.repeated_chunks();
    }
    assert!(
        installed > 0 && repeated_chunks > 0,
        "{installed} {repeated_chunks}"
    );
}

/// Case 6, of damaged files: a leader notices that its snapshot is damaged before it sends a byte of it. Nobody gets
/// anything wrong, and who needs it gets the next one.
#[test]
fn s06_a_damaged_snapshot_is_noticed_when_it_is_sent() {
    for bit in [5, 700, 2_000] {
        let mut cluster = cluster(3).snapshots_every(400).start();
        let leader = cluster.expect_leader();
        let away = cluster.others(&[leader])[0];
        cluster.cut_off(away);
        for _ in 0..30 {
            cluster.put("k", "some value");
        }
        cluster
            .run_ms(200)
            .flip_bit(leader, bit)
            .reconnect_all()
            .run_ms(1_000);
        for _ in 0..30 {
            cluster.put("k", "another value");
        }
        cluster.agree(3);
        cluster.expect_agreement();
    }
}

/// Case 6, of damaged files: a node whose snapshot is damaged refuses to start, and the others go on.
#[test]
fn s06_a_node_with_a_damaged_snapshot_refuses_to_start() {
    let mut cluster = cluster(3).snapshots_every(400).start();
    let leader = cluster.expect_leader();
    for _ in 0..30 {
        cluster.put("k", "some value");
    }
    let node = cluster.others(&[leader])[0];
    cluster
        .run_ms(200)
        .flip_bit(node, 999)
        .crash(node)
        .restart(node)
        .run_ms(1_000);
    assert_eq!(cluster.down(), [node]);
    cluster
        .put("k", "another value")
        .expect_value("k", Some("another value"));
    cluster.expect_agreement();
}

/// Case 7: A cluster of one acknowledges a write only when its disk is done with it, and still has it after a crash.
#[test]
fn s07_a_cluster_of_one_acknowledges_only_what_is_durable() {
    let mut cluster = cluster(1).start();
    let node = cluster.expect_leader();
    cluster.put("k", "0");
    let client = cluster.client();
    cluster
        .stall_disk_ms(node, 250)
        .begin_put(client, "k", "1")
        .run_ms(200);
    assert_eq!(cluster.ending(client), sim::cluster::Ending::Open);
    cluster.await_ending(client);
    for number in 2..12 {
        let value = number.to_string();
        cluster.put("k", &value).crash(node).run_ms(20).restart(node);
        cluster.expect_value("k", Some(&value));
    }
    cluster.expect_linearizable();
}

/// Case 6, of damaged files: the leader of an idle cluster finds its snapshot damaged when a follower needs it. It
/// cuts another one, so that the follower does not wait for the next write.
#[test]
fn s06_an_idle_leader_with_a_damaged_snapshot_still_brings_a_follower_up_to_date() {
    let mut cluster = cluster(3).snapshots_every(400).start();
    let leader = cluster.expect_leader();
    let away = cluster.others(&[leader])[0];
    cluster.cut_off(away);
    for _ in 0..30 {
        cluster.put("k", "some value");
    }
    cluster
        .run_ms(200)
        .flip_bit(leader, 999)
        .reconnect_all()
        .expect_agreement();
}

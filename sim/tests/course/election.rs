//! Leader election.

use sim::cluster::cluster;

/// A leader is elected, and without failures it stays.
#[test]
fn initial_election() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    assert!(cluster.term().get() >= 1);
    cluster.expect_stable_leader_for_ms(leader, 5_000);
}

/// Another leader is elected when one fails; an old one that comes back disturbs nobody; without a majority there
/// is no leader; with one there is again.
#[test]
fn re_election() {
    let mut cluster = cluster(3).start();
    let first = cluster.expect_leader();
    cluster.cut_off(first);
    let second = cluster.expect_new_leader(first);
    cluster
        .reconnect(first)
        .expect_stable_leader_for_ms(second, 2_000);

    let third = cluster.others(&[first, second])[0];
    cluster.cut_off(second).cut_off(third).run_ms(2_000);
    cluster.expect_no_leader();

    cluster.reconnect_all();
    let leader = cluster.expect_leader();
    cluster.expect_stable_leader_for_ms(leader, 2_000);
}

/// Whichever three of seven nodes are cut off, the other four have a leader, again and again.
#[test]
fn many_elections() {
    let mut cluster = cluster(7).start();
    cluster.expect_leader();
    for round in 0..10 {
        let nodes = cluster.nodes();
        for step in [0, 2, 5] {
            cluster.cut_off(nodes[(round * 3 + step) % nodes.len()]);
        }
        cluster.expect_leader();
        cluster.reconnect_all();
    }
    cluster.expect_leader();
}

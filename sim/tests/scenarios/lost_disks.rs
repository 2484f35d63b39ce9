//! Nodes that lose their disk, or find it damaged or older than it was: they count for nothing until they have joined
//! anew, and nothing acknowledged is lost.

use raft_core::NodeId;
use sim::PlantedBug;
use sim::cluster::{Cluster, Setup, cluster};

/// Three nodes that have applied a first write; the leader, and the others.
fn running() -> (Cluster, NodeId, [NodeId; 2]) {
    start(cluster(3))
}

fn start(setup: Setup) -> (Cluster, NodeId, [NodeId; 2]) {
    let mut cluster = setup.start();
    let leader = cluster.expect_leader();
    cluster.put("k", "first").agree(3);
    let others = cluster.others(&[leader]);
    (cluster, leader, [others[0], others[1]])
}

#[test]
fn a_follower_without_its_disk_is_turned_away_and_counts_again_when_it_has_joined() {
    let (mut cluster, leader, [lost, other]) = running();
    cluster.lose_disk(lost).restart(lost).expect_turned_away(lost);
    cluster.restart(lost);
    assert_eq!(cluster.down(), [lost], "it stays down until it is made to join");
    cluster.put("k", "second").join(lost).expect_member(lost);
    // Now it is needed for a majority.
    cluster.crash(other).put("k", "third");
    cluster.crash(leader).restart(other);
    cluster
        .expect_value("k", Some("third"))
        .restart(leader)
        .expect_agreement();
    assert_eq!((cluster.totals().turned_away, cluster.totals().admitted), (1, 1));
}

#[test]
fn a_leader_without_its_disk_joins_like_any_other() {
    let (mut cluster, leader, _) = running();
    cluster.lose_disk(leader).restart(leader);
    cluster.expect_new_leader(leader);
    cluster
        .expect_turned_away(leader)
        .join(leader)
        .expect_member(leader)
        .expect_value("k", Some("first"))
        .expect_agreement();
}

/// The last write is on the leader and on one follower, which loses its disk. The other one must not be elected by its
/// vote while the leader is down.
#[test]
fn a_node_without_its_disk_elects_nobody() {
    let (mut cluster, leader, [lost, behind]) = running();
    cluster.cut_off(behind).put("k", "second");
    cluster.crash(leader).lose_disk(lost);
    cluster.reconnect_all().restart(lost).expect_turned_away(lost);
    // Nor when it is to join: there is nobody who could register it.
    cluster.join(lost).expect_no_leader();
    cluster
        .restart(leader)
        .expect_value("k", Some("second"))
        .expect_member(lost)
        .expect_agreement();
}

/// The same, if the empty disk counts as the lost one did: the check that catches it can fail.
#[test]
#[should_panic(expected = "leader completeness: node")]
fn a_node_without_its_disk_that_counts_as_before_elects_a_leader_that_lacks_the_last_write() {
    let (mut cluster, leader, [lost, behind]) = start(cluster(3).planted(PlantedBug::LostDiskCounts));
    cluster.cut_off(behind).put("k", "second");
    cluster.crash(leader).lose_disk(lost);
    cluster.reconnect_all().restart(lost).expect_leader();
}

#[test]
fn every_disk_of_a_cluster_is_replaced_one_after_the_other() {
    let mut cluster = cluster(5).snapshots_every(400).start();
    cluster.expect_leader();
    for (number, node) in cluster.nodes().into_iter().enumerate() {
        for _ in 0..10 {
            cluster.append("k", &number.to_string());
        }
        cluster.lose_disk(node).restart(node).expect_turned_away(node);
        cluster.join(node).expect_member(node);
    }
    let expected: String = (0..5).map(|number| number.to_string().repeat(10)).collect();
    cluster
        .crash_all()
        .restart_all()
        .expect_value("k", Some(&expected))
        .expect_agreement();
}

#[test]
fn a_lost_disk_that_turns_up_again_is_turned_away_when_another_has_taken_its_place() {
    let (mut cluster, _, [lost, _]) = running();
    cluster.lose_disk(lost).restart(lost).expect_turned_away(lost);
    cluster.join(lost).expect_member(lost).put("k", "second");
    // It holds a log and a vote of its own, and believes to be a founder.
    cluster.put_back_disk(lost).restart(lost).expect_turned_away(lost);
    cluster.join(lost).expect_member(lost).expect_agreement();
    assert_eq!((cluster.totals().turned_away, cluster.totals().admitted), (2, 2));
}

#[test]
fn a_lost_disk_that_turns_up_before_another_has_taken_its_place_goes_on() {
    let (mut cluster, _, [lost, other]) = running();
    cluster.lose_disk(lost).restart(lost).expect_turned_away(lost);
    cluster.put_back_disk(lost).restart(lost).expect_member(lost);
    cluster
        .crash(other)
        .put("k", "second")
        .restart(other)
        .expect_agreement();
    assert_eq!(cluster.totals().admitted, 0);
}

/// The leader knows how far the node had acknowledged.
#[test]
fn an_older_copy_is_turned_away_by_the_leader_that_knows_better() {
    let (mut cluster, _, [node, _]) = running();
    cluster.copy_disk(node).put("k", "second").agree(3);
    cluster
        .put_back_disk(node)
        .restart(node)
        .expect_turned_away(node)
        .put("k", "third")
        .join(node)
        .expect_member(node)
        .expect_agreement();
}

/// Whatever bit it is: hard state, log, identity, or what ties them together.
#[test]
fn a_node_with_a_flipped_bit_in_its_records_refuses_to_start_and_joins_anew() {
    for part in 0..8 {
        let (mut cluster, _, [node, other]) = running();
        cluster.put("k", "second").agree(3);
        cluster
            .flip_record_bit(node, part * 331)
            .restart(node)
            .run_ms(1_000);
        assert_eq!(cluster.down(), [node], "bit {part}");
        cluster.put("k", "third").join(node).expect_member(node);
        cluster.crash(other).put("k", "fourth").restart(other);
        cluster.expect_agreement();
        assert_eq!(cluster.totals().refusals, 1);
    }
}

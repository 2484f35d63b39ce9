//! Node 1 runs on a copy of its data from before it voted for node 3 and acknowledged what that led through. So it votes
//! again, and node 2, which was away, comes to lead without any of it.

use super::*;

/// Nodes 1 and 2 after that; in the term in which node 3 led. Also the cluster that node 3 led, with all that it
/// wrote, alone by now.
fn led_by_2_beside_3() -> (Cluster, Cluster) {
    let mut old = founded(3);
    write(&mut old, "x");
    old.elect(2);
    let older = old.disk(NodeId(1)).clone();
    old.crash(2);
    old.elect(3);
    (0..5).for_each(|count| write(&mut old, &format!("y {count}")));
    old.crash(1);
    old.pass(2 * ELECTION_TIMEOUT_MAX);

    let mut cluster = Cluster::unfounded(3, config);
    cluster.crashed.insert(NodeId(1), older);
    cluster.crashed.insert(NodeId(2), old.disk(NodeId(2)).clone());
    (1..=2).for_each(|id| cluster.restart(id));
    cluster.elect(2);
    assert_eq!(cluster.term(2), old.term(3), "the same, or this shows nothing");
    (cluster, old)
}

fn write_more_than_before(cluster: &mut Cluster) {
    (0..9).for_each(|count| write(cluster, &format!("z {count}")));
}

#[test]
fn is_told_by_who_led_before_it_was_restarted() {
    let (mut cluster, mut old) = led_by_2_beside_3();
    write_more_than_before(&mut cluster);
    old.crash(3);
    let data = old.disk(NodeId(3)).clone();
    cluster.crashed.insert(NodeId(3), data.clone());
    cluster.restart(3);
    cluster.pass(2);
    let two = Refusal::TwoLeaders {
        by: NodeId(2),
        term: cluster.term(2),
        other: NodeId(3),
    };
    assert_eq!(cluster.refusal(3), Some(two));
    assert_eq!(
        cluster.disk(NodeId(3)).entries(),
        data.entries(),
        "the logs are not mixed"
    );
}

#[test]
fn is_told_by_who_knows_what_was_committed_also_when_the_terms_differ() {
    let (mut cluster, mut old) = led_by_2_beside_3();
    cluster.crash(2);
    cluster.restart(2);
    cluster.elect(1);
    write_more_than_before(&mut cluster);
    assert!(cluster.term(1) > old.term(3));
    let running = old.servers.remove(&NodeId(3)).expect("it was not stopped");
    cluster.servers.insert(NodeId(3), running);
    cluster.pass(2);
    assert!(
        matches!(
            cluster.refusal(3),
            Some(Refusal::OtherHistory { by: NodeId(1), .. })
        ),
        "{:?} {:#?}",
        cluster.refusal(3),
        cluster.story
    );
}

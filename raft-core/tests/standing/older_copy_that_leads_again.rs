//! Node 1 led, and what it wrote then was acknowledged by node 2. Now it runs on a copy of its data from before that, is
//! elected once more in the same term, by node 3, which was away, and writes something else. The leader's id and all
//! places in the log are the same.

use super::*;

/// Nodes 1 and 3 after that, without the data of node 2; and the cluster in which node 1 led first, where node 2 is up.
/// In that one, `before_the_end` comes last.
fn led_twice_by_1(before_the_end: impl FnOnce(&mut Cluster)) -> (Cluster, Cluster) {
    led_twice_by_1_keeping(0, before_the_end)
}

/// The same, where so much of a log is kept behind a snapshot.
fn led_twice_by_1_keeping(
    retained_log_bytes: usize,
    before_the_end: impl FnOnce(&mut Cluster),
) -> (Cluster, Cluster) {
    let drops_logs = |id| Config {
        retained_log_bytes,
        ..config(id)
    };
    let mut old = Cluster::unfounded(3, drops_logs);
    (1..=3).for_each(|id| old.restart(id));
    old.elect(3);
    write(&mut old, "x");
    let older = old.disk(NodeId(1)).clone();
    old.crash(3);
    old.elect(1);
    (0..8).for_each(|count| write(&mut old, &format!("b {count}")));
    before_the_end(&mut old);
    old.crash(1);

    // As all nodes are, with another seed at each start.
    let anew = |id| Config {
        seed: 70 + id,
        ..drops_logs(id)
    };
    let mut cluster = Cluster::unfounded(3, anew);
    cluster.crashed.insert(NodeId(1), older);
    cluster.crashed.insert(NodeId(3), old.disk(NodeId(3)).clone());
    [1, 3].into_iter().for_each(|id| cluster.restart(id));
    cluster.elect(1);
    (0..2).for_each(|count| write(&mut cluster, &format!("n {count}")));
    assert_eq!(cluster.term(1), old.term(2), "the same, or this shows nothing");
    (cluster, old)
}

fn led_twice(by: u64, term: Term) -> Option<Refusal> {
    let by = NodeId(by);
    Some(Refusal::LedTwice { by, term })
}

/// Node 2 comes back, restarted, with its data.
fn restart_2(cluster: &mut Cluster, old: &mut Cluster) {
    old.crash(2);
    cluster.crashed.insert(NodeId(2), old.disk(NodeId(2)).clone());
    cluster.restart(2);
}

/// Node 2 comes back; it was only paused.
fn go_on_with_2(cluster: &mut Cluster, old: &mut Cluster) {
    let running = old.servers.remove(&NodeId(2)).expect("it was not stopped");
    cluster.crashed.remove(&NodeId(2));
    cluster.servers.insert(NodeId(2), running);
}

/// Node 2 says what is wrong, and keeps its data.
fn stops_2(cluster: &mut Cluster) {
    let entries = cluster.disk(NodeId(2)).entries().to_vec();
    let term = cluster.term(1);
    cluster.pass(2);
    assert_eq!(cluster.refusal(2), led_twice(1, term), "{:#?}", cluster.story);
    assert_eq!(
        cluster.disk(NodeId(2)).entries(),
        entries,
        "the logs are not mixed"
    );
}

fn compact_2(cluster: &mut Cluster) {
    cluster.cut_snapshot(2);
    cluster.settle();
    assert!(cluster.disk(NodeId(2)).entries().is_empty(), "the no-op is gone");
}

#[test]
fn is_told_by_who_was_restarted_and_has_the_no_op_of_the_term() {
    let (mut cluster, mut old) = led_twice_by_1(|_| ());
    restart_2(&mut cluster, &mut old);
    stops_2(&mut cluster);
}

#[test]
fn is_told_by_who_was_restarted_and_has_only_a_snapshot_of_the_term() {
    let (mut cluster, mut old) = led_twice_by_1(compact_2);
    restart_2(&mut cluster, &mut old);
    stops_2(&mut cluster);
}

#[test]
fn is_told_by_who_was_only_paused() {
    let (mut cluster, mut old) = led_twice_by_1(|_| ());
    go_on_with_2(&mut cluster, &mut old);
    stops_2(&mut cluster);
}

/// Node 2 has heard of the leadership, and no entry of it is there yet.
#[test]
fn is_told_by_who_was_only_paused_and_has_nothing_of_the_term() {
    let mut follower = common::server::Server::start(config(1), Disk::new(common::voters(3)));
    let heartbeat = |leadership| {
        let Message::AppendEntries(request) = common::messages::append(4, (0, 0), Vec::new(), 0) else {
            unreachable!()
        };
        Message::AppendEntries(AppendEntries {
            leadership: Leadership(leadership),
            ..request
        })
    };
    follower.receive_from(2, heartbeat(7));
    follower.receive_from(2, heartbeat(7));
    assert_eq!(follower.refusal, None);
    follower.receive_from(2, heartbeat(8));
    assert_eq!(follower.refusal, led_twice(2, Term(4)));
}

/// Of the two logs one wins an election in a later term: its terms before that are compared as well.
#[test]
fn is_told_when_who_follows_the_first_leadership_is_elected_later() {
    let (mut cluster, mut old) = led_twice_by_1(|_| ());
    let term = cluster.term(1);
    let entries = cluster.disk(NodeId(3)).entries().to_vec();
    cluster.crash(1);
    restart_2(&mut cluster, &mut old);
    cluster.time_out(2);
    cluster.settle();
    cluster.pass(2);
    assert_eq!(cluster.refusal(3), led_twice(2, term), "{:#?}", cluster.story);
    assert_eq!(cluster.disk(NodeId(3)).entries(), entries);
}

/// The others have cut snapshots that end in a later term, and keep so much of the log behind them.
fn snapshots_of_a_later_term(retained_log_bytes: usize) -> (Cluster, Cluster) {
    let (mut cluster, old) = led_twice_by_1_keeping(retained_log_bytes, |_| ());
    (2..12).for_each(|count| write(&mut cluster, &format!("n {count}")));
    cluster.crash(1);
    cluster.restart(1);
    cluster.elect(3);
    write(&mut cluster, "later");
    for id in [1, 3] {
        cluster.cut_snapshot(id);
        cluster.settle();
    }
    (cluster, old)
}

fn is_told_by_2(cluster: &mut Cluster, term: Term) {
    let entries = cluster.disk(NodeId(2)).entries().to_vec();
    cluster.pass(A_WHILE);
    assert_eq!(cluster.refusal(2), led_twice(3, term), "{:#?}", cluster.story);
    assert_eq!(cluster.disk(NodeId(2)).entries(), entries);
}

/// What is kept of the log must not be taken for that of node 2, with whose entries it agrees in index and term.
#[test]
fn is_told_when_the_beginning_of_the_term_was_dropped() {
    let (mut cluster, mut old) = snapshots_of_a_later_term(400);
    let kept = cluster
        .disk(NodeId(3))
        .entries()
        .first()
        .expect("some are kept")
        .clone();
    let shared = old.disk(NodeId(2)).last_index();
    assert!(
        kept.index <= shared && kept.term == old.term(2),
        "or this shows nothing"
    );
    let term = old.term(2);
    restart_2(&mut cluster, &mut old);
    is_told_by_2(&mut cluster, term);
}

#[test]
fn is_told_by_who_gets_a_snapshot_of_a_later_term() {
    for is_restarted in [false, true] {
        let (mut cluster, mut old) = snapshots_of_a_later_term(0);
        assert!(
            cluster.disk(NodeId(3)).entries().is_empty(),
            "or this shows nothing"
        );
        let term = old.term(2);
        match is_restarted {
            false => go_on_with_2(&mut cluster, &mut old),
            true => restart_2(&mut cluster, &mut old),
        }
        is_told_by_2(&mut cluster, term);
    }
}

//! Node 1 runs on a copy of its data from before it voted for node 3 and acknowledged what that led through. So it votes
//! again, and node 2, which was away, comes to lead without any of it.

use super::*;

/// Nodes 1 and 2 after that; in the term in which node 3 led, or in a later one because of an election that nobody won.
/// Also the cluster that node 3 led, with all that it wrote, alone by now.
fn led_by_2_beside_3(nobody_won_before: bool) -> (Cluster, Cluster) {
    let mut old = founded(3);
    write(&mut old, "x");
    old.elect(2);
    let older = old.disk(NodeId(1)).clone();
    old.crash(2);
    old.elect(3);
    (0..5).for_each(|count| write(&mut old, &format!("y {count}")));
    old.crash(1);
    old.pass(2 * ELECTION_TIMEOUT_MAX);

    let drops_logs = |id| Config {
        retained_log_bytes: 0,
        ..config(id)
    };
    let mut cluster = Cluster::unfounded(3, drops_logs);
    for (id, disk) in [(1, older), (2, old.disk(NodeId(2)).clone())] {
        let disk = match nobody_won_before {
            true => disk.with_hard_state(old.term(3).get(), None),
            false => disk,
        };
        cluster.crashed.insert(NodeId(id), disk);
        cluster.restart(id);
    }
    cluster.elect(2);
    assert_eq!(
        cluster.term(2) == old.term(3),
        !nobody_won_before,
        "or this shows nothing"
    );
    (cluster, old)
}

fn write_more_than_before(cluster: &mut Cluster) {
    (0..9).for_each(|count| write(cluster, &format!("z {count}")));
}

/// Node 3 comes back with its data, restarted or not.
fn come_back_with_3(cluster: &mut Cluster, mut old: Cluster, is_restarted: bool) {
    if is_restarted {
        old.crash(3);
        cluster.crashed.insert(NodeId(3), old.disk(NodeId(3)).clone());
        cluster.restart(3);
    } else {
        let running = old.servers.remove(&NodeId(3)).expect("it was not stopped");
        cluster.crashed.remove(&NodeId(3));
        cluster.servers.insert(NodeId(3), running);
    }
}

#[test]
fn is_told_by_who_led_before_it_was_restarted() {
    let (mut cluster, old) = led_by_2_beside_3(false);
    write_more_than_before(&mut cluster);
    let entries = old.disk(NodeId(3)).entries().to_vec();
    come_back_with_3(&mut cluster, old, true);
    cluster.pass(2);
    let two = Refusal::TwoLeaders {
        by: NodeId(2),
        term: cluster.term(2),
        other: NodeId(3),
    };
    assert_eq!(cluster.refusal(3), Some(two));
    assert_eq!(
        cluster.disk(NodeId(3)).entries(),
        entries,
        "the logs are not mixed"
    );
}

#[test]
fn is_told_when_the_term_is_over_that_was_led_twice() {
    for is_restarted in [false, true] {
        let (mut cluster, old) = led_by_2_beside_3(false);
        cluster.crash(2);
        cluster.restart(2);
        cluster.elect(1);
        write_more_than_before(&mut cluster);
        let term = old.term(3);
        assert!(cluster.term(1) > term);
        come_back_with_3(&mut cluster, old, is_restarted);
        cluster.pass(2);
        let by = NodeId(1);
        assert_eq!(cluster.refusal(3), Some(Refusal::LedTwice { by, term }));
    }
}

#[test]
fn is_told_by_who_knows_what_was_committed_also_when_the_terms_differ() {
    let (mut cluster, old) = led_by_2_beside_3(true);
    write_more_than_before(&mut cluster);
    come_back_with_3(&mut cluster, old, false);
    cluster.pass(2);
    assert!(
        matches!(
            cluster.refusal(3),
            Some(Refusal::OtherHistory { by: NodeId(2), .. })
        ),
        "{:?} {:#?}",
        cluster.refusal(3),
        cluster.story
    );
}

/// The leader has no entries any more to compare: its snapshot tells whose they were.
#[test]
fn is_told_by_who_knows_what_was_committed_also_when_it_gets_a_snapshot() {
    for (has_cut_one, is_restarted) in [(false, false), (true, false), (true, true)] {
        let (mut cluster, mut old) = led_by_2_beside_3(true);
        if has_cut_one {
            old.cut_snapshot(3);
            old.settle();
        }
        let entries = old.disk(NodeId(3)).entries().to_vec();
        write_more_than_before(&mut cluster);
        cluster.cut_snapshot(2);
        cluster.settle();
        let first_kept = cluster.disk(NodeId(2)).entries().first().map(|entry| entry.index);
        let last = old.disk(NodeId(3)).last_index();
        assert!(
            first_kept.is_none_or(|first| first > last.next()),
            "or this shows nothing"
        );
        come_back_with_3(&mut cluster, old, is_restarted);
        cluster.pass(2);
        let told = cluster.refusal(3);
        let by = NodeId(2);
        assert!(
            matches!(told, Some(Refusal::OtherHistory { by: teller, .. }) if teller == by),
            "{told:?} {:#?}",
            cluster.story
        );
        assert_eq!(cluster.disk(NodeId(3)).entries(), entries);
    }
}

/// A leader that an older copy has elected. What it has not shown yet is not acknowledged to it, though the follower has
/// as much and knows that to be committed.
#[test]
fn gets_no_acknowledgement_for_what_was_not_compared() {
    let mut follower = common::server::Server::start(config(1), Disk::new(common::voters(3)));
    let entries = (1..=5).map(|index| common::entry(1, index)).collect();
    follower.receive_from(2, common::messages::append(1, (0, 0), entries, 5));
    follower.persist_all();
    follower.sent();
    follower.receive_from(3, common::messages::append(2, (2, 1), Vec::new(), 0));
    follower.persist_all();
    let answers = follower.sent();
    let [Message::AppendEntriesResponse(answer)] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    let match_index = LogIndex(2);
    assert_eq!(answer.outcome, AppendOutcome::Matched { match_index });
    assert_eq!(
        answer.committed,
        LogIndex(5),
        "a leader without it must learn that"
    );
    let other = vec![common::entry(2, 3)];
    follower.receive_from(3, common::messages::append(2, (2, 1), other, 0));
    assert!(matches!(
        follower.refusal,
        Some(Refusal::OtherHistory { by: NodeId(3), .. })
    ));
}

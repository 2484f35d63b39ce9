//! Raft §5.3: log replication.

use super::*;

#[test]
fn the_leader_appends_a_command_and_sends_it_to_all_others_at_once() {
    let mut leader = leader_1(disk());
    leader.receive_from(2, matched(1, 2));
    leader.receive_from(3, matched(1, 2));
    leader.sent();
    leader.propose("x");
    let sent = leader.sent();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|message| matches!(
        message,
        Message::AppendEntries(request) if request.entries.len() == 1
            && request.entries[0].payload == command("x")
            && (request.prev_log_index, request.prev_log_term) == (LogIndex(2), Term(1))
    )));
}

#[test]
fn a_new_leader_takes_every_log_to_be_as_long_as_its_own() {
    let disk = disk().with_hard_state(2, None);
    let mut leader = server_1(disk.with_entries(entries(1, &[1, 2, 2])));
    stand_for_election(&mut leader);
    leader.receive_from(2, vote(leader.node.soft_state().term.get(), true));
    leader.persist_all();
    let requests = leader.sent().into_iter().filter_map(|message| match message {
        Message::AppendEntries(request) => Some(request),
        _ => None,
    });
    let follow: Vec<_> = requests
        .map(|request| (request.prev_log_index, request.prev_log_term))
        .collect();
    assert_eq!(follow, [(LogIndex(3), Term(2)); 2]);
}

#[test]
fn an_entry_is_committed_once_a_majority_has_it_and_all_before_it_too() {
    let mut cluster = Cluster::new(5, plain_raft);
    cluster.elect(1);
    cluster.partition(&[&[1, 2]]);
    cluster.propose(1, "a");
    cluster.propose(1, "b");
    cluster.settle();
    assert_eq!(
        cluster.commit_index(1),
        LogIndex(2),
        "two of five are no majority"
    );
    cluster.heal();
    cluster.isolate(5);
    cluster.heartbeat(1);
    cluster.settle();
    assert_eq!(cluster.commit_index(1), LogIndex(4));
    assert_eq!(cluster.lines(1), ["a", "b"]);
}

/// What the follower had in the earlier term may have been replaced since.
#[test]
fn an_answer_of_an_earlier_term_counts_for_nothing() {
    let mut leader = leader_1(disk().with_hard_state(1, Some(1)));
    let last = leader.node.status().last_log_index;
    leader.receive_from(2, matched(1, last.get()));
    leader.receive_from(2, snapshot_answer(1, last.get(), SnapshotOutcome::Installed));
    assert_eq!(leader.node.status().commit_index, LogIndex::ZERO);
    leader.receive_from(2, matched(2, last.get()));
    assert_eq!(leader.node.status().commit_index, last);
}

#[test]
fn followers_learn_what_is_committed_and_apply_it_in_the_order_of_the_log() {
    let mut cluster = Cluster::new(3, plain_raft);
    cluster.elect(1);
    for text in ["a", "b", "c"] {
        cluster.propose(1, text);
    }
    cluster.settle();
    cluster.heartbeat(1);
    cluster.settle();
    for id in 1..=3 {
        assert_eq!(cluster.lines(id), ["a", "b", "c"]);
    }
}

#[test]
fn a_follower_commits_no_further_than_the_last_entry_it_knows_to_be_the_leaders() {
    for (leader_commit, new, commits) in [(1, vec![], 1), (3, vec![], 2), (4, entries(3, &[2]), 3)] {
        let mut server = server_1(disk().with_entries(entries(1, &[1, 1, 1, 1])));
        server.receive_from(2, append(2, (2, 1), new, leader_commit));
        assert_eq!(server.node.status().commit_index, LogIndex(commits));
    }
}

/// No server sends such.
#[test]
fn a_request_whose_entries_do_not_follow_each_other_is_not_looked_at() {
    let (gap, falling) = (vec![entry(1, 1), entry(1, 3)], entries(1, &[2, 1]));
    for (prev, new) in [
        ((0, 0), gap),
        ((0, 0), entries(2, &[1])),
        ((0, 0), falling),
        ((1, 2), entries(2, &[1])),
        ((0, 0), entries(1, &[3])),
    ] {
        let mut server = server_1(disk());
        server.receive_from(2, append(2, prev, new, 0));
        assert_eq!(append_answers(&server.sent()), [AppendOutcome::Stale]);
        assert_eq!(server.node.status().last_log_index, LogIndex::ZERO);
    }
}

#[test]
fn a_follower_refuses_entries_that_do_not_follow_its_log_and_says_where_to_look() {
    let log = entries(1, &[1, 1, 2, 2, 2]);
    for (prev, term, index) in [
        ((7, 3), None, 6),
        ((5, 3), Some(Term(2)), 3),
        ((2, 2), Some(Term(1)), 1),
    ] {
        let mut server = server_1(disk().with_entries(log.clone()));
        server.receive_from(2, append(3, prev, entries(prev.0 + 1, &[3]), 0));
        server.persist_all();
        let conflict = AppendOutcome::Conflict {
            rejected_index: LogIndex(prev.0),
            conflict_term: term,
            conflict_index: LogIndex(index),
        };
        assert_eq!(append_answers(&server.sent()), [conflict], "after {prev:?}");
        assert_eq!(log_terms(&server), [1, 1, 2, 2, 2]);
    }
}

#[test]
fn a_conflicting_entry_and_all_behind_it_give_way_to_the_leaders() {
    let mut server = server_1(disk().with_entries(entries(1, &[1, 1, 2, 2, 2])));
    server.receive_from(2, append(3, (2, 1), entries(3, &[3]), 0));
    server.persist_all();
    assert_eq!(server.disk.entries(), entries(1, &[1, 1, 3]));
}

#[test]
fn entries_that_are_there_already_stay_and_so_does_what_is_behind_them() {
    let mut server = server_1(disk().with_entries(entries(1, &[1, 1, 1, 1])));
    server.receive_from(2, append(1, (1, 1), entries(2, &[1]), 0));
    server.persist_all();
    assert_eq!(
        log_terms(&server),
        [1, 1, 1, 1],
        "a late message must not shorten the log"
    );
    let up_to_2 = AppendOutcome::Matched {
        match_index: LogIndex(2),
    };
    assert_eq!(append_answers(&server.sent()), [up_to_2]);
}

/// Figure 7: the logs a leader of term 8 may meet.
#[test]
fn the_leader_brings_every_log_of_figure_7_in_line_with_its_own() {
    let leader_log = entries(1, &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6]);
    for (name, follower_log) in [
        ("a", vec![1, 1, 1, 4, 4, 5, 5, 6, 6]),
        ("b", vec![1, 1, 1, 4]),
        ("c", vec![1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]),
        ("d", vec![1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]),
        ("e", vec![1, 1, 1, 4, 4, 4, 4]),
        ("f", vec![1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]),
    ] {
        let leader = disk().with_hard_state(7, None).with_entries(leader_log.clone());
        let follower = disk()
            .with_hard_state(7, None)
            .with_entries(entries(1, &follower_log));
        let disks = [(1, leader.clone()), (2, follower), (3, leader)]
            .into_iter()
            .collect();
        let mut cluster = Cluster::from_disks(disks, plain_raft);
        cluster.elect(1);
        cluster.heartbeat(1);
        cluster.settle();
        assert_eq!(
            cluster.server(2).disk.entries(),
            cluster.server(1).disk.entries(),
            "({name})"
        );
        assert_eq!(cluster.server(1).disk.entries()[..10], leader_log, "append-only");
    }
}

/// A conflict skips a whole term, where one entry a message would take as many rounds as entries.
#[test]
fn the_leader_backs_up_a_term_at_a_time() {
    let leader_log: Vec<u64> = [vec![1; 5], vec![9; 50]].concat();
    let follower_log: Vec<u64> = [vec![1; 5], vec![2; 50]].concat();
    let disk_of = |terms: &[u64]| disk().with_hard_state(9, None).with_entries(entries(1, terms));
    let disks = [
        (1, disk_of(&leader_log)),
        (2, disk_of(&follower_log)),
        (3, disk_of(&leader_log)),
    ];
    let mut cluster = Cluster::from_disks(disks.into_iter().collect(), plain_raft);
    cluster.elect(1);
    let probes = cluster
        .story
        .iter()
        .filter(|line| line.starts_with("2 -> 1") && line.contains("conflict"));
    assert_eq!(probes.count(), 1, "{:#?}", cluster.story);
}

#[test]
fn a_follower_answers_when_the_entries_are_on_its_disk_and_not_before() {
    let mut server = server_1(disk());
    server.receive_from(2, append(1, (0, 0), entries(1, &[1, 1]), 0));
    server.receive_from(2, append(1, (2, 1), vec![], 0));
    assert_eq!(append_answers(&server.sent()), []);
    server.persist(1);
    let up_to_2 = AppendOutcome::Matched {
        match_index: LogIndex(2),
    };
    assert_eq!(append_answers(&server.sent())[0], up_to_2);
}

#[test]
fn a_heartbeat_is_answered_at_once_with_no_more_than_is_durable() {
    let mut server = server_1(disk().with_hard_state(1, None).with_entries(entries(1, &[1])));
    server.receive_from(2, append(1, (1, 1), entries(2, &[1]), 0));
    server.receive_from(2, append(1, (2, 1), vec![], 0));
    let up_to_1 = AppendOutcome::Matched {
        match_index: LogIndex(1),
    };
    assert_eq!(append_answers(&server.sent()), [up_to_1]);
}

#[test]
fn a_write_in_flight_does_not_vouch_for_entries_that_were_replaced_meanwhile() {
    let mut server = server_1(disk());
    server.receive_from(2, append(1, (0, 0), entries(1, &[1, 1, 1]), 0));
    server.receive_from(2, append(2, (1, 1), entries(2, &[2, 2]), 0));
    server.persist(1);
    assert_eq!(server.node.status().durable_index, LogIndex(1));
    server.persist(1);
    assert_eq!(server.node.status().durable_index, LogIndex(3));
}

#[test]
fn a_leader_never_overwrites_or_deletes_entries_of_its_log() {
    let mut leader = leader_1(disk().with_hard_state(2, None).with_entries(entries(1, &[1, 2])));
    let before = log_terms(&leader);
    // What an older leader still has under way; and answers that say that others have something else there.
    leader.receive_from(2, append(2, (0, 0), entries(1, &[2, 2, 2, 2]), 4));
    leader.receive_from(2, chunk(2, &snapshot(9, 2, b"x"), 0, b"x"));
    leader.receive_from(3, matched(3, 1));
    leader.propose("another");
    leader.persist_all();
    let after = log_terms(&leader);
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after.len(), before.len() + 1);
}

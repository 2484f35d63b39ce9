//! Raft §7: log compaction.

use super::*;

/// A cluster in which 3 missed entries that 1 has compacted away.
fn cluster_with_3_behind() -> Cluster {
    let mut cluster = Cluster::new(3, |id| Config {
        retained_log_bytes: 0,
        ..config(id)
    });
    cluster.elect(1);
    cluster.isolate(3);
    for text in ["first", "second", "third", "fourth"] {
        cluster.propose(1, text);
    }
    cluster.settle();
    cluster.cut_snapshot(1);
    cluster.settle();
    cluster.heal();
    cluster
}

#[test]
fn a_snapshot_replaces_the_log_up_to_its_last_entry_whose_place_is_kept() {
    let mut cluster = cluster_with_3_behind();
    let status = cluster.status(1);
    assert_eq!(status.snapshot_index, LogIndex(6));
    assert_eq!(status.first_log_index, LogIndex(7));
    assert_eq!(
        cluster.server(1).node.term_at(LogIndex(6)),
        Some(Term(1)),
        "for the consistency check"
    );
    cluster.crash(1);
    cluster.restart(1);
    assert_eq!(cluster.lines(1).len(), 4, "the state comes from the snapshot");
}

#[test]
fn every_server_cuts_its_snapshots_by_itself() {
    let mut cluster = Cluster::new(3, |id| Config {
        retained_log_bytes: 0,
        ..config(id)
    });
    cluster.elect(1);
    cluster.propose(1, "first");
    cluster.pass(2);
    let committed = cluster.commit_index(2);
    cluster.cut_snapshot(2);
    cluster.settle();
    let snapshots = [1, 2, 3].map(|id| cluster.status(id).snapshot_index);
    assert_eq!(snapshots, [LogIndex::ZERO, committed, LogIndex::ZERO]);
    cluster.propose(1, "second");
    cluster.pass(2);
    assert_eq!(cluster.lines(2), ["first", "second"]);
}

#[test]
fn a_follower_that_needs_what_is_compacted_gets_the_snapshot_in_pieces_and_then_the_log() {
    let mut cluster = cluster_with_3_behind();
    cluster.pass(2);
    assert_eq!(cluster.lines(3).len(), 4);
    let pieces = cluster
        .story
        .iter()
        .filter(|line| line.starts_with("1 -> 3: InstallSnapshot"));
    assert!(pieces.count() > 1);
    cluster.propose(1, "fifth");
    cluster.pass(2);
    assert_eq!(cluster.lines(3).len(), 5);
    let progress = cluster.server(1).node.peer_progress();
    assert!(
        progress
            .iter()
            .all(|(_, _, state)| *state == ProgressState::Replicate)
    );
}

#[test]
fn pieces_are_taken_in_order_and_a_sender_is_told_where_to_go_on() {
    let meta = snapshot(5, 1, b"abcdef");
    let mut server = server_1(disk());
    for (offset, data, next_offset) in [(3, b"def", 0), (0, b"abc", 3), (0, b"abc", 3), (1, b"bcd", 3)] {
        server.receive_from(2, chunk(1, &meta, offset, data));
        server.persist_all();
        assert_eq!(
            snapshot_answers(&server.sent()),
            [SnapshotOutcome::Continue { next_offset }]
        );
    }
    server.receive_from(2, chunk(1, &meta, 3, b"def"));
    server.persist_all();
    assert_eq!(snapshot_answers(&server.sent()), [SnapshotOutcome::Installed]);
    server.apply();
    assert_eq!(server.machine.lines, b"abcdef");
}

#[test]
fn a_newer_snapshot_takes_the_place_of_one_that_is_there_in_part() {
    let (older, newer) = (snapshot(5, 1, b"abcdef"), snapshot(9, 1, b"ghijkl"));
    let mut server = server_1(disk());
    let pieces = [
        (&older, 0, b"abc", 3),
        (&newer, 3, b"jkl", 0),
        (&newer, 0, b"ghi", 3),
    ];
    for (meta, offset, data, next_offset) in pieces {
        server.receive_from(2, chunk(1, meta, offset, data));
        server.persist_all();
        assert_eq!(
            snapshot_answers(&server.sent()),
            [SnapshotOutcome::Continue { next_offset }]
        );
    }
    server.receive_from(2, chunk(1, &newer, 3, b"jkl"));
    server.persist_all();
    assert_eq!(snapshot_answers(&server.sent()), [SnapshotOutcome::Installed]);
    server.apply();
    assert_eq!(server.machine.lines, b"ghijkl");
}

#[test]
fn a_damaged_file_is_thrown_away_and_asked_for_again() {
    let meta = snapshot(5, 1, b"abc");
    let mut server = server_1(disk());
    server.receive_from(2, chunk(1, &meta, 0, b"xyz"));
    server.persist_all();
    assert_eq!(snapshot_answers(&server.sent()), [SnapshotOutcome::Damaged]);
    server.receive_from(2, chunk(1, &meta, 0, b"abc"));
    server.persist_all();
    assert_eq!(snapshot_answers(&server.sent()), [SnapshotOutcome::Installed]);
}

#[test]
fn a_snapshot_is_answered_when_it_is_durable_and_nothing_is_applied_in_between() {
    let meta = snapshot(5, 1, b"abc");
    let mut server = server_1(disk());
    server.receive_from(2, chunk(1, &meta, 0, b"abc"));
    server.persist(1);
    server.receive_from(2, append(1, (5, 1), entries(6, &[1]), 6));
    assert_eq!(
        snapshot_answers(&server.sent()),
        [],
        "verified, not yet installed"
    );
    assert!(!server.has_to_apply());
    server.persist_all();
    assert_eq!(snapshot_answers(&server.sent()), [SnapshotOutcome::Installed]);
    server.apply();
    server.apply();
    assert_eq!(server.machine.lines, b"abc6@1\n");
}

/// The log holds what comes behind the snapshot, so it could be handed out; the state machine is not there yet.
#[test]
fn what_is_behind_a_snapshot_waits_until_the_state_machine_can_be_restored() {
    let mut server = server_1(disk().with_entries(entries(1, &[1, 1, 1, 1])));
    server.receive_from(2, chunk(1, &snapshot(2, 1, b"abc"), 0, b"abc"));
    server.persist(1);
    server.receive_from(2, append(1, (4, 1), vec![], 4));
    assert_eq!(server.node.status().commit_index, LogIndex(4));
    assert!(!server.has_to_apply(), "the snapshot is not durable");
    server.persist_all();
    server.apply();
    server.apply();
    assert_eq!(server.machine.lines, b"abc3@1\n4@1\n");
}

#[test]
fn who_waits_for_the_verdict_on_a_snapshot_that_is_given_up_is_told_to_start_again() {
    let mut server = server_1(disk());
    server.receive_from(2, chunk(1, &snapshot(5, 1, b"abc"), 0, b"abc"));
    assert_eq!(snapshot_answers(&server.sent()), []);
    server.receive_from(2, chunk(1, &snapshot(9, 1, b"newer"), 0, b"new"));
    let again = SnapshotOutcome::Continue { next_offset: 0 };
    assert_eq!(snapshot_answers(&server.sent()), [again]);
    server.persist_all();
    assert_eq!(server.unanswered(), 0);
}

#[test]
fn the_log_behind_the_snapshots_last_entry_stays_if_that_entry_is_in_the_log() {
    let mut server = server_1(disk().with_entries(entries(1, &[1, 1, 1, 1])));
    server.receive_from(2, chunk(2, &snapshot(2, 1, b"abc"), 0, b"abc"));
    server.persist_all();
    assert_eq!(server.disk.entries(), entries(3, &[1, 1]));
    assert_eq!(server.node.status().last_log_index, LogIndex(4));
}

#[test]
fn the_whole_log_goes_if_the_snapshots_last_entry_is_not_in_it() {
    let mut server = server_1(disk().with_entries(entries(1, &[1, 1, 1, 1])));
    server.receive_from(2, chunk(2, &snapshot(3, 2, b"abc"), 0, b"abc"));
    server.persist_all();
    assert_eq!(server.disk.entries(), []);
    assert_eq!(server.node.status().last_log_index, LogIndex(3));
    assert_eq!(server.node.term_at(LogIndex(3)), Some(Term(2)));
}

#[test]
fn a_snapshot_of_what_is_committed_here_already_changes_nothing() {
    let mut server = server_1(disk().with_entries(entries(1, &[1, 1, 1])));
    server.receive_from(2, append(1, (3, 1), vec![], 3));
    server.receive_from(2, chunk(1, &snapshot(2, 1, b"abc"), 0, b"abc"));
    server.persist_all();
    assert_eq!(snapshot_answers(&server.sent()), [SnapshotOutcome::Installed]);
    assert_eq!(server.disk.entries().len(), 3);
    assert_eq!(server.node.snapshot().last_included_index, LogIndex(0));
}

#[test]
fn a_snapshot_whose_last_entry_is_committed_here_while_its_file_is_verified_changes_nothing() {
    let mut server = server_1(disk().with_entries(entries(1, &[1, 1, 1])));
    server.receive_from(2, chunk(1, &snapshot(3, 1, b"abc"), 0, b"abc"));
    server.receive_from(2, append(1, (3, 1), vec![], 3));
    server.persist_all();
    assert_eq!(snapshot_answers(&server.sent()), [SnapshotOutcome::Installed]);
    assert_eq!(server.disk.entries().len(), 3);
    assert_eq!(server.node.snapshot().last_included_index, LogIndex(0));
}

#[test]
fn a_snapshot_stands_in_for_the_log_in_elections() {
    let mut server = server_1(disk().with_snapshot(snapshot(5, 3, b"x"), b"x".to_vec()));
    server.receive_from(2, vote_request(2, 4, 4, 3));
    server.receive_from(2, vote_request(2, 5, 5, 3));
    server.persist_all();
    assert_eq!(votes_granted(&server.sent()), [false, true]);
}

#[test]
fn the_members_come_with_the_snapshot() {
    let mut server = server_1(disk());
    let mut meta = snapshot(5, 1, b"abc");
    meta.configuration = voters(5);
    server.receive_from(2, chunk(1, &meta, 0, b"abc"));
    server.persist_all();
    server.apply();
    assert_eq!(server.node.status().configuration, voters(5));
}

#[test]
fn a_snapshot_covers_only_what_is_committed() {
    let mut cluster = Cluster::new(3, |id| Config {
        retained_log_bytes: 0,
        ..config(id)
    });
    cluster.elect(1);
    cluster.propose(1, "committed");
    cluster.settle();
    cluster.isolate(1);
    let (_, uncommitted) = cluster.propose(1, "not committed").expect("it leads still");
    cluster.settle();
    cluster.cut_snapshot(1);
    cluster.settle();
    let status = cluster.status(1);
    assert_eq!(status.snapshot_index, status.commit_index);
    assert!(status.snapshot_index < uncommitted);
    assert_eq!(status.last_log_index, uncommitted, "it stays in the log");
}

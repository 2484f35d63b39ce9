//! Corners: cases that went wrong once, or nearly. Each test tells the shortest story that shows it.

use std::collections::{BTreeMap, VecDeque};

use crate::common::cluster::Cluster;
use crate::common::disk::Disk;
use crate::common::messages::{append, chunk, conflict, matched, snapshot, vote_request};
use crate::common::server::{Happening, Server};
use crate::common::{ELECTION_TIMEOUT_MAX, ELECTION_TIMEOUT_MIN, config, entries, plain_raft, voters};
use raft_core::{
    AppendOutcome, CallId, Config, Envelope, Event, LogIndex, Message, Node, NodeId, ProgressState,
    ReadOutcome, Role, SnapshotMeta, SnapshotOutcome, Storage, Term, Write,
};

/// Whether leader 1 sends to every peer without waiting for answers.
fn all_replicate(cluster: &Cluster) -> bool {
    let peers = cluster.server(1).node.peer_progress();
    peers
        .iter()
        .all(|(_, _, state)| *state == ProgressState::Replicate)
}

/// Leader 1 of term 1 sends a heartbeat of its read round 1. It is so late that 1 has meanwhile lost its
/// office and won it back. The receiver calls it stale, in the present term; that must not pass for an
/// answer to round 1 of the present leadership.
#[test]
fn a_stale_answer_to_a_round_of_an_earlier_leadership_confirms_no_read() {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.read(1);
    let is_round = |message: &Message| matches!(message, Message::AppendEntries(m) if m.read_round == 1);
    let late = cluster
        .network
        .iter()
        .find(|envelope| envelope.to == NodeId(2) && is_round(&envelope.message))
        .cloned()
        .expect("the round went to both");
    cluster.settle();
    cluster.heal();
    cluster.elect(2);
    cluster.elect(1);

    cluster.deliver(late);
    let stale_answer = cluster.network.pop_back().expect("2 answers at once");
    cluster.isolate(1);
    cluster.read(1);
    cluster.lose(|_| true);
    cluster.elect(2);
    cluster.propose(2, "unseen");
    cluster.settle();
    cluster.heal();
    cluster.deliver(stale_answer);
    let confirmed =
        |happening: &Happening| matches!(happening, Happening::Read(ReadOutcome::Confirmed { .. }));
    let confirmed = cluster
        .history
        .iter()
        .filter(|(_, happening)| confirmed(happening));
    assert_eq!(confirmed.count(), 1, "only the read of the first leadership");
}

/// The window is full of messages that were lost, and the log is compacted past all of them. A heartbeat
/// behind what was sent can no longer be made up; one that always matches would never find out.
#[test]
fn a_peer_whose_window_was_lost_and_then_compacted_is_still_found_out() {
    let mut cluster = Cluster::new(3, |id| Config {
        max_inflight_messages: 1,
        retained_log_bytes: 0,
        ..config(id)
    });
    cluster.elect(1);
    cluster.propose(1, "lost on the way to 3");
    cluster.lose(|envelope| envelope.to == NodeId(3));
    cluster.isolate(3);
    cluster.propose(1, "second");
    cluster.propose(1, "third");
    cluster.settle();
    cluster.cut_snapshot(1);
    cluster.heal();
    cluster.pass(2);
    assert!(cluster.everybody_has("third"));
    assert!(all_replicate(&cluster));
}

/// A cluster whose nodes keep nothing in memory that is applied.
fn forgetful(servers: u64) -> Cluster {
    Cluster::new(servers, |id| Config {
        max_unpacked_log_bytes: 0,
        max_packed_log_bytes: 0,
        retained_log_bytes: 0,
        max_append_bytes: 150,
        ..config(id)
    })
}

/// How often a leader began to send a snapshot.
fn snapshots_begun(cluster: &Cluster) -> usize {
    let begins = |happening: &Happening| matches!(happening, Happening::Event(Event::SnapshotNeeded { .. }));
    let begun = cluster.history.iter().filter(|(_, happening)| begins(happening));
    begun.count()
}

/// Leaves server 3 behind by what the leader, server 1, has no longer in memory, and lets it be found out where the
/// logs meet.
fn leave_behind(cluster: &mut Cluster) {
    cluster.elect(1);
    cluster.settle();
    cluster.isolate(3);
    for number in 0..20 {
        cluster.propose(1, &format!("command {number}"));
        cluster.settle();
    }
    cluster.heal();
    cluster.hold_persists(1);
    cluster.pass(2);
    cluster.settle();
    assert!(cluster.server(1).has_to_read());
}

#[test]
fn a_follower_gets_from_storage_what_is_no_longer_in_memory() {
    let mut cluster = forgetful(3);
    leave_behind(&mut cluster);
    cluster.release_persists(1);
    cluster.settle();
    cluster.pass(2);
    assert!(cluster.everybody_has("command 19"));
    assert!(cluster.server(1).read_back >= 20);
    assert_eq!(snapshots_begun(&cluster), 0);
}

#[test]
fn what_is_compacted_before_storage_has_read_it_comes_as_a_snapshot() {
    let mut cluster = forgetful(3);
    leave_behind(&mut cluster);
    cluster.cut_snapshot(1);
    cluster.release_persists(1);
    cluster.settle();
    cluster.pass(2);
    assert!(cluster.everybody_has("command 19"));
    assert_eq!(cluster.server(1).read_back, 0);
    assert_eq!(snapshots_begun(&cluster), 1);
}

#[test]
fn what_storage_reads_for_a_leader_that_was_is_of_no_use() {
    let mut cluster = forgetful(3);
    leave_behind(&mut cluster);
    cluster.elect(2);
    cluster.release_persists(1);
    cluster.network.clear();
    cluster.with(NodeId(1), Server::read_log);
    assert!(cluster.server(1).read_back > 0);
    assert!(cluster.network.iter().all(|envelope| envelope.from != NodeId(1)));
    cluster.pass(2);
    assert!(cluster.everybody_has("command 19"));
}

/// The entries that leader 1 has sent to 3 and that are on their way.
fn on_their_way_to_3(cluster: &Cluster) -> Vec<LogIndex> {
    let sent = cluster.network.iter().filter(|envelope| envelope.to == NodeId(3));
    sent.filter_map(|envelope| match &envelope.message {
        Message::AppendEntries(request) => Some(&request.entries),
        _ => None,
    })
    .flatten()
    .map(|entry| entry.index)
    .collect()
}

#[test]
fn what_storage_reads_for_a_peer_that_has_it_meanwhile_is_of_no_use() {
    let mut cluster = forgetful(3);
    leave_behind(&mut cluster);
    let (term, last) = (cluster.term(1).get(), cluster.commit_index(1).get());
    cluster.with(NodeId(1), |server| {
        server.receive_from(3, matched(term, last - 1));
    });
    cluster.with(NodeId(1), Server::read_log);
    assert!(cluster.server(1).read_back > 0);
    assert_eq!(on_their_way_to_3(&cluster), []);
    assert!(cluster.server(1).has_to_read(), "from there on");
}

/// Where the logs meet is searched anew, and nothing else is sent until that is found out.
#[test]
fn what_storage_reads_for_a_peer_that_could_not_be_reached_meanwhile_is_of_no_use() {
    let mut cluster = forgetful(3);
    leave_behind(&mut cluster);
    cluster.with(NodeId(1), |server| server.peer_unreachable(3));
    cluster.with(NodeId(1), Server::read_log);
    assert!(cluster.server(1).read_back > 0);
    assert_eq!(on_their_way_to_3(&cluster), []);
    cluster.release_persists(1);
    cluster.pass(2);
    assert!(cluster.everybody_has("command 19"));
}

/// What is on the way to a peer that cannot be reached is lost: nothing is sent behind it before the peer has told how
/// far it is. Without that the window would be filled in vain.
#[test]
fn a_peer_that_cannot_be_reached_is_probed_before_it_gets_more() {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    cluster.settle();
    cluster.propose(1, "lost on the way to 2");
    cluster.lose(|envelope| envelope.to == NodeId(2));
    cluster.with(NodeId(1), |server| server.peer_unreachable(2));
    cluster.propose(1, "second");
    assert!(cluster.network.iter().all(|envelope| envelope.to != NodeId(2)));
    cluster.pass(2);
    cluster.settle();
    assert!(cluster.everybody_has("second"));
}

/// A leader with ten batches at its disk, which gets to work on them now and then: by `step`, twice in an election
/// timeout.
fn leader_after_a_while_with_a_disk_that(step: impl Fn(&mut Cluster)) -> Role {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    cluster.hold_persists(1);
    for _ in 0..10 {
        cluster.propose(1, "x");
    }
    for _ in 0..8 {
        cluster.pass(ELECTION_TIMEOUT_MIN / 2);
        step(&mut cluster);
    }
    cluster.role(1)
}

#[test]
fn a_leader_steps_down_whose_disk_does_not_answer_and_not_one_whose_disk_is_slow() {
    let dead = |_: &mut Cluster| ();
    assert_ne!(leader_after_a_while_with_a_disk_that(dead), Role::Leader);
    let one_batch = |cluster: &mut Cluster| cluster.persist(1, 1);
    assert_eq!(leader_after_a_while_with_a_disk_that(one_batch), Role::Leader);
    let a_step = |cluster: &mut Cluster| {
        cluster.with(NodeId(1), |server| server.node.storage_progressed());
    };
    assert_eq!(leader_after_a_while_with_a_disk_that(a_step), Role::Leader);
}

/// A conflict from before what has matched meanwhile is late: the window goes on.
#[test]
fn a_late_conflict_does_not_stop_a_peer_that_has_matched_meanwhile() {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    cluster.propose(1, "a");
    cluster.settle();
    let last = cluster.commit_index(1);
    let late = conflict(cluster.term(1).get(), last.get(), last.previous().get());
    cluster.with(NodeId(1), |server| server.receive_from(2, late));
    assert!(all_replicate(&cluster));
}

/// A conflict that comes twice has sent the probe back the first time. The second tells nothing of the probe that is out.
#[test]
fn a_late_conflict_does_not_lead_a_probe_astray() {
    let disk = Disk::new(voters(3)).with_entries(entries(1, &[1, 1, 1, 1, 1, 1]));
    let empty = Disk::new(voters(3));
    let disks = BTreeMap::from([(1, disk), (2, empty.clone()), (3, empty)]);
    let mut cluster = Cluster::from_disks(disks, config);
    cluster.isolate(3);
    cluster.elect(1);
    cluster.network.clear();
    let term = cluster.term(1).get();
    let mut probes = |answer| {
        cluster.with(NodeId(1), |server| server.receive_from(3, answer));
        let sent = std::mem::take(&mut cluster.network);
        let prev = |envelope: Envelope| match envelope.message {
            Message::AppendEntries(request) => request.prev_log_index.get(),
            other => panic!("{other:?}"),
        };
        sent.into_iter().map(prev).collect::<Vec<u64>>()
    };
    assert_eq!(probes(conflict(term, 6, 4)), [4]);
    assert_eq!(probes(conflict(term, 6, 4)), [], "again");
    assert_eq!(probes(conflict(term, 4, 2)), [2]);
    assert_eq!(probes(conflict(term, 4, 2)), [], "again");
}

/// The leader's log goes back to before its snapshot, though not far enough to probe the place where that of 3 ends. What
/// it sends of its snapshot is lost, and each answer to a heartbeat says so.
#[test]
fn a_snapshot_under_way_is_not_begun_anew_by_signs_of_life() {
    let ahead = Disk::new(voters(3))
        .with_snapshot(snapshot(3, 1, b"abc"), b"abc".to_vec())
        .with_entries(entries(2, &[1, 1, 1]));
    let behind = Disk::new(voters(3)).with_entries(entries(1, &[1]));
    let disks = BTreeMap::from([(1, ahead.clone()), (2, ahead), (3, behind)]);
    let mut cluster = Cluster::from_disks(disks, config);
    cluster.isolate(3);
    cluster.elect(1);
    cluster.heal();
    for _ in 0..5 {
        cluster.heartbeat(1);
        cluster.deliver_round();
        cluster.persist(3, usize::MAX);
        cluster.deliver_round();
        cluster.lose(|envelope| matches!(envelope.message, Message::InstallSnapshot(_)));
    }
    assert_eq!(snapshots_begun(&cluster), 1);
    cluster.pass(ELECTION_TIMEOUT_MIN);
    assert!(all_replicate(&cluster));
}

/// Where a peer's log ends that lacks what the leader compacted, it needs the snapshot still; one that has as much needs
/// it no more.
#[test]
fn a_snapshot_under_way_is_given_up_for_a_peer_that_the_log_can_serve_and_for_no_other() {
    let mut cluster = Cluster::new(3, |id| Config {
        retained_log_bytes: 0,
        ..config(id)
    });
    cluster.elect(1);
    cluster.settle();
    cluster.isolate(3);
    for text in ["a", "b", "c"] {
        cluster.propose(1, text);
    }
    cluster.settle();
    cluster.cut_snapshot(1);
    let compacted = cluster.commit_index(1);
    cluster.heal();
    cluster.heartbeat(1);
    cluster.deliver_round();
    cluster.deliver_round();
    let state_of_3 = |cluster: &Cluster| {
        let peers = cluster.server(1).node.peer_progress();
        peers
            .into_iter()
            .find(|(id, ..)| *id == NodeId(3))
            .map(|(_, _, state)| state)
    };
    let under_way = ProgressState::Snapshot {
        last_included_index: compacted,
    };
    assert_eq!(state_of_3(&cluster), Some(under_way));
    let term = cluster.term(1).get();
    for (has, then) in [
        (compacted.previous(), under_way),
        (compacted.previous(), under_way),
        (compacted, ProgressState::Replicate),
    ] {
        cluster.with(NodeId(1), |server| {
            server.receive_from(3, matched(term, has.get()));
        });
        assert_eq!(state_of_3(&cluster), Some(then), "it has {has}");
    }
    assert_eq!(snapshots_begun(&cluster), 1, "and not once for each answer");
}

/// The answer that completes the target's log makes nothing else happen at the leader.
#[test]
fn a_hand_over_goes_on_as_soon_as_the_target_has_caught_up() {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.propose(1, "first");
    cluster.settle();
    cluster.hold_persists(2);
    cluster.propose(1, "second");
    let target = cluster.with(NodeId(1), |server| server.transfer_leadership());
    assert_eq!(target, Some(Some(NodeId(2))), "2 is ahead of 3");
    cluster.heal();
    cluster.heartbeat(1);
    cluster.settle();
    assert_eq!(
        cluster.status(1).last_log_index,
        cluster.commit_index(1),
        "3 has it all"
    );
    cluster.release_persists(2);
    cluster.settle();
    assert_eq!(cluster.leader(), Some(NodeId(2)));
}

/// Right behind a check for a quorum nobody has answered since, which is no reason to leave without a successor.
#[test]
fn a_hand_over_finds_somebody_at_any_moment() {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    cluster.settle();
    cluster.isolate(3);
    for _ in 0..2 {
        // 3 answers nothing for two checks, 2 answers until the last.
        cluster.heartbeat(1);
        cluster.settle();
        (0..ELECTION_TIMEOUT_MIN).for_each(|_| cluster.tick(1));
    }
    assert_eq!(cluster.role(1), Role::Leader);
    let target = cluster.with(NodeId(1), |server| server.transfer_leadership());
    assert_eq!(target, Some(Some(NodeId(2))));
}

/// A hand-over to one peer is not given to another, though that one's log is further.
#[test]
fn a_hand_over_to_somebody_goes_to_nobody_else() {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    cluster.settle();
    cluster.isolate(3);
    cluster.propose(1, "2 is ahead of 3");
    cluster.settle();
    let target = cluster.with(NodeId(1), |server| server.node.transfer_leadership_to(NodeId(3)));
    assert_eq!(target, Some(Some(NodeId(3))));
}

/// Whoever stops a leader waits for its successor, whoever asked for that one.
#[test]
fn a_hand_over_that_is_under_way_goes_on() {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    cluster.settle();
    cluster.isolate(3);
    cluster.propose(1, "2 is ahead of 3");
    cluster.settle();
    let hand_over_to = |server: &mut Server, id| server.node.transfer_leadership_to(NodeId(id));
    let targets = cluster.with(NodeId(1), |server| {
        (
            hand_over_to(server, 3),
            server.transfer_leadership(),
            hand_over_to(server, 3),
            hand_over_to(server, 2),
        )
    });
    let to_3 = Some(NodeId(3));
    assert_eq!(targets, Some((to_3, to_3, to_3, None)));
}

/// A leader of three that has made a hundred rounds with 2 since 3 last answered, and what it told 3 of them.
fn after_rounds_without_3() -> (Cluster, Vec<Envelope>) {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    let mut told = Vec::new();
    for _ in 0..100 {
        cluster.read(1);
        let waiting = std::mem::take(&mut cluster.network);
        let (to_3, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|one| one.to == NodeId(3));
        told.extend(to_3);
        cluster.network.extend(others);
        cluster.settle();
    }
    assert_eq!(cluster.invariants.open_reads(), 0);
    (cluster, told)
}

/// Each message to a peer that hangs takes memory of the leader until the call is given up.
#[test]
fn a_peer_that_answers_no_round_is_told_of_few() {
    let (mut cluster, told) = after_rounds_without_3();
    assert!((1..=20).contains(&told.len()), "{} of 100", told.len());
    // All of them are lost. A heartbeat finds out that it answers again.
    cluster.isolate(2);
    cluster.read(1);
    cluster.settle();
    assert_eq!(cluster.invariants.open_reads(), 1);
    cluster.heartbeat(1);
    cluster.settle();
    assert_eq!(cluster.invariants.open_reads(), 0);
    cluster.read(1);
    cluster.settle();
    assert_eq!(
        cluster.invariants.open_reads(),
        0,
        "it is told of each round again"
    );
}

#[test]
fn a_peer_that_answers_late_is_told_of_the_latest_round_at_once() {
    let (mut cluster, told) = after_rounds_without_3();
    cluster.isolate(2);
    cluster.read(1);
    let told_now = |cluster: &Cluster| cluster.network.iter().filter(|one| one.to == NodeId(3)).count();
    assert_eq!(told_now(&cluster), 0, "it owes too many answers");
    let late = told
        .into_iter()
        .next_back()
        .expect("it was told of the first rounds");
    cluster.deliver(late);
    cluster.deliver_round();
    assert_eq!(told_now(&cluster), 1);
    cluster.settle();
    assert_eq!(cluster.invariants.open_reads(), 0, "and no heartbeat was due");
}

#[test]
fn what_is_on_the_way_to_a_peer_that_answers_slowly_does_not_grow() {
    const ROUNDS_ONE_WAY: u64 = 50;
    const HEARTBEAT_EVERY: u64 = 7;
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    let mut slow: VecDeque<(u64, Envelope)> = VecDeque::new();
    let mut most = 0;
    for now in 0..3_000 {
        cluster.read(1);
        if now % HEARTBEAT_EVERY == 0 {
            cluster.heartbeat(1);
        }
        loop {
            let due = slow.front().is_some_and(|(due, _)| *due <= now);
            let arrived = slow.pop_front_if(|_| due).map(|(_, envelope)| envelope);
            if let Some(envelope) = arrived {
                cluster.deliver(envelope);
            }
            let waiting = std::mem::take(&mut cluster.network);
            if waiting.is_empty() && !due {
                break;
            }
            for envelope in waiting {
                if [envelope.from, envelope.to].contains(&NodeId(3)) {
                    slow.push_back((now + ROUNDS_ONE_WAY, envelope));
                } else {
                    cluster.deliver(envelope);
                }
            }
        }
        most = most.max(slow.len());
    }
    // Some rounds, and the heartbeats of the time.
    assert!(most <= 50, "{most}");
}

/// No index that a peer can name makes a node panic.
#[test]
fn a_heartbeat_behind_the_highest_number_is_a_conflict() {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    cluster.heartbeat(1);
    let mut envelope = cluster.network.pop_front().expect("a heartbeat");
    if let Message::AppendEntries(request) = &mut envelope.message {
        request.prev_log_index = u64::MAX.into();
    }
    cluster.deliver(envelope);
}

/// Raft §5.2: only a leader's message and a vote given restart the election timer.
#[test]
fn a_candidate_that_is_refused_does_not_hold_back_those_who_can_win() {
    let mut server = Server::start(
        plain_raft(1),
        Disk::new(voters(3)).with_entries(entries(1, &[1, 1])),
    );
    for tick in 0..=ELECTION_TIMEOUT_MAX {
        server.receive_from(2, vote_request(2, tick + 1, 0, 0));
        server.persist_all();
        server.tick_election();
        if server.node.role() == Role::Candidate {
            return;
        }
    }
    panic!("a log that is behind kept the election timer from running out");
}

/// Its disk would never make its own vote durable, and its terms would unseat whoever can win.
#[test]
fn a_server_whose_disk_stands_still_starts_no_election() {
    let mut server = Server::start(plain_raft(1), Disk::new(voters(3)));
    server.receive_from(2, vote_request(2, 1, 0, 0));
    for _ in 0..5 * ELECTION_TIMEOUT_MAX {
        server.tick_election();
    }
    assert_eq!(server.node.soft_state().term, Term(1));
    server.persist_all();
    for _ in 0..ELECTION_TIMEOUT_MAX {
        server.tick_election();
    }
    assert_eq!(server.node.soft_state().term, Term(2));
}

/// The entries before are equal everywhere; backing up past them could ask for what is compacted away.
#[test]
fn a_conflict_never_points_behind_what_is_committed() {
    let disk = Disk::new(voters(3)).with_entries(entries(1, &[1, 1, 1, 1]));
    let mut server = Server::start(config(1), disk);
    server.receive_from(2, append(2, (2, 1), vec![], 2));
    server.receive_from(2, append(2, (4, 2), vec![], 2));
    let conflict = AppendOutcome::Conflict {
        rejected_index: LogIndex(4),
        conflict_term: Some(Term(1)),
        conflict_index: LogIndex(3),
    };
    server.persist_all();
    assert!(server.sent().iter().any(|message| matches!(
        message,
        Message::AppendEntriesResponse(answer) if answer.outcome == conflict
    )));
}

#[test]
fn a_late_piece_of_an_older_snapshot_does_not_disturb_a_newer_one() {
    let (older, newer) = (snapshot(5, 1, b"older"), snapshot(9, 1, b"newer"));
    let mut server = Server::start(config(1), Disk::new(voters(3)));
    server.receive_from(2, chunk(1, &older, 0, b"old"));
    server.receive_from(2, chunk(1, &newer, 0, b"new"));
    server.receive_from(2, chunk(1, &older, 3, b"er"));
    server.receive_from(2, chunk(1, &newer, 3, b"er"));
    server.persist_all();
    assert_eq!(server.node.snapshot(), &newer);
}

/// The disk of the receiver had no room for it: nothing of it is there any more.
#[test]
fn a_snapshot_of_which_a_piece_could_not_be_put_aside_is_sent_from_its_beginning_again() {
    let whole = snapshot(9, 1, b"whole");
    let mut server = Server::start(config(1), Disk::new(voters(3)));
    server.receive_from(2, chunk(1, &whole, 0, b"who"));
    server.persist_all();
    server.node.snapshot_received(&whole, false);
    server.receive_from(2, chunk(1, &whole, 3, b"le"));
    assert!(matches!(
        server.sent().last(),
        Some(Message::InstallSnapshotResponse(answer))
            if answer.outcome == SnapshotOutcome::Continue { next_offset: 0 }
    ));
    server.receive_from(2, chunk(1, &whole, 0, b"whole"));
    server.persist_all();
    assert_eq!(server.node.snapshot(), &whole);
}

/// Its file was removed before it was recorded; the one that takes its place is recorded.
#[test]
fn a_snapshot_that_is_cut_again_at_the_same_entry_is_written_again_and_no_other_one() {
    let mut server = Server::start(config(1), Disk::new(voters(3)));
    server.receive_from(2, append(1, (0, 0), entries(1, &[1, 1, 1]), 3));
    server.persist_all();
    server.apply();
    server.cut_snapshot();
    server.persist_all();
    let cut = server.node.snapshot().clone();
    let mut writes_of = |snapshot| {
        server.node.snapshot_cut(snapshot);
        server.node.ready().writes
    };
    let compaction = |write: &Write| matches!(write, Write::Compact { snapshot, .. } if *snapshot == cut);
    assert!(writes_of(cut.clone()).iter().any(compaction));
    let other = SnapshotMeta {
        checksum: cut.checksum + 1,
        ..cut.clone()
    };
    assert_eq!(writes_of(other), []);
}

/// Without an end, it would fill the disk.
#[test]
fn a_snapshot_longer_than_it_says_is_damaged() {
    let short = snapshot(5, 1, b"short");
    let mut server = Server::start(config(1), Disk::new(voters(3)));
    let mut endless = chunk(1, &short, 0, b"much longer");
    if let Message::InstallSnapshot(request) = &mut endless {
        request.done = false;
    }
    server.receive_from(2, endless);
    server.persist_all();
    assert!(matches!(
        server.sent().last(),
        Some(Message::InstallSnapshotResponse(answer)) if answer.outcome == SnapshotOutcome::Damaged
    ));
}

/// As with a cut: a write that was under way says nothing about the log that the snapshot brought.
#[test]
fn a_write_in_flight_does_not_vouch_for_the_log_behind_an_installed_snapshot() {
    let restored = Disk::new(voters(3)).restore().unwrap();
    let mut node = Node::new(config(1), restored).unwrap();
    let step = |node: &mut Node, message| {
        node.step(Envelope {
            from: NodeId(2),
            to: NodeId(1),
            call: CallId::ZERO,
            message,
        });
        node.ready().number
    };
    let other = snapshot(3, 2, b"x");
    let old_write = step(&mut node, append(1, (0, 0), entries(1, &[1, 1, 1, 1, 1]), 0));
    step(&mut node, chunk(2, &other, 0, b"x"));
    node.snapshot_received(&other, true);
    let new_write = step(&mut node, append(2, (3, 2), entries(4, &[2, 2]), 0));
    node.persisted(old_write);
    assert_eq!(node.status().durable_index, LogIndex(0));
    node.persisted(new_write);
    assert_eq!(node.status().durable_index, LogIndex(5));
}

/// How many of seven entries of 35 bytes are handed out when the first is committed, when all are, and after each that was
/// applied.
fn handed_out_within(max_unapplied_bytes: usize) -> Vec<usize> {
    let mut disk = Disk::new(voters(3)).with_entries(entries(1, &[1; 7]));
    let config = Config {
        max_unapplied_bytes,
        ..config(1)
    };
    let restored = disk.restore().expect("memory does not fail");
    let mut node = Node::new(config, restored).expect("the log is whole");
    let mut counts = Vec::new();
    let mut hand_out = |node: &mut Node| {
        counts.push(node.ready().committed.len());
        assert_eq!(node.ready().committed, [], "the bound is reached");
    };
    for leader_commit in [1, 7] {
        node.step(Envelope {
            from: NodeId(2),
            to: NodeId(1),
            call: CallId::ZERO,
            message: append(1, (7, 1), vec![], leader_commit),
        });
        hand_out(&mut node);
    }
    for index in 1..=7 {
        node.applied(LogIndex(index));
        hand_out(&mut node);
    }
    counts
}

#[test]
fn no_more_is_handed_out_than_may_be_unapplied_and_one_entry_in_any_case() {
    assert_eq!(handed_out_within(1_000), [1, 6, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(handed_out_within(3 * 35), [1, 2, 1, 0, 2, 1, 0, 0, 0]);
    assert_eq!(handed_out_within(2 * 35), [1, 1, 1, 1, 1, 1, 1, 0, 0]);
    assert_eq!(handed_out_within(1), [1, 0, 1, 1, 1, 1, 1, 1, 0]);
}

/// Storage throws the file of the first away when it installs the second, so the state machine must have
/// been restored from the first by then.
#[test]
fn a_second_snapshot_is_installed_only_when_the_state_machine_was_restored_from_the_first() {
    let (first, second) = (snapshot(5, 1, b"first"), snapshot(9, 1, b"second"));
    let mut server = Server::start(config(1), Disk::new(voters(3)));
    server.receive_from(2, chunk(1, &first, 0, b"first"));
    server.persist_all();
    server.receive_from(2, chunk(1, &second, 0, b"second"));
    server.persist_all();
    assert_eq!(server.node.snapshot(), &first);
    assert_eq!(server.unanswered(), 1, "the sender waits");
    server.apply();
    server.persist_all();
    server.apply();
    assert_eq!(server.node.snapshot(), &second);
    assert_eq!(server.machine.lines, b"second");
    assert_eq!(server.unanswered(), 0);
}

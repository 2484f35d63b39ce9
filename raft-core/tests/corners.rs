//! Corners: cases that went wrong once, or nearly. Each test tells the shortest story that shows it.

mod common;

use common::cluster::Cluster;
use common::config;
use common::server::Happening;
use raft_core::{Config, Message, NodeId, ProgressState, ReadOutcome};

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
    let states = cluster.server(1).node.peer_progress();
    assert!(
        states
            .iter()
            .all(|(_, _, state)| *state == ProgressState::Replicate)
    );
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

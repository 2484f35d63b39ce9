//! The Raft paper (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", extended
//! version), claim by claim: one test each, in the paper's order. `thesis.rs` does the same for the thesis.

use crate::common::cluster::Cluster;
use crate::common::disk::Disk;
use crate::common::messages::{
    answer_to_round, append, chunk, matched, snapshot, snapshot_answer, timeout_now, vote, vote_request,
};
use crate::common::server::{Happening, Server};
use crate::common::{
    ELECTION_TIMEOUT_MAX, ELECTION_TIMEOUT_MIN, command, config, entries, entry, plain_raft, voters,
};
use raft_core::{
    AppendOutcome, Config, LogIndex, Message, NodeId, Payload, ProgressState, ProposeError, ReadId,
    ReadOutcome, Role, SnapshotOutcome, Term,
};

/// Server 1 of a cluster of three, as plain Raft.
fn server_1(disk: Disk) -> Server {
    Server::start(plain_raft(1), disk)
}

fn disk() -> Disk {
    Disk::new(voters(3))
}

/// Server 1 of three as the leader of the term after its disk's, its first entries not yet answered.
fn leader_1(disk: Disk) -> Server {
    let mut server = server_1(disk);
    stand_for_election(&mut server);
    let term = server.node.soft_state().term;
    server.receive_from(2, vote(term.get(), true));
    assert_eq!(server.node.role(), Role::Leader);
    server.persist_all();
    server.sent();
    server
}

fn stand_for_election(server: &mut Server) {
    while server.node.role() != Role::Candidate {
        server.tick_election();
    }
    server.persist_all();
}

fn log_terms(server: &Server) -> Vec<u64> {
    let last = server.node.status().last_log_index.get();
    (1..=last)
        .map(|index| server.node.term_at(LogIndex(index)).unwrap().get())
        .collect()
}

fn append_answers(messages: &[Message]) -> Vec<AppendOutcome> {
    let answer = |message: &Message| match message {
        Message::AppendEntriesResponse(answer) => Some(answer.outcome),
        _ => None,
    };
    messages.iter().filter_map(answer).collect()
}

fn votes_granted(messages: &[Message]) -> Vec<bool> {
    let answer = |message: &Message| match message {
        Message::RequestVoteResponse(answer) => Some(answer.vote_granted),
        _ => None,
    };
    messages.iter().filter_map(answer).collect()
}

fn snapshot_answers(messages: &[Message]) -> Vec<SnapshotOutcome> {
    let answer = |message: &Message| match message {
        Message::InstallSnapshotResponse(answer) => Some(answer.outcome),
        _ => None,
    };
    messages.iter().filter_map(answer).collect()
}

mod section_5_1_basics {
    use super::*;

    #[test]
    fn a_server_that_sees_a_larger_term_takes_it_on_and_becomes_a_follower() {
        for message in [
            vote_request(2, 7, 0, 0),
            append(7, (0, 0), vec![], 0),
            chunk(7, &snapshot(3, 1, b"x"), 0, b"x"),
            vote(7, false),
            matched(7, 0),
            snapshot_answer(7, 1, SnapshotOutcome::Installed),
            timeout_now(7),
        ] {
            let mut leader = leader_1(disk());
            leader.receive_from(2, message.clone());
            assert!(leader.node.soft_state().term >= Term(7), "{message:?}");
            assert_ne!(leader.node.role(), Role::Leader, "{message:?}");
        }
    }

    #[test]
    fn a_request_with_a_stale_term_is_rejected_with_the_current_one() {
        let mut server = server_1(disk().with_hard_state(5, None));
        server.receive_from(2, append(4, (0, 0), entries(1, &[4]), 1));
        server.receive_from(2, vote_request(2, 4, 9, 4));
        server.receive_from(2, chunk(4, &snapshot(3, 1, b"x"), 0, b"x"));
        let sent = server.sent();
        assert_eq!(append_answers(&sent), [AppendOutcome::Stale]);
        assert_eq!(votes_granted(&sent), [false]);
        assert_eq!(snapshot_answers(&sent), [SnapshotOutcome::Stale]);
        assert!(sent.iter().all(|message| match message {
            Message::AppendEntriesResponse(answer) => answer.term == Term(5),
            Message::RequestVoteResponse(answer) => answer.term == Term(5),
            Message::InstallSnapshotResponse(answer) => answer.term == Term(5),
            _ => false,
        }));
        assert!(log_terms(&server).is_empty());
        assert_eq!(server.node.soft_state().leader_id, None);
    }

    #[test]
    fn a_follower_is_passive_and_only_answers() {
        let mut server = server_1(disk());
        for round in 0..3 {
            for _ in 0..ELECTION_TIMEOUT_MIN - 1 {
                server.tick_election();
                server.tick_heartbeat();
            }
            server.receive_from(
                2,
                append(1, (round, u64::from(round > 0)), entries(round + 1, &[1]), round),
            );
            server.persist_all();
            let sent = server.sent();
            assert_eq!(append_answers(&sent).len(), 1);
            assert_eq!(sent.len(), 1, "nothing that is no answer: {sent:?}");
        }
    }

    #[test]
    fn a_candidate_that_learns_of_a_larger_term_becomes_a_follower_and_no_term_ever_falls() {
        let mut server = server_1(disk());
        stand_for_election(&mut server);
        server.receive_from(2, vote(9, false));
        assert_eq!(server.node.role(), Role::Follower);
        for stale in [
            append(3, (0, 0), vec![], 0),
            vote_request(2, 8, 9, 8),
            vote(2, true),
            timeout_now(1),
        ] {
            server.receive_from(2, stale.clone());
            assert_eq!(server.node.soft_state().term, Term(9), "{stale:?}");
        }
    }
}

#[path = "paper/section_5_1.rs"]
mod section_5_1_calls;

#[path = "paper/section_5_2.rs"]
mod section_5_2_leader_election;

#[path = "paper/section_5_3.rs"]
mod section_5_3_log_replication;

#[path = "paper/section_5_4.rs"]
mod section_5_4_safety;

mod section_5_5_crashes {
    use super::*;

    #[test]
    fn a_leader_tries_again_until_a_follower_that_was_down_has_everything() {
        let mut cluster = Cluster::new(3, config);
        cluster.elect(1);
        cluster.crash(3);
        cluster.propose(1, "while 3 is down");
        cluster.pass(5 * ELECTION_TIMEOUT_MAX);
        cluster.restart(3);
        cluster.pass(3);
        assert!(cluster.everybody_has("while 3 is down"));
    }

    #[test]
    fn requests_that_arrive_twice_do_no_harm_and_are_both_answered() {
        let mut cluster = Cluster::new(3, config);
        cluster.time_out(1);
        cluster.propose(1, "x");
        for _ in 0..20 {
            let twice: Vec<_> = cluster.network.iter().cloned().collect();
            cluster.network.extend(twice);
            cluster.network.truncate(50);
            cluster.deliver_round();
            for id in 1..=3 {
                cluster.with(NodeId(id), Server::persist_all);
            }
        }
        cluster.settle();
        assert_eq!(cluster.leader(), Some(NodeId(1)));
        assert!((1..=3).all(|id| cluster.server(id).unanswered() == 0));
    }
}

#[path = "paper/section_5_6.rs"]
mod section_5_6_timing;

mod section_6_configuration {
    use super::*;

    #[test]
    fn the_first_leader_puts_the_members_into_the_log() {
        let mut cluster = Cluster::new(3, config);
        cluster.elect(1);
        let payloads: Vec<_> = cluster
            .server(2)
            .disk
            .entries()
            .iter()
            .map(|entry| &entry.payload)
            .collect();
        let [Payload::Noop { leader_id, .. }, Payload::Configuration(named)] = payloads[..] else {
            panic!("{payloads:?}");
        };
        assert_eq!((*leader_id, named), (NodeId(1), &voters(3)));
        cluster.elect(2);
        assert_eq!(cluster.status(2).last_log_index, LogIndex(3), "once");
    }
}

#[path = "paper/section_7.rs"]
mod section_7_log_compaction;

#[path = "paper/section_8.rs"]
mod section_8_client_interaction;

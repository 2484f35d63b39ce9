//! The Raft paper (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", extended
//! version), claim by claim: one test each, in the paper's order. `thesis.rs` does the same for the thesis.

mod common;

use common::cluster::Cluster;
use common::disk::Disk;
use common::messages::{
    answer_to_round, append, chunk, matched, snapshot, snapshot_answer, timeout_now, vote, vote_request,
};
use common::server::{Happening, Server};
use common::{ELECTION_TIMEOUT_MAX, ELECTION_TIMEOUT_MIN, command, config, entries, plain_raft, voters};
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
}

mod section_5_2_leader_election {
    use super::*;

    #[test]
    fn a_server_starts_as_a_follower() {
        let server = server_1(disk().with_hard_state(3, Some(1)));
        assert_eq!(server.node.role(), Role::Follower);
        assert_eq!(server.node.soft_state().term, Term(3));
    }

    #[test]
    fn a_follower_stays_one_while_it_hears_from_a_leader() {
        let mut server = server_1(disk());
        for _ in 0..10 {
            for _ in 1..ELECTION_TIMEOUT_MIN {
                server.tick_election();
            }
            server.receive_from(2, append(1, (0, 0), vec![], 0));
            server.persist_all();
        }
        assert_eq!(server.node.role(), Role::Follower);
        assert_eq!(server.node.soft_state().term, Term(1));
    }

    #[test]
    fn a_leader_sends_heartbeats_to_all() {
        let mut leader = leader_1(disk());
        leader.tick_heartbeat();
        let heartbeats = leader.sent().into_iter().filter(
            |message| matches!(message, Message::AppendEntries(request) if request.entries.is_empty()),
        );
        assert_eq!(heartbeats.count(), 2);
    }

    #[test]
    fn a_follower_that_hears_nothing_votes_for_itself_in_a_new_term_and_asks_all_others() {
        let mut server = server_1(
            disk()
                .with_hard_state(4, Some(3))
                .with_entries(entries(1, &[1, 3])),
        );
        stand_for_election(&mut server);
        assert_eq!(server.disk.hard_state().current_term, Term(5));
        assert_eq!(server.disk.hard_state().voted_for, Some(NodeId(1)));
        let asked = vote_request(1, 5, 2, 3);
        assert_eq!(server.sent(), [asked.clone(), asked]);
    }

    #[test]
    fn term_and_own_vote_are_on_disk_before_anyone_is_asked_and_before_the_vote_counts() {
        let mut alone = Server::start(plain_raft(1), Disk::new(voters(1)));
        while alone.node.role() == Role::Follower {
            alone.tick_election();
        }
        assert_eq!(alone.node.role(), Role::Candidate, "its only vote is not durable");
        alone.persist(1);
        assert_eq!(alone.node.role(), Role::Leader);

        let mut server = server_1(disk());
        while server.node.role() == Role::Follower {
            server.tick_election();
        }
        assert_eq!(server.sent(), []);
        server.persist(1);
        assert_eq!(server.sent().len(), 2);
    }

    #[test]
    fn a_candidate_wins_with_the_votes_of_a_majority() {
        for (servers, votes_of_others, wins) in [
            (3, 0, false),
            (3, 1, true),
            (5, 1, false),
            (5, 2, true),
            (7, 2, false),
            (7, 3, true),
        ] {
            let mut server = Server::start(plain_raft(1), Disk::new(voters(servers)));
            stand_for_election(&mut server);
            for voter in 2..=servers {
                let granted = voter < 2 + votes_of_others;
                server.receive_from(voter, vote(1, granted));
                server.receive_from(voter, vote(1, granted)); // a duplicate counts once
            }
            let role = if wins { Role::Leader } else { Role::Candidate };
            assert_eq!(server.node.role(), role, "{votes_of_others} of {servers}");
        }
    }

    #[test]
    fn votes_of_an_earlier_term_do_not_count() {
        let mut server = server_1(disk().with_hard_state(4, None));
        stand_for_election(&mut server);
        server.receive_from(2, vote(4, true));
        assert_eq!(server.node.role(), Role::Candidate);
    }

    #[test]
    fn a_server_votes_once_in_a_term_first_come_first_served_even_across_a_crash() {
        let mut server = server_1(disk());
        server.receive_from(2, vote_request(2, 1, 0, 0));
        server.receive_from(3, vote_request(3, 1, 0, 0));
        server.receive_from(2, vote_request(2, 1, 0, 0));
        server.persist_all();
        assert_eq!(
            votes_granted(&server.sent()),
            [false, true, true],
            "the refusal need not wait"
        );

        let mut server = server_1(server.crash());
        server.receive_from(3, vote_request(3, 1, 0, 0));
        server.persist_all();
        assert_eq!(votes_granted(&server.sent()), [false]);
    }

    #[test]
    fn a_vote_is_on_disk_before_it_is_told() {
        let mut server = server_1(disk());
        server.receive_from(2, vote_request(2, 1, 0, 0));
        assert_eq!(server.sent(), []);
        server.persist(1);
        assert_eq!(votes_granted(&server.sent()), [true]);
    }

    #[test]
    fn a_candidate_yields_to_a_leader_of_its_term_and_not_to_one_of_an_older() {
        let mut server = server_1(disk().with_hard_state(4, None));
        stand_for_election(&mut server);
        server.receive_from(2, append(4, (0, 0), vec![], 0));
        assert_eq!(server.node.role(), Role::Candidate);
        server.receive_from(2, append(5, (0, 0), vec![], 0));
        assert_eq!(server.node.role(), Role::Follower);
        assert_eq!(server.node.soft_state().leader_id, Some(NodeId(2)));
    }

    #[test]
    fn after_a_split_vote_the_candidates_time_out_and_stand_again_in_a_new_term() {
        let mut cluster = Cluster::new(3, plain_raft);
        cluster.isolate(3);
        cluster.time_out_alone(1);
        cluster.time_out_alone(2);
        cluster.settle();
        assert_eq!(
            (cluster.role(1), cluster.role(2)),
            (Role::Candidate, Role::Candidate)
        );
        cluster.pass(5 * ELECTION_TIMEOUT_MAX);
        let leader = cluster.leader().expect("timeouts differ sooner or later");
        assert!(cluster.term(leader.get()) > Term(1));
    }

    #[test]
    fn election_timeouts_are_drawn_anew_from_the_whole_range() {
        let mut server = server_1(disk());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let term = server.node.soft_state().term;
            let mut ticks = 0;
            while server.node.soft_state().term == term {
                server.tick_election();
                ticks += 1;
            }
            server.persist_all();
            seen.insert(ticks);
        }
        assert!(seen.into_iter().eq(ELECTION_TIMEOUT_MIN..=ELECTION_TIMEOUT_MAX));
    }
}

mod section_5_3_log_replication {
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
}

mod section_5_4_safety {
    use super::*;

    #[test]
    fn section_5_4_1_a_voter_refuses_a_candidate_whose_log_is_behind_its_own() {
        let ours = entries(1, &[1, 2, 2]);
        for ((last_index, last_term), granted) in [
            ((3, 2), true),
            ((4, 2), true),
            ((1, 3), true),
            ((2, 2), false),
            ((9, 1), false),
            ((0, 0), false),
        ] {
            let mut server = server_1(disk().with_hard_state(3, None).with_entries(ours.clone()));
            server.receive_from(2, vote_request(2, 4, last_index, last_term));
            server.persist_all();
            assert_eq!(
                votes_granted(&server.sent()),
                [granted],
                "{last_index}@{last_term}"
            );
        }
    }

    #[test]
    fn section_5_4_2_an_entry_of_an_older_term_is_not_committed_by_counting() {
        let mut leader = leader_1(disk().with_hard_state(1, None).with_entries(entries(1, &[1, 1])));
        leader.receive_from(2, matched(2, 2));
        leader.receive_from(3, matched(2, 2));
        assert_eq!(
            leader.node.status().commit_index,
            LogIndex(0),
            "everybody has it, and yet"
        );
        leader.receive_from(2, matched(2, 3));
        assert_eq!(
            leader.node.status().commit_index,
            LogIndex(3),
            "the entry of its own term counts for all"
        );
    }

    /// Figure 8, (a) to (e): server 1 replicates an entry of term 2 to a majority while it leads term 4, and
    /// server 5, with an entry of term 3, may still replace it.
    #[test]
    fn section_5_4_2_figure_8() {
        let disk_of = |term, terms: &[u64]| {
            Disk::new(voters(5))
                .with_hard_state(term, None)
                .with_entries(entries(1, terms))
        };
        let disks = [
            (1, disk_of(3, &[1, 2])),
            (2, disk_of(3, &[1, 2])),
            (3, disk_of(3, &[1])),
            (4, disk_of(3, &[1])),
            (5, disk_of(3, &[1, 3])),
        ];
        let mut cluster = Cluster::from_disks(disks.into_iter().collect(), |id| Config {
            max_append_bytes: 1,
            ..plain_raft(id)
        });
        cluster.isolate(5);
        cluster.time_out(1);
        let is_of_term_4 = |envelope: &raft_core::Envelope| {
            matches!(&envelope.message, Message::AppendEntries(request)
                if request.entries.iter().any(|entry| entry.term == Term(4)))
        };
        for _ in 0..20 {
            cluster.lose(is_of_term_4);
            cluster.heartbeat(1);
            for id in 1..=5 {
                cluster.with(NodeId(id), Server::persist_all);
            }
            cluster.deliver_round();
        }
        let has_entry_2 = |id| cluster.server(id).disk.holds(LogIndex(2), Term(2));
        assert!((1..=3).all(has_entry_2), "(c): a majority has it");
        assert_eq!(cluster.commit_index(1), LogIndex(0));

        cluster.crash(1);
        cluster.network.clear();
        cluster.heal();
        cluster.time_out_alone(5); // for term 4, in which they voted for 1
        cluster.settle();
        cluster.time_out_alone(5);
        cluster.settle();
        assert_eq!(cluster.leader(), Some(NodeId(5)));
        cluster.restart(1);
        cluster.pass(2);
        assert!(
            (1..=5).all(|id| cluster.server(id).disk.holds(LogIndex(2), Term(3))),
            "(d): it was replaced, and nobody had been told that it was committed"
        );
    }

    #[test]
    fn section_5_4_3_no_leader_is_elected_without_every_committed_entry() {
        let mut cluster = Cluster::new(3, plain_raft);
        cluster.elect(1);
        cluster.isolate(3);
        cluster.propose(1, "committed");
        cluster.settle();
        cluster.crash(1);
        cluster.heal();
        for _ in 0..3 {
            cluster.time_out_alone(3);
            cluster.settle();
            assert_ne!(cluster.leader(), Some(NodeId(3)));
        }
        cluster.elect(2);
        cluster.pass(2);
        assert_eq!(cluster.lines(3), ["committed"]);
    }
}

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
        assert_eq!(payloads, [&Payload::Noop, &Payload::Configuration(voters(3))]);
        cluster.elect(2);
        assert_eq!(cluster.status(2).last_log_index, LogIndex(3), "once");
    }
}

mod section_7_log_compaction {
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
    fn a_snapshot_stands_in_for_the_log_in_elections() {
        let mut server = server_1(disk().with_snapshot(snapshot(5, 3, b"x"), b"x".to_vec()));
        server.receive_from(2, vote_request(2, 4, 4, 3));
        server.receive_from(2, vote_request(2, 5, 5, 3));
        server.persist_all();
        assert_eq!(votes_granted(&server.sent()), [false, true]);
    }
}

mod section_8_client_interaction {
    use super::*;

    #[test]
    fn who_is_not_the_leader_names_the_one_it_knows() {
        let mut server = server_1(disk());
        server.receive_from(2, append(1, (0, 0), vec![], 0));
        let refused = ProposeError::NotLeader {
            leader_id: Some(NodeId(2)),
        };
        assert_eq!(server.node.propose("x".into()), Err(refused));
        assert_eq!(server.node.read_index(ReadId(1)), Err(refused));
    }

    #[test]
    fn a_new_leader_begins_with_a_no_op_and_so_commits_what_was_there_before() {
        let mut cluster = Cluster::new(3, config);
        cluster.elect(1);
        cluster.propose(1, "of term 1");
        cluster.lose(|envelope| envelope.to == NodeId(3));
        cluster.with(NodeId(2), |_| ());
        cluster.deliver_round();
        cluster.with(NodeId(2), Server::persist_all);
        cluster.crash(1);
        cluster.network.clear();
        cluster.elect(2);
        assert_eq!(cluster.lines(2), ["of term 1"]);
        let last = cluster.server(2).disk.entries().last().unwrap();
        assert_eq!((&last.payload, last.term), (&Payload::Noop, Term(2)));
    }

    #[test]
    fn a_new_leader_serves_no_read_before_its_no_op_is_committed() {
        let mut leader = leader_1(disk().with_hard_state(1, None).with_entries(entries(1, &[1, 1])));
        leader.read(1);
        leader.tick_heartbeat();
        leader.receive_from(2, answer_to_round(2, 2, 0));
        leader.receive_from(3, answer_to_round(2, 2, 1));
        assert_eq!(confirmed_at(&mut leader), None);
        leader.receive_from(2, matched(2, 3));
        assert_eq!(leader.node.status().commit_index, LogIndex(3));
        leader.receive_from(2, answer_to_round(2, 3, 0));
        assert_eq!(
            confirmed_at(&mut leader),
            None,
            "that answer left before the round began"
        );
        leader.receive_from(2, answer_to_round(2, 3, 1));
        assert_eq!(confirmed_at(&mut leader), Some(LogIndex(3)));
    }

    fn confirmed_at(server: &mut Server) -> Option<LogIndex> {
        let confirmed = |happening| match happening {
            Happening::Read(ReadOutcome::Confirmed { index, .. }) => Some(index),
            _ => None,
        };
        server.take_happenings().into_iter().find_map(confirmed)
    }

    #[test]
    fn a_leader_that_was_replaced_unawares_serves_no_read() {
        let mut cluster = Cluster::new(3, config);
        cluster.elect(1);
        cluster.isolate(1);
        cluster.elect(2);
        cluster.propose(2, "unseen by 1");
        cluster.settle();
        assert_eq!(cluster.role(1), Role::Leader, "it does not know");
        cluster.read(1).expect("taken");
        cluster.settle();
        cluster.heal();
        cluster.pass(2);
        assert!(cluster.story.iter().any(|line| line == "1 drops read 1"));
    }
}

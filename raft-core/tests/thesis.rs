//! Ongaro's thesis ("Consensus: Bridging Theory and Practice"), claim by claim, for the parts that go beyond
//! the paper: one test each, in the thesis' order.

use crate::common::cluster::Cluster;
use crate::common::disk::Disk;
use crate::common::messages::{
    answer_to_round, append, matched, pre_vote, timeout_now, vote_request, vote_request_of_transfer,
};
use crate::common::server::{Happening, Server};
use crate::common::{self, ELECTION_TIMEOUT_MAX, ELECTION_TIMEOUT_MIN, config, entries, plain_raft, voters};
use raft_core::{
    Config, Configuration, Entry, Incarnation, LogIndex, Message, NodeId, ProposeError, ReadId, ReadOutcome,
    Role, Term, Ticks,
};

fn granted(messages: &[Message]) -> Vec<bool> {
    let answer = |message: &Message| match message {
        Message::RequestVoteResponse(answer) | Message::PreVoteResponse(answer) => Some(answer.vote_granted),
        _ => None,
    };
    messages.iter().filter_map(answer).collect()
}

fn count(messages: &[Message], is_meant: impl Fn(&Message) -> bool) -> usize {
    messages.iter().filter(|message| is_meant(message)).count()
}

/// A cluster of three with the thesis' extensions, led by 1.
fn led_by_1() -> Cluster {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(1);
    cluster
}

mod section_3_10_leadership_transfer {
    use super::*;

    #[test]
    fn the_target_gets_what_it_lacks_and_then_starts_an_election_at_once() {
        let mut cluster = led_by_1();
        cluster.propose(1, "x");
        cluster.isolate(3);
        cluster.settle();
        let target = cluster.with(NodeId(1), Server::transfer_leadership);
        assert_eq!(target, Some(Some(NodeId(2))), "the furthest");
        cluster.settle();
        assert_eq!(cluster.leader(), Some(NodeId(2)));
        assert_eq!(cluster.role(1), Role::Follower);
        assert_eq!(cluster.term(2), Term(2), "no timeout and no pre-vote in between");
    }

    #[test]
    fn the_target_is_one_that_was_heard_from_lately() {
        let mut cluster = led_by_1();
        cluster.isolate(3);
        cluster.pass(2 * ELECTION_TIMEOUT_MIN);
        let target = cluster.with(NodeId(1), Server::transfer_leadership);
        assert_eq!(target, Some(Some(NodeId(2))), "3 has as much");
    }

    #[test]
    fn no_commands_are_taken_meanwhile() {
        let mut cluster = led_by_1();
        cluster.with(NodeId(1), Server::transfer_leadership);
        let refused = cluster.with(NodeId(1), |server| server.node.propose("x".into()));
        assert_eq!(refused, Some(Err(ProposeError::LeadershipTransfer)));
    }

    #[test]
    fn a_transfer_that_takes_an_election_timeout_is_given_up() {
        let mut cluster = led_by_1();
        cluster.with(NodeId(1), Server::transfer_leadership);
        cluster.lose(|envelope| matches!(envelope.message, Message::TimeoutNow(_)));
        cluster.pass(ELECTION_TIMEOUT_MIN);
        assert_eq!(cluster.leader(), Some(NodeId(1)));
        assert!(cluster.propose(1, "x").is_some());
    }

    #[test]
    fn an_old_leaders_request_to_take_over_is_void() {
        let mut server = Server::start(config(1), Disk::new(voters(3)).with_hard_state(5, None));
        server.receive_from(2, timeout_now(4));
        server.persist_all();
        assert_eq!(server.node.soft_state().term, Term(5));
        assert_eq!(server.unanswered(), 0);
    }
}

#[path = "thesis/section_4_1.rs"]
mod section_4_1_configurations;

mod section_4_2_1_catching_up_new_servers {
    use super::*;

    #[test]
    fn a_learner_stands_for_no_election() {
        let learner = Configuration::of_voters([NodeId(2), NodeId(3)]).with_learners([NodeId(1)]);
        let learner = learner.with_incarnation(NodeId(1), Incarnation::ZERO);
        let mut server = Server::start(plain_raft(1), Disk::new(learner));
        (0..5 * ELECTION_TIMEOUT_MAX).for_each(|_| server.tick_election());
        assert_eq!(server.node.role(), Role::Follower);
    }
}

mod section_4_2_3_disruptive_servers {
    use super::*;

    #[test]
    fn who_hears_from_a_leader_ignores_candidates_and_keeps_its_term() {
        let mut server = Server::start(config(1), Disk::new(voters(3)));
        server.receive_from(2, append(1, (0, 0), vec![], 0));
        server.persist_all();
        server.sent();
        server.receive_from(3, vote_request(3, 9, 9, 9));
        assert_eq!(granted(&server.sent()), [false]);
        assert_eq!(server.node.soft_state().term, Term(1));
        for _ in 0..ELECTION_TIMEOUT_MIN {
            server.tick_election();
        }
        server.receive_from(3, vote_request(3, 9, 9, 9));
        server.persist_all();
        assert!(
            granted(&server.sent()).contains(&true),
            "the leader has been silent for long enough"
        );
    }

    #[test]
    fn a_leader_that_reaches_its_followers_ignores_candidates() {
        let mut cluster = led_by_1();
        cluster.with(NodeId(1), |server| {
            server.receive_from(3, vote_request(3, 9, 9, 9));
        });
        cluster.settle();
        assert_eq!(cluster.leader(), Some(NodeId(1)));
        assert_eq!(cluster.term(1), Term(1));
    }

    #[test]
    fn a_candidate_to_whom_leadership_is_handed_over_is_not_ignored() {
        let mut server = Server::start(config(1), Disk::new(voters(3)));
        server.receive_from(2, append(1, (0, 0), vec![], 0));
        server.receive_from(3, vote_request_of_transfer(3, 2, (0, 0)));
        server.persist_all();
        assert_eq!(granted(&server.sent()), [true]);
    }
}

mod section_6_2_check_quorum {
    use super::*;

    #[test]
    fn a_leader_that_hears_no_majority_for_an_election_timeout_steps_down() {
        let mut cluster = led_by_1();
        cluster.isolate(1);
        cluster.pass(2 * ELECTION_TIMEOUT_MIN);
        assert_eq!(cluster.role(1), Role::Follower);
        assert_eq!(cluster.term(1), Term(1));
    }

    #[test]
    fn a_leader_that_hears_a_majority_stays() {
        let mut cluster = Cluster::new(5, config);
        cluster.elect(1);
        cluster.crash(4);
        cluster.crash(5);
        cluster.pass(5 * ELECTION_TIMEOUT_MAX);
        assert_eq!(cluster.leader(), Some(NodeId(1)));
        assert_eq!(cluster.term(1), Term(1));
    }

    /// Not in the thesis, and in its spirit: such a leader would acknowledge nothing and let nobody else.
    #[test]
    fn a_leader_whose_own_disk_stands_still_lets_another_lead() {
        let mut cluster = led_by_1();
        cluster.hold_persists(1);
        cluster.propose(1, "x");
        cluster.pass(5 * ELECTION_TIMEOUT_MAX);
        let leader = cluster.leader().expect("the others are well");
        assert_ne!(leader, NodeId(1));
        assert!(cluster.propose(leader.get(), "y").is_some());
        cluster.settle();
        assert!(cluster.lines(leader.get()).contains(&"y".to_owned()));
    }
}

#[path = "thesis/section_6_3.rs"]
mod section_6_3_sessions;

mod section_6_4_read_only_queries {
    use super::*;

    /// Server 1 as the leader of term 1 with three entries committed.
    fn leader() -> Server {
        let mut cluster = led_by_1();
        cluster.propose(1, "x");
        cluster.settle();
        cluster.servers.remove(&NodeId(1)).expect("it is up")
    }

    fn confirmed(server: &mut Server) -> Vec<(u64, u64)> {
        let outcome = |happening| match happening {
            Happening::Read(ReadOutcome::Confirmed { id, index }) => Some((id.get(), index.get())),
            _ => None,
        };
        server.take_happenings().into_iter().filter_map(outcome).collect()
    }

    #[test]
    fn one_round_of_heartbeats_confirms_all_reads_that_wait() {
        let mut leader = leader();
        leader.sent();
        for read in 1..=3 {
            leader.node.read_index(ReadId(read)).unwrap();
        }
        leader.tick_election(); // the next batch
        let is_round_1 =
            |message: &Message| matches!(message, Message::AppendEntries(m) if m.read_round == 1);
        assert_eq!(count(&leader.sent(), is_round_1), 2);
        leader.receive_from(2, answer_to_round(1, 3, 1));
        assert_eq!(confirmed(&mut leader), [(1, 3), (2, 3), (3, 3)]);
    }

    #[test]
    fn a_read_that_came_after_the_round_began_waits_for_the_next() {
        let mut leader = leader();
        leader.read(1);
        leader.read(2);
        leader.receive_from(3, answer_to_round(1, 3, 1));
        assert_eq!(confirmed(&mut leader), [(1, 3)]);
        leader.receive_from(2, answer_to_round(1, 3, 1));
        assert_eq!(confirmed(&mut leader), [], "an answer to the round before");
        leader.receive_from(2, answer_to_round(1, 3, 2));
        assert_eq!(confirmed(&mut leader), [(2, 3)]);
    }

    #[test]
    fn the_answers_of_one_follower_count_once() {
        let mut cluster = Cluster::new(5, config);
        cluster.elect(1);
        let mut leader = cluster.servers.remove(&NodeId(1)).unwrap();
        leader.read(1);
        leader.receive_from(2, answer_to_round(1, 2, 1));
        leader.receive_from(2, answer_to_round(1, 2, 1));
        assert_eq!(confirmed(&mut leader), []);
        leader.receive_from(3, answer_to_round(1, 2, 1));
        assert_eq!(confirmed(&mut leader), [(1, 2)]);
    }

    #[test]
    fn the_read_index_is_the_commit_index_when_the_round_began() {
        let mut leader = leader();
        leader.propose("y");
        leader.read(1);
        leader.persist_all();
        leader.receive_from(3, matched(1, 4));
        assert_eq!(leader.node.status().commit_index, LogIndex(4));
        leader.receive_from(2, answer_to_round(1, 3, 1));
        assert_eq!(confirmed(&mut leader), [(1, 3)], "\"y\" was concurrent");
    }

    #[test]
    fn a_lost_round_is_made_up_for_by_the_next_heartbeat() {
        let mut cluster = led_by_1();
        cluster.read(1);
        cluster.network.clear();
        cluster.settle();
        assert_eq!(cluster.invariants.open_reads(), 1);
        cluster.heartbeat(1);
        cluster.settle();
        assert_eq!(cluster.invariants.open_reads(), 0);
    }

    #[test]
    fn a_leader_alone_needs_to_ask_nobody() {
        let mut cluster = Cluster::new(1, config);
        cluster.elect(1);
        cluster.read(1);
        assert_eq!(cluster.invariants.open_reads(), 0);
    }

    #[test]
    fn reads_that_wait_are_dropped_when_leadership_is_lost() {
        let mut leader = leader();
        leader.read(1);
        leader.read(2);
        leader.receive_from(2, vote_request_of_transfer(2, 2, (3, 1)));
        let dropped =
            |happening: &Happening| matches!(happening, Happening::Read(ReadOutcome::Dropped { .. }));
        assert_eq!(
            leader
                .take_happenings()
                .iter()
                .filter(|happening| dropped(happening))
                .count(),
            2
        );
    }
}

#[path = "thesis/section_6_4_1.rs"]
mod section_6_4_1_leases;

mod section_9_6_pre_vote {
    use super::*;

    #[test]
    fn a_pre_vote_changes_neither_the_candidates_term_nor_the_voters() {
        let mut cluster = Cluster::new(3, config);
        cluster.isolate(1);
        for _ in 0..5 {
            cluster.time_out_alone(1);
        }
        assert_eq!((cluster.role(1), cluster.term(1)), (Role::PreCandidate, Term(0)));
        let mut voter = Server::start(config(2), Disk::new(voters(3)));
        voter.receive_from(1, pre_vote(1, 1, (0, 0)));
        voter.receive_from(3, pre_vote(3, 1, (0, 0)));
        assert_eq!(granted(&voter.sent()), [true, true], "it is no promise");
        assert_eq!(voter.node.soft_state().term, Term(0));
    }

    #[test]
    fn a_pre_vote_is_refused_to_a_log_that_is_behind_and_while_there_is_a_leader() {
        let disk = Disk::new(voters(3))
            .with_hard_state(1, None)
            .with_entries(entries(1, &[1, 1]));
        let mut voter = Server::start(config(1), disk);
        voter.receive_from(3, pre_vote(3, 2, (1, 1)));
        voter.receive_from(3, pre_vote(3, 2, (2, 1)));
        voter.receive_from(3, pre_vote(3, 1, (2, 1)));
        assert_eq!(granted(&voter.sent()), [false, true, false]);
        voter.receive_from(2, append(1, (2, 1), vec![], 0));
        voter.receive_from(3, pre_vote(3, 2, (2, 1)));
        assert_eq!(granted(&voter.sent()), [false]);
    }

    #[test]
    fn a_server_that_was_cut_off_does_not_unseat_the_leader_when_it_comes_back() {
        let mut cluster = led_by_1();
        cluster.isolate(3);
        cluster.pass(10 * ELECTION_TIMEOUT_MAX);
        cluster.heal();
        cluster.pass(2 * ELECTION_TIMEOUT_MAX);
        assert_eq!(cluster.leader(), Some(NodeId(1)));
        assert!((1..=3).all(|id| cluster.term(id) == Term(1)));
    }

    #[test]
    fn one_with_a_lower_term_learns_the_present_one_and_can_then_win() {
        let behind = Disk::new(voters(3))
            .with_hard_state(1, None)
            .with_entries(entries(1, &[1, 1]));
        let ahead = Disk::new(voters(3))
            .with_hard_state(7, None)
            .with_entries(entries(1, &[1]));
        let disks = [(1, behind), (2, ahead.clone()), (3, ahead)]
            .into_iter()
            .collect();
        let mut cluster = Cluster::from_disks(disks, config);
        cluster.crash(3);
        cluster.pass(10 * ELECTION_TIMEOUT_MAX);
        assert_eq!(cluster.leader(), Some(NodeId(1)), "only its log is up to date");
    }
}

mod section_10_2_1_writing_in_parallel {
    use super::*;

    #[test]
    fn the_leader_sends_before_its_own_write_and_may_commit_without_it() {
        let mut cluster = Cluster::new(3, plain_raft);
        cluster.elect(1);
        cluster.hold_persists(1);
        cluster.propose(1, "x");
        cluster.settle();
        assert_eq!(cluster.commit_index(1), LogIndex(3), "two of three disks have it");
        assert_eq!(
            cluster.lines(1),
            [""; 0],
            "yet it applies nothing it could forget"
        );
        cluster.release_persists(1);
        cluster.settle();
        assert_eq!(cluster.lines(1), ["x"]);
    }

    #[test]
    fn the_leader_does_not_count_itself_before_its_write_is_durable() {
        let mut cluster = Cluster::new(3, plain_raft);
        cluster.elect(1);
        cluster.crash(3);
        cluster.hold_persists(1);
        cluster.propose(1, "x");
        cluster.settle();
        assert_eq!(cluster.commit_index(1), LogIndex(2));
        cluster.release_persists(1);
        cluster.settle();
        assert_eq!(cluster.commit_index(1), LogIndex(3));

        let mut alone = Cluster::new(1, plain_raft);
        alone.elect(1);
        alone.hold_persists(1);
        alone.propose(1, "x");
        alone.settle();
        assert_eq!(alone.lines(1), [""; 0]);
    }

    #[test]
    fn messages_follow_each_other_without_waiting_for_answers_up_to_the_window() {
        let mut cluster = Cluster::new(3, |id| Config {
            max_inflight_messages: 4,
            max_append_bytes: 1,
            ..config(id)
        });
        cluster.elect(1);
        for _ in 0..10 {
            cluster.propose(1, "x");
        }
        let to_2 = |cluster: &Cluster| {
            cluster
                .network
                .iter()
                .filter(|message| message.to == NodeId(2))
                .count()
        };
        assert_eq!(to_2(&cluster), 4);
        cluster.settle();
        assert_eq!(cluster.commit_index(1), LogIndex(12));
    }

    #[test]
    fn each_entry_crosses_to_each_follower_once_and_an_idle_leader_only_beats() {
        let mut cluster = led_by_1();
        let from = cluster.story.len();
        for number in 0..10 {
            cluster.propose(1, &format!("command {number}"));
        }
        cluster.settle();
        cluster.pass(5);
        let crossings = cluster.story[from..]
            .iter()
            .filter(|line| line.contains("AppendEntries in") && line.contains("command"));
        assert_eq!(crossings.count(), 2 * 10);
        let from = cluster.history.len();
        cluster.pass(10);
        assert_eq!(
            cluster.history.len() - from,
            10 * 2 * 2,
            "a heartbeat and its answer, for each of two"
        );
    }

    #[test]
    fn a_leader_refuses_commands_when_too_much_is_uncommitted_and_takes_them_again_later() {
        let mut cluster = Cluster::new(3, |id| Config {
            max_uncommitted_bytes: 100,
            ..config(id)
        });
        cluster.elect(1);
        cluster.isolate(1);
        let taken = (0..10).take_while(|_| cluster.propose(1, "x").is_some());
        assert_eq!(taken.count(), 3, "each counts 33 bytes");
        let refused = cluster.with(NodeId(1), |server| server.node.propose("x".into()));
        assert_eq!(refused, Some(Err(ProposeError::TooManyUncommittedBytes)));
        cluster.heal();
        cluster.pass(2);
        assert!(cluster.propose(1, "x").is_some());
    }

    #[test]
    fn commands_may_fill_the_bound_on_what_is_uncommitted_and_one_alone_may_exceed_it() {
        let taken_within = |max_uncommitted_bytes: usize, commands: [&str; 3]| {
            let mut cluster = Cluster::new(3, |id| Config {
                max_uncommitted_bytes,
                ..config(id)
            });
            cluster.elect(1);
            commands.map(|command| cluster.propose(1, command).is_some())
        };
        let size = Entry::OVERHEAD_BYTES + 3;
        assert_eq!(taken_within(2 * size, ["abc"; 3]), [true, true, false]);
        assert_eq!(taken_within(2 * size - 1, ["abc"; 3]), [true, false, false]);
        assert_eq!(taken_within(1, ["a long one", "", ""]), [true, false, false]);
    }
}

//! Stores that count and stores that do not: the founding of a cluster, nodes that lost their disk, and how
//! they come back (see the module `standing` of the crate). One claim a test.

use crate::common::cluster::Cluster;
use crate::common::disk::Disk;
use crate::common::messages::append;
use crate::common::server::{Happening, Server};
use crate::common::{self, ELECTION_TIMEOUT_MAX, ELECTION_TIMEOUT_MIN, config, entries, plain_raft, voters};
use raft_core::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Config, Event, Incarnation, Leadership, LogIndex,
    Message, NodeId, ReadOutcome, Refusal, Role, Sender, Standing, Term, VoteResponse,
};

/// More than every wait of a founding or an election.
const A_WHILE: u64 = 8 * ELECTION_TIMEOUT_MAX;

/// A cluster that was started as a user starts one: all at once, on empty disks.
fn founded(count: u64) -> Cluster {
    let mut cluster = Cluster::unfounded(count, config);
    (1..=count).for_each(|id| cluster.restart(id));
    cluster.pass(A_WHILE);
    assert!(cluster.leader().is_some(), "{:#?}", cluster.story);
    cluster
}

fn leader(cluster: &Cluster) -> u64 {
    cluster.leader().expect("somebody leads").get()
}

fn followers(cluster: &Cluster) -> Vec<u64> {
    let leader = cluster.leader();
    cluster
        .ids()
        .into_iter()
        .filter(|id| Some(*id) != leader && cluster.servers.contains_key(id))
        .map(NodeId::get)
        .collect()
}

fn write(cluster: &mut Cluster, command: &str) {
    let leader = leader(cluster);
    cluster.propose(leader, command).expect("the leader takes it");
    cluster.pass(2);
}

fn registered(cluster: &Cluster, at: u64, id: u64) -> Option<Incarnation> {
    cluster.status(at).configuration.incarnation_of(NodeId(id))
}

fn is_committed(cluster: &Cluster, command: &str) -> bool {
    let leader = leader(cluster);
    cluster.lines(leader).iter().any(|line| line == command)
}

fn happened(cluster: &Cluster, id: u64, is_meant: impl Fn(&Event) -> bool) -> bool {
    cluster
        .history
        .iter()
        .any(|(who, what)| who.get() == id && matches!(what, Happening::Event(event) if is_meant(event)))
}

mod founding {
    use super::*;

    #[test]
    fn three_nodes_found_a_cluster_and_the_log_names_all_three_stores_before_any_command() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        for id in 1..=3 {
            for member in 1..=3 {
                assert_eq!(registered(&cluster, id, member), Some(Incarnation(member)));
            }
            assert_eq!(cluster.server(id).node.standing(), Standing::Founder);
        }
        let of_three = |event: &Event| matches!(event, Event::ClusterFounded { known: 3 });
        assert!((1..=3).any(|id| happened(&cluster, id, of_three)));
        let registry = cluster.disk(NodeId(1)).entries().iter().position(|entry| {
            matches!(&entry.payload, raft_core::Payload::Configuration(configuration) if configuration.is_founded())
        });
        let command = cluster
            .disk(NodeId(1))
            .entries()
            .iter()
            .position(|entry| matches!(entry.payload, raft_core::Payload::Command(_)));
        assert!(registry.unwrap() < command.unwrap());
    }

    #[test]
    fn two_of_three_found_it_after_a_short_wait_and_the_third_is_registered_when_it_comes() {
        let mut cluster = Cluster::unfounded(3, config);
        (1..=2).for_each(|id| cluster.restart(id));
        cluster.pass(A_WHILE);
        write(&mut cluster, "x");
        assert!(is_committed(&cluster, "x"));
        assert_eq!(registered(&cluster, 1, 3), None);
        cluster.restart(3);
        cluster.pass(ELECTION_TIMEOUT_MIN);
        assert_eq!(registered(&cluster, 1, 3), Some(Incarnation(3)));
        assert_eq!(cluster.server(3).node.standing(), Standing::Member);
        // And counts: with one of the founders gone, the other and the third go on.
        cluster.crash(2);
        cluster.pass(A_WHILE);
        write(&mut cluster, "y");
        assert!(is_committed(&cluster, "y"));
    }

    #[test]
    fn all_who_are_up_at_the_founding_count_at_once() {
        let cluster = founded(5);
        for id in 1..=5 {
            assert!(!happened(&cluster, id, |event| matches!(
                event,
                Event::IsNewcomer
            )));
        }
    }

    #[test]
    fn who_comes_while_two_of_three_wait_for_it_counts_at_once() {
        let mut cluster = Cluster::unfounded(3, config);
        (1..=2).for_each(|id| cluster.restart(id));
        cluster.pass(ELECTION_TIMEOUT_MAX);
        let could_win = |id| {
            happened(&cluster, id, |event| {
                matches!(event, Event::PreVoteStarted { .. })
            })
        };
        assert!(could_win(1) || could_win(2));
        assert_eq!(cluster.leader(), None, "it waits");
        cluster.restart(3);
        cluster.pass(A_WHILE);
        let stores = [1, 2, 3].map(|member| registered(&cluster, 1, member));
        assert_eq!(stores, [1, 2, 3].map(|member| Some(Incarnation(member))));
        assert_eq!(cluster.server(3).node.standing(), Standing::Founder);
    }

    #[test]
    fn one_of_three_founds_nothing() {
        let mut cluster = Cluster::unfounded(3, config);
        cluster.restart(1);
        cluster.pass(A_WHILE);
        assert_eq!(cluster.leader(), None);
    }

    #[test]
    fn a_node_that_missed_the_founding_does_not_vote_before_it_is_registered() {
        let mut cluster = Cluster::unfounded(3, config);
        (1..=2).for_each(|id| cluster.restart(id));
        cluster.pass(A_WHILE);
        write(&mut cluster, "x");
        // The leader alone sees the third, and the registration cannot be committed.
        let (leader, other) = (leader(&cluster), followers(&cluster)[0]);
        cluster.crash(other);
        cluster.restart(3);
        cluster.pass(5);
        assert_eq!(registered(&cluster, leader, 3), Some(Incarnation(3)), "proposed");
        assert_eq!(cluster.server(3).node.standing(), Standing::Newcomer);
        cluster.pass(A_WHILE);
        assert_eq!(cluster.leader(), None, "each founder is needed until then");
        cluster.restart(other);
        cluster.pass(A_WHILE);
        assert_eq!(cluster.server(3).node.standing(), Standing::Member);
    }
}

mod a_wiped_node {
    use super::*;

    #[test]
    fn is_refused_by_the_first_message_of_a_leader_and_acknowledges_nothing() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let wiped = followers(&cluster)[0];
        cluster.start_wiped(wiped, Standing::Founder);
        cluster.pass(2);
        let known_as = Incarnation(wiped);
        assert!(
            matches!(cluster.refusal(wiped), Some(Refusal::OtherData { known_as: told, .. }) if told == known_as)
        );
        assert!(cluster.disk(NodeId(wiped)).entries().is_empty());
        write(&mut cluster, "y");
        assert!(is_committed(&cluster, "y"), "the others go on");
    }

    #[test]
    fn is_refused_by_a_follower_when_no_leader_is_there() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let (old_leader, others) = (leader(&cluster), followers(&cluster));
        cluster.crash(old_leader);
        cluster.start_wiped(others[0], Standing::Founder);
        cluster.pass(A_WHILE);
        assert!(matches!(
            cluster.refusal(others[0]),
            Some(Refusal::OtherData { .. })
        ));
        assert_eq!(cluster.leader(), None);
    }

    /// The entry is on the leader and on the follower that is wiped. With the leader down, the other follower
    /// must not win by the vote of the one that forgot.
    #[test]
    fn does_not_cost_an_acknowledged_entry_while_the_leader_is_down() {
        let mut cluster = founded(3);
        write(&mut cluster, "before");
        let (old_leader, others) = (leader(&cluster), followers(&cluster));
        let (wiped, behind) = (others[0], others[1]);
        cluster.isolate(behind);
        cluster.propose(old_leader, "acknowledged").unwrap();
        cluster.settle();
        assert!(is_committed(&cluster, "acknowledged"));
        cluster.heal();
        cluster.network.clear();
        cluster.crash(old_leader);
        cluster.start_wiped(wiped, Standing::Founder);
        cluster.pass(A_WHILE);
        assert_eq!(cluster.leader(), None, "{:#?}", cluster.story);
        cluster.restart(old_leader);
        cluster.pass(A_WHILE);
        write(&mut cluster, "after");
        for id in [old_leader, behind] {
            let lines = cluster.lines(id);
            assert!(lines.contains(&"acknowledged".to_owned()) && lines.contains(&"after".to_owned()));
        }
    }

    #[test]
    fn does_not_win_by_votes_of_those_who_know_more() {
        let mut cluster = Cluster::unfounded(3, plain_raft);
        (1..=3).for_each(|id| cluster.restart(id));
        cluster.elect(1);
        write(&mut cluster, "x");
        cluster.crash(1);
        cluster.start_wiped(2, Standing::Founder);
        cluster.time_out_alone(2);
        cluster.settle();
        assert_ne!(cluster.role(2), Role::Leader);
        assert!(cluster.refusal(2).is_some());
    }

    #[test]
    fn gives_a_candidate_no_vote_that_counts() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let candidate = followers(&cluster)[0];
        let server = cluster.servers.get_mut(&NodeId(candidate)).unwrap();
        for _ in 0..=ELECTION_TIMEOUT_MAX {
            server.tick_election();
        }
        let term = server.node.soft_state().term.next();
        let voter = NodeId(candidate % 3 + 1);
        let wiped = Sender {
            incarnation: Incarnation(77),
            ..Sender::default()
        };
        let vote = |sender| VoteResponse {
            term,
            vote_granted: true,
            sender,
        };
        server.receive_from(voter.get(), Message::PreVoteResponse(vote(wiped)));
        assert_eq!(server.node.role(), Role::PreCandidate);
        let known = Sender {
            incarnation: Incarnation(voter.get()),
            ..Sender::default()
        };
        server.receive_from(voter.get(), Message::PreVoteResponse(vote(known)));
        server.persist_all();
        assert_eq!(server.node.role(), Role::Candidate);
        server.receive_from(voter.get(), Message::RequestVoteResponse(vote(wiped)));
        assert_eq!(server.node.role(), Role::Candidate);
        server.receive_from(voter.get(), Message::RequestVoteResponse(vote(known)));
        assert_eq!(server.node.role(), Role::Leader);
    }

    #[test]
    fn gives_a_leader_no_acknowledgement_read_round_or_sign_of_life_that_counts() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let (leader, others) = (leader(&cluster), followers(&cluster));
        others.iter().for_each(|id| cluster.crash(*id));
        let (term, place) = cluster.propose(leader, "y").unwrap();
        let read = cluster.read(leader).unwrap();
        cluster.settle();
        let answer = AppendEntriesResponse {
            term,
            outcome: AppendOutcome::Matched { match_index: place },
            committed: LogIndex::ZERO,
            read_round: 1,
            sender: Sender {
                incarnation: Incarnation(77),
                ..Sender::default()
            },
        };
        for _ in 0..2 * ELECTION_TIMEOUT_MIN {
            cluster.with(NodeId(leader), |server| {
                server.receive_from(others[0], Message::AppendEntriesResponse(answer));
            });
            cluster.tick(leader);
        }
        assert!(cluster.commit_index(leader) < place);
        assert_eq!(cluster.role(leader), Role::Follower, "it has lost its quorum");
        let dropped = |(_, what): &(NodeId, Happening)| matches!(what, Happening::Read(ReadOutcome::Dropped { id }) if *id == read);
        assert!(cluster.history.iter().any(dropped));
    }

    #[test]
    fn is_refused_also_after_its_node_was_replaced_once_before() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let wiped = followers(&cluster)[0];
        cluster.start_wiped(wiped, Standing::Joining);
        cluster.pass(ELECTION_TIMEOUT_MIN);
        assert_eq!(cluster.server(wiped).node.standing(), Standing::Member);
        cluster.start_wiped(wiped, Standing::Founder);
        cluster.pass(2);
        assert!(matches!(
            cluster.refusal(wiped),
            Some(Refusal::OtherData {
                known_as: Incarnation(101),
                ..
            })
        ));
    }
}

mod joining {
    use super::*;

    #[test]
    fn a_joiner_takes_the_place_of_the_lost_store_and_counts() {
        for count in [3, 5] {
            let mut cluster = founded(count);
            write(&mut cluster, "x");
            let joiner = followers(&cluster)[0];
            cluster.start_wiped(joiner, Standing::Joining);
            cluster.pass(ELECTION_TIMEOUT_MIN);
            assert_eq!(cluster.server(joiner).node.standing(), Standing::Member);
            assert_eq!(cluster.lines(joiner), ["x"]);
            // As many of the others go as a cluster bears: then it decides.
            let others: Vec<u64> = followers(&cluster)
                .into_iter()
                .filter(|id| *id != joiner)
                .collect();
            let minority = usize::try_from(count / 2).unwrap();
            others.iter().take(minority).for_each(|id| cluster.crash(*id));
            write(&mut cluster, "y");
            assert!(is_committed(&cluster, "y"));
        }
    }

    #[test]
    fn a_joiner_counts_for_nothing_until_it_is_registered() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let (leader, others) = (leader(&cluster), followers(&cluster));
        let (joiner, other) = (others[0], others[1]);
        cluster.crash(other);
        cluster.history.clear();
        cluster.start_wiped(joiner, Standing::Joining);
        let (_, place) = cluster.propose(leader, "y").unwrap();
        let read = cluster.read(leader).unwrap();
        cluster.pass(3);
        assert_eq!(
            registered(&cluster, leader, joiner),
            Some(Incarnation(101)),
            "proposed"
        );
        assert!(
            cluster.disk(NodeId(joiner)).last_index() >= place,
            "it has the entry"
        );
        assert!(
            cluster.commit_index(leader) < place,
            "and that does not commit it"
        );
        assert_eq!(cluster.server(joiner).node.standing(), Standing::Joining);
        cluster.pass(A_WHILE);
        assert_eq!(
            cluster.leader(),
            None,
            "its signs of life and its votes do not count"
        );
        assert!(!happened(&cluster, joiner, |event| matches!(
            event,
            Event::VoteGranted { .. }
        )));
        assert!(!happened(&cluster, joiner, |event| matches!(
            event,
            Event::PreVoteStarted { .. }
        )));
        let confirmed = |(_, what): &(NodeId, Happening)| matches!(what, Happening::Read(ReadOutcome::Confirmed { id, .. }) if *id == read);
        assert!(!cluster.history.iter().any(confirmed));
    }

    #[test]
    fn the_registration_is_committed_without_the_store_that_it_registers() {
        let mut cluster = founded(5);
        write(&mut cluster, "x");
        let (leader, others) = (leader(&cluster), followers(&cluster));
        let joiner = others[0];
        // Leader, joiner and one more: three of five, of which two count.
        others[2..].iter().for_each(|id| cluster.crash(*id));
        cluster.start_wiped(joiner, Standing::Joining);
        cluster.pass(3);
        assert_eq!(
            registered(&cluster, leader, joiner),
            Some(Incarnation(101)),
            "proposed"
        );
        assert_eq!(cluster.server(joiner).node.standing(), Standing::Joining);
        cluster.restart(others[2]);
        cluster.pass(A_WHILE);
        assert_eq!(cluster.server(joiner).node.standing(), Standing::Member);
    }

    #[test]
    fn one_store_is_registered_at_a_time() {
        let mut cluster = founded(5);
        write(&mut cluster, "x");
        let (leader, others) = (leader(&cluster), followers(&cluster));
        // Two of five count: no registration is committed.
        cluster.crash(others[3]);
        let (first, second) = (others[0], others[1]);
        let of_second = registered(&cluster, leader, second);
        cluster.start_wiped(first, Standing::Joining);
        cluster.start_wiped(second, Standing::Joining);
        cluster.pass(3);
        let stores = [first, second].map(|id| registered(&cluster, leader, id));
        assert_eq!(
            stores,
            [Some(Incarnation(101)), of_second],
            "the first is proposed"
        );
        cluster.restart(others[3]);
        cluster.pass(A_WHILE);
        let standings = [first, second].map(|id| cluster.server(id).node.standing());
        assert_eq!(standings, [Standing::Member; 2]);
    }

    #[test]
    fn a_new_member_has_voted_for_the_leader_that_admitted_it() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let (leader, joiner) = (leader(&cluster), followers(&cluster)[0]);
        cluster.start_wiped(joiner, Standing::Joining);
        cluster.pass(ELECTION_TIMEOUT_MIN);
        let promised = cluster.disk(NodeId(joiner)).hard_state();
        assert_eq!(promised.standing, Standing::Member);
        assert_eq!(promised.voted_for, Some(NodeId(leader)));
        assert_eq!(promised.current_term, cluster.term(leader));
    }

    #[test]
    fn a_joiner_that_is_restarted_midway_goes_on_joining() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let (joiner, other) = (followers(&cluster)[0], followers(&cluster)[1]);
        cluster.crash(other);
        cluster.start_wiped(joiner, Standing::Joining);
        cluster.pass(3);
        assert!(
            !cluster.disk(NodeId(joiner)).entries().is_empty(),
            "it has part of the log"
        );
        cluster.crash(joiner);
        cluster.restart(joiner);
        cluster.pass(3);
        assert_eq!(cluster.server(joiner).node.standing(), Standing::Joining);
        cluster.restart(other);
        cluster.pass(A_WHILE);
        assert_eq!(cluster.server(joiner).node.standing(), Standing::Member);
        // Nor does it forget that it is a member.
        cluster.crash(joiner);
        cluster.restart(joiner);
        assert_eq!(cluster.server(joiner).node.standing(), Standing::Member);
    }

    #[test]
    fn a_leader_change_in_the_midst_of_a_registration_does_not_stop_it() {
        let mut cluster = founded(5);
        write(&mut cluster, "x");
        let (old_leader, others) = (leader(&cluster), followers(&cluster));
        let joiner = others[0];
        cluster.start_wiped(joiner, Standing::Joining);
        for _ in 0..100 {
            if registered(&cluster, old_leader, joiner) == Some(Incarnation(101)) {
                break;
            }
            cluster.tick_all();
            cluster.deliver_round();
        }
        cluster.crash(old_leader);
        cluster.network.clear();
        cluster.pass(A_WHILE);
        assert_eq!(cluster.server(joiner).node.standing(), Standing::Member);
        assert_eq!(
            registered(&cluster, leader(&cluster), joiner),
            Some(Incarnation(101))
        );
    }

    #[test]
    fn what_the_lost_store_still_has_on_its_way_does_not_count_any_more() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let (leader, others) = (leader(&cluster), followers(&cluster));
        let (joiner, other) = (others[0], others[1]);
        cluster.start_wiped(joiner, Standing::Joining);
        cluster.pass(ELECTION_TIMEOUT_MIN);
        cluster.crash(joiner);
        cluster.crash(other);
        let (term, place) = cluster.propose(leader, "y").unwrap();
        cluster.settle();
        let late = AppendEntriesResponse {
            term,
            outcome: AppendOutcome::Matched { match_index: place },
            committed: LogIndex::ZERO,
            read_round: 0,
            sender: Sender {
                incarnation: Incarnation(joiner),
                ..Sender::default()
            },
        };
        cluster.with(NodeId(leader), |server| {
            server.receive_from(joiner, Message::AppendEntriesResponse(late));
        });
        assert!(cluster.commit_index(leader) < place);
        cluster.restart(joiner);
        cluster.pass(2);
        assert!(cluster.commit_index(leader) >= place);
    }

    #[test]
    fn a_late_message_of_a_joiner_that_is_gone_registers_nobody() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let (leader, follower) = (leader(&cluster), followers(&cluster)[0]);
        let late = AppendEntriesResponse {
            term: cluster.term(leader),
            outcome: AppendOutcome::Matched {
                match_index: cluster.commit_index(leader),
            },
            committed: cluster.commit_index(leader),
            read_round: 0,
            sender: Sender {
                incarnation: Incarnation(77),
                standing: Standing::Joining,
                knows_receiver_as: None,
                cluster_founder: None,
            },
        };
        for _ in 0..3 {
            cluster.with(NodeId(leader), |server| {
                server.receive_from(follower, Message::AppendEntriesResponse(late));
            });
        }
        cluster.pass(ELECTION_TIMEOUT_MIN);
        assert_eq!(
            registered(&cluster, leader, follower),
            Some(Incarnation(follower))
        );
        assert_eq!(cluster.refusal(follower), None);
    }

    #[test]
    fn a_leader_that_lost_its_disk_joins_like_any_other() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        let lost = leader(&cluster);
        cluster.start_wiped(lost, Standing::Joining);
        cluster.pass(A_WHILE);
        assert_eq!(cluster.server(lost).node.standing(), Standing::Member);
        assert_ne!(leader(&cluster), lost);
        assert_eq!(cluster.lines(lost), ["x"]);
    }

    #[test]
    fn a_snapshot_brings_the_registry() {
        let mut cluster = founded(3);
        for number in 0..5 {
            write(&mut cluster, &format!("command {number} that takes some room"));
        }
        let (leader, others) = (leader(&cluster), followers(&cluster));
        let (joiner, other) = (others[0], others[1]);
        for id in [leader, other] {
            cluster.with(NodeId(id), |server| {
                server.cut_snapshot();
            });
        }
        cluster.start_wiped(joiner, Standing::Joining);
        cluster.pass(A_WHILE);
        assert_eq!(cluster.server(joiner).node.standing(), Standing::Member);
        cluster.cut_snapshot(joiner);
        cluster.settle();
        let snapshot = cluster.disk(NodeId(joiner)).snapshot().clone();
        assert_eq!(
            snapshot.configuration.incarnation_of(NodeId(joiner)),
            Some(Incarnation(101))
        );
        assert_eq!(
            snapshot.configuration.incarnation_of(NodeId(other)),
            Some(Incarnation(other))
        );
    }

    #[test]
    fn every_store_of_a_cluster_is_replaced_one_after_the_other() {
        let mut cluster = founded(3);
        write(&mut cluster, "x");
        for id in 1..=3 {
            cluster.start_wiped(id, Standing::Joining);
            cluster.pass(2 * A_WHILE);
            assert_eq!(
                cluster.server(id).node.standing(),
                Standing::Member,
                "{:#?}",
                cluster.story
            );
            write(&mut cluster, &format!("{id} was replaced"));
        }
        for id in 1..=3 {
            cluster.crash(id);
        }
        for id in 1..=2 {
            cluster.restart(id);
        }
        cluster.pass(A_WHILE);
        assert!(is_committed(&cluster, "3 was replaced"));
    }
}

#[path = "standing/an_older_copy.rs"]
mod an_older_copy;

mod a_cluster_founded_anew {
    use super::*;

    /// Two nodes of three were emptied and started while the third was down, as if they were new.
    fn founded_anew_beside(data: Disk) -> Cluster {
        let mut cluster = Cluster::unfounded(3, config);
        cluster.crashed.insert(NodeId(3), data);
        (1..=2).for_each(|id| cluster.start_wiped(id, Standing::Founder));
        cluster.pass(A_WHILE);
        write(&mut cluster, "new");
        cluster
    }

    fn is_refused_as_of_another_cluster(cluster: &mut Cluster) {
        let founder = cluster.status(1).configuration.founder().expect("founded anew");
        cluster.restart(3);
        cluster.pass(A_WHILE);
        assert!(
            matches!(cluster.refusal(3), Some(Refusal::OtherCluster { founder: told, .. }) if told == founder),
            "{:?}",
            cluster.refusal(3)
        );
        write(cluster, "the new cluster goes on");
        assert!(is_committed(cluster, "the new cluster goes on"));
    }

    #[test]
    fn is_not_joined_by_the_node_that_still_has_the_data_of_the_old_one() {
        let mut old = founded(3);
        (0..5).for_each(|count| write(&mut old, &format!("old {count}")));
        old.cut_snapshot(3);
        old.pass(2);
        let data = old.disk(NodeId(3)).clone();
        let mut cluster = founded_anew_beside(data.clone());
        is_refused_as_of_another_cluster(&mut cluster);
        assert_eq!(
            cluster.disk(NodeId(3)).entries().len(),
            data.entries().len(),
            "nothing was cut"
        );
    }

    #[test]
    fn does_not_take_a_log_for_its_own_whose_entries_are_alike_in_index_and_term() {
        let mut old = Cluster::unfounded(3, config);
        (1..=3).for_each(|id| old.restart(id));
        old.elect(2);
        (0..5).for_each(|count| write(&mut old, &format!("old {count}")));
        let mut cluster = founded_anew_beside(old.disk(NodeId(3)).clone());
        let led = |cluster: &Cluster| (cluster.leader(), cluster.term(1));
        assert_eq!(led(&old), led(&cluster), "what makes them alike");
        is_refused_as_of_another_cluster(&mut cluster);
    }
}

mod older_copies_on_a_majority {
    use super::*;

    #[test]
    fn are_told_when_one_of_them_leads_and_another_node_knows_more() {
        let mut old = founded(3);
        write(&mut old, "x");
        let copies = [1, 2].map(|id| (id, old.disk(NodeId(id)).clone()));
        (0..5).for_each(|count| write(&mut old, &format!("y {count}")));
        old.cut_snapshot(3);
        old.pass(2);
        let current = old.disk(NodeId(3)).clone();

        let mut cluster = Cluster::unfounded(3, config);
        for (id, copy) in copies {
            cluster.crashed.insert(NodeId(id), copy);
            cluster.restart(id);
        }
        cluster.pass(A_WHILE);
        let leader = leader(&cluster);
        cluster.crashed.insert(NodeId(3), current);
        cluster.restart(3);
        cluster.pass(2);
        assert!(
            matches!(
                cluster.refusal(leader),
                Some(Refusal::LacksCommitted { by: NodeId(3), .. })
            ),
            "{:?} {:?} {:#?}",
            cluster.refusal(leader),
            cluster.disk(NodeId(3)),
            cluster.story
        );
    }
}

#[path = "standing/older_copy_that_voted_twice.rs"]
mod an_older_copy_that_voted_twice;

#[path = "standing/older_copy_that_leads_again.rs"]
mod an_older_copy_that_leads_again;

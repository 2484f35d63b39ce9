//! Raft §5.2: leader election.

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
    let heartbeats = leader
        .sent()
        .into_iter()
        .filter(|message| matches!(message, Message::AppendEntries(request) if request.entries.is_empty()));
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
    server.receive_from(2, vote(1, true)); // though nobody was asked
    assert_eq!(
        server.node.role(),
        Role::Candidate,
        "one of three, its own not being durable"
    );
    server.persist(1);
    assert_eq!(server.node.role(), Role::Leader);
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

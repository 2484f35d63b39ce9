//! Raft §5.4: safety.

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

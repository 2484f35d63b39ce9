//! Raft §8: client interaction.

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
    assert!(matches!(
        last.payload,
        Payload::Noop {
            leader_id: NodeId(2),
            ..
        }
    ));
    assert_eq!(last.term, Term(2));
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

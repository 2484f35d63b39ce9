//! A node that runs on an older copy of its data, and a leader with such nodes behind it: who is told, and by what.

use super::*;

fn rolled_back(cluster: &mut Cluster, id: u64, copy: Disk) {
    cluster.crash(id);
    cluster.crashed.insert(NodeId(id), copy);
    cluster.restart(id);
}

#[test]
fn is_told_by_the_leader_to_which_more_was_acknowledged() {
    let mut cluster = founded(3);
    write(&mut cluster, "x");
    let id = followers(&cluster)[0];
    let copy = cluster.disk(NodeId(id)).clone();
    write(&mut cluster, "y");
    rolled_back(&mut cluster, id, copy);
    cluster.pass(3);
    assert!(
        matches!(cluster.refusal(id), Some(Refusal::OlderCopy { acknowledged, last_log_index, .. })
            if acknowledged > last_log_index)
    );
}

#[test]
fn a_current_copy_is_none() {
    let mut cluster = founded(3);
    write(&mut cluster, "x");
    let id = followers(&cluster)[0];
    let copy = cluster.disk(NodeId(id)).clone();
    rolled_back(&mut cluster, id, copy);
    cluster.pass(A_WHILE);
    assert_eq!(cluster.refusal(id), None);
}

/// A new leader may have put less in the place of what was acknowledged to the old one.
#[test]
fn is_not_told_by_a_late_message_of_an_old_leader() {
    let disk = Disk::new(voters(3)).with_hard_state(2, None);
    let mut server = Server::start(config(1), disk.with_entries(entries(1, &[1, 2])));
    let mut late = append(1, (1, 1), vec![], 1);
    if let Message::AppendEntries(request) = &mut late {
        request.acknowledged = LogIndex(3);
    }
    server.receive_from(2, late);
    assert_eq!(server.refusal, None);
}

/// Entry 3 of term 2 is committed. That an old leader had another one there is nothing new; that a later leader has is.
#[test]
fn that_leads_is_told_by_its_first_message_and_by_none_of_an_earlier_leader() {
    let disk = Disk::new(voters(3)).with_hard_state(2, None);
    let mut server = Server::start(config(1), disk.with_entries(entries(1, &[1, 1, 2])));
    server.receive_from(2, append(2, (3, 2), vec![], 3));
    server.receive_from(2, append(1, (2, 1), entries(3, &[1]), 2));
    assert_eq!(server.refusal, None);
    server.receive_from(2, append(3, (2, 1), entries(3, &[3]), 2));
    let refusal = Refusal::OtherHistory {
        by: NodeId(2),
        index: LogIndex(3),
    };
    assert_eq!(server.refusal, Some(refusal));
}

#[test]
fn of_a_store_that_was_replaced_is_told_so() {
    let mut cluster = founded(3);
    write(&mut cluster, "x");
    let id = followers(&cluster)[0];
    let copy = cluster.disk(NodeId(id)).clone();
    cluster.start_wiped(id, Standing::Joining);
    cluster.pass(ELECTION_TIMEOUT_MIN);
    rolled_back(&mut cluster, id, copy);
    cluster.pass(3);
    assert!(matches!(cluster.refusal(id), Some(Refusal::OtherData { .. })));
    assert!(cluster.term(leader(&cluster)) >= Term(1));
    assert!(cluster.commit_index(leader(&cluster)) > LogIndex(2));
}

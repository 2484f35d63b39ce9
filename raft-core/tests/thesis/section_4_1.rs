//! Thesis §4.1: configurations are entries of the log. This core knows one set of voters for ever; what a configuration
//! says otherwise, by which stores they take part, takes effect as there.

use super::*;
use raft_core::Payload;

/// The members, of which server 3 takes part by another store.
fn with_new_store() -> Configuration {
    voters(3).with_incarnation(NodeId(3), Incarnation(9))
}

fn configuration_at(index: u64, term: u64) -> Entry {
    Entry {
        term: Term(term),
        index: LogIndex(index),
        payload: Payload::Configuration(with_new_store()),
    }
}

fn in_force(server: &Server) -> Configuration {
    server.node.status().configuration
}

#[test]
fn a_configuration_takes_effect_when_it_is_in_the_log_committed_or_not() {
    let mut server = Server::start(plain_raft(1), Disk::new(voters(3)));
    assert_eq!(in_force(&server), voters(3));
    server.receive_from(2, append(1, (0, 0), vec![configuration_at(1, 1)], 0));
    assert_eq!(server.node.status().commit_index, LogIndex::ZERO);
    assert_eq!(in_force(&server), with_new_store());
}

#[test]
fn a_configuration_that_is_cut_off_gives_way_to_the_one_before() {
    let mut server = Server::start(plain_raft(1), Disk::new(voters(3)));
    server.receive_from(2, append(1, (0, 0), vec![configuration_at(1, 1)], 0));
    server.persist_all();
    server.receive_from(2, append(2, (0, 0), entries(1, &[2]), 0));
    assert_eq!(in_force(&server), voters(3));
}

#[test]
fn a_server_that_starts_again_takes_the_latest_one_of_its_log() {
    let mut log = entries(1, &[1]);
    log.push(configuration_at(2, 1));
    log.extend(entries(3, &[1]));
    let disk = Disk::new(voters(3)).with_hard_state(1, None).with_entries(log);
    assert_eq!(in_force(&Server::start(plain_raft(1), disk)), with_new_store());
}

#[test]
fn a_server_that_starts_again_without_one_in_its_log_takes_that_of_its_snapshot() {
    let mut snapshot = common::messages::snapshot(3, 1, b"");
    snapshot.configuration = with_new_store();
    let disk = Disk::new(voters(3))
        .with_hard_state(1, None)
        .with_snapshot(snapshot, Vec::new())
        .with_entries(entries(4, &[1]));
    assert_eq!(in_force(&Server::start(plain_raft(1), disk)), with_new_store());
}

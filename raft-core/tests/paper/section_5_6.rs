//! Raft §5.6: timing. Leaders stay as long as their heartbeats come before election timeouts end, whatever these are.

use super::*;

/// Heartbeats of server 1 every `interval` ticks of the others, for 50 intervals. The term afterwards.
fn term_after_heartbeats_every(interval: u64) -> Term {
    let mut cluster = Cluster::new(3, plain_raft);
    cluster.elect(1);
    for _ in 0..50 {
        for _ in 0..interval {
            (2..=3).for_each(|id| cluster.tick(id));
        }
        cluster.heartbeat(1);
        cluster.settle();
    }
    cluster.term(2)
}

#[test]
fn a_leader_whose_heartbeats_are_quicker_than_any_election_timeout_stays() {
    assert_eq!(term_after_heartbeats_every(ELECTION_TIMEOUT_MIN - 1), Term(1));
}

#[test]
fn one_whose_heartbeats_are_slower_does_not() {
    assert!(term_after_heartbeats_every(ELECTION_TIMEOUT_MAX + 1) > Term(1));
}

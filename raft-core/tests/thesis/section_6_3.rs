//! Thesis §6.3: linearizable semantics need sessions, which the state machine keeps. What the core owes to them: every
//! server applies the same commands in the same order, each entry once, and a repeated command is an entry of its own.

use super::*;

#[test]
fn a_command_that_is_proposed_twice_is_applied_twice_because_only_the_state_machine_knows_sessions() {
    let mut cluster = led_by_1();
    let first = cluster.propose(1, "x").expect("it leads");
    let second = cluster.propose(1, "x").expect("it leads");
    assert_eq!(second.1, first.1.next());
    cluster.pass(2);
    for id in 1..=3 {
        assert_eq!(cluster.lines(id), ["x", "x"]);
    }
}

#[test]
fn every_server_applies_every_entry_once_and_in_order_across_a_change_of_leaders() {
    let mut cluster = led_by_1();
    cluster.propose(1, "x");
    cluster.settle();
    cluster.elect(2);
    cluster.propose(2, "y");
    cluster.pass(2);
    for id in 1..=3 {
        assert_eq!(cluster.lines(id), ["x", "y"]);
    }
}

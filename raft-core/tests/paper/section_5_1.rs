//! Raft §5.1: "servers retry RPCs if they do not receive a response in a timely manner".

use super::*;

/// The terms of the votes asked for.
fn votes_asked(messages: &[Message]) -> Vec<u64> {
    let term = |message: &Message| match message {
        Message::RequestVote(request) => Some(request.term.get()),
        _ => None,
    };
    messages.iter().filter_map(term).collect()
}

/// It asks anew, in a new term: an answer to the old request that comes late could no longer be told from a new one.
#[test]
fn a_candidate_that_gets_no_answers_asks_everybody_again_after_an_election_timeout() {
    let mut server = server_1(disk());
    stand_for_election(&mut server);
    assert_eq!(votes_asked(&server.sent()), [1, 1]);
    for _ in 0..ELECTION_TIMEOUT_MAX {
        server.tick_election();
        server.persist_all();
    }
    let again = votes_asked(&server.sent());
    assert_eq!(again[..2], [2, 2], "{again:?}");
}

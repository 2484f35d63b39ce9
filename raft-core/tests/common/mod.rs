//! A cluster in memory for tests. Nothing happens in it by itself: messages, disk writes and the state
//! machine's work wait in queues until the test says so, and the same calls always give the same run.
//!
//! - [`disk`]: stable storage; what is on it survives a crash, nothing else does.
//! - [`server`]: one node with its driver, which obeys `Ready` to the letter and watches that every request
//!   is answered once.
//! - [`cluster`]: several servers and the network between them.
//! - [`invariants`]: what must hold after every single step, whatever the test does.
//! - [`messages`]: messages by hand, for tests that play the other servers.
//! - [`story`]: what happens, told in words.

pub(crate) mod cluster;
pub(crate) mod disk;
pub(crate) mod invariants;
pub(crate) mod messages;
pub(crate) mod server;
pub(crate) mod story;

use bytes::Bytes;
use raft_core::{Config, Configuration, Entry, Incarnation, LogIndex, NodeId, Payload, Term, Ticks};

/// The shortest election timeout of [`config`].
pub(crate) const ELECTION_TIMEOUT_MIN: u64 = 10;
/// The longest election timeout of [`config`].
pub(crate) const ELECTION_TIMEOUT_MAX: u64 = 20;

/// Settings as in production, only with shorter timeouts.
pub(crate) fn config(id: u64) -> Config {
    Config {
        election_timeout_min: Ticks(ELECTION_TIMEOUT_MIN),
        election_timeout_max: Ticks(ELECTION_TIMEOUT_MAX),
        ..Config::new(NodeId(id))
    }
}

/// Raft as in the paper, without the thesis' pre-vote and check quorum.
pub(crate) fn plain_raft(id: u64) -> Config {
    Config {
        pre_vote: false,
        check_quorum: false,
        ..config(id)
    }
}

/// A cluster that was founded: every server takes part by its first store.
pub(crate) fn voters(count: u64) -> Configuration {
    let voters = Configuration::of_voters((1..=count).map(NodeId));
    (1..=count).fold(voters, |voters, id| {
        voters.with_incarnation(NodeId(id), Incarnation::ZERO)
    })
}

pub(crate) fn command(text: &str) -> Payload {
    Payload::Command(Bytes::copy_from_slice(text.as_bytes()))
}

/// The entry at `index` of `term`; the same one wherever it is called.
pub(crate) fn entry(term: u64, index: u64) -> Entry {
    Entry {
        term: Term(term),
        index: LogIndex(index),
        payload: command(&format!("{index}@{term}")),
    }
}

/// Entries of the given terms, the first at index `first`.
pub(crate) fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    (first..)
        .zip(terms)
        .map(|(index, term)| entry(*term, index))
        .collect()
}

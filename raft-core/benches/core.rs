//! What the core costs, without a network and a disk: `cargo bench -p raft-core`.
//!
//! Each iteration is one burst: its inputs go in, the batches of outputs are taken, and what the others would answer
//! goes in too. Nothing is copied or sent, so this is what one thread spends on consensus alone.

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use raft_core::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, CallId, Config, Configuration, Entry, Envelope,
    Leadership, LogIndex, Message, Node, NodeId, Payload, ReadId, Ready, Restored, Role, Sender,
    SnapshotMeta, Term, VoteResponse,
};

const BURSTS: [u64; 3] = [1, 16, 256];
const COMMAND_BYTES: usize = 160;

fn main() {
    divan::main();
}

/// A leader takes a burst of proposals, and both followers and its own disk answer: until it is committed.
#[divan::bench(args = BURSTS, sample_count = 50, sample_size = 4)]
fn leader_commits(bencher: Bencher<'_, '_>, burst: u64) {
    let mut leader = leader();
    let command = Bytes::from(vec![7; COMMAND_BYTES]);
    bencher.counter(ItemsCount::new(burst)).bench_local(|| {
        for _ in 0..burst {
            leader
                .propose(command.clone())
                .expect("it leads, and what it takes is committed");
        }
        let ready = leader.ready();
        answer(&mut leader, &ready);
        leader.persisted(ready.number);
        let committed = leader.ready().committed;
        assert_eq!(committed.len() as u64, burst);
        apply(&mut leader, &committed);
    });
}

/// A follower takes a burst of entries in one message, and its disk answers: until its answer may leave.
#[divan::bench(args = BURSTS, sample_count = 50, sample_size = 4)]
fn follower_appends(bencher: Bencher<'_, '_>, burst: u64) {
    let mut follower = node(2);
    let payload = Payload::Command(vec![7; COMMAND_BYTES].into());
    let mut last = LogIndex::ZERO;
    bencher.counter(ItemsCount::new(burst)).bench_local(|| {
        let entry = |n| Entry {
            term: Term(1),
            index: LogIndex(last.get() + n),
            payload: payload.clone(),
        };
        let append = AppendEntries {
            term: Term(1),
            leader_id: NodeId(1),
            leadership: Leadership(70),
            prev_log_index: last,
            prev_log_term: if last == LogIndex::ZERO {
                Term::ZERO
            } else {
                Term(1)
            },
            prev_log_leadership: None,
            entries: (1..=burst).map(entry).collect(),
            leader_commit: last,
            read_round: 0,
            acknowledged: LogIndex::ZERO,
            sender: Sender::default(),
        };
        last = LogIndex(last.get() + burst);
        follower.step(envelope(1, 2, 1, Message::AppendEntries(append)));
        let ready = follower.ready();
        assert_eq!(ready.messages_after_persist.len(), 1);
        follower.persisted(ready.number);
        apply(&mut follower, &ready.committed);
    });
}

/// A leader confirms a burst of reads with one round of heartbeats.
#[divan::bench(args = BURSTS, sample_count = 50, sample_size = 4)]
fn leader_confirms_reads(bencher: Bencher<'_, '_>, burst: u64) {
    let mut leader = leader();
    bencher.counter(ItemsCount::new(burst)).bench_local(|| {
        for read in 0..burst {
            leader.read_index(ReadId(read)).expect("it leads");
        }
        let ready = leader.ready();
        answer(&mut leader, &ready);
        assert_eq!(leader.ready().reads.len() as u64, burst);
    });
}

fn node(id: u64) -> Node {
    let configuration = Configuration::of_voters([1, 2, 3].map(NodeId));
    let snapshot = SnapshotMeta {
        configuration,
        ..SnapshotMeta::default()
    };
    let restored = Restored {
        snapshot,
        ..Restored::default()
    };
    Node::new(Config::new(NodeId(id)), restored).expect("the default settings make sense")
}

/// Node 1 of three, elected, its no-op committed and applied.
fn leader() -> Node {
    let mut node = node(1);
    while node.role() != Role::Leader {
        node.tick_election();
        let ready = node.ready();
        answer(&mut node, &ready);
        if ready.must_persist() {
            node.persisted(ready.number);
        }
    }
    while node.has_ready() {
        let ready = node.ready();
        answer(&mut node, &ready);
        if ready.must_persist() {
            node.persisted(ready.number);
        }
        apply(&mut node, &ready.committed);
    }
    node
}

/// Gives `node` the answers that its peers would give: votes are granted, entries are stored.
fn answer(node: &mut Node, ready: &Ready) {
    for sent in ready.messages.iter().chain(&ready.messages_after_persist) {
        let vote = |term| VoteResponse {
            term,
            vote_granted: true,
            sender: Sender::default(),
        };
        let reply = match &sent.message {
            Message::PreVote(request) => Message::PreVoteResponse(vote(request.term)),
            Message::RequestVote(request) => Message::RequestVoteResponse(vote(request.term)),
            Message::AppendEntries(request) => Message::AppendEntriesResponse(matched(request)),
            other => panic!("nobody was to send {other:?}"),
        };
        node.step(envelope(sent.to.get(), sent.from.get(), sent.call.get(), reply));
    }
}

fn matched(request: &AppendEntries) -> AppendEntriesResponse {
    let match_index = request
        .entries
        .last()
        .map_or(request.prev_log_index, |entry| entry.index);
    AppendEntriesResponse {
        term: request.term,
        outcome: AppendOutcome::Matched { match_index },
        committed: request.leader_commit,
        read_round: request.read_round,
        sender: Sender::default(),
    }
}

fn apply(node: &mut Node, committed: &[Entry]) {
    if let Some(last) = committed.last() {
        node.applied(last.index);
    }
}

fn envelope(from: u64, to: u64, call: u64, message: Message) -> Envelope {
    Envelope {
        from: NodeId(from),
        to: NodeId(to),
        call: CallId(call),
        message,
    }
}

//! Drives the consensus core: feeds it inputs, takes its outputs apart, and keeps their order.
//!
//! The driver is the one place that knows when a promise may leave. [`Driver::poll`] takes one batch out of
//! the core and sorts it: what goes to disk, what may be sent at once, what must wait for the disk. Messages
//! that wait are held here and come out of a later [`Driver::poll`], after [`Driver::persisted`].

use std::collections::VecDeque;

use raft_core::{
    Entry, Envelope, Event, LogRead, Node, ReadOutcome, ReadyNumber, Refusal, SnapshotChunk, SnapshotMeta,
    SnapshotToSend, SoftState, Write,
};

/// Work for stable storage: the chunks to stage and the writes to make durable for one batch of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistJob {
    /// To be reported with [`Driver::persisted`] when all of it is durable.
    pub number: ReadyNumber,
    /// Pieces of an incoming snapshot, to be staged before the writes.
    pub chunks: Vec<SnapshotChunk>,
    /// The writes, in order.
    pub writes: Vec<Write>,
}

/// What is to be done now, in this order: persist, send, restore, apply, answer reads.
#[derive(Debug, Default)]
pub struct Actions {
    /// Goes to the persister.
    pub persist: Option<PersistJob>,
    /// Goes to the peers. Nothing in here promises what is not durable.
    pub send: Vec<Envelope>,
    /// Snapshots to stream to peers.
    pub snapshots_to_send: Vec<SnapshotToSend>,
    /// Goes to the persister, behind what it has to persist; the answers go to
    /// [`Node::log_was_read`](raft_core::Node::log_was_read).
    pub log_reads: Vec<LogRead>,
    /// The state machine is to be replaced before anything in `apply`.
    pub restore: Option<SnapshotMeta>,
    /// Goes to the applier.
    pub apply: Vec<Entry>,
    /// Goes to those who wait for reads.
    pub reads: Vec<ReadOutcome>,
    /// Role, term or leader changed.
    pub soft_state: Option<SoftState>,
    /// For the log.
    pub events: Vec<Event>,
    /// The node must not take part: stop it, and tell why. Nothing comes after this.
    pub refusal: Option<Refusal>,
}

/// A [`Node`] with the messages that wait for its disk.
#[derive(Debug)]
pub struct Driver {
    node: Node,
    /// The last batch that went to storage, if it is not durable yet.
    persisting: Option<ReadyNumber>,
    /// Promises that wait, with the batch that must be durable first. In order.
    held: VecDeque<(ReadyNumber, Vec<Envelope>)>,
    released: Vec<Envelope>,
}

impl Driver {
    /// Drives `node`.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self {
            node,
            persisting: None,
            held: VecDeque::new(),
            released: Vec::new(),
        }
    }

    /// The node, to look at.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The node, to give it inputs. Its outputs come from [`Driver::poll`].
    pub fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// Whether [`Driver::poll`] would yield anything.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        !self.released.is_empty() || self.node.has_ready()
    }

    /// One batch of things to do, for everything that went in since the last; `None` if there is nothing.
    pub fn poll(&mut self) -> Option<Actions> {
        if !self.has_actions() {
            return None;
        }
        let mut actions = Actions {
            send: std::mem::take(&mut self.released),
            ..Actions::default()
        };
        if !self.node.has_ready() {
            return Some(actions);
        }
        let ready = self.node.ready();
        let must_persist = ready.must_persist();
        if must_persist {
            self.persisting = Some(ready.number);
        }
        actions.send.extend(ready.messages);
        match self.persisting {
            _ if ready.messages_after_persist.is_empty() => {}
            Some(number) => self.held.push_back((number, ready.messages_after_persist)),
            None => actions.send.extend(ready.messages_after_persist),
        }
        if must_persist {
            actions.persist = Some(PersistJob {
                number: ready.number,
                chunks: ready.snapshot_chunks,
                writes: ready.writes,
            });
        }
        actions.snapshots_to_send = ready.snapshots_to_send;
        actions.log_reads = ready.log_reads;
        actions.restore = ready.restore;
        actions.apply = ready.committed;
        actions.reads = ready.reads;
        actions.soft_state = ready.soft_state;
        actions.events = ready.events;
        actions.refusal = ready.refusal;
        Some(actions)
    }

    /// Everything up to the job `number` is durable: releases the promises that waited for it.
    pub fn persisted(&mut self, number: ReadyNumber) {
        self.node.persisted(number);
        if self.persisting == Some(number) {
            self.persisting = None;
        }
        while self
            .held
            .front()
            .is_some_and(|(waits_for, _)| *waits_for <= number)
        {
            if let Some((_, messages)) = self.held.pop_front() {
                self.released.extend(messages);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{
        CallId, Config, Configuration, Envelope, Message, Node, NodeId, Restored, SnapshotMeta, Term,
        VoteRequest,
    };

    use super::Driver;

    fn follower_of_three() -> Driver {
        let configuration = Configuration::of_voters([1, 2, 3].map(NodeId));
        let snapshot = SnapshotMeta {
            configuration,
            ..SnapshotMeta::default()
        };
        let restored = Restored {
            snapshot,
            ..Restored::default()
        };
        Driver::new(Node::new(Config::new(NodeId(1)), restored).unwrap())
    }

    fn vote_request(call: u64, candidate: u64, term: u64) -> Envelope {
        let request = VoteRequest {
            term: Term(term),
            candidate_id: NodeId(candidate),
            last_log_index: raft_core::LogIndex::ZERO,
            last_log_term: Term::ZERO,
            leadership_transfer: false,
            sender: raft_core::Sender::default(),
        };
        Envelope {
            from: NodeId(candidate),
            to: NodeId(1),
            call: CallId(call),
            message: Message::RequestVote(request),
        }
    }

    #[test]
    fn a_vote_leaves_only_when_it_is_durable() {
        let mut driver = follower_of_three();
        driver.node_mut().step(vote_request(7, 2, 1));
        let actions = driver.poll().unwrap();
        assert!(actions.send.is_empty(), "{:?}", actions.send);
        let job = actions.persist.unwrap();
        assert!(driver.poll().is_none());
        driver.persisted(job.number);
        let sent = driver.poll().unwrap().send;
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].call, CallId(7));
    }

    #[test]
    fn a_promise_without_a_write_of_its_own_waits_for_the_writes_before_it() {
        let mut driver = follower_of_three();
        driver.node_mut().step(vote_request(1, 2, 1));
        let first = driver.poll().unwrap().persist.unwrap();
        // The same candidate asks again: nothing new to write, yet the vote is not durable.
        driver.node_mut().step(vote_request(2, 2, 1));
        let again = driver.poll().unwrap();
        assert!(again.persist.is_none() && again.send.is_empty());
        driver.persisted(first.number);
        assert_eq!(driver.poll().unwrap().send.len(), 2);
    }

    #[test]
    fn with_nothing_on_its_way_to_disk_an_answer_leaves_at_once() {
        let mut driver = follower_of_three();
        driver.node_mut().step(vote_request(1, 2, 1));
        let first = driver.poll().unwrap().persist.unwrap();
        driver.persisted(first.number);
        driver.poll();
        driver.node_mut().step(vote_request(2, 2, 1));
        assert_eq!(driver.poll().unwrap().send.len(), 1);
    }
}

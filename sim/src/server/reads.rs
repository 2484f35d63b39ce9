//! Reads that cost no log entry: by a round of heartbeats, by the leader's lease, or at a follower that asks its
//! leader.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use kv_server::pending::Waiter;
use kv_server::state_reader::StateReader;
use raft_core::{LogIndex, NodeId, ReadId, ReadOutcome, Term, Ticks};
use rpc::client::{KvError, ScanRequest};

use super::front::Answers;
use super::{Answer, Output, RequestId, Server};
use crate::history::ReadWay;
use crate::machine::Life;
use crate::planted_bug::PlantedBug;

/// Answers to followers that ask for a read index.
pub(super) type IndexAnswers = Rc<RefCell<Vec<(IndexQuestion, Option<LogIndex>)>>>;

/// A follower asks its leader how fresh is fresh enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexQuestion {
    /// Who asks.
    pub(crate) from: Life,
    /// Its name for the read.
    pub(crate) read: ReadId,
}

/// Waits until the state is fresh enough.
pub(super) enum ReadWaiter {
    /// Reads it then, for a client.
    Client {
        id: RequestId,
        read: Box<dyn FnOnce() -> Answer>,
        answers: Answers,
    },
    /// Tells a follower how fresh that is.
    Follower {
        question: IndexQuestion,
        answers: IndexAnswers,
    },
}

impl Waiter<LogIndex> for ReadWaiter {
    fn complete(self, result: Result<LogIndex, KvError>) {
        match self {
            Self::Client { id, read, answers } => {
                let answer = match result {
                    Ok(_) => read(),
                    Err(error) => Answer::Refused(error),
                };
                answers.borrow_mut().push((id, answer));
            }
            Self::Follower { question, answers } => answers.borrow_mut().push((question, result.ok())),
        }
    }
}

/// One page holds all that the simulation ever has.
pub(super) fn scan(reader: &StateReader, from: Bytes, to: Bytes) -> Answer {
    let request = ScanRequest {
        from,
        to: Some(to),
        limit: u32::MAX,
        ..ScanRequest::default()
    };
    let page = reader.scan(&request, Term::ZERO);
    let items = page.items.into_iter().map(|item| (item.key, item.value));
    Answer::Items(items.collect())
}

impl Server {
    /// What the machine's clock reads, which goes on while the node does not.
    pub(crate) fn clock_reads(&mut self, now: Ticks) {
        self.clock = now;
        self.driver.node_mut().clock_reads(now);
    }

    pub(super) fn read(&mut self, waiter: ReadWaiter, way: ReadWay) {
        if self.bug == Some(PlantedBug::ReadWithoutReadIndex) {
            return waiter.complete(Ok(self.applier.apply_loop.state().last_applied()));
        }
        let leader = self.soft_state.leader_id.filter(|_| way == ReadWay::Anywhere);
        if let Err(error) = self.admit(leader.is_some()) {
            return waiter.complete(Err(error));
        }
        self.last_read = self.last_read.next();
        let read = self.last_read;
        self.pending.register_read(read, waiter);
        let lease = self.told_lease.filter(|_| way == ReadWay::Lease);
        if let Some(index) = lease.and_then(|lease| lease.read_index(self.clock)) {
            return self.pending.confirmed(read, index);
        }
        if self.driver.node_mut().read_index(read).is_ok() {
            return;
        }
        match leader {
            Some(leader) => self.outputs.push(Output::AskIndex { leader, read }),
            None => self.pending.dropped(read),
        }
    }

    /// A follower asks for a read index.
    pub(crate) fn receive_index_question(&mut self, question: IndexQuestion) {
        let answers = Rc::clone(&self.index_answers);
        self.read(ReadWaiter::Follower { question, answers }, ReadWay::Round);
        self.flush();
    }

    /// The leader has answered, or will not.
    pub(crate) fn receive_index(&mut self, read: ReadId, index: Option<LogIndex>) {
        let outcome = match index {
            Some(index) => ReadOutcome::Confirmed { id: read, index },
            None => ReadOutcome::Dropped { id: read },
        };
        self.reads_decided(vec![outcome]);
    }
}

/// A question or an answer about a read index, on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IndexMessage {
    /// To a leader.
    Question { to: NodeId, question: IndexQuestion },
    /// Back from it.
    Answer {
        from: NodeId,
        question: IndexQuestion,
        index: Option<LogIndex>,
    },
    /// The follower waits no longer.
    Timeout(IndexQuestion),
}

impl IndexMessage {
    /// The node that must be awake for it.
    pub(crate) fn receiver(&self) -> NodeId {
        match self {
            Self::Question { to, .. } => *to,
            Self::Answer { question, .. } | Self::Timeout(question) => question.from.node,
        }
    }
}

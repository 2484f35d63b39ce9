//! What the `KvServer` actor does around [`Pending`](kv_server::pending::Pending): admit requests, hand them
//! to the core, answer.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use kv_server::command::Command;
use kv_server::pending::Waiter;
use kv_server::state_machine::Reply;
use raft_core::{LogIndex, ProposeError, ReadOutcome, Role, SoftState, Term};
use rpc::client::{BusyReason, KvError, Member};

use super::Server;
use super::reads::{ReadWaiter, scan};
use crate::history::ReadWay;

/// Names one request of a client, so that its answer finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestId {
    pub(crate) client: u64,
    /// Which of the client's attempts, counted over all its operations.
    pub(crate) attempt: u64,
}

/// A request on its way to a server.
#[derive(Clone, Debug)]
pub(crate) struct ClientRequest {
    pub(crate) id: RequestId,
    pub(crate) question: Question,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// An encoded command for the log.
    Command(Bytes),
    /// A linearizable read of a key without a log entry.
    Get { key: Bytes, way: ReadWay },
    /// The same of a range of keys, by read index.
    Scan { from: Bytes, to: Bytes },
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => match Command::decode(command) {
                Ok(Command::Write { id, op }) => {
                    let (session, sequence) = (id.session.opened_at, id.sequence.0);
                    let below = id.lowest_outstanding.0;
                    write!(f, "{op:?} as {sequence} of session {session}, done below {below}")
                }
                Ok(command) => write!(f, "{command:?}"),
                Err(error) => write!(f, "{error}"),
            },
            Self::Get { key, way } => write!(f, "get {} by {way:?}", String::from_utf8_lossy(key)),
            Self::Scan { from, .. } => write!(f, "scan from {}", String::from_utf8_lossy(from)),
        }
    }
}

/// What a server answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Applied(Reply),
    /// The value read, if the key is there.
    Value(Option<Bytes>),
    /// The keys and values of a range.
    Items(Vec<(Bytes, Bytes)>),
    Refused(KvError),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied(reply) => write!(f, "{reply:?}"),
            Self::Value(None) => f.write_str("nothing"),
            Self::Value(Some(value)) => write!(f, "\"{}\"", String::from_utf8_lossy(value)),
            Self::Items(items) => items.iter().try_for_each(|(key, value)| {
                let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
                write!(f, "{key}=\"{value}\" ")
            }),
            Self::Refused(error) => write!(f, "{error}"),
        }
    }
}

pub(super) type Answers = Rc<RefCell<Vec<(RequestId, Answer)>>>;

/// Waits for the entry that a command became.
#[derive(Debug)]
pub(super) struct WriteWaiter {
    id: RequestId,
    answers: Answers,
}

impl Waiter<Reply> for WriteWaiter {
    fn complete(self, result: Result<Reply, KvError>) {
        let answer = result.map_or_else(Answer::Refused, Answer::Applied);
        self.answers.borrow_mut().push((self.id, answer));
    }
}

impl Server {
    /// A client's request arrives.
    pub(crate) fn receive_client(&mut self, ClientRequest { id, question }: ClientRequest) {
        let answers = Rc::clone(&self.answers);
        match question {
            Question::Command(command) => self.submit(command, WriteWaiter { id, answers }),
            Question::Get { key, way } => {
                let reader = self.applier.apply_loop.state().reader();
                let read = Box::new(move || {
                    let found = reader.get(&key, Term::ZERO).found;
                    Answer::Value(found.map(|found| found.value))
                });
                self.read(ReadWaiter::Client { id, read, answers }, way);
            }
            Question::Scan { from, to } => {
                let reader = self.applier.apply_loop.state().reader();
                let read = Box::new(move || scan(&reader, from, to));
                self.read(ReadWaiter::Client { id, read, answers }, ReadWay::Round);
            }
        }
        self.flush();
    }

    /// A command arrives for which nobody waits. `None` if this node takes none.
    pub(crate) fn propose(&mut self, command: Bytes) -> Option<(Term, LogIndex)> {
        let taken = self.driver.node_mut().propose(command).ok();
        self.flush();
        taken
    }

    fn submit(&mut self, command: Bytes, waiter: WriteWaiter) {
        if let Err(error) = self.admit(false) {
            return waiter.complete(Err(error));
        }
        match self.driver.node_mut().propose(command) {
            Ok((term, index)) => self.pending.register(index, term, waiter),
            Err(error) => waiter.complete(Err(self.refusal(error))),
        }
    }

    /// With `follows`, the request is one that a follower serves, too, and this node knows its leader.
    pub(super) fn admit(&self, follows: bool) -> Result<(), KvError> {
        self.pending.admission()?;
        if self.soft_state.role == Role::Leader || follows {
            Ok(())
        } else {
            Err(self.not_leader())
        }
    }

    fn not_leader(&self) -> KvError {
        let leader = self.leader();
        KvError::NotLeader { leader }
    }

    fn leader(&self) -> Option<Member> {
        self.soft_state.leader_id.map(|id| Member {
            id,
            client_addr: String::new(),
        })
    }

    fn refusal(&self, error: ProposeError) -> KvError {
        match error {
            ProposeError::NotLeader { .. } => self.not_leader(),
            ProposeError::TooManyUncommittedBytes => KvError::Busy(BusyReason::UncommittedBytes),
            ProposeError::LeadershipTransfer => KvError::Busy(BusyReason::LeadershipTransfer),
        }
    }

    pub(super) fn leadership_changed(&mut self, soft_state: SoftState) {
        let led_in = |state: SoftState| (state.role == Role::Leader).then_some(state.term);
        let before = std::mem::replace(&mut self.soft_state, soft_state);
        self.pending.set_leader(self.leader());
        if led_in(before).is_some() && led_in(before) != led_in(soft_state) {
            self.pending.leadership_lost();
        }
    }

    pub(super) fn reads_decided(&mut self, outcomes: Vec<ReadOutcome>) {
        for outcome in outcomes {
            match outcome {
                ReadOutcome::Confirmed { id, index } => self.pending.confirmed(id, index),
                ReadOutcome::Dropped { id } => self.pending.dropped(id),
            }
        }
    }
}

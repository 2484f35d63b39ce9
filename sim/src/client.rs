//! A simulated client: one operation at a time, retried under the same sequence number until it is answered.

use bytes::Bytes;
use clerk::session::SessionBook;
use kv_server::command::{Command, Operation};
use kv_server::state_machine::Reply;
use raft_core::NodeId;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use rpc::client::{KvError, Sequence};

use crate::invariants::exactly_once::Token;
use crate::invariants::fresh_reads::Floor;
use crate::invariants::{Invariants, Violation};
use crate::planted_bug::PlantedBug;
use crate::server::{Answer, ClientRequest, Question, RequestId};

/// A client gives an operation up after this many attempts, while faults happen.
const MAX_ATTEMPTS: u32 = 12;

/// A client and its session.
pub(crate) struct Client {
    id: u64,
    shared_keys: u64,
    clients: u64,
    /// The server to ask next.
    pub(crate) target: NodeId,
    book: Option<SessionBook>,
    current: Option<Intent>,
    operation: u64,
    attempts: u32,
    /// Appends begun, over all sessions.
    appends: u64,
    puts: u64,
    gives_up: bool,
    bug: Option<PlantedBug>,
}

/// What the client wants.
#[derive(Clone, Debug)]
enum Intent {
    OpenSession,
    Append {
        key: Bytes,
        sequence: Sequence,
        token: Token,
    },
    Put {
        key: Bytes,
        sequence: Sequence,
        value: Bytes,
    },
    Read {
        key: Bytes,
        floor: Floor,
    },
}

/// What came of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The answer was to something that is over.
    Ignored,
    /// The operation is done.
    Done,
    /// Ask again, after a pause.
    Retry,
}

impl Client {
    pub(crate) fn new(id: u64, clients: u64, shared_keys: u64, bug: Option<PlantedBug>) -> Self {
        Self {
            id,
            shared_keys,
            clients,
            target: NodeId(1),
            book: None,
            current: None,
            operation: 0,
            attempts: 0,
            appends: 0,
            puts: 0,
            gives_up: true,
            bug,
        }
    }

    /// From now on every operation is carried to its end.
    pub(crate) fn never_give_up(&mut self) {
        self.gives_up = false;
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// The request to send now: the next attempt, or the first of a new operation. `None` if the client is
    /// idle and may begin nothing.
    pub(crate) fn next_request(
        &mut self,
        generator: &mut Pcg64Mcg,
        invariants: &mut Invariants,
        may_begin: bool,
    ) -> Option<ClientRequest> {
        if self.gives_up && self.attempts >= MAX_ATTEMPTS {
            self.finish();
        }
        if self.current.is_none() {
            if !may_begin {
                return None;
            }
            let intent = self.begin(generator, invariants);
            self.current = Some(intent);
            self.attempts = 0;
            self.operation += 1;
        }
        self.attempts += 1;
        self.refresh_read(invariants);
        let question = self.question(generator)?;
        let id = RequestId {
            client: self.id,
            operation: self.operation,
        };
        Some(ClientRequest { id, question })
    }

    fn begin(&mut self, generator: &mut Pcg64Mcg, invariants: &mut Invariants) -> Intent {
        let Some(book) = &mut self.book else {
            return Intent::OpenSession;
        };
        match generator.random_range(0..10) {
            0..4 => {
                let key = Bytes::from(format!("shared-{}", generator.random_range(0..self.shared_keys)));
                let sequence = begin_write(book);
                self.appends += 1;
                let token = Token {
                    client: self.id,
                    number: self.appends,
                };
                invariants.exactly_once.sent(key.clone(), token);
                Intent::Append { key, sequence, token }
            }
            4..6 => {
                let sequence = begin_write(book);
                self.puts += 1;
                let value = Bytes::from(self.puts.to_string());
                let key = own_key(self.id);
                Intent::Put { key, sequence, value }
            }
            kind => {
                let key = if kind < 8 {
                    own_key(generator.random_range(1..=self.clients))
                } else {
                    Bytes::from(format!("shared-{}", generator.random_range(0..self.shared_keys)))
                };
                let floor = invariants.fresh_reads.begin(&key, 0);
                Intent::Read { key, floor }
            }
        }
    }

    /// Every attempt of a read is a read of its own, which begins now.
    fn refresh_read(&mut self, invariants: &Invariants) {
        if let Some(Intent::Read { key, floor }) = &mut self.current {
            let acknowledged = invariants.exactly_once.acknowledged_count(key);
            *floor = invariants.fresh_reads.begin(key, acknowledged);
            self.operation += 1;
        }
    }

    fn question(&mut self, generator: &mut Pcg64Mcg) -> Option<Question> {
        let (sequence, op) = match self.current.clone()? {
            Intent::OpenSession => {
                let secret = generator.random();
                return Some(Question::Command(Command::OpenSession { secret }.encode()));
            }
            Intent::Read { key, .. } => return Some(Question::Read(key)),
            Intent::Append { key, sequence, token } => {
                let value = Bytes::from(token.to_string());
                (sequence, Operation::Append { key, value })
            }
            Intent::Put { key, sequence, value } => (sequence, Operation::Put { key, value }),
        };
        let book = self.book.as_mut()?;
        let id = match self.bug {
            Some(PlantedBug::RetryAsNewWrite) if self.attempts > 1 => {
                let fresh = book.begin()?;
                let id = book.write_id(fresh);
                book.finish(fresh);
                id
            }
            _ => book.write_id(sequence),
        };
        Some(Question::Command(Command::Write { id, op }.encode()))
    }

    /// An answer arrives.
    ///
    /// # Errors
    ///
    /// When the answer is one that no correct cluster gives.
    pub(crate) fn answered(
        &mut self,
        id: RequestId,
        answer: Answer,
        invariants: &mut Invariants,
    ) -> Result<Progress, Violation> {
        if id.operation != self.operation {
            return Ok(Progress::Ignored);
        }
        let Some(intent) = self.current.clone() else {
            return Ok(Progress::Ignored);
        };
        match answer {
            Answer::Refused(error) => return self.refused(error),
            Answer::Applied(Reply::Written(Err(error))) => return self.refused(error),
            Answer::Value(value) => check_read(&intent, &value, invariants)?,
            Answer::Applied(reply) => self.applied(intent, &reply, invariants)?,
        }
        self.finish();
        Ok(Progress::Done)
    }

    fn applied(
        &mut self,
        intent: Intent,
        reply: &Reply,
        invariants: &mut Invariants,
    ) -> Result<(), Violation> {
        match (intent, reply) {
            (Intent::OpenSession, Reply::SessionOpened(session)) => {
                self.book = Some(SessionBook::new(*session));
            }
            (Intent::Append { key, token, .. }, Reply::Written(Ok(_))) => {
                invariants.exactly_once.acknowledged(key, token);
            }
            (Intent::Put { key, value, .. }, Reply::Written(Ok(_))) => {
                invariants.fresh_reads.put_acknowledged(&key, &value);
            }
            (intent, reply) => {
                let what = format!("client {} asked for {intent:?} and was told {reply:?}", self.id);
                return Err(Violation::new("answers", what));
            }
        }
        Ok(())
    }

    fn refused(&mut self, error: KvError) -> Result<Progress, Violation> {
        match error {
            KvError::NotLeader { leader } => {
                if let Some(leader) = leader {
                    self.target = leader.id;
                }
                Ok(Progress::Retry)
            }
            KvError::Busy(_) | KvError::ShuttingDown | KvError::OutcomeUnknown => Ok(Progress::Retry),
            // The window is never passed, the session is young, and the write is outstanding.
            impossible => Err(Violation::new(
                "exactly once",
                format!("client {} was refused: {impossible}", self.id),
            )),
        }
    }

    /// Nobody waits for the operation any more.
    fn finish(&mut self) {
        if let Some(Intent::Append { sequence, .. } | Intent::Put { sequence, .. }) = self.current.take()
            && let Some(book) = &mut self.book
        {
            book.finish(sequence);
        }
        self.attempts = 0;
    }
}

fn begin_write(book: &mut SessionBook) -> Sequence {
    book.begin()
        .expect("one operation at a time never fills the window")
}

fn own_key(client: u64) -> Bytes {
    Bytes::from(format!("own-{client}"))
}

fn check_read(intent: &Intent, value: &Bytes, invariants: &mut Invariants) -> Result<(), Violation> {
    let Intent::Read { key, floor } = intent else {
        return Err(Violation::new("answers", "a value answers what was no read"));
    };
    if key.starts_with(b"own-") {
        return invariants.fresh_reads.put_key_read(key, floor, value);
    }
    invariants.exactly_once.check(key, value)?;
    let lacking = invariants
        .exactly_once
        .lacking(key, value, floor.acknowledged_appends);
    invariants.fresh_reads.append_key_read(key, floor, value, lacking)
}

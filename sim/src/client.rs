//! A simulated client: one operation at a time, retried as clerk retries, under the same sequence number. Several of them
//! may share a session, as the tasks of a program share a clerk.

mod answers;
mod session;
mod workload;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use clerk::Reason;
use clerk::retry::{Call, Effect, Failure, RetryPolicy};
use kv_server::command::{Command, Operation as WriteOperation};
use raft_core::NodeId;
use rand_pcg::Pcg64Mcg;

use crate::clock::Micros;
use crate::history::{History, OperationId, ReadWay, Request};
use crate::invariants::{Invariants, Violation};
use crate::planted_bug::PlantedBug;
use crate::scenario::Scenario;
use crate::server::{ClientRequest, Question, RequestId};
use session::NumberedWrite;
pub(crate) use session::Program;
use workload::{Watch, Workload};

/// In the healing phase an operation may take this long, which is longer than the phase lasts.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// A client, and the program that it is a part of.
pub(crate) struct Client {
    id: u64,
    seed: u64,
    nodes: u64,
    /// The server that is believed to lead.
    leader: Option<NodeId>,
    /// Who was asked in this round.
    asked: BTreeSet<NodeId>,
    /// Whose turn it is if nobody is known to lead.
    turn: u64,
    program: Program,
    current: Option<Current>,
    /// What was done before a session had to be opened first.
    next: Option<(Request, Watch)>,
    script: VecDeque<Request>,
    workload: Option<Workload>,
    last: Option<OperationId>,
    /// The last write of unknown outcome. What a client writes is looked for in the order in which it was written, so it
    /// writes nothing more as long as that one may come behind it.
    doubtful: Option<NumberedWrite>,
    /// Numbers the attempts of all operations. Only the answer to the last one counts.
    attempt: u64,
    timeout: Duration,
    /// Whether there are fewer sessions than clients may open.
    sessions_may_end: bool,
    bug: Option<PlantedBug>,
}

/// The operation under way.
struct Current {
    task: Task,
    call: Call,
    began: Micros,
    attempts: u32,
    is_pausing: bool,
    /// The last attempt met no server: its connection was refused.
    is_refused: bool,
}

enum Task {
    OpenSession,
    Operation {
        request: Request,
        write: Option<NumberedWrite>,
        watch: Watch,
        id: OperationId,
    },
}

/// What is to be done for a client.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing: it was about something that is over.
    Ignore,
    /// Send this, and wake the client if no answer comes for so long.
    Ask {
        node: NodeId,
        request: ClientRequest,
        patience: Micros,
    },
    /// Wake the client after this pause.
    Pause(Micros),
    /// An operation ended; wake the client for the next.
    Ended { is_done: bool },
    /// There is nothing to do.
    Rest,
}

impl Client {
    /// A client that waits to be told what to do.
    pub(crate) fn new(
        id: u64,
        seed: u64,
        program: Program,
        scenario: &Scenario,
        bug: Option<PlantedBug>,
    ) -> Self {
        Self {
            id,
            seed,
            nodes: scenario.nodes,
            leader: None,
            asked: BTreeSet::new(),
            turn: id,
            program,
            current: None,
            next: None,
            script: VecDeque::new(),
            workload: None,
            last: None,
            doubtful: None,
            attempt: 0,
            timeout: Duration::from_micros(scenario.operation_timeout),
            sessions_may_end: scenario.session_cap < 1_000,
            bug,
        }
    }

    /// From now on the client goes on by itself.
    pub(crate) fn does_random_operations(&mut self, scenario: &Scenario) {
        self.workload = Some(Workload::new(self.id, scenario));
    }

    /// Whether it begins nothing but reads from now on.
    pub(crate) fn only_reads(&mut self, only: bool) {
        if let Some(workload) = &mut self.workload {
            workload.only_reads(only);
        }
    }

    /// The client does only what it is told from now on.
    pub(crate) fn stops(&mut self) {
        self.workload = None;
    }

    /// Do this after all that was asked for before.
    pub(crate) fn enqueue(&mut self, request: Request) {
        self.script.push_back(request);
    }

    /// From now on every operation is carried to its end.
    pub(crate) fn never_give_up(&mut self) {
        self.timeout = FOR_EVER;
    }

    /// Whether nothing is under way or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none() && self.script.is_empty() && self.next.is_none()
    }

    /// Whether it goes on by itself.
    pub(crate) fn is_random(&self) -> bool {
        self.workload.is_some()
    }

    /// Whether nothing is under way, so that a wake-up begins the next operation.
    pub(crate) fn is_free(&self) -> bool {
        self.current.is_none()
    }

    /// The operation that was begun last.
    pub(crate) fn last_operation(&self) -> Option<OperationId> {
        self.last
    }

    /// The time has come for the next attempt, for the next operation, or to wait no longer for an answer.
    ///
    /// # Errors
    ///
    /// When the operation ends in a way that no correct cluster brings about.
    pub(crate) fn wake(
        &mut self,
        now: Micros,
        may_begin: bool,
        generator: &mut Pcg64Mcg,
        invariants: &mut Invariants,
        history: &mut History,
    ) -> Result<Step, Violation> {
        if self.current.is_none() {
            let Some(task) = self.next_task(now, may_begin, generator, invariants, history) else {
                return Ok(Step::Rest);
            };
            self.begin(now, task);
            return Ok(self.ask(now, invariants, history));
        }
        if self.current.as_ref().is_some_and(|current| current.is_pausing) {
            self.asked.clear();
            return Ok(self.ask(now, invariants, history));
        }
        self.leader = None;
        // Silence makes clerk more patient with the next server; a refusal does not.
        let endpoint = String::new();
        let failure = if self.current.as_ref().is_some_and(|current| current.is_refused) {
            let problem = String::new();
            Failure::NotSent(Reason::Unreachable { endpoint, problem })
        } else {
            let waited = Duration::ZERO;
            Failure::NoAnswer(Reason::Silent { endpoint, waited })
        };
        self.attempt_failed(now, failure, invariants, history)
    }

    /// The connection for the last attempt was refused. The next [wake](Self::wake) tells.
    pub(crate) fn connection_refused(&mut self) {
        if let Some(current) = &mut self.current {
            current.is_refused = true;
        }
    }

    fn next_task(
        &mut self,
        now: Micros,
        may_begin: bool,
        generator: &mut Pcg64Mcg,
        invariants: &mut Invariants,
        history: &mut History,
    ) -> Option<Task> {
        if self.next.is_none() {
            self.next = match self.script.pop_front() {
                Some(request) => Some((request, Watch::Nothing)),
                None if may_begin => {
                    let is_in_order = !self.doubtful.as_ref().is_some_and(NumberedWrite::may_come_late);
                    let may_write = is_in_order && self.program.has_room();
                    let workload = self.workload.as_mut()?;
                    Some(workload.next(may_write, generator, invariants))
                }
                None => None,
            };
        }
        let (request, watch) = self.next.take()?;
        let mut write = None;
        if request.is_write() {
            write = self.program.begin_write();
            if write.is_none() {
                self.next = Some((request, watch));
                return Some(Task::OpenSession);
            }
        }
        let id = history.begin(self.id, request.clone(), now);
        self.last = Some(id);
        Some(Task::Operation {
            request,
            write,
            watch,
            id,
        })
    }

    fn begin(&mut self, now: Micros, task: Task) {
        let effect = match &task {
            Task::Operation { request, .. } if request.is_write() => Effect::Write,
            _ => Effect::Read,
        };
        self.asked.clear();
        let seed = self.seed ^ self.attempt;
        self.current = Some(Current {
            task,
            call: Call::new(effect, self.timeout, RetryPolicy::default(), seed),
            began: now,
            attempts: 0,
            is_pausing: false,
            is_refused: false,
        });
    }

    /// The next attempt.
    fn ask(&mut self, now: Micros, invariants: &mut Invariants, history: &mut History) -> Step {
        let node = self.choose_node();
        self.attempt += 1;
        let id = RequestId {
            client: self.id,
            attempt: self.attempt,
        };
        if let Some(current) = &mut self.current {
            current.attempts += 1;
        }
        let question = self.question();
        let (Some(current), Some(question)) = (&mut self.current, question) else {
            return Step::Rest;
        };
        current.is_pausing = false;
        current.is_refused = false;
        if let Task::Operation {
            watch, id, request, ..
        } = &mut current.task
            && !request.is_write()
        {
            history.begin_again(*id, now);
            watch.begin_read(request, invariants);
        }
        let elapsed = Duration::from_micros(now - current.began);
        Step::Ask {
            node,
            request: ClientRequest { id, question },
            patience: micros(current.call.try_timeout(elapsed)).max(1),
        }
    }

    fn asks_anybody(&self) -> bool {
        let task = self.current.as_ref().map(|current| &current.task);
        matches!(
            task,
            Some(Task::Operation {
                request: Request::Get {
                    way: ReadWay::Anywhere,
                    ..
                },
                ..
            })
        )
    }

    /// The leader if it is known, else those who were not asked in this round, in turn.
    fn choose_node(&mut self) -> NodeId {
        let leader = self.leader.filter(|_| !self.asks_anybody());
        let known = leader.filter(|leader| !self.asked.contains(leader));
        let node = known.unwrap_or_else(|| {
            loop {
                self.turn = self.turn % self.nodes + 1;
                if !self.asked.contains(&NodeId(self.turn)) || self.asked.len() as u64 >= self.nodes {
                    return NodeId(self.turn);
                }
            }
        });
        self.asked.insert(node);
        node
    }

    fn question(&self) -> Option<Question> {
        let current = self.current.as_ref()?;
        let (write, op) = match &current.task {
            Task::OpenSession => {
                let secret = self.seed.rotate_left(7) ^ self.attempt;
                return Some(Question::Command(Command::OpenSession { secret }.encode()));
            }
            Task::Operation { request, write, .. } => match (request.clone(), write) {
                (
                    Request::Get {
                        key,
                        way: ReadWay::Log,
                    },
                    _,
                ) => {
                    return Some(Question::Command(Command::Get { key }.encode()));
                }
                (Request::Get { key, way }, _) => return Some(Question::Get { key, way }),
                (Request::Scan { from, to }, _) => return Some(Question::Scan { from, to }),
                (Request::Put { key, value }, write) => (write, WriteOperation::Put { key, value }),
                (Request::Append { key, value }, write) => (write, WriteOperation::Append { key, value }),
                (Request::Delete { key }, write) => (write, WriteOperation::Delete { key }),
            },
        };
        let write = write.as_ref()?;
        let id = match self.bug {
            Some(PlantedBug::RetryAsNewWrite) if current.attempts > 1 => write.id_of_another(),
            _ => write.id(),
        };
        Some(Question::Command(Command::Write { id, op }.encode()))
    }
}

pub(crate) fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}

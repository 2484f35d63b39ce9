//! What a client makes of an answer, or of none.

use std::time::Duration;

use clerk::retry::{Failure, Next};
use clerk::{Error, Reason};
use kv_server::sessions::Outcome as Written;
use kv_server::state_machine::Reply;
use raft_core::NodeId;
use rpc::client::KvError;

use super::{Client, Current, Step, Task, micros};
use crate::clock::Micros;
use crate::history::{History, ReadWay, Request};
use crate::invariants::{Invariants, Violation};
use crate::linearizability::Outcome;
use crate::server::{Answer, RequestId};

impl Client {
    /// An answer arrives.
    ///
    /// # Errors
    ///
    /// When the answer is one that no correct cluster gives.
    pub(crate) fn hear(
        &mut self,
        now: Micros,
        from: NodeId,
        id: RequestId,
        answer: Answer,
        invariants: &mut Invariants,
        history: &mut History,
    ) -> Result<Step, Violation> {
        let awaits = self.current.as_ref().is_some_and(|current| !current.is_pausing);
        if id.attempt != self.attempt || !awaits {
            return Ok(Step::Ignore);
        }
        match answer {
            Answer::Refused(error) | Answer::Applied(Reply::Written(Err(error))) => {
                self.refused(now, from, error, invariants, history)
            }
            answer => self.done(now, from, answer, invariants, history),
        }
    }

    fn refused(
        &mut self,
        now: Micros,
        from: NodeId,
        error: KvError,
        invariants: &mut Invariants,
        history: &mut History,
    ) -> Result<Step, Violation> {
        match &error {
            KvError::NotLeader { leader } => {
                self.leader = leader
                    .as_ref()
                    .map(|member| member.id)
                    .filter(|leader| *leader != from);
            }
            KvError::InvalidArgument(_) | KvError::SequenceForgotten => {
                return Err(self.violation(&format!("was refused: {error}")));
            }
            _ => {}
        }
        let endpoint = String::new();
        self.attempt_failed(now, Failure::Refused { endpoint, error }, invariants, history)
    }

    /// Goes on as clerk would after an attempt that failed.
    pub(super) fn attempt_failed(
        &mut self,
        now: Micros,
        failure: Failure,
        invariants: &mut Invariants,
        history: &mut History,
    ) -> Result<Step, Violation> {
        let another_left = (self.asked.len() as u64) < self.nodes;
        let Some(current) = &mut self.current else {
            return Ok(Step::Ignore);
        };
        let elapsed = Duration::from_micros(now - current.began);
        match current.call.after(elapsed, failure, another_left) {
            Next::TryAnother => Ok(self.ask(now, invariants, history)),
            Next::Pause(pause) => {
                current.is_pausing = true;
                Ok(Step::Pause(micros(pause)))
            }
            Next::NewSession(pause) => self.needs_another_session(now, pause, history),
            Next::GiveUp(error) => {
                if error == Error::SessionExpired {
                    self.session_ended()?;
                }
                let outcome = if error.is_without_effect() {
                    Outcome::Failed
                } else {
                    Outcome::Unknown
                };
                self.end(now, outcome, history);
                Ok(Step::Ended { is_done: false })
            }
        }
    }

    /// No attempt took effect. The same is done again, as another write of another session.
    fn needs_another_session(
        &mut self,
        now: Micros,
        pause: Duration,
        history: &mut History,
    ) -> Result<Step, Violation> {
        self.session_ended()?;
        if let Some(Task::Operation { request, watch, .. }) = self.end(now, Outcome::Failed, history) {
            self.next = Some((request, watch));
        }
        Ok(Step::Pause(micros(pause)))
    }

    fn session_ended(&mut self) -> Result<(), Violation> {
        if let Some(Task::Operation {
            write: Some(write), ..
        }) = self.current.as_ref().map(|current| &current.task)
        {
            self.program.ended(write);
        }
        if self.sessions_may_end {
            return Ok(());
        }
        Err(self.violation("lost its session, although there was room for all"))
    }

    fn done(
        &mut self,
        now: Micros,
        from: NodeId,
        answer: Answer,
        invariants: &mut Invariants,
        history: &mut History,
    ) -> Result<Step, Violation> {
        if !self.asks_anybody() {
            self.leader = Some(from);
        }
        let Some(current) = &self.current else {
            return Ok(Step::Ignore);
        };
        let outcome = match (&current.task, answer) {
            (Task::OpenSession, Answer::Applied(Reply::SessionOpened(session))) => {
                self.program.opened(session);
                self.current = None;
                return Ok(Step::Pause(0));
            }
            (Task::Operation { request, watch, .. }, answer) => {
                let outcome = outcome_of(request, answer)
                    .map_err(|told| self.violation(&format!("asked for {request:?} and was told {told}")))?;
                watch.done(request, &outcome, invariants)?;
                outcome
            }
            (Task::OpenSession, answer) => {
                return Err(self.violation(&format!("asked for a session and was told {answer}")));
            }
        };
        self.end(now, outcome, history);
        Ok(Step::Ended { is_done: true })
    }

    /// Nobody waits for the operation any more.
    fn end(&mut self, now: Micros, outcome: Outcome, history: &mut History) -> Option<Task> {
        let Current { mut task, .. } = self.current.take()?;
        if let Task::Operation {
            request, write, id, ..
        } = &mut task
        {
            let outcome = match outcome {
                Outcome::Unknown if !request.is_write() => Outcome::Failed,
                outcome => outcome,
            };
            let is_doubtful = outcome == Outcome::Unknown;
            history.end(*id, now, outcome);
            if let Some(write) = write.take() {
                write.finish();
                if is_doubtful {
                    self.doubtful = Some(write);
                }
            }
        }
        Some(task)
    }

    /// The client crashes and will be back. What it was doing it `forgets` or does again.
    pub(crate) fn crash(&mut self, forgets: bool, now: Micros, history: &mut History) {
        self.leader = None;
        let Some(current) = &mut self.current else {
            return;
        };
        let silent = Reason::Silent {
            endpoint: String::new(),
            waited: Duration::ZERO,
        };
        let elapsed = Duration::from_micros(now - current.began);
        let next = current.call.after(elapsed, Failure::NoAnswer(silent), false);
        if forgets || matches!(next, Next::GiveUp(_)) {
            self.end(now, Outcome::Unknown, history);
        } else {
            current.is_pausing = true;
        }
    }

    fn violation(&self, what: &str) -> Violation {
        Violation::new("answers", format!("client {} {what}", self.id))
    }
}

/// What the answer says; itself, if it is no answer to that at all.
fn outcome_of(request: &Request, answer: Answer) -> Result<Outcome, Answer> {
    Ok(match (request, answer) {
        (
            Request::Put { .. } | Request::Append { .. },
            Answer::Applied(Reply::Written(Ok(Written::Stored { .. }))),
        ) => Outcome::Done,
        (Request::Delete { .. }, Answer::Applied(Reply::Written(Ok(Written::Deleted { existed })))) => {
            Outcome::Deleted { existed }
        }
        (
            Request::Get {
                way: ReadWay::Log, ..
            },
            Answer::Applied(Reply::Read(reply)),
        ) => Outcome::Value(reply.found.map(|found| found.value)),
        (Request::Get { .. }, Answer::Value(value)) => Outcome::Value(value),
        (Request::Scan { .. }, Answer::Items(items)) => Outcome::Page { items, more: false },
        (_, answer) => return Err(answer),
    })
}

//! Where connections leave their requests for the KV server.
//!
//! A message to an actor costs some allocations and queue operations, and a busy connection reads hundreds of
//! requests at a time. So requests wait in a queue of their own, and only the first of them sends a message:
//! the KV server then takes all that came meanwhile. One alone waits for nobody.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use actix::Addr;
use bytes::Bytes;
use raft_core::{LogIndex, Term};
use rpc::client::{BusyReason, KvError};
use rpc::peer::DiskRoom;
use tokio::sync::oneshot;

use crate::actors::{Drain, KvServer};
use crate::command::Command;
use crate::limits::KV_SERVER_INTAKE;
use crate::state_machine::Reply;

/// What a client wants of the KV server.
#[derive(Debug)]
pub(crate) enum Request {
    /// A command for the log.
    Submit {
        /// The encoded command, already checked.
        command: Bytes,
        /// The room that it needs on the disks: a command that stores little or makes room needs little.
        needs: DiskRoom,
        /// Gets the reply. Dropped unanswered only when the server is going down: the outcome is unknown.
        reply: oneshot::Sender<Result<Reply, KvError>>,
    },
    /// When is the state machine fresh enough for a linearizable read?
    Read {
        /// How to find out.
        way: ReadWay,
        /// Gets told when it is.
        reply: oneshot::Sender<Result<Fresh, KvError>>,
    },
}

/// How a read finds out how fresh is fresh enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadWay {
    /// The leader asks a majority whether it leads (thesis §6.4).
    Round,
    /// The leader's lease will do, if it holds one (thesis §6.4.1).
    Lease,
    /// A follower asks its leader, which goes by [`ReadWay::Round`].
    Anywhere,
}

/// The state machine is fresh enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fresh {
    /// The server's term.
    pub(crate) term: Term,
    /// The state machine has come to here, which is far enough.
    pub(crate) index: LogIndex,
}

/// Where requests are left: the intake and the server that it wakes.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    intake: Intake,
    kv: Addr<KvServer>,
}

impl Door {
    /// Leads to `intake`, which must be `kv`'s.
    #[must_use]
    pub(crate) fn new(intake: Intake, kv: Addr<KvServer>) -> Self {
        Self { intake, kv }
    }

    /// Hands in a command for the log, already checked.
    pub(crate) fn submit(&self, command: &Command, needs: DiskRoom) -> Answer<Reply> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Submit {
            command: command.encode(),
            needs,
            reply,
        };
        // Dropped unanswered: the server went down while the entry was on its way.
        Answer::after(self.push(request), answer, KvError::OutcomeUnknown)
    }

    /// Waits until the state machine is fresh enough for a read that comes now.
    pub(crate) fn read(&self, way: ReadWay) -> Answer<Fresh> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Read { way, reply };
        Answer::after(self.push(request), answer, KvError::ShuttingDown)
    }

    fn push(&self, request: Request) -> Result<(), KvError> {
        let wake = || {
            // Past the mailbox's limit, as there is never more than one of these in it.
            self.kv.do_send(Drain);
            self.kv.connected()
        };
        self.intake.push(request, wake)
    }
}

/// What becomes of a request that was handed in. One is held for every request in flight, so it is small.
#[derive(Debug)]
#[must_use = "the request is on its way, and somebody waits to hear of it"]
pub(crate) struct Answer<T> {
    waiting: Result<oneshot::Receiver<Result<T, KvError>>, KvError>,
    if_dropped: KvError,
}

impl<T> Answer<T> {
    /// A request that was refused at once.
    pub(crate) fn refused(error: KvError) -> Self {
        Self {
            waiting: Err(error.clone()),
            if_dropped: error,
        }
    }

    fn after(
        taken: Result<(), KvError>,
        answer: oneshot::Receiver<Result<T, KvError>>,
        if_dropped: KvError,
    ) -> Self {
        Self {
            waiting: taken.map(|()| answer),
            if_dropped,
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, KvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match &mut this.waiting {
            Ok(answer) => Pin::new(answer)
                .poll(cx)
                .map(|answer| answer.unwrap_or_else(|_| Err(this.if_dropped.clone()))),
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

/// The requests that wait for the KV server. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Intake(Arc<Mutex<Vec<Request>>>);

impl Intake {
    /// Leaves a request, and calls `wake` if the KV server does not know yet that one waits. `wake` says
    /// whether the KV server is there.
    ///
    /// # Errors
    ///
    /// [`KvError::Busy`] when too many wait, [`KvError::ShuttingDown`] when the KV server is gone. The request
    /// was not taken.
    pub(crate) fn push(&self, request: Request, wake: impl FnOnce() -> bool) -> Result<(), KvError> {
        let mut waiting = self.lock();
        if waiting.len() >= KV_SERVER_INTAKE {
            return Err(KvError::Busy(BusyReason::RequestsInFlight));
        }
        // Under the lock, so that nobody counts on a wake-up that did not happen.
        if waiting.is_empty() && !wake() {
            return Err(KvError::ShuttingDown);
        }
        waiting.push(request);
        Ok(())
    }

    /// Moves all that wait into `taken`, which must be empty and lends its memory to those that come next.
    pub(crate) fn take(&self, taken: &mut Vec<Request>) {
        debug_assert!(taken.is_empty(), "what was taken before would wait again");
        std::mem::swap(&mut *self.lock(), taken);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        // A push or a swap cannot fail halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read() -> Request {
        let (reply, _) = oneshot::channel();
        Request::Read {
            way: ReadWay::Round,
            reply,
        }
    }

    #[test]
    fn only_the_first_that_waits_wakes_the_server() {
        let intake = Intake::default();
        let mut taken = Vec::new();
        for round in 0..3 {
            let mut woken = 0;
            for _ in 0..4 {
                let wake = || {
                    woken += 1;
                    true
                };
                assert_eq!(intake.push(read(), wake), Ok(()));
            }
            intake.take(&mut taken);
            assert_eq!((woken, taken.drain(..).count()), (1, 4), "round {round}");
        }
    }

    #[test]
    fn without_a_server_nothing_is_taken_in() {
        let intake = Intake::default();
        assert_eq!(intake.push(read(), || false), Err(KvError::ShuttingDown));
        let mut taken = Vec::new();
        intake.take(&mut taken);
        assert!(taken.is_empty());
    }

    #[test]
    fn the_queue_is_bounded() {
        let intake = Intake::default();
        for _ in 0..KV_SERVER_INTAKE {
            assert_eq!(intake.push(read(), || true), Ok(()));
        }
        let busy = KvError::Busy(BusyReason::RequestsInFlight);
        assert_eq!(intake.push(read(), || true), Err(busy));
    }
}

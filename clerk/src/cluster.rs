//! Carries calls to the cluster: the loop around [`retry::Call`](crate::retry::Call), with sockets and clocks.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rpc::client::{KvError, WriteId};
use rpc::{Context, RpcError};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

use crate::connections::{Connections, Link};
use crate::directory::{Address, Directory, ReadFrom, Want};
use crate::lock::lock;
use crate::outcome::{Error, Reason};
use crate::retry::{Call, Effect, Failure, Next, RetryPolicy, whole_milliseconds};
use crate::writes::{CurrentSession, Session, Ticket};

/// What the clones of a clerk share.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) directory: Arc<Mutex<Directory>>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) policy: RetryPolicy,
    pub(crate) read_from: ReadFrom,
    pub(crate) origin: Instant,
    pub(crate) session: CurrentSession,
    pub(crate) in_flight: Semaphore,
    pub(crate) seed: u64,
    pub(crate) calls_made: AtomicU64,
}

/// A call and the moment it began.
struct Running {
    call: Call,
    began: Instant,
}

impl Running {
    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn remaining(&self) -> Duration {
        self.call.remaining(self.elapsed())
    }

    fn give_up(&self, reason: Reason) -> Error {
        self.call.give_up(self.elapsed(), reason)
    }
}

/// Why a call stops asking.
enum Stop {
    Failed(Error),
    /// The session has ended, and no attempt in it took effect.
    SessionGone,
}

impl Cluster {
    /// A call without effect: any attempt is as good as any other.
    pub(crate) async fn read<T, F, Fut>(&self, want: Want, limit: Duration, send: F) -> Result<T, Error>
    where
        F: Fn(Arc<Link>, Context) -> Fut,
        Fut: Future<Output = Result<Result<T, KvError>, RpcError>>,
    {
        let mut running = self.begin(Effect::Read, limit);
        let _slot = self.slot(&running).await?;
        self.ask_without_effect(&mut running, want, send).await
    }

    /// A write: all attempts carry one session and sequence number.
    pub(crate) async fn write<T, F, Fut>(&self, limit: Duration, send: F) -> Result<T, Error>
    where
        F: Fn(Arc<Link>, Context, WriteId) -> Fut,
        Fut: Future<Output = Result<Result<T, KvError>, RpcError>>,
    {
        let mut running = self.begin(Effect::Write, limit);
        let _slot = self.slot(&running).await?;
        loop {
            let ticket = self.ticket(&running).await?;
            let attempt = |link, context| send(link, context, ticket.write_id());
            match self.ask(&mut running, Want::Leader, attempt).await {
                Ok(answer) => return Ok(answer),
                Err(Stop::Failed(error)) => {
                    self.forget_session_after(&error, &ticket);
                    return Err(error);
                }
                Err(Stop::SessionGone) => self.session.forget(ticket.session()),
            }
        }
    }

    fn begin(&self, effect: Effect, limit: Duration) -> Running {
        let number = self.calls_made.fetch_add(1, Ordering::Relaxed);
        // An odd factor spreads neighbouring numbers over the whole range.
        let seed = self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Running {
            call: Call::new(effect, limit, self.policy, seed),
            began: Instant::now(),
        }
    }

    async fn slot(&self, running: &Running) -> Result<SemaphorePermit<'_>, Error> {
        // Nearly always there is room, and a timer is not for nothing.
        if let Ok(permit) = self.in_flight.try_acquire() {
            return Ok(permit);
        }
        match timeout(running.remaining(), self.in_flight.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed, so an error can only be the time that is up.
            Ok(Err(_)) | Err(_) => Err(running.give_up(Reason::TooManyInFlight)),
        }
    }

    async fn ticket(&self, running: &Running) -> Result<Ticket, Error> {
        let session = match self.session.get() {
            Some(session) => session,
            None => Box::pin(self.open_session(running)).await?,
        };
        if let Some(ticket) = session.try_ticket() {
            return Ok(ticket);
        }
        let ticket = timeout(running.remaining(), session.ticket()).await;
        ticket.map_err(|_| running.give_up(Reason::TooManyInFlight))
    }

    async fn open_session(&self, running: &Running) -> Result<Arc<Session>, Error> {
        let Ok(_guard) = timeout(running.remaining(), self.session.opening.lock()).await else {
            return Err(running.give_up(Reason::NoTime));
        };
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        // A session opened twice concerns nobody: the one not used ends as the least recently used.
        let mut opening = self.begin(Effect::Read, running.remaining());
        let open = |link: Arc<Link>, context| async move { link.client().open_session(context).await };
        let id = self.ask_without_effect(&mut opening, Want::Leader, open).await;
        let id = id.map_err(Error::of_opening_a_session)?;
        tracing::debug!(session = ?id, "session opened");
        let session = Session::new(id);
        self.session.set(Arc::clone(&session));
        Ok(session)
    }

    fn forget_session_after(&self, error: &Error, ticket: &Ticket) {
        if *error == Error::SessionExpired {
            self.session.forget(ticket.session());
        }
    }

    async fn ask_without_effect<T, F, Fut>(
        &self,
        running: &mut Running,
        want: Want,
        send: F,
    ) -> Result<T, Error>
    where
        F: Fn(Arc<Link>, Context) -> Fut,
        Fut: Future<Output = Result<Result<T, KvError>, RpcError>>,
    {
        self.ask(running, want, send).await.map_err(|stop| match stop {
            Stop::Failed(error) => error,
            // No server says so of a call without a session.
            Stop::SessionGone => running.call.time_is_up(running.elapsed()),
        })
    }

    /// Asks server after server until one does it, or the call has to end.
    async fn ask<T, F, Fut>(&self, running: &mut Running, want: Want, send: F) -> Result<T, Stop>
    where
        F: Fn(Arc<Link>, Context) -> Fut,
        Fut: Future<Output = Result<Result<T, KvError>, RpcError>>,
    {
        let mut asked = Vec::new();
        loop {
            let failure = match self.reach(running, want, &mut asked).await {
                Err(reason) => Failure::NotSent(reason),
                Ok((address, link)) => match self.attempt(running, &address, &link, &send).await {
                    Ok(answer) => {
                        self.answered(want, &address);
                        return Ok(answer);
                    }
                    Err(failure) => failure,
                },
            };
            tracing::debug!(?failure, "attempt failed");
            if let Some(error) = self.end_if_hopeless(running, &failure) {
                return Err(Stop::Failed(error));
            }
            let another_left = lock(&self.directory).another_left(&asked, self.origin.elapsed());
            match running.call.after(running.elapsed(), failure, another_left) {
                Next::TryAnother => {}
                Next::Pause(pause) => {
                    sleep(pause).await;
                    asked.clear();
                }
                Next::NewSession(pause) => {
                    sleep(pause).await;
                    return Err(Stop::SessionGone);
                }
                Next::GiveUp(error) => return Err(Stop::Failed(error)),
            }
        }
    }

    /// How the call ends if nothing that answers is a server that this clerk can use. Nobody becomes one by
    /// being asked again.
    fn end_if_hopeless(&self, running: &Running, failure: &Failure) -> Option<Error> {
        match failure {
            Failure::NotSent(reason @ Reason::WrongServer { .. })
                if lock(&self.directory).all_are_wrong() =>
            {
                Some(running.give_up(reason.clone()))
            }
            _ => None,
        }
    }

    /// A connection to the best server not yet asked in this round.
    async fn reach(
        &self,
        running: &Running,
        want: Want,
        asked: &mut Vec<Address>,
    ) -> Result<(Address, Arc<Link>), Reason> {
        if let Some((address, link)) = self.at_hand(want, asked) {
            asked.push(Arc::clone(&address));
            return Ok((address, link));
        }
        Box::pin(self.connect(running, want, asked)).await
    }

    /// The way of nearly every call: it is known whom to ask, and a connection to it is open.
    fn at_hand(&self, want: Want, asked: &[Address]) -> Option<(Address, Arc<Link>)> {
        let address = match want {
            Want::Leader => lock(&self.directory).leader_besides(asked)?,
            Want::InTurn => lock(&self.directory).next_in_turn(asked, self.origin.elapsed())?,
            Want::Anyone => return None,
        };
        let link = self.connections.open(&address)?;
        Some((address, link))
    }

    /// A connection, opened if need be.
    async fn connect(
        &self,
        running: &Running,
        want: Want,
        asked: &mut Vec<Address>,
    ) -> Result<(Address, Arc<Link>), Reason> {
        let mut candidates = lock(&self.directory).candidates(want, asked, self.origin.elapsed());
        if want == Want::InTurn {
            // Any that has a connection would be preferred to the one whose turn it is.
            candidates.truncate(1);
        }
        match timeout(running.remaining(), self.connections.first_of(&candidates)).await {
            Ok(Ok((address, link))) => {
                asked.push(Arc::clone(&address));
                Ok((address, link))
            }
            Ok(Err(reason)) => {
                asked.extend(candidates);
                Err(reason)
            }
            Err(_) => Err(candidates
                .first()
                .map_or(Reason::NoTime, |endpoint| Reason::NotConnectedInTime {
                    endpoint: endpoint.to_string(),
                })),
        }
    }

    async fn attempt<T, F, Fut>(
        &self,
        running: &Running,
        address: &Address,
        link: &Arc<Link>,
        send: &F,
    ) -> Result<T, Failure>
    where
        F: Fn(Arc<Link>, Context) -> Fut,
        Fut: Future<Output = Result<Result<T, KvError>, RpcError>>,
    {
        let patience = running.call.try_timeout(running.elapsed());
        if patience.is_zero() {
            return Err(Failure::NotSent(Reason::NoTime));
        }
        // The context's deadline also covers the time in which the connection takes no more bytes.
        let error = match send(Arc::clone(link), rpc::context(patience)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => return Err(self.refused(address, error)),
            Err(error) => error,
        };
        self.connections.give_up(address, link);
        lock(&self.directory).no_leader_at(address);
        Err(Failure::NoAnswer(no_answer(address, patience, error)))
    }

    fn answered(&self, want: Want, address: &Address) {
        if want == Want::Leader {
            lock(&self.directory).leads(address);
        }
    }

    fn refused(&self, address: &Address, error: KvError) -> Failure {
        let mut directory = lock(&self.directory);
        match &error {
            KvError::NotLeader { leader } => {
                directory.redirected(address, leader.as_ref(), self.origin.elapsed());
            }
            KvError::ShuttingDown | KvError::OutcomeUnknown => directory.no_leader_at(address),
            _ => {}
        }
        Failure::Refused {
            endpoint: address.to_string(),
            error,
        }
    }
}

fn no_answer(address: &Address, waited: Duration, error: RpcError) -> Reason {
    let endpoint = address.to_string();
    match error {
        RpcError::DeadlineExceeded => Reason::Silent {
            endpoint,
            waited: whole_milliseconds(waited),
        },
        error => Reason::ConnectionLost {
            endpoint,
            problem: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_in_whole_milliseconds() {
        let reason = no_answer(
            &"a:1".into(),
            Duration::from_nanos(198_188_364),
            RpcError::DeadlineExceeded,
        );
        assert_eq!(reason.to_string(), "a:1 gave no answer within 198ms");
    }
}

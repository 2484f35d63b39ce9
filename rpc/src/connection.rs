//! The server's side of one connection: reads requests, runs their handlers, writes the answers.
//!
//! One task does all three. It polls the handlers itself instead of spawning a task for each, for two
//! reasons: handlers start in the order in which their requests arrived (a scheduler gives no such promise,
//! and a follower wants its AppendEntries in order), and a handler that panics ends this connection and
//! nothing else.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::{AbortRegistration, Abortable, FutureExt};
use futures_util::stream::FuturesUnordered;
use futures_util::{Sink, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::server::{BaseChannel, Config, TrackedRequest};
use tarpc::{ChannelError, Request, Response, ServerError, context};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::framing::{FrameError, ServerFraming};
use crate::limits::ServerLimits;
use crate::transport::{Transport, close_gently};
use crate::watchdog::{Neglect, Observation, Watchdog};

/// How many requests are read, and how many answers written, before it is the other's turn.
const BATCH: usize = 256;
/// How many such turns a busy connection gets before other tasks get theirs.
const TURNS_PER_POLL: usize = 8;

/// Why a connection ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The caller closed it and has all its answers.
    CallerLeft,
    /// The server is stopping and has answered what was in flight.
    Stopped,
    /// The caller was too slow.
    Neglected(Neglect),
}

/// What a handler's future yields.
struct Finished<Resp> {
    /// What the request counted for in the bytes in flight.
    request_bytes: usize,
    /// `None` if the request was cancelled or its deadline passed: nobody waits for an answer.
    response: Option<Response<Resp>>,
}

type Channel<S, Req, Resp> = BaseChannel<Req, Resp, Transport<S, ServerFraming<Req, Resp>>>;
type Failure = ChannelError<FrameError>;

struct Connection<S, Req, Resp, H, F> {
    channel: Channel<S, Req, Resp>,
    /// Makes a handler's future from a request and its length in bytes.
    start: H,
    /// The handlers. Its queue is first in, first out, so they are first polled in the order of arrival.
    running: FuturesUnordered<F>,
    running_bytes: usize,
    max_requests: usize,
    max_request_bytes: usize,
    watchdog: Watchdog,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    stopping: bool,
    caller_left: bool,
    /// A request was started or answered since the watchdog looked last.
    active: bool,
}

/// Serves the requests that arrive on `io` until the caller leaves or misbehaves, or `stop` is cancelled.
///
/// # Errors
///
/// When the stream fails or carries something that is not a request.
pub(crate) async fn serve<S, Req, Resp, H, F>(
    io: S,
    handler: H,
    limits: &ServerLimits,
    stop: CancellationToken,
) -> Result<Ending, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
    Req: DeserializeOwned,
    Resp: Serialize,
    H: Fn(context::Context, Req) -> F,
    F: Future<Output = Result<Resp, ServerError>>,
{
    let transport = Transport::new(io, ServerFraming::default());
    let mut connection = Connection {
        channel: BaseChannel::new(Config::default(), transport),
        start: move |tracked: TrackedRequest<Req>, request_bytes| {
            let Request { context, id, message } = tracked.request;
            run(
                handler(context, message),
                tracked.abort_registration,
                id,
                request_bytes,
            )
        },
        running: FuturesUnordered::new(),
        running_bytes: 0,
        max_requests: limits.max_requests_in_flight.max(1),
        max_request_bytes: limits.max_request_bytes_in_flight.max(1),
        watchdog: Watchdog::new(limits),
        stop: Box::pin(stop.cancelled_owned()),
        stopping: false,
        caller_left: false,
        active: true,
    };
    let ending = poll_fn(|cx| connection.poll(cx)).await?;
    if ending == Ending::Stopped {
        close_gently(connection.transport().io_mut()).await;
    }
    Ok(ending)
}

/// A handler's future, tied to the request's deadline and cancellation.
///
/// It is put together by hand: an async function would hold `answer` twice, and one of these is allocated and
/// filled for every request.
fn run<Resp>(
    answer: impl Future<Output = Result<Resp, ServerError>>,
    abort: AbortRegistration,
    request_id: u64,
    request_bytes: usize,
) -> impl Future<Output = Finished<Resp>> {
    // The connection bounds its own work between two yields. With tokio's budget on top, a handler whose
    // first poll found the budget spent would come to its first effect after later ones.
    let answer = tokio::task::unconstrained(Abortable::new(answer, abort));
    answer.map(move |outcome| Finished {
        request_bytes,
        response: outcome.ok().map(|message| Response { request_id, message }),
    })
}

impl<S, Req, Resp, H, F> Connection<S, Req, Resp, H, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    Req: DeserializeOwned,
    Resp: Serialize,
    H: Fn(TrackedRequest<Req>, usize) -> F,
    F: Future<Output = Finished<Resp>>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ending, Failure>> {
        self.stopping = self.stopping || self.stop.as_mut().poll(cx).is_ready();
        for _ in 0..TURNS_PER_POLL {
            let started = self.start_requests(cx)?;
            let answered = self.write_answers(cx)?;
            if !started && !answered {
                return self.poll_rest(cx);
            }
            self.active = true;
        }
        cx.waker().wake_by_ref();
        self.poll_rest(cx)
    }

    /// Reads requests and sets up their handlers. Returns whether there was any.
    fn start_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        for started in 0..BATCH {
            // The channel is polled even while nothing may be read: it keeps the deadlines.
            let paused = self.stopping || self.is_full();
            self.transport().pause_reading(paused);
            match Pin::new(&mut self.channel).poll_next(cx)? {
                Poll::Ready(Some(tracked)) => self.start_request(tracked),
                Poll::Ready(None) => {
                    self.caller_left = true;
                    return Ok(started > 0);
                }
                Poll::Pending => return Ok(started > 0),
            }
        }
        Ok(true)
    }

    fn start_request(&mut self, tracked: TrackedRequest<Req>) {
        let request_bytes = self.transport().last_frame_bytes();
        self.running_bytes += request_bytes;
        self.running.push((self.start)(tracked, request_bytes));
    }

    fn is_full(&self) -> bool {
        self.running.len() >= self.max_requests || self.running_bytes >= self.max_request_bytes
    }

    /// Runs the handlers and writes what they answer. Returns whether one finished.
    ///
    /// While the caller does not take its answers, its handlers rest, so that answers do not pile up.
    fn write_answers(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        for finished in 0..BATCH {
            if Pin::new(&mut self.channel).poll_ready(cx)?.is_pending() {
                return Ok(finished > 0);
            }
            let Poll::Ready(Some(handler)) = Pin::new(&mut self.running).poll_next(cx) else {
                return Ok(finished > 0);
            };
            self.running_bytes -= handler.request_bytes;
            if let Some(response) = handler.response {
                Pin::new(&mut self.channel).start_send(response)?;
            }
        }
        Ok(true)
    }

    /// Sends what was written, and ends the connection where it is time to.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ending, Failure>> {
        let flushed = Pin::new(&mut self.channel).poll_flush(cx)?.is_ready();
        if flushed && self.running.is_empty() {
            if self.caller_left {
                return Poll::Ready(Ok(Ending::CallerLeft));
            }
            if self.stopping {
                return Poll::Ready(Ok(Ending::Stopped));
            }
        }
        let seen = self.observe();
        let neglect = ready!(self.watchdog.poll(cx, seen));
        Poll::Ready(Ok(Ending::Neglected(neglect)))
    }

    fn observe(&mut self) -> Observation {
        let requests = std::mem::take(&mut self.active) || !self.running.is_empty();
        let transport = self.transport();
        Observation {
            requests,
            frame_began: transport.frame_began(),
            has_unsent: transport.has_unsent(),
            sent_bytes: transport.sent_bytes(),
        }
    }
}

impl<S, Req, Resp, H, F> Connection<S, Req, Resp, H, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    Req: DeserializeOwned,
    Resp: Serialize,
{
    fn transport(&mut self) -> &mut Transport<S, ServerFraming<Req, Resp>> {
        Pin::new(&mut self.channel).get_pin_ref().get_mut()
    }
}

#[cfg(test)]
mod tests;

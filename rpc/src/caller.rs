//! The caller's side of one call.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use serde::{Serialize, Serializer};
use tarpc::client::{Channel, RpcError, stub::Stub};
use tarpc::context::Context;
use tarpc::{RequestName, ServerError};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout_at};

use crate::client::{KvRequest, KvResponse};
use crate::limits::MAX_DEADLINE;
use crate::peer::{PeerRequest, PeerResponse};

/// Sends requests over a connection: tarpc's channel, with these holes closed.
///
/// - A deadline far away makes tarpc's timers panic. Deadlines are cut to [`MAX_DEADLINE`].
/// - tarpc watches a deadline only once the request has left the queue. Here a call that still waits for its
///   place in the queue, or in it, ends in time, too.
/// - The generated clients panic when a server answers another method than was called. Here that is an error.
/// - Calls overtake each other, as told next. Here they are sent in the order in which their futures were first
///   polled.
///
/// There are two ways to overtake. A task that makes many calls at once spends its tokio budget on them, and a
/// call that finds it spent comes after later ones; so calls do not take part in the budget. And when the
/// queue is full, a place that becomes free is given to a call that waits, but another call that is polled
/// before that one may find a second free place and be first; so calls take their places in turn.
#[derive(Debug)]
pub struct Caller<Req, Resp> {
    channel: Channel<Queued<Req>, Resp>,
    /// Held by the call that takes a place, also while it waits for one. The mutex is fair.
    turn: Arc<Mutex<()>>,
    /// The free places in the channel's queue.
    places: Arc<Semaphore>,
}

/// A request with its place in the queue. The place is free again when the request has left the queue, whether
/// it was sent or thrown away, so a call that has a place finds room in tarpc's queue at once.
#[derive(Debug)]
pub(crate) struct Queued<Req> {
    request: Req,
    _place: OwnedSemaphorePermit,
}

impl<Req: Serialize> Serialize for Queued<Req> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.request.serialize(serializer)
    }
}

impl<Req: RequestName> RequestName for Queued<Req> {
    fn name(&self) -> &str {
        self.request.name()
    }
}

/// Which method of its service a request calls or a response answers.
pub trait Method {
    /// The method's name.
    fn method(&self) -> &'static str;
}

impl<Req, Resp> Caller<Req, Resp> {
    /// Calls over `channel`, whose queue must have room for `request_queue` requests.
    pub(crate) fn new(channel: Channel<Queued<Req>, Resp>, request_queue: usize) -> Self {
        Self {
            channel,
            turn: Arc::default(),
            places: Arc::new(Semaphore::new(request_queue)),
        }
    }
}

impl<Req: RequestName, Resp> Caller<Req, Resp> {
    async fn call_in_turn(&self, context: Context, request: Req) -> Result<Resp, RpcError> {
        let turn = self.turn.lock().await;
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .expect("nobody closes the semaphore");
        let mut call = pin!(self.channel.call(
            context,
            Queued {
                request,
                _place: place
            }
        ));
        // With room in the queue, the first poll puts the request there. The rest is waiting for the answer.
        let first = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        drop(turn);
        match first {
            Poll::Ready(response) => response,
            Poll::Pending => call.await,
        }
    }
}

impl<Req, Resp> Clone for Caller<Req, Resp> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            turn: Arc::clone(&self.turn),
            places: Arc::clone(&self.places),
        }
    }
}

impl<Req: RequestName + Method, Resp: Method> Stub for Caller<Req, Resp> {
    type Req = Req;
    type Resp = Resp;

    async fn call(&self, mut context: Context, request: Req) -> Result<Resp, RpcError> {
        context.deadline = context.deadline.min(std::time::Instant::now() + MAX_DEADLINE);
        let asked = request.method();
        // Pinned here, so that it is not moved from one wrapper into the next.
        let call = pin!(self.call_in_turn(context, request));
        let response = unconstrained(timeout_at(Instant::from_std(context.deadline), call))
            .await
            .map_err(|_| RpcError::DeadlineExceeded)??;
        if response.method() == asked {
            Ok(response)
        } else {
            let detail = format!("asked for {asked}, the server answered {}", response.method());
            Err(RpcError::Server(ServerError::new(
                std::io::ErrorKind::InvalidData,
                detail,
            )))
        }
    }
}

macro_rules! methods {
    ($request:ident, $response:ident: $($method:ident),+) => {
        impl Method for $request {
            fn method(&self) -> &'static str {
                match self { $(Self::$method { .. } => stringify!($method)),+ }
            }
        }
        impl Method for $response {
            fn method(&self) -> &'static str {
                match self { $(Self::$method { .. } => stringify!($method)),+ }
            }
        }
    };
}

methods!(KvRequest, KvResponse: OpenSession, Put, Append, Delete, Get, Scan, Status);
methods!(PeerRequest, PeerResponse: PreVote, RequestVote, AppendEntries, InstallSnapshot, TimeoutNow, DiskRoom, ReadIndex);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{StreamExt, poll};
    use tarpc::client::{Config, new};
    use tokio::io::duplex;

    use super::*;
    use crate::client::Consistency;
    use crate::connect::KvClient;
    use crate::framing::{CallerFraming, ServerFraming};
    use crate::transport::Transport;

    #[tokio::test]
    async fn a_call_that_was_given_a_place_is_not_overtaken_before_it_runs() {
        let (near, far) = duplex(64 << 10);
        let mut config = Config::default();
        config.pending_request_buffer = 2;
        let channel = new(config, Transport::new(near, CallerFraming::default()));
        let mut dispatch = pin!(channel.dispatch);
        let client = KvClient::from(Caller::new(channel.client, 2));
        let call = |key: &'static str| {
            client.get(
                crate::connect::context(Duration::from_secs(30)),
                key.into(),
                Consistency::Stale,
            )
        };
        let (mut first, mut second) = (pin!(call("first")), pin!(call("second")));
        let (mut third, mut fourth) = (pin!(call("third")), pin!(call("fourth")));

        assert!(poll!(first.as_mut()).is_pending());
        assert!(poll!(second.as_mut()).is_pending());
        assert!(poll!(third.as_mut()).is_pending(), "the queue is full");
        // Frees two places: one goes to the third call, which does not run yet, and one goes to nobody.
        assert!(poll!(dispatch.as_mut()).is_pending());
        assert!(poll!(fourth.as_mut()).is_pending());
        assert!(poll!(third.as_mut()).is_pending());
        assert!(poll!(fourth.as_mut()).is_pending());
        assert!(poll!(dispatch.as_mut()).is_pending());

        let mut server = Transport::new(far, ServerFraming::<KvRequest, KvResponse>::default());
        for expected in ["first", "second", "third", "fourth"] {
            match server.next().await {
                Some(Ok(tarpc::ClientMessage::Request(request))) => {
                    assert!(
                        matches!(request.message, KvRequest::Get { key, .. } if key == expected),
                        "{expected}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

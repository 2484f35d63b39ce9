//! The caller's side of one call.

use tarpc::client::{Channel, RpcError, stub::Stub};
use tarpc::context::Context;
use tarpc::{RequestName, ServerError};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout_at};

use crate::client::{KvRequest, KvResponse};
use crate::limits::MAX_DEADLINE;
use crate::peer::{PeerRequest, PeerResponse};

/// Sends requests over a connection: tarpc's channel, with four holes closed.
///
/// - A deadline far away makes tarpc's timers panic. Deadlines are cut to [`MAX_DEADLINE`].
/// - tarpc watches a deadline only once the request has left the queue. Here a call that still waits in the
///   queue ends in time, too.
/// - A task that makes many calls at once spends its tokio budget on them, and a call that finds it spent is
///   overtaken by later ones (one in 129, when measured). Calls here do not take part in the budget, so they are
///   sent in the order in which their futures were first polled.
/// - The generated clients panic when a server answers another method than was called. Here that is an error.
#[derive(Debug)]
pub struct Caller<Req, Resp>(Channel<Req, Resp>);

/// Which method of its service a request calls or a response answers.
pub trait Method {
    /// The method's name.
    fn method(&self) -> &'static str;
}

impl<Req, Resp> Caller<Req, Resp> {
    pub(crate) fn new(channel: Channel<Req, Resp>) -> Self {
        Self(channel)
    }
}

impl<Req, Resp> Clone for Caller<Req, Resp> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Req: RequestName + Method, Resp: Method> Stub for Caller<Req, Resp> {
    type Req = Req;
    type Resp = Resp;

    async fn call(&self, mut context: Context, request: Req) -> Result<Resp, RpcError> {
        context.deadline = context.deadline.min(std::time::Instant::now() + MAX_DEADLINE);
        let asked = request.method();
        let call = timeout_at(Instant::from_std(context.deadline), self.0.call(context, request));
        let response = unconstrained(call)
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
methods!(PeerRequest, PeerResponse: PreVote, RequestVote, AppendEntries, InstallSnapshot, TimeoutNow);

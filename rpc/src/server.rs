//! Listening: takes connections in, checks their hello, and serves them until told to stop.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use raft_core::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::ServerError;
use tarpc::context::Context;
use tarpc::server::Serve;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Admitted, Handshake};
use crate::client::Kv;
use crate::connection::{self, Ending};
use crate::hello::{Hello, HelloError, Refusal, ServerIdentity, ServiceKind};
use crate::limits::ServerLimits;
use crate::peer::Peer;
use crate::refusal_log::RefusalLog;
use crate::transport::close_gently;

/// How long to wait before accepting again after the operating system refused, as it does when the process
/// has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves clients on `listener` until `shutdown` resolves; then closes the port, lets requests in flight
/// finish within [`ServerLimits::shutdown_grace`] and returns.
///
/// Every connection is a task of its own on the current tokio runtime and gets a clone of `service`. A panic
/// in a handler ends the connection it came from. Dropping the future ends everything at once.
pub async fn serve_kv<S>(
    listener: TcpListener,
    identity: ServerIdentity,
    limits: ServerLimits,
    service: S,
    shutdown: impl Future<Output = ()> + Send,
) where
    S: Kv + Clone + 'static,
{
    // Connections on several threads clone it; behind the mutex it need not be Sync for that.
    let service = Mutex::new(service);
    let make_handler = move |_caller| {
        let service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        move |context, request| service.clone().serve().serve(context, request)
    };
    Port::new(ServiceKind::Client, identity, limits, make_handler)
        .listen(listener, shutdown)
        .await;
}

/// Serves the other servers of the cluster on `listener`, as [`serve_kv`] serves clients.
///
/// `make_service` makes each connection's service from the caller's id, as its hello gave it.
pub async fn serve_peer<S>(
    listener: TcpListener,
    identity: ServerIdentity,
    limits: ServerLimits,
    make_service: impl Fn(NodeId) -> S + Send + Sync + 'static,
    shutdown: impl Future<Output = ()> + Send,
) where
    S: Peer + Clone + 'static,
{
    let make_handler = move |caller| {
        let service = make_service(caller);
        move |context, request| service.clone().serve().serve(context, request)
    };
    Port::new(ServiceKind::Peer, identity, limits, make_handler)
        .listen(listener, shutdown)
        .await;
}

/// What all connections of one listening port share.
struct Port<M> {
    service: ServiceKind,
    identity: ServerIdentity,
    limits: ServerLimits,
    admission: Admission,
    refusals: RefusalLog,
    /// Makes a connection's request handler from the caller's id.
    make_handler: M,
    stop: CancellationToken,
}

impl<M> Port<M> {
    fn new(
        service: ServiceKind,
        identity: ServerIdentity,
        limits: ServerLimits,
        make_handler: M,
    ) -> Arc<Self> {
        let admission = Admission::new(&limits);
        Arc::new(Self {
            service,
            identity,
            limits,
            admission,
            refusals: RefusalLog::default(),
            make_handler,
            stop: CancellationToken::new(),
        })
    }

    async fn listen<H, Req, Resp, F>(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) where
        M: Fn(NodeId) -> H + Send + Sync + 'static,
        H: Fn(Context, Req) -> F + Send + 'static,
        Req: DeserializeOwned + Send + 'static,
        Resp: Serialize + Send + 'static,
        F: Future<Output = Result<Resp, ServerError>> + Send + 'static,
    {
        let mut shutdown = pin!(shutdown);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                // A connection that panicked has said so itself.
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, caller)) => {
                        let handshake = self.admission.begin_handshake();
                        connections.spawn(Arc::clone(&self).attend(stream, caller, handshake));
                        // Those that a burst of callers pushes out must close before more are taken in: the
                        // limits are on open files, too.
                        tokio::task::yield_now().await;
                    }
                    Err(error) => self.recover_from_accept_error(&error).await,
                },
            }
        }
        drop(listener);
        self.stop.cancel();
        self.wait_for(connections).await;
    }

    async fn recover_from_accept_error(&self, error: &std::io::Error) {
        tracing::warn!(%error, "could not accept a connection; trying again");
        self.admission.evict_oldest_handshake();
        sleep(ACCEPT_PAUSE).await;
    }

    async fn wait_for(&self, mut connections: JoinSet<()>) {
        let all_done = async { while connections.join_next().await.is_some() {} };
        if timeout(self.limits.shutdown_grace, all_done).await.is_err() {
            let connections_left = connections.len();
            tracing::warn!(connections_left, "stopping with requests still in flight");
            connections.shutdown().await;
        }
    }

    /// One connection from beginning to end.
    async fn attend<H, Req, Resp, F>(
        self: Arc<Self>,
        mut stream: TcpStream,
        caller: SocketAddr,
        handshake: Handshake,
    ) where
        M: Fn(NodeId) -> H + Send + Sync + 'static,
        H: Fn(Context, Req) -> F + Send + 'static,
        Req: DeserializeOwned + Send + 'static,
        Resp: Serialize + Send + 'static,
        F: Future<Output = Result<Resp, ServerError>> + Send + 'static,
    {
        // Without it small answers wait for the caller's acknowledgement; with an error they merely do so.
        let _ = stream.set_nodelay(true);
        let Some((caller_id, admitted)) = self.greet_in_time(&mut stream, caller, &handshake).await else {
            return;
        };
        drop(handshake);
        let _admitted = admitted;
        let _report = PanicReport(caller);
        let handler = (self.make_handler)(caller_id);
        match connection::serve(stream, handler, &self.limits, self.stop.clone()).await {
            Ok(Ending::CallerLeft | Ending::Stopped) => tracing::debug!(%caller, "a connection ended"),
            Ok(Ending::Neglected(neglect)) => self.refusals.tell(caller, &neglect.describe()),
            Err(error) => {
                let reason = std::error::Error::source(&error).map(ToString::to_string);
                tracing::debug!(%caller, %error, reason, "a connection failed");
            }
        }
    }

    /// The hello, within its timeout and unless newer connections push this one out.
    async fn greet_in_time(
        &self,
        stream: &mut TcpStream,
        caller: SocketAddr,
        handshake: &Handshake,
    ) -> Option<(NodeId, Admitted)> {
        let greeting = timeout(self.limits.handshake_timeout, self.greet(stream, caller));
        match handshake.run(greeting).await {
            Some(Ok(Ok(greeted))) => greeted,
            // Whoever only looks whether the port is open, as health checks do, is nothing to tell of.
            Some(Ok(Err(HelloError::Io(error)))) => {
                tracing::debug!(%caller, %error, "no hello");
                None
            }
            Some(Ok(Err(error))) => {
                self.refusals.tell(caller, &error);
                None
            }
            Some(Err(_)) => {
                self.refusals.tell(caller, &"no hello in time");
                None
            }
            None => {
                tracing::debug!(%caller, "no hello yet, and newer connections need the room");
                None
            }
        }
    }

    /// Exchanges the hello. `None` if the caller was refused, and told so.
    async fn greet(
        &self,
        stream: &mut TcpStream,
        caller: SocketAddr,
    ) -> Result<Option<(NodeId, Admitted)>, HelloError> {
        let verdict = match self.stop.run_until_cancelled(Hello::read(stream)).await {
            None => Err(Refusal::ShuttingDown),
            Some(hello) => self.judge(hello?, caller),
        };
        self.identity
            .reply(verdict.as_ref().err().copied())
            .write(stream)
            .await?;
        match verdict {
            Ok(greeted) => Ok(Some(greeted)),
            Err(refusal) => {
                self.refusals.tell(caller, &refusal);
                close_gently(stream).await;
                Ok(None)
            }
        }
    }

    fn judge(&self, hello: Option<Hello>, caller: SocketAddr) -> Result<(NodeId, Admitted), Refusal> {
        let hello = hello.ok_or(Refusal::WrongVersion)?;
        if let Some(refusal) = self.identity.judge(&hello, self.service) {
            return Err(refusal);
        }
        let admitted = self
            .admission
            .admit(caller.ip())
            .ok_or(Refusal::TooManyConnections)?;
        Ok((hello.caller_id(), admitted))
    }
}

/// Says which connection a panic ended.
struct PanicReport(SocketAddr);

impl Drop for PanicReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(caller = %self.0, "a request handler panicked; its connection ends");
        }
    }
}

//! Connecting to a server, and calling it.

use std::io;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use raft_core::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::client::{self, RpcError};
use tarpc::context::{self, Context};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::caller::Caller;
use crate::client::{KvClient as GeneratedKvClient, KvRequest, KvResponse};
use crate::framing::CallerFraming;
use crate::hello::{Hello, HelloError, PROTOCOL_VERSION, Refusal, Reply, ServerInfo, check_cluster_id};
use crate::limits::{DEFAULT_REQUESTS_IN_FLIGHT, HANDSHAKE_TIMEOUT, MAX_DEADLINE};
use crate::peer::{PeerClient as GeneratedPeerClient, PeerRequest, PeerResponse};
use crate::transport::Transport;

/// Calls the [`Kv`](crate::client::Kv) service over a connection. Cheap to clone; clones share the connection.
pub type KvClient = GeneratedKvClient<Caller<KvRequest, KvResponse>>;
/// Calls the [`Peer`](crate::peer::Peer) service over a connection. Cheap to clone; clones share the connection.
pub type PeerClient = GeneratedPeerClient<Caller<PeerRequest, PeerResponse>>;
/// A client's connection to a server.
pub type KvConnection = Connection<KvClient>;
/// A server's connection to another.
pub type PeerConnection = Connection<PeerClient>;

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Connect to this cluster only; `None` takes any. Peers always name their cluster, and this field is
    /// not read for them.
    pub expected_cluster_id: Option<String>,
    /// How long resolving the name and opening the TCP connection may take. Default 5 s.
    pub connect_timeout: Duration,
    /// How long the hello may take. Default [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// The most requests in flight; further calls wait. Default [`DEFAULT_REQUESTS_IN_FLIGHT`].
    pub max_requests_in_flight: usize,
    /// How many calls can be handed to the connection's task ahead of its taking them up. Default
    /// [`DEFAULT_REQUESTS_IN_FLIGHT`].
    pub request_queue: usize,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            expected_cluster_id: None,
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            max_requests_in_flight: DEFAULT_REQUESTS_IN_FLIGHT,
            request_queue: DEFAULT_REQUESTS_IN_FLIGHT,
        }
    }
}

/// Why there is no connection. Nothing was asked of the server.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Nothing listens there. Is the server running, and is the address right?
    #[error("{addr} refused the connection: is a server running there?")]
    Refused {
        /// The address.
        addr: String,
    },
    /// No answer in time.
    #[error("{addr} did not answer within {timeout:?}")]
    TimedOut {
        /// The address.
        addr: String,
        /// How long it had.
        timeout: Duration,
    },
    /// The name does not resolve, the host is unreachable, or the connection broke during the hello.
    #[error("could not connect to {addr}: {source}")]
    Io {
        /// The address.
        addr: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server refused the hello, and said why.
    #[error(
        "{addr} (node {node} of cluster \"{cluster}\") refused the connection: {refusal}{versions}",
        node = server.node_id, cluster = server.cluster_id, versions = versions(*version)
    )]
    HelloRefused {
        /// The address.
        addr: String,
        /// Why.
        refusal: Refusal,
        /// Who refused.
        server: ServerInfo,
        /// The protocol version that it speaks.
        version: u16,
    },
    /// What answers there is not one of our servers.
    #[error("{addr} is not a server of this kind: {detail}")]
    Protocol {
        /// The address.
        addr: String,
        /// What was wrong.
        detail: String,
    },
    /// The cluster id cannot be sent.
    #[error("invalid cluster id: {0}")]
    InvalidClusterId(String),
}

impl ConnectError {
    /// Whether something answered that is not the service that was called, or not in this protocol version: to
    /// connect again does not help as long as nobody changes the address or the release.
    #[must_use]
    pub fn is_wrong_server(&self) -> bool {
        match self {
            Self::Protocol { .. } => true,
            Self::HelloRefused { refusal, .. } => {
                matches!(refusal, Refusal::WrongVersion | Refusal::WrongService)
            }
            _ => false,
        }
    }
}

/// Both versions, where they differ.
fn versions(theirs: u16) -> String {
    if theirs == PROTOCOL_VERSION {
        return String::new();
    }
    format!(" (protocol version {theirs} there, {PROTOCOL_VERSION} here)")
}

/// An open connection. It lives as long as this value or any clone of its client does, and until either side
/// closes it or it breaks. It does not reconnect.
#[derive(Clone, Debug)]
pub struct Connection<C> {
    client: C,
    server: ServerInfo,
    /// Its sender lives in the connection's task and is dropped with it.
    alive: watch::Receiver<()>,
}

impl<C> Connection<C> {
    /// The client to call the server with.
    #[must_use]
    pub fn client(&self) -> &C {
        &self.client
    }

    /// Who answered.
    #[must_use]
    pub fn server(&self) -> &ServerInfo {
        &self.server
    }

    /// Whether the connection has ended. Calls then fail at once.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.alive.has_changed().is_err()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        let mut alive = self.alive.clone();
        // Nothing is ever sent: an error says that the sender is gone.
        while alive.changed().await.is_ok() {}
    }
}

/// Connects a client to the server at `addr`, given as `host:port`.
///
/// Must be called on a tokio runtime; the connection is a task there.
///
/// # Errors
///
/// [`ConnectError`] says what went wrong and what to do.
pub async fn connect_kv(addr: &str, options: &ConnectOptions) -> Result<KvConnection, ConnectError> {
    let hello = Hello::Client {
        expected_cluster_id: options.expected_cluster_id.clone(),
    };
    let (caller, server, alive) = connect(addr, &hello, options).await?;
    Ok(Connection {
        client: KvClient::from(caller),
        server,
        alive,
    })
}

/// Connects server `from` to server `to`, both of cluster `cluster_id`, at `addr`, given as `host:port`.
///
/// # Errors
///
/// As [`connect_kv`].
pub async fn connect_peer(
    addr: &str,
    cluster_id: &str,
    from: NodeId,
    to: NodeId,
    options: &ConnectOptions,
) -> Result<PeerConnection, ConnectError> {
    let hello = Hello::Peer {
        cluster_id: cluster_id.to_owned(),
        from,
        to,
    };
    let (caller, server, alive) = connect(addr, &hello, options).await?;
    Ok(Connection {
        client: PeerClient::from(caller),
        server,
        alive,
    })
}

/// A context for one call: the call ends with [`RpcError::DeadlineExceeded`] after `timeout`, which is cut to
/// [`MAX_DEADLINE`].
#[must_use]
pub fn context(timeout: Duration) -> Context {
    // Nothing of a context travels but its deadline, and to make one anew asks the tracing subscriber.
    static TEMPLATE: LazyLock<Context> = LazyLock::new(context::current);
    let mut context = *TEMPLATE;
    context.deadline = Instant::now() + timeout.min(MAX_DEADLINE);
    context
}

/// Whether the call failed because the connection is gone: connect anew. What became of the request is not
/// known.
#[must_use]
pub fn is_disconnect(error: &RpcError) -> bool {
    matches!(error, RpcError::Shutdown | RpcError::Channel(_))
}

async fn connect<Req, Resp>(
    addr: &str,
    hello: &Hello,
    options: &ConnectOptions,
) -> Result<(Caller<Req, Resp>, ServerInfo, watch::Receiver<()>), ConnectError>
where
    Req: Serialize + Send + 'static,
    Resp: DeserializeOwned + Send + 'static,
{
    check_hello(hello)?;
    let mut stream = within(addr, options.connect_timeout, open(addr)).await?;
    let greeting = greet(addr, &mut stream, hello);
    let server = within(addr, options.handshake_timeout, greeting).await?;

    // tokio panics on a larger queue.
    let request_queue = options.request_queue.clamp(1, Semaphore::MAX_PERMITS);
    let mut config = client::Config::default();
    config.max_in_flight_requests = options.max_requests_in_flight.max(1);
    config.pending_request_buffer = request_queue;
    let new = client::new(config, Transport::new(stream, CallerFraming::default()));
    let (alive_until_dropped, alive) = watch::channel(());
    let addr = addr.to_owned();
    tokio::spawn(async move {
        if let Err(error) = new.dispatch.await {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            tracing::debug!(addr, %error, reason, "a connection failed");
        }
        drop(alive_until_dropped);
    });
    Ok((Caller::new(new.client, request_queue), server, alive))
}

fn check_hello(hello: &Hello) -> Result<(), ConnectError> {
    let cluster_id = match hello {
        Hello::Peer { cluster_id, .. } => Some(cluster_id),
        Hello::Client { expected_cluster_id } => expected_cluster_id.as_ref(),
    };
    cluster_id
        .map_or(Ok(()), |id| check_cluster_id(id))
        .map_err(|error| ConnectError::InvalidClusterId(error.to_string()))
}

async fn within<T>(
    addr: &str,
    limit: Duration,
    step: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let timed_out = |_| ConnectError::TimedOut {
        addr: addr.to_owned(),
        timeout: limit,
    };
    timeout(limit, step).await.map_err(timed_out)?
}

async fn open(addr: &str) -> Result<TcpStream, ConnectError> {
    let stream = TcpStream::connect(addr)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::ConnectionRefused => ConnectError::Refused {
                addr: addr.to_owned(),
            },
            _ => ConnectError::Io {
                addr: addr.to_owned(),
                source,
            },
        })?;
    // Without it small requests wait for the server's acknowledgement; with an error they merely do so.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn greet(addr: &str, stream: &mut TcpStream, hello: &Hello) -> Result<ServerInfo, ConnectError> {
    let explain = |error| match error {
        HelloError::Io(source) => ConnectError::Io {
            addr: addr.to_owned(),
            source,
        },
        other => ConnectError::Protocol {
            addr: addr.to_owned(),
            detail: other.to_string(),
        },
    };
    hello.write(stream).await.map_err(explain)?;
    let Reply {
        server,
        refusal,
        version,
    } = Reply::read(stream).await.map_err(explain)?;
    match refusal {
        Some(refusal) => Err(ConnectError::HelloRefused {
            addr: addr.to_owned(),
            refusal,
            server,
            version,
        }),
        None => Ok(server),
    }
}

//! The wire contract of the key-value store: what its programs say to each other, and how.
//!
//! There are two services. [`client::Kv`] is what servers offer to clients, [`peer::Peer`] is what they offer
//! to each other: the RPCs of Raft. Both are [tarpc] services; this crate adds everything between them and
//! the socket:
//!
//! | module | what it does |
//! |---|---|
//! | [`hello`] | settles, before the first request, who talks to whom in which protocol version |
//! | [`framing`], [`codec`] | turn messages into length-prefixed frames and back, within limits |
//! | [`transport`] | a byte stream as a stream of messages; works over TCP and anything like it |
//! | [`server`] | listens, admits connections, runs handlers, stops in order |
//! | [`connect`], [`caller`] | open a connection, call over it |
//! | [`limits`] | every limit, with its default |
//! | [`echo`] | answers every call at once, to measure all this with |
//!
//! # Example
//!
//! A service, served and called. Real services keep their state behind handles that are cheap to clone.
//!
//! ```
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use raft_core::{LogIndex, NodeId, Term};
//! use rpc::client::*;
//! use rpc::{ConnectOptions, Context, ServerIdentity, ServerLimits};
//!
//! /// Holds one key for all eternity.
//! #[derive(Clone)]
//! struct Greeter;
//!
//! impl Kv for Greeter {
//!     async fn get(self, _: Context, key: Bytes, _: Consistency) -> Result<GetReply, KvError> {
//!         let found = (key == "hello").then(|| Found { value: "world".into(), version: LogIndex(1) });
//!         Ok(GetReply { found, applied_index: LogIndex(1), term: Term(1) })
//!     }
//!     // The other methods:
//! #   async fn open_session(self, _: Context) -> Result<SessionId, KvError> { Err(KvError::ShuttingDown) }
//! #   async fn put(self, _: Context, _: WriteId, _: Bytes, _: Bytes) -> Result<LogIndex, KvError> { Err(KvError::ShuttingDown) }
//! #   async fn append(self, _: Context, _: WriteId, _: Bytes, _: Bytes) -> Result<LogIndex, KvError> { Err(KvError::ShuttingDown) }
//! #   async fn delete(self, _: Context, _: WriteId, _: Bytes) -> Result<bool, KvError> { Err(KvError::ShuttingDown) }
//! #   async fn scan(self, _: Context, _: ScanRequest) -> Result<ScanReply, KvError> { Err(KvError::ShuttingDown) }
//! #   async fn status(self, _: Context) -> Result<StatusReply, KvError> { Err(KvError::ShuttingDown) }
//!     // …
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let addr = listener.local_addr()?.to_string();
//! let identity = ServerIdentity::new("demo", NodeId(1), [NodeId(1)])?;
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let server = tokio::spawn(rpc::serve_kv(listener, identity, ServerLimits::default(), Greeter, async {
//!     stopped.await.ok();
//! }));
//!
//! let connection = rpc::connect_kv(&addr, &ConnectOptions::default()).await?;
//! assert_eq!(connection.server().cluster_id, "demo");
//! let context = rpc::context(Duration::from_secs(1));
//! let reply = connection.client().get(context, "hello".into(), Consistency::Linearizable).await??;
//! assert_eq!(reply.found.unwrap().value, "world");
//!
//! drop(stop);
//! server.await?;
//! # Ok(())
//! # }
//! ```
//!
//! Of the two question marks behind a call, the first is for [`RpcError`]: the call did not get through, or its
//! deadline passed, and what became of the request is not known. The second is for the service's own error,
//! which says what is known.
//!
//! # What it guards against
//!
//! Bytes from strangers: a frame over the limit is refused when its header arrives; buffers grow with what
//! arrives and not with what is announced; no length within a message is believed. Connections that are
//! silent, slow, idle, greedy or do not take their answers are closed or held back
//! ([`ServerLimits`] lists how). Deadlines travel as milliseconds and are cut to [`limits::MAX_DEADLINE`], so no
//! sender reaches the values at which tarpc's timers panic. A panic in a handler ends its connection only.
//!
//! # What it will not do
//!
//! - Reconnect or retry: the caller knows what may be repeated.
//! - Encrypt or authenticate. [`transport::Transport`] takes any byte stream, so TLS fits underneath, but nothing
//!   here sets it up; the hello guards against mistakes, not against malice.
//! - Talk to another protocol version. Both sides must run the same [`hello::PROTOCOL_VERSION`].
//! - Promise an order of answers. Handlers *start* in the order in which requests were sent on a connection.
//!
//! # Logs
//!
//! tarpc makes a span at `info` for each request, which costs more than the request when it is enabled, and
//! logs each passed deadline as an error. Filter its target: `tarpc=off` in the program's filter (`tarpc=warn`
//! avoids the spans, and still lets a caller with deadlines of 0 fill the log). This crate logs refusals and
//! panics; connections that come, go and fail are at `debug`.
#![forbid(unsafe_code)]

mod admission;
pub mod caller;
pub mod client;
pub mod codec;
pub mod connect;
mod connection;
pub mod echo;
pub mod framing;
pub mod hello;
pub mod limits;
pub mod peer;
mod refusal_log;
pub mod server;
pub mod transport;
mod watchdog;

pub use connect::{
    ConnectError, ConnectOptions, Connection, KvClient, KvConnection, PeerClient, PeerConnection, connect_kv,
    connect_peer, context, is_disconnect,
};
pub use hello::{Refusal, ServerIdentity, ServerInfo};
pub use limits::ServerLimits;
pub use server::{serve_kv, serve_peer};
pub use tarpc::client::RpcError;
pub use tarpc::context::Context;

//! The wire contract (front page follows).
#![forbid(unsafe_code)]

mod admission;
pub mod caller;
pub mod client;
pub mod codec;
pub mod connect;
mod connection;
pub mod framing;
pub mod hello;
pub mod limits;
pub mod peer;
pub mod server;
pub mod transport;
mod watchdog;

pub use connect::{
    ConnectError, ConnectOptions, KvClient, KvConnection, PeerClient, PeerConnection, connect_kv,
    connect_peer, context, is_disconnect,
};
pub use hello::{Refusal, ServerIdentity, ServerInfo};
pub use limits::ServerLimits;
pub use server::{serve_kv, serve_peer};
pub use tarpc::client::RpcError;
pub use tarpc::context::Context;

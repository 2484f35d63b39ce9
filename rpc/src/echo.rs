//! A service that answers every call at once: what the transport alone costs, beside which a cluster can be measured.
//!
//! It speaks the client service, so the same client can call either.

use bytes::Bytes;
use raft_core::{LogIndex, NodeId, Role, Term};
use tokio::net::TcpListener;

use crate::Context;
use crate::client::{
    Consistency, Found, GetReply, Kv, KvError, Member, ScanReply, ScanRequest, Sequence, SessionId,
    StatusReply, WriteId,
};
use crate::hello::ServerIdentity;
use crate::limits::ServerLimits;
use crate::server::serve_kv;

const CLUSTER: &str = "echo";

/// Serves on `listener` until `shutdown` resolves. Every key has the same value, of `value_bytes`, and every write is
/// done; nothing is kept.
///
/// # Errors
///
/// When the system does not tell the listener's own address.
///
/// ```
/// use rpc::client::Consistency;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let addr = listener.local_addr()?.to_string();
/// tokio::spawn(rpc::echo::serve_echo(listener, 128, std::future::pending()));
/// let connection = rpc::connect_kv(&addr, &rpc::ConnectOptions::default()).await?;
/// let context = rpc::context(std::time::Duration::from_secs(1));
/// let reply = connection.client().get(context, "any".into(), Consistency::Linearizable).await??;
/// assert_eq!(reply.found.unwrap().value.len(), 128);
/// # Ok(())
/// # }
/// ```
pub async fn serve_echo(
    listener: TcpListener,
    value_bytes: usize,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let echo = Echo {
        addr: listener.local_addr()?.to_string(),
        value: vec![b'v'; value_bytes].into(),
    };
    let identity = ServerIdentity::new(CLUSTER, NodeId(1), [NodeId(1)]).map_err(std::io::Error::other)?;
    serve_kv(listener, identity, ServerLimits::default(), echo, shutdown).await;
    Ok(())
}

#[derive(Clone)]
struct Echo {
    addr: String,
    value: Bytes,
}

impl Kv for Echo {
    async fn open_session(self, _: Context) -> Result<SessionId, KvError> {
        Ok(SessionId {
            opened_at: LogIndex(1),
            secret: 1,
        })
    }

    async fn put(self, _: Context, write: WriteId, _: Bytes, _: Bytes) -> Result<LogIndex, KvError> {
        let Sequence(number) = write.sequence;
        Ok(LogIndex(number))
    }

    async fn append(self, _: Context, write: WriteId, _: Bytes, _: Bytes) -> Result<LogIndex, KvError> {
        let Sequence(number) = write.sequence;
        Ok(LogIndex(number))
    }

    async fn delete(self, _: Context, _: WriteId, _: Bytes) -> Result<bool, KvError> {
        Ok(true)
    }

    async fn get(self, _: Context, _: Bytes, _: Consistency) -> Result<GetReply, KvError> {
        Ok(GetReply {
            // Copied, as a node copies what it holds.
            found: Some(Found {
                value: Bytes::copy_from_slice(&self.value),
                version: LogIndex(1),
            }),
            applied_index: LogIndex(1),
            term: Term(1),
        })
    }

    async fn scan(self, _: Context, _: ScanRequest) -> Result<ScanReply, KvError> {
        Ok(ScanReply {
            items: Vec::new(),
            more: false,
            applied_index: LogIndex(1),
            term: Term(1),
        })
    }

    async fn status(self, _: Context) -> Result<StatusReply, KvError> {
        Ok(StatusReply {
            id: NodeId(1),
            cluster_id: CLUSTER.to_owned(),
            role: Role::Leader,
            leader_id: Some(NodeId(1)),
            term: Term(1),
            commit_index: LogIndex(1),
            last_applied: LogIndex(1),
            last_log_index: LogIndex(1),
            snapshot_index: LogIndex::ZERO,
            keys: 0,
            sessions: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            members: vec![Member {
                id: NodeId(1),
                client_addr: self.addr,
            }],
        })
    }
}

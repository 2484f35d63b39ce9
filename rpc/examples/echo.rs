//! A server that answers every call at once: what the transport alone costs.
//!
//! It speaks the client service, so the same client can measure it that measures a cluster, and what remains between
//! the two is the cluster's own:
//!
//! ```sh
//! cargo run --release -p rpc --example echo -- 127.0.0.1:7990
//! clerk --endpoints 127.0.0.1:7990 bench --op get --clients 1                     # in another terminal
//! clerk bench --op get --clients 1 --consistency lease                           # a cluster with raft.lease_reads
//! ```
//!
//! It has one thread, as the part of a node that answers reads has, and ends with Ctrl-C or a signal. For what one
//! connection carries without `clerk` see the example `throughput`.

use std::env;
use std::error::Error;
use std::future::pending;

use bytes::Bytes;
use raft_core::{LogIndex, NodeId, Role, Term};
use rpc::client::{
    Consistency, Found, GetReply, Kv, KvError, Member, ScanReply, ScanRequest, Sequence, SessionId,
    StatusReply, WriteId,
};
use rpc::{Context, ServerIdentity, ServerLimits, serve_kv};
use tokio::net::TcpListener;

const CLUSTER: &str = "echo";
const VALUE: [u8; 128] = [b'v'; 128];

/// Holds nothing: every key has the same value, and every write is done.
#[derive(Clone)]
struct Echo {
    addr: String,
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
                value: Bytes::copy_from_slice(&VALUE),
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

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let addr = env::args()
        .nth(1)
        .ok_or("usage: echo ADDRESS, such as 127.0.0.1:7990")?;
    let listener = TcpListener::bind(&addr).await?;
    let addr = listener.local_addr()?.to_string();
    println!("answers on {addr}");
    let identity = ServerIdentity::new(CLUSTER, NodeId(1), [NodeId(1)])?;
    serve_kv(
        listener,
        identity,
        ServerLimits::default(),
        Echo { addr },
        pending(),
    )
    .await;
    Ok(())
}

//! The `Kv` service: checks a client's request, hands it to the KV server, and shapes the answer.

use std::sync::Arc;

use actix::Addr;
use bytes::Bytes;
use raft_core::{LogIndex, NodeId, Term};
use rpc::client::{
    BusyReason, Consistency, GetReply, Kv, KvError, Member, ScanReply, ScanRequest, SessionId, StatusReply,
    WriteId,
};
use rpc::peer::DiskRoom;
use tarpc::context::Context;
use tokio::sync::oneshot;

use crate::actors::{GetStatus, RaftNode};
use crate::command::{Command, Operation, validate_key, validate_scan, validate_write_id};
use crate::intake::{Door, ReadWay, Request};
use crate::sessions::Outcome;
use crate::state_machine::Reply;
use crate::state_reader::StateReader;

/// Serves the requests of clients.
///
/// It is cloned for every request, which is one count for all that it shares: to clone an actor's address
/// costs two allocations.
#[derive(Clone, Debug)]
pub(crate) struct ClientService(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    door: Arc<Door>,
    node: Addr<RaftNode>,
    reader: StateReader,
    about: About,
}

/// What `status` tells beside the node's own state.
#[derive(Debug)]
pub(crate) struct About {
    /// This server.
    pub(crate) id: NodeId,
    /// The cluster's name.
    pub(crate) cluster_id: String,
    /// All servers of the cluster.
    pub(crate) members: Vec<Member>,
}

impl ClientService {
    /// Serves clients of the server behind `door` and `node`; reads come from `reader`.
    #[must_use]
    pub(crate) fn new(door: Arc<Door>, node: Addr<RaftNode>, reader: StateReader, about: About) -> Self {
        Self(Arc::new(Shared {
            door,
            node,
            reader,
            about,
        }))
    }

    /// Takes a command through the log.
    async fn submit(&self, command: &Command, needs: DiskRoom) -> Result<Reply, KvError> {
        let (reply, answer) = oneshot::channel();
        self.0.door.push(Request::Submit {
            command: command.encode(),
            needs,
            reply,
        })?;
        // Dropped unanswered: the server went down while the entry was on its way.
        answer.await.unwrap_or(Err(KvError::OutcomeUnknown))
    }

    async fn write(&self, id: WriteId, operation: Operation) -> Result<Outcome, KvError> {
        validate_write_id(&id).map_err(KvError::InvalidArgument)?;
        operation.validate().map_err(KvError::InvalidArgument)?;
        let needs = match operation {
            Operation::Put { .. } | Operation::Append { .. } => DiskRoom::Ample,
            Operation::Delete { .. } => DiskRoom::Low,
        };
        match self.submit(&Command::Write { id, op: operation }, needs).await? {
            Reply::Written(result) => result,
            other => unreachable!("a write was answered with {other:?}"),
        }
    }

    async fn store(&self, id: WriteId, operation: Operation) -> Result<LogIndex, KvError> {
        match self.write(id, operation).await? {
            Outcome::Stored { version } => Ok(version),
            Outcome::Deleted { .. } => unreachable!("a put or an append is answered with a version"),
        }
    }

    /// Waits until a read of this consistency may be served; yields the term.
    async fn read_barrier(&self, consistency: Consistency) -> Result<Term, KvError> {
        let way = match consistency {
            Consistency::Stale => return Ok(self.status_of_node().await?.soft_state.term),
            // Through the log where no entry fits: a read index promises the same.
            Consistency::Linearizable | Consistency::Log => ReadWay::Round,
            Consistency::Lease => ReadWay::Lease,
            Consistency::Anywhere => ReadWay::Anywhere,
        };
        Ok(self.0.door.read(way).await?.term)
    }

    async fn status_of_node(&self) -> Result<raft_core::Status, KvError> {
        self.0
            .node
            .send(GetStatus)
            .await
            .map_err(|_| KvError::ShuttingDown)
    }
}

impl Kv for ClientService {
    async fn open_session(self, _: Context) -> Result<SessionId, KvError> {
        let secret = rand::random();
        // Whoever wants to delete needs a session.
        match self
            .submit(&Command::OpenSession { secret }, DiskRoom::Low)
            .await?
        {
            Reply::SessionOpened(session) => Ok(session),
            other => unreachable!("a session was asked for and the reply is {other:?}"),
        }
    }

    async fn put(self, _: Context, write: WriteId, key: Bytes, value: Bytes) -> Result<LogIndex, KvError> {
        self.store(write, Operation::Put { key, value }).await
    }

    async fn append(self, _: Context, write: WriteId, key: Bytes, value: Bytes) -> Result<LogIndex, KvError> {
        self.store(write, Operation::Append { key, value }).await
    }

    async fn delete(self, _: Context, write: WriteId, key: Bytes) -> Result<bool, KvError> {
        match self.write(write, Operation::Delete { key }).await? {
            Outcome::Deleted { existed } => Ok(existed),
            Outcome::Stored { .. } => unreachable!("a delete is answered with whether the key was there"),
        }
    }

    async fn get(self, _: Context, key: Bytes, consistency: Consistency) -> Result<GetReply, KvError> {
        validate_key(&key).map_err(KvError::InvalidArgument)?;
        if consistency == Consistency::Log {
            match self
                .submit(&Command::Get { key: key.clone() }, DiskRoom::Low)
                .await
            {
                Ok(Reply::Read(reply)) => return Ok(reply),
                Ok(other) => unreachable!("a read was answered with {other:?}"),
                // Reads go on when no entry fits on the disk: a read index promises the same.
                Err(KvError::Busy(BusyReason::DiskFull { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        let term = self.read_barrier(consistency).await?;
        Ok(self.0.reader.get(&key, term))
    }

    async fn scan(self, _: Context, request: ScanRequest) -> Result<ScanReply, KvError> {
        validate_scan(&request).map_err(KvError::InvalidArgument)?;
        let term = self.read_barrier(request.consistency).await?;
        Ok(self.0.reader.scan(&request, term))
    }

    async fn status(self, _: Context) -> Result<StatusReply, KvError> {
        let status = self.status_of_node().await?;
        Ok(StatusReply {
            id: self.0.about.id,
            cluster_id: self.0.about.cluster_id.clone(),
            role: status.soft_state.role,
            leader_id: status.soft_state.leader_id,
            term: status.soft_state.term,
            commit_index: status.commit_index,
            last_applied: self.0.reader.applied_index(),
            last_log_index: status.last_log_index,
            snapshot_index: status.snapshot_index,
            keys: self.0.reader.keys(),
            sessions: self.0.reader.sessions(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            members: self.0.about.members.clone(),
        })
    }
}

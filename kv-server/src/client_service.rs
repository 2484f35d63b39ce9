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

use crate::actors::{GetStatus, RaftNode};
use crate::command::{Command, Operation, validate_key, validate_scan, validate_write_id};
use crate::intake::{Answer, Door, ReadWay};
use crate::sessions::Outcome;
use crate::shared_lease::SharedLease;
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
    lease: SharedLease,
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
    /// Serves clients of the server behind `door` and `node`, whose leases `lease` tells; reads come from `reader`.
    #[must_use]
    pub(crate) fn new(
        door: Arc<Door>,
        node: Addr<RaftNode>,
        lease: SharedLease,
        reader: StateReader,
        about: About,
    ) -> Self {
        Self(Arc::new(Shared {
            door,
            node,
            lease,
            reader,
            about,
        }))
    }

    /// Takes a write through the log.
    fn write(&self, id: WriteId, operation: Operation) -> Answer<Reply> {
        if let Err(argument) = validate_write_id(&id).and_then(|()| operation.validate()) {
            return Answer::refused(KvError::InvalidArgument(argument));
        }
        let needs = match operation {
            Operation::Put { .. } | Operation::Append { .. } => DiskRoom::Ample,
            Operation::Delete { .. } => DiskRoom::Low,
        };
        self.0.door.submit(&Command::Write { id, op: operation }, needs)
    }

    /// Reads through the log. `None` if no entry fits on the disk.
    async fn get_through_log(&self, key: Bytes) -> Option<Result<GetReply, KvError>> {
        match self.0.door.submit(&Command::Get { key }, DiskRoom::Low).await {
            Ok(Reply::Read(reply)) => Some(Ok(reply)),
            Ok(other) => unreachable!("a read was answered with {other:?}"),
            Err(KvError::Busy(BusyReason::DiskFull { .. })) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Waits until a read of this consistency may be served; yields the term.
    async fn read_barrier(&self, consistency: Consistency) -> Result<Term, KvError> {
        let way = match consistency {
            Consistency::Stale => return Ok(Box::pin(self.status_of_node()).await?.soft_state.term),
            // Through the log where no entry fits: a read index promises the same.
            Consistency::Linearizable | Consistency::Log => ReadWay::Round,
            Consistency::Lease => match self.lease_barrier() {
                Some(term) => return Ok(term),
                None => ReadWay::Lease,
            },
            Consistency::Anywhere => ReadWay::Anywhere,
        };
        Ok(self.0.door.read(way).await?.term)
    }

    /// The term, if the leader's lease covers a read that is here and the state machine has come far enough: nobody is
    /// asked, and nobody has to wait.
    fn lease_barrier(&self) -> Option<Term> {
        let (term, index) = self.0.lease.read_index()?;
        (self.0.reader.applied_index() >= index).then_some(term)
    }

    async fn status_of_node(&self) -> Result<raft_core::Status, KvError> {
        self.0
            .node
            .send(GetStatus)
            .await
            .map_err(|_| KvError::ShuttingDown)
    }
}

/// What a write did.
fn outcome(reply: Result<Reply, KvError>) -> Result<Outcome, KvError> {
    match reply? {
        Reply::Written(result) => result,
        other => unreachable!("a write was answered with {other:?}"),
    }
}

/// The version that a `put` or an `append` made.
fn version(reply: Result<Reply, KvError>) -> Result<LogIndex, KvError> {
    match outcome(reply)? {
        Outcome::Stored { version } => Ok(version),
        Outcome::Deleted { .. } => unreachable!("a put or an append is answered with a version"),
    }
}

/// The futures of all methods share the room of the largest one, which is allocated for every request. So what is
/// frequent hands its arguments over before it waits, and what is rare or large is boxed.
impl Kv for ClientService {
    async fn open_session(self, _: Context) -> Result<SessionId, KvError> {
        let secret = rand::random();
        // Whoever wants to delete needs a session.
        let opened = self
            .0
            .door
            .submit(&Command::OpenSession { secret }, DiskRoom::Low);
        match opened.await? {
            Reply::SessionOpened(session) => Ok(session),
            other => unreachable!("a session was asked for and the reply is {other:?}"),
        }
    }

    fn put(
        self,
        _: Context,
        write: WriteId,
        key: Bytes,
        value: Bytes,
    ) -> impl Future<Output = Result<LogIndex, KvError>> + Send {
        let reply = self.write(write, Operation::Put { key, value });
        async move { version(reply.await) }
    }

    fn append(
        self,
        _: Context,
        write: WriteId,
        key: Bytes,
        value: Bytes,
    ) -> impl Future<Output = Result<LogIndex, KvError>> + Send {
        let reply = self.write(write, Operation::Append { key, value });
        async move { version(reply.await) }
    }

    async fn delete(self, _: Context, write: WriteId, key: Bytes) -> Result<bool, KvError> {
        match outcome(self.write(write, Operation::Delete { key }).await)? {
            Outcome::Deleted { existed } => Ok(existed),
            Outcome::Stored { .. } => unreachable!("a delete is answered with whether the key was there"),
        }
    }

    async fn get(self, _: Context, key: Bytes, consistency: Consistency) -> Result<GetReply, KvError> {
        validate_key(&key).map_err(KvError::InvalidArgument)?;
        if consistency == Consistency::Log
            && let Some(result) = Box::pin(self.get_through_log(key.clone())).await
        {
            return result;
        }
        // Also where no entry fits on the disk: a read index promises the same.
        let term = self.read_barrier(consistency).await?;
        Ok(self.0.reader.get(&key, term))
    }

    fn scan(
        self,
        _: Context,
        request: ScanRequest,
    ) -> impl Future<Output = Result<ScanReply, KvError>> + Send {
        Box::pin(async move {
            validate_scan(&request).map_err(KvError::InvalidArgument)?;
            let term = self.read_barrier(request.consistency).await?;
            Ok(self.0.reader.scan(&request, term))
        })
    }

    async fn status(self, _: Context) -> Result<StatusReply, KvError> {
        let status = Box::pin(self.status_of_node()).await?;
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

#[cfg(test)]
mod tests {
    use rpc::client::{KvRequest, ServeKv};
    use tarpc::server::Serve;

    use super::*;

    fn size_of_output<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_is_allocated_for_a_request_is_small() {
        let serve = |service: ServeKv<ClientService>, context: Context, request: KvRequest| {
            service.serve(context, request)
        };
        let size = size_of_output(serve);
        assert!(size <= 768, "{size} bytes");
    }
}

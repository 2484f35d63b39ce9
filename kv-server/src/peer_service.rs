//! The `Peer` service: hands a peer's request to the node and waits for the node's response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::Addr;
use raft_core::{
    AppendEntries, AppendEntriesResponse, Entry, InstallSnapshot, InstallSnapshotResponse, LogIndex, Message,
    NodeId, TimeoutNow, TimeoutNowResponse, VoteRequest, VoteResponse,
};
use rpc::client::KvError;
use rpc::peer::{DiskRoom, Peer, PeerError};
use tarpc::context::Context;
use tokio::sync::oneshot;

use crate::actors::{PeerRequest, RaftNode};
use crate::disk_room::DiskSpace;
use crate::intake::{Door, ReadWay};

/// Serves the requests of one peer.
#[derive(Clone, Debug)]
pub(crate) struct PeerService {
    from: NodeId,
    /// Shared, because a service is cloned for every request and an address is dear to clone.
    node: Arc<Addr<RaftNode>>,
    disk: Arc<DiskSpace>,
    door: Arc<Door>,
    refused: Arc<RefusedSnapshots>,
}

/// The last snapshot that was refused for want of room, so that the log tells it once: the leader tries again and again.
#[derive(Debug, Default)]
struct RefusedSnapshots(AtomicU64);

impl RefusedSnapshots {
    /// Whether this refusal is to be told.
    fn is_new(&self, last_included_index: LogIndex) -> bool {
        self.0.swap(last_included_index.get(), Ordering::Relaxed) != last_included_index.get()
    }
}

impl PeerService {
    /// Serves `from`, whose identity the connection settled. Nothing is taken that `disk` has no room for; reads
    /// of `from` go through `door`.
    #[must_use]
    pub(crate) fn new(
        from: NodeId,
        node: Arc<Addr<RaftNode>>,
        disk: Arc<DiskSpace>,
        door: Arc<Door>,
    ) -> Self {
        Self {
            from,
            node,
            disk,
            door,
            refused: Arc::default(),
        }
    }

    /// A refusal is as if the message had been lost: nothing was promised, and the leader tries again.
    fn take_entries(&self, entries: &[Entry]) -> Result<(), PeerError> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.disk.room() == DiskRoom::Out {
            return Err(PeerError::DiskFull);
        }
        self.disk
            .spend(entries.iter().map(Entry::size_bytes).sum::<usize>() as u64);
        Ok(())
    }

    /// The whole file has to fit before its first byte is taken.
    fn take_chunk(&self, request: &InstallSnapshot) -> Result<(), PeerError> {
        if self.disk.take_lacked_room() {
            // Told when it was found out.
            return Err(PeerError::DiskFull);
        }
        if !self
            .disk
            .fits(request.snapshot.size_bytes.saturating_sub(request.offset))
        {
            let index = request.snapshot.last_included_index;
            if self.refused.is_new(index) {
                tracing::warn!(
                    "refuses the snapshot at {index} of node {}, without which this node cannot catch up: it takes {} \
                     bytes, of its disk {} are free, and {} are kept back. Make room; it goes on by itself",
                    self.from,
                    request.snapshot.size_bytes,
                    self.disk.expected_free_bytes(),
                    self.disk.out_below()
                );
            }
            return Err(PeerError::DiskFull);
        }
        self.disk.spend(request.data.len() as u64);
        Ok(())
    }

    /// The request reaches the node's mailbox before this first waits, so requests keep the order in which
    /// they are started.
    async fn call(&self, message: Message) -> Result<Message, PeerError> {
        let (reply, response) = oneshot::channel();
        let request = PeerRequest {
            from: self.from,
            message,
            reply,
        };
        self.node.try_send(request).map_err(|error| match error {
            actix::prelude::SendError::Full(_) => PeerError::Busy,
            actix::prelude::SendError::Closed(_) => PeerError::ShuttingDown,
        })?;
        response.await.map_err(|_| PeerError::ShuttingDown)
    }
}

/// Takes the response of the right kind. The core answers each request with its own kind.
macro_rules! expect_response {
    ($message:expr, $kind:path) => {
        match $message {
            $kind(response) => Ok(response),
            other => unreachable!("the node answered with {other:?}"),
        }
    };
}

impl Peer for PeerService {
    async fn pre_vote(self, _: Context, request: VoteRequest) -> Result<VoteResponse, PeerError> {
        expect_response!(
            self.call(Message::PreVote(request)).await?,
            Message::PreVoteResponse
        )
    }

    async fn request_vote(self, _: Context, request: VoteRequest) -> Result<VoteResponse, PeerError> {
        expect_response!(
            self.call(Message::RequestVote(request)).await?,
            Message::RequestVoteResponse
        )
    }

    async fn append_entries(
        self,
        _: Context,
        request: AppendEntries,
    ) -> Result<AppendEntriesResponse, PeerError> {
        self.take_entries(&request.entries)?;
        expect_response!(
            self.call(Message::AppendEntries(request)).await?,
            Message::AppendEntriesResponse
        )
    }

    async fn install_snapshot(
        self,
        _: Context,
        request: InstallSnapshot,
    ) -> Result<InstallSnapshotResponse, PeerError> {
        self.take_chunk(&request)?;
        expect_response!(
            self.call(Message::InstallSnapshot(request)).await?,
            Message::InstallSnapshotResponse
        )
    }

    async fn timeout_now(self, _: Context, request: TimeoutNow) -> Result<TimeoutNowResponse, PeerError> {
        expect_response!(
            self.call(Message::TimeoutNow(request)).await?,
            Message::TimeoutNowResponse
        )
    }

    async fn read_index(self, _: Context) -> Result<LogIndex, PeerError> {
        let fresh = self.door.read(ReadWay::Round).await;
        fresh.map(|fresh| fresh.index).map_err(|error| match error {
            KvError::Busy(_) => PeerError::Busy,
            KvError::ShuttingDown => PeerError::ShuttingDown,
            _ => PeerError::NotLeader,
        })
    }

    async fn disk_room(self, _: Context) -> Result<DiskRoom, PeerError> {
        Ok(self.disk.room())
    }
}

//! The service that servers offer to each other: the RPCs of Raft, one method each.

use raft_core::{
    AppendEntries, AppendEntriesResponse, InstallSnapshot, InstallSnapshotResponse, LogIndex, TimeoutNow,
    TimeoutNowResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Server to server. Who the caller is was settled when the connection opened (see [`crate::hello`]).
#[tarpc::service]
#[trait_variant::make(Send)]
pub trait Peer {
    /// Would you vote for me? (thesis §9.6)
    async fn pre_vote(request: VoteRequest) -> Result<VoteResponse, PeerError>;
    /// Vote for me (Raft §5.2).
    async fn request_vote(request: VoteRequest) -> Result<VoteResponse, PeerError>;
    /// Replicates entries, or beats (Raft §5.3).
    async fn append_entries(request: AppendEntries) -> Result<AppendEntriesResponse, PeerError>;
    /// Takes one chunk of a snapshot (Raft §7).
    async fn install_snapshot(request: InstallSnapshot) -> Result<InstallSnapshotResponse, PeerError>;
    /// Start an election at once (thesis §3.10).
    async fn timeout_now(request: TimeoutNow) -> Result<TimeoutNowResponse, PeerError>;
    /// How much room is left on your disk? Asked by a leader, which refuses new writes before a majority is
    /// out of room.
    async fn disk_room() -> Result<DiskRoom, PeerError>;
    /// From which place in the log on is a read linearizable that began before this call? Asked by a follower
    /// for the reads that it serves itself; the leader confirms that it leads first (thesis §6.4).
    async fn read_index() -> Result<LogIndex, PeerError>;
}

/// How much room is left on a server's disk. In order: each level allows all that the ones before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DiskRoom {
    /// The last reserve: nothing that is not needed to stay in the cluster is written.
    Out,
    /// Nothing more should be stored, but what makes room may be written.
    Low,
    /// Enough, or not known.
    #[default]
    Ample,
}

/// Why a server did not process a peer's request. Nothing was promised; the caller tries again later.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum PeerError {
    /// More requests wait than the server takes.
    #[error("the server has too many peer requests in flight")]
    Busy,
    /// The server is stopping.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The server's disk has no room for what the request carries. It goes on when it has.
    #[error("the server's disk is full")]
    DiskFull,
    /// The server does not lead, or does not any more.
    #[error("the server is not the leader")]
    NotLeader,
}

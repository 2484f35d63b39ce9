//! The service that servers offer to clients.

use std::fmt;

use bytes::Bytes;
use raft_core::{LogIndex, NodeId, Role, Term};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Client to server.
///
/// Keys are 1 to [`MAX_KEY_BYTES`](crate::limits::MAX_KEY_BYTES) long, values up to
/// [`MAX_VALUE_BYTES`](crate::limits::MAX_VALUE_BYTES).
#[tarpc::service]
#[trait_variant::make(Send)]
pub trait Kv {
    /// Registers a session through the log. Calling it again registers another one.
    async fn open_session() -> Result<SessionId, KvError>;
    /// Sets `key` to `value`. Returns the log index of the write, the key's new version.
    async fn put(write: WriteId, key: Bytes, value: Bytes) -> Result<LogIndex, KvError>;
    /// Appends `value` to what `key` holds; a missing key counts as empty. Returns the key's new version.
    async fn append(write: WriteId, key: Bytes, value: Bytes) -> Result<LogIndex, KvError>;
    /// Removes `key`. Returns whether it was there.
    async fn delete(write: WriteId, key: Bytes) -> Result<bool, KvError>;
    /// Reads `key`.
    async fn get(key: Bytes, consistency: Consistency) -> Result<GetReply, KvError>;
    /// Reads one page of a range, as of one point in time.
    async fn scan(request: ScanRequest) -> Result<ScanReply, KvError>;
    /// What this server knows of itself and the cluster. Always answers, leader or not.
    async fn status() -> Result<StatusReply, KvError>;
}

/// A client's session (thesis §6.3): the scope in which a write's sequence number is unique.
///
/// The log gives the id: the index of the entry that opened the session, and random bits that the entry
/// carries, so that no client can guess another's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId {
    /// Index of the log entry that opened the session.
    pub opened_at: LogIndex,
    /// Random bits drawn by the server that proposed the entry.
    pub secret: u64,
}

impl fmt::Debug for SessionId {
    /// Leaves the secret out: ids end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.opened_at)
    }
}

/// Numbers the writes of one session, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// Names one write, so that it takes effect once however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteId {
    /// The session.
    pub session: SessionId,
    /// The write's number in its session. The same on every retry.
    pub sequence: Sequence,
    /// The lowest number in the session whose answer the client still waits for; the servers forget the
    /// answers below. At most `sequence`.
    pub lowest_outstanding: Sequence,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Consistency {
    /// Sees every write that finished before the read began; costs a heartbeat round (thesis §6.4).
    #[default]
    Linearizable,
    /// The same, on the leader's lease where the cluster allows it (thesis §6.4.1), else by a round.
    Lease,
    /// The same, by an entry in the log.
    Log,
    /// Whatever the asked server has applied: fast, and possibly old.
    Stale,
    /// As [`Self::Linearizable`], answered by whichever server is asked: a follower asks its leader for a read
    /// index (thesis §6.4), so reads can be spread over the cluster.
    Anywhere,
}

/// The answer to `get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetReply {
    /// The value and its version; `None` if the key is not there.
    pub found: Option<Found>,
    /// The state that was read had applied the log up to here.
    pub applied_index: LogIndex,
    /// The answering server's term.
    pub term: Term,
}

/// A value with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The value.
    pub value: Bytes,
    /// The log index of the write that made it.
    pub version: LogIndex,
}

/// Arguments of `scan`: one page of the keys in `[from, to)`, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanRequest {
    /// The first key of the range; empty for the beginning.
    pub from: Bytes,
    /// The first key behind the range; `None` for no end.
    pub to: Option<Bytes>,
    /// The most items wanted; the page holds at most
    /// [`MAX_SCAN_ITEMS`](crate::limits::MAX_SCAN_ITEMS) and
    /// [`MAX_SCAN_BYTES`](crate::limits::MAX_SCAN_BYTES) all the same.
    pub limit: u32,
    /// Leave the values out.
    pub keys_only: bool,
    /// How fresh the page must be.
    pub consistency: Consistency,
}

/// The answer to `scan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanReply {
    /// The items, in order of their keys.
    pub items: Vec<ScanItem>,
    /// Whether the range goes on behind the last item. The next page starts just behind that key.
    pub more: bool,
    /// The state that was read had applied the log up to here.
    pub applied_index: LogIndex,
    /// The answering server's term.
    pub term: Term,
}

/// One item of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanItem {
    /// The key.
    pub key: Bytes,
    /// The value; empty if only keys were asked for.
    pub value: Bytes,
    /// The log index of the write that made the value.
    pub version: LogIndex,
}

/// The answer to `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply {
    /// The answering server.
    pub id: NodeId,
    /// The name of its cluster.
    pub cluster_id: String,
    /// Its role.
    pub role: Role,
    /// The leader it knows of.
    pub leader_id: Option<NodeId>,
    /// Its current term.
    pub term: Term,
    /// Its commit index.
    pub commit_index: LogIndex,
    /// The last entry it applied.
    pub last_applied: LogIndex,
    /// The last entry of its log.
    pub last_log_index: LogIndex,
    /// The last entry that its latest snapshot covers.
    pub snapshot_index: LogIndex,
    /// How many keys it holds.
    pub keys: u64,
    /// How many sessions are open.
    pub sessions: u64,
    /// The version of the program.
    pub version: String,
    /// All servers of the cluster, so that a client with one address finds the rest.
    pub members: Vec<Member>,
}

/// A server of the cluster, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its identity.
    pub id: NodeId,
    /// Where it serves clients, as `host:port`.
    pub client_addr: String,
}

/// Why a server did not do what a client asked; each variant says what is known of the request.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum KvError {
    /// Not done: another server leads. Ask `leader`, or anyone else if it is `None`.
    #[error("this server is not the leader")]
    NotLeader {
        /// The leader, if this server knows it.
        leader: Option<Member>,
    },
    /// Not done: a limit on work in flight is reached. Try again after a pause.
    #[error("the server is busy: {0}")]
    Busy(BusyReason),
    /// Not done: the server is stopping.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Not done, and never will be: an argument is outside its limit.
    #[error("{0}")]
    InvalidArgument(InvalidArgument),
    /// This request did not execute the write. The session has ended, so whether an earlier request with
    /// the same [`WriteId`] did is not known any more.
    #[error("the session has ended: open a new one")]
    SessionExpired,
    /// Not executed by this request: the client said before that it had the answer.
    #[error("the answer to this sequence number was forgotten, as the client had asked")]
    SequenceForgotten,
    /// Not known: leadership moved while the request was in progress. Ask again with the same [`WriteId`].
    #[error("leadership moved while the request was in progress; it may have taken effect or not")]
    OutcomeUnknown,
}

/// Which limit on work in flight was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum BusyReason {
    /// Too many requests wait for their answer.
    #[error("too many requests in flight")]
    RequestsInFlight,
    /// Too many bytes of the log are not committed yet.
    #[error("too many uncommitted bytes")]
    UncommittedBytes,
    /// A session has too many writes in flight.
    #[error("too many writes in flight in one session")]
    SessionWindow,
    /// Leadership is being handed over.
    #[error("leadership is being handed over")]
    LeadershipTransfer,
    /// A leader was just elected and has not committed its first entry.
    #[error("the leader was just elected and is not ready yet")]
    NewLeader,
    /// A disk that the write needs is almost full. Reads are served; deletes are, too, until the last reserve.
    #[error("the disk of node {node} is almost full")]
    DiskFull {
        /// Whose disk.
        node: NodeId,
    },
}

/// An argument outside its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum InvalidArgument {
    /// The key is empty.
    #[error("the key is empty: it must have 1 to {max} bytes", max = crate::limits::MAX_KEY_BYTES)]
    KeyEmpty,
    /// The key is too long.
    #[error("the key has {len} bytes: the limit is {max}", max = crate::limits::MAX_KEY_BYTES)]
    KeyTooLong {
        /// Its length, in bytes.
        len: u64,
    },
    /// The value is too long, or would be after the append.
    #[error("the value has {len} bytes: the limit is {max}", max = crate::limits::MAX_VALUE_BYTES)]
    ValueTooLong {
        /// Its length, in bytes.
        len: u64,
    },
    /// The write's numbers make no sense: the sequence is 0 or below the lowest outstanding one.
    #[error("the sequence number must be at least 1 and at least the lowest outstanding one")]
    Sequence,
}

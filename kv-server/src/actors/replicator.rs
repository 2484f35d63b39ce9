//! Owns the connection to one peer: sends what the node says, dials again when it breaks, streams snapshots.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use bytes::Bytes;
use raft_core::{InstallSnapshot, NodeId, ReadId, ReadOutcome, SnapshotMeta, Term};
use rand::rngs::StdRng;
use rpc::peer::{DiskRoom, PeerError};
use rpc::{ConnectError, ConnectOptions, PeerClient, PeerConnection, RpcError};
use storage::{SnapshotReader, SnapshotStore, StorageError};

use super::FatalOnPanic;
use super::kv_server::{KvServer, PeerDiskRoom, ReadsDecided};
use super::raft_node::{PeerResponse, PeerUnreachable, RaftNode, SnapshotDamaged, SnapshotFailed};
use crate::replication::{
    Backoff, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNK_TIMEOUT, SnapshotTransfer, TransferStep,
};

/// A call that takes longer counts as lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a read index: the reader had better ask elsewhere then.
const READ_INDEX_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to leave a peer alone whose disk has no room for a snapshot.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(2);
/// How long to leave a peer alone that verifies a snapshot.
const VERIFY_PAUSE: Duration = Duration::from_millis(50);
const FIRST_REDIAL: Duration = Duration::from_millis(20);
/// How often a leader asks a peer how much room its disk has.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);
const LONGEST_REDIAL: Duration = Duration::from_millis(500);

/// A peer and where it listens.
#[derive(Clone, Debug)]
pub(crate) struct PeerAddress {
    /// The cluster's name, which both sides compare.
    pub(crate) cluster_id: String,
    /// This server.
    pub(crate) own_id: NodeId,
    /// The peer.
    pub(crate) id: NodeId,
    /// Where it listens for peers, as `host:port`.
    pub(crate) raft_addr: String,
}

/// The actor around the connection to one peer. Messages leave in the order in which the node sent them.
pub(crate) struct Replicator {
    peer: PeerAddress,
    node: Addr<RaftNode>,
    snapshots: Arc<dyn SnapshotStore>,
    connection: Option<PeerConnection>,
    backoff: Backoff,
    generator: StdRng,
    /// Why the last attempt to connect failed, so that the log tells each reason once.
    last_failure: Option<String>,
    transfer: Option<tokio::task::JoinHandle<()>>,
    /// Why a snapshot could not be read last, so that the log tells each reason once: it is tried again and again.
    last_unreadable: Option<String>,
    /// The last snapshot that the peer had no room for, so that the log tells it once: it is tried again and again.
    last_without_room: Option<SnapshotMeta>,
    kv: Addr<KvServer>,
    /// What the peer last said of its disk.
    room: DiskRoom,
    /// When the peer was last asked; while the answer is out, too.
    room_asked: Option<Instant>,
    _fatal: FatalOnPanic,
}

/// A request for the peer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Send(pub(crate) raft_core::Message);

/// Stream a snapshot to the peer. A transfer under way is given up for it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct StreamSnapshot {
    /// The leader's term.
    pub(crate) term: Term,
    /// Which snapshot.
    pub(crate) snapshot: SnapshotMeta,
}

/// Ask the peer, which should be the leader, for a read index. The answer is [`ReadsDecided`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct AskReadIndex(pub(crate) ReadId);

/// The peer said how much room it has.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct RoomTold(DiskRoom);

/// The file of a snapshot that was to be sent cannot be read.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct SnapshotUnreadable(SnapshotMeta, StorageError);

/// The peer's disk has no room for this snapshot.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct SnapshotWithoutRoom(SnapshotMeta);

/// An attempt to connect ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Dialed(Result<PeerConnection, ConnectError>);

/// The connection broke.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Disconnected;

impl Replicator {
    /// A replicator to `peer`, for `node`; `kv` hears how much room the peer has, and read indexes from it.
    #[must_use]
    pub(crate) fn new(
        peer: PeerAddress,
        node: Addr<RaftNode>,
        kv: Addr<KvServer>,
        snapshots: Arc<dyn SnapshotStore>,
        generator: StdRng,
    ) -> Self {
        Self {
            peer,
            node,
            snapshots,
            connection: None,
            backoff: Backoff::new(FIRST_REDIAL, LONGEST_REDIAL),
            generator,
            last_failure: None,
            transfer: None,
            last_unreadable: None,
            last_without_room: None,
            kv,
            room: DiskRoom::Ample,
            room_asked: None,
            _fatal: FatalOnPanic::of("a replicator"),
        }
    }

    fn dial(&self, ctx: &mut Context<Self>) {
        let peer = self.peer.clone();
        let replicator = ctx.address();
        actix_rt::spawn(async move {
            let options = ConnectOptions {
                connect_timeout: Duration::from_secs(2),
                ..ConnectOptions::default()
            };
            let dialed =
                rpc::connect_peer(&peer.raft_addr, &peer.cluster_id, peer.own_id, peer.id, &options).await;
            replicator.do_send(Dialed(dialed));
        });
    }

    fn connected(&mut self, connection: PeerConnection, ctx: &mut Context<Self>) {
        tracing::info!("connected to node {} at {}", self.peer.id, self.peer.raft_addr);
        self.backoff.reset();
        self.last_failure = None;
        let replicator = ctx.address();
        let watched = connection.clone();
        self.connection = Some(connection);
        (self.room, self.room_asked) = (DiskRoom::Ample, None);
        actix_rt::spawn(async move {
            watched.closed().await;
            replicator.do_send(Disconnected);
        });
    }

    fn dial_failed(&mut self, error: &ConnectError, ctx: &mut Context<Self>) {
        let reason = error.to_string();
        if self.last_failure.as_ref() != Some(&reason) {
            tracing::info!("cannot connect to node {}: {reason}", self.peer.id);
            self.last_failure = Some(reason);
        }
        let wait = self.backoff.next_wait(&mut self.generator);
        ctx.run_later(wait, |replicator, ctx| replicator.dial(ctx));
    }
}

impl Replicator {
    /// A leader's messages bring the question along, so that nobody is asked who does not follow.
    fn ask_for_room(&mut self, client: &PeerClient, ctx: &mut Context<Self>) {
        if self
            .room_asked
            .is_some_and(|asked| asked.elapsed() < ROOM_INTERVAL)
        {
            return;
        }
        self.room_asked = Some(Instant::now());
        let (client, replicator) = (client.clone(), ctx.address());
        actix_rt::spawn(async move {
            if let Ok(Ok(room)) = client.disk_room(rpc::context(CALL_TIMEOUT)).await {
                replicator.do_send(RoomTold(room));
            }
        });
    }
}

/// Whether the message is one that a full disk refuses.
fn carries_entries(message: &raft_core::Message) -> bool {
    matches!(message, raft_core::Message::AppendEntries(append) if !append.entries.is_empty())
}

/// Sends one request. The result is the response, or `None` if there is none.
async fn call(client: PeerClient, request: raft_core::Message) -> Option<raft_core::Message> {
    use raft_core::Message as M;
    let context = rpc::context(CALL_TIMEOUT);
    macro_rules! answer {
        ($method:ident, $request:expr, $response:path) => {
            client
                .$method(context, $request)
                .await
                .ok()?
                .ok()
                .map($response)
        };
    }
    match request {
        M::PreVote(request) => answer!(pre_vote, request, M::PreVoteResponse),
        M::RequestVote(request) => answer!(request_vote, request, M::RequestVoteResponse),
        M::AppendEntries(request) => answer!(append_entries, request, M::AppendEntriesResponse),
        M::TimeoutNow(request) => answer!(timeout_now, request, M::TimeoutNowResponse),
        M::InstallSnapshot(request) => answer!(install_snapshot, request, M::InstallSnapshotResponse),
        other => unreachable!("{other:?} is a response and goes to the call that waits for it"),
    }
}

impl Actor for Replicator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.dial(ctx);
    }
}

impl Handler<Send> for Replicator {
    type Result = ();

    fn handle(&mut self, Send(message): Send, ctx: &mut Self::Context) {
        let from = self.peer.id;
        let node = self.node.clone();
        let Some(connection) = self
            .connection
            .as_ref()
            .filter(|connection| !connection.is_closed())
        else {
            return node.do_send(PeerUnreachable(from));
        };
        let client = connection.client().clone();
        if matches!(message, raft_core::Message::AppendEntries(_)) {
            self.ask_for_room(&client, ctx);
        }
        if self.room == DiskRoom::Out && carries_entries(&message) {
            // It would be refused. The heartbeats go on, and the answer to the next question may be better.
            return node.do_send(PeerUnreachable(from));
        }
        let answer = call(client, message);
        // Tasks of one thread first run in the order in which they were spawned, so requests stay in order.
        actix_rt::spawn(async move {
            match answer.await {
                Some(message) => node.do_send(PeerResponse { from, message }),
                None => node.do_send(PeerUnreachable(from)),
            }
        });
    }
}

impl Handler<AskReadIndex> for Replicator {
    type Result = ();

    fn handle(&mut self, AskReadIndex(id): AskReadIndex, _: &mut Self::Context) {
        let client = self
            .connection
            .as_ref()
            .map(|connection| connection.client().clone());
        let kv = self.kv.clone();
        actix_rt::spawn(async move {
            let answer = match client {
                Some(client) => client.read_index(rpc::context(READ_INDEX_TIMEOUT)).await.ok(),
                None => None,
            };
            let outcome = match answer {
                Some(Ok(index)) => ReadOutcome::Confirmed { id, index },
                // Whoever leads now, the reader finds it.
                Some(Err(_)) | None => ReadOutcome::Dropped { id },
            };
            kv.do_send(ReadsDecided(vec![outcome]));
        });
    }
}

impl Handler<RoomTold> for Replicator {
    type Result = ();

    fn handle(&mut self, RoomTold(room): RoomTold, _: &mut Self::Context) {
        self.room = room;
        self.kv.do_send(PeerDiskRoom(self.peer.id, room));
    }
}

impl Handler<Dialed> for Replicator {
    type Result = ();

    fn handle(&mut self, Dialed(result): Dialed, ctx: &mut Self::Context) {
        match result {
            Ok(connection) => self.connected(connection, ctx),
            Err(error) => self.dial_failed(&error, ctx),
        }
    }
}

impl Handler<Disconnected> for Replicator {
    type Result = ();

    fn handle(&mut self, _: Disconnected, ctx: &mut Self::Context) {
        tracing::info!("the connection to node {} ended", self.peer.id);
        self.connection = None;
        self.node.do_send(PeerUnreachable(self.peer.id));
        let wait = self.backoff.next_wait(&mut self.generator);
        ctx.run_later(wait, |replicator, ctx| replicator.dial(ctx));
    }
}

impl Handler<StreamSnapshot> for Replicator {
    type Result = ();

    fn handle(&mut self, StreamSnapshot { term, snapshot }: StreamSnapshot, ctx: &mut Self::Context) {
        if let Some(transfer) = self.transfer.take() {
            transfer.abort();
        }
        let Some(connection) = &self.connection else {
            return self.node.do_send(SnapshotFailed(self.peer.id));
        };
        let sender = SnapshotSender {
            peer: self.peer.id,
            client: connection.client().clone(),
            node: self.node.clone(),
            replicator: ctx.address(),
            transfer: SnapshotTransfer::new(term, self.peer.own_id, snapshot),
        };
        let snapshots = Arc::clone(&self.snapshots);
        self.transfer = Some(actix_rt::spawn(sender.run(snapshots)));
    }
}

impl Handler<SnapshotUnreadable> for Replicator {
    type Result = ();

    fn handle(&mut self, SnapshotUnreadable(snapshot, error): SnapshotUnreadable, _: &mut Self::Context) {
        let (index, peer) = (snapshot.last_included_index, self.peer.id);
        let reason = format!("the snapshot at {index} cannot be sent to node {peer}: {error}");
        if matches!(error, StorageError::SnapshotMissing { .. }) {
            tracing::info!("{reason}");
        } else if self.last_unreadable.as_ref() != Some(&reason) {
            tracing::error!("{reason}");
            self.last_unreadable = Some(reason);
        }
        if error.calls_for_another_snapshot() {
            self.node.do_send(SnapshotDamaged(snapshot));
        }
        self.node.do_send(SnapshotFailed(peer));
    }
}

impl Handler<SnapshotWithoutRoom> for Replicator {
    type Result = ();

    fn handle(&mut self, SnapshotWithoutRoom(snapshot): SnapshotWithoutRoom, _: &mut Self::Context) {
        if self.last_without_room.as_ref() != Some(&snapshot) {
            tracing::warn!(
                "the disk of node {} has no room for the {} bytes of the snapshot at {}; it is tried again every {} s",
                self.peer.id,
                snapshot.size_bytes,
                snapshot.last_included_index,
                NO_ROOM_PAUSE.as_secs()
            );
            self.last_without_room = Some(snapshot);
        }
    }
}

/// How a transfer that met no error of this node's own ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Installed,
    /// The peer's disk has no room for it.
    NoRoom,
    /// It did not get through.
    Failed,
}

/// One transfer, as a task beside the replicator, so that heartbeats go on.
struct SnapshotSender {
    peer: NodeId,
    client: PeerClient,
    node: Addr<RaftNode>,
    replicator: Addr<Replicator>,
    transfer: SnapshotTransfer,
}

impl SnapshotSender {
    async fn run(mut self, snapshots: Arc<dyn SnapshotStore>) {
        let index = self.transfer.snapshot().last_included_index;
        match self.stream(snapshots).await {
            Ok(Ending::Installed) => {
                tracing::info!("node {} has installed the snapshot at {index}", self.peer);
            }
            Ok(Ending::NoRoom) => {
                let snapshot = self.transfer.snapshot().clone();
                self.replicator.do_send(SnapshotWithoutRoom(snapshot));
                // A later transfer ends this task. Until then nothing is tried.
                tokio::time::sleep(NO_ROOM_PAUSE).await;
                self.node.do_send(SnapshotFailed(self.peer));
            }
            Ok(Ending::Failed) => {
                tracing::info!(
                    "the snapshot at {index} did not get through to node {}",
                    self.peer
                );
                self.node.do_send(SnapshotFailed(self.peer));
            }
            Err(error) => {
                let snapshot = self.transfer.snapshot().clone();
                self.replicator.do_send(SnapshotUnreadable(snapshot, error));
            }
        }
    }

    /// Sends chunk after chunk until the peer has installed the snapshot, or that does not work out.
    async fn stream(&mut self, snapshots: Arc<dyn SnapshotStore>) -> Result<Ending, StorageError> {
        let snapshot = self.transfer.snapshot().clone();
        let Some(opened) = aside(move || snapshots.open(&snapshot)).await else {
            return Ok(Ending::Failed);
        };
        let mut file = opened?;
        let mut step = TransferStep::Send;
        loop {
            let data = match step {
                TransferStep::Send => {
                    let offset = self.transfer.offset();
                    let Some((returned, chunk)) = aside(move || read_chunk(file, offset)).await else {
                        return Ok(Ending::Failed);
                    };
                    file = returned;
                    chunk?
                }
                TransferStep::AskWhere => Bytes::new(),
                TransferStep::AskAgain => {
                    tokio::time::sleep(VERIFY_PAUSE).await;
                    Bytes::new()
                }
                TransferStep::Installed => return Ok(Ending::Installed),
                TransferStep::Failed => return Ok(Ending::Failed),
            };
            step = match self.send_chunk(self.transfer.request(data)).await {
                Ok(step) => step,
                Err(ending) => return Ok(ending),
            };
        }
    }

    /// The core sees every answer: it is a sign of life, and may bring a higher term.
    async fn send_chunk(&mut self, request: InstallSnapshot) -> Result<TransferStep, Ending> {
        let context = rpc::context(SNAPSHOT_CHUNK_TIMEOUT);
        let answer = match self.client.install_snapshot(context, request).await {
            Ok(Ok(answer)) => answer,
            Err(RpcError::DeadlineExceeded) => return Ok(self.transfer.not_answered()),
            Ok(Err(PeerError::DiskFull)) => return Err(Ending::NoRoom),
            Ok(Err(_)) | Err(_) => return Err(Ending::Failed),
        };
        let message = raft_core::Message::InstallSnapshotResponse(answer);
        self.node.do_send(PeerResponse {
            from: self.peer,
            message,
        });
        Ok(self.transfer.answered(answer.last_included_index, answer.outcome))
    }
}

type OpenSnapshot = Box<dyn SnapshotReader>;

fn read_chunk(mut file: OpenSnapshot, offset: u64) -> (OpenSnapshot, Result<Bytes, StorageError>) {
    let chunk = file.read_chunk(offset, SNAPSHOT_CHUNK_BYTES);
    (file, chunk)
}

/// Runs disk work away from the hot thread. `None` if the process is going down.
async fn aside<T: std::marker::Send + 'static>(
    work: impl FnOnce() -> T + std::marker::Send + 'static,
) -> Option<T> {
    actix_rt::task::spawn_blocking(work).await.ok()
}

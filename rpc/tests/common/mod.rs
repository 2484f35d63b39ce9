//! Services and servers for the tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, InstallSnapshot, InstallSnapshotResponse, LogIndex,
    NodeId, Role, SnapshotOutcome, Term, TimeoutNow, TimeoutNowResponse, VoteRequest, VoteResponse,
};
use rpc::client::{
    BusyReason, Consistency, Found, GetReply, Kv, KvError, KvRequest, KvResponse, Member, ScanItem,
    ScanReply, ScanRequest, Sequence, SessionId, StatusReply, WriteId,
};
use rpc::framing::{WireRequest, WireResponse};
use rpc::hello::{Hello, PROTOCOL_VERSION, Reply};
use rpc::peer::{DiskRoom, Peer, PeerError};
use rpc::{Context, KvConnection, ServerIdentity, ServerLimits, connect_kv, serve_kv, serve_peer};
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

pub(crate) const CLUSTER: &str = "test";
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A map behind a mutex. Keys that start with `!` ask for special effects, see [`Kv::get`] below.
#[derive(Clone)]
pub(crate) struct MapService {
    map: Arc<Mutex<BTreeMap<Bytes, Bytes>>>,
    /// The keys of `get` in the order in which the handlers started.
    pub(crate) started: Arc<Mutex<Vec<Bytes>>>,
    /// The same, in the order in which they came through the gate.
    pub(crate) passed: Arc<Mutex<Vec<Bytes>>>,
    /// `get("!wait…")` waits for a permit.
    pub(crate) gate: Arc<Semaphore>,
}

impl Default for MapService {
    fn default() -> Self {
        Self {
            map: Arc::default(),
            started: Arc::default(),
            passed: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }
}

impl MapService {
    pub(crate) fn started_count(&self) -> usize {
        self.started.lock().unwrap().len()
    }
}

pub(crate) fn write_id(sequence: u64) -> WriteId {
    let session = SessionId {
        opened_at: LogIndex(3),
        secret: u64::MAX,
    };
    WriteId {
        session,
        sequence: Sequence(sequence),
        lowest_outstanding: Sequence(1),
    }
}

impl Kv for MapService {
    async fn open_session(self, _: Context) -> Result<SessionId, KvError> {
        Ok(write_id(1).session)
    }

    async fn put(self, _: Context, write: WriteId, key: Bytes, value: Bytes) -> Result<LogIndex, KvError> {
        self.map.lock().unwrap().insert(key, value);
        Ok(LogIndex(write.sequence.0))
    }

    async fn append(self, _: Context, write: WriteId, key: Bytes, value: Bytes) -> Result<LogIndex, KvError> {
        let mut map = self.map.lock().unwrap();
        let joined = [map.get(&key).cloned().unwrap_or_default(), value].concat();
        map.insert(key, joined.into());
        Ok(LogIndex(write.sequence.0))
    }

    async fn delete(self, _: Context, _: WriteId, key: Bytes) -> Result<bool, KvError> {
        Ok(self.map.lock().unwrap().remove(&key).is_some())
    }

    async fn get(self, _: Context, key: Bytes, consistency: Consistency) -> Result<GetReply, KvError> {
        self.started.lock().unwrap().push(key.clone());
        if key.starts_with(b"!wait") {
            self.gate.acquire().await.unwrap().forget();
            self.passed.lock().unwrap().push(key.clone());
        } else if key.starts_with(b"!panic") {
            panic!("as asked");
        } else if key.starts_with(b"!huge") {
            let value = vec![7; rpc::limits::MAX_FRAME_BYTES].into();
            let found = Some(Found {
                value,
                version: LogIndex(1),
            });
            return Ok(GetReply {
                found,
                applied_index: LogIndex(1),
                term: Term(1),
            });
        }
        if consistency == Consistency::Log {
            return Err(KvError::Busy(BusyReason::NewLeader));
        }
        let found = self.map.lock().unwrap().get(&key).cloned();
        let found = found.map(|value| Found {
            value,
            version: LogIndex(9),
        });
        Ok(GetReply {
            found,
            applied_index: LogIndex(10),
            term: Term(2),
        })
    }

    async fn scan(self, _: Context, request: ScanRequest) -> Result<ScanReply, KvError> {
        let map = self.map.lock().unwrap();
        let items = map.range(request.from..).take(request.limit as usize);
        let items = items.map(|(key, value)| ScanItem {
            key: key.clone(),
            value: value.clone(),
            version: LogIndex(1),
        });
        Ok(ScanReply {
            items: items.collect(),
            more: false,
            applied_index: LogIndex(10),
            term: Term(2),
        })
    }

    async fn status(self, _: Context) -> Result<StatusReply, KvError> {
        Ok(StatusReply {
            id: NodeId(1),
            cluster_id: CLUSTER.into(),
            role: Role::Leader,
            leader_id: Some(NodeId(1)),
            term: Term(2),
            commit_index: LogIndex(10),
            last_applied: LogIndex(10),
            last_log_index: LogIndex(11),
            snapshot_index: LogIndex::ZERO,
            keys: self.map.lock().unwrap().len() as u64,
            sessions: 1,
            version: "0".into(),
            members: vec![Member {
                id: NodeId(1),
                client_addr: "127.0.0.1:1".into(),
            }],
        })
    }
}

/// Answers with numbers from the request, and its caller's id as the term.
#[derive(Clone)]
pub(crate) struct EchoPeer {
    pub(crate) caller: NodeId,
}

impl EchoPeer {
    fn term(&self) -> Term {
        Term(self.caller.get())
    }
}

impl Peer for EchoPeer {
    async fn pre_vote(self, _: Context, request: VoteRequest) -> Result<VoteResponse, PeerError> {
        Ok(VoteResponse {
            term: self.term(),
            vote_granted: request.leadership_transfer,
            sender: request.sender,
        })
    }

    async fn request_vote(self, _: Context, request: VoteRequest) -> Result<VoteResponse, PeerError> {
        Ok(VoteResponse {
            term: self.term(),
            vote_granted: request.leadership_transfer,
            sender: request.sender,
        })
    }

    async fn append_entries(
        self,
        _: Context,
        request: AppendEntries,
    ) -> Result<AppendEntriesResponse, PeerError> {
        let match_index = request
            .entries
            .last()
            .map_or(request.prev_log_index, |entry| entry.index);
        let outcome = AppendOutcome::Matched { match_index };
        Ok(AppendEntriesResponse {
            term: self.term(),
            outcome,
            committed: request.leader_commit,
            read_round: request.read_round,
            sender: request.sender,
        })
    }

    async fn install_snapshot(
        self,
        _: Context,
        request: InstallSnapshot,
    ) -> Result<InstallSnapshotResponse, PeerError> {
        let outcome = SnapshotOutcome::Continue {
            next_offset: request.offset + request.data.len() as u64,
        };
        let last_included_index = request.snapshot.last_included_index;
        Ok(InstallSnapshotResponse {
            term: self.term(),
            last_included_index,
            outcome,
            sender: raft_core::Sender::default(),
        })
    }

    async fn timeout_now(self, _: Context, _: TimeoutNow) -> Result<TimeoutNowResponse, PeerError> {
        Err(PeerError::Busy)
    }

    async fn read_index(self, _: Context) -> Result<LogIndex, PeerError> {
        Err(PeerError::NotLeader)
    }

    async fn disk_room(self, _: Context) -> Result<DiskRoom, PeerError> {
        Err(PeerError::DiskFull)
    }
}

/// A running server; told to stop by `stop`, or when dropped.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn begin_shutdown(&mut self) {
        drop(self.shutdown.take());
    }

    pub(crate) async fn stop(mut self) {
        self.begin_shutdown();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }

    pub(crate) fn addr(&self) -> String {
        self.addr.to_string()
    }
}

pub(crate) fn identity() -> ServerIdentity {
    ServerIdentity::new(CLUSTER, NodeId(1), [1, 2, 3].map(NodeId)).unwrap()
}

pub(crate) async fn start_kv(service: MapService, limits: ServerLimits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (shutdown, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let task = tokio::spawn(serve_kv(listener, identity(), limits, service, stopped));
    Running {
        addr,
        shutdown: Some(shutdown),
        task,
    }
}

pub(crate) async fn start_peer(limits: ServerLimits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (shutdown, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let make_service = |caller| EchoPeer { caller };
    let task = tokio::spawn(serve_peer(listener, identity(), limits, make_service, stopped));
    Running {
        addr,
        shutdown: Some(shutdown),
        task,
    }
}

pub(crate) async fn connect(server: &Running) -> KvConnection {
    connect_kv(&server.addr(), &rpc::ConnectOptions::default())
        .await
        .unwrap()
}

pub(crate) fn soon() -> Context {
    rpc::context(PATIENCE)
}

/// Waits for a condition, with a deadline.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("never came: {what}"));
}

/// The first bytes of a hello or a reply, of our own protocol version.
pub(crate) fn begun(magic: &[u8; 4], rest: &[u8]) -> Vec<u8> {
    [&magic[..], &PROTOCOL_VERSION.to_be_bytes(), rest].concat()
}

/// A raw connection that has said hello and was welcomed.
pub(crate) async fn greeted(server: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    Hello::Client {
        expected_cluster_id: None,
    }
    .write(&mut stream)
    .await
    .unwrap();
    assert_eq!(Reply::read(&mut stream).await.unwrap().refusal, None);
    stream
}

/// Waits until the other side has closed the connection.
pub(crate) async fn closed(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    let reading = async { while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the connection was kept open");
}

/// A frame around `body`.
pub(crate) fn frame<T: Serialize>(body: &T) -> Vec<u8> {
    let body = rpc::codec::encode(body, rpc::limits::MAX_FRAME_BYTES).unwrap();
    let len = u32::try_from(body.len()).unwrap();
    [&len.to_be_bytes(), &body[..]].concat()
}

pub(crate) fn get_frame(id: u64, timeout_ms: u32, key: &'static str) -> Vec<u8> {
    let message = KvRequest::Get {
        key: key.into(),
        consistency: Consistency::Stale,
    };
    frame(&WireRequest::Request {
        id,
        timeout_ms,
        message,
    })
}

/// Reads one frame from the server.
pub(crate) async fn read_response(stream: &mut TcpStream) -> WireResponse<KvResponse> {
    let reading = async {
        let len = stream.read_u32().await.unwrap();
        let mut body = vec![0; len as usize];
        stream.read_exact(&mut body).await.unwrap();
        rpc::codec::decode(&body, rpc::limits::MAX_FRAME_BYTES).unwrap()
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("no response came")
}

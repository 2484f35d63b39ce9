//! A cluster in this process: real sockets and sessions, a leader by decree, and servers that can be told to
//! misbehave.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use raft_core::{LogIndex, NodeId, Role, Term};
use rpc::client::{
    BusyReason, Consistency, Found, GetReply, InvalidArgument, Kv, KvError, Member, ScanItem, ScanReply,
    ScanRequest, Sequence, SessionId, StatusReply, WriteId,
};
use rpc::limits::{MAX_SCAN_BYTES, MAX_SCAN_ITEMS, MAX_VALUE_BYTES};
use rpc::{Context, ServerIdentity, ServerLimits};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What a server does with its next request other than `status`, instead of serving it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Serves it, after all.
    Serve,
    /// Answers so, and does nothing.
    Refuse(KvError),
    /// Says nothing, and does nothing.
    Silence,
    /// Does it and says nothing.
    ServeInSilence,
    /// Does it and answers so.
    ServeThenSay(KvError),
    /// Does it, or does not, and drops all its connections.
    Cut { serve: bool },
}

/// A request that reached a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) node: u64,
    pub(crate) operation: &'static str,
    pub(crate) write: Option<WriteId>,
    pub(crate) consistency: Option<Consistency>,
}

#[derive(Clone, Debug)]
enum Answer {
    Version(LogIndex),
    Deleted(bool),
    Refused(InvalidArgument),
}

#[derive(Default)]
struct Session {
    answers: BTreeMap<Sequence, Answer>,
    lowest: Sequence,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) leader: Option<u64>,
    /// Whether followers name the leader.
    pub(crate) hints: bool,
    /// Whom followers name instead, if set.
    pub(crate) false_hint: Option<Member>,
    pub(crate) members: Vec<Member>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) map: BTreeMap<Bytes, Found>,
    pub(crate) page_items: usize,
    /// How many writes took effect.
    pub(crate) executed: u64,
    scripts: HashMap<u64, VecDeque<Step>>,
    index: u64,
    sessions: HashMap<SessionId, Session>,
}

impl World {
    pub(crate) fn end_all_sessions(&mut self) {
        self.sessions.clear();
    }

    pub(crate) fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn writes_seen(&self) -> Vec<WriteId> {
        self.seen.iter().filter_map(|seen| seen.write).collect()
    }

    fn next_index(&mut self) -> LogIndex {
        self.index += 1;
        LogIndex(self.index)
    }

    fn once(&mut self, id: WriteId, execute: impl FnOnce(&mut Self) -> Answer) -> Result<Answer, KvError> {
        if id.sequence.0 == 0 || id.sequence < id.lowest_outstanding {
            return Err(KvError::InvalidArgument(InvalidArgument::Sequence));
        }
        let session = self
            .sessions
            .get_mut(&id.session)
            .ok_or(KvError::SessionExpired)?;
        session.lowest = session.lowest.max(id.lowest_outstanding);
        let lowest = session.lowest;
        session.answers.retain(|sequence, _| *sequence >= lowest);
        if id.sequence < lowest {
            return Err(KvError::SequenceForgotten);
        }
        if id.sequence.0 - lowest.0 >= 1_024 {
            return Err(KvError::Busy(BusyReason::SessionWindow));
        }
        if let Some(answer) = session.answers.get(&id.sequence) {
            return Ok(answer.clone());
        }
        let answer = execute(self);
        self.executed += u64::from(!matches!(answer, Answer::Refused(_)));
        let session = self.sessions.get_mut(&id.session).expect("it was there above");
        session.answers.insert(id.sequence, answer.clone());
        Ok(answer)
    }

    fn set(&mut self, key: Bytes, value: Bytes) -> Answer {
        if value.len() > MAX_VALUE_BYTES {
            return Answer::Refused(InvalidArgument::ValueTooLong {
                len: value.len() as u64,
            });
        }
        let version = self.next_index();
        self.map.insert(key, Found { value, version });
        Answer::Version(version)
    }

    fn append(&mut self, key: Bytes, value: &Bytes) -> Answer {
        let mut whole = self
            .map
            .get(&key)
            .map(|found| found.value.to_vec())
            .unwrap_or_default();
        whole.extend_from_slice(value);
        self.set(key, whole.into())
    }

    fn page(&self, request: &ScanRequest) -> ScanReply {
        let most = self.page_items.min(MAX_SCAN_ITEMS).min(request.limit as usize);
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut more = false;
        for (key, found) in self.map.range(request.from.clone()..) {
            if request.to.as_ref().is_some_and(|to| key >= to) {
                break;
            }
            bytes += key.len() + if request.keys_only { 0 } else { found.value.len() };
            if items.len() == most || (bytes > MAX_SCAN_BYTES && !items.is_empty()) {
                more = true;
                break;
            }
            let value = if request.keys_only {
                Bytes::new()
            } else {
                found.value.clone()
            };
            items.push(ScanItem {
                key: key.clone(),
                value,
                version: found.version,
            });
        }
        ScanReply {
            items,
            more,
            applied_index: LogIndex(self.index),
            term: Term(3),
        }
    }
}

/// One fake server's service.
#[derive(Clone)]
struct Node {
    id: u64,
    world: Arc<Mutex<World>>,
    cut: tokio::sync::mpsc::UnboundedSender<u64>,
}

impl Node {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    async fn request<T>(
        &self,
        seen: Seen,
        serve: impl FnOnce(&mut World) -> Result<T, KvError>,
    ) -> Result<T, KvError> {
        let anyone = seen.consistency == Some(Consistency::Stale);
        let step = {
            let mut world = self.world();
            world.seen.push(seen);
            let step = world.scripts.get_mut(&self.id).and_then(VecDeque::pop_front);
            if step.is_none() && !anyone && world.leader != Some(self.id) {
                let leader = world.leader.filter(|_| world.hints);
                let leader = world
                    .members
                    .iter()
                    .find(|member| Some(member.id.0) == leader)
                    .cloned();
                return Err(KvError::NotLeader {
                    leader: world.false_hint.clone().or(leader),
                });
            }
            step
        };
        match step {
            None | Some(Step::Serve) => serve(&mut self.world()),
            Some(Step::Refuse(error)) => Err(error),
            Some(Step::Silence) => std::future::pending().await,
            Some(Step::ServeInSilence) => {
                let _ = serve(&mut self.world());
                std::future::pending().await
            }
            Some(Step::ServeThenSay(error)) => {
                let _ = serve(&mut self.world());
                Err(error)
            }
            Some(Step::Cut { serve: do_it }) => {
                if do_it {
                    let _ = serve(&mut self.world());
                }
                self.cut.send(self.id).unwrap();
                std::future::pending().await
            }
        }
    }

    fn seen(
        &self,
        operation: &'static str,
        write: Option<WriteId>,
        consistency: Option<Consistency>,
    ) -> Seen {
        Seen {
            node: self.id,
            operation,
            write,
            consistency,
        }
    }

    async fn write(
        &self,
        operation: &'static str,
        id: WriteId,
        execute: impl FnOnce(&mut World) -> Answer,
    ) -> Result<Answer, KvError> {
        let answer = self
            .request(self.seen(operation, Some(id), None), |world| {
                world.once(id, execute)
            })
            .await?;
        match answer {
            Answer::Refused(argument) => Err(KvError::InvalidArgument(argument)),
            answer => Ok(answer),
        }
    }
}

fn version(answer: Answer) -> LogIndex {
    match answer {
        Answer::Version(version) => version,
        other => panic!("the clerk sent two different writes under one id: {other:?}"),
    }
}

impl Kv for Node {
    async fn open_session(self, _: Context) -> Result<SessionId, KvError> {
        let seen = self.seen("open_session", None, None);
        self.request(seen, |world| {
            let id = SessionId {
                opened_at: world.next_index(),
                secret: 99,
            };
            world.sessions.insert(id, Session::default());
            Ok(id)
        })
        .await
    }

    async fn put(self, _: Context, write: WriteId, key: Bytes, value: Bytes) -> Result<LogIndex, KvError> {
        self.write("put", write, |world| world.set(key, value))
            .await
            .map(version)
    }

    async fn append(self, _: Context, write: WriteId, key: Bytes, value: Bytes) -> Result<LogIndex, KvError> {
        self.write("append", write, |world| world.append(key, &value))
            .await
            .map(version)
    }

    async fn delete(self, _: Context, write: WriteId, key: Bytes) -> Result<bool, KvError> {
        let execute = |world: &mut World| {
            world.next_index();
            Answer::Deleted(world.map.remove(&key).is_some())
        };
        match self.write("delete", write, execute).await? {
            Answer::Deleted(deleted) => Ok(deleted),
            other => panic!("the clerk sent two different writes under one id: {other:?}"),
        }
    }

    async fn get(self, _: Context, key: Bytes, consistency: Consistency) -> Result<GetReply, KvError> {
        let seen = self.seen("get", None, Some(consistency));
        self.request(seen, |world| {
            let found = world.map.get(&key).cloned();
            Ok(GetReply {
                found,
                applied_index: LogIndex(world.index),
                term: Term(3),
            })
        })
        .await
    }

    async fn scan(self, _: Context, request: ScanRequest) -> Result<ScanReply, KvError> {
        let seen = self.seen("scan", None, Some(request.consistency));
        self.request(seen, |world| Ok(world.page(&request))).await
    }

    async fn status(self, _: Context) -> Result<StatusReply, KvError> {
        let world = self.world();
        let leads = world.leader == Some(self.id);
        Ok(StatusReply {
            id: NodeId(self.id),
            cluster_id: "fake".into(),
            role: if leads { Role::Leader } else { Role::Follower },
            leader_id: world.leader.filter(|_| world.hints || leads).map(NodeId),
            term: Term(3),
            commit_index: LogIndex(world.index),
            last_applied: LogIndex(world.index),
            last_log_index: LogIndex(world.index),
            snapshot_index: LogIndex(0),
            keys: world.map.len() as u64,
            sessions: world.sessions.len() as u64,
            version: "0.0.0".into(),
            members: world.members.clone(),
        })
    }
}

/// The cluster. Node ids are 1, 2, ...; node 1 leads at first; followers name the leader.
pub(crate) struct Cluster {
    pub(crate) world: Arc<Mutex<World>>,
    servers: Arc<Mutex<HashMap<u64, JoinHandle<()>>>>,
    cut: tokio::sync::mpsc::UnboundedSender<u64>,
    cutter: JoinHandle<()>,
}

/// A loopback address of its own: no other test, and no outgoing connection, can take a port of it while a
/// server is down.
pub(crate) fn own_address() -> Ipv4Addr {
    let [first, second, third, _] = rand::random::<u32>().to_be_bytes();
    Ipv4Addr::new(127, first, second, third.clamp(2, 254))
}

/// A server that answers every connection with `answer` and nothing more. Ends with the test's runtime.
#[cfg(feature = "cli")]
pub(crate) async fn stranger(answer: &[u8]) -> String {
    let answer = answer.to_vec();
    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::io::AsyncWriteExt::write_all(&mut stream, &answer)
                .await
                .unwrap();
            // Closed with bytes unread, it would be reset.
            open.push(stream);
        }
    });
    address
}

impl Cluster {
    pub(crate) async fn start(nodes: u64) -> Self {
        Self::named("fake", nodes).await
    }

    pub(crate) async fn named(name: &'static str, nodes: u64) -> Self {
        let world = World {
            leader: Some(1),
            hints: true,
            page_items: usize::MAX,
            ..World::default()
        };
        let world = Arc::new(Mutex::new(world));
        let servers: Arc<Mutex<HashMap<u64, JoinHandle<()>>>> = Arc::default();
        let (cut, mut cuts) = tokio::sync::mpsc::unbounded_channel();
        let address = own_address();
        for id in 1..=nodes {
            let listener = TcpListener::bind((address, 0)).await.unwrap();
            let client_addr = listener.local_addr().unwrap().to_string();
            world.lock().unwrap().members.push(Member {
                id: NodeId(id),
                client_addr,
            });
            let node = Node {
                id,
                world: Arc::clone(&world),
                cut: cut.clone(),
            };
            servers.lock().unwrap().insert(id, serve(name, node, listener));
        }
        let cutter = {
            let (world, servers, cut) = (Arc::clone(&world), Arc::clone(&servers), cut.clone());
            tokio::spawn(async move {
                while let Some(id) = cuts.recv().await {
                    stop_server(&servers, id).await;
                    let listener = listen_again(&world, id).await;
                    let node = Node {
                        id,
                        world: Arc::clone(&world),
                        cut: cut.clone(),
                    };
                    servers.lock().unwrap().insert(id, serve(name, node, listener));
                }
            })
        };
        Self {
            world,
            servers,
            cut,
            cutter,
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn endpoint(&self, id: u64) -> String {
        let world = self.world();
        world
            .members
            .iter()
            .find(|member| member.id.0 == id)
            .unwrap()
            .client_addr
            .clone()
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.world()
            .members
            .iter()
            .map(|member| member.client_addr.clone())
            .collect()
    }

    /// What node `id` does with its next requests.
    pub(crate) fn script(&self, id: u64, steps: impl IntoIterator<Item = Step>) {
        self.world().scripts.entry(id).or_default().extend(steps);
    }

    pub(crate) fn forget_scripts(&self) {
        self.world().scripts.clear();
    }

    pub(crate) fn lead(&self, leader: Option<u64>) {
        self.world().leader = leader;
    }

    /// Node `id` dies: its port is closed, its connections are reset.
    pub(crate) async fn stop(&self, id: u64) {
        stop_server(&self.servers, id).await;
    }

    /// Node `id` drops its connections and listens again.
    pub(crate) fn restart(&self, id: u64) {
        self.cut.send(id).unwrap();
    }

    /// Which nodes the requests other than `status` went to, in order.
    pub(crate) fn asked(&self) -> Vec<u64> {
        self.world().seen.iter().map(|seen| seen.node).collect()
    }

    /// The fake's counterpart of waiting a while: until `condition` holds.
    pub(crate) async fn wait_until(&self, condition: impl Fn(&World) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !condition(&self.world()) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the condition did not come true"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cutter.abort();
        self.servers.lock().unwrap().values().for_each(JoinHandle::abort);
    }
}

fn serve(cluster_id: &str, node: Node, listener: TcpListener) -> JoinHandle<()> {
    let members = node
        .world()
        .members
        .iter()
        .map(|member| member.id)
        .collect::<Vec<_>>();
    let identity = ServerIdentity::new(cluster_id, NodeId(node.id), members).unwrap();
    tokio::spawn(async move {
        rpc::serve_kv(
            listener,
            identity,
            ServerLimits::default(),
            node,
            std::future::pending(),
        )
        .await;
    })
}

async fn stop_server(servers: &Mutex<HashMap<u64, JoinHandle<()>>>, id: u64) {
    let server = servers.lock().unwrap().remove(&id);
    if let Some(server) = server {
        server.abort();
        let _ = server.await;
    }
}

async fn listen_again(world: &Mutex<World>, id: u64) -> TcpListener {
    let address = {
        let world = world.lock().unwrap();
        world
            .members
            .iter()
            .find(|member| member.id.0 == id)
            .unwrap()
            .client_addr
            .clone()
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match TcpListener::bind(&address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(
                tokio::time::Instant::now() < deadline,
                "node {id} cannot listen on {address} again: {error}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

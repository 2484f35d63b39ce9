//! Puts one server together: opens the storage, starts the actors in the right order, and stops them in the
//! reverse one.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, AsyncContext, Context, Recipient};
use raft_core::{
    Configuration, Incarnation, Node, NodeId, Restored, Role, SnapshotMeta, SoftState, Standing, Storage,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rpc::client::Member;
use rpc::hello::ServerIdentity;
use storage::{Identity, SledStorage, SnapshotStore};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::actors::{
    Applier, ApplierSettings, DiskIsLow, ElectionTicker, HeartbeatTicker, KvServer, Links, Listeners,
    MakeRoom, PeerAddress, Persister, PutNothingOff, RaftNode, ReplaceSnapshot, Replicator, ShutDown,
    StepAside, StopPersister, StopRaftNode, TakeNoMore, WatchedDisk,
};
use crate::apply_loop;
use crate::client_service::{About, ClientService};
use crate::config::Config;
use crate::data_files::DataFiles;
use crate::descriptors::ConnectionRoom;
use crate::disk_room::{self, ClusterRoom, DiskSpace};
use crate::disk_watch::{
    CommitClock, Watch, space_around, watch_files, watch_snapshot, watch_space, watch_stalls,
};
use crate::driver::Driver;
use crate::election_clock::{election_tick, ticks_in};
use crate::held_up::tell_when_held_up;
use crate::intake::{Door, Intake};
use crate::not_taken::RefusalReporter;
use crate::peer_service::PeerService;
use crate::server_error::ServerError;
use crate::shared_lease::SharedLease;
use crate::shutdown::{Fatal, StopReceiver, StopSender, stop_channel};
use crate::state_machine::StateMachine;

/// How long a leader tries to hand over before it goes.
const HAND_OVER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How often it asks for that: a hand-over that is under way goes on, one that was given up begins anew.
const HAND_OVER_INTERVAL: Duration = Duration::from_millis(100);
/// How long the rest of an orderly stop may take. With the hand-over it stays below the five seconds that
/// service managers are promised.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a node that waits to join says so.
const WAITING_INTERVAL: Duration = Duration::from_secs(10);
/// How long requests in flight may still run when the ports close.
const REQUEST_GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether they have ended.
const FINISH_INTERVAL: Duration = Duration::from_millis(2);

/// A running server.
struct Server {
    node: Addr<RaftNode>,
    kv: Addr<KvServer>,
    persister: Addr<Persister<SledStorage>>,
    soft_state: watch::Receiver<SoftState>,
    stop_serving: watch::Sender<bool>,
    serving: Vec<tokio::task::JoinHandle<()>>,
    failures: StopReceiver,
    threads: Vec<Arbiter>,
    files: Arc<DataFiles>,
    snapshots: Arc<dyn SnapshotStore>,
    applier: Addr<Applier>,
    /// Watch the disk as long as the server runs.
    _watches: [Watch; 4],
}

/// Runs one server until it is told to stop or cannot go on. Must be called inside an actix system.
///
/// # Errors
///
/// When it cannot start, or had to stop because its disk failed.
pub(crate) async fn serve(config: Config, room: ConnectionRoom) -> Result<(), ServerError> {
    // Signals first: one that comes while the storage is being read stops the server in order, too.
    let mut signals = Signals::install()?;
    // The ports before the disk: a second server on the same configuration ends here, before it touches the disk.
    let ports = Ports::bind(&config).await?;
    let opened = Opened::open(&config)?;
    let joins = opened.restored.hard_state.standing == Standing::Joining;
    let mut server = Server::start(&config, room, ports, opened)?;
    actix_rt::spawn(tell_when_held_up());
    if joins {
        actix_rt::spawn(tell_that_it_waits(server.soft_state.clone()));
    }
    tracing::info!(
        "node {} of cluster {} serves clients on {} and peers on {}",
        config.id,
        config.cluster_id,
        config.this_node().client_addr,
        config.this_node().raft_addr
    );
    let outcome = tokio::select! {
        signal = signals.next() => {
            tracing::info!("{signal}: stops in order");
            if server.files.are_in_place() {
                server.applier.do_send(PutNothingOff);
                let replaced = snapshot_is_replaced(Arc::clone(&server.snapshots), HAND_OVER_TIMEOUT);
                let ((), replaced) = tokio::join!(server.hand_over(config.nodes.len() > 1), replaced);
                replaced.map_err(Fatal::SnapshotRemoved)
            } else {
                Err(Fatal::FilesLost(server.files.what_is_lost()))
            }
        }
        failure = server.failures.reason() => Err(failure),
    };
    let outcome = outcome.map_err(|failure| {
        // A line of the log for each of the message, so that its command can be copied.
        for line in failure.to_string().lines() {
            tracing::error!("{}", line.trim_start());
        }
        ServerError::Fatal(failure)
    });
    if tokio::time::timeout(STOP_TIMEOUT, server.stop(outcome.is_ok()))
        .await
        .is_err()
    {
        // A thread hangs, most likely on its disk. Waiting for it would hang the process, too.
        tracing::warn!("did not stop in time and ends at once; what was acknowledged is on disk");
        if let Err(error) = &outcome {
            eprintln!("error: {}", error.told_to_starter(&config.join_command()));
        }
        std::process::exit(i32::from(
            outcome.map_or_else(|error| error.exit_code(), |()| crate::exit::OK),
        ));
    }
    tracing::info!("stopped");
    outcome
}

struct Ports {
    peers: TcpListener,
    clients: TcpListener,
}

impl Ports {
    async fn bind(config: &Config) -> Result<Self, ServerError> {
        let own = config.this_node();
        let bind = async |name: &'static str, addr: &str| {
            let bound = TcpListener::bind(addr).await;
            bound.map_err(|source| ServerError::Bind {
                name,
                addr: addr.to_owned(),
                source,
            })
        };
        Ok(Self {
            peers: bind("raft_addr", &own.raft_addr.to_string()).await?,
            clients: bind("client_addr", &own.client_addr.to_string()).await?,
        })
    }
}

/// Tells now and then that a node that is to join waits for a leader, until there is one.
async fn tell_that_it_waits(mut soft_state: watch::Receiver<SoftState>) {
    let a_leader = async {
        soft_state
            .wait_for(|state| state.leader_id.is_some())
            .await
            .map(drop)
    };
    tokio::pin!(a_leader);
    loop {
        tracing::info!(
            "waits to join: no leader has called on this node yet. A majority of the other nodes must run, with the \
             same cluster file, and must not wait to join themselves. If the cluster is new, and no node has ever held \
             data, there is nothing to join: stop all nodes, empty their data directories, and start them without \
             --join"
        );
        // An error says that the server is gone.
        if tokio::time::timeout(WAITING_INTERVAL, &mut a_leader)
            .await
            .is_ok()
        {
            return;
        }
    }
}

/// What the data directory holds.
struct Opened {
    storage: SledStorage,
    restored: Restored,
    state: StateMachine,
    disk: DiskSpace,
    longest_log_bytes: u64,
}

impl Opened {
    fn open(config: &Config) -> Result<Self, ServerError> {
        let identity = Identity {
            cluster_id: config.cluster_id.clone(),
            node_id: config.id,
        };
        let initial = Configuration::of_voters(config.nodes.keys().copied());
        let mut options = storage::Options::default();
        options.cache_bytes = config.storage.cache_bytes;
        options.join = config.join;
        let total_bytes = space_around(&config.data_dir).map_or(u64::MAX, |space| space.total_bytes);
        let disk = disk_space(config, total_bytes);
        options.journal_bytes = disk.journal_bytes(options.journal_bytes, total_bytes);
        let mut storage = SledStorage::open(&config.data_dir, &identity, &initial, &options)?;
        let restored = storage.restore()?;
        let loaded = apply_loop::load(
            storage.snapshots().as_ref(),
            &restored.snapshot,
            StateMachine::new,
        );
        let state = loaded.map_err(|source| ServerError::Snapshot {
            path: storage::snapshot_path(&config.data_dir, &restored.snapshot),
            source,
        })?;
        tracing::info!(
            "data directory {}: term {}, snapshot at {}, {} log entries behind it",
            config.data_dir.display(),
            restored.hard_state.current_term,
            restored.snapshot.last_included_index,
            restored
                .entries
                .iter()
                .filter(|entry| entry.index > restored.snapshot.last_included_index)
                .count(),
        );
        Ok(Self {
            storage,
            restored,
            state,
            disk,
            longest_log_bytes: longest_log_bytes(config, total_bytes),
        })
    }
}

fn core_config(config: &Config, incarnation: Incarnation, longest_log_bytes: u64) -> raft_core::Config {
    let defaults = raft_core::Config::new(config.id);
    let tick = election_tick(&config.raft);
    let ticks = |timeout: Duration| ticks_in(timeout, tick);
    raft_core::Config {
        incarnation,
        seed: rand::random(),
        election_timeout_min: ticks(config.raft.election_timeout_min),
        election_timeout_max: ticks(config.raft.election_timeout_max),
        max_uncommitted_bytes: config.raft.max_uncommitted_bytes,
        max_inflight_bytes: config.raft.max_inflight_bytes,
        max_inflight_messages: config.raft.max_inflight_messages,
        // Also where this node's own leases are off: another node's may be on.
        silent_start: true,
        lease_reads: config.raft.lease_reads,
        retained_log_bytes: usize::try_from(longest_log_bytes / 4)
            .map_or(defaults.retained_log_bytes, |bytes| {
                bytes.min(defaults.retained_log_bytes)
            }),
        ..defaults
    }
}

/// The members are fixed: the file must name the ones that the log knows.
fn check_members(config: &Config, node: &Node) -> Result<(), ServerError> {
    let stored = node.status().configuration.members();
    let configured = config.nodes.keys().copied().collect();
    if stored == configured {
        Ok(())
    } else {
        Err(ServerError::MembersDiffer { stored, configured })
    }
}

fn members(config: &Config) -> Vec<Member> {
    config
        .nodes
        .values()
        .map(|node| Member {
            id: node.id,
            client_addr: node.client_addr.to_string(),
        })
        .collect()
}

/// Everything that [`Server::start`] hands to the actors it creates.
struct Parts<'a> {
    config: &'a Config,
    room: ConnectionRoom,
    snapshots: Arc<dyn SnapshotStore>,
    stop: StopSender,
    persister_thread: &'a Arbiter,
    disk: Arc<DiskSpace>,
    longest_log_bytes: u64,
    commit_clock: Arc<CommitClock>,
    files: Arc<DataFiles>,
}

impl Server {
    fn start(
        config: &Config,
        room: ConnectionRoom,
        ports: Ports,
        opened: Opened,
    ) -> Result<Self, ServerError> {
        let (stop, failures) = stop_channel();
        let (persister_thread, ticker_thread) = (Arbiter::new(), Arbiter::new());
        let Opened {
            storage,
            restored,
            state,
            disk,
            longest_log_bytes,
        } = opened;
        let snapshot = restored.snapshot.clone();
        let node = Node::new(
            core_config(config, storage.incarnation(), longest_log_bytes),
            restored,
        )?;
        check_members(config, &node)?;
        let members = config.nodes.keys().copied();
        let identity = ServerIdentity::new(config.cluster_id.clone(), config.id, members)?;
        let reader = state.reader();
        let progress = storage.progress();
        let (soft_state_sender, soft_state) = watch::channel(node.soft_state());
        let files = Arc::new(DataFiles::of(&config.data_dir));
        let snapshots = storage.snapshots();
        let parts = Parts {
            config,
            room,
            snapshots: Arc::clone(&snapshots),
            stop,
            persister_thread: &persister_thread,
            disk: Arc::new(disk),
            longest_log_bytes,
            commit_clock: Arc::default(),
            files: Arc::clone(&files),
        };
        let (intake, lease) = (Intake::default(), SharedLease::new(election_tick(&config.raft)));
        let mut started = None;
        let node = RaftNode::create(|ctx| {
            let persister = start_persister(&parts, ctx, storage);
            let kv = start_kv_server(&parts, ctx, &state, intake.clone());
            let applier = start_applier(&parts, ctx, &kv, state, snapshot);
            let links = links(&parts, ctx, &persister, &kv, &applier);
            started = Some((persister, kv, applier));
            RaftNode::new(
                Driver::new(node),
                links,
                soft_state_sender,
                lease.clone(),
                progress,
            )
        });
        let (persister, kv, applier) = started.expect("create runs its closure before it returns");
        start_tickers(config, &ticker_thread, &node);
        let watches = start_watches(&parts, &kv, &applier).map_err(Fatal::Thread)?;
        let (stop_serving, _) = watch::channel(false);
        let door = Arc::new(Door::new(intake, kv.clone()));
        let service = ClientService::new(Arc::clone(&door), node.clone(), lease, reader, about(config));
        let serving = serve_ports(&parts, identity, ports, &stop_serving, &node, door, service);
        Ok(Self {
            node,
            kv,
            persister,
            soft_state,
            stop_serving,
            serving,
            failures,
            threads: vec![ticker_thread, persister_thread],
            files,
            snapshots,
            applier,
            _watches: watches,
        })
    }

    /// A leader that goes hands leadership over first, so that clients wait for no election.
    async fn hand_over(&mut self, has_peers: bool) {
        let leads = |state: &SoftState| state.role == Role::Leader;
        // To be no longer the leader is not enough: one that reaches no majority steps down, too.
        let another_leads = |state: &SoftState| state.role != Role::Leader && state.leader_id.is_some();
        if !has_peers || !leads(&self.soft_state.borrow()) {
            return;
        }
        let deadline = tokio::time::Instant::now() + HAND_OVER_TIMEOUT;
        let mut target = None;
        while !another_leads(&self.soft_state.borrow()) && tokio::time::Instant::now() < deadline {
            if leads(&self.soft_state.borrow()) {
                match self.node.send(StepAside).await {
                    Ok(Some(peer)) => target = Some(peer),
                    // Nobody could take over, or the node has stepped down just now.
                    Ok(None) if leads(&self.soft_state.borrow()) => break,
                    Ok(None) => {}
                    Err(_) => return,
                }
            }
            // Whether it came to that is in the state itself.
            let waiting = tokio::time::timeout(HAND_OVER_INTERVAL, self.soft_state.wait_for(another_leads));
            if let Ok(Err(_)) = waiting.await {
                // The node has ended by itself: nothing will come of it.
                return;
            }
        }
        let state = *self.soft_state.borrow();
        match target {
            Some(target) => tracing::info!("{}", told_of_hand_over(target, state)),
            None if leads(&state) => {
                tracing::info!("no other node was heard from lately: whoever is left elects a leader");
            }
            None => {}
        }
    }

    /// Refuses new work, and gives what is on its way the time to arrive: whoever waits for a write learns what became
    /// of it. Where leadership was handed over nobody waits any more.
    async fn finish_requests(&self) {
        let deadline = tokio::time::Instant::now() + REQUEST_GRACE;
        while let Ok(waiting @ 1..) = self.kv.send(TakeNoMore).await {
            if tokio::time::Instant::now() >= deadline {
                tracing::info!(waiting, "requests were still waiting after {REQUEST_GRACE:?}");
                return;
            }
            tokio::time::sleep(FINISH_INTERVAL).await;
        }
    }

    /// Refuses new work, ends what waits, flushes and closes, in this order. If it `can_finish`, what waits
    /// gets the time to end first.
    async fn stop(self, can_finish: bool) {
        if can_finish {
            self.finish_requests().await;
        }
        let _ = self.kv.send(ShutDown).await;
        self.stop_serving.send_replace(true);
        for port in self.serving {
            let _ = port.await;
        }
        let _ = self.node.send(StopRaftNode).await;
        let _ = self.persister.send(StopPersister).await;
        for thread in self.threads {
            thread.stop();
            let _ = actix_rt::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Waits until no snapshot is lost: the watch has another one written. The path of the file if that takes longer than
/// `limit`.
async fn snapshot_is_replaced(snapshots: Arc<dyn SnapshotStore>, limit: Duration) -> Result<(), PathBuf> {
    let deadline = tokio::time::Instant::now() + limit;
    while let Some((_, path)) = snapshots.lost() {
        if tokio::time::Instant::now() >= deadline {
            return Err(path);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// What came of handing leadership to `target`, by what the node knows in the end.
fn told_of_hand_over(target: NodeId, state: SoftState) -> String {
    match state.leader_id {
        _ if state.role == Role::Leader => format!("node {target} did not take over in time"),
        Some(leader) if leader == target => format!("handed leadership to node {target}"),
        Some(leader) => format!("node {leader} leads now, and not node {target}, which was asked to"),
        None => format!("leads no longer; whether node {target} took over is not known"),
    }
}

fn about(config: &Config) -> About {
    About {
        id: config.id,
        cluster_id: config.cluster_id.clone(),
        members: members(config),
    }
}

fn start_persister(
    parts: &Parts<'_>,
    ctx: &Context<RaftNode>,
    storage: SledStorage,
) -> Addr<Persister<SledStorage>> {
    let persister = Persister::new(
        storage,
        Arc::clone(&parts.snapshots),
        ctx.address().recipient(),
        ctx.address().recipient(),
        parts.stop.clone(),
        WatchedDisk {
            clock: Arc::clone(&parts.commit_clock),
            files: Arc::clone(&parts.files),
            space: Arc::clone(&parts.disk),
        },
    );
    Persister::start_in_arbiter(&parts.persister_thread.handle(), move |_| persister)
}

fn start_applier(
    parts: &Parts<'_>,
    ctx: &Context<RaftNode>,
    kv: &Addr<KvServer>,
    state: StateMachine,
    snapshot: SnapshotMeta,
) -> Addr<Applier> {
    let snapshot_log_bytes = parts.config.raft.snapshot_log_bytes.min(parts.longest_log_bytes);
    let settings = ApplierSettings::new(snapshot_log_bytes, snapshot, Arc::clone(&parts.disk));
    let listeners = Listeners {
        applied: ctx.address().recipient(),
        cut: ctx.address().recipient(),
        outcomes: kv.clone().recipient(),
    };
    let snapshots = Arc::clone(&parts.snapshots);
    Applier::new(state, snapshots, settings, listeners, parts.stop.clone()).start()
}

fn start_kv_server(
    parts: &Parts<'_>,
    ctx: &Context<RaftNode>,
    state: &StateMachine,
    intake: Intake,
) -> Addr<KvServer> {
    let config = parts.config;
    let peers = config.peers().map(|peer| peer.id);
    KvServer::new(
        members(config),
        ClusterRoom::new(config.id, Arc::clone(&parts.disk), peers),
        config.limits.requests_in_flight,
        state.last_applied(),
        intake,
        &ctx.address(),
    )
    .start()
}

/// Where the outputs of the node go.
fn links(
    parts: &Parts<'_>,
    ctx: &Context<RaftNode>,
    persister: &Addr<Persister<SledStorage>>,
    kv: &Addr<KvServer>,
    applier: &Addr<Applier>,
) -> Links {
    Links {
        persister: persister.clone().recipient(),
        log_reader: persister.clone().recipient(),
        applier: applier.clone().recipient(),
        restorer: applier.clone().recipient(),
        replacer: applier.clone().recipient(),
        proposals: kv.clone().recipient(),
        reads: kv.clone().recipient(),
        leadership: kv.clone().recipient(),
        replicators: start_replicators(parts, ctx, kv),
        refusals: RefusalReporter::new(parts.config, parts.stop.clone()),
        files: Arc::clone(&parts.files),
    }
}

fn start_replicators(
    parts: &Parts<'_>,
    ctx: &Context<RaftNode>,
    kv: &Addr<KvServer>,
) -> BTreeMap<NodeId, Addr<Replicator>> {
    let config = parts.config;
    config
        .peers()
        .map(|peer| {
            let address = PeerAddress {
                cluster_id: config.cluster_id.clone(),
                own_id: config.id,
                id: peer.id,
                raft_addr: peer.raft_addr.to_string(),
            };
            let generator = StdRng::seed_from_u64(rand::random());
            let (node, kv) = (ctx.address(), kv.clone());
            let replicator = Replicator::new(address, node, kv, Arc::clone(&parts.snapshots), generator);
            (peer.id, replicator.start())
        })
        .collect()
}

fn start_tickers(config: &Config, thread: &Arbiter, node: &Addr<RaftNode>) {
    let (election, beat): (Recipient<_>, Recipient<_>) = (node.clone().recipient(), node.clone().recipient());
    let (tick, heartbeat) = (election_tick(&config.raft), config.raft.heartbeat_interval);
    ElectionTicker::start_in_arbiter(&thread.handle(), move |_| ElectionTicker::new(tick, election));
    HeartbeatTicker::start_in_arbiter(&thread.handle(), move |_| HeartbeatTicker::new(heartbeat, beat));
}

/// The disk of the data directory, of `total_bytes`. One that cannot be asked for its size counts as large.
fn disk_space(config: &Config, total_bytes: u64) -> DiskSpace {
    let configured = config.storage.min_free_bytes;
    DiskSpace::new(configured.unwrap_or_else(|| DiskSpace::default_min_free_bytes(total_bytes)))
}

/// How long the log may become on a disk of `total_bytes`; without a bound where room is not minded at all.
fn longest_log_bytes(config: &Config, total_bytes: u64) -> u64 {
    match config.storage.min_free_bytes {
        Some(0) => u64::MAX,
        _ => disk_room::longest_log_bytes(total_bytes),
    }
}

fn start_watches(parts: &Parts<'_>, kv: &Addr<KvServer>, applier: &Addr<Applier>) -> io::Result<[Watch; 4]> {
    let config = parts.config;
    let (kv, applier) = (kv.clone(), applier.clone());
    let replacer = applier.clone();
    let low = move || {
        kv.do_send(DiskIsLow);
        applier.do_send(MakeRoom);
    };
    let (dir, clock) = (config.data_dir.clone(), Arc::clone(&parts.commit_clock));
    let (files, timeout) = (Arc::clone(&parts.files), config.storage.stall_timeout);
    Ok([
        watch_space(dir.clone(), Arc::clone(&parts.disk), low)?,
        watch_files(files, parts.stop.clone())?,
        watch_snapshot(Arc::clone(&parts.snapshots), move |snapshot| {
            replacer.do_send(ReplaceSnapshot(snapshot));
        })?,
        watch_stalls(dir, clock, timeout, parts.stop.clone())?,
    ])
}

fn serve_ports(
    parts: &Parts<'_>,
    identity: ServerIdentity,
    ports: Ports,
    stop: &watch::Sender<bool>,
    node: &Addr<RaftNode>,
    door: Arc<Door>,
    clients: ClientService,
) -> Vec<tokio::task::JoinHandle<()>> {
    let stopped = |mut stop: watch::Receiver<bool>| async move {
        // An error says that the server is gone, which is a reason to stop too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let (peer_node, disk) = (Arc::new(node.clone()), Arc::clone(&parts.disk));
    let make_peer_service =
        move |from| PeerService::new(from, Arc::clone(&peer_node), Arc::clone(&disk), Arc::clone(&door));
    let peers = rpc::serve_peer(
        ports.peers,
        identity.clone(),
        peer_limits(parts.room),
        make_peer_service,
        stopped(stop.subscribe()),
    );
    let clients = rpc::serve_kv(
        ports.clients,
        identity,
        client_limits(parts.config, parts.room),
        clients,
        stopped(stop.subscribe()),
    );
    vec![actix_rt::spawn(peers), actix_rt::spawn(clients)]
}

fn peer_limits(room: ConnectionRoom) -> rpc::ServerLimits {
    rpc::ServerLimits {
        max_handshakes: room.peer_handshakes,
        shutdown_grace: REQUEST_GRACE,
        ..rpc::ServerLimits::for_peers()
    }
}

fn client_limits(config: &Config, room: ConnectionRoom) -> rpc::ServerLimits {
    rpc::ServerLimits {
        max_connections: room.clients,
        max_handshakes: room.client_handshakes,
        max_connections_per_ip: config.limits.connections_per_address,
        max_requests_in_flight: config.limits.requests_in_flight_per_connection,
        shutdown_grace: REQUEST_GRACE,
        ..rpc::ServerLimits::default()
    }
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Caught, so that a write beyond the limit of file sizes fails and does not end the process without a word.
    _file_too_large: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn install() -> Result<Self, ServerError> {
        use tokio::signal::unix::{SignalKind, signal};
        let install = |kind| signal(kind).map_err(ServerError::Signals);
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            _file_too_large: install(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{Entry, LogIndex, Term, Write};

    use super::*;

    #[test]
    fn only_a_leader_that_is_known_is_said_to_have_got_the_leadership() {
        let told = |role, leader_id: Option<u64>| {
            let leader_id = leader_id.map(NodeId);
            let term = Term(3);
            told_of_hand_over(
                NodeId(2),
                SoftState {
                    role,
                    term,
                    leader_id,
                },
            )
        };
        assert_eq!(told(Role::Follower, Some(2)), "handed leadership to node 2");
        assert!(told(Role::Follower, Some(3)).starts_with("node 3 leads now"));
        assert!(told(Role::Leader, Some(1)).contains("did not take over"));
        for role in [Role::Follower, Role::Candidate] {
            assert!(told(role, None).contains("not known"));
        }
    }

    #[test]
    fn a_stop_waits_for_the_snapshot_that_takes_the_place_of_a_lost_one() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity {
            cluster_id: "test".to_owned(),
            node_id: NodeId(1),
        };
        let initial = Configuration::of_voters([NodeId(1)]);
        let options = storage::Options::default();
        let mut store = SledStorage::open(dir.path(), &identity, &initial, &options).unwrap();
        let snapshots = store.snapshots();
        let file = snapshots.create(LogIndex(1), Term(1), &initial).unwrap();
        let snapshot = file.finish().unwrap();
        let path = storage::snapshot_path(dir.path(), &snapshot);
        let index = LogIndex(1);
        let command = raft_core::Payload::Command(Vec::new().into());
        store
            .write(&[
                Write::Append(vec![Entry {
                    index,
                    term: Term(1),
                    payload: command,
                }]),
                Write::Compact {
                    snapshot,
                    first_retained: LogIndex(2),
                },
            ])
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        let wait = |ms| runtime.block_on(snapshot_is_replaced(store.snapshots(), Duration::from_millis(ms)));
        assert_eq!(wait(0), Ok(()));
        let aside = dir.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        assert_eq!(wait(50), Err(path.clone()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                std::fs::rename(&aside, &path).unwrap();
            });
            assert_eq!(wait(60_000), Ok(()));
        });
    }
}

//! What a seed decides before the run starts: the cluster, the clients and how bad the world is.

use std::ops::RangeInclusive;

use raft_core::{Config, Incarnation, NodeId, Ticks};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::faults::{FaultKind, FaultMix};

/// One unit of a node's election clock, as in kv-server.
pub(crate) const ELECTION_TICK: Micros = 10 * MILLISECOND;
/// As in kv-server's default configuration.
pub(crate) const HEARTBEAT_INTERVAL: Micros = 50 * MILLISECOND;
/// The longest election timeout, with the default configuration.
pub(crate) const ELECTION_TIMEOUT_MAX: Micros = 60 * ELECTION_TICK;

/// Walking the whole state is dear: not every index has it, unless a test asks for that.
const STATES_COMPARED_EVERY: u64 = 8;

/// So many that none is ended for another.
const MANY_SESSIONS: u32 = 100_000;

/// How long clients pause at most between two operations in most runs.
pub(crate) const BUSY_THINK_TIME_MAX: Micros = 60 * MILLISECOND;

/// Chunks in which a snapshot of a few operations takes several.
const SMALL_CHUNK_BYTES: usize = 150;

/// How long a tick of a healthy clock takes, in hundredths of what it should. No two of these drift apart by as
/// much as leases allow for.
pub(crate) const CLOCK_PERCENT: RangeInclusive<u64> = 96..=104;

/// The settings of one run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) nodes: u64,
    /// Clients that do random operations.
    pub(crate) clients: u64,
    /// So many of them are tasks of one program, and write in one session at the same time.
    pub(crate) clients_per_session: u64,
    /// Keys that all clients append to.
    pub(crate) shared_keys: u64,
    /// Keys that all clients put, append to, delete and scan.
    pub(crate) mixed_keys: u64,
    /// How long faults happen.
    pub(crate) chaos: Micros,
    /// The mean time between two faults.
    pub(crate) fault_interval: Micros,
    pub(crate) faults: FaultMix,
    /// By how many hundredths a clock runs fast or slow at most while faults happen.
    pub(crate) clock_skew_percent: u64,
    /// The longest election timeout of these nodes.
    pub(crate) election_timeout_max: Ticks,
    /// Whether leaders serve reads on their lease. Clocks then stay within what leases allow for.
    pub(crate) lease_reads: bool,
    pub(crate) network: NetworkSettings,
    /// The longest that a healthy disk takes for a step of a write.
    pub(crate) disk_delay_max: Micros,
    /// The same for a slow one.
    pub(crate) slow_disk_delay_max: Micros,
    pub(crate) snapshot_log_bytes: u64,
    pub(crate) snapshot_chunk_bytes: usize,
    pub(crate) max_append_bytes: usize,
    pub(crate) max_inflight_messages: usize,
    pub(crate) retained_log_bytes: usize,
    /// Nodes compare their states at the multiples of this index, beside where snapshots stand.
    pub(crate) states_compared_every: u64,
    /// How many sessions the cluster keeps.
    pub(crate) session_cap: u32,
    /// How long a client's operation may take while faults happen.
    pub(crate) operation_timeout: Micros,
    /// The longest pause of a client between two operations.
    pub(crate) think_time_max: Micros,
    /// Whether little happens for long.
    pub(crate) is_quiet: bool,
    /// Whether an operator lets a node join anew that refuses to start or that the cluster does not take.
    pub(crate) has_operator: bool,
}

/// How the network treats a message. Chances are in thousandths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkSettings {
    pub(crate) delay_min: Micros,
    pub(crate) delay_max: Micros,
    pub(crate) loss_permille: u32,
    pub(crate) duplication_permille: u32,
    /// How many messages are held up for up to half a second, so that later ones overtake them.
    pub(crate) straggler_permille: u32,
}

impl NetworkSettings {
    /// The network of the healing phase.
    pub(crate) const HEALTHY: Self = Self {
        delay_min: MILLISECOND / 5,
        delay_max: 2 * MILLISECOND,
        loss_permille: 0,
        duplication_permille: 0,
        straggler_permille: 0,
    };

    /// A bad network: every tenth message is lost, many are late or come twice.
    pub(crate) const UNRELIABLE: Self = Self {
        delay_min: MILLISECOND / 5,
        delay_max: 25 * MILLISECOND,
        loss_permille: 100,
        duplication_permille: 50,
        straggler_permille: 50,
    };

    fn draw(generator: &mut Pcg64Mcg) -> Self {
        // Where messages get lost all the time, other faults do not get far.
        if generator.random_ratio(1, 3) {
            return Self::HEALTHY;
        }
        Self {
            delay_min: generator.random_range(50..=2 * MILLISECOND),
            delay_max: generator.random_range(2 * MILLISECOND..=20 * MILLISECOND),
            loss_permille: generator.random_range(0..=100),
            duplication_permille: generator.random_range(0..=50),
            straggler_permille: generator.random_range(0..=20),
        }
    }
}

impl Scenario {
    /// Draws everything from `generator`.
    pub(crate) fn draw(generator: &mut Pcg64Mcg) -> Self {
        let clients = generator.random_range(2..=6);
        let clients_per_session = generator.random_range(1..=2);
        let lease_reads = generator.random_ratio(1, 3);
        let skew = [4, 20, 60][generator.random_range(0..3_usize)];
        let mut scenario = Self {
            nodes: [3, 3, 5, 5, 7][generator.random_range(0..5_usize)],
            clients,
            clients_per_session,
            shared_keys: generator.random_range(1..=3),
            mixed_keys: generator.random_range(1..=4),
            chaos: generator.random_range(3 * SECOND..=12 * SECOND),
            fault_interval: generator.random_range(80 * MILLISECOND..=SECOND),
            faults: FaultMix::draw(generator),
            clock_skew_percent: if lease_reads { 4 } else { skew },
            election_timeout_max: Ticks(ELECTION_TIMEOUT_MAX / ELECTION_TICK),
            lease_reads,
            network: NetworkSettings::draw(generator),
            disk_delay_max: generator.random_range(200..=5 * MILLISECOND),
            slow_disk_delay_max: generator.random_range(20 * MILLISECOND..=800 * MILLISECOND),
            snapshot_log_bytes: generator.random_range(200..=2_500),
            snapshot_chunk_bytes: generator.random_range(100..=2_000),
            max_append_bytes: generator.random_range(200..=20_000),
            max_inflight_messages: generator.random_range(1..=32),
            retained_log_bytes: generator.random_range(0..=600),
            states_compared_every: STATES_COMPARED_EVERY,
            // Few enough, now and then, that sessions end while their clients are away.
            session_cap: [
                u32::try_from(clients.div_ceil(clients_per_session)).unwrap_or(1) + 1,
                MANY_SESSIONS,
                MANY_SESSIONS,
            ][generator.random_range(0..3_usize)],
            operation_timeout: generator.random_range(2 * SECOND..=8 * SECOND),
            think_time_max: BUSY_THINK_TIME_MAX,
            is_quiet: false,
            has_operator: true,
        };
        if scenario.faults.has(FaultKind::TransferBroken) {
            // Or there would be no middle in which to break them.
            scenario.snapshot_chunk_bytes = scenario.snapshot_chunk_bytes.min(SMALL_CHUNK_BYTES);
        }
        scenario
    }

    /// A run in which leaders are deserted, which is when reads may be stale: on quick disks and with many clients,
    /// so that there is a new leader, and something new to read there, soon.
    pub(crate) fn deserts_leaders(&mut self, generator: &mut Pcg64Mcg) {
        self.faults = FaultMix::deserting();
        self.fault_interval = generator.random_range(500 * MILLISECOND..=1_500 * MILLISECOND);
        self.chaos = generator.random_range(6 * SECOND..=10 * SECOND);
        self.lease_reads = generator.random_ratio(2, 3);
        self.clock_skew_percent = if self.lease_reads { 4 } else { 60 };
        self.election_timeout_max = Ticks([34, 60][generator.random_range(0..2_usize)]);
        if generator.random_ratio(2, 3) {
            self.network = NetworkSettings::HEALTHY;
        }
        self.disk_delay_max = generator.random_range(200..=MILLISECOND);
        self.clients = generator.random_range(4..=6);
        self.session_cap = MANY_SESSIONS;
        self.think_time_max = generator.random_range(10 * MILLISECOND..=40 * MILLISECOND);
    }

    /// Makes it a run in which little happens for minutes: what is wrong only after a long calm, and what one fault does to
    /// a cluster that has got over the last one.
    pub(crate) fn make_quiet(&mut self, generator: &mut Pcg64Mcg) {
        self.chaos = generator.random_range(150 * SECOND..=600 * SECOND);
        self.clients = 2;
        if self.session_cap < MANY_SESSIONS {
            self.session_cap =
                u32::try_from(self.clients.div_ceil(self.clients_per_session)).unwrap_or(1) + 1;
        }
        self.fault_interval = generator.random_range(3 * SECOND..=20 * SECOND);
        self.think_time_max = generator.random_range(1_500 * MILLISECOND..=3 * SECOND);
        self.is_quiet = true;
        self.network = NetworkSettings::HEALTHY;
        // There is time for it here. So entries are applied one by one; other runs apply several at once.
        self.states_compared_every = 1;
    }

    /// A cluster of `nodes` that nothing happens to, with the settings of kv-server and no clients.
    pub(crate) fn calm(nodes: u64) -> Self {
        Self {
            nodes,
            clients: 0,
            clients_per_session: 1,
            shared_keys: 1,
            mixed_keys: 1,
            chaos: 0,
            fault_interval: SECOND,
            faults: FaultMix::default(),
            clock_skew_percent: 4,
            election_timeout_max: Ticks(ELECTION_TIMEOUT_MAX / ELECTION_TICK),
            lease_reads: false,
            network: NetworkSettings::HEALTHY,
            disk_delay_max: 500,
            slow_disk_delay_max: 100 * MILLISECOND,
            snapshot_log_bytes: u64::MAX,
            snapshot_chunk_bytes: 512 * 1024,
            max_append_bytes: 1 << 20,
            max_inflight_messages: 256,
            retained_log_bytes: 0,
            states_compared_every: STATES_COMPARED_EVERY,
            session_cap: MANY_SESSIONS,
            operation_timeout: 30 * SECOND,
            think_time_max: 30 * MILLISECOND,
            is_quiet: false,
            has_operator: false,
        }
    }

    /// The settings of the core of node `id`, on the store `incarnation`.
    pub(crate) fn core_config(&self, id: NodeId, incarnation: Incarnation, seed: u64) -> Config {
        Config {
            incarnation,
            seed,
            election_timeout_min: Ticks(30),
            election_timeout_max: self.election_timeout_max,
            max_append_bytes: self.max_append_bytes,
            max_inflight_messages: self.max_inflight_messages,
            retained_log_bytes: self.retained_log_bytes,
            max_unpacked_log_bytes: self.retained_log_bytes,
            max_packed_log_bytes: self.retained_log_bytes,
            silent_start: true,
            lease_reads: self.lease_reads,
            ..Config::new(id)
        }
    }

    /// All node ids.
    pub(crate) fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.nodes).map(NodeId)
    }
}

//! What a seed decides before the run starts: the cluster, the clients and how bad the world is.

use raft_core::{Config, NodeId, Ticks};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use crate::clock::{MILLISECOND, Micros, SECOND};

/// One unit of a node's election clock, as in kv-server.
pub(crate) const ELECTION_TICK: Micros = 10 * MILLISECOND;
/// As in kv-server's default configuration.
pub(crate) const HEARTBEAT_INTERVAL: Micros = 50 * MILLISECOND;
/// The longest election timeout, with the default configuration.
pub(crate) const ELECTION_TIMEOUT_MAX: Micros = 60 * ELECTION_TICK;

/// The settings of one run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) nodes: u64,
    pub(crate) clients: u64,
    /// Keys that all clients append to.
    pub(crate) shared_keys: u64,
    /// How long faults happen.
    pub(crate) chaos: Micros,
    /// The mean time between two faults.
    pub(crate) fault_interval: Micros,
    pub(crate) faults: FaultKinds,
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
}

/// Which faults happen in a run at all. A run with few of them gets deeper into each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultKinds {
    pub(crate) crashes: bool,
    pub(crate) partitions: bool,
    pub(crate) one_way_partitions: bool,
    pub(crate) slow_disks: bool,
    pub(crate) transfers: bool,
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

    fn draw(generator: &mut Pcg64Mcg) -> Self {
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
        let faults = FaultKinds {
            crashes: generator.random_ratio(3, 4),
            partitions: generator.random_ratio(2, 3),
            one_way_partitions: generator.random_ratio(1, 2),
            slow_disks: generator.random_ratio(1, 2),
            transfers: generator.random_ratio(1, 3),
        };
        Self {
            nodes: [3, 3, 5, 5, 7][generator.random_range(0..5_usize)],
            clients: generator.random_range(2..=6),
            shared_keys: generator.random_range(1..=3),
            chaos: generator.random_range(3 * SECOND..=12 * SECOND),
            fault_interval: generator.random_range(150 * MILLISECOND..=2 * SECOND),
            faults,
            network: NetworkSettings::draw(generator),
            disk_delay_max: generator.random_range(200..=5 * MILLISECOND),
            slow_disk_delay_max: generator.random_range(20 * MILLISECOND..=800 * MILLISECOND),
            snapshot_log_bytes: generator.random_range(200..=2_500),
            snapshot_chunk_bytes: generator.random_range(100..=2_000),
            max_append_bytes: generator.random_range(200..=20_000),
            max_inflight_messages: generator.random_range(1..=32),
            retained_log_bytes: generator.random_range(0..=600),
        }
    }

    /// The settings of the core of node `id`.
    pub(crate) fn core_config(&self, id: NodeId, seed: u64) -> Config {
        Config {
            seed,
            election_timeout_min: Ticks(30),
            election_timeout_max: Ticks(ELECTION_TIMEOUT_MAX / ELECTION_TICK),
            max_append_bytes: self.max_append_bytes,
            max_inflight_messages: self.max_inflight_messages,
            retained_log_bytes: self.retained_log_bytes,
            ..Config::new(id)
        }
    }

    /// All node ids.
    pub(crate) fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.nodes).map(NodeId)
    }
}

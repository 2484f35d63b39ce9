//! The configuration of one node: flags, environment, cluster file and defaults, made one and checked.
//!
//! A [`Config`] that exists is valid. Whatever cannot work is refused with the place where it was said
//! (file and line, flag, or environment variable), what is wrong, and what to do; see [`ConfigError`].

mod address;
mod error;
mod file;
mod nodes;
mod setting;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raft_core::NodeId;

pub use self::address::Address;
pub use self::error::ConfigError;
use self::error::{Place, Source};
use self::file::{LimitsSection, RaftSection, StorageSection};
use self::setting::Setting;
use crate::cli::{Cli, Overrides};
use crate::disk_room::LEAST_MIN_FREE_BYTES;

/// The longest name of a cluster, in bytes.
pub const MAX_CLUSTER_ID_BYTES: usize = 64;
/// The most nodes of a cluster. More make every write wait for more disks and tolerate little more.
pub const MAX_NODES: usize = 7;

/// What one node needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name of the cluster: ASCII letters, digits, `-`, `_` and `.`.
    pub cluster_id: String,
    /// Which of `nodes` this is.
    pub id: NodeId,
    /// Where this node keeps its data.
    pub data_dir: PathBuf,
    /// Whether `data_dir` was given by a flag or the environment, and not by the file.
    pub data_dir_is_override: bool,
    /// The cluster file that said all this.
    pub file: PathBuf,
    /// Whether an empty data directory is to take the place of one that was lost.
    pub join: bool,
    /// Every node of the cluster, this one included.
    pub nodes: BTreeMap<NodeId, NodeConfig>,
    /// How the node takes part in Raft.
    pub raft: RaftConfig,
    /// What the node lets clients do.
    pub limits: LimitsConfig,
    /// How the node keeps its data.
    pub storage: StorageConfig,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its identity, at least 1.
    pub id: NodeId,
    /// Where it serves its peers.
    pub raft_addr: Address,
    /// Where it serves clients.
    pub client_addr: Address,
}

/// The section `[raft]`. Times and sizes are above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    /// Time between a leader's heartbeats; below `election_timeout_min`. Default 50 ms.
    pub heartbeat_interval: Duration,
    /// The shortest election timeout. Default 300 ms.
    pub election_timeout_min: Duration,
    /// The longest election timeout; above the shortest. Default 600 ms.
    pub election_timeout_max: Duration,
    /// A snapshot is cut when the log since the last one has grown past this many bytes. Default 64 MiB.
    pub snapshot_log_bytes: u64,
    /// The most bytes of entries that a leader holds uncommitted. Default 64 MiB.
    pub max_uncommitted_bytes: usize,
    /// The most bytes of entries unanswered by one peer. Default 8 MiB.
    pub max_inflight_bytes: usize,
    /// The most messages with entries unanswered by one peer. Default 256.
    pub max_inflight_messages: usize,
    /// A leader may answer reads that ask for it (`--consistency lease`) on a lease, without a round of
    /// heartbeats. Default off, because it makes what such reads return depend on clocks: over one election
    /// timeout, the clocks of the nodes must not drift apart by more than
    /// [10 percent](raft_core::lease::MAX_CLOCK_DRIFT_PERCENT), none may stand still while the others go on, as
    /// the clock of a frozen virtual machine does, and all nodes must have the same `election_timeout_ms`. A
    /// process that is stopped for a while does no harm.
    pub lease_reads: bool,
}

/// The section `[limits]`: what clients may do at once. All are above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The most client connections. Default 512.
    pub connections: usize,
    /// The most client connections from one IP address. Default 256.
    pub connections_per_address: usize,
    /// The most client requests that wait for their answer, over all connections. Default 32,768.
    pub requests_in_flight: usize,
    /// The most requests in flight on one connection. Default 4,096.
    pub requests_in_flight_per_connection: usize,
}

/// The section `[storage]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// How much memory the store of the log may use for its cache, in bytes. Default 8 MiB.
    pub cache_bytes: u64,
    /// While fewer bytes than this and a snapshot are free on the disk of `data_dir`, the node takes no new
    /// data; see [`disk_room`](crate::disk_room). 0: never mind; else at least 16 MiB. Default (`None`): by
    /// the size of the file system, [`DiskSpace::default_min_free_bytes`](crate::disk_room::DiskSpace::default_min_free_bytes).
    pub min_free_bytes: Option<u64>,
    /// A node whose disk has not finished a write after this long stops. It must be longer than the disk takes
    /// to read and write a whole snapshot. Default 30 s.
    pub stall_timeout: Duration,
}

impl Config {
    /// Reads and checks the configuration that a command line asks for.
    ///
    /// # Errors
    ///
    /// The first mistake that is found.
    pub fn load(cli: &Cli) -> Result<Self, ConfigError> {
        let text = file::read(&cli.config)?;
        let join = cli.join;
        Self::parse(&text, &cli.config, cli.id, &cli.overrides).map(|config| Self { join, ..config })
    }

    /// Checks the text of a cluster file. `file` is its name in errors.
    ///
    /// # Errors
    ///
    /// The first mistake that is found.
    pub fn parse(text: &str, file: &Path, id: u64, overrides: &Overrides) -> Result<Self, ConfigError> {
        let source = Source::new(file, text);
        let sections = file::parse(&source)?;
        let cluster_id = cluster_id(&source, sections.cluster_id)?;
        let data_dir = data_dir(&source, sections.data_dir, overrides, id)?;
        let raft = RaftConfig::new(&source, sections.raft, overrides)?;
        let limits = LimitsConfig::new(&source, sections.limits)?;
        let storage = StorageConfig::new(&source, sections.storage, overrides)?;
        let nodes = nodes::check(&source, sections.node)?;
        let id = NodeId(id);
        if !nodes.contains_key(&id) {
            let known: Vec<_> = nodes.keys().map(NodeId::to_string).collect();
            return Err(source.error(
                Place::outside("id", overrides),
                format!("{} has no node {id}", file.display()),
                format!(
                    "use the id of one of its [[node]] sections ({}), or add one",
                    known.join(", ")
                ),
            ));
        }
        Ok(Self {
            cluster_id,
            id,
            file: file.to_path_buf(),
            join: false,
            data_dir,
            data_dir_is_override: overrides.data_dir.is_some(),
            nodes,
            raft,
            limits,
            storage,
        })
    }

    /// The node that this configuration is for.
    ///
    /// # Panics
    ///
    /// When `id` was changed to that of no node.
    #[must_use]
    pub fn this_node(&self) -> &NodeConfig {
        &self.nodes[&self.id]
    }

    /// The command that lets this node join anew in its data directory, for a shell in whatever directory.
    #[must_use]
    pub fn join_command(&self) -> String {
        let file = quoted(&made_absolute(&self.file));
        let mut command = format!("kv-server --config {file} --id {}", self.id);
        if self.data_dir_is_override || self.data_dir.is_relative() {
            command.push_str(&format!(" --data-dir {}", quoted(&made_absolute(&self.data_dir))));
        }
        command + " --join"
    }

    /// The other nodes, in order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = &NodeConfig> {
        self.nodes.values().filter(|node| node.id != self.id)
    }
}

impl RaftConfig {
    fn new(source: &Source<'_>, section: RaftSection, overrides: &Overrides) -> Result<Self, ConfigError> {
        let setting = |name, value, in_file| Setting::new(source, name, Some((overrides, value)), in_file);
        let heartbeat = setting(
            "heartbeat_interval_ms",
            overrides.heartbeat_interval_ms,
            section.heartbeat_interval_ms,
        );
        let heartbeat_ms = heartbeat.above_zero(50)?;
        let election = Setting::new(
            source,
            "election_timeout_ms",
            Some((overrides, overrides.election_timeout_ms)),
            section
                .election_timeout_ms
                .map(|ends| toml::Spanned::new(ends.span(), ends.into_inner().0)),
        );
        let [min_ms, max_ms] = election.range([300, 600])?;
        setting::check_heartbeat(&heartbeat, heartbeat_ms, &election, min_ms)?;
        let size = |name, value, in_file, default| setting(name, value, in_file).above_zero(default);
        Ok(Self {
            heartbeat_interval: Duration::from_millis(heartbeat_ms),
            election_timeout_min: Duration::from_millis(min_ms),
            election_timeout_max: Duration::from_millis(max_ms),
            snapshot_log_bytes: size(
                "snapshot_log_bytes",
                overrides.snapshot_log_bytes,
                section.snapshot_log_bytes,
                64 << 20,
            )?,
            max_uncommitted_bytes: to_usize(size(
                "max_uncommitted_bytes",
                overrides.max_uncommitted_bytes,
                section.max_uncommitted_bytes,
                64 << 20,
            )?),
            max_inflight_bytes: to_usize(size(
                "max_inflight_bytes",
                overrides.max_inflight_bytes,
                section.max_inflight_bytes,
                8 << 20,
            )?),
            max_inflight_messages: to_usize(size(
                "max_inflight_messages",
                overrides.max_inflight_messages,
                section.max_inflight_messages,
                256,
            )?),
            lease_reads: Setting::new(
                source,
                "lease_reads",
                Some((overrides, overrides.lease_reads)),
                section.lease_reads,
            )
            .value_or(false),
        })
    }
}

impl LimitsConfig {
    fn new(source: &Source<'_>, section: LimitsSection) -> Result<Self, ConfigError> {
        let limit = |name, in_file, default| {
            Setting::new(source, name, None, in_file)
                .above_zero(default)
                .map(to_usize)
        };
        Ok(Self {
            connections: limit("connections", section.connections, 512)?,
            connections_per_address: limit("connections_per_address", section.connections_per_address, 256)?,
            requests_in_flight: limit("requests_in_flight", section.requests_in_flight, 32_768)?,
            requests_in_flight_per_connection: limit(
                "requests_in_flight_per_connection",
                section.requests_in_flight_per_connection,
                4_096,
            )?,
        })
    }
}

impl StorageConfig {
    fn new(source: &Source<'_>, section: StorageSection, overrides: &Overrides) -> Result<Self, ConfigError> {
        let cache = Setting::new(source, "cache_bytes", None, section.cache_bytes);
        let stall = Setting::new(
            source,
            "stall_timeout_ms",
            Some((overrides, overrides.stall_timeout_ms)),
            section.stall_timeout_ms,
        );
        let min_free = Setting::new(
            source,
            "min_free_bytes",
            Some((overrides, overrides.min_free_bytes)),
            section.min_free_bytes,
        );
        Ok(Self {
            cache_bytes: cache.above_zero(8 << 20)?,
            min_free_bytes: min_free.zero_or_at_least(LEAST_MIN_FREE_BYTES)?,
            stall_timeout: Duration::from_millis(stall.above_zero(30_000)?),
        })
    }
}

fn cluster_id(source: &Source<'_>, given: Option<toml::Spanned<String>>) -> Result<String, ConfigError> {
    let fix = "name the cluster with 1 to 64 letters, digits, '-', '_' or '.', such as cluster_id = \"demo\"";
    let given = given.ok_or_else(|| source.error(Place::File, "cluster_id is missing", fix))?;
    let place = source.place_of(&given);
    let name = given.into_inner();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let problem = if name.is_empty() {
        "cluster_id is empty".to_owned()
    } else if name.len() > MAX_CLUSTER_ID_BYTES {
        format!("cluster_id has {} bytes", name.len())
    } else if let Some(odd) = name.chars().find(|character| !is_plain(*character)) {
        format!("cluster_id contains {odd:?}")
    } else {
        return Ok(name);
    };
    Err(source.error(place, problem, fix))
}

fn data_dir(
    source: &Source<'_>,
    in_file: Option<toml::Spanned<String>>,
    overrides: &Overrides,
    id: u64,
) -> Result<PathBuf, ConfigError> {
    let fix = "say where the node keeps its data, such as data_dir = \"data/node-{id}\"";
    let (place, directory) = match (&overrides.data_dir, in_file) {
        (Some(directory), _) => (Place::outside("data_dir", overrides), directory.clone()),
        (None, Some(directory)) => (source.place_of(&directory), directory.into_inner()),
        (None, None) => return Err(source.error(Place::File, "data_dir is missing", fix)),
    };
    if directory.is_empty() {
        return Err(source.error(place, "data_dir is empty", fix));
    }
    Ok(PathBuf::from(directory.replace("{id}", &id.to_string())))
}

/// The path as seen from the root. Where this process's own directory is gone it stays as it was given.
fn made_absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The path as one word of a shell.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |character: char| character.is_alphanumeric() || "/._-+:@%,".contains(character);
    if path.chars().all(is_plain) {
        path
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

/// Where numbers of the machine have fewer than 64 bits, such a limit is none.
fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

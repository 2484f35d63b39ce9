//! The nodes under torture. Each has a configuration of its own, in which its peers are behind links.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::links::{Link, Links};
use crate::cluster_file::{ClusterFile, NodeEntry, nodes_on_ports};
use crate::error::Error;
use crate::local::{leader_among, new_cluster_id, write_cluster_file};
use crate::node_process::NodeProcess;
use crate::observe;
use crate::ports;

/// How many nodes.
pub(crate) const NODES: usize = 3;
/// Small, so that snapshots are cut and installed while it runs.
const SNAPSHOT_LOG_BYTES: u64 = 300_000;
/// How often a condition is looked at while waiting for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The nodes and what is between them. The nodes come first, so that they are gone before the links are.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: BTreeMap<u64, NodeProcess>,
    entries: Vec<NodeEntry>,
    dir: PathBuf,
    links: Links,
}

impl Cluster {
    /// Starts the nodes on free ports with their data in `dir` (absolute).
    pub(crate) async fn start(dir: &Path) -> Result<Self, Error> {
        let ports = ports::find_free(2 * NODES + NODES * (NODES - 1))?;
        let (of_nodes, of_links) = ports.split_at(2 * NODES);
        let entries = nodes_on_ports(of_nodes);
        let served = entries
            .iter()
            .map(|entry| Ok((entry.id, address_of(&entry.raft_addr)?)));
        let links = Links::open(&served.collect::<Result<Vec<_>, Error>>()?, of_links).await?;
        let cluster_id = new_cluster_id();
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            entries,
            dir: dir.to_owned(),
            links,
        };
        for id in cluster.ids() {
            let own_dir = cluster.dir_of(id);
            std::fs::create_dir_all(&own_dir)
                .map_err(Error::system(format!("create {}", own_dir.display())))?;
            let file = ClusterFile::new(&own_dir, cluster.as_seen_by(id), Some(SNAPSHOT_LOG_BYTES))?;
            write_cluster_file(&own_dir, &file, &cluster_id)?;
            cluster.start_node(id)?;
        }
        Ok(cluster)
    }

    /// The nodes as `id` is told of them.
    fn as_seen_by(&self, id: u64) -> Vec<NodeEntry> {
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            if let Some(address) = self.links.address(Link {
                from: id,
                to: entry.id,
            }) {
                entry.raft_addr = address.to_string();
            }
        }
        entries
    }

    fn dir_of(&self, id: u64) -> PathBuf {
        self.dir.join(format!("cluster-of-{id}"))
    }

    /// All ids.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.id).collect()
    }

    /// Where clients are served.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.entries
            .iter()
            .map(|entry| entry.client_addr.clone())
            .collect()
    }

    /// What is between the nodes.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// Starts node `id`, the first time or again. One that runs is left alone.
    pub(crate) fn start_node(&mut self, id: u64) -> Result<(), Error> {
        if self.nodes.get_mut(&id).is_none_or(|node| node.ended().is_some()) {
            self.nodes.insert(id, NodeProcess::spawn(&self.dir_of(id), id)?);
        }
        Ok(())
    }

    /// Ends node `id` with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.kill();
        }
    }

    /// Stops node `id` where it is (SIGSTOP).
    pub(crate) fn pause(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.pause();
        }
    }

    /// Lets node `id` go on (SIGCONT).
    pub(crate) fn resume(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.resume();
        }
    }

    /// A node that ended by itself, as the error that tells of it.
    pub(crate) fn ended_early(&mut self) -> Option<Error> {
        self.nodes.values_mut().find_map(|node| {
            let status = node.ended()?;
            Some(node.ended_early(status))
        })
    }

    /// The leader that a majority follows now, if there is one.
    pub(crate) async fn leader(&self) -> Option<u64> {
        let looks = self
            .entries
            .iter()
            .map(|entry| observe::status(&entry.client_addr));
        let statuses: Vec<_> = join_all(looks).await.into_iter().flatten().collect();
        Some(leader_among(&statuses, self.entries.len())?.id)
    }

    /// Waits until a majority follows a leader. A node that ends meanwhile is an error.
    pub(crate) async fn wait_for_leader(&mut self, limit: Duration) -> Result<u64, Error> {
        let began = Instant::now();
        while began.elapsed() < limit {
            if let Some(error) = self.ended_early() {
                return Err(error);
            }
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            sleep(LOOK_EVERY).await;
        }
        Err(Error::Late {
            waited: limit,
            what: "no leader is there that a majority follows".into(),
        })
    }

    /// Waits until all nodes hold the same. Nobody may write meanwhile. Whether they do.
    pub(crate) async fn wait_for_agreement(&self, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            let looks = self
                .entries
                .iter()
                .map(|entry| observe::contents(&entry.client_addr));
            let contents: Option<Vec<_>> = join_all(looks).await.into_iter().collect();
            if contents.is_some_and(|contents| contents.windows(2).all(|pair| pair[0] == pair[1])) {
                return true;
            }
            sleep(LOOK_EVERY).await;
        }
        false
    }
}

fn address_of(text: &str) -> Result<SocketAddr, Error> {
    text.parse().map_err(|_| Error::Usage {
        problem: format!("{text} is no address"),
        remedy: "use an IP address and a port".into(),
    })
}

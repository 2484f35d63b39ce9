//! Clusters of ours, to be measured.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::system::{NODES, START_LIMIT, ended_while_measured};
use crate::cluster_file::{ClusterFile, RaftSection, nodes_on_ports};
use crate::error::Error;
use crate::local::{LocalCluster, new_cluster_id, write_cluster_file};
use crate::ports;

/// How often a cluster is started, each time on other ports, while one of its nodes ends at once: another program may take a
/// port between the search for it and the node's start.
pub(crate) const START_ATTEMPTS: usize = 3;

/// A cluster in a temporary directory. The nodes come first, so that they are gone before the directory is.
#[derive(Debug)]
pub(crate) struct OurCluster {
    nodes: LocalCluster,
    dir: TempDir,
    cluster_id: String,
}

impl OurCluster {
    /// A fresh one with default settings, once it has a leader.
    pub(crate) async fn start(under: Option<&Path>) -> Result<Self, Error> {
        Self::start_of(under, NODES).await
    }

    /// A fresh one of so many nodes with default settings, once it has a leader.
    pub(crate) async fn start_of(under: Option<&Path>, nodes: u64) -> Result<Self, Error> {
        let all: Vec<u64> = (1..=nodes).collect();
        Self::start_some_of(under, nodes, &all, &RaftSection::default()).await
    }

    /// A fresh one whose leader answers reads while it holds a lease, once it has a leader.
    pub(crate) async fn start_with_leases(under: Option<&Path>) -> Result<Self, Error> {
        let all: Vec<u64> = (1..=NODES).collect();
        let raft = RaftSection {
            lease_reads: true,
            ..RaftSection::default()
        };
        Self::start_some_of(under, NODES, &all, &raft).await
    }

    /// A fresh one of which only these nodes run, once it has a leader; with this `snapshot_log_bytes`.
    pub(crate) async fn start_some(
        under: Option<&Path>,
        ids: &[u64],
        snapshot_log_bytes: Option<u64>,
    ) -> Result<Self, Error> {
        let raft = RaftSection {
            snapshot_log_bytes,
            ..RaftSection::default()
        };
        Self::start_some_of(under, NODES, ids, &raft).await
    }

    async fn start_some_of(
        under: Option<&Path>,
        nodes: u64,
        ids: &[u64],
        raft: &RaftSection,
    ) -> Result<Self, Error> {
        let mut attempts = 1;
        loop {
            let mut cluster = Self::spawn(under, nodes, ids, raft.clone())?;
            match cluster.nodes.wait_for_leader(START_LIMIT).await {
                Ok(_) => return Ok(cluster),
                Err(Error::NodeEnded { .. }) if attempts < START_ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn spawn(under: Option<&Path>, nodes: u64, ids: &[u64], raft: RaftSection) -> Result<Self, Error> {
        let (dir, path) = temporary_directory(under)?;
        let ports = ports::find_free(2 * usize::try_from(nodes).unwrap_or(usize::MAX))?;
        let file = ClusterFile::new(&path, nodes_on_ports(&ports), None)?;
        let file = ClusterFile { raft, ..file };
        let cluster_id = new_cluster_id();
        write_cluster_file(&path, &file, &cluster_id)?;
        let nodes = LocalCluster::start_some(&path, file, ids)?;
        Ok(Self {
            nodes,
            dir,
            cluster_id,
        })
    }

    /// Stops these nodes in order and starts them again with another `snapshot_log_bytes`.
    pub(crate) async fn restart(
        &mut self,
        ids: &[u64],
        snapshot_log_bytes: Option<u64>,
    ) -> Result<(), Error> {
        self.nodes.stop(START_LIMIT).await;
        let mut file = self.nodes.file().clone();
        file.raft.snapshot_log_bytes = snapshot_log_bytes;
        let path = canonical(&self.dir)?;
        write_cluster_file(&path, &file, &self.cluster_id)?;
        self.nodes = LocalCluster::start_some(&path, file, ids)?;
        self.nodes.wait_for_leader(START_LIMIT).await.map(drop)
    }

    /// Whether every node is up and follows one leader.
    pub(crate) async fn is_whole(&self) -> bool {
        let statuses = self.nodes.statuses().await;
        let leader = self.nodes.leader().await;
        let follows = |leader: u64| {
            statuses
                .iter()
                .all(|status| status.leader_id.map(|id| id.0) == Some(leader))
        };
        statuses.len() == self.nodes.ids().len() && leader.is_some_and(|leader| follows(leader.id))
    }

    /// An error if the process of a node that was started has ended.
    pub(crate) fn check_all_run(&mut self) -> Result<(), Error> {
        self.check_others_run(None)
    }

    /// The same, but for the node `gone`, which is to end.
    pub(crate) fn check_others_run(&mut self, gone: Option<u64>) -> Result<(), Error> {
        let ended = self.nodes.ended();
        let Some((id, status)) = ended.into_iter().find(|(id, _)| Some(*id) != gone) else {
            return Ok(());
        };
        let error = self.nodes.ended_early(id, status);
        Err(ended_while_measured("ours", error.to_string()))
    }

    pub(crate) fn nodes(&self) -> &LocalCluster {
        &self.nodes
    }

    pub(crate) fn nodes_mut(&mut self) -> &mut LocalCluster {
        &mut self.nodes
    }
}

/// A temporary directory for one cluster, and its absolute path.
pub(crate) fn temporary_directory(under: Option<&Path>) -> Result<(TempDir, PathBuf), Error> {
    let mut named = tempfile::Builder::new();
    let named = named.prefix("kv-bench-");
    let dir = match under {
        Some(under) => named.tempdir_in(under),
        None => named.tempdir(),
    };
    let dir = dir.map_err(Error::system("create a temporary directory"))?;
    let path = canonical(&dir)?;
    Ok((dir, path))
}

fn canonical(dir: &TempDir) -> Result<PathBuf, Error> {
    dir.path()
        .canonicalize()
        .map_err(Error::system("find the temporary directory"))
}

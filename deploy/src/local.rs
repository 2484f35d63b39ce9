//! A local cluster: one process a node, all on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::future::join_all;
use rpc::client::StatusReply;
use tokio::time::{Instant, sleep};

use crate::cluster_file::{ClusterFile, FILE_NAME};
use crate::error::Error;
use crate::node_process::{NodeProcess, check_configuration};
use crate::observe;

/// How often a condition is looked at while waiting for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The nodes of one cluster, by id. Dropping it kills those that run.
#[derive(Debug)]
pub(crate) struct LocalCluster {
    dir: PathBuf,
    file: ClusterFile,
    nodes: BTreeMap<u64, NodeProcess>,
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Its id.
    pub(crate) id: u64,
    /// Since which term.
    pub(crate) term: u64,
}

impl LocalCluster {
    /// Starts every node of `file`, which stands in `dir` (absolute). Does not wait for them to serve.
    ///
    /// When one cannot be started, those that were are ended.
    pub(crate) fn start(dir: &Path, file: ClusterFile) -> Result<Self, Error> {
        let ids: Vec<u64> = file.nodes.iter().map(|node| node.id).collect();
        Self::start_some(dir, file, &ids)
    }

    /// As [`Self::start`], but starts only the nodes of these ids.
    pub(crate) fn start_some(dir: &Path, file: ClusterFile, ids: &[u64]) -> Result<Self, Error> {
        // A node that refuses its configuration, or its environment, would only be found dead.
        check_configuration(dir, file.nodes[0].id)?;
        let mut cluster = Self {
            dir: dir.to_owned(),
            file,
            nodes: BTreeMap::new(),
        };
        for id in ids {
            cluster.start_node(*id)?;
        }
        Ok(cluster)
    }

    /// Starts node `id`, or starts it again; the old process, if there is one, is ended first.
    pub(crate) fn start_node(&mut self, id: u64) -> Result<(), Error> {
        self.nodes.remove(&id);
        self.nodes.insert(id, NodeProcess::spawn(&self.dir, id)?);
        Ok(())
    }

    /// The ids of all nodes, running or not.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.file.nodes.iter().map(|node| node.id).collect()
    }

    /// The configuration it runs with.
    pub(crate) fn file(&self) -> &ClusterFile {
        &self.file
    }

    /// The process of node `id`, if it was ever started.
    pub(crate) fn node(&self, id: u64) -> Option<&NodeProcess> {
        self.nodes.get(&id)
    }

    /// Ends node `id` with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.kill();
        }
    }

    /// Asks node `id` to stop in order. Does not wait.
    pub(crate) fn ask_to_stop(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.ask_to_stop();
        }
    }

    /// The nodes whose processes have ended, and how.
    pub(crate) fn ended(&mut self) -> Vec<(u64, ExitStatus)> {
        self.nodes
            .values_mut()
            .filter_map(|node| Some((node.id(), node.ended()?)))
            .collect()
    }

    /// Asks every node for its status, once; a node that does not answer soon is left out.
    pub(crate) async fn statuses(&self) -> Vec<StatusReply> {
        let answers = self
            .file
            .nodes
            .iter()
            .map(|node| observe::status(&node.client_addr));
        join_all(answers).await.into_iter().flatten().collect()
    }

    /// The leader that a majority follows now, if there is one.
    pub(crate) async fn leader(&self) -> Option<Leader> {
        leader_among(&self.statuses().await, self.file.nodes.len())
    }

    /// Waits until a majority follows a leader. A node that ends meanwhile is an error.
    pub(crate) async fn wait_for_leader(&mut self, limit: Duration) -> Result<Leader, Error> {
        let began = Instant::now();
        while began.elapsed() < limit {
            if let Some((id, status)) = self.ended().into_iter().next() {
                return Err(self.ended_early(id, status));
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

    /// The error for a node that ended when it should run, with the end of its log.
    pub(crate) fn ended_early(&self, id: u64, status: ExitStatus) -> Error {
        self.nodes[&id].ended_early(status)
    }

    /// Asks every node to stop in order and waits for them; those that still run after `limit` are killed,
    /// and their ids returned.
    pub(crate) async fn stop(&mut self, limit: Duration) -> Vec<u64> {
        let began = Instant::now();
        for node in self.nodes.values_mut() {
            node.ask_to_stop();
        }
        while self.ended().len() < self.nodes.len() && began.elapsed() < limit {
            sleep(LOOK_EVERY).await;
        }
        let mut late = Vec::new();
        for node in self.nodes.values_mut() {
            if node.ended().is_none() {
                node.kill();
                late.push(node.id());
            }
        }
        late
    }
}

/// Writes `file` to `dir` for a cluster of the name `cluster_id`.
pub(crate) fn write_cluster_file(dir: &Path, file: &ClusterFile, cluster_id: &str) -> Result<(), Error> {
    let path = dir.join(FILE_NAME);
    fs::write(&path, file.render(cluster_id)).map_err(Error::system(format!("write {}", path.display())))
}

/// A name that no other cluster has, so that nodes of different local clusters never mix.
pub(crate) fn new_cluster_id() -> String {
    format!("local-{:08x}", rand::random::<u32>())
}

/// The node that says it leads and that a majority of `nodes` says it follows, in one term.
pub(crate) fn leader_among(statuses: &[StatusReply], nodes: usize) -> Option<Leader> {
    let leaders = statuses
        .iter()
        .filter(|status| status.leader_id == Some(status.id));
    let leader = leaders.max_by_key(|status| status.term)?;
    let follows = |status: &&StatusReply| status.leader_id == Some(leader.id) && status.term == leader.term;
    let majority = statuses.iter().filter(follows).count() > nodes / 2;
    majority.then_some(Leader {
        id: leader.id.0,
        term: leader.term.0,
    })
}

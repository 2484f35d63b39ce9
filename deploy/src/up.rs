//! `deploy up`: a local cluster in the foreground.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::arguments::UpArguments;
use crate::cluster_file::{ClusterFile, FILE_NAME};
use crate::directory::Directory;
use crate::error::Error;
use crate::local::{LocalCluster, new_cluster_id, write_cluster_file};
use crate::node_process::check_configuration;
use crate::ports;
use crate::report::Reporter;
use crate::signals::StopSignals;

/// How often the nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long to wait for a leader before saying that there still is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the nodes may take to stop in order: twice what kv-server promises.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What happens to the cluster.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Cluster {
        dir: PathBuf,
        nodes: usize,
        is_new: bool,
    },
    NodeStarted {
        id: u64,
        pid: u32,
        raft_addr: String,
        client_addr: String,
        log: PathBuf,
    },
    Endpoints {
        endpoints: String,
    },
    NoLeaderYet {
        waited_s: u64,
    },
    Ready {
        leader_id: u64,
        term: u64,
        endpoints: String,
    },
    NodeEnded {
        id: u64,
        status: String,
        log: PathBuf,
        running: usize,
    },
    Stopping,
    Killed {
        id: u64,
    },
    Stopped,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster {
                dir,
                nodes,
                is_new: true,
            } => {
                write!(f, "a new cluster of {nodes} in {}", dir.display())
            }
            Self::Cluster {
                dir,
                nodes,
                is_new: false,
            } => {
                write!(f, "the cluster of {nodes} in {}, with its data", dir.display())
            }
            Self::NodeStarted {
                id,
                pid,
                raft_addr,
                client_addr,
                log,
            } => {
                let log = log.display();
                write!(
                    f,
                    "node {id}: pid {pid}, peers {raft_addr}, clients {client_addr}, log {log}"
                )
            }
            Self::Endpoints { endpoints } => write!(f, "endpoints: {endpoints}"),
            Self::NoLeaderYet { waited_s } => {
                write!(
                    f,
                    "no leader after {waited_s} s; the nodes' logs say why (still waiting)"
                )
            }
            Self::Ready {
                leader_id,
                term,
                endpoints,
            } => write!(
                f,
                "ready: node {leader_id} leads in term {term}\n\
                 try:   clerk --endpoints {endpoints} put greeting hello\n\
                 Ctrl-C stops all nodes"
            ),
            Self::NodeEnded {
                id,
                status,
                log,
                running,
            } => {
                write!(
                    f,
                    "node {id} ended ({status}), see {}; {running} left running",
                    log.display()
                )
            }
            Self::Stopping => write!(f, "stopping all nodes"),
            Self::Killed { id } => write!(f, "node {id} did not stop in time and was killed"),
            Self::Stopped => write!(f, "stopped"),
        }
    }
}

/// Starts the cluster and runs it until a signal to stop.
pub(crate) async fn run(arguments: &UpArguments, reporter: Reporter) -> Result<(), Error> {
    let mut signals = StopSignals::listen()?;
    let directory = Directory::open(arguments, try_out)?;
    let file = directory.file();
    check_configuration(directory.path(), file.nodes[0].id)
        .and_then(|()| ports::check_free(&file.nodes))
        .inspect_err(|_| directory.discard_if_new())?;
    let mut cluster = LocalCluster::start(directory.path(), file.clone())?;
    tell_start(&cluster, &directory, reporter);
    let watched = tokio::select! {
        never = watch(&mut cluster, reporter) => never.map(|never| match never {}),
        () = signals.next() => Ok(()),
    };
    reporter.tell(&Event::Stopping);
    tokio::select! {
        late = cluster.stop(STOP_LIMIT) => late.into_iter().for_each(|id| reporter.tell(&Event::Killed { id })),
        // The second signal: dropping the cluster kills its nodes at once.
        () = signals.next() => {}
    }
    drop(cluster);
    reporter.tell(&Event::Stopped);
    watched
}

/// Whether a cluster of this configuration can be expected to start in `path`. Writes nothing there.
fn try_out(file: &ClusterFile, path: &Path) -> Result<(), Error> {
    ports::check_free(&file.nodes)?;
    let trial = tempfile::tempdir().map_err(Error::system("create a temporary directory"))?;
    write_cluster_file(trial.path(), file, &new_cluster_id())?;
    check_configuration(trial.path(), file.nodes[0].id).map_err(|error| match error {
        Error::Configuration { refusal, .. } => Error::Configuration {
            path: path.join(FILE_NAME),
            refusal,
        },
        other => other,
    })
}

fn tell_start(cluster: &LocalCluster, directory: &Directory, reporter: Reporter) {
    let dir = directory.path().to_owned();
    let nodes = cluster.ids().len();
    reporter.tell(&Event::Cluster {
        dir,
        nodes,
        is_new: directory.is_new(),
    });
    for entry in &cluster.file().nodes {
        let Some(node) = cluster.node(entry.id) else {
            continue;
        };
        reporter.tell(&Event::NodeStarted {
            id: entry.id,
            pid: node.pid(),
            raft_addr: entry.raft_addr.clone(),
            client_addr: entry.client_addr.clone(),
            log: node.log().to_owned(),
        });
    }
    reporter.tell(&Event::Endpoints {
        endpoints: cluster.file().endpoints(),
    });
}

/// Tells what happens to the nodes, for ever; an error if all of them end before there was a leader.
async fn watch(cluster: &mut LocalCluster, reporter: Reporter) -> Result<Infallible, Error> {
    let mut told = BTreeSet::new();
    tell_leader(cluster, &mut told, reporter).await?;
    loop {
        tell_ended(cluster, &mut told, reporter);
        sleep(LOOK_EVERY).await;
    }
}

async fn tell_leader(
    cluster: &mut LocalCluster,
    told: &mut BTreeSet<u64>,
    reporter: Reporter,
) -> Result<(), Error> {
    let mut began = Instant::now();
    let mut waited_s = 0;
    loop {
        tell_ended(cluster, told, reporter);
        if told.len() == cluster.ids().len()
            && let Some((id, status)) = cluster.ended().into_iter().next()
        {
            return Err(cluster.ended_early(id, status));
        }
        if let Some(leader) = cluster.leader().await {
            let endpoints = cluster.file().endpoints();
            reporter.tell(&Event::Ready {
                leader_id: leader.id,
                term: leader.term,
                endpoints,
            });
            return Ok(());
        }
        if began.elapsed() >= PATIENCE {
            waited_s += PATIENCE.as_secs();
            reporter.tell(&Event::NoLeaderYet { waited_s });
            began = Instant::now();
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Tells of the nodes that have ended since the last time.
fn tell_ended(cluster: &mut LocalCluster, told: &mut BTreeSet<u64>, reporter: Reporter) {
    for (id, status) in cluster.ended() {
        if told.insert(id) {
            let running = cluster.ids().len() - told.len();
            let log = cluster
                .node(id)
                .map(|node| node.log().to_owned())
                .unwrap_or_default();
            reporter.tell(&Event::NodeEnded {
                id,
                status: status.to_string(),
                log,
                running,
            });
        }
    }
}

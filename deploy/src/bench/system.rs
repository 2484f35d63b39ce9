//! The stores that are measured, and clusters of them.

use std::path::Path;
use std::time::Duration;

use clerk::load::{Call, ClerkTarget, Target, connections};
use clerk::{Clerk, Consistency};
use thiserror::Error;

use super::echo::EchoServer;
#[cfg(feature = "etcd")]
use super::etcd::{self, Etcd, EtcdCluster, EtcdTarget};
use super::ours::OurCluster;
use super::usage::{self, Usage};
use super::workload::{Calls, Workload};
use crate::error::Error;
use crate::node_process::NodeProcess;
use crate::observe;

/// How many nodes a cluster has.
pub(crate) const NODES: u64 = 3;
/// How long one call may take, retries and all.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long a fresh cluster may take to serve.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(30);

/// A store that can be measured on this machine.
#[derive(Clone, Debug)]
pub(crate) enum System {
    Ours,
    Echo,
    #[cfg(feature = "etcd")]
    Etcd(Etcd),
}

impl System {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Echo => "echo",
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => "etcd",
        }
    }

    pub(crate) fn version(&self) -> String {
        match self {
            Self::Ours | Self::Echo => env!("CARGO_PKG_VERSION").to_owned(),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => etcd.version().to_owned(),
        }
    }

    /// Starts a fresh cluster with default settings and waits until it serves. Its data is in a temporary
    /// directory of its own, under `dir` or where the system has such.
    pub(crate) async fn start(&self, dir: Option<&Path>) -> Result<Cluster, Error> {
        Ok(match self {
            Self::Ours => Cluster::Ours(OurCluster::start(dir).await?),
            Self::Echo => Cluster::Echo(EchoServer::start(0)?),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => Cluster::Etcd(EtcdCluster::start(etcd, dir).await?),
        })
    }

    /// As [`Self::start`], with the one setting that a workload may need.
    pub(crate) async fn start_for(&self, dir: Option<&Path>, workload: Workload) -> Result<Cluster, Error> {
        match self {
            Self::Ours if workload.calls == Calls::Lease => {
                Ok(Cluster::Ours(OurCluster::start_with_leases(dir).await?))
            }
            Self::Echo => Ok(Cluster::Echo(EchoServer::start(workload.value_bytes)?)),
            _ => self.start(dir).await,
        }
    }
}

/// In which order so many systems take their turns in a round, which counts from 1: there, and back in the next.
pub(crate) fn turns(systems: usize, round: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..systems).collect();
    if round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// A running cluster. Dropping it ends its processes and removes its data.
#[derive(Debug)]
pub(crate) enum Cluster {
    Ours(OurCluster),
    /// One process, which is no cluster. It is not measured where nodes are killed, stopped or started again.
    Echo(EchoServer),
    #[cfg(feature = "etcd")]
    Etcd(EtcdCluster),
}

impl Cluster {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) => "ours",
            Self::Echo(_) => "echo",
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => "etcd",
        }
    }

    /// An error if a node's process has ended: what is measured then says nothing.
    pub(crate) fn check_all_run(&mut self) -> Result<(), Error> {
        self.check_others_run(None)
    }

    /// The same, but for the node `gone`, which is to end.
    pub(crate) fn check_others_run(&mut self, gone: Option<u64>) -> Result<(), Error> {
        match self {
            Self::Ours(ours) => ours.check_others_run(gone),
            Self::Echo(echo) => echo.check_runs(),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => etcd.check_others_run(gone),
        }
    }

    /// What each node has used so far, if that is known.
    pub(crate) fn usage(&self) -> Vec<(u64, Option<Usage>)> {
        let of = |id| {
            let pid = match self {
                Self::Ours(ours) => ours.nodes().node(id).map(NodeProcess::pid),
                Self::Echo(echo) => Some(echo.pid()),
                #[cfg(feature = "etcd")]
                Self::Etcd(etcd) => etcd.pid(id),
            };
            (id, pid.and_then(usage::of))
        };
        let ids = match self {
            Self::Ours(ours) => ours.nodes().ids(),
            Self::Echo(_) => vec![1],
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => (1..=NODES).collect(),
        };
        ids.into_iter().map(of).collect()
    }

    /// Connections for so many clients, who call the leader.
    pub(crate) async fn targets(&self, clients: u32) -> Result<Vec<AnyTarget>, Error> {
        let connections = connections(clients, None);
        match self {
            Self::Ours(ours) => our_targets(ours, clients, connections),
            Self::Echo(echo) => {
                clerk_targets([echo.address()], clients, connections, Consistency::Linearizable)
            }
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => {
                let endpoints = etcd.leader_endpoint().await.into_iter().collect();
                etcd_targets(endpoints, connections).await
            }
        }
    }

    /// Connections for so many clients, who call whoever lives.
    pub(crate) async fn roaming_targets(&self, clients: u32) -> Result<Vec<AnyTarget>, Error> {
        match self {
            // A clerk finds the leader again by itself.
            Self::Ours(_) | Self::Echo(_) => self.targets(clients).await,
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => etcd_targets(etcd.endpoints(), connections(clients, None)).await,
        }
    }

    /// Where each node serves clients.
    pub(crate) fn addresses(&self) -> Vec<NodeAddress> {
        match self {
            Self::Ours(ours) => {
                let nodes = ours.nodes().file().nodes.iter();
                nodes
                    .map(|node| NodeAddress::Ours(node.client_addr.clone()))
                    .collect()
            }
            Self::Echo(echo) => vec![NodeAddress::Ours(echo.address().to_owned())],
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => etcd.endpoints().into_iter().map(NodeAddress::Etcd).collect(),
        }
    }

    /// Who leads now, by the word of a majority.
    pub(crate) async fn leader(&self) -> Option<u64> {
        match self {
            Self::Ours(ours) => ours.nodes().leader().await.map(|leader| leader.id),
            Self::Echo(_) => Some(1),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => etcd.leader().await,
        }
    }

    /// Whether every node is up and follows one leader.
    pub(crate) async fn is_whole(&self) -> bool {
        match self {
            Self::Ours(ours) => ours.is_whole().await,
            Self::Echo(_) => true,
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => etcd.is_whole().await,
        }
    }

    /// Ends a node with SIGKILL.
    pub(crate) fn kill(&mut self, id: u64) {
        match self {
            Self::Ours(ours) => ours.nodes_mut().kill(id),
            Self::Echo(echo) => echo.kill(),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => etcd.kill(id),
        }
    }

    /// Asks a node to stop in order (SIGTERM). Does not wait.
    pub(crate) fn ask_to_stop(&mut self, id: u64) {
        match self {
            Self::Ours(ours) => ours.nodes_mut().ask_to_stop(id),
            Self::Echo(echo) => echo.kill(),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => etcd.ask_to_stop(id),
        }
    }

    /// Starts a node again, on the data it had; what is left of the old process is ended first.
    pub(crate) fn start_node(&mut self, id: u64) -> Result<(), Error> {
        match self {
            Self::Ours(ours) => ours.nodes_mut().start_node(id),
            Self::Echo(_) => Err(Error::Bench {
                system: "echo",
                problem: "it is not started again".into(),
            }),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => etcd.start_node(id),
        }
    }
}

/// Where one node serves clients.
#[derive(Clone, Debug)]
pub(crate) enum NodeAddress {
    Ours(String),
    #[cfg(feature = "etcd")]
    Etcd(String),
}

impl NodeAddress {
    /// Whether the node answers a linearizable read of `key`, on a connection of its own, with `value`; `None` if it
    /// does not answer.
    pub(crate) async fn holds(&self, key: &str, value: &[u8]) -> Option<bool> {
        match self {
            Self::Ours(address) => observe::holds(address, key, value).await,
            #[cfg(feature = "etcd")]
            Self::Etcd(endpoint) => etcd::holds(endpoint, key, value).await,
        }
    }
}

/// Connections to a cluster of ours, whose clients read by the leader's lease if it takes one.
pub(crate) fn our_targets(
    ours: &OurCluster,
    clients: u32,
    connections: u32,
) -> Result<Vec<AnyTarget>, Error> {
    let endpoints = ours.nodes().file().nodes.iter().map(|node| &node.client_addr);
    let consistency = if ours.nodes().file().raft.lease_reads {
        Consistency::Lease
    } else {
        Consistency::Linearizable
    };
    clerk_targets(endpoints, clients, connections, consistency)
}

fn clerk_targets(
    endpoints: impl IntoIterator<Item = impl AsRef<str>>,
    clients: u32,
    connections: u32,
    consistency: Consistency,
) -> Result<Vec<AnyTarget>, Error> {
    let settings = Clerk::builder().endpoints(endpoints).timeout(CALL_LIMIT);
    let targets = ClerkTarget::connect(&settings, clients, connections);
    let targets = targets.map_err(|source| Error::Clerk {
        action: "cannot make the clients".into(),
        source,
    })?;
    let targets = targets.into_iter().map(|target| target.reading(consistency));
    Ok(targets.map(AnyTarget::Ours).collect())
}

#[cfg(feature = "etcd")]
async fn etcd_targets(endpoints: Vec<String>, connections: u32) -> Result<Vec<AnyTarget>, Error> {
    let mut targets = Vec::new();
    for _ in 0..connections {
        let target = EtcdTarget::connect(&endpoints).await?;
        targets.push(AnyTarget::Etcd(Box::new(target)));
    }
    Ok(targets)
}

/// The error for a node of `system` that ended, or was gone, while it was measured.
pub(crate) fn ended_while_measured(system: &'static str, problem: String) -> Error {
    Error::EndedWhileMeasured(Box::new(Error::Bench { system, problem }))
}

/// One connection to a cluster.
#[derive(Clone, Debug)]
pub(crate) enum AnyTarget {
    Ours(ClerkTarget),
    #[cfg(feature = "etcd")]
    // Boxed: it is far larger than a clerk.
    Etcd(Box<EtcdTarget>),
}

/// Why a call did not succeed, in the words of the client that made it.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
pub(crate) struct CallError(pub(crate) String);

impl Target for AnyTarget {
    type Error = CallError;

    async fn call(&self, call: Call) -> Result<(), CallError> {
        match self {
            Self::Ours(clerk) => clerk
                .call(call)
                .await
                .map_err(|error| CallError(error.to_string())),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => etcd.call(call).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_systems_changes_from_round_to_round() {
        assert_eq!([1, 2, 3].map(|round| turns(2, round)), [[0, 1], [1, 0], [0, 1]]);
    }
}

//! What each server says of itself.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use raft_core::NodeId;
use rpc::client::StatusReply;
use tokio::time::{Instant, timeout};

use crate::cluster::Cluster;
use crate::directory::Address;
use crate::lock::lock;
use crate::outcome::{Error, Reason};
use crate::retry::whole_milliseconds;

/// One server as [`Clerk::status`](crate::Clerk::status) found it.
///
/// ```no_run
/// # async fn example(clerk: clerk::Clerk) {
/// for node in clerk.status().await {
///     match node.status {
///         Ok(status) => println!("{}: {}, term {}", node.endpoint, status.role, status.term),
///         Err(error) => println!("{}: {error}", node.endpoint),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Where it was asked, as `host:port`.
    pub endpoint: String,
    /// Its identity, if it or another server has told.
    pub id: Option<NodeId>,
    /// Its answer, or why there is none.
    pub status: Result<StatusReply, Error>,
}

/// Answers may name servers that were not known; so many times the new ones are asked in turn.
const ROUNDS: usize = 3;

/// Asks every server known, and those that the answers name, side by side within `limit`.
pub(crate) async fn of_all(cluster: &Cluster, limit: Duration) -> Vec<NodeStatus> {
    let mut asked = HashSet::new();
    let mut found: Vec<NodeStatus> = Vec::new();
    for _ in 0..ROUNDS {
        let servers = lock(&cluster.directory).servers();
        let new: Vec<_> = servers
            .into_iter()
            .filter(|(address, _)| asked.insert(address.clone()))
            .collect();
        if new.is_empty() {
            break;
        }
        found.extend(
            join_all(
                new.into_iter()
                    .map(|(address, _)| of_one(cluster, address, limit)),
            )
            .await,
        );
    }
    fill_in_ids(cluster, &mut found);
    found.sort_by_key(|node| (node.id.is_none(), node.id, node.status.is_err()));
    // One server under two addresses is told once, by the address that works.
    found.dedup_by(|later, first| later.id.is_some() && later.id == first.id);
    found
}

async fn of_one(cluster: &Cluster, address: Address, limit: Duration) -> NodeStatus {
    // Time to connect, and time to answer.
    let patience = cluster
        .connections
        .connect_timeout()
        .saturating_add(cluster.policy.try_timeout);
    let limit = limit.min(patience);
    let endpoint = address.to_string();
    let began = Instant::now();
    let asking = async {
        let link = cluster.connections.to(&address).await?;
        match link.client().status(rpc::context(limit)).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(Reason::Refused {
                endpoint: endpoint.clone(),
                error,
            }),
            Err(error) => Err(Reason::ConnectionLost {
                endpoint: endpoint.clone(),
                problem: error.to_string(),
            }),
        }
    };
    let silent = Reason::Silent {
        endpoint: endpoint.clone(),
        waited: limit,
    };
    let status = timeout(limit, asking).await.unwrap_or(Err(silent));
    if let Ok(status) = &status {
        cluster.connections.learn(status);
    }
    let status = status.map_err(|reason| Error::NotDone {
        after: whole_milliseconds(began.elapsed()),
        reason,
    });
    NodeStatus {
        endpoint,
        id: status.as_ref().ok().map(|status| status.id),
        status,
    }
}

/// The id of a server that did not answer may be known from the others.
fn fill_in_ids(cluster: &Cluster, found: &mut [NodeStatus]) {
    let servers = lock(&cluster.directory).servers();
    for node in found.iter_mut().filter(|node| node.id.is_none()) {
        let known = servers.iter().find(|(address, _)| **address == *node.endpoint);
        node.id = known.and_then(|(_, id)| *id);
    }
}

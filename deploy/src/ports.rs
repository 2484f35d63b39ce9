//! Which TCP ports a local cluster can have.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use crate::cluster_file::NodeEntry;
use crate::error::Error;

/// Where free ports are looked for: below what Linux hands to outgoing connections (from 32768 on), so
/// that no connection can sit on a node's port while the node is down.
const FREE_PORTS: Range<u16> = 20_000..30_000;

/// How often a random port is tried before the search is given up.
const ATTEMPTS: usize = 1_000;

/// Finds `count` different ports of 127.0.0.1 that are free now.
///
/// Nothing keeps them free: if another program takes one before its node listens, the node refuses to start.
pub(crate) fn find_free(count: usize) -> Result<Vec<u16>, Error> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..ATTEMPTS {
        if held.len() == count {
            break;
        }
        let port = rand::random_range(FREE_PORTS);
        // Holding the listener until all are found keeps a port from being found twice.
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|listener| (port, listener)));
    }
    if held.len() < count {
        return Err(Error::Late {
            waited: std::time::Duration::ZERO,
            what: format!(
                "{ATTEMPTS} ports of 127.0.0.1 in {FREE_PORTS:?} were tried, and too few were free"
            ),
        });
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

/// Checks that every port of the cluster can be listened on now.
pub(crate) fn check_free(nodes: &[NodeEntry]) -> Result<(), Error> {
    for node in nodes {
        for (purpose, address) in [("peer port", &node.raft_addr), ("client port", &node.client_addr)] {
            TcpListener::bind(address).map_err(|source| Error::Port {
                address: address.clone(),
                purpose,
                node: node.id,
                source,
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn free_ports_are_all_different() {
        let ports = find_free(20).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 20);
    }

    #[test]
    fn a_port_in_use_is_told_with_its_node_and_purpose() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let node = NodeEntry {
            id: 2,
            raft_addr: free.to_string(),
            client_addr: taken.local_addr().unwrap().to_string(),
        };
        let message = check_free(&[node]).unwrap_err().to_string();
        assert!(message.contains("client port of node 2"), "{message}");
        assert!(
            message.contains(&taken.local_addr().unwrap().to_string()),
            "{message}"
        );
    }
}

//! `cluster.toml` as `deploy` writes and reads it.
//!
//! `kv-server` alone judges whether a configuration can work. Here only what is needed to start the nodes
//! and to find them is read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;

/// The name of the file in a cluster's directory.
pub(crate) const FILE_NAME: &str = "cluster.toml";

/// The first line of every file that `deploy` writes: it shows whose directory it is.
pub(crate) const MARK: &str = "# Written by `deploy`.";

/// One node, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct NodeEntry {
    /// Its identity.
    pub(crate) id: u64,
    /// Where it serves its peers, as `host:port`.
    pub(crate) raft_addr: String,
    /// Where it serves clients, as `host:port`.
    pub(crate) client_addr: String,
}

impl NodeEntry {
    fn on_ports(id: u64, raft_port: u16, client_port: u16) -> Self {
        let at = |port: u16| format!("127.0.0.1:{port}");
        Self {
            id,
            raft_addr: at(raft_port),
            client_addr: at(client_port),
        }
    }
}

/// What `deploy` needs to know of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ClusterFile {
    /// Where the nodes keep their data; `{id}` stands for the node's id.
    pub(crate) data_dir: String,
    /// `[raft]`.
    #[serde(default)]
    pub(crate) raft: RaftSection,
    /// The nodes.
    #[serde(rename = "node")]
    pub(crate) nodes: Vec<NodeEntry>,
}

/// The part of `[raft]` that `deploy` has an option for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct RaftSection {
    /// Absent: kv-server's default.
    pub(crate) snapshot_log_bytes: Option<u64>,
    /// Whether the leader may answer reads while it holds a lease.
    #[serde(default)]
    pub(crate) lease_reads: bool,
}

impl ClusterFile {
    /// A cluster in `dir`, which must be absolute so that a node finds its data wherever it is started from.
    pub(crate) fn new(
        dir: &Path,
        nodes: Vec<NodeEntry>,
        snapshot_log_bytes: Option<u64>,
    ) -> Result<Self, Error> {
        let dir = dir.to_str().ok_or_else(|| Error::Usage {
            problem: format!("the path {} is not UTF-8", dir.display()),
            remedy: "a configuration file cannot hold it: choose another --dir".into(),
        })?;
        let data_dir = format!("{dir}/node-{{id}}/data");
        Ok(Self {
            data_dir,
            raft: RaftSection {
                snapshot_log_bytes,
                lease_reads: false,
            },
            nodes,
        })
    }

    /// Reads what `text`, the contents of `path`, says.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let refused = |refusal: String| Error::Configuration {
            path: path.to_owned(),
            refusal,
        };
        let file: Self = toml::from_str(text).map_err(|error| refused(error.to_string()))?;
        if file.nodes.is_empty() {
            return Err(refused("it has no [[node]]: add one for each node".into()));
        }
        let ids: BTreeSet<u64> = file.nodes.iter().map(|node| node.id).collect();
        if ids.len() < file.nodes.len() {
            return Err(refused("two [[node]] have the same id: give each its own".into()));
        }
        Ok(file)
    }

    /// The file's text.
    pub(crate) fn render(&self, cluster_id: &str) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut text = format!(
            "{MARK} Edit it as you like: it is read again at each start.\n\
             cluster_id = {}\ndata_dir = {}  # {{id}} is replaced\n\n[raft]\n\
             # heartbeat_interval_ms = 50\n# election_timeout_ms = [300, 600]\n",
            quoted(cluster_id),
            quoted(&self.data_dir),
        );
        text.push_str(&match self.raft.snapshot_log_bytes {
            Some(bytes) => format!("snapshot_log_bytes = {bytes}\n"),
            None => "# snapshot_log_bytes = 67108864\n".into(),
        });
        if self.raft.lease_reads {
            text.push_str("lease_reads = true\n");
        }
        for node in &self.nodes {
            text.push_str(&format!(
                "\n[[node]]\nid = {}\nraft_addr = \"{}\"    # peers\nclient_addr = \"{}\"  # clients\n",
                node.id, node.raft_addr, node.client_addr
            ));
        }
        text
    }

    /// Where node `id` keeps its data.
    pub(crate) fn data_dir_of(&self, id: u64) -> PathBuf {
        PathBuf::from(self.data_dir.replace("{id}", &id.to_string()))
    }

    /// The addresses clients use, in the form `clerk --endpoints` takes.
    pub(crate) fn endpoints(&self) -> String {
        let endpoints: Vec<&str> = self.nodes.iter().map(|node| node.client_addr.as_str()).collect();
        endpoints.join(",")
    }
}

/// `count` nodes on 127.0.0.1 from `base_port` up: node `i` serves peers on `base + 10(i-1) + 1` and clients on
/// `base + 10(i-1) + 2`.
pub(crate) fn nodes_from_base_port(count: u16, base_port: u16) -> Result<Vec<NodeEntry>, Error> {
    let node = |index: u16| {
        let first = base_port.checked_add(index.checked_mul(10)?)?;
        Some(NodeEntry::on_ports(
            u64::from(index) + 1,
            first.checked_add(1)?,
            first.checked_add(2)?,
        ))
    };
    (0..count)
        .map(node)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Error::Usage {
            problem: format!("--base-port {base_port} leaves no room for {count} nodes below port 65536"),
            remedy: "choose a lower one: each node takes ten ports".into(),
        })
}

/// One node for each pair of `ports`, on 127.0.0.1.
pub(crate) fn nodes_on_ports(ports: &[u16]) -> Vec<NodeEntry> {
    (1..)
        .zip(ports.chunks_exact(2))
        .map(|(id, pair)| NodeEntry::on_ports(id, pair[0], pair[1]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for snapshot_log_bytes in [None, Some(12_345)] {
            let nodes = nodes_from_base_port(3, 7100).unwrap();
            let file =
                ClusterFile::new(Path::new("/tmp/a \"strange\" dir"), nodes, snapshot_log_bytes).unwrap();
            let text = file.render("local");
            assert!(text.starts_with(MARK));
            assert_eq!(ClusterFile::parse(&text, Path::new("x")).unwrap(), file);
        }
    }

    #[test]
    fn node_i_has_the_ports_base_plus_ten_times_i_minus_one_plus_one_and_two() {
        let nodes = nodes_from_base_port(3, 7100).unwrap();
        let expected = [(1, 7101, 7102), (2, 7111, 7112), (3, 7121, 7122)];
        assert_eq!(
            nodes,
            expected.map(|(id, raft, client)| NodeEntry::on_ports(id, raft, client))
        );
    }

    #[test]
    fn ports_beyond_65535_are_refused() {
        assert!(nodes_from_base_port(3, 65_513).is_ok());
        assert!(nodes_from_base_port(3, 65_514).is_err());
        assert!(nodes_from_base_port(1, 65_535).is_err());
    }

    #[test]
    fn a_file_without_nodes_and_one_with_an_id_twice_are_refused() {
        let none = ClusterFile::parse("data_dir = \"d\"\nnode = []\n", Path::new("x"));
        assert!(none.unwrap_err().to_string().contains("no [[node]]"));
        let node = "[[node]]\nid = 1\nraft_addr = \"127.0.0.1:1\"\nclient_addr = \"127.0.0.1:2\"\n";
        let twice = ClusterFile::parse(&format!("data_dir = \"d\"\n{node}{node}"), Path::new("x"));
        assert!(twice.unwrap_err().to_string().contains("same id"));
    }

    #[test]
    fn each_node_has_its_own_data_directory() {
        let file = ClusterFile::new(Path::new("/d"), nodes_on_ports(&[1, 2, 3, 4]), None).unwrap();
        assert_eq!(file.data_dir_of(1), Path::new("/d/node-1/data"));
        assert_eq!(file.data_dir_of(2), Path::new("/d/node-2/data"));
        assert_eq!(file.endpoints(), "127.0.0.1:2,127.0.0.1:4");
    }
}

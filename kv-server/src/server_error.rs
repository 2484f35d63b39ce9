//! Why a server did not start, or had to stop.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use raft_core::{ConfigError, NodeId};
use storage::StorageError;
use thiserror::Error;

use crate::apply_loop::SnapshotError;
use crate::exit;
use crate::shutdown::Fatal;

/// Why a server did not start, or had to stop.
#[derive(Debug, Error)]
pub(crate) enum ServerError {
    /// A port cannot be listened on.
    #[error("cannot listen on {addr} ({name}): {source}\n{}", bind_advice(source))]
    Bind {
        /// The setting.
        name: &'static str,
        /// The address.
        addr: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The snapshot in the data directory cannot be loaded.
    #[error(
        "the snapshot file {} cannot be used: {source}. The log that it replaced is gone, and with it what this \
         node knows. Check the disk; put an intact copy of the file back, or empty the data directory and start the \
         node with --join",
        path.display()
    )]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SnapshotError,
    },
    /// The cluster's name cannot be sent to others.
    #[error("cluster_id: {0}")]
    ClusterId(#[from] rpc::hello::HelloError),
    /// The stored state does not make a node.
    #[error("the data directory does not hold a usable node: {0}")]
    Core(#[from] ConfigError),
    /// The configuration file lists other nodes than the cluster was made with.
    #[error(
        "the configuration file lists nodes {}, but this cluster consists of nodes {}\n\
         the members of a cluster are fixed: list the same ids as when it was first started",
        list(configured),
        list(stored)
    )]
    MembersDiffer {
        /// What the log says.
        stored: BTreeSet<NodeId>,
        /// What the file says.
        configured: BTreeSet<NodeId>,
    },
    /// The signal handlers could not be installed.
    #[error("cannot listen for SIGTERM and SIGINT: {0}")]
    Signals(io::Error),
    /// It ran, and cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl ServerError {
    /// The exit status that tells this.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Fatal(Fatal::Refused(_)) => exit::UNUSABLE,
            Self::Fatal(_) | Self::Signals(_) => exit::FAILED,
            Self::Storage(error) if error.is_of_the_disk() => exit::FAILED,
            _ => exit::UNUSABLE,
        }
    }

    /// The message for whoever started the node: where it ends in the advice to join, with the very command, `join`.
    #[must_use]
    pub(crate) fn told_to_starter(&self, join: &str) -> String {
        if self.leaves_joining() {
            format!("{self}:\n  {join}")
        } else {
            self.to_string()
        }
    }

    fn leaves_joining(&self) -> bool {
        match self {
            Self::Storage(error) | Self::Fatal(Fatal::Storage(error)) => error.leaves_joining(),
            Self::Fatal(Fatal::FilesLost(lost)) => lost.leaves_joining(),
            Self::Snapshot { .. } | Self::Fatal(Fatal::SnapshotRemoved(_)) => true,
            _ => false,
        }
    }
}

fn bind_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has the port: stop it, or change the address in the configuration file"
        }
        io::ErrorKind::AddrNotAvailable => {
            "the address is not one of this machine's: check --id and the configuration file"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose a higher one",
        _ => "check the address in the configuration file",
    }
}

fn list(ids: &BTreeSet<NodeId>) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

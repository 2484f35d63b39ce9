//! What is told before anything is measured.

use std::fmt;
use std::thread::available_parallelism;

use serde::Serialize;

use super::system::{NODES, System};

/// What is measured, and where.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "start")]
pub(crate) struct Start {
    systems: Vec<Contestant>,
    /// Why the peer that was asked for does not take part.
    peer_missing: Option<String>,
    nodes: u64,
    cpus: usize,
    /// Whether the data is in memory.
    in_memory: bool,
}

#[derive(Debug, Serialize)]
struct Contestant {
    name: &'static str,
    version: String,
}

impl Start {
    pub(crate) fn new(systems: &[System], peer_missing: Option<String>, in_memory: bool) -> Self {
        let contestant = |system: &System| Contestant {
            name: system.name(),
            version: system.version(),
        };
        Self {
            systems: systems.iter().map(contestant).collect(),
            peer_missing,
            nodes: NODES,
            cpus: available_parallelism().map_or(1, usize::from),
            in_memory,
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(missing) = &self.peer_missing {
            writeln!(f, "measuring ours alone: {missing}")?;
        }
        if self.in_memory {
            writeln!(
                f,
                "the data is on a file system in memory, where no number means anything: choose another --dir"
            )?;
        }
        if self.systems.iter().any(|system| system.name == "echo") {
            writeln!(f, "echo is one process, which answers every call at once")?;
        }
        let name = |system: &Contestant| format!("{} {}", system.name, system.version);
        let systems: Vec<String> = self.systems.iter().map(name).collect();
        write!(
            f,
            "{}: clusters of {} nodes, the nodes and the clients on one machine with {} CPUs",
            systems.join(" and "),
            self.nodes,
            self.cpus
        )
    }
}

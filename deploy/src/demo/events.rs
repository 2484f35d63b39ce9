//! What the demo tells.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One thing that happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    Start {
        nodes: usize,
        dir: PathBuf,
    },
    StartAgain {
        id: u64,
        status: String,
    },
    NodeStarted {
        id: u64,
        pid: u32,
        endpoint: String,
        again: bool,
    },
    Leader {
        id: u64,
        term: u64,
        after_ms: u64,
    },
    Clients {
        clients: u32,
        lists: usize,
    },
    Written {
        acknowledged: usize,
    },
    Killed {
        id: u64,
        pid: u32,
    },
    Failover {
        id: u64,
        term: u64,
        failover_ms: u64,
    },
    ClientsDone {
        acknowledged: usize,
        unknown: usize,
        not_done: usize,
    },
    Agreement {
        applied_index: u64,
        keys: usize,
    },
    Disagreement {
        waited_s: u64,
        difference: String,
    },
    FlawReadBack {
        what: String,
    },
    Flaw {
        what: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { nodes, dir } => {
                write!(f, "starting {nodes} kv-server processes in {}", dir.display())
            }
            Self::StartAgain { id, status } => {
                write!(
                    f,
                    "node {id} ended at once ({status}): starting again on other ports"
                )
            }
            Self::NodeStarted {
                id,
                pid,
                endpoint,
                again,
            } => {
                let again = if *again { " again, on the data it had" } else { "" };
                write!(f, "  node {id} started{again}: pid {pid}, clients {endpoint}")
            }
            Self::Leader { id, term, after_ms } => {
                write!(
                    f,
                    "node {id} was elected leader in term {term}, after {after_ms} ms"
                )
            }
            Self::Clients { clients, lists } => write!(
                f,
                "{clients} clients put to {clients} keys and append to {lists} lists, and read each write back"
            ),
            Self::Written { acknowledged } => write!(f, "  {acknowledged:>6} writes acknowledged"),
            Self::Killed { id, pid } => write!(f, "SIGKILL to the leader: node {id} (pid {pid}) is dead"),
            Self::Failover {
                id,
                term,
                failover_ms,
            } => {
                write!(
                    f,
                    "node {id} leads in term {term}; no write was acknowledged for {failover_ms} ms"
                )
            }
            Self::ClientsDone {
                acknowledged,
                unknown,
                not_done,
            } => write!(
                f,
                "the clients stop: {acknowledged} writes acknowledged, {unknown} of unknown outcome, {not_done} not done"
            ),
            Self::Agreement { applied_index, keys } => {
                write!(
                    f,
                    "all nodes have applied the log up to {applied_index} and hold the same {keys} keys"
                )
            }
            Self::Disagreement { waited_s, difference } => {
                write!(
                    f,
                    "the nodes do not hold the same data after {waited_s} s: {difference}"
                )
            }
            Self::FlawReadBack { what } => write!(f, "CHECK FAILED: a client read back: {what}"),
            Self::Flaw { what } => write!(f, "CHECK FAILED: {what}"),
        }
    }
}

/// The last line.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    pub(crate) duplicated: usize,
    pub(crate) failover_ms: u64,
    pub(crate) nodes_agree: bool,
    /// Each was told as an event of its own.
    #[serde(skip)]
    pub(crate) other_flaws: usize,
}

impl Summary {
    /// Whether every check held.
    pub(crate) fn holds(&self) -> bool {
        self.nodes_agree && self.lost == 0 && self.duplicated == 0 && self.other_flaws == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agree = if self.nodes_agree { "yes" } else { "NO" };
        let verdict = if self.holds() {
            "every check held"
        } else {
            "A CHECK DID NOT HOLD"
        };
        writeln!(f)?;
        writeln!(f, "  writes acknowledged                 {}", self.acknowledged)?;
        writeln!(f, "  of these lost                       {}", self.lost)?;
        writeln!(f, "  of these there more than once       {}", self.duplicated)?;
        if self.other_flaws > 0 {
            writeln!(f, "  other checks that did not hold      {}", self.other_flaws)?;
        }
        writeln!(f, "  longest time without a write        {} ms", self.failover_ms)?;
        writeln!(f, "  all nodes hold the same data        {agree}")?;
        writeln!(f)?;
        write!(f, "{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Summary {
        Summary {
            acknowledged: 9,
            lost: 0,
            duplicated: 0,
            failover_ms: 7,
            nodes_agree: true,
            other_flaws: 0,
        }
    }

    #[test]
    fn the_last_json_line_has_exactly_the_five_promised_fields() {
        let expected = r#"{"acknowledged":9,"lost":0,"duplicated":0,"failover_ms":7,"nodes_agree":true}"#;
        assert_eq!(serde_json::to_string(&good()).unwrap(), expected);
    }

    #[test]
    fn any_single_flaw_makes_the_demo_fail() {
        assert!(good().holds());
        for bad in [
            Summary { lost: 1, ..good() },
            Summary {
                duplicated: 1,
                ..good()
            },
            Summary {
                nodes_agree: false,
                ..good()
            },
            Summary {
                other_flaws: 1,
                ..good()
            },
        ] {
            assert!(!bad.holds());
            assert!(bad.to_string().ends_with("A CHECK DID NOT HOLD"));
        }
    }
}

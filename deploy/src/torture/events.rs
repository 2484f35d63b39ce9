//! What a torture tells.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::faults::FaultCounts;

/// One thing that happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    Start {
        nodes: usize,
        clients: u64,
        seed: u64,
        dir: PathBuf,
    },
    StartAgain {
        why: String,
    },
    Ready {
        leader_id: u64,
        acknowledged_per_second: u64,
    },
    Fault {
        at_ms: u64,
        what: String,
        lasts_ms: u64,
        acknowledged: u64,
    },
    Healed {
        at_ms: u64,
    },
    Served {
        after_ms: u64,
    },
    Checking {
        operations: usize,
    },
    Flaw {
        what: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start {
                nodes,
                clients,
                seed,
                dir,
            } => write!(
                f,
                "{nodes} nodes with links that can be cut, {clients} clients, seed {seed}, in {}",
                dir.display()
            ),
            Self::StartAgain { why } => write!(f, "starting again on other ports: {why}"),
            Self::Ready {
                leader_id,
                acknowledged_per_second,
            } => write!(
                f,
                "node {leader_id} leads, {acknowledged_per_second} operations/s before the faults begin"
            ),
            Self::Fault {
                at_ms,
                what,
                lasts_ms,
                acknowledged,
            } => write!(
                f,
                "{:>8.1} s  {what} for {lasts_ms} ms ({acknowledged} operations acknowledged)",
                seconds(*at_ms)
            ),
            Self::Healed { at_ms } => write!(f, "{:>8.1} s  no more faults", seconds(*at_ms)),
            Self::Served { after_ms } => write!(f, "every client is served again after {after_ms} ms"),
            Self::Checking { operations } => write!(f, "checking {operations} operations"),
            Self::Flaw { what } => write!(f, "WRONG: {what}"),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is for people")]
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1e3
}

/// The verdict on a history without a flaw.
pub(crate) const LINEARIZABLE: &str = "linearizable";

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// `linearizable`, `not linearizable` or `undecided`.
    pub(crate) verdict: &'static str,
    /// Acknowledged appends that are gone.
    pub(crate) lost: u64,
    /// Appends that are there more than once.
    pub(crate) duplicated: u64,
    /// Whether all nodes hold the same at the end.
    pub(crate) nodes_agree: bool,
    /// What else was wrong.
    pub(crate) other_flaws: usize,
    /// All that was recorded.
    pub(crate) operations: u64,
    /// Those that took effect, or read.
    pub(crate) acknowledged: u64,
    /// Those without effect.
    pub(crate) failed: u64,
    /// Those of which nobody knows.
    pub(crate) unknown: u64,
    /// What was done to the nodes and links.
    #[serde(flatten)]
    pub(crate) faults: FaultCounts,
    /// The longest time in which nothing was acknowledged.
    pub(crate) longest_gap_ms: u64,
    /// From the end of the faults until every client was served, if they were.
    pub(crate) served_after_ms: Option<u64>,
    /// The run without its start.
    pub(crate) seconds: f64,
    /// What repeats the faults.
    pub(crate) seed: u64,
}

impl Summary {
    /// Whether every check held.
    pub(crate) fn holds(&self) -> bool {
        self.verdict == LINEARIZABLE
            && self.lost == 0
            && self.duplicated == 0
            && self.nodes_agree
            && self.served_after_ms.is_some()
            && self.other_flaws == 0
    }

    /// The verdict, in words that nobody takes for a good one if anything is wrong.
    pub(crate) fn headline(&self) -> String {
        if !self.holds() && self.verdict == LINEARIZABLE {
            return format!("FAILED, though {LINEARIZABLE}");
        }
        self.verdict.to_owned()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let served = self.served_after_ms.map_or_else(
            || "NOT SERVED after the last fault".to_owned(),
            |after_ms| format!("served again {after_ms} ms after the last fault"),
        );
        let agree = if self.nodes_agree {
            "hold the same"
        } else {
            "DIFFER"
        };
        write!(
            f,
            "{}: {} operations in {:.1} s ({} acknowledged, {} failed, {} unknown)\n\
             {}; seed {}\n\
             longest gap {} ms; {served}\n\
             {} lost, {} duplicated, {} other flaws; the nodes {agree}",
            self.headline(),
            self.operations,
            self.seconds,
            self.acknowledged,
            self.failed,
            self.unknown,
            self.faults,
            self.seed,
            self.longest_gap_ms,
            self.lost,
            self.duplicated,
            self.other_flaws,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{FaultCounts, LINEARIZABLE, Summary};

    #[test]
    fn only_a_run_without_any_flaw_is_called_linearizable_and_nothing_else() {
        let good = Summary {
            verdict: LINEARIZABLE,
            lost: 0,
            duplicated: 0,
            nodes_agree: true,
            other_flaws: 0,
            operations: 1,
            acknowledged: 1,
            failed: 0,
            unknown: 0,
            faults: FaultCounts::default(),
            longest_gap_ms: 1,
            served_after_ms: Some(1),
            seconds: 1.0,
            seed: 1,
        };
        assert!(good.to_string().starts_with("linearizable: 1 operations"));
        for bad in [
            Summary {
                other_flaws: 1,
                ..good.clone()
            },
            Summary {
                nodes_agree: false,
                ..good.clone()
            },
            Summary {
                served_after_ms: None,
                ..good
            },
        ] {
            assert!(
                bad.to_string().starts_with("FAILED, though linearizable:"),
                "{bad}"
            );
        }
    }
}

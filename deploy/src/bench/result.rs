//! What came of all rounds of one workload on one system.

use serde::Serialize;

use super::measure::Measurement;
use super::statistics::median;
use super::workload::Workload;

/// Medians over the rounds, each number by itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Medians {
    pub(crate) ops_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) longest_gap_us: f64,
    /// Of all nodes together.
    pub(crate) server_cpu_us_per_op: Option<f64>,
    /// Of the clients.
    pub(crate) client_cpu_us_per_op: Option<f64>,
    /// Of the largest node.
    pub(crate) resident_bytes: Option<f64>,
    /// Of all rounds together.
    pub(crate) errors: u64,
}

impl Medians {
    /// Of at least one round.
    pub(crate) fn of(rounds: &[Measurement]) -> Self {
        let of = |number: fn(&Measurement) -> f64| median(rounds.iter().map(number)).unwrap_or_default();
        let of_known = |number: fn(&Measurement) -> Option<f64>| median(rounds.iter().filter_map(number));
        #[expect(
            clippy::cast_precision_loss,
            reason = "microseconds and bytes stay far below 2^52"
        )]
        Self {
            ops_per_second: of(|round| round.ops_per_second),
            p50_us: of(|round| round.p50_us as f64),
            p99_us: of(|round| round.p99_us as f64),
            p999_us: of(|round| round.p999_us as f64),
            longest_gap_us: of(|round| round.longest_gap_us as f64),
            server_cpu_us_per_op: of_known(|round| round.server_cpu_us_per_op),
            client_cpu_us_per_op: of_known(|round| round.client_cpu_us_per_op),
            resident_bytes: of_known(|round| round.largest_resident_bytes().map(|bytes| bytes as f64)),
            errors: rounds.iter().map(|round| round.errors).sum(),
        }
    }
}

/// One system's medians for one workload.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) workload: Workload,
    pub(crate) system: &'static str,
    #[serde(flatten)]
    pub(crate) medians: Medians,
    /// Operations per second as a multiple of the peer's; `None` without a peer, and for the peer itself.
    pub(crate) ratio: Option<f64>,
}

impl Row {
    /// The rows of one workload, ours first.
    pub(crate) fn of(workload: Workload, rounds: &[(&'static str, Vec<Measurement>)]) -> Vec<Self> {
        let medians = |(system, rounds): &(&'static str, Vec<Measurement>)| Self {
            workload,
            system,
            medians: Medians::of(rounds),
            ratio: None,
        };
        let mut rows: Vec<Self> = rounds.iter().map(medians).collect();
        if let [ours, peer] = rows.as_mut_slice() {
            ours.ratio = Some(ours.medians.ops_per_second / peer.medians.ops_per_second);
        }
        rows
    }
}

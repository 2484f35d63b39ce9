//! What came of all rounds of one workload on one system.

use serde::Serialize;

use super::measure::Measurement;
use super::statistics::{median, medians_of_each};
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
    /// Of each node, in order of their ids; empty where it is not known.
    pub(crate) nodes_resident_bytes: Vec<u64>,
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
            nodes_resident_bytes: medians_of_each(
                &rounds.iter().map(Measurement::resident_bytes).collect::<Vec<_>>(),
            ),
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
    /// The 99th percentile of the latencies, likewise.
    pub(crate) p99_ratio: Option<f64>,
    /// The CPU time of all nodes for an operation, likewise.
    pub(crate) cpu_ratio: Option<f64>,
}

impl Row {
    /// The rows of one workload, ours first.
    pub(crate) fn of(workload: Workload, rounds: &[(&'static str, Vec<Measurement>)]) -> Vec<Self> {
        let medians = |(system, rounds): &(&'static str, Vec<Measurement>)| Self {
            workload,
            system,
            medians: Medians::of(rounds),
            ratio: None,
            p99_ratio: None,
            cpu_ratio: None,
        };
        let mut rows: Vec<Self> = rounds.iter().map(medians).collect();
        if let [ours, peer] = rows.as_mut_slice() {
            let (of_ours, of_peer) = (&ours.medians, &peer.medians);
            let cpu = of_ours.server_cpu_us_per_op.zip(of_peer.server_cpu_us_per_op);
            ours.ratio = quotient(of_ours.ops_per_second, of_peer.ops_per_second);
            ours.p99_ratio = quotient(of_ours.p99_us, of_peer.p99_us);
            ours.cpu_ratio = cpu.and_then(|(ours, peer)| quotient(ours, peer));
        }
        rows
    }
}

/// There is none if the peer has nothing.
fn quotient(ours: f64, peer: f64) -> Option<f64> {
    (peer > 0.0).then(|| ours / peer)
}

#[cfg(test)]
mod tests {
    use super::super::workload::{Calls, Keys};
    use super::*;

    #[test]
    fn ours_has_its_ratios_to_the_peer_and_every_row_the_memory_of_every_node() {
        let workload = Workload {
            calls: Calls::Put,
            clients: 1,
            value_bytes: 128,
            keys: Keys::Uniform,
        };
        let ours = Measurement::with_resident_bytes(&[10, 20, 30]);
        let peer = Measurement {
            ops_per_second: ours.ops_per_second / 4.0,
            p99_us: ours.p99_us * 2,
            server_cpu_us_per_op: ours.server_cpu_us_per_op.map(|us| us * 5.0),
            ..ours.clone()
        };
        let rows = Row::of(workload, &[("ours", vec![ours.clone()]), ("peer", vec![peer])]);
        let ratios = [rows[0].ratio, rows[0].p99_ratio, rows[0].cpu_ratio];
        assert_eq!(ratios, [Some(4.0), Some(0.5), Some(0.2)]);
        assert_eq!(
            (rows[1].ratio, rows[1].p99_ratio, rows[1].cpu_ratio),
            (None, None, None)
        );
        assert_eq!(rows[1].medians.nodes_resident_bytes, [10, 20, 30]);
        let alone = Row::of(workload, &[("ours", vec![ours])]);
        assert_eq!(alone[0].p99_ratio, None);
    }
}

//! The run as rows of time: what was acknowledged, and which fault befell which node.

use std::fmt;

use serde::Serialize;
use sim::linearizability::Operation;

use super::faults::{Done, FaultKind};
use super::judgement::Counts;

/// However long the run, there are no more rows than this.
const MOST_ROWS: u64 = 60;
/// How many seconds a row may have; a run that needs longer rows has as many as it takes.
const STEPS_S: [u64; 8] = [1, 2, 5, 10, 20, 30, 60, 120];
const MICROS_PER_SECOND: u64 = 1_000_000;
/// Wide enough for the heading of a node, and so for the letters of all kinds.
const NODE_WIDTH: usize = "node 1".len();

/// Counts the operations by the interval in which they ended; the first interval begins at zero.
pub(crate) fn by_interval(operations: &[Operation], interval_us: u64) -> Vec<Counts> {
    let mut intervals: Vec<Counts> = Vec::new();
    for operation in operations {
        let at = usize::try_from(operation.end_us / interval_us).unwrap_or(usize::MAX - 1);
        if intervals.len() <= at {
            intervals.resize(at + 1, Counts::default());
        }
        intervals[at].add(operation);
    }
    intervals
}

/// A run on a time line of at most [`MOST_ROWS`] rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename = "time_line")]
pub(crate) struct TimeLine {
    seconds_per_row: u64,
    nodes: Vec<u64>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    from_s: u64,
    acknowledged: u64,
    failed: u64,
    unknown: u64,
    /// For each node the letters of the faults that were there in this time.
    faults: Vec<String>,
    /// Whether some of the longest time in which nothing was acknowledged is here.
    in_longest_gap: bool,
}

impl TimeLine {
    /// Of what was done and what befell which of `nodes`.
    pub(crate) fn new(
        operations: &[Operation],
        faults: &[Done],
        nodes: &[u64],
        longest_gap_us: (u64, u64),
    ) -> Self {
        let ends = operations.iter().map(|operation| operation.end_us);
        let end_us = ends.chain(faults.iter().map(|fault| fault.to_us)).max();
        let seconds = end_us.unwrap_or(0) / MICROS_PER_SECOND + 1;
        let fits = |step: &u64| seconds.div_ceil(*step) <= MOST_ROWS;
        let seconds_per_row = STEPS_S
            .into_iter()
            .find(fits)
            .unwrap_or(seconds.div_ceil(MOST_ROWS));
        let row_us = seconds_per_row * MICROS_PER_SECOND;
        let counts = by_interval(operations, row_us);
        let row = |number: u64| {
            let of_row = usize::try_from(number).ok().and_then(|at| counts.get(at));
            let counts = of_row.copied().unwrap_or_default();
            let (from_us, to_us) = (number * row_us, (number + 1) * row_us);
            let is_here = |(from, to): (u64, u64)| from < to_us && to >= from_us;
            let here: Vec<&Done> = faults
                .iter()
                .filter(|fault| is_here((fault.from_us, fault.to_us)))
                .collect();
            Row {
                from_s: number * seconds_per_row,
                acknowledged: counts.acknowledged,
                failed: counts.failed,
                unknown: counts.unknown,
                faults: nodes.iter().map(|node| letters(&here, *node)).collect(),
                in_longest_gap: is_here(longest_gap_us),
            }
        };
        Self {
            seconds_per_row,
            nodes: nodes.to_vec(),
            rows: (0..seconds.div_ceil(seconds_per_row)).map(row).collect(),
        }
    }
}

/// Of the kinds of those `faults` that befell `node`, each once.
fn letters(faults: &[&Done], node: u64) -> String {
    let befell = |kind: &FaultKind| {
        faults
            .iter()
            .any(|fault| fault.kind == *kind && fault.nodes.contains(&node))
    };
    FaultKind::ALL
        .into_iter()
        .filter(befell)
        .map(FaultKind::letter)
        .collect()
}

impl fmt::Display for TimeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "time line, {} s a row (K: killed, P: paused, C: links cut; <: the longest gap)",
            self.seconds_per_row
        )?;
        write!(f, "{:>6}  acknowledged/s  failed  unknown", "s")?;
        for node in &self.nodes {
            write!(f, "  {:<NODE_WIDTH$}", format!("node {node}"))?;
        }
        for row in &self.rows {
            write!(
                f,
                "\n{:>6}  {:>14}  {:>6}  {:>7}",
                row.from_s,
                row.acknowledged / self.seconds_per_row,
                row.failed,
                row.unknown
            )?;
            for letters in &row.faults {
                let letters = if letters.is_empty() { "." } else { letters };
                write!(f, "  {letters:<NODE_WIDTH$}")?;
            }
            if row.in_longest_gap {
                f.write_str("  <")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sim::linearizability::{Action, Outcome};

    use super::*;

    fn read(end_us: u64, outcome: Outcome) -> Operation {
        Operation {
            client: 1,
            action: Action::Get { key: "k".into() },
            start_us: end_us - 1,
            end_us,
            outcome,
        }
    }

    fn fault(kind: FaultKind, nodes: &[u64], from_us: u64, to_us: u64) -> Done {
        Done {
            kind,
            what: String::new(),
            nodes: nodes.to_vec(),
            from_us,
            to_us,
        }
    }

    #[test]
    fn each_row_shows_what_was_acknowledged_and_which_faults_were_there() {
        let operations = [
            read(10, Outcome::Value(None)),
            read(20, Outcome::Value(None)),
            read(1_999_999, Outcome::Unknown),
            read(2_500_000, Outcome::Value(None)),
            read(2_600_000, Outcome::Failed),
        ];
        let faults = [
            fault(FaultKind::Kill, &[1, 2], 900_000, 1_100_000),
            fault(FaultKind::Cut, &[2], 1_200_000, 1_300_000),
            fault(FaultKind::Pause, &[2], 2_000_000, 2_100_000),
        ];
        let time_line = TimeLine::new(&operations, &faults, &[1, 2], (20, 2_500_000));
        let text = time_line.to_string();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(2)
            .map(|row| row.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows,
            [
                ["0", "2", "0", "0", "K", "K", "<"],
                ["1", "0", "0", "1", "K", "KC", "<"],
                ["2", "1", "1", "0", ".", "P", "<"],
            ],
            "{text}"
        );
    }

    #[test]
    fn the_rows_are_few_and_none_is_missing_however_long_the_run() {
        for seconds in [0, 1, 59, 60, 61, 300, 3_600, 3_700, 7_200, 100_000] {
            let end_us = seconds * MICROS_PER_SECOND + 1;
            let time_line = TimeLine::new(&[read(end_us, Outcome::Unknown)], &[], &[1], (0, 0));
            let rows = time_line.rows.len() as u64;
            assert!(rows <= MOST_ROWS, "{seconds} s: {rows} rows");
            assert!(
                rows * time_line.seconds_per_row > seconds,
                "{seconds} s: {rows} rows"
            );
            assert_eq!(time_line.rows.last().unwrap().unknown, 1, "{seconds} s");
        }
    }
}

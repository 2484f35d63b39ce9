//! The workloads: each on a fresh cluster of each system, turn and turn about.

use std::fmt;

use serde::Serialize;

use super::arguments::{BenchArguments, KEYS};
use super::interrupts::Interrupts;
use super::measure::{Measurement, measure};
use super::result::Row;
use super::system::{System, turns};
use super::table::{known, mib, render};
use super::workload::Workload;
use crate::error::Error;
use crate::report::Reporter;

/// Where the table has the ratio to the peer.
const RATIO_COLUMN: usize = 3;

/// One measurement is done.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "measured")]
struct Measured<'a> {
    #[serde(flatten)]
    workload: Workload,
    round: u32,
    rounds: u32,
    system: &'static str,
    #[serde(flatten)]
    measurement: &'a Measurement,
}

impl fmt::Display for Measured<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workload,
            round,
            rounds,
            system,
            measurement,
        } = self;
        write!(
            f,
            "  {workload}, round {round} of {rounds}: {system} {:.0} ops/s, p99 {} µs",
            measurement.ops_per_second, measurement.p99_us
        )?;
        if measurement.errors > 0 {
            write!(f, ", {} errors", measurement.errors)?;
        }
        Ok(())
    }
}

/// All is measured.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "result")]
struct Finished<'a> {
    keys: u64,
    rounds: u32,
    seconds_each: f64,
    results: &'a [Row],
}

impl fmt::Display for Finished<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut headings = vec![
            "WORKLOAD",
            "SYSTEM",
            "OPS/S",
            "RATIO",
            "P50 µs",
            "P99 µs",
            "P99.9 µs",
            "GAP µs",
            "SERVERS µs/OP",
            "CLIENTS µs/OP",
            "RSS MiB",
            "ERRORS",
        ];
        let mut last = None;
        let rows = self
            .results
            .iter()
            .map(|row| cells(row, last.replace(row.workload) != Some(row.workload)));
        let mut rows: Vec<_> = rows.collect();
        let is_alone = self.results.iter().all(|row| row.ratio.is_none());
        if is_alone {
            headings.remove(RATIO_COLUMN);
            rows.iter_mut().for_each(|cells| drop(cells.remove(RATIO_COLUMN)));
        }
        let s = if self.rounds == 1 { "" } else { "s" };
        let ratio = if is_alone {
            ""
        } else {
            " OPS/S of ours as a multiple of the peer's (RATIO),"
        };
        let legend = format!(
            "medians of {} round{s} of {} s, {} keys;{ratio} longest time without a success (GAP),\nCPU time of all nodes \
             and of the clients for an operation, memory of the largest node",
            self.rounds, self.seconds_each, self.keys
        );
        f.write_str(&render(&headings, rows, &legend))
    }
}

fn cells(row: &Row, is_new: bool) -> Vec<String> {
    let medians = &row.medians;
    vec![
        if is_new {
            row.workload.to_string()
        } else {
            String::new()
        },
        row.system.to_owned(),
        format!("{:.0}", medians.ops_per_second),
        row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}x")),
        format!("{:.0}", medians.p50_us),
        format!("{:.0}", medians.p99_us),
        format!("{:.0}", medians.p999_us),
        format!("{:.0}", medians.longest_gap_us),
        known(medians.server_cpu_us_per_op, |us| format!("{us:.0}")),
        known(medians.client_cpu_us_per_op, |us| format!("{us:.0}")),
        mib(medians.resident_bytes),
        medians.errors.to_string(),
    ]
}

/// Measures every selected workload and prints the table, of the workloads before it if one fails or is interrupted.
pub(crate) async fn run(
    arguments: &BenchArguments,
    systems: &[System],
    reporter: Reporter,
    interrupts: &Interrupts,
) -> Result<Vec<Row>, Error> {
    let mut results = Vec::new();
    let all = all_workloads(arguments, systems, &mut results, reporter);
    let outcome = interrupts.or(all).await;
    if outcome.is_ok() || !results.is_empty() {
        reporter.tell(&Finished {
            keys: arguments.keys_or(KEYS),
            rounds: arguments.rounds(systems.len()),
            seconds_each: arguments.duration().as_secs_f64(),
            results: &results,
        });
    }
    outcome.map(|()| results)
}

async fn all_workloads(
    arguments: &BenchArguments,
    systems: &[System],
    results: &mut Vec<Row>,
    reporter: Reporter,
) -> Result<(), Error> {
    for workload in arguments.selection() {
        results.extend(all_rounds(arguments, systems, workload, reporter).await?);
    }
    Ok(())
}

async fn all_rounds(
    arguments: &BenchArguments,
    systems: &[System],
    workload: Workload,
    reporter: Reporter,
) -> Result<Vec<Row>, Error> {
    let rounds = arguments.rounds(systems.len());
    let mut measured: Vec<_> = systems.iter().map(|system| (system.name(), Vec::new())).collect();
    for round in 1..=rounds {
        for which in turns(systems.len(), round) {
            let mut cluster = systems[which]
                .start_for(arguments.dir.as_deref(), workload)
                .await?;
            let measurement = measure(
                &mut cluster,
                workload,
                arguments.keys_or(KEYS),
                arguments.duration(),
            )
            .await?;
            reporter.tell(&Measured {
                workload,
                round,
                rounds,
                system: systems[which].name(),
                measurement: &measurement,
            });
            measured[which].1.push(measurement);
        }
    }
    Ok(Row::of(workload, &measured))
}

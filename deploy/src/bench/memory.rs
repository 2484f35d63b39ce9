//! The memory of each node after many writes.

use std::fmt;
use std::path::Path;

use clerk::load::Load;
use serde::Serialize;

use super::arguments::BenchArguments;
use super::interrupts::Interrupts;
use super::measure::write_all_keys;
use super::statistics::medians_of_each;
use super::system::{System, turns};
use super::table::{mib, of_several_rounds, render};
use super::usage;
use crate::error::Error;
use crate::report::Reporter;

const VALUE_BYTES: u32 = 128;
/// As many as write at once.
const CLIENTS: u32 = 64;

/// What is written: every key so many times.
#[derive(Clone, Copy, Debug, Serialize)]
struct Fill {
    keys: u64,
    times: u64,
}

/// How many keys there are in the second fill, unless said.
const DEFAULT_KEYS: u64 = 500_000;

/// Twice as many puts on a fifth of the keys; then every key once.
fn fills(keys: u64) -> [Fill; 2] {
    let few = Fill {
        keys: keys.div_ceil(5),
        times: 10,
    };
    [few, Fill { keys, times: 1 }]
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    fill: Fill,
    system: &'static str,
    /// How many there were.
    rounds: usize,
    /// Of each node, in order of their ids; medians over the rounds.
    resident_bytes: Vec<u64>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "result")]
struct Finished {
    memory: Vec<Row>,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = ["WRITTEN", "SYSTEM", "NODE 1 MiB", "NODE 2 MiB", "NODE 3 MiB"];
        let medians = of_several_rounds(self.memory.iter().map(|row| row.rounds))
            .map_or_else(String::new, |rounds| {
                format!("; medians of {rounds}, each node by itself")
            });
        let legend = format!("memory in RAM (RSS), values of {VALUE_BYTES} B{medians}");
        f.write_str(&render(&headings, self.memory.iter().map(Row::cells), &legend))
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let mut line = vec![
            format!(
                "{} puts on {} keys",
                self.fill.keys * self.fill.times,
                self.fill.keys
            ),
            self.system.to_owned(),
        ];
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory stay far below 2^52")]
        line.extend(self.resident_bytes.iter().map(|bytes| mib(Some(*bytes as f64))));
        line
    }
}

/// Fills a fresh cluster of each system in each way and prints the table, of what was measured if one fails or
/// is interrupted.
pub(crate) async fn run(
    arguments: &BenchArguments,
    systems: &[System],
    reporter: Reporter,
    interrupts: &Interrupts,
) -> Result<(), Error> {
    let rounds = arguments.rounds_or(1);
    let mut memory = Vec::new();
    let mut outcome = Ok(());
    for fill in fills(arguments.keys_or(DEFAULT_KEYS)) {
        let mut measured = vec![Vec::new(); systems.len()];
        let all = all_rounds(arguments, systems, (fill, rounds), &mut measured);
        outcome = interrupts.or(all).await;
        let all = systems
            .iter()
            .zip(&measured)
            .filter(|(_, measured)| !measured.is_empty());
        memory.extend(all.map(|(system, measured)| Row {
            fill,
            system: system.name(),
            rounds: measured.len(),
            resident_bytes: medians_of_each(measured),
        }));
        if outcome.is_err() {
            break;
        }
    }
    if !memory.is_empty() {
        reporter.tell(&Finished { memory });
    }
    outcome
}

/// For each system the memory of each node in each round.
async fn all_rounds(
    arguments: &BenchArguments,
    systems: &[System],
    (fill, rounds): (Fill, u32),
    measured: &mut [Vec<Vec<u64>>],
) -> Result<(), Error> {
    for round in 1..=rounds {
        for which in turns(systems.len(), round) {
            let resident_bytes = resident_after(&systems[which], fill, arguments.dir.as_deref()).await?;
            measured[which].push(resident_bytes);
        }
    }
    Ok(())
}

async fn resident_after(system: &System, fill: Fill, dir: Option<&Path>) -> Result<Vec<u64>, Error> {
    let mut cluster = system.start(dir).await?;
    let load = Load {
        keys: fill.keys,
        value_bytes: VALUE_BYTES,
        ..Load::default()
    };
    let targets = cluster.targets(CLIENTS).await?;
    for _ in 0..fill.times {
        write_all_keys(system.name(), &targets, &load).await?;
    }
    cluster.check_all_run()?;
    let nodes = usage::of_all(&cluster.usage(), system.name())?;
    Ok(nodes.into_iter().map(|(_, usage)| usage.resident_bytes).collect())
}

//! How long a cluster that holds many keys takes to serve again after all its nodes were killed.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use clerk::load::{Call, Load, Target as _};
use futures_util::future::select_all;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::arguments::BenchArguments;
use super::interrupts::Interrupts;
#[cfg(feature = "etcd")]
use super::measure::prepare;
use super::measure::write_all_keys;
use super::statistics::median;
use super::system::{AnyTarget, Cluster, NODES, NodeAddress, System, turns};
use super::table::render;
use crate::error::Error;
use crate::report::Reporter;

/// How many keys there are, unless said.
const DEFAULT_KEYS: u64 = 500_000;
const DEFAULT_ROUNDS: u32 = 3;
const VALUE_BYTES: u32 = 128;
/// As many as write them at once.
const CLIENTS: u32 = 64;
/// What is written when all else is. Who answers with it has the whole log behind it.
const LAST_KEY: &str = "bench/last";
const LAST_VALUE: [u8; VALUE_BYTES as usize] = [b'l'; VALUE_BYTES as usize];
/// How long the nodes rest before they are killed: what the load left them to do is no part of a restart.
const REST: Duration = Duration::from_secs(1);
/// How long the cluster may take to serve again.
const LIMIT: Duration = Duration::from_secs(120);
/// How long one attempt to read may take, and how long it is to the next: what is measured is at most so much too
/// long as the pause.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(5);
/// How often it is looked whether all nodes run.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A cluster serves again.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "measured")]
struct Measured {
    system: &'static str,
    round: u32,
    rounds: u32,
    seconds: f64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            system,
            round,
            rounds,
            seconds,
        } = self;
        write!(
            f,
            "  {system}, round {round} of {rounds}: serves again after {seconds:.2} s"
        )
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "result")]
struct Finished {
    keys: u64,
    value_bytes: u32,
    restarts: Vec<Summary>,
}

#[derive(Debug, Serialize)]
struct Summary {
    system: &'static str,
    rounds: usize,
    median_seconds: f64,
    longest_seconds: f64,
}

impl Summary {
    fn of(system: &'static str, seconds: &[f64]) -> Self {
        Self {
            system,
            rounds: seconds.len(),
            median_seconds: median(seconds.iter().copied()).unwrap_or_default(),
            longest_seconds: seconds.iter().copied().fold(0.0, f64::max),
        }
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = ["SYSTEM", "ROUNDS", "MEDIAN s", "LONGEST s"];
        let rows = self.restarts.iter().map(|one| {
            vec![
                one.system.to_owned(),
                one.rounds.to_string(),
                format!("{:.2}", one.median_seconds),
                format!("{:.2}", one.longest_seconds),
            ]
        });
        let legend = format!(
            "from the start of the first of {NODES} nodes, all of which were killed, to the answer of a linearizable \
             read;\n{} keys, values of {} B",
            self.keys, self.value_bytes
        );
        f.write_str(&render(&headings, rows, &legend))
    }
}

/// Fills a fresh cluster of each system, kills its nodes and starts them again; prints the table, of what was measured
/// if one fails or is interrupted. The systems take turns.
pub(crate) async fn run(
    arguments: &BenchArguments,
    systems: &[System],
    reporter: Reporter,
    interrupts: &Interrupts,
) -> Result<(), Error> {
    let mut seconds = vec![Vec::new(); systems.len()];
    let all = all_rounds(arguments, systems, &mut seconds, reporter);
    let outcome = interrupts.or(all).await;
    let measured = systems
        .iter()
        .zip(&seconds)
        .filter(|(_, seconds)| !seconds.is_empty());
    let restarts: Vec<_> = measured
        .map(|(system, seconds)| Summary::of(system.name(), seconds))
        .collect();
    if !restarts.is_empty() {
        reporter.tell(&Finished {
            keys: arguments.keys_or(DEFAULT_KEYS),
            value_bytes: VALUE_BYTES,
            restarts,
        });
    }
    outcome
}

async fn all_rounds(
    arguments: &BenchArguments,
    systems: &[System],
    measured: &mut [Vec<f64>],
    reporter: Reporter,
) -> Result<(), Error> {
    let rounds = arguments.rounds_or(DEFAULT_ROUNDS);
    let keys = arguments.keys_or(DEFAULT_KEYS);
    for round in 1..=rounds {
        for which in turns(systems.len(), round) {
            let system = &systems[which];
            let took = restart(system, keys, arguments.dir.as_deref()).await?;
            let seconds = took.as_secs_f64();
            measured[which].push(seconds);
            reporter.tell(&Measured {
                system: system.name(),
                round,
                rounds,
                seconds,
            });
        }
    }
    Ok(())
}

/// Fills a fresh cluster, kills all its nodes and starts them again: how long until it serves.
async fn restart(system: &System, keys: u64, dir: Option<&Path>) -> Result<Duration, Error> {
    let mut cluster = system.start(dir).await?;
    fill(&cluster, keys).await?;
    sleep(REST).await;
    cluster.check_all_run()?;
    for id in 1..=NODES {
        cluster.kill(id);
    }
    let began = Instant::now();
    for id in 1..=NODES {
        cluster.start_node(id)?;
    }
    if !first_answer(&mut cluster).await? {
        return Err(Error::Bench {
            system: system.name(),
            problem: "what was written last is not there after the restart".into(),
        });
    }
    Ok(began.elapsed())
}

/// Sets every key once, and the last one after them.
async fn fill(cluster: &Cluster, keys: u64) -> Result<(), Error> {
    let targets = cluster.targets(CLIENTS).await?;
    write_keys(cluster.name(), &targets, keys).await?;
    let last = Call::Put {
        key: LAST_KEY.to_owned(),
        value: LAST_VALUE.to_vec().into(),
    };
    targets[0].call(last).await.map_err(|error| Error::Bench {
        system: cluster.name(),
        problem: format!("the last key could not be written: {error}"),
    })
}

async fn write_keys(system: &'static str, targets: &[AnyTarget], keys: u64) -> Result<(), Error> {
    #[cfg(feature = "etcd")]
    if let [AnyTarget::Etcd(etcd), ..] = targets {
        return prepare(system, keys, etcd.write_all_keys(keys, VALUE_BYTES)).await;
    }
    let load = Load {
        keys,
        value_bytes: VALUE_BYTES,
        ..Load::default()
    };
    write_all_keys(system, targets, &load).await
}

/// Waits for the first node that answers a linearizable read; whether it has what was written last. A node that ends
/// meanwhile is an error.
async fn first_answer(cluster: &mut Cluster) -> Result<bool, Error> {
    let nodes = cluster.addresses();
    let mut first = select_all(nodes.iter().map(|node| Box::pin(answer(node))));
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        tokio::select! {
            (holds, ..) = &mut first => return Ok(holds),
            () = sleep(LOOK_EVERY) => cluster.check_all_run()?,
        }
    }
    Err(Error::Late {
        waited: LIMIT,
        what: format!("{}: no node serves again", cluster.name()),
    })
}

/// Asks one node again and again until it answers.
async fn answer(node: &NodeAddress) -> bool {
    loop {
        let attempt = timeout(ATTEMPT_LIMIT, node.holds(LAST_KEY, &LAST_VALUE));
        if let Ok(Some(holds)) = attempt.await {
            return holds;
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_the_median_and_the_longest() {
        let summary = Summary::of("ours", &[0.5, 0.25, 2.0]);
        assert_eq!(
            (summary.rounds, summary.median_seconds, summary.longest_seconds),
            (3, 0.5, 2.0)
        );
    }

    #[test]
    fn the_table_has_a_line_for_each_system() {
        let finished = Finished {
            keys: 500,
            value_bytes: 128,
            restarts: vec![
                Summary::of("ours", &[0.5, 0.625]),
                Summary::of("peer", &[1.25, 1.5]),
            ],
        };
        let text = finished.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1..4],
            [
                "SYSTEM  ROUNDS  MEDIAN s  LONGEST s",
                "ours    2           0.56       0.62",
                "peer    2           1.38       1.50"
            ]
        );
        assert!(text.ends_with("500 keys, values of 128 B"), "{text}");
    }
}

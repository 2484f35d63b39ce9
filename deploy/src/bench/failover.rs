//! How long nobody can write when the leader is killed, and when it is stopped in order.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clerk::load::{Call, Target as _};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::arguments::BenchArguments;
use super::interrupts::Interrupts;
use super::statistics::median;
use super::system::{AnyTarget, Cluster, System, turns};
use super::table::render;
use crate::demo::progress::Progress;
use crate::error::Error;
use crate::report::Reporter;

/// How many write, each with one call in flight.
const WRITERS: u32 = 16;
/// How long they write before the leader goes, and on after it.
const STEADY: Duration = Duration::from_millis(500);
/// How long the next leader, and the return of the last one, may take.
const LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a writer whose call failed waits before the next.
const AFTER_ERROR: Duration = Duration::from_millis(1);

/// How a leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum End {
    Killed,
    Stopped,
}

impl End {
    fn signal(self) -> &'static str {
        match self {
            Self::Killed => "SIGKILL",
            Self::Stopped => "SIGTERM",
        }
    }
}

/// A leader went, and another took over.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "failover")]
struct Failover {
    system: &'static str,
    end: End,
    round: u32,
    rounds: u32,
    gap_ms: f64,
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            system,
            round,
            rounds,
            gap_ms,
            ..
        } = self;
        let signal = self.end.signal();
        write!(
            f,
            "  {system}, {signal} to the leader, {round} of {rounds}: no write for {gap_ms:.0} ms"
        )
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "result")]
struct Finished {
    writers: u32,
    failovers: Vec<Summary>,
}

#[derive(Debug, Serialize)]
struct Summary {
    system: &'static str,
    end: End,
    times: usize,
    median_gap_ms: f64,
    longest_gap_ms: f64,
}

impl Summary {
    fn of(system: &'static str, end: End, gaps_ms: &[f64]) -> Self {
        Self {
            system,
            end,
            times: gaps_ms.len(),
            median_gap_ms: median(gaps_ms.iter().copied()).unwrap_or_default(),
            longest_gap_ms: gaps_ms.iter().copied().fold(0.0, f64::max),
        }
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "THE LEADER GETS",
            "SYSTEM",
            "TIMES",
            "MEDIAN GAP ms",
            "LONGEST GAP ms",
        ];
        let rows = self.failovers.iter().map(|one| {
            vec![
                one.end.signal().to_owned(),
                one.system.to_owned(),
                one.times.to_string(),
                format!("{:.0}", one.median_gap_ms),
                format!("{:.0}", one.longest_gap_ms),
            ]
        });
        let legend = format!(
            "the longest time without a successful write around it; {} writers",
            self.writers
        );
        f.write_str(&render(&headings, rows, &legend))
    }
}

/// Ends the leader of each system, by either signal, so many times, and prints the table, of what was measured if one
/// fails or is interrupted. The systems take turns.
pub(crate) async fn run(
    arguments: &BenchArguments,
    systems: &[System],
    times: u32,
    reporter: Reporter,
    interrupts: &Interrupts,
) -> Result<(), Error> {
    let mut failovers = Vec::new();
    let mut outcome = Ok(());
    for end in [End::Killed, End::Stopped] {
        let mut gaps_ms = vec![Vec::new(); systems.len()];
        let all = all_rounds(arguments, systems, (end, times), &mut gaps_ms, reporter);
        outcome = interrupts.or(all).await;
        let measured = systems
            .iter()
            .zip(&gaps_ms)
            .filter(|(_, gaps_ms)| !gaps_ms.is_empty());
        failovers.extend(measured.map(|(system, gaps_ms)| Summary::of(system.name(), end, gaps_ms)));
        if outcome.is_err() {
            break;
        }
    }
    if !failovers.is_empty() {
        reporter.tell(&Finished {
            writers: WRITERS,
            failovers,
        });
    }
    outcome
}

async fn all_rounds(
    arguments: &BenchArguments,
    systems: &[System],
    (end, times): (End, u32),
    gaps_ms: &mut [Vec<f64>],
    reporter: Reporter,
) -> Result<(), Error> {
    let rounds = arguments.rounds_or(if systems.len() < 2 { 1 } else { 2 });
    for (round, of_round) in (1..).zip(split(times, rounds)) {
        for which in turns(systems.len(), round) {
            let system = &systems[which];
            let mut stage = Stage::set(system, arguments).await?;
            for _ in 0..of_round {
                let gap_ms = stage.fail_over(end).await?.as_secs_f64() * 1e3;
                gaps_ms[which].push(gap_ms);
                reporter.tell(&Failover {
                    system: system.name(),
                    end,
                    round: u32::try_from(gaps_ms[which].len()).unwrap_or(u32::MAX),
                    rounds: times,
                    gap_ms,
                });
            }
        }
    }
    Ok(())
}

/// How many of `times` are in each of so many rounds: as evenly as can be, and none has none.
fn split(times: u32, rounds: u32) -> Vec<u32> {
    let rounds = rounds.clamp(1, times.max(1));
    (0..rounds)
        .map(|round| times / rounds + u32::from(round < times % rounds))
        .collect()
}

/// A cluster, and writers at work. Dropping it ends the writers.
struct Stage {
    cluster: Cluster,
    progress: Arc<Progress>,
    _writers: JoinSet<()>,
}

impl Stage {
    async fn set(system: &System, arguments: &BenchArguments) -> Result<Self, Error> {
        let cluster = system.start(arguments.dir.as_deref()).await?;
        let targets = cluster.roaming_targets(WRITERS).await?;
        let progress = Arc::new(Progress::default());
        let mut writers = JoinSet::new();
        for (number, target) in (0..WRITERS).zip(targets.iter().cycle()) {
            writers.spawn(write_on(target.clone(), number, Arc::clone(&progress)));
        }
        Ok(Self {
            cluster,
            progress,
            _writers: writers,
        })
    }

    /// Ends the leader and starts it again; the longest time without a write around it.
    async fn fail_over(&mut self, end: End) -> Result<Duration, Error> {
        self.wait(None, "the cluster is not whole", async |stage| {
            stage.cluster.is_whole().await
        })
        .await?;
        sleep(STEADY).await;
        let old = self.leader_other_than(None).await?;
        let ended_at = Instant::now();
        match end {
            End::Killed => self.cluster.kill(old),
            End::Stopped => self.cluster.ask_to_stop(old),
        }
        self.leader_other_than(Some(old)).await?;
        // An acknowledgement of the old leader may have been on its way when it ended: only one from here on
        // shows that the gap is over.
        let led_at = Instant::now();
        self.wait(
            Some(old),
            "nothing is written under the new leader",
            async |stage| stage.progress.any_since(led_at),
        )
        .await?;
        sleep(STEADY).await;
        self.cluster.check_others_run(Some(old))?;
        let gap = self.progress.longest_gap(ended_at, Instant::now());
        self.cluster.start_node(old)?;
        Ok(gap)
    }

    /// Waits for a leader. A node that ends meanwhile is an error, but for the old leader.
    async fn leader_other_than(&mut self, old: Option<u64>) -> Result<u64, Error> {
        let began = Instant::now();
        while began.elapsed() < LIMIT {
            self.cluster.check_others_run(old)?;
            match self.cluster.leader().await {
                Some(leader) if Some(leader) != old => return Ok(leader),
                _ => sleep(LOOK_EVERY).await,
            }
        }
        Err(self.late("there is no new leader"))
    }

    /// Waits for `condition`. A node that ends meanwhile is an error, but for `gone`, which is to end.
    async fn wait(
        &mut self,
        gone: Option<u64>,
        what: &str,
        mut condition: impl AsyncFnMut(&Self) -> bool,
    ) -> Result<(), Error> {
        let began = Instant::now();
        while began.elapsed() < LIMIT {
            self.cluster.check_others_run(gone)?;
            if condition(self).await {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
        Err(self.late(what))
    }

    fn late(&self, what: &str) -> Error {
        Error::Late {
            waited: LIMIT,
            what: format!("{}: {what}", self.cluster.name()),
        }
    }
}

/// Writes for ever, and notes what is acknowledged.
async fn write_on(target: AnyTarget, number: u32, progress: Arc<Progress>) {
    loop {
        let key = format!("bench/writer-{number}");
        let value = vec![b'v'; 128].into();
        match target.call(Call::Put { key, value }).await {
            Ok(()) => progress.acknowledged(),
            Err(_) => sleep(AFTER_ERROR).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rounds_share_all_failovers_as_evenly_as_can_be() {
        for (times, rounds, expected) in [
            (10, 2, &[5, 5][..]),
            (10, 3, &[4, 3, 3]),
            (1, 2, &[1]),
            (7, 1, &[7]),
        ] {
            assert_eq!(split(times, rounds), expected, "{times} in {rounds}");
        }
    }

    #[test]
    fn a_summary_tells_the_median_and_the_longest() {
        let summary = Summary::of("ours", End::Killed, &[400.0, 300.0, 900.0]);
        assert_eq!(
            (summary.times, summary.median_gap_ms, summary.longest_gap_ms),
            (3, 400.0, 900.0)
        );
    }
}

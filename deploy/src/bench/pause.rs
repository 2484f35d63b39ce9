//! The longest pause between two writes while a snapshot is cut, and while a follower is brought up from nothing.
//!
//! All on one cluster of three nodes of which two run at first, under an open-loop load at half of what two nodes
//! can take: measured with nothing else going on; then with a snapshot that falls due about every quarter of the
//! time; then without snapshots while the third node, which has never run, is started and catches up. Each further round
//! does all that anew, and the medians count.

use std::fmt;
use std::time::{Duration, Instant};

use clerk::load::{self, Load, Outcome};
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::arguments::BenchArguments;
use super::interrupts::Interrupts;
use super::measure::{refuse_silence, write_all_keys};
use super::ours::OurCluster;
use super::statistics::{median, median_of_whole};
use super::system::{AnyTarget, CallError, our_targets};
use super::table::{of_several_rounds, render};
use crate::error::Error;
use crate::report::Reporter;

const RUNNING_FIRST: [u64; 2] = [1, 2];
const NEWCOMER: u64 = 3;
const CLIENTS: u32 = 64;
const VALUE_BYTES: u32 = 128;
/// About what one write takes in the log beside its value.
const ENTRY_OVERHEAD_BYTES: u64 = 64;
/// No snapshot is cut before the log has grown by so much.
const NO_SNAPSHOT: u64 = 1 << 40;
const DEFAULT_KEYS: u64 = 1_000_000;
/// How long it takes to find out how much the cluster can take.
const PROBE: Duration = Duration::from_secs(3);
/// How long each measurement takes, unless said.
const MEASURE: Duration = Duration::from_secs(12);
/// When the newcomer is started after the measurement began.
const NEWCOMER_AFTER: Duration = Duration::from_secs(2);
/// The shortest measurement: the newcomer is beside the load for as long as it is not.
const SHORTEST: Duration = NEWCOMER_AFTER.saturating_mul(2);
/// How long it may take to catch up.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What goes on beside the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Beside {
    Nothing,
    Snapshots,
    Newcomer,
}

impl Beside {
    const ALL: [Self; 3] = [Self::Nothing, Self::Snapshots, Self::Newcomer];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Snapshots => "snapshots",
            Self::Newcomer => "a new follower",
        }
    }
}

/// One measurement is done.
#[derive(Clone, Debug, Serialize)]
struct Paused {
    beside: Beside,
    /// Of how many rounds these are the medians.
    rounds: usize,
    rate: u64,
    longest_gap_ms: f64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    errors: u64,
    not_begun: u64,
    /// How many snapshots the nodes cut meanwhile, all together.
    snapshots: u64,
    /// How long the newcomer took to hold what was committed when it started.
    caught_up_ms: Option<f64>,
    /// Whether the load was over by then, in any round: it did not catch up beside the load.
    caught_up_after_load: bool,
}

impl Paused {
    /// Medians over the rounds, each number by itself, and all that was not done; `None` of no round.
    fn medians(rounds: &[&Self]) -> Option<Self> {
        let first = rounds.first()?;
        let of =
            |number: fn(&Self) -> f64| median(rounds.iter().map(|round| number(round))).unwrap_or_default();
        let of_whole = |number: fn(&Self) -> u64| median_of_whole(rounds.iter().map(|round| number(round)));
        Some(Self {
            beside: first.beside,
            rounds: rounds.len(),
            rate: of_whole(|round| round.rate),
            longest_gap_ms: of(|round| round.longest_gap_ms),
            p50_us: of_whole(|round| round.p50_us),
            p99_us: of_whole(|round| round.p99_us),
            max_us: of_whole(|round| round.max_us),
            errors: rounds.iter().map(|round| round.errors).sum(),
            not_begun: rounds.iter().map(|round| round.not_begun).sum(),
            snapshots: of_whole(|round| round.snapshots),
            // Unless it was there in each round, it was not there.
            caught_up_ms: rounds
                .iter()
                .map(|round| round.caught_up_ms)
                .collect::<Option<Vec<f64>>>()
                .and_then(median),
            caught_up_after_load: rounds.iter().any(|round| round.caught_up_after_load),
        })
    }

    /// What went on beside the load, in words.
    fn beside(&self) -> String {
        let after_load = if self.caught_up_after_load {
            ", after the load"
        } else {
            ""
        };
        match (self.beside, self.caught_up_ms) {
            (Beside::Nothing, _) => "nothing".to_owned(),
            (Beside::Snapshots, _) => format!("{} snapshots cut", self.snapshots),
            (Beside::Newcomer, Some(ms)) => {
                format!("a follower from nothing, there after {ms:.0} ms{after_load}")
            }
            (Beside::Newcomer, None) => "a follower from nothing, not there at the end".to_owned(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "result")]
struct Finished {
    keys: u64,
    pauses: Vec<Paused>,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "BESIDE",
            "",
            "WRITES/S",
            "LONGEST PAUSE ms",
            "P50 µs",
            "P99 µs",
            "MAX µs",
            "NOT DONE",
        ];
        let rows = self.pauses.iter().map(|one| {
            vec![
                one.beside(),
                String::new(),
                one.rate.to_string(),
                format!("{:.1}", one.longest_gap_ms),
                one.p50_us.to_string(),
                one.p99_us.to_string(),
                one.max_us.to_string(),
                (one.errors + one.not_begun).to_string(),
            ]
        });
        let medians = of_several_rounds(self.pauses.iter().map(|one| one.rounds))
            .map_or_else(String::new, |rounds| {
                format!("; medians of {rounds}, but for what was not done: all of it")
            });
        let legend = format!(
            "{} keys of {VALUE_BYTES} B; open loop, {CLIENTS} clients{medians}",
            self.keys
        );
        f.write_str(&render(&headings, rows, &legend))
    }
}

/// Tells of a step that takes its time.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "step")]
struct Step {
    what: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}", self.what)
    }
}

/// An error for a duration in which the newcomer could hardly be beside the load.
pub(crate) fn check_duration(duration: Option<Duration>) -> Result<(), Error> {
    match duration {
        Some(duration) if duration < SHORTEST => Err(Error::Usage {
            problem: format!(
                "--duration {duration:?} is too short for --pause, which starts a node {} s after the load began to count",
                NEWCOMER_AFTER.as_secs()
            ),
            remedy: format!("measure for {} s or longer", SHORTEST.as_secs()),
        }),
        _ => Ok(()),
    }
}

/// Measures all three in each round and prints the table, of what was measured if one fails or is interrupted.
pub(crate) async fn run(
    arguments: &BenchArguments,
    reporter: Reporter,
    interrupts: &Interrupts,
) -> Result<(), Error> {
    // The default number of keys of the workloads would make a snapshot too small to be felt.
    let keys = arguments.keys_or(DEFAULT_KEYS);
    let mut paused = Vec::new();
    let all = all_rounds(arguments, keys, &mut paused, reporter);
    let outcome = interrupts.or(all).await;
    let of_all_rounds = |beside: &Beside| {
        let each: Vec<&Paused> = paused.iter().filter(|one| one.beside == *beside).collect();
        Paused::medians(&each)
    };
    let pauses: Vec<_> = Beside::ALL.iter().filter_map(of_all_rounds).collect();
    if outcome.is_ok() || !pauses.is_empty() {
        reporter.tell(&Finished { keys, pauses });
    }
    outcome
}

async fn all_rounds(
    arguments: &BenchArguments,
    keys: u64,
    paused: &mut Vec<Paused>,
    reporter: Reporter,
) -> Result<(), Error> {
    let rounds = arguments.rounds_or(1);
    for round in 1..=rounds {
        let of_rounds = match rounds {
            1 => String::new(),
            _ => format!(", round {round} of {rounds}"),
        };
        one_round(arguments, keys, &of_rounds, paused, reporter).await?;
    }
    Ok(())
}

async fn one_round(
    arguments: &BenchArguments,
    keys: u64,
    of_rounds: &str,
    measured: &mut Vec<Paused>,
    reporter: Reporter,
) -> Result<(), Error> {
    let tell = |what: String| {
        reporter.tell(&Step {
            what: what + of_rounds,
        });
    };
    tell(format!("writing {keys} keys to two nodes of three"));
    let dir = arguments.dir.as_deref();
    let cluster = OurCluster::start_some(dir, &RUNNING_FIRST, Some(NO_SNAPSHOT)).await?;
    let duration = arguments.duration.unwrap_or(MEASURE);
    let mut bench = Pauses::prepare(cluster, keys, duration).await?;
    for beside in Beside::ALL {
        tell(format!(
            "{} writes/s for {} s, beside {}",
            bench.load.rate.unwrap_or(0),
            duration.as_secs(),
            beside.name()
        ));
        let paused = bench.measure(beside).await?;
        tell(format!(
            "no write for {:.1} ms at the most",
            paused.longest_gap_ms
        ));
        measured.push(paused);
    }
    Ok(())
}

struct Pauses {
    cluster: OurCluster,
    load: Load,
}

impl Pauses {
    /// Writes all keys and finds the rate.
    async fn prepare(mut cluster: OurCluster, keys: u64, duration: Duration) -> Result<Self, Error> {
        let closed = Load {
            clients: CLIENTS,
            keys,
            value_bytes: VALUE_BYTES,
            warm_up: Duration::from_secs(1),
            duration: PROBE,
            ..Load::default()
        };
        let targets = targets(&cluster)?;
        write_all_keys("ours", &targets, &closed).await?;
        let probe = load::run(&targets, &closed).await;
        cluster.check_all_run()?;
        refuse_silence("ours", &probe)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is above zero, and small"
        )]
        let rate = (probe.per_second() / 2.0).max(1.0) as u64;
        let load = Load {
            rate: Some(rate),
            duration,
            ..closed
        };
        Ok(Self { cluster, load })
    }

    async fn measure(&mut self, beside: Beside) -> Result<Paused, Error> {
        let snapshot_log_bytes = match beside {
            Beside::Nothing | Beside::Newcomer => NO_SNAPSHOT,
            Beside::Snapshots => self.quarter_of_the_log(),
        };
        self.cluster
            .restart(&RUNNING_FIRST, Some(snapshot_log_bytes))
            .await?;
        self.settle().await?;
        let targets = targets(&self.cluster)?;
        load::prepare(&targets, &self.load)
            .await
            .map_err(|error| Error::Bench {
                system: "ours",
                problem: error.to_string(),
            })?;
        let before = self.snapshot_indexes().await;
        let load = Load {
            seed: 1 + beside as u32,
            ..self.load.clone()
        };
        let running = tokio::spawn(async move { load::run(&targets, &load).await });
        let mut snapshots = Snapshots::since(before);
        let until = Instant::now() + self.load.warm_up + self.load.duration;
        let mut caught_up_ms = None;
        let mut caught_up_after_load = false;
        if beside == Beside::Newcomer {
            sleep(self.load.warm_up + NEWCOMER_AFTER).await;
            caught_up_ms = self.bring_up_newcomer().await?;
            caught_up_after_load = caught_up_ms.is_some() && Instant::now() > until;
        }
        while !running.is_finished() {
            snapshots.look(&self.snapshot_indexes().await);
            sleep(LOOK_EVERY).await;
        }
        let outcome = running.await.map_err(|error| Error::Bench {
            system: "ours",
            problem: format!("the load broke off: {error}"),
        })?;
        self.cluster.check_all_run()?;
        refuse_silence("ours", &outcome)?;
        Ok(Paused {
            snapshots: snapshots.count,
            caught_up_ms,
            caught_up_after_load,
            ..self.paused(beside, &outcome)
        })
    }

    /// What came of the load itself.
    fn paused(&self, beside: Beside, outcome: &Outcome<CallError>) -> Paused {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a few seconds")]
        let longest_gap_ms = outcome.longest_gap_us as f64 / 1e3;
        Paused {
            beside,
            rounds: 1,
            rate: self.load.rate.unwrap_or(0),
            longest_gap_ms,
            p50_us: outcome.quantile_us(0.5),
            p99_us: outcome.quantile_us(0.99),
            max_us: outcome.max_us(),
            errors: outcome.errors,
            not_begun: outcome.not_begun.unwrap_or(0),
            snapshots: 0,
            caught_up_ms: None,
            caught_up_after_load: false,
        }
    }

    /// As many bytes of log as a quarter of a measurement writes.
    fn quarter_of_the_log(&self) -> u64 {
        let a_second = self.load.rate.unwrap_or(1) * (u64::from(VALUE_BYTES) + ENTRY_OVERHEAD_BYTES);
        (a_second * self.load.duration.as_secs().max(4) / 4).max(1)
    }

    /// Waits until the nodes have applied all and cut the snapshot that was due when they started.
    async fn settle(&self) -> Result<(), Error> {
        let quiet = async {
            let mut last = None;
            loop {
                let statuses = self.cluster.nodes().statuses().await;
                let now: Vec<_> = statuses
                    .iter()
                    .map(|one| (one.snapshot_index, one.last_applied, one.commit_index))
                    .collect();
                let done = now.iter().all(|(_, applied, commit)| applied == commit);
                if done && now.len() == RUNNING_FIRST.len() && last.as_ref() == Some(&now) {
                    return;
                }
                last = Some(now);
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(CATCH_UP_LIMIT, quiet).await.map_err(|_| Error::Late {
            waited: CATCH_UP_LIMIT,
            what: "the nodes have not come to rest".into(),
        })
    }

    async fn snapshot_indexes(&self) -> Vec<(u64, u64)> {
        let statuses = self.cluster.nodes().statuses().await;
        statuses
            .iter()
            .map(|status| (status.id.0, status.snapshot_index.0))
            .collect()
    }

    /// Starts the third node; how long it took to apply what was committed when it started.
    async fn bring_up_newcomer(&mut self) -> Result<Option<f64>, Error> {
        let statuses = self.cluster.nodes().statuses().await;
        let committed = statuses.iter().map(|status| status.commit_index).max();
        let began = Instant::now();
        self.cluster.nodes_mut().start_node(NEWCOMER)?;
        while began.elapsed() < CATCH_UP_LIMIT {
            self.cluster.check_all_run()?;
            let statuses = self.cluster.nodes().statuses().await;
            let newcomer = statuses.iter().find(|status| status.id.0 == NEWCOMER);
            if newcomer.is_some_and(|status| Some(status.last_applied) >= committed) {
                return Ok(Some(began.elapsed().as_secs_f64() * 1e3));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }
}

fn targets(cluster: &OurCluster) -> Result<Vec<AnyTarget>, Error> {
    our_targets(cluster, CLIENTS, load::connections(CLIENTS, None))
}

/// Counts how often a node's snapshot index has moved.
struct Snapshots {
    last: Vec<(u64, u64)>,
    count: u64,
}

impl Snapshots {
    fn since(last: Vec<(u64, u64)>) -> Self {
        Self { last, count: 0 }
    }

    fn look(&mut self, now: &[(u64, u64)]) {
        for (id, index) in now {
            match self.last.iter_mut().find(|(other, _)| other == id) {
                Some((_, last)) if *last < *index => {
                    *last = *index;
                    self.count += 1;
                }
                Some(_) => {}
                // A newcomer's first snapshot was sent to it.
                None => self.last.push((*id, *index)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_rounds_the_medians_count_and_all_that_was_not_done() {
        let round = |longest_gap_ms, snapshots, not_begun, p50_us| Paused {
            beside: Beside::Snapshots,
            rounds: 1,
            rate: 1_000,
            longest_gap_ms,
            p50_us,
            p99_us: 5_000,
            max_us: 50_000,
            errors: 1,
            not_begun,
            snapshots,
            caught_up_ms: Some(longest_gap_ms),
            caught_up_after_load: false,
        };
        let mut rounds = [
            round(90.0, 3, 0, 700),
            round(10.0, 8, 5, 100),
            round(30.0, 4, 2, 600),
        ];
        let medians = Paused::medians(&rounds.each_ref()).unwrap();
        assert!((medians.longest_gap_ms - 30.0).abs() < 1e-9, "{medians:?}");
        assert_eq!((medians.snapshots, medians.rate), (4, 1_000));
        assert_eq!((medians.p50_us, medians.p99_us), (600, 5_000));
        assert_eq!((medians.errors, medians.not_begun), (3, 7));
        assert_eq!(medians.caught_up_ms, Some(30.0));
        rounds[1].caught_up_ms = None;
        let medians = Paused::medians(&rounds.each_ref()).unwrap();
        assert_eq!(medians.caught_up_ms, None);
        assert!(Paused::medians(&[]).is_none());
    }

    #[test]
    fn a_newcomer_that_was_there_only_after_the_load_is_told_so() {
        let paused = |caught_up_ms, caught_up_after_load| Paused {
            beside: Beside::Newcomer,
            rounds: 1,
            rate: 1_000,
            longest_gap_ms: 1.0,
            p50_us: 1,
            p99_us: 1,
            max_us: 1,
            errors: 0,
            not_begun: 0,
            snapshots: 0,
            caught_up_ms,
            caught_up_after_load,
        };
        let rounds = [paused(Some(700.0), false), paused(Some(900.0), true)];
        let medians = Paused::medians(&rounds.each_ref()).unwrap();
        assert_eq!(
            medians.beside(),
            "a follower from nothing, there after 800 ms, after the load"
        );
        assert_eq!(rounds[0].beside(), "a follower from nothing, there after 700 ms");
        assert_eq!(
            paused(None, false).beside(),
            "a follower from nothing, not there at the end"
        );
    }

    #[test]
    fn a_measurement_that_is_over_before_the_newcomer_is_there_is_wrong_usage() {
        assert!(check_duration(None).is_ok() && check_duration(Some(SHORTEST)).is_ok());
        let refused = check_duration(Some(SHORTEST - Duration::from_millis(1))).unwrap_err();
        assert_eq!(refused.exit_status(), 2);
        assert!(refused.to_string().contains("--duration 3.999s"), "{refused}");
    }

    #[test]
    fn a_snapshot_is_counted_when_a_nodes_index_moves_and_a_newcomers_first_is_not() {
        let mut snapshots = Snapshots::since(vec![(1, 10), (2, 10)]);
        snapshots.look(&[(1, 10)]);
        assert_eq!(snapshots.count, 0);
        snapshots.look(&[(1, 20), (2, 10), (3, 20)]);
        snapshots.look(&[(1, 20), (2, 25), (3, 20)]);
        assert_eq!(snapshots.count, 2);
    }
}

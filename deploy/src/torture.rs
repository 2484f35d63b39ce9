//! `deploy torture`: a cluster of real processes under load, with nodes killed and paused and links cut, and a check
//! that what its clients saw is linearizable.

mod cluster;
mod events;
mod faults;
mod files;
mod judgement;
mod links;
mod page;
mod plan;
mod time_line;
mod workload;

use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sim::linearizability::{self, History, Verdict};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::cluster::{Cluster, NODES};
use self::events::{Event, Summary};
use self::faults::{Done, FaultCounts, Tormentor};
use self::files::ReportDirectory;
use self::judgement::Judgement;
use self::plan::Plan;
use self::time_line::TimeLine;
use self::workload::{CLIENTS, Clients, Clock, Progress};
use crate::arguments::TortureArguments;
use crate::error::Error;
use crate::report::Reporter;
use crate::signals::StopSignals;

/// How long the first leader may take.
const LEADER_LIMIT: Duration = Duration::from_secs(60);
/// How often the cluster is started anew, on other ports, when a node ends at once: another program may take a
/// port between the search for it and the node's start.
const START_ATTEMPTS: usize = 3;
/// A run in which less is acknowledged in every second before the faults begin shows nothing.
const LEAST_PER_SECOND: u64 = 20;
/// How long that rate may take to come about.
const RATE_LIMIT: Duration = Duration::from_secs(30);
/// How long after the last fault every client must be served.
const SERVED_LIMIT: Duration = Duration::from_secs(60);
/// How long the nodes may take to hold the same once nobody writes.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(60);
/// How often a condition is looked at while waiting for it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs a torture; false if a check did not hold.
pub(crate) async fn run(arguments: &TortureArguments, reporter: Reporter) -> Result<bool, Error> {
    let mut signals = StopSignals::listen()?;
    let report = arguments.report.as_deref();
    let report = report.map(ReportDirectory::open).transpose()?;
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let mut stage = bounded(&mut signals, Stage::set(seed, reporter)).await?;
    let played = bounded(
        &mut signals,
        play(&mut stage.cluster, arguments.duration, seed, reporter),
    )
    .await;
    let report_dir = report.as_ref().map(ReportDirectory::path);
    let holds = match played {
        Ok(outcome) => conclude(&outcome, report_dir, stage.dir.path(), seed, reporter),
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => Err(error),
    };
    match holds {
        Ok(true) => Ok(true),
        Ok(false) => {
            let dir = stage.keep();
            // Nothing is left to be done if stderr is closed.
            let _ = writeln!(
                std::io::stderr(),
                "the nodes' logs and data and the report are kept in {}",
                dir.display()
            );
            Ok(false)
        }
        Err(source) => Err(Error::Kept {
            source: Box::new(source),
            dir: stage.keep(),
        }),
    }
}

/// Runs one part, unless a signal to stop comes.
async fn bounded<T>(
    signals: &mut StopSignals,
    part: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        outcome = part => outcome,
        () = signals.next() => Err(Error::Interrupted),
    }
}

/// A running cluster and its directory. The cluster comes first, so that its nodes are gone before the
/// directory is.
struct Stage {
    cluster: Cluster,
    dir: TempDir,
}

impl Stage {
    /// Starts a cluster on free ports and waits for its first leader.
    async fn set(seed: u64, reporter: Reporter) -> Result<Self, Error> {
        let mut attempts = 1;
        loop {
            let mut stage = Self::start(seed, reporter).await?;
            match stage.cluster.wait_for_leader(LEADER_LIMIT).await {
                Ok(_) => return Ok(stage),
                Err(error @ Error::NodeEnded { .. }) if attempts < START_ATTEMPTS => {
                    reporter.tell(&Event::StartAgain {
                        why: error.to_string(),
                    });
                    attempts += 1;
                }
                Err(error) => {
                    return Err(Error::Kept {
                        source: Box::new(error),
                        dir: stage.keep(),
                    });
                }
            }
        }
    }

    async fn start(seed: u64, reporter: Reporter) -> Result<Self, Error> {
        let dir = tempfile::Builder::new()
            .prefix("kv-torture-")
            .tempdir()
            .map_err(Error::system("create a temporary directory"))?;
        let path = dir
            .path()
            .canonicalize()
            .map_err(Error::system("find the temporary directory"))?;
        reporter.tell(&Event::Start {
            nodes: NODES,
            clients: CLIENTS,
            seed,
            dir: path.clone(),
        });
        let cluster = Cluster::start(&path).await?;
        Ok(Self { cluster, dir })
    }

    /// Ends the cluster and leaves its directory for the user to look at.
    fn keep(self) -> PathBuf {
        drop(self.cluster);
        self.dir.keep()
    }
}

/// What came of it, before it is judged.
struct Played {
    history: History,
    faults: Vec<Done>,
    counts: FaultCounts,
    flaws: Vec<String>,
    served_after: Option<Duration>,
    nodes_agree: bool,
    nodes: Vec<u64>,
    length_us: u64,
}

/// The story itself, from the clients' first operation to the last read.
async fn play(
    cluster: &mut Cluster,
    duration: Duration,
    seed: u64,
    reporter: Reporter,
) -> Result<Played, Error> {
    let (endpoints, nodes) = (cluster.endpoints(), cluster.ids());
    let clock = Clock::start();
    let clients = Clients::start(&endpoints, seed, clock).await?;
    let progress = clients.progress();
    let acknowledged_per_second = wait_for_rate(&progress).await?;
    reporter.tell(&Event::Ready {
        leader_id: cluster.leader().await.unwrap_or_default(),
        acknowledged_per_second,
    });
    let until_us = clock.now_us() + u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2);
    let mut tormentor = Tormentor {
        cluster,
        clock,
        progress: progress.clone(),
        reporter,
        done: Vec::new(),
        counts: FaultCounts::default(),
        flaws: Vec::new(),
    };
    tormentor.run(Plan::new(seed, NODES), until_us).await?;
    reporter.tell(&Event::Healed {
        at_ms: clock.now_us() / 1_000,
    });
    let served_after = wait_until_served(&mut tormentor).await?;
    let Tormentor {
        done,
        counts,
        mut flaws,
        ..
    } = tormentor;
    let mut operations = clients.stop().await?;
    let mut nodes_agree = false;
    if served_after.is_some() {
        operations.extend(workload::read_all(&endpoints, clock).await?);
        nodes_agree = cluster.wait_for_agreement(AGREEMENT_LIMIT).await;
    }
    operations.sort_by_key(|operation| (operation.start_us, operation.client));
    // What makes no sense by itself, as a page out of order, cannot be in a history. Only reads can be told such things,
    // and without a read a history says less and nothing wrong.
    let (sound, unsound): (Vec<_>, Vec<_>) = operations
        .into_iter()
        .partition(|operation| History::new(vec![operation.clone()]).is_ok());
    flaws.extend(unsound.iter().map(|operation| {
        let what = linearizability::describe(operation);
        format!("client {} was told what is no answer: {what}", operation.client)
    }));
    let history = History::new(sound).expect("each operation makes sense by itself");
    Ok(Played {
        nodes_agree,
        history,
        faults: done,
        counts,
        flaws,
        served_after,
        nodes,
        length_us: clock.now_us(),
    })
}

/// Waits for a second in which enough is acknowledged.
async fn wait_for_rate(progress: &Progress) -> Result<u64, Error> {
    let began = Instant::now();
    while began.elapsed() < RATE_LIMIT {
        let before = progress.acknowledged();
        sleep(Duration::from_secs(1)).await;
        let in_a_second = progress.acknowledged() - before;
        if in_a_second >= LEAST_PER_SECOND {
            return Ok(in_a_second);
        }
    }
    Err(Error::Late {
        waited: RATE_LIMIT,
        what: format!("fewer than {LEAST_PER_SECOND} operations/s before the faults begin: the run is void"),
    })
}

/// Waits until every client is served, now that nothing is wrong any more; how long it took, if they are.
async fn wait_until_served(tormentor: &mut Tormentor<'_>) -> Result<Option<Duration>, Error> {
    let (began, began_us) = (Instant::now(), tormentor.clock.now_us());
    while !tormentor.progress.all_served_since(began_us) {
        if began.elapsed() > SERVED_LIMIT {
            tormentor.reporter.tell(&Event::Flaw {
                what: format!("the faults are over, and not every client is served within {SERVED_LIMIT:?}"),
            });
            return Ok(None);
        }
        tormentor.revive()?;
        sleep(LOOK_EVERY).await;
    }
    tormentor.reporter.tell(&Event::Served {
        after_ms: milliseconds(began.elapsed()),
    });
    Ok(Some(began.elapsed()))
}

/// Judges what was played, tells the summary and writes the report. Whether every check held.
fn conclude(
    played: &Played,
    report_dir: Option<&Path>,
    kept_dir: &Path,
    seed: u64,
    reporter: Reporter,
) -> Result<bool, Error> {
    reporter.tell(&Event::Checking {
        operations: played.history.operations().len(),
    });
    let judgement = judgement::judge(&played.history);
    let summary = sum_up(played, &judgement, seed);
    let time_line = TimeLine::new(
        played.history.operations(),
        &played.faults,
        &played.nodes,
        judgement.longest_gap_us,
    );
    if let Some(window) = &judgement.window {
        reporter.tell(&Event::Flaw {
            what: linearizability::to_text(window),
        });
    }
    reporter.tell(&time_line);
    reporter.tell(&summary);
    // A run that failed is worth a report even where none was asked for.
    let wanted = report_dir.or_else(|| (!summary.holds()).then_some(kept_dir));
    if let Some(dir) = wanted {
        write_report(dir, played, &judgement, &summary, &time_line)?;
    }
    Ok(summary.holds())
}

fn sum_up(played: &Played, judgement: &Judgement, seed: u64) -> Summary {
    let total = judgement.total();
    let (from_us, to_us) = judgement.longest_gap_us;
    Summary {
        verdict: match judgement.verdict {
            Verdict::Linearizable => events::LINEARIZABLE,
            Verdict::Violation(_) => "not linearizable",
            Verdict::Undecided { .. } => "undecided",
        },
        lost: judgement.lost,
        duplicated: judgement.duplicated,
        nodes_agree: played.nodes_agree,
        other_flaws: played.flaws.len(),
        operations: total.acknowledged + total.failed + total.unknown,
        acknowledged: total.acknowledged,
        failed: total.failed,
        unknown: total.unknown,
        faults: played.counts,
        longest_gap_ms: (to_us - from_us) / 1_000,
        served_after_ms: played.served_after.map(milliseconds),
        seconds: Duration::from_micros(played.length_us).as_secs_f64(),
        seed,
    }
}

fn write_report(
    dir: &Path,
    played: &Played,
    judgement: &Judgement,
    summary: &Summary,
    time_line: &TimeLine,
) -> Result<(), Error> {
    let run = page::Run {
        summary,
        judgement,
        operations: played.history.operations(),
        faults: &played.faults,
        nodes: &played.nodes,
        flaws: &played.flaws,
    };
    let flaws: String = played.flaws.iter().map(|flaw| format!("{flaw}\n")).collect();
    let contents = files::Contents {
        page: page::render(&run),
        text: format!("{summary}\n{flaws}\n{time_line}\n"),
        history: &played.history,
        window: judgement.window.as_ref(),
    };
    files::write(dir, &contents)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! `deploy demo`: three nodes, several clients, and a leader that dies in the middle.

mod agreement;
mod clients;
mod events;
mod history;
pub(crate) mod progress;

use std::future::Future;
use std::io::Write as _;
use std::time::{Duration, Instant};

use clerk::{Clerk, Scan};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use self::clients::{CLIENTS, Clients, Experience, LISTS, as_text};
use self::events::{Event, Summary};
use self::history::{Flaw, History, Outcome, Values};
use self::progress::Progress;
use crate::cluster_file::{ClusterFile, nodes_on_ports};
use crate::error::Error;
use crate::local::{Leader, LocalCluster, new_cluster_id, write_cluster_file};
use crate::ports;
use crate::report::Reporter;
use crate::signals::StopSignals;

/// How many nodes.
const NODES: usize = 3;
/// How long the clients write before the leader is killed.
const BEFORE_KILL: Duration = Duration::from_secs(5);
/// How long they write on under the new leader.
const UNDER_NEW_LEADER: Duration = Duration::from_secs(4);
/// How long they write on while the killed node catches up.
const WHILE_CATCHING_UP: Duration = Duration::from_secs(4);
/// How often the count of acknowledged writes is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long the first leader, and the next one, may take. Elections take well under a second on a
/// machine that is not overloaded.
const LEADER_LIMIT: Duration = Duration::from_secs(15);
/// How long the nodes may take to hold the same data once nobody writes.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(10);
/// How long the whole may take.
const LIMIT: Duration = Duration::from_secs(55);
/// How often the cluster is started anew, on other ports, when a node ends at once: another program may take a
/// port between the search for it and the node's start.
const START_ATTEMPTS: usize = 3;
/// How often a condition is looked at while waiting for it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the demo; false if a check did not hold.
pub(crate) async fn run(reporter: Reporter) -> Result<bool, Error> {
    let began = Instant::now();
    let mut signals = StopSignals::listen()?;
    let mut stage = bounded(began, &mut signals, Stage::set(reporter)).await?;
    let outcome = bounded(began, &mut signals, play(&mut stage.cluster, reporter)).await;
    match outcome {
        Ok(summary) => {
            let holds = summary.holds();
            let kept = if holds { None } else { Some(stage.keep()) };
            reporter.tell(&summary);
            if let Some(dir) = kept {
                // Nothing is left to be done if stderr is closed.
                let _ = writeln!(
                    std::io::stderr(),
                    "the nodes' logs and data are kept in {}",
                    dir.display()
                );
            }
            Ok(holds)
        }
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(source) => Err(Error::Kept {
            source: Box::new(source),
            dir: stage.keep(),
        }),
    }
}

/// Runs one part of the demo, unless the time for the whole is up or a signal to stop comes.
async fn bounded<T>(
    began: Instant,
    signals: &mut StopSignals,
    part: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = |_| Error::Late {
        waited: LIMIT,
        what: "the demo is not done; is the machine overloaded?".into(),
    };
    tokio::select! {
        outcome = timeout(LIMIT.saturating_sub(began.elapsed()), part) => outcome.unwrap_or_else(|up| Err(late(up))),
        () = signals.next() => Err(Error::Interrupted),
    }
}

/// A running cluster and its directory. The cluster comes first, so that its nodes are gone before the
/// directory is.
struct Stage {
    cluster: LocalCluster,
    dir: TempDir,
}

impl Stage {
    /// Starts a cluster on free ports and waits for its first leader.
    async fn set(reporter: Reporter) -> Result<Self, Error> {
        let mut attempts = 1;
        loop {
            let mut stage = Self::start(reporter)?;
            let began = Instant::now();
            match stage.cluster.wait_for_leader(LEADER_LIMIT).await {
                Ok(Leader { id, term }) => {
                    reporter.tell(&Event::Leader {
                        id,
                        term,
                        after_ms: milliseconds(began.elapsed()),
                    });
                    return Ok(stage);
                }
                Err(Error::NodeEnded { node, status, .. }) if attempts < START_ATTEMPTS => {
                    reporter.tell(&Event::StartAgain { id: node, status });
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

    fn start(reporter: Reporter) -> Result<Self, Error> {
        let dir = tempfile::Builder::new()
            .prefix("kv-demo-")
            .tempdir()
            .map_err(Error::system("create a temporary directory"))?;
        let path = dir
            .path()
            .canonicalize()
            .map_err(Error::system("find the temporary directory"))?;
        let file = ClusterFile::new(&path, nodes_on_ports(&ports::find_free(2 * NODES)?), None)?;
        write_cluster_file(&path, &file, &new_cluster_id())?;
        reporter.tell(&Event::Start {
            nodes: NODES,
            dir: path.clone(),
        });
        let cluster = LocalCluster::start(&path, file)?;
        for id in cluster.ids() {
            tell_started(&cluster, id, false, reporter);
        }
        Ok(Self { cluster, dir })
    }

    /// Ends the cluster and leaves its directory for the user to look at.
    fn keep(self) -> std::path::PathBuf {
        drop(self.cluster);
        self.dir.keep()
    }
}

fn tell_started(cluster: &LocalCluster, id: u64, again: bool, reporter: Reporter) {
    let entry = cluster.file().nodes.iter().find(|entry| entry.id == id);
    if let (Some(node), Some(entry)) = (cluster.node(id), entry) {
        let endpoint = entry.client_addr.clone();
        reporter.tell(&Event::NodeStarted {
            id,
            pid: node.pid(),
            endpoint,
            again,
        });
    }
}

/// The story itself, from the clients' first write to the last check.
async fn play(cluster: &mut LocalCluster, reporter: Reporter) -> Result<Summary, Error> {
    let endpoints: Vec<String> = cluster
        .file()
        .nodes
        .iter()
        .map(|node| node.client_addr.clone())
        .collect();
    let clients = Clients::start(&endpoints).await?;
    let progress = clients.progress();
    reporter.tell(&Event::Clients {
        clients: CLIENTS,
        lists: LISTS.len(),
    });
    write_for(BEFORE_KILL, &progress, reporter).await;

    let (killed, killed_at) = kill_leader(cluster, reporter).await?;
    let Failover { leader, gap } = wait_for_failover(cluster, killed, killed_at, &progress).await?;
    let failover_ms = milliseconds(gap);
    reporter.tell(&Event::Failover {
        id: leader.id,
        term: leader.term,
        failover_ms,
    });
    write_for(UNDER_NEW_LEADER, &progress, reporter).await;

    cluster.start_node(killed)?;
    tell_started(cluster, killed, true, reporter);
    write_for(WHILE_CATCHING_UP, &progress, reporter).await;
    let experiences = clients.stop().await?;
    tell_written(&experiences, reporter);
    let nodes_agree = nodes_agree(cluster, reporter).await;
    let flaws = check(&clients::connect(&endpoints).await?, &experiences).await?;
    Ok(conclude(&experiences, &flaws, failover_ms, nodes_agree, reporter))
}

/// Lets the clients write for `length` and tells from time to time how many writes were acknowledged.
async fn write_for(length: Duration, progress: &Progress, reporter: Reporter) {
    let began = Instant::now();
    while let Some(left) = length.checked_sub(began.elapsed()) {
        sleep(left.min(TELL_EVERY)).await;
        reporter.tell(&Event::Written {
            acknowledged: progress.count(),
        });
    }
}

/// Kills whoever leads now; its id, and when.
async fn kill_leader(cluster: &mut LocalCluster, reporter: Reporter) -> Result<(u64, Instant), Error> {
    let leader = cluster.wait_for_leader(LEADER_LIMIT).await?;
    let pid = cluster.node(leader.id).map_or(0, |node| node.pid());
    let killed_at = Instant::now();
    cluster.kill(leader.id);
    reporter.tell(&Event::Killed { id: leader.id, pid });
    Ok((leader.id, killed_at))
}

/// Who leads after the kill, and how long no write was acknowledged around it.
struct Failover {
    leader: Leader,
    gap: Duration,
}

/// Waits until another node leads and has acknowledged a write.
async fn wait_for_failover(
    cluster: &LocalCluster,
    killed: u64,
    killed_at: Instant,
    progress: &Progress,
) -> Result<Failover, Error> {
    let look = async {
        let leader = loop {
            match cluster.leader().await {
                Some(leader) if leader.id != killed => break leader,
                _ => sleep(LOOK_EVERY).await,
            }
        };
        // An acknowledgement of the old leader may have been on its way when it died: only one from here on
        // shows that the gap is over.
        let seen_at = Instant::now();
        while !progress.any_since(seen_at) {
            sleep(LOOK_EVERY).await;
        }
        Failover {
            leader,
            gap: progress.longest_gap(killed_at, seen_at),
        }
    };
    let what = format!("no write was acknowledged under a new leader after node {killed} was killed");
    timeout(LEADER_LIMIT, look).await.map_err(|_| Error::Late {
        waited: LEADER_LIMIT,
        what,
    })
}

fn tell_written(experiences: &[Experience], reporter: Reporter) {
    let count = |outcome| {
        experiences
            .iter()
            .map(|experience| experience.history.count(outcome))
            .sum()
    };
    reporter.tell(&Event::ClientsDone {
        acknowledged: count(Outcome::Acknowledged),
        unknown: count(Outcome::Unknown),
        not_done: count(Outcome::NotDone),
    });
}

async fn nodes_agree(cluster: &LocalCluster, reporter: Reporter) -> bool {
    match agreement::wait(cluster, AGREEMENT_LIMIT).await {
        Ok(agreed) => {
            reporter.tell(&Event::Agreement {
                applied_index: agreed.applied_index,
                keys: agreed.items.len(),
            });
            true
        }
        Err(difference) => {
            reporter.tell(&Event::Disagreement {
                waited_s: AGREEMENT_LIMIT.as_secs(),
                difference,
            });
            false
        }
    }
}

/// What is wrong with what the cluster holds now.
async fn check(clerk: &Clerk, experiences: &[Experience]) -> Result<Vec<Flaw>, Error> {
    let items = clerk.scan_all(Scan::all()).await.map_err(|source| Error::Clerk {
        action: "cannot read the data back".into(),
        source,
    })?;
    let values: Values = items
        .iter()
        .map(|item| (as_text(&item.key), as_text(&item.value)))
        .collect();
    let histories: Vec<History> = experiences
        .iter()
        .map(|experience| experience.history.clone())
        .collect();
    Ok(history::judge(&histories, &values))
}

/// Tells every flaw and sums up. `flaws` is what is wrong at the end; what the clients read back in between
/// may have been wrong without a write being lost, so it counts by itself.
fn conclude(
    experiences: &[Experience],
    flaws: &[Flaw],
    failover_ms: u64,
    nodes_agree: bool,
    reporter: Reporter,
) -> Summary {
    let read_back: Vec<&Flaw> = experiences
        .iter()
        .flat_map(|experience| &experience.flaws)
        .collect();
    for flaw in &read_back {
        reporter.tell(&Event::FlawReadBack {
            what: flaw.to_string(),
        });
    }
    for flaw in flaws {
        reporter.tell(&Event::Flaw {
            what: flaw.to_string(),
        });
    }
    let (lost, duplicated) = (history::count_lost(flaws), history::count_duplicated(flaws));
    Summary {
        acknowledged: experiences
            .iter()
            .map(|experience| experience.history.count(Outcome::Acknowledged))
            .sum(),
        lost,
        duplicated,
        failover_ms,
        nodes_agree,
        other_flaws: flaws.len() - lost - duplicated + read_back.len(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

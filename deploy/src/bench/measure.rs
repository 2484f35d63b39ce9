//! One measurement of one workload on one cluster.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use clerk::load::{self, Load, Outcome};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::system::{AnyTarget, CallError, Cluster};
use super::usage::{self, Usage};
use super::workload::Workload;
use crate::error::Error;

/// How long it may take to write the keys, in all and for each of them: far slower than any store is.
const PREPARE_LIMIT: Duration = Duration::from_secs(60);
const PREPARE_LIMIT_A_KEY: Duration = Duration::from_millis(1);
/// How soon it is noticed that a node has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What came of one workload.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) seconds: f64,
    pub(crate) operations: u64,
    pub(crate) errors: u64,
    pub(crate) ops_per_second: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
    pub(crate) longest_gap_us: u64,
    /// Of all nodes together.
    pub(crate) server_cpu_us_per_op: Option<f64>,
    /// Of this process, in which the clients run.
    pub(crate) client_cpu_us_per_op: Option<f64>,
    pub(crate) nodes: Vec<NodeUsage>,
}

/// What one node used for it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeUsage {
    pub(crate) id: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
}

impl Measurement {
    /// A measurement for tests, with nodes of so much memory.
    #[cfg(test)]
    pub(crate) fn with_resident_bytes(nodes: &[u64]) -> Self {
        let node = |(id, resident_bytes): (u64, &u64)| NodeUsage {
            id,
            cpu_seconds: 1.0,
            resident_bytes: *resident_bytes,
        };
        Self {
            seconds: 1.0,
            operations: 1_000,
            errors: 0,
            ops_per_second: 1_000.0,
            p50_us: 100,
            p99_us: 200,
            p999_us: 300,
            max_us: 400,
            longest_gap_us: 500,
            server_cpu_us_per_op: Some(60.0),
            client_cpu_us_per_op: Some(20.0),
            nodes: (1..).zip(nodes).map(node).collect(),
        }
    }

    /// The memory of each node.
    pub(crate) fn resident_bytes(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.resident_bytes).collect()
    }

    /// The memory of the largest node.
    pub(crate) fn largest_resident_bytes(&self) -> Option<u64> {
        self.nodes.iter().map(|node| node.resident_bytes).max()
    }
}

/// Puts the workload on the cluster. A node that ends meanwhile is an error, at once.
pub(crate) async fn measure(
    cluster: &mut Cluster,
    workload: Workload,
    keys: u64,
    duration: Duration,
) -> Result<Measurement, Error> {
    let load = workload.load(keys, duration);
    let targets = cluster.targets(load.clients).await?;
    let prepared = prepare(cluster.name(), keys, load::prepare(&targets, &load));
    while_all_run(cluster, prepared).await??;
    // The snapshots are of the time in which the load counts; the clients go on meanwhile.
    let from = Instant::now() + load.warm_up;
    let (over, is_over) = oneshot::channel::<()>();
    let run = async {
        let outcome = load::run(&targets, &load).await;
        drop(over);
        Ok(outcome)
    };
    let watch = async {
        while_all_run(cluster, sleep_until(from)).await?;
        let before = Snapshot::take(cluster)?;
        while_all_run(cluster, sleep_until(from + load.duration)).await?;
        let after = Snapshot::take(cluster)?;
        // Calls that are still out may take long if nobody is there to answer them.
        let _ = while_all_run(cluster, is_over).await?;
        Ok((before, after))
    };
    let (outcome, (before, after)) = tokio::try_join!(run, watch)?;
    conclude(cluster.name(), &outcome, &after.since(&before))
}

/// Waits for `work` as long as all nodes run.
async fn while_all_run<T>(cluster: &mut Cluster, work: impl Future<Output = T>) -> Result<T, Error> {
    let mut work = pin!(work);
    loop {
        let done = timeout(LOOK_EVERY, work.as_mut()).await;
        cluster.check_all_run()?;
        if let Ok(done) = done {
            return Ok(done);
        }
    }
}

/// Sets every key once, within a limit of time.
pub(crate) async fn write_all_keys(
    system: &'static str,
    targets: &[AnyTarget],
    load: &Load,
) -> Result<(), Error> {
    prepare(system, load.keys, load::write_all_keys(targets, load)).await
}

/// The same with these writes, whichever way they set the keys.
pub(crate) async fn prepare(
    system: &'static str,
    keys: u64,
    writes: impl Future<Output = Result<(), CallError>>,
) -> Result<(), Error> {
    let a_key = u32::try_from(keys).unwrap_or(u32::MAX);
    let limit = PREPARE_LIMIT + PREPARE_LIMIT_A_KEY * a_key;
    let written = timeout(limit, writes).await.map_err(|_| Error::Late {
        waited: limit,
        what: format!("{system} has not taken {keys} keys"),
    })?;
    written.map_err(|error| Error::Bench {
        system,
        problem: format!("a key could not be written: {error}"),
    })
}

/// The error for a load of which no call succeeded.
pub(crate) fn refuse_silence(system: &'static str, outcome: &Outcome<CallError>) -> Result<(), Error> {
    if outcome.operations > 0 {
        return Ok(());
    }
    let first = outcome.first_error.as_ref();
    Err(Error::Bench {
        system,
        problem: first.map_or_else(
            || "no call ended in time".to_owned(),
            |error| format!("no call succeeded: {error}"),
        ),
    })
}

fn conclude(
    system: &'static str,
    outcome: &Outcome<CallError>,
    used: &Snapshot,
) -> Result<Measurement, Error> {
    refuse_silence(system, outcome)?;
    #[expect(clippy::cast_precision_loss, reason = "a share is for people")]
    let per_op = |cpu: Duration| cpu.as_secs_f64() * 1e6 / outcome.operations as f64;
    let servers = used.nodes.iter().map(|(_, usage)| usage.cpu).sum();
    Ok(Measurement {
        seconds: outcome.measured.as_secs_f64(),
        operations: outcome.operations,
        errors: outcome.errors,
        ops_per_second: outcome.per_second(),
        p50_us: outcome.quantile_us(0.5),
        p99_us: outcome.quantile_us(0.99),
        p999_us: outcome.quantile_us(0.999),
        max_us: outcome.max_us(),
        longest_gap_us: outcome.longest_gap_us,
        server_cpu_us_per_op: (!used.nodes.is_empty()).then(|| per_op(servers)),
        client_cpu_us_per_op: used.client.map(|usage| per_op(usage.cpu)),
        nodes: used.nodes.iter().map(node_usage).collect(),
    })
}

fn node_usage((id, usage): &(u64, Usage)) -> NodeUsage {
    NodeUsage {
        id: *id,
        cpu_seconds: usage.cpu.as_secs_f64(),
        resident_bytes: usage.resident_bytes,
    }
}

/// What all processes have used.
struct Snapshot {
    nodes: Vec<(u64, Usage)>,
    client: Option<Usage>,
}

impl Snapshot {
    fn take(cluster: &Cluster) -> Result<Self, Error> {
        Ok(Self {
            nodes: usage::of_all(&cluster.usage(), cluster.name())?,
            client: usage::of(std::process::id()),
        })
    }

    /// The time that was used since `earlier`, and the memory now.
    fn since(self, earlier: &Self) -> Self {
        let minus = |now: Usage, before: Usage| Usage {
            cpu: now.cpu.saturating_sub(before.cpu),
            ..now
        };
        let before = |id| earlier.nodes.iter().find(|(other, _)| *other == id);
        let nodes = self
            .nodes
            .iter()
            .filter_map(|(id, now)| Some((*id, minus(*now, before(*id)?.1))));
        Self {
            nodes: nodes.collect(),
            client: self
                .client
                .zip(earlier.client)
                .map(|(now, before)| minus(now, before)),
        }
    }
}

//! `bench`: puts a load on the cluster and tells throughput and latencies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clerk::{Clerk, ClerkBuilder, Error};
use hdrhistogram::Histogram;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::arguments::{Format, Load, Operation};
use crate::failure::{Failure, Status};
use crate::is_json;
use crate::output;

/// The longest warm-up; short runs warm up for a fifth of their duration.
const LONGEST_WARM_UP: Duration = Duration::from_secs(2);
/// Latencies are kept to three digits up to a minute; longer ones count as a minute.
const LONGEST_LATENCY_US: u64 = 60_000_000;
/// How many clients share a connection, unless said: enough for the server to take several requests at once
/// off the socket, few enough for a second connection to use a second core.
const CLIENTS_PER_CONNECTION: u32 = 32;
/// How many connections are chosen at most: with 64 clients two were faster than one, and four slower than two.
const MOST_CHOSEN_CONNECTIONS: u32 = 2;
/// More calls in flight than this wait inside the clerk, which is not what is to be measured.
const MOST_CLIENTS_PER_CONNECTION: u32 = 1_024;
/// How many keys are written at once before a benchmark that reads.
const PRELOADS_IN_FLIGHT: u64 = 64;

/// Runs the benchmark and prints its report.
pub(crate) async fn run(settings: ClerkBuilder, format: Format, load: Load) -> Result<Status, Failure> {
    let connections = connections(&load);
    let per_connection = load
        .clients
        .div_ceil(connections)
        .clamp(1, MOST_CLIENTS_PER_CONNECTION);
    let settings = settings.max_in_flight(per_connection as usize);
    let clerks: Vec<Clerk> = (0..connections)
        .map(|_| settings.clone().build())
        .collect::<Result<_, Error>>()?;
    prepare(&clerks, &load).await?;
    let (tally, seconds) = measure(&clerks, &load).await;
    let report = Report::new(&load, &tally, seconds);
    if is_json(format) {
        output::print_json(&report)?;
    } else {
        output::print_line(&report.text(connections))?;
    }
    match tally.first_error {
        Some(error) if report.operations == 0 => Err(Failure::from(error).at("no operation succeeded")),
        _ => Ok(Status::Done),
    }
}

fn connections(load: &Load) -> u32 {
    match load.connections {
        0 => {
            let chosen = load.clients.div_ceil(CLIENTS_PER_CONNECTION);
            let needed = load.clients.div_ceil(MOST_CLIENTS_PER_CONNECTION);
            chosen.clamp(1, MOST_CHOSEN_CONNECTIONS).max(needed)
        }
        chosen => chosen.min(load.clients),
    }
}

/// Opens the connections and sessions; writes the keys if they are to be read.
async fn prepare(clerks: &[Clerk], load: &Load) -> Result<(), Error> {
    for clerk in clerks {
        clerk.put(key(0), value(load)).await?;
    }
    if matches!(load.op, Operation::Put | Operation::Append) {
        return Ok(());
    }
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for n in 0..PRELOADS_IN_FLIGHT.min(load.keys) {
        let (clerk, load, next) = (pick(clerks, n).clone(), load.clone(), Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= load.keys {
                    return Ok(());
                }
                clerk.put(key(number), value(&load)).await?;
            }
        });
    }
    writers.join_all().await.into_iter().collect()
}

/// Runs all clients and gives what they counted, with the seconds that it took.
async fn measure(clerks: &[Clerk], load: &Load) -> (Tally, f64) {
    let warm_up = (load.duration / 5).min(LONGEST_WARM_UP);
    let start = Instant::now();
    let clock = Clock {
        start,
        from: start + warm_up,
        until: start + warm_up + load.duration,
    };
    let issued = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for number in 0..load.clients {
        let clerk = pick(clerks, number.into()).clone();
        let client = Client::new(clerk, load.clone(), number.into(), Arc::clone(&issued));
        clients.spawn(client.run(clock));
    }
    let mut total = Tally::new();
    while let Some(ended) = clients.join_next().await {
        // A client that broke off has counted nothing.
        if let Ok(tally) = ended {
            total.add(tally);
        }
    }
    // Calls that were still out at the end have been waited for: they belong to the time measured.
    let seconds = clock
        .until
        .max(Instant::now())
        .duration_since(clock.from)
        .as_secs_f64();
    (total, seconds)
}

#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    /// Calls that begin earlier warm up.
    from: Instant,
    /// No call begins later.
    until: Instant,
}

struct Client {
    clerk: Clerk,
    load: Load,
    value: Bytes,
    random: Xoshiro256PlusPlus,
    /// How many calls all clients have begun, to keep a rate.
    issued: Arc<AtomicU64>,
}

impl Client {
    fn new(clerk: Clerk, load: Load, number: u64, issued: Arc<AtomicU64>) -> Self {
        let value = value(&load);
        Self {
            clerk,
            load,
            value,
            random: Xoshiro256PlusPlus::seed_from_u64(number),
            issued,
        }
    }

    async fn run(mut self, clock: Clock) -> Tally {
        let mut tally = Tally::new();
        loop {
            let due = self.wait_until_due(clock).await;
            // Calls that were due and could not begin in time are not begun: the end is the end.
            if due.max(Instant::now()) >= clock.until {
                return tally;
            }
            let outcome = self.call().await;
            if due >= clock.from {
                tally.count(outcome, due.elapsed());
            }
        }
    }

    /// When the next call counts as begun. With a rate that is when it was due, even if all clients were
    /// busy then: a stall shows in every call that it held up.
    async fn wait_until_due(&self, clock: Clock) -> Instant {
        let Some(rate) = self.load.rate else {
            return Instant::now();
        };
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a schedule of seconds is exact to the microsecond"
        )]
        let due = clock.start + Duration::from_secs_f64(number as f64 / rate as f64);
        sleep_until(due.min(clock.until)).await;
        due
    }

    async fn call(&mut self) -> Result<(), Error> {
        let key = key(self.random.random_range(0..self.load.keys));
        let reads = match self.load.op {
            Operation::Get => true,
            Operation::Mixed => self.random.random_bool(0.5),
            Operation::Put => false,
            Operation::Append => return self.append(&key).await,
        };
        if reads {
            self.clerk.get(&key).await.map(drop)
        } else {
            self.clerk.put(&key, &self.value).await.map(drop)
        }
    }

    /// A value that has grown to its limit starts anew.
    async fn append(&self, key: &str) -> Result<(), Error> {
        match self.clerk.append(key, &self.value).await {
            Err(Error::InvalidArgument(_)) => self.clerk.put(key, &self.value).await.map(drop),
            outcome => outcome.map(drop),
        }
    }
}

/// What calls came to.
struct Tally {
    latencies_us: Histogram<u64>,
    errors: u64,
    first_error: Option<Error>,
}

impl Tally {
    fn new() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LONGEST_LATENCY_US, 3)
            .expect("the bounds are in order and three digits are within what the histogram takes");
        Self {
            latencies_us,
            errors: 0,
            first_error: None,
        }
    }

    fn count(&mut self, outcome: Result<(), Error>, took: Duration) {
        match outcome {
            Ok(()) => {
                let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.latencies_us
                    .saturating_record(us.clamp(1, LONGEST_LATENCY_US));
            }
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    fn add(&mut self, other: Self) {
        // Only histograms of unlike bounds cannot be added, and all of ours are alike.
        let _ = self.latencies_us.add(&other.latencies_us);
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }
}

/// What is printed in the end. Latencies are of the calls that succeeded.
#[derive(Debug, Serialize)]
struct Report {
    op: &'static str,
    clients: u32,
    seconds: f64,
    operations: u64,
    errors: u64,
    ops_per_second: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
}

impl Report {
    fn new(load: &Load, tally: &Tally, seconds: f64) -> Self {
        let latencies = &tally.latencies_us;
        let at = |quantile| latencies.value_at_quantile(quantile);
        let operations = latencies.len();
        Self {
            op: name(load.op),
            clients: load.clients,
            seconds,
            operations,
            errors: tally.errors,
            #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
            ops_per_second: operations as f64 / seconds,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latencies.max(),
            first_error: tally.first_error.as_ref().map(ToString::to_string),
        }
    }

    fn text(&self, connections: u32) -> String {
        let Self {
            op,
            clients,
            seconds,
            operations,
            errors,
            ops_per_second,
            ..
        } = self;
        let Self {
            p50_us,
            p90_us,
            p99_us,
            p999_us,
            max_us,
            ..
        } = self;
        let mut text = format!(
            "{op}: {operations} operations in {seconds:.2} s, {clients} clients on {connections} connections\n\
             throughput  {ops_per_second:.0} ops/s\n\
             p50         {p50_us} µs\n\
             p90         {p90_us} µs\n\
             p99         {p99_us} µs\n\
             p99.9       {p999_us} µs\n\
             max         {max_us} µs\n\
             errors      {errors}"
        );
        if let Some(error) = &self.first_error {
            text.push_str(&format!(", the first: {error}"));
        }
        text
    }
}

fn name(op: Operation) -> &'static str {
    match op {
        Operation::Put => "put",
        Operation::Get => "get",
        Operation::Append => "append",
        Operation::Mixed => "mixed",
    }
}

fn pick(clerks: &[Clerk], number: u64) -> &Clerk {
    let which = number % clerks.len() as u64;
    // The remainder is below a length, which is a usize.
    &clerks[usize::try_from(which).unwrap_or(0)]
}

fn key(number: u64) -> String {
    format!("bench/{number:09}")
}

fn value(load: &Load) -> Bytes {
    vec![b'v'; load.value_size as usize].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(clients: u32, connections: u32) -> Load {
        Load {
            op: Operation::Put,
            clients,
            connections,
            duration: Duration::from_secs(1),
            keys: 1,
            value_size: 1,
            rate: None,
        }
    }

    #[test]
    fn the_report_tells_the_quantiles_of_what_succeeded_and_counts_the_rest() {
        let mut one = Tally::new();
        let mut other = Tally::new();
        for us in 1..=1_000 {
            let tally = if us % 2 == 0 { &mut one } else { &mut other };
            tally.count(Ok(()), Duration::from_micros(us));
        }
        other.count(Err(Error::SessionExpired), Duration::from_secs(50));
        one.add(other);
        let report = Report::new(&load(2, 1), &one, 2.0);
        assert_eq!((report.operations, report.errors), (1_000, 1));
        assert!((report.ops_per_second - 500.0).abs() < 1e-9);
        let quantiles = [
            report.p50_us,
            report.p90_us,
            report.p99_us,
            report.p999_us,
            report.max_us,
        ];
        assert_eq!(quantiles, [500, 900, 990, 999, 1_000]);
        assert!(report.text(1).ends_with(
            "the session ended before the write was answered, and an attempt may have taken effect"
        ));
    }

    #[test]
    fn a_latency_beyond_the_scale_counts_as_the_longest() {
        let mut tally = Tally::new();
        tally.count(Ok(()), Duration::MAX);
        tally.count(Ok(()), Duration::ZERO);
        assert_eq!(tally.latencies_us.len(), 2);
        assert!(tally.latencies_us.max() >= LONGEST_LATENCY_US);
    }

    #[test]
    fn there_are_never_more_connections_than_clients() {
        assert_eq!(connections(&load(1, 0)), 1);
        assert_eq!(connections(&load(1_000, 0)), MOST_CHOSEN_CONNECTIONS);
        assert_eq!(connections(&load(10_000, 0)), 10);
        assert_eq!(connections(&load(3, 10)), 3);
    }
}

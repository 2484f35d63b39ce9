//! A load on a key-value store and what came of it: what `clerk bench` and `deploy bench` measure with.
//!
//! Built with the feature `load`, which is part of `cli`. A [`Load`] says what to do, a [`Target`] is whom to do
//! it to, and [`run`] gives an [`Outcome`]. Two kinds of load:
//!
//! - *closed loop*: each client has one call in flight and begins the next when it is answered. It finds out how
//!   much the target can take. A target that stalls also stops the calls that would have shown it.
//! - *open loop*, with [`Load::rate`]: calls are due at fixed moments, whatever became of the earlier ones, and a
//!   latency counts from the moment the call was due, less what the client's own timer was late. A stall shows in every
//!   call that it held up (no *coordinated omission*): calls that could not even begin are counted in
//!   [`Outcome::not_begun`], and have as latencies what they had waited at the end.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use clerk::load::{self, ClerkTarget, Load, Operation};
//!
//! # async fn example() -> Result<(), clerk::Error> {
//! let load = Load {
//!     operation: Operation::Mixed { reads_percent: 95 },
//!     clients: 64,
//!     duration: Duration::from_secs(5),
//!     ..Load::default()
//! };
//! let settings = clerk::Clerk::builder().endpoints(["127.0.0.1:7102"]);
//! let targets = ClerkTarget::connect(&settings, load.clients, load::connections(load.clients, None))?;
//! load::prepare(&targets, &load).await?;
//! let outcome = load::run(&targets, &load).await;
//! println!("{:.0} ops/s, p99 {} µs", outcome.per_second(), outcome.quantile_us(0.99));
//! # Ok(())
//! # }
//! ```

mod client;
mod gaps;
mod keys;
mod outcome;
mod target;

use std::future::{Future, pending};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::client::{Client, Clock};
use self::gaps::Gaps;
use self::outcome::Tally;
pub use self::outcome::{LONGEST_LATENCY_US, Outcome};
pub use self::target::{Call, ClerkTarget, Target};

/// How many clients share a connection, unless said: enough for the server to take several requests at once
/// off the socket, few enough for a second connection to use a second core.
const CLIENTS_PER_CONNECTION: u32 = 32;
/// How many connections are chosen unless more are needed: with 64 clients two were faster than one, and four slower than
/// two.
const USUAL_CONNECTIONS: u32 = 2;
/// More are needed for more clients than this on each. With several hundred on one, all of them wait while the server
/// works through their calls, and the server while they work through its answers.
const MOST_CLIENTS_PER_CONNECTION: u32 = 128;
/// How many keys are written at once before a load that reads.
const PRELOADS_IN_FLIGHT: u32 = 64;
/// The longest warm-up that [`warm_up_for`] gives.
const LONGEST_WARM_UP: Duration = Duration::from_secs(2);

/// What the calls of a load do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Set a key.
    Put,
    /// Read a key.
    Get,
    /// Append to a key.
    Append,
    /// Read a key, or else set it.
    Mixed {
        /// How many of a hundred calls read, 0 to 100.
        reads_percent: u8,
    },
}

impl Operation {
    /// `put`, `get`, `append` or `mixed`.
    ///
    /// ```
    /// assert_eq!(clerk::load::Operation::Mixed { reads_percent: 50 }.name(), "mixed");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Append => "append",
            Self::Mixed { .. } => "mixed",
        }
    }
}

/// Which keys the calls choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Each as likely as the other.
    Uniform,
    /// The n-th key in proportion to n to the power of -0.99, as in YCSB: of 1,000 keys the first gets an eighth
    /// of the calls.
    Zipf,
}

/// What to do to a [`Target`], and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// What each call does.
    pub operation: Operation,
    /// How many clients there are; each has at most one call in flight. Above zero.
    pub clients: u32,
    /// How long calls are begun before any is counted.
    pub warm_up: Duration,
    /// How long calls are begun that count.
    pub duration: Duration,
    /// How many keys there are. Above zero.
    pub keys: u64,
    /// Which of them the calls choose.
    pub distribution: Distribution,
    /// How many bytes each value has.
    pub value_bytes: u32,
    /// Calls per second of all clients together; `None` is a closed loop. Above zero.
    ///
    /// A latency counts from the moment the call was due if all clients were busy then. A client that waited for that
    /// moment is woken by a timer that counts in milliseconds: its call counts from when it woke, at most two
    /// milliseconds after it was due. For one that can begin no more, the wait until the end counts.
    pub rate: Option<u64>,
    /// Which keys the clients draw, one after the other: the same for the same seed. Give loads that follow each other on
    /// one cluster different ones, or the second finds what the first has just used.
    pub seed: u32,
}

impl Default for Load {
    /// 32 clients put values of 100 bytes to 1,000 keys for 10 s, after 2 s that do not count.
    ///
    /// ```
    /// assert_eq!(clerk::load::Load::default().clients, 32);
    /// ```
    fn default() -> Self {
        Self {
            operation: Operation::Put,
            clients: 32,
            warm_up: LONGEST_WARM_UP,
            duration: Duration::from_secs(10),
            keys: 1_000,
            distribution: Distribution::Uniform,
            value_bytes: 100,
            rate: None,
            seed: 0,
        }
    }
}

impl Load {
    fn value(&self) -> Bytes {
        vec![b'v'; self.value_bytes as usize].into()
    }
}

/// The warm-up that befits a load of `duration`: a fifth of it, 2 s at most.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(clerk::load::warm_up_for(Duration::from_secs(1)), Duration::from_millis(200));
/// ```
#[must_use]
pub fn warm_up_for(duration: Duration) -> Duration {
    (duration / 5).min(LONGEST_WARM_UP)
}

/// How many connections `clients` share: `chosen` if it is given, though never more than there are clients.
///
/// ```
/// use clerk::load::connections;
/// assert_eq!((connections(1, None), connections(256, None), connections(3, Some(10))), (1, 2, 3));
/// ```
#[must_use]
pub fn connections(clients: u32, chosen: Option<u32>) -> u32 {
    let connections = chosen.unwrap_or_else(|| {
        let needed = clients.div_ceil(MOST_CLIENTS_PER_CONNECTION);
        clients
            .div_ceil(CLIENTS_PER_CONNECTION)
            .min(USUAL_CONNECTIONS)
            .max(needed)
    });
    connections.min(clients).max(1)
}

/// The kind of runtime that a load is best run on: one with half as many threads as there are processors. More than that
/// pass the few connections to and fro, which makes a call a third dearer, and leave less to the servers if they are on this
/// machine, too.
///
/// Where that is one thread, the runtime is of the kind that knows no others: with more than 256 clients that are ready at
/// once, the other kind lets some of them wait for a tenth of a second.
///
/// ```
/// let runtime = clerk::load::runtime().enable_all().build()?;
/// assert_eq!(runtime.block_on(async { 7 }), 7);
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn runtime() -> Builder {
    match std::thread::available_parallelism().map_or(1, |processors| processors.get() / 2) {
        0 | 1 => Builder::new_current_thread(),
        threads => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    }
}

/// Opens every connection with a write, and writes all keys if `load` reads.
///
/// # Errors
///
/// The first error of a write.
///
/// # Panics
///
/// When `targets` is empty.
pub async fn prepare<T: Target>(targets: &[T], load: &Load) -> Result<(), T::Error> {
    for target in targets {
        target.call(put(load, 0)).await?;
    }
    match load.operation {
        Operation::Put | Operation::Append => Ok(()),
        Operation::Get | Operation::Mixed { .. } => write_all_keys(targets, load).await,
    }
}

/// Sets every key of `load` once.
///
/// # Errors
///
/// The first error of a write.
///
/// # Panics
///
/// When `targets` is empty.
pub async fn write_all_keys<T: Target>(targets: &[T], load: &Load) -> Result<(), T::Error> {
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for n in 0..u64::from(PRELOADS_IN_FLIGHT).min(load.keys) {
        let (target, load, next) = (pick(targets, n).clone(), load.clone(), Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= load.keys {
                    return Ok(());
                }
                target.call(put(&load, number)).await?;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        // Dropping the set ends the others. A writer that broke off has panicked, and told so.
        ended.unwrap_or(Ok(()))?;
    }
    Ok(())
}

/// Runs all clients to the end and gives what they saw. The clients are spread over `targets`, one target a
/// connection.
///
/// The warm-up begins when this is first polled, what counts follows without a break, and when
/// [`Load::warm_up`] and [`Load::duration`] have passed no call begins any more. It returns when those that are
/// still out then have been answered.
///
/// # Panics
///
/// When `targets` is empty.
pub async fn run<T: Target>(targets: &[T], load: &Load) -> Outcome<T::Error> {
    run_until(targets, load, pending()).await
}

/// As [`run`], but `interrupt` ends it before its time. The outcome is of what was measured until then, which
/// [`Outcome::measured`] tells: less than [`Load::duration`], and nothing if the warm-up was not over.
///
/// Calls that are still out when it is interrupted are not waited for. Those that count have begun and are neither
/// operations nor errors; their latencies are what they had taken until then, so that no stall at the end is hidden. At
/// the target they may yet take effect.
///
/// # Panics
///
/// When `targets` is empty.
///
/// ```no_run
/// # async fn example() -> Result<(), clerk::Error> {
/// use std::time::Duration;
///
/// use clerk::load::{self, ClerkTarget, Load};
///
/// let load = Load { duration: Duration::from_secs(600), ..Load::default() };
/// let settings = clerk::Clerk::builder().endpoints(["127.0.0.1:7102"]);
/// let targets = ClerkTarget::connect(&settings, load.clients, 1)?;
/// let enough = tokio::time::sleep(Duration::from_secs(60));
/// let outcome = load::run_until(&targets, &load, enough).await;
/// println!("{} operations in {:?}", outcome.operations, outcome.measured);
/// # Ok(())
/// # }
/// ```
pub async fn run_until<T: Target>(
    targets: &[T],
    load: &Load,
    interrupt: impl Future<Output = ()>,
) -> Outcome<T::Error> {
    let mut clock = Clock::starting_now(load);
    let gaps = Arc::new(Gaps::on(clock, load.rate.is_some()));
    let taken = Arc::new(AtomicU64::new(0));
    let tally = Arc::new(Mutex::new(Tally::new()));
    let mut clients = JoinSet::new();
    for number in 0..load.clients {
        let target = pick(targets, number.into()).clone();
        let client = Client::new(target, load, number, Arc::clone(&taken), Arc::clone(&gaps));
        clients.spawn(client.run(clock, Arc::clone(&tally)));
    }
    tokio::select! {
        // A client that broke off has told so itself.
        () = async { while clients.join_next().await.is_some() {} } => {}
        () = interrupt => {
            clients.shutdown().await;
            // Every call that was counted has ended before.
            clock.until = clock.until.min(Instant::now());
        }
    }
    // Calls that were still out at the end have been waited for: a gap may have lasted as long.
    let end = clock.until.max(Instant::now());
    let due = load.rate.map(|rate| clock.due_while_measured(rate));
    let mut tally = client::lock(&tally);
    if let Some(rate) = load.rate {
        client::count_not_taken(&mut tally, clock, taken.load(Ordering::Relaxed), rate);
    }
    std::mem::replace(&mut *tally, Tally::new()).conclude(clock.measured(), due, gaps.longest_until(end))
}

/// The n-th key.
fn key(number: u64) -> String {
    format!("bench/{number:09}")
}

fn put(load: &Load, number: u64) -> Call {
    Call::Put {
        key: key(number),
        value: load.value(),
    }
}

fn pick<T>(targets: &[T], number: u64) -> &T {
    let which = number % targets.len() as u64;
    // The remainder is below a length, which is a usize.
    &targets[usize::try_from(which).unwrap_or(0)]
}

#[cfg(test)]
mod tests;

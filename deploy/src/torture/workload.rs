//! The clients: they do everything that the store can do on a few keys, and record what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clerk::{Clerk, Scan};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sim::linearizability::{Action, Operation, Outcome};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::error::Error;

/// How many clients there are.
pub(crate) const CLIENTS: u64 = 6;
/// So many of them use one clerk, and so one session, at the same time.
const CLIENTS_PER_CLERK: u64 = 2;
/// How many keys they share.
const KEYS: u32 = 12;
/// The keys that are shared begin so.
const SHARED: &str = "k";
/// The shortest time from one operation of a client to its next: it keeps the history so short that it can be checked.
const PACE: Duration = Duration::from_millis(10);
/// How long an operation may take before its outcome is unknown. Every other client waits longer than an election
/// takes; the rest do not, and see many unknown outcomes.
const CALL_LIMITS: [Duration; 2] = [Duration::from_secs(2), Duration::from_millis(400)];
/// How long the clients may take to stop: the operation that each is at is waited for.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long each operation may take when all is well again.
const CALM_CALL_LIMIT: Duration = Duration::from_secs(30);
/// So many operations in a hundred are of each kind; the rest are gets.
const PUTS: u32 = 18;
const APPENDS: u32 = 22;
const DELETES: u32 = 8;
const SCANS: u32 = 4;
const LIST_APPENDS: u32 = 8;

/// The time that all clients share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    /// It is zero now.
    pub(crate) fn start() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    /// Microseconds since the start.
    pub(crate) fn now_us(self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// What can be seen of the clients while they work.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    acknowledged: AtomicU64,
    /// By client: when the last operation began that was acknowledged.
    last_began_us: Vec<AtomicU64>,
}

impl Progress {
    /// How many operations were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether an operation that each client began after `at_us` was acknowledged.
    pub(crate) fn all_served_since(&self, at_us: u64) -> bool {
        self.last_began_us
            .iter()
            .all(|last| last.load(Ordering::Relaxed) > at_us)
    }
}

/// The clients at work. Dropping it ends them at once.
#[derive(Debug)]
pub(crate) struct Clients {
    progress: Arc<Progress>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Vec<Operation>>,
}

impl Clients {
    /// Starts them. Each session has several of them, one that waits long for an answer and one that does not.
    pub(crate) async fn start(endpoints: &[String], seed: u64, clock: Clock) -> Result<Self, Error> {
        let progress = Arc::new(Progress {
            acknowledged: AtomicU64::new(0),
            last_began_us: (0..CLIENTS).map(|_| AtomicU64::new(0)).collect(),
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut clerk = connect(endpoints, CALM_CALL_LIMIT).await?;
        for (number, limit) in (0..CLIENTS).zip(CALL_LIMITS.into_iter().cycle()) {
            if number > 0 && number % CLIENTS_PER_CLERK == 0 {
                clerk = connect(endpoints, CALM_CALL_LIMIT).await?;
            }
            let clerk = clerk.with_timeout(limit);
            let client = Client {
                number,
                clerk,
                random: StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                writes: 0,
                clock,
                history: Vec::new(),
            };
            tasks.spawn(client.work(Arc::clone(&progress), stopped.clone()));
        }
        Ok(Self {
            progress,
            stop,
            tasks,
        })
    }

    /// What can be seen of them.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Lets every client finish what it is at, and collects what they did.
    pub(crate) async fn stop(mut self) -> Result<Vec<Operation>, Error> {
        self.stop.send_replace(true);
        let mut history = Vec::new();
        let collect = async {
            while let Some(joined) = self.tasks.join_next().await {
                history
                    .extend(joined.expect("a client neither panics nor is cancelled while it is waited for"));
            }
        };
        timeout(STOP_LIMIT, collect).await.map_err(|_| Error::Late {
            waited: STOP_LIMIT,
            what: "the clients' last calls have not ended".into(),
        })?;
        Ok(history)
    }
}

/// Reads everything, when the clients have stopped and all is well again.
pub(crate) async fn read_all(endpoints: &[String], clock: Clock) -> Result<Vec<Operation>, Error> {
    let mut reader = Client {
        number: CLIENTS,
        clerk: connect(endpoints, CALM_CALL_LIMIT).await?,
        random: StdRng::seed_from_u64(0),
        writes: 0,
        clock,
        history: Vec::new(),
    };
    let shared = (0..KEYS).map(key);
    let lists = (0..CLIENTS).map(list);
    let gets = shared.chain(lists).map(|key| Action::Get { key });
    for action in gets.chain([scan_of(key(0))]) {
        reader.run(action).await;
    }
    Ok(reader.history)
}

async fn connect(endpoints: &[String], limit: Duration) -> Result<Clerk, Error> {
    let clerk = Clerk::builder()
        .endpoints(endpoints)
        .timeout(limit)
        .connect()
        .await;
    clerk.map_err(|source| Error::Clerk {
        action: "cannot connect to the cluster".into(),
        source,
    })
}

fn key(number: u32) -> Bytes {
    format!("{SHARED}{number:02}").into()
}

/// The list that a client alone appends to, and that is never put or deleted: what is lost or doubled stays so.
pub(crate) fn list(client: u64) -> Bytes {
    format!("list-{client}").into()
}

/// A page of the shared keys from `from` on.
fn scan_of(from: Bytes) -> Action {
    Action::Scan {
        from,
        to: Some("l".into()),
    }
}

struct Client {
    number: u64,
    clerk: Clerk,
    random: StdRng,
    writes: u64,
    clock: Clock,
    history: Vec<Operation>,
}

impl Client {
    async fn work(mut self, progress: Arc<Progress>, stopped: watch::Receiver<bool>) -> Vec<Operation> {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !*stopped.borrow() {
            pace.tick().await;
            let action = self.choose();
            let began_us = self.clock.now_us();
            if self.run(action).await {
                progress.acknowledged.fetch_add(1, Ordering::Relaxed);
                if let Some(last) = usize::try_from(self.number)
                    .ok()
                    .and_then(|at| progress.last_began_us.get(at))
                {
                    last.store(began_us, Ordering::Relaxed);
                }
            }
        }
        self.history
    }

    fn choose(&mut self) -> Action {
        let key = key(self.random.random_range(0..KEYS));
        let luck = self.random.random_range(0..100);
        let kinds = [PUTS, APPENDS, DELETES, SCANS, LIST_APPENDS];
        let mut below = 0;
        let kind = kinds.iter().position(|share| {
            below += share;
            luck < below
        });
        match kind {
            Some(0) => Action::Put {
                key,
                value: self.token(),
            },
            Some(1) => Action::Append {
                key,
                value: self.token(),
            },
            Some(2) => Action::Delete { key },
            Some(3) => scan_of(key),
            Some(4) => Action::Append {
                key: list(self.number),
                value: self.token(),
            },
            _ => Action::Get { key },
        }
    }

    /// What no other write has written.
    fn token(&mut self) -> Bytes {
        self.writes += 1;
        format!("{}.{};", self.number, self.writes).into()
    }

    /// Does it and records what came of it. Whether it was acknowledged.
    async fn run(&mut self, action: Action) -> bool {
        let start_us = self.clock.now_us();
        let outcome = ask(&self.clerk, &action)
            .await
            .unwrap_or_else(|error| match error {
                error if error.is_without_effect() => Outcome::Failed,
                _ => Outcome::Unknown,
            });
        let operation = Operation {
            client: self.number,
            action,
            start_us,
            end_us: self.clock.now_us(),
            outcome,
        };
        let is_acknowledged = operation.is_certain();
        self.history.push(operation);
        is_acknowledged
    }
}

async fn ask(clerk: &Clerk, action: &Action) -> Result<Outcome, clerk::Error> {
    Ok(match action {
        Action::Put { key, value } => clerk.put(key, value).await.map(|_| Outcome::Done)?,
        Action::Append { key, value } => clerk.append(key, value).await.map(|_| Outcome::Done)?,
        Action::Delete { key } => Outcome::Deleted {
            existed: clerk.delete(key).await?,
        },
        Action::Get { key } => Outcome::Value(clerk.get(key).await?),
        Action::Scan { from, to } => {
            let scan = Scan::starting_at(from);
            let page = clerk
                .scan(&match to {
                    Some(to) => scan.ending_before(to),
                    None => scan,
                })
                .await?;
            Outcome::Page {
                more: page.next.is_some(),
                items: page
                    .items
                    .into_iter()
                    .map(|item| (item.key, item.value))
                    .collect(),
            }
        }
    })
}

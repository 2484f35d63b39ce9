//! The clients of the demo: each puts to a key of its own, appends to lists that all share, and reads every
//! write back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clerk::Clerk;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::history::{Flaw, History, Kind, Outcome};
use super::progress::Progress;
use crate::error::Error;

/// How many write at once.
pub(crate) const CLIENTS: u32 = 4;
/// The lists that all of them append to.
pub(crate) const LISTS: [&str; 3] = ["list-a", "list-b", "list-c"];
/// The shortest time from one round of a client to its next: it keeps the lists, which are read back whole, short.
const PACE: Duration = Duration::from_millis(10);
/// How long a call may take: longer than any failover that can still be called one.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long the clients may take to stop: a call that is under way is waited for.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// The most flaws of one client that are kept to be shown; one is enough to fail.
const MOST_FLAWS: usize = 20;

/// What one client did and saw.
#[derive(Debug)]
pub(crate) struct Experience {
    /// Its writes.
    pub(crate) history: History,
    /// What it read back that cannot be.
    pub(crate) flaws: Vec<Flaw>,
}

/// The clients at work. Dropping it ends them at once.
#[derive(Debug)]
pub(crate) struct Clients {
    progress: Arc<Progress>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Experience>,
}

impl Clients {
    /// Starts them, each with a session of its own.
    pub(crate) async fn start(endpoints: &[String]) -> Result<Self, Error> {
        let progress = Arc::new(Progress::default());
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for number in 1..=CLIENTS {
            let client = Client {
                clerk: connect(endpoints).await?,
                put_key: format!("x{number}"),
                experience: Experience {
                    history: History::new(number),
                    flaws: Vec::new(),
                },
                progress: Arc::clone(&progress),
            };
            tasks.spawn(client.work(stopped.clone()));
        }
        Ok(Self {
            progress,
            stop,
            tasks,
        })
    }

    /// What has been acknowledged so far.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Lets every client finish what it is at, and collects what they did.
    pub(crate) async fn stop(mut self) -> Result<Vec<Experience>, Error> {
        self.stop.send_replace(true);
        let mut experiences = Vec::new();
        let collect = async {
            while let Some(joined) = self.tasks.join_next().await {
                experiences
                    .push(joined.expect("a client neither panics nor is cancelled while it is waited for"));
            }
        };
        timeout(STOP_LIMIT, collect).await.map_err(|_| Error::Late {
            waited: STOP_LIMIT,
            what: "the clients' last calls have not ended".into(),
        })?;
        Ok(experiences)
    }
}

/// A clerk for the cluster behind `endpoints`.
pub(crate) async fn connect(endpoints: &[String]) -> Result<Clerk, Error> {
    Clerk::builder()
        .endpoints(endpoints)
        .timeout(CALL_LIMIT)
        .connect()
        .await
        .map_err(|source| Error::Clerk {
            action: "cannot connect to the cluster".into(),
            source,
        })
}

struct Client {
    clerk: Clerk,
    put_key: String,
    experience: Experience,
    progress: Arc<Progress>,
}

impl Client {
    async fn work(mut self, stopped: watch::Receiver<bool>) -> Experience {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for list in LISTS.into_iter().cycle() {
            if *stopped.borrow() {
                break;
            }
            pace.tick().await;
            self.put_and_read_back().await;
            self.append_and_read_back(list).await;
        }
        self.experience
    }

    async fn put_and_read_back(&mut self) {
        let token = self.experience.history.next_token();
        let answer = self.clerk.put(self.put_key.clone(), token.to_string()).await;
        let key = self.put_key.clone();
        self.record(Kind::Put, &key, answer.is_ok(), answer.err());
        if let Ok(value) = self.clerk.get(key.clone()).await {
            let value = value.map(|value| as_text(&value));
            let flaw = self.experience.history.judge_put(&key, value.as_deref());
            self.keep(flaw);
        }
    }

    async fn append_and_read_back(&mut self, list: &'static str) {
        let token = self.experience.history.next_token();
        let answer = self.clerk.append(list, token.list_item()).await;
        self.record(Kind::Append, list, answer.is_ok(), answer.err());
        // A read that is not answered shows nothing, good or bad.
        if let Ok(value) = self.clerk.get(list).await {
            let text = value.map(|value| as_text(&value)).unwrap_or_default();
            let flaws = self.experience.history.judge_list(list, &text);
            self.keep(flaws);
        }
    }

    fn record(&mut self, kind: Kind, key: &str, is_done: bool, error: Option<clerk::Error>) {
        let outcome = match error {
            None if is_done => Outcome::Acknowledged,
            Some(error) if error.is_without_effect() => Outcome::NotDone,
            _ => Outcome::Unknown,
        };
        self.experience.history.record(kind, key, outcome);
        if outcome == Outcome::Acknowledged {
            self.progress.acknowledged();
        }
    }

    fn keep(&mut self, flaws: impl IntoIterator<Item = Flaw>) {
        let room = MOST_FLAWS - self.experience.flaws.len();
        self.experience.flaws.extend(flaws.into_iter().take(room));
    }
}

/// Bytes that are not UTF-8 cannot be what a client wrote; replaced, they are not that either.
pub(crate) fn as_text(value: &Bytes) -> String {
    String::from_utf8_lossy(value).into_owned()
}

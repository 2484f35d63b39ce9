//! One connection to each server, opened when it is first wanted and shared by all calls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, Shared};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rpc::client::StatusReply;
use rpc::hello::Refusal;
use rpc::{ConnectError, KvClient};
use tokio::time::{Instant, sleep, timeout};

use crate::directory::{Address, Directory};
use crate::lock::lock;
use crate::outcome::Reason;

/// How long a connection attempt has the field to itself before the next server is tried beside it.
const HEAD_START: Duration = Duration::from_millis(100);

/// The settings that concern connections.
#[derive(Clone, Debug)]
pub(crate) struct ConnectSettings {
    /// How long a server may take to accept, greet and tell its status.
    pub(crate) connect_timeout: Duration,
    /// The cluster the user expects, if he said so.
    pub(crate) cluster_id: Option<String>,
}

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct Link {
    connection: rpc::KvConnection,
    /// Tells this connection from a later one to the same address.
    number: u64,
}

impl Link {
    pub(crate) fn client(&self) -> &KvClient {
        self.connection.client()
    }
}

type Dial = Shared<BoxFuture<'static, Result<Arc<Link>, Reason>>>;

/// The connections of one clerk, by address.
#[derive(Debug)]
pub(crate) struct Connections {
    settings: ConnectSettings,
    /// The first cluster that answered is the one this clerk belongs to.
    cluster_id: OnceLock<String>,
    /// A server's dial under way or its outcome; an outcome that is of no use any more is dialed anew.
    dials: Mutex<HashMap<Address, Dial>>,
    directory: Arc<Mutex<Directory>>,
    origin: Instant,
    links_opened: AtomicU64,
}

impl Connections {
    pub(crate) fn new(settings: ConnectSettings, directory: Arc<Mutex<Directory>>, origin: Instant) -> Self {
        let cluster_id = OnceLock::new();
        if let Some(expected) = &settings.cluster_id {
            cluster_id.get_or_init(|| expected.clone());
        }
        Self {
            settings,
            cluster_id,
            dials: Mutex::default(),
            directory,
            origin,
            links_opened: AtomicU64::new(0),
        }
    }

    /// A connection to the first of `candidates` that has one; else to the one that accepts first. Each gets
    /// a head start before the next is tried beside it, so that a dead server costs little.
    ///
    /// # Errors
    ///
    /// What the last candidate met, when none could be reached; before that, what says more.
    pub(crate) async fn first_of(
        self: &Arc<Self>,
        candidates: &[Address],
    ) -> Result<(Address, Arc<Link>), Reason> {
        if let Some(open) = candidates
            .iter()
            .find_map(|address| Some((Arc::clone(address), self.open(address)?)))
        {
            return Ok(open);
        }
        let mut waiting = candidates.iter();
        let mut dials = FuturesUnordered::new();
        let mut last = Reason::NoTime;
        loop {
            if let Some(address) = waiting.next() {
                let address = Arc::clone(address);
                let dial = self.dial(&address);
                dials.push(async move { dial.await.map(|link| (address, link)) });
            }
            tokio::select! {
                dialed = dials.next() => match dialed {
                    Some(Ok(reached)) => return Ok(reached),
                    Some(Err(reason)) if reason.replaces(&last) => last = reason,
                    Some(Err(_)) => {}
                    None => return Err(last),
                },
                () = sleep(HEAD_START), if waiting.len() > 0 => {}
            }
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.settings.connect_timeout
    }

    /// A connection to `address`, without regard to how it went before.
    pub(crate) async fn to(self: &Arc<Self>, address: &Address) -> Result<Arc<Link>, Reason> {
        self.dial(address).await
    }

    /// Gives up a connection that brought no answer: the next call dials anew, which shows whether the
    /// server is there. Calls in flight on it may still get their answers.
    pub(crate) fn give_up(&self, address: &Address, link: &Link) {
        let mut dials = lock(&self.dials);
        if dials
            .get(address)
            .and_then(open_link)
            .is_some_and(|current| current.number == link.number)
        {
            dials.remove(address);
        }
    }

    /// The open connection to `address`, if there is one.
    pub(crate) fn open(&self, address: &Address) -> Option<Arc<Link>> {
        lock(&self.dials).get(address).and_then(open_link)
    }

    /// The dial to `address` that is under way or has led to an open connection, else a new one.
    fn dial(self: &Arc<Self>, address: &Address) -> Dial {
        let mut dials = lock(&self.dials);
        if let Some(dial) = dials.get(address)
            && (dial.peek().is_none() || open_link(dial).is_some())
        {
            return dial.clone();
        }
        let known = lock(&self.directory).servers();
        dials.retain(|address, _| known.iter().any(|(server, _)| server == address));
        // A task of its own: the dial goes on when the call that began it is dropped.
        let task = tokio::spawn(Arc::clone(self).connect(Arc::clone(address)));
        let lost = unreachable(
            address,
            format!("the connection attempt to {address} was abandoned"),
        );
        let dial = async move { task.await.unwrap_or(Err(lost)) }.boxed().shared();
        dials.insert(Arc::clone(address), dial.clone());
        dial
    }

    async fn connect(self: Arc<Self>, address: Address) -> Result<Arc<Link>, Reason> {
        let began = Instant::now();
        let limit = self.settings.connect_timeout;
        let outcome = match timeout(limit, self.greet(&address)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(unreachable(
                &address,
                format!("{address} did not answer within {limit:?}"),
            )),
        };
        if let Err(reason) = &outcome {
            let mut directory = lock(&self.directory);
            directory.unreachable(&address, began.elapsed(), self.origin.elapsed());
            if matches!(reason, Reason::WrongServer { .. }) {
                directory.wrong_server(&address);
            }
        }
        tracing::debug!(endpoint = %address, error = outcome.as_ref().err().map(tracing::field::display), "dialed");
        outcome
    }

    /// Connects and asks for the status, which shows that the server works and tells who else is there.
    async fn greet(&self, address: &Address) -> Result<Arc<Link>, Reason> {
        let options = rpc::ConnectOptions {
            expected_cluster_id: self.cluster_id.get().cloned(),
            connect_timeout: self.settings.connect_timeout,
            handshake_timeout: self.settings.connect_timeout,
            ..rpc::ConnectOptions::default()
        };
        let connection = rpc::connect_kv(address, &options)
            .await
            .map_err(|error| not_connected(address, &error))?;
        let server = connection.server();
        self.check_cluster(address, &server.cluster_id)?;
        lock(&self.directory).connected(address, server.node_id);
        let status = connection
            .client()
            .status(rpc::context(self.settings.connect_timeout))
            .await;
        match status {
            Ok(Ok(status)) => self.learn(&status),
            Ok(Err(error)) => tracing::debug!(endpoint = %address, %error, "no status"),
            Err(error) => return Err(unreachable(address, format!("{address} told no status: {error}"))),
        }
        let number = self.links_opened.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Link { connection, number }))
    }

    pub(crate) fn learn(&self, status: &StatusReply) {
        lock(&self.directory).learn(&status.members, status.leader_id, self.origin.elapsed());
    }

    fn check_cluster(&self, address: &Address, cluster_id: &str) -> Result<(), Reason> {
        let ours = self.cluster_id.get_or_init(|| cluster_id.to_owned());
        if ours == cluster_id {
            return Ok(());
        }
        let problem = format!("{address} belongs to the cluster {cluster_id:?}, this clerk to {ours:?}");
        Err(unreachable(address, problem))
    }
}

/// The connection that a finished dial led to, if it is still open.
fn open_link(dial: &Dial) -> Option<Arc<Link>> {
    match dial.peek() {
        Some(Ok(link)) if !link.connection.is_closed() => Some(Arc::clone(link)),
        _ => None,
    }
}

fn not_connected(address: &Address, error: &rpc::ConnectError) -> Reason {
    let (endpoint, problem) = (address.to_string(), error.to_string());
    match error {
        error if error.is_wrong_server() => Reason::WrongServer { endpoint, problem },
        ConnectError::HelloRefused {
            refusal: Refusal::TooManyConnections,
            ..
        } => Reason::TooManyConnections { endpoint, problem },
        _ => Reason::Unreachable { endpoint, problem },
    }
}

fn unreachable(address: &Address, problem: String) -> Reason {
    Reason::Unreachable {
        endpoint: address.to_string(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_takes_no_more_connections_is_told_apart_from_one_that_is_away() {
        let refused = |refusal| rpc::ConnectError::HelloRefused {
            addr: "a:1".into(),
            refusal,
            server: rpc::ServerInfo {
                cluster_id: "c".into(),
                node_id: raft_core::NodeId(2),
            },
            version: rpc::hello::PROTOCOL_VERSION,
        };
        let reason = |refusal| not_connected(&"a:1".into(), &refused(refusal));
        let full = reason(Refusal::TooManyConnections);
        assert!(matches!(full, Reason::TooManyConnections { .. }), "{full:?}");
        let message = full.to_string();
        assert!(
            message.contains("node 2") && message.contains("too many connections"),
            "{message}"
        );
        let stopping = reason(Refusal::ShuttingDown);
        assert!(matches!(stopping, Reason::Unreachable { .. }), "{stopping:?}");
    }
}

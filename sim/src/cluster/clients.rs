//! Clients that do what a test tells them.

use bytes::Bytes;
use raft_core::NodeId;

use super::Cluster;
use crate::clock::{Micros, SECOND};
use crate::history::{ReadWay, Request};
use crate::linearizability::Outcome;

/// An operation that can be done is done within this time.
const OPERATION_WITHIN: Micros = 30 * SECOND;

/// A client of a [`Cluster`] that does what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId(usize);

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is under way.
    Open,
    /// It was done. A get tells the value, as text; a delete whether the key was there.
    Done(Option<String>),
    /// It had no effect.
    Failed,
    /// Nobody knows whether it had an effect.
    Unknown,
}

impl Cluster {
    /// A client more, which does only what it is told.
    pub fn client(&mut self) -> ClientId {
        ClientId(self.simulation.add_client(false))
    }

    /// A client that can reach no node but `node`.
    pub fn client_of(&mut self, node: NodeId) -> ClientId {
        let client = self.client();
        for other in self.others(&[node]) {
            self.simulation.network.cut_client(client.0 as u64 + 1, other);
        }
        client
    }

    fn first_client(&mut self) -> ClientId {
        let told = self
            .simulation
            .clients
            .iter()
            .position(|client| !client.is_random());
        told.map_or_else(|| self.client(), ClientId)
    }

    fn begin(&mut self, client: ClientId, request: Request) -> &mut Self {
        self.simulation.clients[client.0].enqueue(request);
        if self.simulation.clients[client.0].is_free() {
            self.simulation.wake_after(client.0, 0, 0);
        }
        self
    }

    /// `client` begins to put.
    pub fn begin_put(&mut self, client: ClientId, key: &str, value: &str) -> &mut Self {
        let (key, value) = (bytes(key), bytes(value));
        self.begin(client, Request::Put { key, value })
    }

    /// `client` begins to append.
    pub fn begin_append(&mut self, client: ClientId, key: &str, value: &str) -> &mut Self {
        let (key, value) = (bytes(key), bytes(value));
        self.begin(client, Request::Append { key, value })
    }

    /// `client` begins to get.
    pub fn begin_get(&mut self, client: ClientId, key: &str) -> &mut Self {
        let (key, way) = (bytes(key), ReadWay::Round);
        self.begin(client, Request::Get { key, way })
    }

    /// `client` begins to get what the leader may serve on its lease.
    pub fn begin_lease_get(&mut self, client: ClientId, key: &str) -> &mut Self {
        let (key, way) = (bytes(key), ReadWay::Lease);
        self.begin(client, Request::Get { key, way })
    }

    /// `client` begins to get, from a follower as well as from the leader.
    pub fn begin_get_anywhere(&mut self, client: ClientId, key: &str) -> &mut Self {
        let (key, way) = (bytes(key), ReadWay::Anywhere);
        self.begin(client, Request::Get { key, way })
    }

    /// How the last operation of `client` stands.
    #[must_use]
    pub fn ending(&self, client: ClientId) -> Ending {
        let client = &self.simulation.clients[client.0];
        let Some(id) = client.last_operation().filter(|_| client.is_idle()) else {
            return Ending::Open;
        };
        match &self.simulation.history.get(id).outcome {
            Outcome::Unknown => Ending::Unknown,
            Outcome::Failed => Ending::Failed,
            outcome => Ending::Done(told(outcome)),
        }
    }

    /// Lets time pass until all that `client` was told to do has ended.
    ///
    /// # Panics
    ///
    /// When that takes more than half a minute.
    pub fn await_ending(&mut self, client: ClientId) -> Ending {
        let ended = |cluster: &mut Self| cluster.ending(client) != Ending::Open;
        if !self.wait(OPERATION_WITHIN, ended) {
            self.fail("an operation does not end");
        }
        self.ending(client)
    }

    fn done(&mut self, request: Request) -> Option<String> {
        let client = self.first_client();
        self.begin(client, request);
        match self.await_ending(client) {
            Ending::Done(told) => told,
            ending => self.fail(&format!("an operation was not done: {ending:?}")),
        }
    }

    /// Puts, and waits until that is done.
    ///
    /// # Panics
    ///
    /// When it is not done within half a minute.
    pub fn put(&mut self, key: &str, value: &str) -> &mut Self {
        let (key, value) = (bytes(key), bytes(value));
        self.done(Request::Put { key, value });
        self
    }

    /// Appends, and waits until that is done.
    ///
    /// # Panics
    ///
    /// When it is not done within half a minute.
    pub fn append(&mut self, key: &str, value: &str) -> &mut Self {
        let (key, value) = (bytes(key), bytes(value));
        self.done(Request::Append { key, value });
        self
    }

    /// Deletes, and waits until that is done.
    ///
    /// # Panics
    ///
    /// When it is not done within half a minute.
    pub fn delete(&mut self, key: &str) -> &mut Self {
        self.done(Request::Delete { key: bytes(key) });
        self
    }

    /// Gets.
    ///
    /// # Panics
    ///
    /// When it is not done within half a minute.
    pub fn get(&mut self, key: &str) -> Option<String> {
        let (key, way) = (bytes(key), ReadWay::Round);
        self.done(Request::Get { key, way })
    }

    /// Gets, and what is there is `value`.
    ///
    /// # Panics
    ///
    /// When something else is there.
    pub fn expect_value(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        let found = self.get(key);
        if found.as_deref() != value {
            self.fail(&format!("{key} is {found:?} and should be {value:?}"));
        }
        self
    }

    /// The clients that go on by themselves begin nothing more. Returns when their last operations have ended.
    ///
    /// # Panics
    ///
    /// When one does not end.
    pub fn stop_clients(&mut self) -> &mut Self {
        for client in &mut self.simulation.clients {
            client.stops();
        }
        let all_ended = |cluster: &mut Self| {
            let mut clients = cluster.simulation.clients.iter();
            clients.all(crate::client::Client::is_idle)
        };
        if !self.wait(2 * OPERATION_WITHIN, all_ended) {
            self.fail("a client still waits");
        }
        self
    }

    /// How many operations of all clients were done.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.simulation.totals.operations
    }

    /// How many operations of each client were done.
    #[must_use]
    pub fn operations_of_each(&self) -> Vec<usize> {
        let history = self.simulation.history.operations();
        let of = |client: u64| {
            let own = history.iter().filter(|operation| operation.client == client);
            own.filter(|operation| !matches!(operation.outcome, Outcome::Failed | Outcome::Unknown))
                .count()
        };
        (1..=self.simulation.clients.len() as u64).map(of).collect()
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn told(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Deleted { existed } => Some(existed.to_string()),
        Outcome::Value(value) => value
            .as_ref()
            .map(|value| String::from_utf8_lossy(value).into_owned()),
        _ => None,
    }
}

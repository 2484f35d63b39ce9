//! What a random client does next, and what its answers are compared with at once.
//!
//! Three kinds of keys: to a *shared* key every client appends; an *own* key is put to by one client, in rising
//! numbers; with a *mixed* key everybody does everything. What the answers about the first two must be is known
//! at once. The mixed ones are judged at the end, by the whole history.

use bytes::Bytes;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use crate::history::{ReadWay, Request};
use crate::invariants::exactly_once::Token;
use crate::invariants::fresh_reads::Floor;
use crate::invariants::{Invariants, Violation};
use crate::linearizability::Outcome;
use crate::scenario::Scenario;

/// The operations of one client.
pub(super) struct Workload {
    client: u64,
    clients: u64,
    shared_keys: u64,
    mixed_keys: u64,
    /// Appends begun, over all sessions.
    appends: u64,
    puts: u64,
    /// Values for mixed keys: no two alike.
    values: u64,
    only_reads: bool,
}

/// What the answer to an operation must agree with.
#[derive(Clone, Debug)]
pub(super) enum Watch {
    Nothing,
    Append(Token),
    OwnPut,
    Read(Floor),
}

impl Workload {
    pub(super) fn new(client: u64, scenario: &Scenario) -> Self {
        Self {
            client,
            clients: scenario.clients,
            shared_keys: scenario.shared_keys,
            mixed_keys: scenario.mixed_keys,
            appends: 0,
            puts: 0,
            values: 0,
            only_reads: false,
        }
    }

    pub(super) fn next(
        &mut self,
        may_write: bool,
        generator: &mut Pcg64Mcg,
        invariants: &mut Invariants,
    ) -> (Request, Watch) {
        if self.only_reads || !may_write {
            return self.read_of_the_leader(generator, invariants);
        }
        match generator.random_range(0..16) {
            0..4 => self.append(generator, invariants),
            4..6 => self.put_own(),
            6..8 => read(
                own_key(generator.random_range(1..=self.clients)),
                generator,
                invariants,
            ),
            8..10 => {
                let key = numbered("shared", generator.random_range(0..self.shared_keys));
                read(key, generator, invariants)
            }
            _ => (self.mixed(generator), Watch::Nothing),
        }
    }

    /// Whether nothing but reads comes next.
    pub(super) fn only_reads(&mut self, only: bool) {
        self.only_reads = only;
    }

    /// Of a key with which an answer can be compared at once.
    fn read_of_the_leader(&self, generator: &mut Pcg64Mcg, invariants: &Invariants) -> (Request, Watch) {
        let key = if generator.random_ratio(1, 2) {
            own_key(generator.random_range(1..=self.clients))
        } else {
            numbered("shared", generator.random_range(0..self.shared_keys))
        };
        let way = if generator.random_ratio(3, 4) {
            ReadWay::Lease
        } else {
            ReadWay::Round
        };
        let watch = Watch::Read(floor_of(&key, invariants));
        (Request::Get { key, way }, watch)
    }

    fn append(&mut self, generator: &mut Pcg64Mcg, invariants: &mut Invariants) -> (Request, Watch) {
        let key = numbered("shared", generator.random_range(0..self.shared_keys));
        self.appends += 1;
        let token = Token {
            client: self.client,
            number: self.appends,
        };
        invariants.exactly_once.sent(key.clone(), token);
        let value = Bytes::from(token.to_string());
        (Request::Append { key, value }, Watch::Append(token))
    }

    fn put_own(&mut self) -> (Request, Watch) {
        self.puts += 1;
        let (key, value) = (own_key(self.client), Bytes::from(self.puts.to_string()));
        (Request::Put { key, value }, Watch::OwnPut)
    }

    fn mixed(&mut self, generator: &mut Pcg64Mcg) -> Request {
        let key = numbered("mixed", generator.random_range(0..self.mixed_keys));
        self.values += 1;
        let value = Bytes::from(format!("{}.{};", self.client, self.values));
        match generator.random_range(0..8) {
            0 | 1 => Request::Put { key, value },
            2 => Request::Append { key, value },
            3 => Request::Delete { key },
            4 => Request::Get {
                key,
                way: ReadWay::Log,
            },
            5 => Request::Scan {
                from: Bytes::from("mixed-"),
                to: Bytes::from("mixed."),
            },
            _ => Request::Get {
                key,
                way: ReadWay::Anywhere,
            },
        }
    }
}

impl Watch {
    /// An attempt of a read begins now.
    pub(super) fn begin_read(&mut self, request: &Request, invariants: &Invariants) {
        if let (Self::Read(floor), Request::Get { key, .. }) = (self, request) {
            *floor = floor_of(key, invariants);
        }
    }

    /// The operation was done, with this outcome.
    pub(super) fn done(
        &self,
        request: &Request,
        outcome: &Outcome,
        invariants: &mut Invariants,
    ) -> Result<(), Violation> {
        match (self, request, outcome) {
            (Self::Append(token), Request::Append { key, .. }, _) => {
                invariants.exactly_once.acknowledged(key.clone(), *token);
            }
            (Self::OwnPut, Request::Put { key, value }, _) => {
                invariants.fresh_reads.put_acknowledged(key, value);
            }
            (Self::Read(floor), Request::Get { key, .. }, Outcome::Value(value)) => {
                let value = value.clone().unwrap_or_default();
                return check_read(key, floor, &value, invariants);
            }
            _ => {}
        }
        Ok(())
    }
}

fn read(key: Bytes, generator: &mut Pcg64Mcg, invariants: &Invariants) -> (Request, Watch) {
    let floor = floor_of(&key, invariants);
    let way = match generator.random_range(0..8) {
        0 => ReadWay::Log,
        1..3 => ReadWay::Anywhere,
        3..5 => ReadWay::Lease,
        _ => ReadWay::Round,
    };
    (Request::Get { key, way }, Watch::Read(floor))
}

fn floor_of(key: &Bytes, invariants: &Invariants) -> Floor {
    let acknowledged = invariants.exactly_once.acknowledged_count(key);
    invariants.fresh_reads.begin(key, acknowledged)
}

fn check_read(
    key: &Bytes,
    floor: &Floor,
    value: &Bytes,
    invariants: &mut Invariants,
) -> Result<(), Violation> {
    if key.starts_with(b"own-") {
        return invariants.fresh_reads.put_key_read(key, floor, value);
    }
    let lacking = invariants
        .exactly_once
        .check(key, value, floor.acknowledged_appends)?;
    invariants.fresh_reads.append_key_read(key, floor, value, lacking)
}

fn own_key(client: u64) -> Bytes {
    numbered("own", client)
}

fn numbered(kind: &str, number: u64) -> Bytes {
    Bytes::from(format!("{kind}-{number}"))
}

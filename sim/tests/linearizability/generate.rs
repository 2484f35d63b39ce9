//! Random histories of a map that is linearizable, and small changes to them.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::RngExt as _;
use rand_pcg::Pcg64Mcg;
use sim::linearizability::{Action, Operation, Outcome};

/// What kind of history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) keys: usize,
    pub(crate) clients: u64,
    pub(crate) operations: usize,
    /// So many in a thousand have an unknown outcome, and as many fail.
    pub(crate) unknown_per_mille: u32,
    /// So many in a thousand are scans.
    pub(crate) scans_per_mille: u32,
    /// Few different values make histories that can be explained in many ways.
    pub(crate) different_values: u64,
    /// How many puts, appends, deletes and gets there are for each other.
    pub(crate) mix: [u32; 4],
}

/// What clients do who read and write alike.
pub(crate) const EVEN: [u32; 4] = [2, 3, 1, 4];

const LONGEST_US: u64 = 1_000;

/// An operation, when it took effect, and whether it does at all.
struct Planned {
    operation: Operation,
    point_us: Option<u64>,
}

/// What clients of a linearizable map could have seen.
pub(crate) fn history(random: &mut Pcg64Mcg, shape: Shape) -> Vec<Operation> {
    let mut free_at_us: Vec<u64> = (0..shape.clients)
        .map(|_| random.random_range(0..LONGEST_US))
        .collect();
    let mut planned: Vec<Planned> = (0..shape.operations)
        .map(|number| {
            let client = number % free_at_us.len();
            let next = plan(random, shape, client as u64, free_at_us[client], number as u64);
            free_at_us[client] = next.operation.end_us + random.random_range(0..LONGEST_US / 4);
            next
        })
        .collect();
    let mut order: Vec<usize> = (0..planned.len())
        .filter(|&place| planned[place].point_us.is_some())
        .collect();
    order.sort_by_key(|&place| planned[place].point_us);
    let mut map = BTreeMap::new();
    for place in order {
        let operation = &mut planned[place].operation;
        let outcome = run(random, &mut map, &operation.action);
        if operation.outcome == Outcome::Done {
            operation.outcome = outcome;
        }
    }
    planned.into_iter().map(|planned| planned.operation).collect()
}

fn plan(random: &mut Pcg64Mcg, shape: Shape, client: u64, from_us: u64, number: u64) -> Planned {
    let start_us = from_us;
    let mut point_us = Some(start_us + random.random_range(0..LONGEST_US / 2));
    let mut end_us = point_us.unwrap_or(start_us) + random.random_range(0..LONGEST_US / 2);
    let mut outcome = Outcome::Done;
    let luck = random.random_range(0..1_000);
    if luck < shape.unknown_per_mille {
        outcome = Outcome::Unknown;
        end_us = start_us + random.random_range(0..LONGEST_US);
        point_us = random
            .random_bool(0.5)
            .then(|| start_us + random.random_range(0..LONGEST_US * 10));
    } else if luck < 2 * shape.unknown_per_mille {
        (outcome, point_us) = (Outcome::Failed, None);
    }
    let operation = Operation {
        client,
        action: action(random, shape, number),
        start_us,
        end_us,
        outcome,
    };
    Planned { operation, point_us }
}

fn key(number: usize) -> Bytes {
    format!("k{number:03}").into()
}

fn action(random: &mut Pcg64Mcg, shape: Shape, number: u64) -> Action {
    let key_number = random.random_range(0..shape.keys);
    let key_of_it = key(key_number);
    if random.random_range(0..1_000) < shape.scans_per_mille {
        let to = random
            .random_bool(0.7)
            .then(|| key(random.random_range(key_number..=shape.keys)));
        return Action::Scan { from: key_of_it, to };
    }
    let value = Bytes::from(format!("{};", number % shape.different_values));
    let [puts, appends, deletes, gets] = shape.mix;
    let drawn = random.random_range(0..puts + appends + deletes + gets);
    if drawn < puts {
        Action::Put {
            key: key_of_it,
            value,
        }
    } else if drawn < puts + appends {
        Action::Append {
            key: key_of_it,
            value,
        }
    } else if drawn < puts + appends + deletes {
        Action::Delete { key: key_of_it }
    } else {
        Action::Get { key: key_of_it }
    }
}

/// Does it, and says what the client is told.
fn run(random: &mut Pcg64Mcg, map: &mut BTreeMap<Bytes, Bytes>, action: &Action) -> Outcome {
    match action {
        Action::Put { key, value } => {
            map.insert(key.clone(), value.clone());
            Outcome::Done
        }
        Action::Append { key, value } => {
            let old = map.remove(key).unwrap_or_default();
            map.insert(key.clone(), [&old[..], value].concat().into());
            Outcome::Done
        }
        Action::Delete { key } => Outcome::Deleted {
            existed: map.remove(key).is_some(),
        },
        Action::Get { key } => Outcome::Value(map.get(key).cloned()),
        Action::Scan { from, to } => {
            let in_range = map
                .range(from.clone()..)
                .take_while(|(key, _)| to.as_ref().is_none_or(|to| *key < to));
            let all: Vec<(Bytes, Bytes)> = in_range
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            let count = random.random_range(1..=all.len().max(1) + 1).min(all.len());
            Outcome::Page {
                more: count < all.len(),
                items: all[..count].to_vec(),
            }
        }
    }
}

/// Changes one thing: what was read, when it happened, or what is known of it.
pub(crate) fn mutate(random: &mut Pcg64Mcg, operations: &mut [Operation]) {
    let place = random.random_range(0..operations.len());
    let other = operations[random.random_range(0..operations.len())]
        .outcome
        .clone();
    let operation = &mut operations[place];
    match random.random_range(0..4) {
        0 => {
            let by_us = random.random_range(0..LONGEST_US * 2);
            operation.start_us += by_us;
            operation.end_us += by_us;
        }
        1 => {
            let by_us = random.random_range(0..LONGEST_US * 2);
            operation.start_us = operation.start_us.saturating_sub(by_us);
            operation.end_us = operation.end_us.saturating_sub(by_us);
        }
        2 if operation.action.is_write() => {
            operation.outcome = match operation.outcome {
                Outcome::Unknown => Outcome::Failed,
                Outcome::Failed => Outcome::Done,
                _ => Outcome::Unknown,
            };
        }
        _ => change_answer(operation, other),
    }
}

fn change_answer(operation: &mut Operation, other: Outcome) {
    match (&mut operation.outcome, other) {
        (Outcome::Value(value), Outcome::Value(other)) => *value = other,
        (Outcome::Deleted { existed }, _) => *existed = !*existed,
        (Outcome::Page { items, .. }, Outcome::Value(Some(other))) if !items.is_empty() => items[0].1 = other,
        (Outcome::Page { items, more: false }, _) => {
            items.pop();
        }
        _ => {}
    }
}

/// The same operation on another key.
pub(crate) fn with_key(mut operation: Operation, number: u64) -> Operation {
    let name = Bytes::from(format!("key {number}"));
    match &mut operation.action {
        Action::Put { key, .. }
        | Action::Append { key, .. }
        | Action::Delete { key }
        | Action::Get { key } => {
            *key = name;
        }
        Action::Scan { .. } => {}
    }
    operation
}

//! The definition itself, tried out: every order of the operations. For a handful of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sim::linearizability::{Action, Operation, Outcome};

type Map = BTreeMap<Bytes, Bytes>;

/// Whether some order of the operations explains all answers.
pub(crate) fn is_linearizable(operations: &[Operation]) -> bool {
    assert!(operations.len() < 32, "there would be no end to it");
    let mut seen = BTreeSet::new();
    explains(operations, 0, &Map::new(), &mut seen)
}

/// Whether the operations that are not in `done` can follow on `map`.
fn explains(operations: &[Operation], done: u32, map: &Map, seen: &mut BTreeSet<(u32, Map)>) -> bool {
    let is_open = |place: usize| done >> place & 1 == 0;
    let left = (0..operations.len()).filter(|&place| is_open(place));
    let first_end = left
        .clone()
        .filter(|&place| operations[place].is_certain())
        .map(|place| operations[place].end_us)
        .min();
    let Some(first_end) = first_end else { return true };
    if !seen.insert((done, map.clone())) {
        return false;
    }
    left.filter(|&place| operations[place].start_us <= first_end)
        .any(|place| {
            let next = apply(&operations[place], map);
            next.is_some_and(|next| explains(operations, done | 1 << place, &next, seen))
        })
}

/// The map after the operation, if it would have been told what it was told.
fn apply(operation: &Operation, map: &Map) -> Option<Map> {
    let mut next = map.clone();
    let fits = match (&operation.action, &operation.outcome) {
        (_, Outcome::Failed) => false,
        (Action::Put { key, value }, _) => {
            next.insert(key.clone(), value.clone());
            true
        }
        (Action::Append { key, value }, _) => {
            let old = next.remove(key).unwrap_or_default();
            next.insert(key.clone(), [&old[..], value].concat().into());
            true
        }
        (Action::Delete { key }, outcome) => {
            let was_there = next.remove(key).is_some();
            !matches!(outcome, Outcome::Deleted { existed } if *existed != was_there)
        }
        (Action::Get { key }, Outcome::Value(value)) => map.get(key) == value.as_ref(),
        (Action::Scan { from, to }, Outcome::Page { items, more }) => {
            let in_range = map
                .range(from.clone()..)
                .take_while(|(key, _)| to.as_ref().is_none_or(|to| *key < to));
            let last = items.last().map(|(key, _)| key);
            let read = in_range.filter(|(key, _)| !more || last.is_some_and(|last| *key <= last));
            read.eq(items.iter().map(|(key, value)| (key, value)))
        }
        _ => false,
    };
    fits.then_some(next)
}

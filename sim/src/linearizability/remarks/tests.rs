//! Remarks against every order of the writes.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::super::history::{Action, History, Operation, Outcome};
use super::super::window::read_by;
use super::remarks;

/// Some end as others begin, and two begin alike.
const LITERALS: [&str; 8] = ["a;", "b;", "c;", "ab", ";a", "", "a;b;", "d"];

fn literal(generator: &mut Pcg64Mcg, spread: usize) -> Bytes {
    LITERALS[generator.random_range(0..spread)].into()
}

/// Operations on one key that took effect one after the other, of which some answers are then changed.
fn random(generator: &mut Pcg64Mcg) -> History {
    let key = Bytes::from("k");
    let spread = generator.random_range(2..=LITERALS.len());
    let longest = generator.random_range(1..=6);
    let mut value: Option<Bytes> = generator.random_ratio(1, 3).then(|| literal(generator, spread));
    let initial: BTreeMap<Bytes, Bytes> = value.iter().map(|value| (key.clone(), value.clone())).collect();
    let mut operations = Vec::new();
    for now in 0..generator.random_range(2..=9_u64) {
        let at = 10 + now;
        let action = action(generator, &key, spread);
        let outcome = if action.is_write() {
            write(generator, &action, &mut value)
        } else {
            read(generator, &action, value.clone())
        };
        let start_us = at - generator.random_range(0..=longest);
        let end_us = match outcome {
            Outcome::Unknown => start_us + generator.random_range(0..=2),
            _ => at + generator.random_range(0..=longest),
        };
        operations.push(Operation {
            client: 1,
            action,
            start_us,
            end_us,
            outcome,
        });
    }
    History::with_initial(initial, operations).expect("it makes sense")
}

fn action(generator: &mut Pcg64Mcg, key: &Bytes, spread: usize) -> Action {
    let (key, value) = (key.clone(), literal(generator, spread));
    match generator.random_range(0..10) {
        0 => Action::Put { key, value },
        1 => Action::Delete { key },
        2..=5 => Action::Append { key, value },
        6 => Action::Scan {
            from: Bytes::new(),
            to: None,
        },
        _ => Action::Get { key },
    }
}

/// Does it, or not, and tells what became of it, or not.
fn write(generator: &mut Pcg64Mcg, action: &Action, value: &mut Option<Bytes>) -> Outcome {
    let is_told = generator.random_ratio(4, 5);
    if generator.random_ratio(1, 4) {
        return if is_told {
            Outcome::Failed
        } else {
            Outcome::Unknown
        };
    }
    let existed = value.is_some();
    *value = match action {
        Action::Put { value, .. } => Some(value.clone()),
        Action::Append { value: more, .. } => {
            Some([&value.clone().unwrap_or_default()[..], more].concat().into())
        }
        _ => None,
    };
    match action {
        _ if !is_told => Outcome::Unknown,
        Action::Delete { .. } if generator.random_ratio(2, 3) => Outcome::Deleted { existed },
        _ => Outcome::Done,
    }
}

/// Reads what is there, or something with a piece more or less, or in another order.
fn read(generator: &mut Pcg64Mcg, action: &Action, value: Option<Bytes>) -> Outcome {
    let mut read = value;
    if generator.random_ratio(1, 3) {
        let text = read.unwrap_or_default();
        let (head, tail) = text.split_at(generator.random_range(0..=text.len()));
        read = Some(match generator.random_range(0..3) {
            0 => [head, &literal(generator, LITERALS.len()), tail].concat().into(),
            1 => Bytes::copy_from_slice(head),
            _ => [tail, head].concat().into(),
        });
    }
    match action {
        Action::Get { .. } => Outcome::Value(read),
        _ => Outcome::Page {
            items: read.into_iter().map(|read| ("k".into(), read)).collect(),
            more: generator.random_ratio(1, 2),
        },
    }
}

/// Whether the writes of the history explain what the operation at `reader` read, by trying everything. Those that are not
/// in `held` may have taken effect at any time after they began, or never.
fn is_explained(history: &History, reader: usize, read: &Bytes, held: &[usize]) -> bool {
    let known = |(place, operation): (usize, &Operation)| {
        let mut operation = operation.clone();
        let is_held = place == reader || held.contains(&place);
        // What removed nothing only read.
        let is_write =
            operation.action.is_write() && operation.outcome != Outcome::Deleted { existed: false };
        if !is_held && operation.is_certain() {
            operation.outcome = Outcome::Unknown;
        }
        ((is_held || is_write) && operation.outcome != Outcome::Failed).then_some(operation)
    };
    let operations: Vec<Operation> = history
        .operations()
        .iter()
        .enumerate()
        .filter_map(known)
        .collect();
    let initial = history.initial().values().next().cloned();
    let mut open = vec![(0_u32, initial)];
    let mut seen = HashSet::new();
    while let Some((done, value)) = open.pop() {
        if !seen.insert((done, value.clone())) {
            continue;
        }
        let left = |place: usize| done & (1 << place) == 0;
        let certain = |place: usize| operations[place].is_certain();
        if (0..operations.len()).all(|place| !left(place) || !certain(place)) {
            return true;
        }
        for (place, next) in operations.iter().enumerate().filter(|(place, _)| left(*place)) {
            let is_late = (0..operations.len())
                .any(|other| left(other) && certain(other) && operations[other].end_us < next.start_us);
            let after = match (&next.action, &next.outcome) {
                (Action::Put { value, .. }, _) => Some(Some(value.clone())),
                (Action::Append { value: more, .. }, _) => Some(Some(
                    [&value.clone().unwrap_or_default()[..], more].concat().into(),
                )),
                (Action::Delete { .. }, Outcome::Deleted { existed }) => {
                    (*existed == value.is_some()).then_some(None)
                }
                (Action::Delete { .. }, _) => Some(None),
                _ => (value.as_ref() == Some(read)).then(|| value.clone()),
            };
            if let (false, Some(after)) = (is_late, after) {
                open.push((done | 1 << place, after));
            }
        }
    }
    false
}

#[test]
fn what_is_remarked_cannot_be_explained_by_the_writes() {
    let mut generator = Pcg64Mcg::seed_from_u64(1);
    let mut kinds: BTreeMap<&str, usize> = [
        "begins what nobody wrote",
        "its write failed",
        "it was not written yet",
        "at most",
        "stands behind",
        "is not there",
    ]
    .map(|kind| (kind, 0))
    .into();
    for number in 0..20_000 {
        let history = random(&mut generator);
        for (reader, operation) in history.operations().iter().enumerate() {
            let Some((_, read)) = read_by(operation).into_iter().next() else {
                continue;
            };
            for remark in remarks(&history, reader, Instant::now() + Duration::from_secs(60)) {
                let held = [&remark.operations[..], &remark.besides].concat();
                assert!(
                    !is_explained(&history, reader, read, &held),
                    "history {number}: {remark:?} of operation {} of {history:#?}",
                    reader + 1
                );
                let said = kinds.iter_mut().find(|(kind, _)| remark.text.contains(*kind));
                *said.expect("it is of one of these kinds").1 += 1;
            }
        }
    }
    assert!(kinds.values().all(|made| *made > 20), "{kinds:?}");
}

//! Which writes can have led to what a read saw.
//!
//! A read that has begun and whose value can no longer come about makes a configuration hopeless long before the
//! read ends. Most wrong turns of the search are seen so.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::history::{Action, Operation, Outcome};
use super::limits::{Budget, Exhausted};

/// With more writes than this it is not worth the while to look at them.
const MOST_WRITES: usize = 64;

/// The writes that were at work while a read was, and can have to do with it, by their places in the key.
#[derive(Clone, Debug, Default)]
pub(super) struct Causes {
    /// Those that can complete the value.
    pub(super) last: Vec<usize>,
    /// Those that can begin it.
    pub(super) first: Vec<usize>,
}

/// An operation of a key and the times between which it can take effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed<'a> {
    pub(super) operation: &'a Operation,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
}

impl Timed<'_> {
    fn overlaps(&self, other: &Self) -> bool {
        self.start_us <= other.end_us && other.start_us <= self.end_us
    }
}

/// For each operation of a key, the causes of what it saw. `None` for writes, and where there are too many.
pub(super) fn causes(operations: &[Timed<'_>], budget: &Budget) -> Result<Vec<Option<Causes>>, Exhausted> {
    let writes = Writes::of(operations);
    let of_one = |read: &Timed<'_>| {
        let causes = match (&read.operation.action, &read.operation.outcome) {
            (Action::Get { .. }, Outcome::Value(Some(value))) => Causes {
                last: writes.last(value, read, operations)?,
                first: writes.first(value, read, operations)?,
            },
            (_, Outcome::Value(None) | Outcome::Deleted { existed: false }) => {
                let deletes = during(writes.deletes.iter(), read, operations)?;
                Causes {
                    last: deletes.clone(),
                    first: deletes,
                }
            }
            _ => return None,
        };
        Some(causes)
    };
    operations
        .iter()
        .map(|read| {
            budget.look_at_the_clock()?;
            Ok(of_one(read))
        })
        .collect()
}

/// The writes of a key by what they write.
#[derive(Debug, Default)]
struct Writes<'a> {
    puts: Literals<'a>,
    appends: Literals<'a>,
    deletes: Vec<usize>,
}

impl<'a> Writes<'a> {
    fn of(operations: &[Timed<'a>]) -> Self {
        let mut writes = Self::default();
        for (place, timed) in operations.iter().enumerate() {
            match &timed.operation.action {
                Action::Put { value, .. } => writes.puts.add(value, place),
                Action::Append { value, .. } => writes.appends.add(value, place),
                Action::Delete { .. } if timed.operation.outcome != (Outcome::Deleted { existed: false }) => {
                    writes.deletes.push(place);
                }
                _ => {}
            }
        }
        writes
    }

    fn last(&self, value: &Bytes, read: &Timed<'_>, operations: &[Timed<'_>]) -> Option<Vec<usize>> {
        let puts = self.puts.places.get(&value[..]).into_iter().flatten();
        during(puts.chain(self.appends.at_end_of(value)), read, operations)
    }

    fn first(&self, value: &Bytes, read: &Timed<'_>, operations: &[Timed<'_>]) -> Option<Vec<usize>> {
        let puts = self.puts.at_start_of(value);
        during(puts.chain(&self.deletes), read, operations)
    }
}

/// Those of the writes at `places` that were at work while `read` was, if they are not too many.
fn during<'a>(
    places: impl Iterator<Item = &'a usize>,
    read: &Timed<'_>,
    operations: &[Timed<'_>],
) -> Option<Vec<usize>> {
    let overlapping = places.copied().filter(|&place| operations[place].overlaps(read));
    let found: Vec<usize> = overlapping.take(MOST_WRITES + 1).collect();
    (found.len() <= MOST_WRITES).then_some(found)
}

/// Writes by the bytes that they write.
#[derive(Debug, Default)]
struct Literals<'a> {
    lengths: BTreeSet<usize>,
    places: HashMap<&'a [u8], Vec<usize>>,
}

impl<'a> Literals<'a> {
    fn add(&mut self, literal: &'a Bytes, place: usize) {
        self.lengths.insert(literal.len());
        self.places.entry(literal).or_default().push(place);
    }

    fn at_start_of(&self, value: &[u8]) -> impl Iterator<Item = &usize> {
        let lengths = self.lengths.range(..=value.len());
        lengths
            .filter_map(|&length| self.places.get(&value[..length]))
            .flatten()
    }

    fn at_end_of(&self, value: &[u8]) -> impl Iterator<Item = &usize> {
        let lengths = self.lengths.range(..=value.len());
        lengths
            .filter_map(|&length| self.places.get(&value[value.len() - length..]))
            .flatten()
    }
}

//! Cuts a history into parts that have nothing to do with each other, and each into events.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::history::{Action, History, Operation, Outcome};
use super::limits::{Budget, Exhausted};
use super::needs::{Causes, Timed, causes};
use super::register::{Effect, KeyOperation};
use super::values::{State, Values};

/// Keys that are joined by scans, or one key.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) keys: Vec<Key>,
    pub(super) scans: Vec<Scan>,
    /// In the order of time.
    pub(super) events: Vec<Event>,
}

/// One key and all operations on it.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) initial: State,
    pub(super) values: Values,
    pub(super) literals: Vec<Bytes>,
    pub(super) operations: Vec<KeyOperation>,
    /// By operation: the writes that can have led to what it saw, if it is a read.
    pub(super) causes: Vec<Option<Causes>>,
    /// By operation: the reads that it can have led to.
    pub(super) consequences: Vec<Vec<usize>>,
}

/// A page of a scan that read several keys.
#[derive(Debug)]
pub(super) struct Scan {
    /// Its place in the history.
    pub(super) operation: usize,
    /// The keys by their place in the part, and what was read of each.
    pub(super) read: Vec<(usize, State)>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// An operation of a key, both by their places in the part.
    Key { key: usize, operation: usize },
    /// A scan, by its place in the part.
    Scan(usize),
}

/// What happens. At one time, starts come first: operations that touch were at work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happening {
    Start,
    End,
    /// Nobody who looks later can see whether this operation of unknown outcome took effect.
    Lapse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    pub(super) at_us: u64,
    pub(super) happening: Happening,
    pub(super) subject: Subject,
}

/// Everything of one key, before it is known what can be told apart.
#[derive(Debug, Default)]
struct Raw<'a> {
    operations: Vec<(usize, &'a Operation)>,
    /// What scans read of it: the value, and when the scan ended.
    scanned: Vec<(Option<&'a Bytes>, u64)>,
    initial: Option<&'a Bytes>,
}

/// The parts of a history, in the order of their first keys, unless the time is over first: to compare many long values
/// with each other takes long.
pub(super) fn parts(history: &History, budget: &Budget) -> Result<Vec<Part>, Exhausted> {
    let names = names(history);
    let mut raws: Vec<Raw<'_>> = names.keys().map(|_| Raw::default()).collect();
    for (name, value) in history.initial() {
        raws[names[name]].initial = Some(value);
    }
    let mut groups = Groups::new(raws.len());
    let mut scans = Vec::new();
    for (place, operation) in history.operations().iter().enumerate() {
        budget.look_at_the_clock()?;
        if let Some(key) = operation.action.key() {
            raws[names[key]].operations.push((place, operation));
        } else if let Some(read) = pages(operation, &names) {
            for window in read.windows(2) {
                groups.join(window[0].0, window[1].0);
            }
            for &(key, value) in &read {
                raws[key].scanned.push((value, operation.end_us));
            }
            scans.push((place, operation, read));
        }
    }
    build(raws, &scans, &mut groups, budget)
}

/// All keys that occur, numbered in order.
fn names(history: &History) -> BTreeMap<&Bytes, usize> {
    let mut names: BTreeSet<&Bytes> = history.initial().keys().collect();
    for operation in history.operations() {
        names.extend(operation.action.key());
        if let Outcome::Page { items, .. } = &operation.outcome {
            names.extend(items.iter().map(|(key, _)| key));
        }
    }
    names
        .into_iter()
        .enumerate()
        .map(|(place, name)| (name, place))
        .collect()
}

/// What a scan read of each key that it covers, if it read anything.
fn pages<'a>(
    operation: &'a Operation,
    names: &BTreeMap<&Bytes, usize>,
) -> Option<Vec<(usize, Option<&'a Bytes>)>> {
    let (Action::Scan { from, to }, Outcome::Page { items, more }) = (&operation.action, &operation.outcome)
    else {
        return None;
    };
    let end = match (more, items.last(), to) {
        (true, Some((last, _)), _) => Bound::Included(last),
        (true, None, _) => return None,
        (false, _, Some(to)) if to <= from => return None,
        (false, _, Some(to)) => Bound::Excluded(to),
        (false, _, None) => Bound::Unbounded,
    };
    let items: BTreeMap<&Bytes, &Bytes> = items.iter().map(|(key, value)| (key, value)).collect();
    let covered = names.range::<&Bytes, _>((Bound::Included(from), end));
    Some(
        covered
            .map(|(name, &place)| (place, items.get(name).copied()))
            .collect(),
    )
}

type RawScan<'a> = (usize, &'a Operation, Vec<(usize, Option<&'a Bytes>)>);

fn build(
    raws: Vec<Raw<'_>>,
    scans: &[RawScan<'_>],
    groups: &mut Groups,
    budget: &Budget,
) -> Result<Vec<Part>, Exhausted> {
    let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
    // Where each key ended up in its part.
    let mut places = Vec::with_capacity(raws.len());
    for (number, raw) in raws.into_iter().enumerate() {
        let part = parts.entry(groups.first_of(number)).or_insert_with(Part::empty);
        places.push(part.keys.len());
        part.add_key(&raw, budget)?;
    }
    for (operation, timed, read) in scans {
        budget.look_at_the_clock()?;
        let Some(&(first, _)) = read.first() else { continue };
        let part = parts
            .get_mut(&groups.first_of(first))
            .expect("every key is in a part");
        let read = read.iter().map(|&(number, value)| {
            let place = places[number];
            let values = &mut part.keys[place].values;
            (place, value.map_or(State::ABSENT, |value| values.state_of(value)))
        });
        let read = read.collect();
        part.add_scan(*operation, timed, read);
    }
    let mut parts: Vec<Part> = parts.into_values().collect();
    for part in &mut parts {
        part.events.sort_unstable();
    }
    parts.retain(|part| !part.events.is_empty());
    Ok(parts)
}

impl Part {
    fn empty() -> Self {
        Self {
            keys: Vec::new(),
            scans: Vec::new(),
            events: Vec::new(),
        }
    }

    fn add_key(&mut self, raw: &Raw<'_>, budget: &Budget) -> Result<(), Exhausted> {
        let key = self.keys.len();
        let seen = Seen::of(raw, budget)?;
        let mut values = Values::new(seen.values.clone());
        let initial = raw.initial.map_or(State::ABSENT, |value| values.state_of(value));
        let mut builder = Key {
            initial,
            values,
            literals: Vec::new(),
            operations: Vec::new(),
            causes: Vec::new(),
            consequences: Vec::new(),
        };
        let mut timed = Vec::new();
        for &(place, operation) in &raw.operations {
            budget.look_at_the_clock()?;
            let Some(effect) = builder.effect_of(operation) else {
                continue;
            };
            let is_certain = operation.is_certain();
            // Writes that nobody could see, and reads that read nothing, prove nothing.
            let Some(lapse_us) = seen.until(operation, &effect) else {
                continue;
            };
            let subject = Subject::Key {
                key,
                operation: builder.operations.len(),
            };
            let (happening, end_us) = if is_certain {
                (Happening::End, operation.end_us)
            } else {
                (Happening::Lapse, lapse_us)
            };
            builder.operations.push(KeyOperation {
                operation: place,
                effect,
                is_certain,
            });
            self.add_event(operation.start_us, Happening::Start, subject);
            self.add_event(end_us, happening, subject);
            timed.push(Timed {
                operation,
                start_us: operation.start_us,
                end_us,
            });
        }
        builder.add_causes(&timed, budget)?;
        self.keys.push(builder);
        Ok(())
    }

    fn add_scan(&mut self, operation: usize, timed: &Operation, read: Vec<(usize, State)>) {
        let subject = Subject::Scan(self.scans.len());
        self.scans.push(Scan { operation, read });
        self.add_event(timed.start_us, Happening::Start, subject);
        self.add_event(timed.end_us, Happening::End, subject);
    }

    fn add_event(&mut self, at_us: u64, happening: Happening, subject: Subject) {
        self.events.push(Event {
            at_us,
            happening,
            subject,
        });
    }
}

impl Key {
    fn add_causes(&mut self, operations: &[Timed<'_>], budget: &Budget) -> Result<(), Exhausted> {
        self.causes = causes(operations, budget)?;
        self.consequences = vec![Vec::new(); operations.len()];
        for (read, causes) in self.causes.iter().enumerate() {
            for &write in causes
                .iter()
                .flat_map(|causes| causes.last.iter().chain(&causes.first))
            {
                self.consequences[write].push(read);
            }
        }
        Ok(())
    }

    /// What an operation does, unless it is known to do nothing.
    fn effect_of(&mut self, operation: &Operation) -> Option<Effect> {
        let effect = match (&operation.action, &operation.outcome) {
            (_, Outcome::Failed) | (Action::Get { .. } | Action::Scan { .. }, Outcome::Unknown) => {
                return None;
            }
            (Action::Put { value, .. }, _) => Effect::Put(self.values.state_of(value)),
            // Nothing that begins so was ever read, whatever stood there before.
            (Action::Append { value, .. }, Outcome::Unknown) if !self.values.contains(value) => {
                Effect::Put(State::UNSEEN)
            }
            (Action::Append { value, .. }, _) => {
                let number =
                    u32::try_from(self.literals.len()).expect("memory is full before the numbers are");
                self.literals.push(value.clone());
                Effect::Append(number)
            }
            (Action::Delete { .. }, Outcome::Deleted { existed: false }) => Effect::Read(State::ABSENT),
            (Action::Delete { .. }, outcome) => Effect::Delete {
                was_there: *outcome == Outcome::Deleted { existed: true },
            },
            (Action::Get { .. }, Outcome::Value(None)) => Effect::Read(State::ABSENT),
            (Action::Get { .. }, Outcome::Value(Some(value))) => Effect::Read(self.values.state_of(value)),
            _ => unreachable!("a history is validated when it is made"),
        };
        Some(effect)
    }
}

/// What was seen of a key, and how late.
#[derive(Debug, Default)]
struct Seen {
    values: BTreeSet<Bytes>,
    /// When the last look at it ended.
    last_us: Option<u64>,
    /// When the last look ended that saw no more than that there is a value.
    last_presence_us: Option<u64>,
    /// When the last look at each value ended.
    last_values: BTreeMap<Bytes, u64>,
}

impl Seen {
    fn of(raw: &Raw<'_>, budget: &Budget) -> Result<Self, Exhausted> {
        let mut seen = Self::default();
        for (_, operation) in &raw.operations {
            budget.look_at_the_clock()?;
            match &operation.outcome {
                Outcome::Value(value) => seen.look(value.as_ref(), operation.end_us),
                Outcome::Deleted { existed: false } => seen.look(None, operation.end_us),
                Outcome::Deleted { existed: true } => {
                    seen.look(None, operation.end_us);
                    seen.last_presence_us = seen.last_presence_us.max(Some(operation.end_us));
                }
                _ => {}
            }
        }
        for &(value, end_us) in &raw.scanned {
            budget.look_at_the_clock()?;
            seen.look(value, end_us);
        }
        Ok(seen)
    }

    fn look(&mut self, value: Option<&Bytes>, end_us: u64) {
        self.last_us = self.last_us.max(Some(end_us));
        if let Some(value) = value {
            self.values.insert(value.clone());
            let last_us = self.last_values.entry(value.clone()).or_default();
            *last_us = end_us.max(*last_us);
        }
    }

    /// Until when somebody can look who can tell whether the operation took effect: the same for all writes of unknown
    /// outcome that do the same.
    fn until(&self, operation: &Operation, effect: &Effect) -> Option<u64> {
        let until = match (effect, &operation.action) {
            _ if operation.is_certain() => self.last_us,
            (Effect::Put(_), Action::Put { value, .. }) => {
                let from_value_on = self.last_values.range(value.clone()..);
                let begin_so = from_value_on.take_while(|(seen, _)| seen.starts_with(value));
                let last_us = begin_so.map(|(_, end_us)| *end_us).max();
                last_us.max(self.last_presence_us)
            }
            (Effect::Put(_), Action::Append { .. }) => self.last_presence_us,
            _ => self.last_us,
        };
        until.filter(|&until| until >= operation.start_us)
    }
}

/// Which keys are joined.
#[derive(Debug)]
struct Groups {
    parent: Vec<usize>,
}

impl Groups {
    fn new(count: usize) -> Self {
        Self {
            parent: (0..count).collect(),
        }
    }

    /// The first of all that `member` is joined with.
    fn first_of(&mut self, mut member: usize) -> usize {
        while self.parent[member] != member {
            self.parent[member] = self.parent[self.parent[member]];
            member = self.parent[member];
        }
        member
    }

    fn join(&mut self, left: usize, right: usize) {
        let (left, right) = (self.first_of(left), self.first_of(right));
        self.parent[left.max(right)] = left.min(right);
    }
}

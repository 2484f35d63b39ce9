//! The smallest part of a history that shows that it is not linearizable.
//!
//! What is shown must follow from what was recorded. Leaving a read out is always allowed. Leaving a write out is
//! not, as it may be the one that explains an answer; but it may be taken for one of unknown outcome, which is
//! to know less. So reads are left out and writes taken for unknown as long as no explanation turns up. Of the
//! writes that are then unknown, those stay whose values were read, so that one sees where they came from.
//!
//! Where there is a [remark](super::remarks) on what the offending operation read, no search is needed: it is a proof.

use std::time::{Duration, Instant};

use bytes::Bytes;
use memchr::memmem;

use super::history::{Action, History, Operation, Outcome};
use super::limits::Limits;
use super::remarks::remarks;
use super::{Verdict, Violation, check};

/// So many smaller histories are tried.
const MOST_TRIES: usize = 3_000;
/// A smaller history that takes more configurations is no simpler.
const MOST_CONFIGURATIONS: u64 = 5_000_000;
/// Of the writes that only tell where a value came from, so many are shown.
const MOST_ORIGINS: usize = 8;
/// A remark that names more operations is no simple explanation.
const MOST_NAMED: usize = 12;
/// So many remarks are shown.
const MOST_REMARKS: usize = 8;
/// The last look at what was read takes as long as is left, but no less and no more than this.
const LAST_LOOK_MIN: Duration = Duration::from_secs(1);
const LAST_LOOK_MAX: Duration = Duration::from_secs(5);
/// Of what was there before all, so much is shown.
const MOST_INITIAL: usize = 12;

/// An operation in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// As it was recorded.
    pub operation: Operation,
    /// Its place in the history.
    pub place: usize,
    /// It is needed to see the violation; otherwise it only tells where a value came from.
    pub is_needed: bool,
}

/// A part of a history that cannot be explained whatever else happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its operations, by their starts.
    pub operations: Vec<Shown>,
    /// The place in the history of the operation that cannot be explained.
    pub offending: usize,
    /// How many operations the whole history has.
    pub out_of: usize,
    /// What was there before all operations, of the keys that they name: keys and values, in the order of the keys, the
    /// first ones if there are many.
    pub initial: Vec<(Bytes, Bytes)>,
    /// Where to look in what the operations read, the offending one first: what is missing from a value, is there too
    /// often, stands in the wrong order or was written by nobody. Empty if the times alone tell.
    pub remarks: Vec<String>,
}

impl Window {
    /// With no more than the last `most` operations and the offending one, and how many are left out.
    pub(super) fn cut(&self, most: usize) -> (Self, usize) {
        let left_out = self.operations.len().saturating_sub(most);
        let is_kept =
            |(number, shown): &(usize, &Shown)| *number >= left_out || shown.place == self.offending;
        let kept = self.operations.iter().enumerate().filter(is_kept);
        let operations: Vec<Shown> = kept.map(|(_, shown)| shown.clone()).collect();
        let left_out = self.operations.len() - operations.len();
        let cut = Self {
            operations,
            offending: self.offending,
            out_of: self.out_of,
            initial: self.initial.clone(),
            remarks: self.remarks.clone(),
        };
        (cut, left_out)
    }
}

/// Finds a small window that shows a violation, and looks for about `time` for a smaller one. The same violation always
/// gives the same window, unless that time is over first. Some seconds more may go into a last look at long values.
#[must_use]
pub fn explain(history: &History, violation: &Violation, time: Duration) -> Window {
    let mut shrinking = Shrinking::new(history, violation.operation, time);
    shrinking.run();
    shrinking.window()
}

/// What of an operation is held on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// All that was recorded.
    Whole,
    /// That it may have taken effect at some time.
    Unknown,
    /// Nothing.
    Not,
}

struct Shrinking<'a> {
    history: &'a History,
    offending: usize,
    held: Vec<Held>,
    tries: usize,
    started: Instant,
    time: Duration,
}

impl<'a> Shrinking<'a> {
    fn new(history: &'a History, offending: usize, time: Duration) -> Self {
        let operations = history.operations();
        let until_us = operations[offending].end_us;
        let hold = |(place, operation): (usize, &Operation)| {
            let is_later = operation.start_us > until_us;
            if is_later || operation.outcome == Outcome::Failed {
                Held::Not
            } else if place != offending && (operation.end_us > until_us || !operation.is_certain()) {
                weaker(operation)
            } else {
                Held::Whole
            }
        };
        Self {
            history,
            offending,
            held: operations.iter().enumerate().map(hold).collect(),
            tries: 0,
            started: Instant::now(),
            time,
        }
    }

    /// Holds on to less and less, in ever smaller pieces.
    fn run(&mut self) {
        if self.keep_to_a_remark() {
            return;
        }
        self.keep_to_keys();
        let mut size = self.candidates().len().div_ceil(2);
        while size > 0 {
            let mut progress = false;
            for piece in self.candidates().chunks(size) {
                progress |= self.try_without(piece);
            }
            if !progress || size > 1 {
                size /= 2;
            }
        }
    }

    /// The operations of which less could be held on to. The latest are given up last.
    fn candidates(&self) -> Vec<usize> {
        (0..self.held.len())
            .filter(|&place| place != self.offending && self.held[place] == Held::Whole)
            .collect()
    }

    /// Holds on to what a remark on the offending operation names: that is enough, and takes no search, which in a long list
    /// would have too many writes to think of.
    fn keep_to_a_remark(&mut self) -> bool {
        let remarks = remarks(self.history, self.offending, Instant::now() + LAST_LOOK_MAX);
        let named = remarks
            .into_iter()
            .map(|remark| [remark.operations, remark.besides].concat());
        let Some(named) = named
            .filter(|places| places.len() <= MOST_NAMED)
            .min_by_key(Vec::len)
        else {
            return false;
        };
        for place in self.candidates() {
            self.held[place] = weaker(&self.history.operations()[place]);
        }
        for place in named {
            self.held[place] = Held::Whole;
        }
        true
    }

    /// Tries the keys of the offending operation alone.
    fn keep_to_keys(&mut self) {
        let operations = self.history.operations();
        let Some(key) = operations[self.offending].action.key() else {
            return;
        };
        let is_other = |place: &usize| operations[*place].action.key() != Some(key);
        let others: Vec<usize> = self.candidates().into_iter().filter(is_other).collect();
        if self.try_without(&others) {
            for place in (0..self.held.len()).filter(is_other) {
                self.held[place] = Held::Not;
            }
        }
    }

    fn try_without(&mut self, places: &[usize]) -> bool {
        let left = self.time.saturating_sub(self.started.elapsed());
        if self.tries == MOST_TRIES || left.is_zero() {
            return false;
        }
        let before = self.held.clone();
        for &place in places {
            self.held[place] = weaker(&self.history.operations()[place]);
        }
        let is_enough = self.is_violated(left);
        if !is_enough {
            self.held = before;
        }
        self.tries += 1;
        is_enough
    }

    fn is_violated(&self, time: Duration) -> bool {
        let limits = Limits {
            time,
            configurations: MOST_CONFIGURATIONS,
        };
        let kept = self.history.operations().iter().zip(&self.held);
        let operations = kept.filter_map(|(operation, held)| {
            let mut operation = operation.clone();
            match held {
                Held::Not => return None,
                Held::Unknown => operation.outcome = Outcome::Unknown,
                Held::Whole => {}
            }
            Some(operation)
        });
        let smaller = History::with_initial(self.history.initial().clone(), operations.collect());
        smaller.is_ok_and(|smaller| matches!(check(&smaller, limits).verdict, Verdict::Violation(_)))
    }

    fn window(&self) -> Window {
        let shown = |place: usize, is_needed| Shown {
            operation: self.history.operations()[place].clone(),
            place,
            is_needed,
        };
        let needed = (0..self.held.len()).filter(|&place| self.held[place] == Held::Whole);
        let mut operations: Vec<Shown> = needed.map(|place| shown(place, true)).collect();
        let left = self.time.saturating_sub(self.started.elapsed());
        let until = Instant::now() + left.clamp(LAST_LOOK_MIN, LAST_LOOK_MAX);
        let (remarks, remarked) = self.remarks(&operations, until);
        let origins = self.origins(&operations, &remarked, until);
        operations.extend(origins.into_iter().map(|place| shown(place, false)));
        operations.sort_by_key(|shown| (shown.operation.start_us, shown.place));
        Window {
            remarks,
            initial: self.initial(&operations),
            operations,
            offending: self.offending,
            out_of: self.history.operations().len(),
        }
    }

    /// What was there before all, of the keys of these operations.
    fn initial(&self, shown: &[Shown]) -> Vec<(Bytes, Bytes)> {
        let is_named = |key: &Bytes| shown.iter().any(|shown| names(&shown.operation, key));
        let initial = self.history.initial().iter().filter(|(key, _)| is_named(key));
        initial
            .map(|(key, value)| (key.clone(), value.clone()))
            .take(MOST_INITIAL)
            .collect()
    }

    /// What there is to say of what was read, and of which operations that is, by their places.
    /// No others are looked at after `until`.
    fn remarks(&self, needed: &[Shown], until: Instant) -> (Vec<String>, Vec<usize>) {
        let mut readers: Vec<usize> = needed.iter().map(|shown| shown.place).collect();
        readers.sort_by_key(|&place| (place != self.offending, place));
        let (mut texts, mut places) = (Vec::new(), Vec::new());
        for reader in readers {
            for remark in remarks(self.history, reader, until) {
                if texts.len() == MOST_REMARKS {
                    return (texts, places);
                }
                let named = remark
                    .operations
                    .iter()
                    .map(|place| format!("operation {}", place + 1));
                let named: Vec<String> = named.collect();
                let named = match &named[..] {
                    [] => String::new(),
                    named => format!(" ({})", named.join(", ")),
                };
                texts.push(format!(
                    "in what operation {} read, {}{named}",
                    reader + 1,
                    remark.text
                ));
                places.extend(remark.operations);
            }
        }
        (texts, places)
    }

    /// The writes that can have led to what the needed operations read: those at `remarked`, and of the others the latest
    /// ones if there are many.
    fn origins(&self, needed: &[Shown], remarked: &[usize], until: Instant) -> Vec<usize> {
        let operations = self.history.operations();
        let read: Vec<(&Bytes, &Bytes)> = needed
            .iter()
            .flat_map(|shown| read_by(&shown.operation))
            .collect();
        let is_origin = |place: &usize| {
            let key = operations[*place].action.key();
            match &operations[*place].action {
                Action::Put { value, .. } => read
                    .iter()
                    .any(|(name, read)| Some(*name) == key && read.starts_with(value)),
                Action::Append { value, .. } => read.iter().any(|(name, read)| {
                    Some(*name) == key && !value.is_empty() && memmem::find(read, value).is_some()
                }),
                _ => false,
            }
        };
        let is_shown = |place: &usize| self.held[*place] == Held::Whole;
        // The latest first, as these are shown.
        let (mut origins, mut others): (Vec<usize>, Vec<usize>) = (0..self.held.len())
            .rev()
            .filter(|place| {
                !is_shown(place)
                    && (remarked.contains(place)
                        || self.held[*place] == Held::Unknown && Instant::now() < until && is_origin(place))
            })
            .partition(|place| remarked.contains(place));
        origins.reverse();
        origins.truncate(MOST_ORIGINS);
        others.sort_by_key(|&place| operations[place].start_us);
        origins.extend(others.into_iter().rev().take(MOST_ORIGINS - origins.len()));
        origins
    }
}

/// Whether an operation is about `key`. A page of a scan is about all that lies in it.
fn names(operation: &Operation, key: &Bytes) -> bool {
    match (&operation.action, &operation.outcome) {
        (Action::Scan { from, to }, Outcome::Page { items, more }) => {
            let is_below_end = to.as_ref().is_none_or(|to| key < to);
            let is_on_page = !more || items.last().is_some_and(|(last, _)| key <= last);
            from <= key && is_below_end && is_on_page
        }
        (action, _) => action.key() == Some(key),
    }
}

/// To hold on to as little as is allowed.
fn weaker(operation: &Operation) -> Held {
    if operation.action.is_write() && operation.outcome != (Outcome::Deleted { existed: false }) {
        Held::Unknown
    } else {
        Held::Not
    }
}

/// Keys and values that an operation read.
pub(super) fn read_by(operation: &Operation) -> Vec<(&Bytes, &Bytes)> {
    match (&operation.action, &operation.outcome) {
        (Action::Get { key }, Outcome::Value(Some(value))) => vec![(key, value)],
        (Action::Scan { .. }, Outcome::Page { items, .. }) => {
            items.iter().map(|(key, value)| (key, value)).collect()
        }
        _ => Vec::new(),
    }
}

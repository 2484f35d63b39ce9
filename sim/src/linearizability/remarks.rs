//! Where to look in a long value.
//!
//! A list of hundreds of entries that lacks one, or has one twice, looks like any other. So what was read is taken apart
//! into what the writes of the key wrote, and what cannot be is told. Each remark would be a violation by itself. None is
//! made of a key where that can be done in two ways, because one of its literals begins another.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Instant;

use bytes::Bytes;

use super::history::{Action, History, Operation, Outcome};
use super::text::show;
use super::window::read_by;

/// Of one value, so many remarks are made.
const MOST_REMARKS: usize = 3;

/// What there is to say of a value, and by which operations, by their places in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) text: String,
    pub(super) operations: Vec<usize>,
}

/// What there is to say of the values that the operation at `reader` read. Values are not looked at after `until`.
pub(super) fn remarks(history: &History, reader: usize, until: Instant) -> Vec<Remark> {
    let reading = &history.operations()[reader];
    read_by(reading)
        .into_iter()
        .take_while(|_| Instant::now() < until)
        .flat_map(|(key, value)| {
            let mut remarks = Writes::of(history, key, reading).remarks(value);
            let more = remarks.len().saturating_sub(MOST_REMARKS);
            remarks.truncate(MOST_REMARKS);
            if more > 0 {
                remarks.push(Remark {
                    text: format!("and {more} more of {}", show(key)),
                    operations: Vec::new(),
                });
            }
            remarks
        })
        .collect()
}

/// What can have written a literal.
#[derive(Debug, Default)]
struct Source<'a> {
    /// It was there before all.
    is_initial: bool,
    /// The writes of it that began before the read ended, with their places in the history.
    writes: Vec<(usize, &'a Operation)>,
}

impl<'a> Source<'a> {
    /// The only write of it, if it took effect for certain.
    fn only_write(&self) -> Option<(usize, &'a Operation)> {
        match self.writes[..] {
            [only] if !self.is_initial && only.1.is_certain() => Some(only),
            _ => None,
        }
    }
}

/// The writes of one key that a read of it can have seen.
#[derive(Debug)]
struct Writes<'a> {
    reading: &'a Operation,
    sources: BTreeMap<&'a [u8], Source<'a>>,
    /// When the last put or delete that may have taken effect ended: what was appended before may be gone.
    replaced_until_us: Option<u64>,
}

impl<'a> Writes<'a> {
    fn of(history: &'a History, key: &Bytes, reading: &'a Operation) -> Self {
        let mut writes = Self {
            reading,
            sources: BTreeMap::new(),
            replaced_until_us: None,
        };
        if let Some(initial) = history.initial().get(key) {
            writes.source(initial).is_initial = true;
        }
        for (place, operation) in history.operations().iter().enumerate() {
            if operation.action.key() != Some(key) || operation.start_us > reading.end_us {
                continue;
            }
            if let Action::Put { value, .. } | Action::Append { value, .. } = &operation.action {
                writes.source(value).writes.push((place, operation));
            }
            if matches!(operation.action, Action::Put { .. } | Action::Delete { .. }) {
                let until_us = match operation.outcome {
                    Outcome::Failed | Outcome::Deleted { existed: false } => None,
                    Outcome::Unknown => Some(u64::MAX),
                    _ => Some(operation.end_us),
                };
                writes.replaced_until_us = writes.replaced_until_us.max(until_us);
            }
        }
        writes
    }

    fn source(&mut self, literal: &'a [u8]) -> &mut Source<'a> {
        self.sources.entry(literal).or_default()
    }

    fn remarks(&self, value: &'a [u8]) -> Vec<Remark> {
        if self.is_ambiguous() {
            return Vec::new();
        }
        let (pieces, known) = self.pieces(value);
        let mut remarks = Vec::new();
        if known < value.len() {
            let rest = Bytes::copy_from_slice(&value[known..]);
            remarks.push(Remark {
                text: format!("byte {known} on, {}, was written by nobody", show(&rest)),
                operations: Vec::new(),
            });
        }
        remarks.extend(self.what_failed_or_is_there_too_often(&pieces));
        remarks.extend(self.what_is_in_the_wrong_order(&pieces));
        // What follows the unknown could be there.
        if known == value.len() {
            remarks.extend(self.what_is_not_there(&pieces));
        }
        remarks
    }

    /// Whether one literal begins another.
    fn is_ambiguous(&self) -> bool {
        let literals: Vec<&[u8]> = self
            .sources
            .keys()
            .copied()
            .filter(|key| !key.is_empty())
            .collect();
        literals.windows(2).any(|pair| pair[1].starts_with(pair[0]))
    }

    /// The literals of which `value` consists, each with the place of its first byte, and how many bytes these are:
    /// behind them is nothing that somebody wrote.
    fn pieces(&self, value: &'a [u8]) -> (Vec<(usize, &'a [u8])>, usize) {
        let (mut pieces, mut at) = (Vec::new(), 0);
        while at < value.len() {
            let rest = &value[at..];
            // As none begins another, the one with which the rest begins is the last that is not behind it in their order.
            let until_rest = (Bound::Unbounded, Bound::Included(rest));
            let piece = self.sources.range::<[u8], _>(until_rest).next_back();
            let Some((&piece, _)) = piece.filter(|(piece, _)| !piece.is_empty() && rest.starts_with(piece))
            else {
                break;
            };
            pieces.push((at, piece));
            at += piece.len();
        }
        (pieces, at)
    }

    fn what_failed_or_is_there_too_often(&self, pieces: &[(usize, &[u8])]) -> Vec<Remark> {
        let mut places: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        for &(at, piece) in pieces {
            places.entry(piece).or_default().push(at);
        }
        let remark = |(literal, at): (&[u8], Vec<usize>)| {
            let source = &self.sources[literal];
            let may_write = |write: &&(usize, &Operation)| write.1.outcome != Outcome::Failed;
            let writes = source.writes.iter().filter(may_write).count() + usize::from(source.is_initial);
            if at.len() <= writes {
                return None;
            }
            let written = match writes {
                0 => "though its write failed".to_owned(),
                1 => "though it was written once".to_owned(),
                more => format!("though it was written {more} times"),
            };
            let at: Vec<String> = at.iter().take(4).map(usize::to_string).collect();
            let literal = show(&Bytes::copy_from_slice(literal));
            Some(Remark {
                text: format!("{literal} is there at byte {}, {written}", at.join(" and ")),
                operations: source.writes.iter().map(|(place, _)| *place).take(4).collect(),
            })
        };
        places.into_iter().filter_map(remark).collect()
    }

    /// The first two that stand the other way round than they were written.
    fn what_is_in_the_wrong_order(&self, pieces: &[(usize, &[u8])]) -> Option<Remark> {
        // The one that began last of those so far.
        let mut latest: Option<(usize, &[u8], &Operation)> = None;
        for &(_, piece) in pieces {
            let Some((place, write)) = self.sources[piece].only_write() else {
                continue;
            };
            if let Some((other, behind, later)) = latest
                && write.end_us < later.start_us
            {
                let [piece, behind] = [piece, behind].map(|literal| show(&Bytes::copy_from_slice(literal)));
                return Some(Remark {
                    text: format!("{piece} stands behind {behind}, though its write ended before that began"),
                    operations: vec![place, other],
                });
            }
            if latest.is_none_or(|(_, _, latest)| latest.start_us < write.start_us) {
                latest = Some((place, piece, write));
            }
        }
        None
    }

    /// Appends that ended before the read began, and after everything that can have removed them.
    fn what_is_not_there(&self, pieces: &[(usize, &[u8])]) -> Vec<Remark> {
        let there: BTreeSet<&[u8]> = pieces.iter().map(|(_, piece)| *piece).collect();
        let lost = |(literal, source): (&&[u8], &Source<'_>)| {
            let (place, write) = source.only_write()?;
            let is_append = matches!(write.action, Action::Append { .. });
            let cannot_be_gone = self.replaced_until_us.is_none_or(|until| until < write.start_us);
            let is_lost = is_append
                && cannot_be_gone
                && write.end_us < self.reading.start_us
                && !literal.is_empty()
                && !there.contains(*literal);
            is_lost.then(|| Remark {
                text: format!("{} is not there", show(&Bytes::copy_from_slice(literal))),
                operations: vec![place],
            })
        };
        let mut lost: Vec<Remark> = self.sources.iter().filter_map(lost).collect();
        lost.sort_by(|left, right| left.operations.cmp(&right.operations));
        lost
    }
}

#[cfg(test)]
mod tests {
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
        let mut value: Option<Bytes> = generator.random_ratio(1, 3).then(|| literal(generator, spread));
        let initial: BTreeMap<Bytes, Bytes> =
            value.iter().map(|value| (key.clone(), value.clone())).collect();
        let mut operations = Vec::new();
        let longest = generator.random_range(1..=6);
        for now in 0..generator.random_range(2..=9_u64) {
            let at = 10 + now;
            let start_us = at - generator.random_range(0..=longest).min(at);
            let mut end_us = at + generator.random_range(0..=longest);
            let takes_effect = generator.random_ratio(3, 4);
            let mut outcome = if takes_effect && generator.random_ratio(4, 5) {
                Outcome::Done
            } else {
                Outcome::Unknown
            };
            if !takes_effect && generator.random_ratio(1, 2) {
                outcome = Outcome::Failed;
            }
            if outcome == Outcome::Unknown {
                end_us = start_us + generator.random_range(0..=2);
            }
            let what = generator.random_range(0..10);
            let action = match what {
                0 => Action::Put {
                    key: key.clone(),
                    value: literal(generator, spread),
                },
                1 => Action::Delete { key: key.clone() },
                2..=5 => Action::Append {
                    key: key.clone(),
                    value: literal(generator, spread),
                },
                6 => Action::Scan {
                    from: Bytes::new(),
                    to: None,
                },
                _ => Action::Get { key: key.clone() },
            };
            if !action.is_write() {
                let mut read = value.clone();
                if generator.random_ratio(1, 3) {
                    // A piece is added, or left out, or moved.
                    let text = read.unwrap_or_default();
                    let (head, tail) = text.split_at(generator.random_range(0..=text.len()));
                    read = Some(match generator.random_range(0..3) {
                        0 => [head, &literal(generator, LITERALS.len()), tail].concat().into(),
                        1 => Bytes::copy_from_slice(head),
                        _ => [tail, head].concat().into(),
                    });
                }
                outcome = match (&action, read) {
                    (Action::Get { .. }, read) => Outcome::Value(read),
                    (_, read) => Outcome::Page {
                        items: read.into_iter().map(|read| (key.clone(), read)).collect(),
                        more: generator.random_ratio(1, 2),
                    },
                };
                end_us = at + generator.random_range(0..=longest);
            } else if takes_effect {
                let before = value.clone();
                value = match &action {
                    Action::Put { value, .. } => Some(value.clone()),
                    Action::Append { value: more, .. } => {
                        Some([&before.clone().unwrap_or_default()[..], more].concat().into())
                    }
                    _ => None,
                };
                if outcome == Outcome::Done && value.is_none() && generator.random_ratio(2, 3) {
                    outcome = Outcome::Deleted {
                        existed: before.is_some(),
                    };
                }
            }
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

    /// Whether the writes of the history explain what the operation at `reader` read, by trying everything.
    fn is_explained(history: &History, reader: usize, read: &Bytes) -> bool {
        let operations: Vec<&Operation> = history
            .operations()
            .iter()
            .enumerate()
            .filter(|(place, operation)| *place == reader || operation.action.is_write())
            .map(|(_, operation)| operation)
            .filter(|operation| operation.outcome != Outcome::Failed)
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
        let (mut remarked, mut unexplained) = (0, 0);
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for number in 0..400_000 {
            let history = random(&mut generator);
            for (reader, operation) in history.operations().iter().enumerate() {
                let Some((_, read)) = read_by(operation).into_iter().next() else {
                    continue;
                };
                let made = remarks(&history, reader, Instant::now() + Duration::from_secs(60));
                let is_explained = is_explained(&history, reader, read);
                unexplained += usize::from(!is_explained);
                remarked += usize::from(!made.is_empty());
                for remark in &made {
                    for kind in [
                        "written by nobody",
                        "write failed",
                        "was written",
                        "stands behind",
                        "is not there",
                    ] {
                        *kinds.entry(kind).or_default() += usize::from(remark.text.contains(kind));
                    }
                }
                assert!(
                    made.is_empty() || !is_explained,
                    "history {number}: {made:?} of operation {} of {history:#?}",
                    reader + 1
                );
            }
        }
        eprintln!("{remarked} of {unexplained} {kinds:?}");
        assert!(remarked > 100);
    }
}

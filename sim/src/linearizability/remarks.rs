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
const MOST_OF_A_VALUE: usize = 3;

/// What there is to say of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) text: String,
    /// Of which operations that is, by their places in the history.
    pub(super) operations: Vec<usize>,
    /// Of which other operations it has to be known, too, that they took effect and when.
    pub(super) besides: Vec<usize>,
}

/// What there is to say of the values that the operation at `reader` read: of each the first few things, the gravest
/// first. Values are not looked at after `until`.
///
/// With each remark, what the reader read cannot be explained, whatever became of the writes that it does not name.
pub(super) fn remarks(history: &History, reader: usize, until: Instant) -> Vec<Remark> {
    let reading = &history.operations()[reader];
    read_by(reading)
        .into_iter()
        .take_while(|_| Instant::now() < until)
        .flat_map(|(key, value)| {
            let mut remarks = Writes::of(history, key, reading).remarks(value);
            remarks.truncate(MOST_OF_A_VALUE);
            remarks
        })
        .collect()
}

/// What can have written a literal.
#[derive(Debug, Default)]
struct Source<'a> {
    /// It was there before all.
    is_initial: bool,
    /// The writes of it, with their places in the history.
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

/// The writes of one key, and what a read of it can have seen.
#[derive(Debug)]
struct Writes<'a> {
    reading: &'a Operation,
    sources: BTreeMap<&'a [u8], Source<'a>>,
    /// When the last put or delete that may have taken effect ended: what was appended before may be gone.
    replaced_until_us: Option<u64>,
    /// These puts and deletes, by their places in the history.
    replacing: Vec<usize>,
}

impl<'a> Writes<'a> {
    fn of(history: &'a History, key: &Bytes, reading: &'a Operation) -> Self {
        let mut writes = Self {
            reading,
            sources: BTreeMap::new(),
            replaced_until_us: None,
            replacing: Vec::new(),
        };
        if let Some(initial) = history.initial().get(key) {
            writes.source(initial).is_initial = true;
        }
        for (place, operation) in history.operations().iter().enumerate() {
            if operation.action.key() != Some(key) {
                continue;
            }
            if let Action::Put { value, .. } | Action::Append { value, .. } = &operation.action {
                writes.source(value).writes.push((place, operation));
            }
            let had_begun = operation.start_us <= reading.end_us;
            if had_begun && matches!(operation.action, Action::Put { .. } | Action::Delete { .. }) {
                let until_us = match operation.outcome {
                    Outcome::Failed | Outcome::Deleted { existed: false } => None,
                    Outcome::Unknown => Some(u64::MAX),
                    _ => Some(operation.end_us),
                };
                writes.replacing.extend(until_us.map(|_| place));
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
                text: format!("at byte {known} begins what nobody wrote: {}", show(&rest)),
                operations: Vec::new(),
                besides: Vec::new(),
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
    /// what begins behind them nobody wrote.
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
            let had_begun = |write: &Operation| write.start_us <= self.reading.end_us;
            let can_be_there = |write: &Operation| had_begun(write) && write.outcome != Outcome::Failed;
            let (possible, others): (Vec<_>, Vec<_>) =
                source.writes.iter().partition(|(_, write)| can_be_there(write));
            let times = possible.len() + usize::from(source.is_initial);
            if at.len() <= times {
                return None;
            }
            let (written, named) = match times {
                0 if others.iter().any(|(_, write)| had_begun(write)) => {
                    ("its write failed".to_owned(), others)
                }
                0 => ("it was not written yet".to_owned(), others),
                1 => ("it was written once at most".to_owned(), possible),
                more => (format!("it was written {more} times at most"), possible),
            };
            let at: Vec<String> = at.iter().take(4).map(usize::to_string).collect();
            let literal = show(&Bytes::copy_from_slice(literal));
            Some(Remark {
                text: format!(
                    "{literal} is there at byte {}, though {written}",
                    at.join(" and ")
                ),
                operations: named.iter().map(|(place, _)| *place).take(4).collect(),
                besides: Vec::new(),
            })
        };
        places
            .into_iter()
            .filter_map(remark)
            .take(MOST_OF_A_VALUE)
            .collect()
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
                    besides: Vec::new(),
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
        let lost = |(literal, source): (&&'a [u8], &Source<'_>)| {
            let (place, write) = source.only_write()?;
            let is_append = matches!(write.action, Action::Append { .. });
            let cannot_be_gone = self.replaced_until_us.is_none_or(|until| until < write.start_us);
            let is_lost = is_append
                && cannot_be_gone
                && write.end_us < self.reading.start_us
                && !literal.is_empty()
                && !there.contains(*literal);
            is_lost.then_some((place, *literal))
        };
        let mut lost: Vec<(usize, &[u8])> = self.sources.iter().filter_map(lost).collect();
        lost.sort_unstable();
        let remark = |(place, literal): (usize, &[u8])| Remark {
            text: format!("{} is not there", show(&Bytes::copy_from_slice(literal))),
            operations: vec![place],
            besides: self.replacing.clone(),
        };
        lost.into_iter().take(MOST_OF_A_VALUE).map(remark).collect()
    }
}

#[cfg(test)]
mod tests;

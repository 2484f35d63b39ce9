//! What a key can hold, as far as anybody looked.
//!
//! A value that no operation read, and that is not the beginning of one that was read, cannot be told from any
//! other such value. So all of them are one [`State`], and the rest are beginnings of values that were read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use memchr::memmem;

/// What a key holds, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct State(u32);

impl State {
    /// There is no such key.
    pub(super) const ABSENT: Self = Self(0);
    /// There is a value that nobody read, and nothing can be appended to make it one that was.
    pub(super) const UNSEEN: Self = Self(1);

    pub(super) fn is_present(self) -> bool {
        self != Self::ABSENT
    }
}

/// The first `length` bytes of the value at `place`, the first that begins so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Beginning {
    place: usize,
    length: usize,
}

/// All states of one key.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// What was read, each once, in order.
    read: Vec<Bytes>,
    /// How many bytes each has in common with the one before.
    common: Vec<usize>,
    beginnings: Vec<Beginning>,
    states: BTreeMap<Beginning, State>,
}

impl Values {
    /// States of a key of which `read` was read.
    pub(super) fn new(read: BTreeSet<Bytes>) -> Self {
        let read: Vec<Bytes> = read.into_iter().collect();
        let common = (0..read.len())
            .map(|place| {
                place
                    .checked_sub(1)
                    .map_or(0, |before| common(&read[before], &read[place]))
            })
            .collect();
        Self {
            read,
            common,
            beginnings: Vec::new(),
            states: BTreeMap::new(),
        }
    }

    /// The state in which the key holds `value`.
    pub(super) fn state_of(&mut self, value: &[u8]) -> State {
        let place = self.read.partition_point(|read| &read[..] < value);
        match self.read.get(place) {
            Some(read) if read.starts_with(value) => self.state_at(place, value.len()),
            _ => State::UNSEEN,
        }
    }

    /// The state after `more` was appended in `state`.
    pub(super) fn appended(&mut self, state: State, more: &[u8]) -> State {
        match state {
            State::ABSENT => self.state_of(more),
            State::UNSEEN => State::UNSEEN,
            State(number) => {
                let Beginning { place, length } = self.beginnings[number as usize - 2];
                self.find_longer(place, length, more)
            }
        }
    }

    /// Whether appending in `state` can lead to `value`, a value that was read.
    pub(super) fn begins(&self, state: State, value: State) -> bool {
        let (Some(begin), Some(whole)) = (self.beginning(state), self.beginning(value)) else {
            return state == State::ABSENT && value != State::ABSENT;
        };
        let whole = &self.read[whole.place][..whole.length];
        whole.starts_with(&self.read[begin.place][..begin.length])
    }

    fn beginning(&self, State(number): State) -> Option<Beginning> {
        (number as usize)
            .checked_sub(2)
            .map(|place| self.beginnings[place])
    }

    /// Whether some value that was read has `part` in it.
    pub(super) fn contains(&self, part: &[u8]) -> bool {
        let finder = memmem::Finder::new(part);
        // What a value has in common with the one before was looked at there.
        part.is_empty()
            || self.read.iter().zip(&self.common).any(|(value, common)| {
                let new = &value[common.saturating_sub(part.len() - 1)..];
                finder.find(new).is_some()
            })
    }

    /// The first value that goes on from the first `length` bytes of the one at `place` with `more`.
    fn find_longer(&mut self, place: usize, length: usize, more: &[u8]) -> State {
        let head = &self.read[place][..length];
        let goes_on = |at: usize| self.read[at][length..].starts_with(more);
        // Nearly always it is this one or the next.
        let near = [place, place + 1].into_iter().find(|&at| {
            (at == place || self.common.get(at).is_some_and(|common| *common >= length)) && goes_on(at)
        });
        let found = near.or_else(|| {
            // Those that begin with the head stand together, from `place` on.
            let count = self.read[place..].partition_point(|read| read.starts_with(head));
            let begin_so = &self.read[place..place + count];
            let at = place + begin_so.partition_point(|read| &read[length..] < more);
            (at < place + count && goes_on(at)).then_some(at)
        });
        found.map_or(State::UNSEEN, |at| self.state_at(at, length + more.len()))
    }

    fn state_at(&mut self, place: usize, length: usize) -> State {
        let beginning = Beginning { place, length };
        let next = u32::try_from(self.beginnings.len() + 2).expect("memory is full before the numbers are");
        *self.states.entry(beginning).or_insert_with(|| {
            self.beginnings.push(beginning);
            State(next)
        })
    }
}

fn common(left: &[u8], right: &[u8]) -> usize {
    left.iter()
        .zip(right)
        .take_while(|(left, right)| left == right)
        .count()
}

#[cfg(test)]
mod tests {
    use super::{State, Values};

    fn values(read: &[&'static str]) -> Values {
        Values::new(read.iter().map(|value| (*value).into()).collect())
    }

    #[test]
    fn beginnings_of_what_was_read_are_told_apart_and_the_rest_is_not() {
        let mut values = values(&["abc", "abd", "x"]);
        let ab = values.state_of(b"ab");
        assert_eq!(values.appended(State::ABSENT, b"ab"), ab);
        let abd = values.appended(ab, b"d");
        assert_eq!(abd, values.state_of(b"abd"));
        assert_ne!(abd, values.state_of(b"abc"));
        assert_eq!(values.appended(abd, b"d"), State::UNSEEN);
        assert_eq!(values.state_of(b"y"), State::UNSEEN);
        assert_eq!(values.state_of(b"b"), State::UNSEEN);
    }

    #[test]
    fn a_value_far_behind_is_found() {
        let mut values = values(&["a", "aa", "ab", "ac", "ad", "b"]);
        let a = values.state_of(b"a");
        assert_eq!(values.appended(a, b"d"), values.state_of(b"ad"));
        assert_eq!(values.appended(a, b"e"), State::UNSEEN);
        let empty = values.state_of(b"");
        assert_eq!(values.appended(empty, b"b"), values.state_of(b"b"));
    }

    #[test]
    fn a_part_is_found_across_what_values_have_in_common() {
        let values = values(&["1;2;", "1;2;3;", "4;"]);
        for part in ["2;3", "1;", "3;", "4", ""] {
            assert!(values.contains(part.as_bytes()), "{part}");
        }
        assert!(!values.contains(b"2;4"));
    }
}

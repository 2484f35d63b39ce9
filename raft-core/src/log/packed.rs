//! The older part of the log, in as little memory as its commands take.
//!
//! An [`Entry`] in memory costs some 70 bytes, and its command an allocation of its own: for small commands more
//! than twice their length in all. Entries that were handed out to the state machine never change any more
//! (they are committed and durable) and are rarely read again (by a follower that is behind). So they are copied
//! together, many in one allocation, which leaves four bytes an entry beside the command.
//!
//! The oldest of them are let go of: of those only the terms stay here, and who led in them. Who needs more asks storage.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::types::{Entry, Leadership, LogIndex, NodeId, Payload, Term};

/// A command of this length or more is not copied: what it costs beside its bytes is little.
const SHARED_COMMAND_BYTES: usize = 4 * 1024;

/// Consecutive entries, packed.
#[derive(Debug, Default)]
pub(crate) struct PackedEntries {
    runs: VecDeque<Run>,
    /// How many runs, the oldest, were let go of.
    let_go: usize,
    /// The bytes of the entries in the other runs.
    held_bytes: usize,
}

/// Consecutive entries of one term.
#[derive(Debug)]
struct Run {
    term: Term,
    first_index: LogIndex,
    next_index: LogIndex,
    /// As windows and bounds count them.
    bytes: usize,
    /// Who leads in the term, and its leadership, if the first entry, the no-op that tells so, is the first one here.
    leader: Option<(NodeId, Leadership)>,
    /// `None` once it was let go of.
    content: Option<Content>,
}

#[derive(Debug)]
struct Content {
    /// Where each entry's command ends in `commands`. It starts where the one before ends.
    ends: Box<[u32]>,
    commands: Bytes,
    /// What is not in `commands`, by position: large commands, and what is no command.
    others: Vec<(usize, Payload)>,
}

impl Run {
    fn pack(entries: &[Entry]) -> Self {
        let first = entries.first().expect("a run is made of one entry or more");
        let is_copied = |command: &Bytes| command.len() < SHARED_COMMAND_BYTES;
        let copied = entries.iter().filter_map(|entry| match &entry.payload {
            Payload::Command(command) if is_copied(command) => Some(command.len()),
            _ => None,
        });
        let mut commands = BytesMut::with_capacity(copied.sum());
        let mut ends = Vec::with_capacity(entries.len());
        let mut others = Vec::new();
        for (position, entry) in entries.iter().enumerate() {
            match &entry.payload {
                Payload::Command(command) if is_copied(command) => commands.extend_from_slice(command),
                other => others.push((position, other.clone())),
            }
            ends.push(u32::try_from(commands.len()).expect("a run holds far less than 4 GiB of commands"));
        }
        others.shrink_to_fit();
        Self {
            term: first.term,
            first_index: first.index,
            next_index: LogIndex(first.index.get() + entries.len() as u64),
            bytes: entries.iter().map(Entry::size_bytes).sum(),
            leader: leader_named_by(&first.payload),
            content: Some(Content {
                ends: ends.into_boxed_slice(),
                commands: commands.freeze(),
                others,
            }),
        }
    }

    fn entry(&self, index: LogIndex) -> Option<Entry> {
        let position = usize::try_from(index.get().checked_sub(self.first_index.get())?).ok()?;
        let payload = self.content.as_ref()?.payload(position)?;
        Some(Entry {
            term: self.term,
            index,
            payload,
        })
    }
}

/// The leader whose no-op this is, and its leadership.
pub(crate) fn leader_named_by(payload: &Payload) -> Option<(NodeId, Leadership)> {
    match payload {
        Payload::Noop {
            leader_id,
            leadership,
        } => Some((*leader_id, *leadership)),
        _ => None,
    }
}

impl Content {
    fn payload(&self, position: usize) -> Option<Payload> {
        let end = *self.ends.get(position)?;
        let other = self.others.binary_search_by_key(&position, |(at, _)| *at);
        Some(match other {
            Ok(found) => self.others[found].1.clone(),
            Err(_) => {
                let start = position.checked_sub(1).map_or(0, |before| self.ends[before]);
                Payload::Command(self.commands.slice(start as usize..end as usize))
            }
        })
    }
}

impl PackedEntries {
    /// Adds copies of `entries`, which follow those that are here. The most bytes that may come at once is 4 GiB.
    pub(crate) fn push(&mut self, entries: &[Entry]) {
        for run in entries.chunk_by(|a, b| a.term == b.term).map(Run::pack) {
            self.held_bytes += run.bytes;
            self.runs.push_back(run);
        }
    }

    /// Lets go of the oldest until the others have no more than `max_bytes`. All of them must be on stable storage.
    pub(crate) fn let_go_over(&mut self, max_bytes: usize) {
        while self.held_bytes > max_bytes {
            let oldest = self
                .runs
                .get_mut(self.let_go)
                .expect("bytes are counted for runs that are here");
            self.held_bytes -= oldest.bytes;
            oldest.content = None;
            self.let_go += 1;
        }
    }

    /// The bytes of the entries that are here.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The last of the entries that were let go of.
    pub(crate) fn last_let_go(&self) -> Option<LogIndex> {
        let run = self.runs.get(self.let_go.checked_sub(1)?)?;
        Some(run.next_index.previous())
    }

    /// Of the entry before `index`, if it is one of these, and those that can only be counted together with it: the
    /// first, and how many bytes they have at most.
    pub(crate) fn size_before(&self, index: LogIndex) -> Option<(LogIndex, usize)> {
        let run = self.run_of(index.previous())?;
        Some(match run.entry(index.previous()) {
            Some(entry) => (entry.index, entry.size_bytes()),
            None => (run.first_index, run.bytes),
        })
    }

    /// The term of the last entry.
    pub(crate) fn last_term(&self) -> Option<Term> {
        self.runs.back().map(|run| run.term)
    }

    /// The term of the entry at `index`, if it is here.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.run_of(index).map(|run| run.term)
    }

    /// Who leads in the term that begins with the entry at `index`, and the leadership, also when that entry was let go
    /// of. `None` if it is not one of these.
    pub(crate) fn leader_at(&self, index: LogIndex) -> Option<(NodeId, Leadership)> {
        self.run_of(index).filter(|run| run.first_index == index)?.leader
    }

    /// The entry at `index`, if it is here and was not let go of. It shares its command with others that are here.
    pub(crate) fn entry(&self, index: LogIndex) -> Option<Entry> {
        self.run_of(index)?.entry(index)
    }

    /// The first entry of a term for which `is_behind` does not hold. It holds for terms up to one, and for none
    /// behind that.
    pub(crate) fn first_of_term_not(&self, is_behind: impl Fn(Term) -> bool) -> Option<LogIndex> {
        let position = self.runs.partition_point(|run| is_behind(run.term));
        self.runs.get(position).map(|run| run.first_index)
    }

    /// Drops what lies wholly before `first_retained`. A few entries before it may stay.
    pub(crate) fn forget_before(&mut self, first_retained: LogIndex) {
        let position = self.runs.partition_point(|run| run.next_index <= first_retained);
        let held = |run: &Run| run.content.as_ref().map_or(0, |_| run.bytes);
        self.held_bytes -= self.runs.drain(..position).map(|run| held(&run)).sum::<usize>();
        self.let_go = self.let_go.saturating_sub(position);
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn run_of(&self, index: LogIndex) -> Option<&Run> {
        let position = self.runs.partition_point(|run| run.next_index <= index);
        self.runs.get(position).filter(|run| run.first_index <= index)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{PackedEntries, SHARED_COMMAND_BYTES};
    use crate::configuration::Configuration;
    use crate::types::{Entry, Leadership, LogIndex, NodeId, Payload, Term};

    fn entry(index: u64, term: u64, payload: Payload) -> Entry {
        Entry {
            term: Term(term),
            index: LogIndex(index),
            payload,
        }
    }

    fn command(length: usize) -> Payload {
        Payload::Command(Bytes::from(vec![u8::try_from(length % 251).unwrap(); length]))
    }

    fn noop() -> Payload {
        Payload::Noop {
            leader_id: NodeId(1),
            leadership: Leadership(70),
        }
    }

    fn mixed() -> Vec<Entry> {
        let voters = Configuration::of_voters([NodeId(1), NodeId(2)]);
        vec![
            entry(5, 2, noop()),
            entry(6, 2, command(10)),
            entry(7, 2, command(0)),
            entry(8, 2, Payload::Configuration(voters)),
            entry(9, 2, command(SHARED_COMMAND_BYTES)),
            entry(10, 2, command(SHARED_COMMAND_BYTES - 1)),
            entry(11, 4, command(3)),
            entry(12, 4, noop()),
        ]
    }

    fn read_back(packed: &PackedEntries, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        indexes
            .filter_map(|index| packed.entry(LogIndex(index)))
            .collect()
    }

    #[test]
    fn every_kind_of_entry_comes_back_as_it_was() {
        let mut packed = PackedEntries::default();
        packed.push(&mixed());
        packed.push(&[entry(13, 4, command(1))]);
        let mut expected = mixed();
        expected.push(entry(13, 4, command(1)));
        assert_eq!(read_back(&packed, 0..=20), expected);
        for entry in &expected {
            assert_eq!(packed.term_at(entry.index), Some(entry.term));
        }
        assert_eq!(
            (packed.term_at(LogIndex(4)), packed.term_at(LogIndex(14))),
            (None, None)
        );
        assert_eq!(packed.last_term(), Some(Term(4)));
    }

    #[test]
    fn a_small_command_is_a_copy_and_a_large_one_is_not() {
        let (small, large) = (command(100), command(SHARED_COMMAND_BYTES));
        let mut packed = PackedEntries::default();
        packed.push(&[entry(1, 1, small.clone()), entry(2, 1, large.clone())]);
        let pointer = |payload: &Payload| match payload {
            Payload::Command(command) => command.as_ptr(),
            other => panic!("{other:?}"),
        };
        let at = |index| pointer(&packed.entry(LogIndex(index)).unwrap().payload);
        assert_ne!(
            at(1),
            pointer(&small),
            "the small one keeps its first allocation alive"
        );
        assert_eq!(at(2), pointer(&large), "the large one was copied");
    }

    #[test]
    fn what_lies_before_is_forgotten_run_by_run() {
        let mut packed = PackedEntries::default();
        packed.push(&mixed());
        packed.forget_before(LogIndex(10));
        assert_eq!(read_back(&packed, 10..=12), mixed()[5..]);
        packed.forget_before(LogIndex(11));
        assert_eq!(read_back(&packed, 0..=12), mixed()[6..]);
        packed.forget_before(LogIndex(13));
        assert_eq!(packed.last_term(), None);
    }

    #[test]
    fn of_what_was_let_go_of_the_terms_stay() {
        let mut packed = PackedEntries::default();
        packed.push(&mixed());
        packed.push(&[entry(13, 4, command(1))]);
        let bytes = |entries: &[Entry]| entries.iter().map(Entry::size_bytes).sum::<usize>();
        packed.let_go_over(usize::MAX);
        assert_eq!(packed.last_let_go(), None);
        packed.let_go_over(bytes(&mixed()));
        assert_eq!(packed.last_let_go(), Some(LogIndex(10)));
        assert_eq!(packed.size_before(LogIndex(12)), Some((LogIndex(11), 35)));
        assert_eq!(
            packed.size_before(LogIndex(9)),
            Some((LogIndex(5), bytes(&mixed()[..6])))
        );
        assert_eq!(packed.size_before(LogIndex(5)), None);
        let expected = [&mixed()[6..], &[entry(13, 4, command(1))]].concat();
        assert_eq!(read_back(&packed, 0..=20), expected);
        let leaders = [5, 6, 11, 12, 13].map(|index| packed.leader_at(LogIndex(index)));
        assert_eq!(
            leaders,
            [Some((NodeId(1), Leadership(70))), None, None, None, None]
        );
        let terms: Vec<_> = (5..=13).map(|index| packed.term_at(LogIndex(index))).collect();
        assert_eq!(terms, [2, 2, 2, 2, 2, 2, 4, 4, 4].map(|term| Some(Term(term))));
        assert_eq!(
            packed.first_of_term_not(|term| term < Term(4)),
            Some(LogIndex(11))
        );

        packed.forget_before(LogIndex(11));
        assert_eq!(
            (packed.last_let_go(), packed.held_bytes),
            (None, bytes(&expected))
        );
        packed.let_go_over(0);
        assert_eq!((packed.last_let_go(), packed.held_bytes), (Some(LogIndex(13)), 0));
        packed.push(&[entry(14, 4, command(2))]);
        assert_eq!(read_back(&packed, 0..=20), [entry(14, 4, command(2))]);
        packed.forget_before(LogIndex(15));
        assert_eq!((packed.last_let_go(), packed.held_bytes), (None, 0));
    }

    #[test]
    fn terms_are_found() {
        let mut packed = PackedEntries::default();
        packed.push(&mixed());
        let first_above = |term| packed.first_of_term_not(|other| other <= Term(term));
        assert_eq!(first_above(1), Some(LogIndex(5)));
        assert_eq!(first_above(2), Some(LogIndex(11)));
        assert_eq!(first_above(4), None);
    }
}

//! The log against a plain list of terms, and the corners by hand.

use bytes::Bytes;
use proptest::prelude::*;

use super::{Log, SPARE_ENTRIES};
use crate::config::ConfigError;
use crate::configuration::Configuration;
use crate::storage::Restored;
use crate::types::{Entry, Leadership, LogIndex, NodeId, Payload, SnapshotMeta, Term, TermStart};

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        term: Term(term),
        index: LogIndex(index),
        payload: Payload::Command(Bytes::new()),
    }
}

fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    (first..)
        .zip(terms)
        .map(|(index, term)| entry(index, *term))
        .collect()
}

fn snapshot(index: u64, term: u64) -> SnapshotMeta {
    SnapshotMeta {
        last_included_index: LogIndex(index),
        last_included_term: Term(term),
        configuration: Configuration::of_voters([NodeId(1)]),
        ..SnapshotMeta::default()
    }
}

fn term_start(index: u64, term: u64, leadership: Option<u64>) -> TermStart {
    TermStart {
        index: LogIndex(index),
        term: Term(term),
        leadership: leadership.map(Leadership),
    }
}

fn restore(snapshot: SnapshotMeta, entries: Vec<Entry>) -> Result<Log, ConfigError> {
    restore_within(snapshot, entries, usize::MAX, usize::MAX)
}

fn restore_within(
    snapshot: SnapshotMeta,
    entries: Vec<Entry>,
    max_unpacked_bytes: usize,
    max_packed_bytes: usize,
) -> Result<Log, ConfigError> {
    let restored = Restored {
        snapshot,
        entries,
        ..Restored::default()
    };
    Log::restore(restored, max_unpacked_bytes, max_packed_bytes)
}

fn log(terms: &[u64]) -> Log {
    restore(snapshot(0, 0), entries(1, terms)).unwrap()
}

fn noop(index: u64, term: u64) -> Entry {
    Entry {
        payload: Payload::Noop {
            leader_id: NodeId(1),
            leadership: Leadership(term),
        },
        ..entry(index, term)
    }
}

/// Makes everything durable, commits it up to `index` and hands that out.
fn hand_out_to(log: &mut Log, index: u64) {
    log.take_unwritten();
    log.durable_to(log.last_index());
    log.commit_to(LogIndex(index));
    log.take_committed(usize::MAX);
}

#[test]
fn a_snapshot_tells_its_latest_terms_and_who_led_in_them() {
    let mut log = restore(snapshot(0, 0), Vec::new()).unwrap();
    let last = 2 * SnapshotMeta::MAX_TERMS as u64;
    for index in 1..=last {
        log.append(noop(index, index));
        hand_out_to(&mut log, index);
        if index % 3 == 0 {
            let terms = log.terms_up_to(LogIndex(index));
            let snapshot = snapshot(index, index);
            log.compact(SnapshotMeta { terms, ..snapshot }, 0);
        }
    }
    let terms = log.terms_up_to(LogIndex(last));
    let first = last + 1 - SnapshotMeta::MAX_TERMS as u64;
    let latest: Vec<TermStart> = (first..=last)
        .map(|term| term_start(term, term, Some(term)))
        .collect();
    assert_eq!(terms, latest);
    assert_eq!(
        log.terms_up_to(LogIndex(last - 1)).last(),
        latest.iter().rev().nth(1)
    );
}

#[test]
fn a_snapshot_whose_terms_are_not_in_order_is_not_taken() {
    let of = |terms: &[(u64, u64)]| {
        let terms = terms.iter().map(|(index, term)| term_start(*index, *term, None));
        let snapshot = snapshot(9, 4);
        SnapshotMeta {
            terms: terms.collect(),
            ..snapshot
        }
    };
    let well_formed = [[].as_slice(), &[(1, 1), (5, 4)], &[(9, 4)]];
    assert!(well_formed.into_iter().all(|terms| of(terms).is_well_formed()));
    let others = [
        [(5, 2), (5, 4)],
        [(4, 4), (5, 4)],
        [(5, 2), (4, 4)],
        [(1, 1), (5, 3)],
        [(1, 1), (10, 4)],
        [(1, 5), (5, 4)],
    ];
    assert!(others.iter().all(|terms| !of(terms).is_well_formed()));
    let many: Vec<(u64, u64)> = (1..=65).map(|at| (at, at)).collect();
    let too_many = SnapshotMeta {
        terms: of(&many).terms,
        ..snapshot(70, 65)
    };
    assert!(!too_many.is_well_formed());
}

#[test]
fn a_stored_log_with_a_hole_or_falling_terms_is_refused() {
    let broken_at = |snapshot, entries| match restore(snapshot, entries) {
        Err(ConfigError::BrokenLog { index }) => index.get(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        broken_at(snapshot(3, 1), entries(5, &[1])),
        4,
        "a hole behind the snapshot"
    );
    assert_eq!(
        broken_at(snapshot(0, 0), vec![entry(1, 1), entry(3, 1)]),
        2,
        "a hole"
    );
    assert_eq!(broken_at(snapshot(0, 0), entries(1, &[2, 1])), 2, "terms fall");
    assert_eq!(
        broken_at(snapshot(3, 2), entries(2, &[1, 1, 1])),
        3,
        "another entry in the snapshot"
    );
    assert_eq!(
        broken_at(snapshot(5, 1), entries(2, &[1, 1])),
        5,
        "ends before the snapshot"
    );
}

#[test]
fn a_log_without_members_is_refused() {
    let restored = restore(SnapshotMeta::default(), Vec::new());
    assert_eq!(restored.err(), Some(ConfigError::NoVoters));
}

#[test]
fn a_log_that_begins_before_its_snapshot_is_whole() {
    let log = restore(snapshot(3, 1), entries(2, &[1, 1, 2])).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (LogIndex(2), LogIndex(4)));
    assert_eq!((log.commit_index(), log.handed_out()), (LogIndex(3), LogIndex(3)));
    assert_eq!(log.term_at(LogIndex(1)), None, "what was before is not known");
    assert_eq!(log.first_known(), (LogIndex(3), Term(1)));
}

#[test]
fn the_later_last_term_is_more_up_to_date_and_then_the_longer_log() {
    let log = log(&[1, 2, 2]);
    for ((term, index), expected) in [
        ((2, 3), true),
        ((2, 4), true),
        ((3, 1), true),
        ((2, 2), false),
        ((1, 9), false),
    ] {
        assert_eq!(
            log.is_up_to_date(Term(term), LogIndex(index)),
            expected,
            "{index}@{term}"
        );
    }
}

#[test]
fn runs_of_a_term_are_found_from_both_ends() {
    let log = log(&[1, 1, 3, 3, 3, 6]);
    assert_eq!(log.first_index_of_term_at(LogIndex(5)), LogIndex(3));
    assert_eq!(log.last_index_of_term_at_most(Term(3), LogIndex(9)), LogIndex(5));
    assert_eq!(log.last_index_of_term_at_most(Term(5), LogIndex(9)), LogIndex(5));
    assert_eq!(log.last_index_of_term_at_most(Term(3), LogIndex(4)), LogIndex(4));
    assert_eq!(log.last_index_of_term_at_most(Term(0), LogIndex(4)), LogIndex(0));
}

#[test]
fn a_cut_takes_durability_back_and_writes_the_new_entries() {
    let mut log = log(&[1, 1, 1]);
    assert_eq!(log.merge(entries(2, &[2])), Some(LogIndex(2)));
    assert_eq!(log.durable_index(), LogIndex(1));
    assert_eq!(log.take_unwritten(), entries(2, &[2]));
    assert!(!log.has_unwritten());
}

#[test]
fn a_configuration_counts_from_its_entry_on_and_goes_with_it() {
    let bigger = Configuration::of_voters([NodeId(1), NodeId(2)]);
    let mut log = log(&[1]);
    log.append(Entry {
        payload: Payload::Configuration(bigger.clone()),
        ..entry(2, 1)
    });
    assert_eq!(log.configuration(), &bigger);
    assert_ne!(log.configuration_at(LogIndex(1)), Some(&bigger));
    log.merge(entries(2, &[2]));
    assert_ne!(log.configuration(), &bigger);
}

#[test]
fn what_is_committed_is_handed_out_only_when_it_is_durable() {
    let mut log = log(&[1]);
    log.append(entry(2, 1));
    log.commit_to(LogIndex(2));
    assert_eq!(log.take_committed(1_000), entries(1, &[1]));
    assert!(!log.has_committed());
    log.take_unwritten();
    log.durable_to(LogIndex(2));
    assert_eq!(log.take_committed(1_000), entries(2, &[1]));
}

#[test]
#[should_panic(expected = "is committed and must not be replaced")]
fn a_committed_entry_cannot_be_replaced() {
    let mut log = log(&[1, 1]);
    log.commit_to(LogIndex(2));
    log.merge(entries(2, &[2]));
}

#[test]
#[should_panic(expected = "no gap and no overlap")]
fn an_entry_that_leaves_a_gap_is_not_taken() {
    log(&[1]).append(entry(3, 1));
}

#[test]
fn a_snapshot_keeps_as_many_bytes_of_entries_before_it_as_may_be() {
    let first_kept = |retained_bytes| {
        let mut log = log(&[1; 5]);
        hand_out_to(&mut log, 5);
        log.compact(snapshot(5, 1), retained_bytes).get()
    };
    let size = Entry::OVERHEAD_BYTES;
    assert_eq!([0, size - 1, size, 3 * size].map(first_kept), [6, 6, 5, 3]);
}

#[test]
fn of_a_term_whose_beginning_is_dropped_nothing_is_kept_unless_the_snapshot_tells_who_led() {
    let first_kept = |terms: &[TermStart], count: usize| {
        let entries = vec![
            noop(1, 1),
            entry(2, 1),
            entry(3, 1),
            noop(4, 2),
            entry(5, 2),
            noop(6, 3),
        ];
        let mut log = restore(snapshot(0, 0), entries).unwrap();
        hand_out_to(&mut log, 6);
        let snapshot = SnapshotMeta {
            terms: terms.to_vec(),
            ..snapshot(6, 3)
        };
        log.compact(snapshot, count * Entry::OVERHEAD_BYTES).get()
    };
    let counts = [6, 5, 4, 3, 2, 1];
    assert_eq!(counts.map(|count| first_kept(&[], count)), [1, 4, 4, 4, 6, 6]);
    let of_term_1 = [term_start(1, 1, Some(1))];
    assert_eq!(
        counts.map(|count| first_kept(&of_term_1, count)),
        [1, 2, 3, 4, 6, 6]
    );
}

#[test]
fn room_for_entries_is_given_back_where_more_than_three_quarters_of_it_are_empty() {
    let room_before_and_after = |appended: u64, left: fn(u64) -> u64| {
        let start = snapshot(0, 0);
        let mut log = restore_within(start, Vec::new(), 0, usize::MAX).unwrap();
        (1..=appended).for_each(|index| log.append(entry(index, 1)));
        let before = log.entries.capacity();
        hand_out_to(&mut log, appended - left(before as u64));
        (before, log.entries.capacity(), log.entries.len())
    };
    let many = 3 * SPARE_ENTRIES as u64;
    for left in [|_| 0, |room| room / 4 - 1] {
        let (before, after, left) = room_before_and_after(many, left);
        let enough = SPARE_ENTRIES.max(2 * left);
        assert!(
            (enough..enough + enough / 2).contains(&after),
            "{before} to {after} for {left}"
        );
    }
    let (before, after, _) = room_before_and_after(many, |room| room / 4);
    assert_eq!(before, after);
    let (before, after, _) = room_before_and_after(SPARE_ENTRIES as u64, |_| 0);
    assert_eq!(before, after);
}

/// Something that may happen to a log; numbers are taken modulo what is possible at the moment.
#[derive(Clone, Debug)]
enum Step {
    Append { new_term: bool },
    MergeKnown { from: u64, count: u64 },
    Replace { at: u64, count: u64 },
    Commit { to: u64 },
    Persist,
    HandOut { max_bytes: usize },
    Compact { index: u64, retained_bytes: usize },
    Install { ahead: u64, of_new_term: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 0..12_u64;
    let bytes = 0..200_usize;
    let step = prop_oneof![
        4 => any::<bool>().prop_map(|new_term| Step::Append { new_term }),
        2 => (number.clone(), number.clone()).prop_map(|(from, count)| Step::MergeKnown { from, count }),
        2 => (number.clone(), 1..5_u64).prop_map(|(at, count)| Step::Replace { at, count }),
        2 => number.clone().prop_map(|to| Step::Commit { to }),
        2 => Just(Step::Persist),
        2 => bytes.clone().prop_map(|max_bytes| Step::HandOut { max_bytes }),
        1 => (number, bytes).prop_map(|(index, retained_bytes)| Step::Compact { index, retained_bytes }),
        1 => (1..6_u64, any::<bool>()).prop_map(|(ahead, of_new_term)| Step::Install { ahead, of_new_term }),
    ];
    proptest::collection::vec(step, 0..60)
}

/// The same log as a list: the term of entry `i` is `terms[i - 1]`. Nothing is ever forgotten.
#[derive(Debug, Default)]
struct Model {
    terms: Vec<u64>,
    commit: u64,
    durable: u64,
    handed_out: u64,
    snapshot: u64,
}

impl Model {
    fn last(&self) -> u64 {
        self.terms.len() as u64
    }

    fn last_term(&self) -> u64 {
        self.terms.last().copied().unwrap_or(0)
    }

    fn term(&self, index: u64) -> u64 {
        match usize::try_from(index).unwrap() {
            0 => 0,
            index => self.terms[index - 1],
        }
    }

    fn entries(&self, from: u64, to: u64) -> Vec<Entry> {
        (from..=to).map(|index| entry(index, self.term(index))).collect()
    }

    fn truncate(&mut self, index: u64) {
        self.terms.truncate(usize::try_from(index).unwrap());
    }

    fn take(&mut self, log: &mut Log, step: &Step) {
        match *step {
            Step::Append { new_term } => {
                self.terms.push(self.last_term().max(1) + u64::from(new_term));
                log.append(entry(self.last(), self.last_term()));
            }
            Step::MergeKnown { from, count } => {
                let from = log.first_index().get() + from;
                let known = self.entries(from, (from + count).min(self.last()));
                assert_eq!(log.merge(known), None);
            }
            Step::Replace { at, count } => self.replace(log, at, count),
            Step::Commit { to } => {
                self.commit = (self.commit + to).min(self.last());
                log.commit_to(LogIndex(self.commit));
            }
            Step::Persist => {
                let unwritten = log.take_unwritten();
                assert!(
                    unwritten
                        .last()
                        .is_none_or(|entry| entry.index.get() == self.last())
                );
                log.durable_to(LogIndex(self.last()));
                self.durable = self.last();
            }
            Step::HandOut { max_bytes } => self.hand_out(log, max_bytes),
            Step::Compact {
                index,
                retained_bytes,
            } => self.compact(log, index, retained_bytes),
            Step::Install { ahead, of_new_term } => self.install(log, ahead, of_new_term),
        }
    }

    fn replace(&mut self, log: &mut Log, at: u64, count: u64) {
        let at = (self.commit + 1 + at).min(self.last() + 1);
        let term = self.last_term() + 1;
        let cut = (at <= self.last()).then_some(LogIndex(at));
        self.truncate(at - 1);
        self.terms.extend((0..count).map(|_| term));
        self.durable = self.durable.min(at - 1);
        assert_eq!(log.merge(self.entries(at, self.last())), cut);
    }

    fn hand_out(&mut self, log: &mut Log, max_bytes: usize) {
        let to = self.commit.min(self.durable).max(self.handed_out);
        let room = u64::try_from(max_bytes / Entry::OVERHEAD_BYTES).unwrap().max(1);
        let to = to.min(self.handed_out + room);
        assert_eq!(
            log.take_committed(max_bytes),
            self.entries(self.handed_out + 1, to)
        );
        self.handed_out = to;
    }

    fn terms_up_to(&self, index: u64) -> Vec<TermStart> {
        let begins = |index: &u64| self.term(*index) != self.term(index - 1);
        let all: Vec<u64> = (1..=index).filter(begins).collect();
        let latest = all.len().saturating_sub(SnapshotMeta::MAX_TERMS);
        let start = |index: &u64| term_start(*index, self.term(*index), None);
        all[latest..].iter().map(start).collect()
    }

    fn compact(&mut self, log: &mut Log, index: u64, retained_bytes: usize) {
        let index = (self.snapshot + index).min(self.handed_out);
        if index <= self.snapshot {
            return;
        }
        let first_before = log.first_index();
        let let_go = log.let_go_from(first_before);
        let first_before = first_before.get();
        let terms = log.terms_up_to(LogIndex(index));
        assert_eq!(terms, self.terms_up_to(index));
        let snapshot = SnapshotMeta {
            terms,
            ..snapshot(index, self.term(index))
        };
        let first = log.compact(snapshot, retained_bytes).get();
        let retained = u64::try_from(retained_bytes / Entry::OVERHEAD_BYTES).unwrap();
        let wanted = (index + 1).saturating_sub(retained).max(first_before);
        // No entry here says who led, so only what is of the term of the snapshot can be compared.
        let is_told = |other: &u64| self.term(*other) == self.term(index);
        let wanted = (wanted..=index).find(is_told).unwrap_or(index + 1);
        assert!(
            wanted <= first && first <= index + 1,
            "{wanted} to {index}: {first}"
        );
        let is_let_go = let_go.is_some_and(|last| LogIndex(first).previous() <= last);
        assert!(first == wanted || is_let_go, "{first}");
        self.snapshot = index;
    }

    fn install(&mut self, log: &mut Log, ahead: u64, of_new_term: bool) {
        let index = self.commit + ahead;
        let keeps = !of_new_term && index <= self.last();
        if !keeps {
            let term = self.last_term() + 1;
            self.truncate(index - 1);
            while self.last() < index {
                self.terms.push(term);
            }
            self.durable = self.durable.min(self.commit);
        }
        log.take_unwritten(); // as the node does before it installs
        let snapshot = SnapshotMeta {
            terms: self.terms_up_to(index),
            ..snapshot(index, self.term(index))
        };
        assert_eq!(log.install(snapshot), keeps);
        self.commit = index;
        self.handed_out = index;
        self.snapshot = index;
    }

    fn check(&self, log: &Log) {
        assert_eq!(
            (log.last_index(), log.last_term()),
            (LogIndex(self.last()), Term(self.last_term()))
        );
        assert_eq!(log.commit_index(), LogIndex(self.commit));
        assert_eq!(log.durable_index(), LogIndex(self.durable));
        assert_eq!(log.handed_out(), LogIndex(self.handed_out));
        let first = log.first_index().get();
        for index in first..=self.last() {
            assert_eq!(log.term_at(LogIndex(index)), Some(Term(self.term(index))));
        }
        assert_eq!(
            log.term_at(LogIndex(self.snapshot)),
            Some(Term(self.term(self.snapshot)))
        );
        assert_eq!(log.term_at(LogIndex(self.last() + 1)), None);
        for index in 1..=self.last() {
            let told = log.told_term_at(LogIndex(index));
            let is_forgotten = || self.terms_up_to(self.snapshot).first().unwrap().index > LogIndex(index);
            assert!(
                told.map_or_else(is_forgotten, |told| told == Term(self.term(index))),
                "{index}: {told:?}"
            );
        }
        let in_memory_from = log
            .let_go_from(LogIndex(first))
            .map_or(first, |last| last.get() + 1);
        for index in first..=self.last() {
            let let_go = log.let_go_from(LogIndex(index)).is_some();
            assert_eq!(let_go, index < in_memory_from);
        }
        assert_eq!(
            log.entries_from(LogIndex(in_memory_from), usize::MAX),
            self.entries(in_memory_from, self.last())
        );
        let (index, term) = log.first_known();
        assert_eq!(log.term_at(index), Some(term));
        let bytes = (self.last() - self.commit) * Entry::OVERHEAD_BYTES as u64;
        assert_eq!(log.bytes_after(LogIndex(self.commit)) as u64, bytes);
    }
}

proptest! {
    #[test]
    fn the_log_is_a_list_of_entries_whatever_happens_to_it(
        steps in steps(),
        max_unpacked_bytes in 0..200_usize,
        max_packed_bytes in 0..400_usize,
    ) {
        let (start, limits) = (snapshot(0, 0), (max_unpacked_bytes, max_packed_bytes));
        let mut log = restore_within(start, Vec::new(), limits.0, limits.1).unwrap();
        let mut model = Model::default();
        for step in steps {
            model.take(&mut log, &step);
            model.check(&log);
            let unpacked = log.entries.iter().filter(|entry| entry.index <= log.handed_out);
            prop_assert_eq!(unpacked.map(Entry::size_bytes).sum::<usize>(), log.handed_out_bytes);
            prop_assert!(log.handed_out_bytes <= max_unpacked_bytes);
            prop_assert!(log.packed.held_bytes() <= max_packed_bytes);
        }
    }
}

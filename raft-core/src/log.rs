//! The replicated log of one node (Raft §5.3) and how far it is committed, durable and handed out.

mod packed;

use std::collections::{BTreeMap, VecDeque};

use self::packed::PackedEntries;
pub(crate) use self::packed::leader_named_by;
use crate::config::ConfigError;
use crate::configuration::Configuration;
use crate::storage::Restored;
use crate::types::{
    Entry, Incarnation, Leadership, LogIndex, NodeId, Payload, SnapshotMeta, Term, TermStart,
};

/// How many entries are packed into one allocation, at most.
const ENTRIES_PACKED_TOGETHER: usize = 4_096;

/// Room for so many entries is kept, however few there are.
const SPARE_ENTRIES: usize = 8_192;

/// The log: a snapshot that stands for its beginning, and the entries behind it, of which the latest are in memory.
///
/// ```text
///   first_index          snapshot      handed_out   commit_index   durable_index    last_index
///       |                    |             |             |              |                |
///       [ kept for followers ][   applied   ][ to apply ][          replicating          ]
///       [   let go of   ][ packed  ][                    entries                         ]
/// ```
///
/// Invariants, asserted where they could break: indexes have no gap, terms never fall, what is committed
/// is never replaced, `handed_out <= commit_index <= last_index`, and `snapshot <= handed_out`.
#[derive(Debug)]
pub(crate) struct Log {
    snapshot: SnapshotMeta,
    /// The term of the entry before the first one in memory, where it is known.
    term_before_first: Option<Term>,
    first_index: LogIndex,
    /// The entries before `unpacked_from`. All of them were handed out, so they are on stable storage too; more than
    /// `max_packed_bytes` of them are on stable storage alone.
    packed: PackedEntries,
    max_packed_bytes: usize,
    unpacked_from: LogIndex,
    /// The entries from `unpacked_from` on.
    entries: VecDeque<Entry>,
    /// The bytes of those in `entries` that were handed out; at most `max_unpacked_bytes` after each hand-out.
    handed_out_bytes: usize,
    max_unpacked_bytes: usize,
    /// The configurations in force, by the index of the entry that brought each (Raft §6).
    configurations: BTreeMap<LogIndex, Configuration>,
    commit_index: LogIndex,
    /// Everything up to here is on stable storage, as it stands in memory.
    durable_index: LogIndex,
    /// Committed entries up to here were given to the state machine.
    handed_out: LogIndex,
    /// The first entry that was not yet yielded as a write.
    unwritten_from: LogIndex,
}

impl Log {
    /// The log that storage holds. Of the entries that were handed out, no more than `max_unpacked_bytes` stay as
    /// they came; the others are packed, and no more than `max_packed_bytes` of those stay in memory.
    pub(crate) fn restore(
        restored: Restored,
        max_unpacked_bytes: usize,
        max_packed_bytes: usize,
    ) -> Result<Self, ConfigError> {
        let Restored {
            snapshot, entries, ..
        } = restored;
        if snapshot.configuration.voters().is_empty() {
            return Err(ConfigError::NoVoters);
        }
        check_continuous(&snapshot, &entries)?;
        let index = snapshot.last_included_index;
        let first_index = entries.first().map_or(index.next(), |entry| entry.index);
        let term_before_first = (first_index == index.next()).then_some(snapshot.last_included_term);
        let mut log = Self {
            configurations: BTreeMap::from([(index, snapshot.configuration.clone())]),
            snapshot,
            term_before_first,
            first_index,
            packed: PackedEntries::default(),
            max_packed_bytes,
            unpacked_from: first_index,
            entries: VecDeque::new(),
            handed_out_bytes: 0,
            max_unpacked_bytes,
            commit_index: index,
            durable_index: index,
            handed_out: index,
            unwritten_from: first_index,
        };
        log.extend(entries);
        log.durable_index = log.last_index();
        log.unwritten_from = log.last_index().next();
        log.handed_out_bytes = log.sum_handed_out();
        log.pack_if_due();
        Ok(log)
    }

    pub(crate) fn snapshot(&self) -> &SnapshotMeta {
        &self.snapshot
    }

    pub(crate) fn first_index(&self) -> LogIndex {
        self.first_index
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        LogIndex(self.unpacked_from.previous().get() + self.entries.len() as u64)
    }

    pub(crate) fn last_term(&self) -> Term {
        let unpacked = self.entries.back().map(|entry| entry.term);
        unpacked
            .or_else(|| self.packed.last_term())
            .unwrap_or(self.snapshot.last_included_term)
    }

    pub(crate) fn commit_index(&self) -> LogIndex {
        self.commit_index
    }

    pub(crate) fn durable_index(&self) -> LogIndex {
        self.durable_index
    }

    pub(crate) fn handed_out(&self) -> LogIndex {
        self.handed_out
    }

    /// The members of the cluster as of the last entry: a configuration counts as soon as it is in the
    /// log, committed or not (Raft §6).
    pub(crate) fn configuration(&self) -> &Configuration {
        self.configurations
            .values()
            .next_back()
            .expect("the snapshot always brings a configuration")
    }

    /// The members of the cluster as of `index`.
    pub(crate) fn configuration_at(&self, index: LogIndex) -> Option<&Configuration> {
        self.configurations
            .range(..=index)
            .next_back()
            .map(|(_, configuration)| configuration)
    }

    /// Whether some entry in or before the log brought a configuration, or only the initial setup did.
    pub(crate) fn has_logged_configuration(&self) -> bool {
        self.configurations
            .keys()
            .next_back()
            .is_some_and(|index| *index > LogIndex::ZERO)
    }

    /// The members of the cluster as of what is known to be committed.
    pub(crate) fn committed_configuration(&self) -> &Configuration {
        self.configuration_at(self.commit_index)
            .expect("the snapshot is committed and always brings a configuration")
    }

    /// The index of the entry that brought the configuration in force.
    pub(crate) fn configuration_index(&self) -> LogIndex {
        self.configurations
            .keys()
            .next_back()
            .copied()
            .unwrap_or_default()
    }

    /// Whether `id` takes part by this store beyond doubt: the registry with which the cluster was founded,
    /// or a committed one, names it.
    pub(crate) fn is_settled(&self, id: NodeId, incarnation: Incarnation) -> bool {
        let names = |configuration: &Configuration| configuration.incarnation_of(id) == Some(incarnation);
        // What a compacted log starts with is committed.
        let first = self
            .configurations
            .values()
            .find(|configuration| configuration.is_founded());
        first.is_some_and(names) || names(self.committed_configuration())
    }

    /// Since which index the log has named this store, as far as it goes back.
    pub(crate) fn registered_at(&self, id: NodeId, incarnation: Incarnation) -> Option<LogIndex> {
        let mut naming = self
            .configurations
            .iter()
            .filter(|(_, configuration)| configuration.incarnation_of(id) == Some(incarnation));
        naming.next().map(|(index, _)| *index)
    }

    /// The term of the entry at `index`; `None` if the log does not hold it or has forgotten it.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.snapshot.last_included_index {
            return Some(self.snapshot.last_included_term);
        }
        if index == self.first_index.previous() {
            return self.term_before_first;
        }
        if index < self.first_index {
            return None;
        }
        match self.unpacked(index) {
            Some(entry) => Some(entry.term),
            None => self.packed.term_at(index),
        }
    }

    /// The term of the entry at `index`, also if only the snapshot still tells it.
    pub(crate) fn told_term_at(&self, index: LogIndex) -> Option<Term> {
        self.term_at(index).or_else(|| self.snapshot.term_at(index))
    }

    /// The oldest place in the log whose term is known.
    pub(crate) fn first_known(&self) -> (LogIndex, Term) {
        let snapshot = (
            self.snapshot.last_included_index,
            self.snapshot.last_included_term,
        );
        self.term_before_first
            .map_or(snapshot, |term| (self.first_index.previous(), term))
    }

    fn unpacked(&self, index: LogIndex) -> Option<&Entry> {
        let position = index.get().checked_sub(self.unpacked_from.get())?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    fn entry(&self, index: LogIndex) -> Option<Entry> {
        if index < self.first_index {
            return None;
        }
        let unpacked = self.unpacked(index).cloned();
        unpacked.or_else(|| self.packed.entry(index))
    }

    /// Whether this log holds an entry of `term` at `index`: the log matching check (Raft §5.3).
    pub(crate) fn matches(&self, index: LogIndex, term: Term) -> bool {
        self.term_at(index) == Some(term)
    }

    /// Whether a log that ends in `(last_term, last_index)` is at least as up to date as this one
    /// (Raft §5.4.1): the later last term wins, and with equal terms the longer log.
    pub(crate) fn is_up_to_date(&self, last_term: Term, last_index: LogIndex) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last_index())
    }

    /// The first index of the run of entries that share the term of the entry at `index`.
    pub(crate) fn first_index_of_term_at(&self, index: LogIndex) -> LogIndex {
        let Some(term) = self.term_at(index) else {
            return index;
        };
        self.first_of_term_not(|other| other < term).min(index)
    }

    /// The last index whose entry has at most this term and lies at or before `limit`.
    pub(crate) fn last_index_of_term_at_most(&self, term: Term, limit: LogIndex) -> LogIndex {
        self.first_of_term_not(|other| other <= term)
            .previous()
            .min(limit)
    }

    /// Who led in `term`, and by which election, if the log still holds the first entry of that term.
    pub(crate) fn leader_of(&self, term: Term) -> Option<(NodeId, Leadership)> {
        let first = self.first_of_term_not(|other| other < term);
        if self.term_at(first) != Some(term) {
            return None;
        }
        match self.unpacked(first) {
            Some(entry) => leader_named_by(&entry.payload),
            None => self.packed.leader_at(first),
        }
    }

    /// The leadership of `term`, if the log or its snapshot still tells it.
    pub(crate) fn leadership_of(&self, term: Term) -> Option<Leadership> {
        let logged = self.leader_of(term).map(|(_, leadership)| leadership);
        logged.or_else(|| leadership_told_by(&self.snapshot, term))
    }

    /// The latest terms of the entries up to `index`, for a snapshot of them.
    pub(crate) fn terms_up_to(&self, index: LogIndex) -> Vec<TermStart> {
        let mut terms = self.snapshot.terms.clone();
        let mut last_told = self.snapshot.last_included_term;
        loop {
            let first = self.first_of_term_not(|term| term <= last_told);
            let Some(term) = self.term_at(first).filter(|_| first <= index) else {
                break;
            };
            terms.push(TermStart {
                index: first,
                term,
                leadership: self.leadership_of(term),
            });
            last_told = term;
        }
        terms.drain(..terms.len().saturating_sub(SnapshotMeta::MAX_TERMS));
        terms
    }

    /// The first entry of a term for which `is_behind`, which holds up to some term, does not hold; one behind the
    /// last entry if there is none.
    fn first_of_term_not(&self, is_behind: impl Fn(Term) -> bool) -> LogIndex {
        if let Some(index) = self.packed.first_of_term_not(&is_behind) {
            return index.max(self.first_index);
        }
        let position = self.entries.partition_point(|entry| is_behind(entry.term));
        LogIndex(self.unpacked_from.get() + position as u64)
    }

    /// If the entry at `index` is on stable storage alone: the last one of which that is so.
    pub(crate) fn let_go_from(&self, index: LogIndex) -> Option<LogIndex> {
        self.packed
            .last_let_go()
            .filter(|last| index >= self.first_index && index <= *last)
    }

    /// Copies entries from `from` on, up to `max_bytes`, though at least one if there is any. They must be in memory.
    pub(crate) fn entries_from(&self, from: LogIndex, max_bytes: usize) -> Vec<Entry> {
        self.entries_between(from, self.last_index(), max_bytes)
    }

    fn entries_between(&self, from: LogIndex, to: LogIndex, max_bytes: usize) -> Vec<Entry> {
        assert!(
            from >= self.first_index,
            "entry {from} was compacted away: the log starts at {}",
            self.first_index
        );
        let mut bytes = 0;
        let mut entries = Vec::new();
        let mut index = from;
        while index <= to {
            let Some(entry) = self.entry(index) else { break };
            bytes += entry.size_bytes();
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
            index = index.next();
        }
        entries
    }

    /// The bytes of the entries behind `index`, which is not before the last one handed out.
    pub(crate) fn bytes_after(&self, index: LogIndex) -> usize {
        self.entries
            .iter()
            .rev()
            .take_while(|entry| entry.index > index)
            .map(Entry::size_bytes)
            .sum()
    }

    /// Appends the leader's own entries.
    pub(crate) fn append(&mut self, entry: Entry) {
        self.extend(std::iter::once(entry));
    }

    /// Merges entries from a leader whose log is equal to this one up to `prev_log_index` (Raft §5.3):
    /// entries that are here already are skipped, a conflict removes the old entry and all behind it.
    /// Returns where the log was cut, if it was.
    pub(crate) fn merge(&mut self, entries: Vec<Entry>) -> Option<LogIndex> {
        let new_at = entries
            .iter()
            .position(|entry| !self.matches(entry.index, entry.term))?;
        let first_new = entries[new_at].index;
        let cut = (first_new <= self.last_index()).then_some(first_new);
        if let Some(from) = cut {
            self.truncate(from);
        }
        self.extend(entries.into_iter().skip(new_at));
        cut
    }

    fn extend(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            assert_eq!(
                entry.index,
                self.last_index().next(),
                "the log has no gap and no overlap"
            );
            assert!(
                entry.index <= self.snapshot.last_included_index || entry.term >= self.last_term(),
                "terms in the log never fall: {} after {}",
                entry.term,
                self.last_term()
            );
            if let Payload::Configuration(configuration) = &entry.payload
                && entry.index > self.snapshot.last_included_index
            {
                self.configurations.insert(entry.index, configuration.clone());
            }
            self.entries.push_back(entry);
        }
    }

    fn truncate(&mut self, from: LogIndex) {
        assert!(
            from > self.commit_index,
            "entry {from} is committed and must not be replaced (Raft §5.4)"
        );
        self.entries.truncate(index_distance(self.unpacked_from, from));
        self.configurations.split_off(&from);
        self.durable_index = self.durable_index.min(from.previous());
        self.unwritten_from = self.unwritten_from.min(from);
    }

    /// Moves the commit index forward, never back.
    pub(crate) fn commit_to(&mut self, index: LogIndex) {
        assert!(
            index <= self.last_index(),
            "cannot commit {index}: the log ends at {}",
            self.last_index()
        );
        self.commit_index = self.commit_index.max(index);
    }

    /// The log is durable up to `index`.
    pub(crate) fn durable_to(&mut self, index: LogIndex) {
        assert!(
            index <= self.last_index(),
            "entry {index} cannot be durable: the log ends at {}",
            self.last_index()
        );
        self.durable_index = self.durable_index.max(index);
    }

    /// Whether entries wait to be written.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.unwritten_from <= self.last_index()
    }

    /// The entries that were not yet yielded as a write.
    pub(crate) fn take_unwritten(&mut self) -> Vec<Entry> {
        let entries: Vec<Entry> = self
            .entries
            .range(index_distance(self.unpacked_from, self.unwritten_from)..)
            .cloned()
            .collect();
        self.unwritten_from = self.last_index().next();
        entries
    }

    /// Whether committed entries wait to be applied. Only durable ones are handed out, so that what a node
    /// has applied is never ahead of what it finds after a restart.
    pub(crate) fn has_committed(&self) -> bool {
        self.handed_out < self.commit_index.min(self.durable_index)
    }

    /// Hands out committed, durable entries, up to `max_bytes`, though at least one.
    pub(crate) fn take_committed(&mut self, max_bytes: usize) -> Vec<Entry> {
        let to = self.commit_index.min(self.durable_index);
        if self.handed_out >= to {
            return Vec::new();
        }
        let entries = self.entries_between(self.handed_out.next(), to, max_bytes);
        self.handed_out = entries.last().map_or(self.handed_out, |entry| entry.index);
        self.handed_out_bytes += entries.iter().map(Entry::size_bytes).sum::<usize>();
        self.pack_if_due();
        entries
    }

    /// Packs what was handed out, all at once, if it has become too much.
    fn pack_if_due(&mut self) {
        if self.handed_out_bytes <= self.max_unpacked_bytes {
            return;
        }
        let from = self.handed_out.next();
        let count = index_distance(self.unpacked_from, from);
        let handed_out: Vec<Entry> = self.entries.drain(..count).collect();
        for piece in handed_out.chunks(ENTRIES_PACKED_TOGETHER) {
            self.packed.push(piece);
        }
        self.packed.let_go_over(self.max_packed_bytes);
        self.unpacked_from = from;
        self.handed_out_bytes = 0;
        // It was long once, after a start or with a disk that stood still.
        if self.entries.capacity() > SPARE_ENTRIES.max(4 * self.entries.len()) {
            self.entries.shrink_to(SPARE_ENTRIES.max(2 * self.entries.len()));
        }
    }

    fn sum_handed_out(&self) -> usize {
        self.entries
            .iter()
            .take_while(|entry| entry.index <= self.handed_out)
            .map(Entry::size_bytes)
            .sum()
    }

    /// This node cut `snapshot`: forgets entries that it covers, but for `retained_bytes` of the latest.
    /// Returns the first entry kept.
    pub(crate) fn compact(&mut self, snapshot: SnapshotMeta, retained_bytes: usize) -> LogIndex {
        let index = snapshot.last_included_index;
        assert!(
            index <= self.handed_out,
            "a snapshot holds applied entries only: {index} is not applied"
        );
        assert!(
            self.matches(index, snapshot.last_included_term),
            "the snapshot at {index} does not match the log"
        );
        let mut first_retained = index.next();
        let mut bytes = 0;
        while let Some((first, before)) = self.size_before(first_retained) {
            bytes += before;
            if bytes > retained_bytes {
                break;
            }
            first_retained = first;
        }
        first_retained = self.first_of_whole_terms(first_retained, &snapshot);
        self.forget_before(first_retained);
        self.handed_out_bytes = self.sum_handed_out();
        self.move_snapshot(snapshot);
        first_retained
    }

    /// Where to keep entries from, at `from` or behind it, so that it is still known by which election the leader of
    /// each of them led: the term begins there, or `snapshot` tells it. Without that, entries of two leaderships of one
    /// term could be taken for each other.
    fn first_of_whole_terms(&self, mut from: LogIndex, snapshot: &SnapshotMeta) -> LogIndex {
        while let Some(term) = self.term_at(from)
            && from <= snapshot.last_included_index
            && term != snapshot.last_included_term
            && leadership_told_by(snapshot, term).is_none()
        {
            let begins_here = self.first_of_term_not(|other| other < term) >= from;
            if begins_here && self.leader_of(term).is_some() {
                break;
            }
            from = self.first_of_term_not(|other| other <= term);
        }
        from
    }

    /// See [`PackedEntries::size_before`].
    fn size_before(&self, index: LogIndex) -> Option<(LogIndex, usize)> {
        if index <= self.first_index {
            return None;
        }
        match self.unpacked(index.previous()) {
            Some(entry) => Some((entry.index, entry.size_bytes())),
            None => self
                .packed
                .size_before(index)
                .map(|(first, bytes)| (first.max(self.first_index), bytes)),
        }
    }

    /// Replaces the beginning of the log with a snapshot from the leader (Raft §7). Returns whether the
    /// entries behind it stayed, which they do if the log held the last entry that it includes.
    pub(crate) fn install(&mut self, snapshot: SnapshotMeta) -> bool {
        let index = snapshot.last_included_index;
        assert!(
            index > self.commit_index,
            "the log is committed past the snapshot at {index}"
        );
        let keep_suffix = self.matches(index, snapshot.last_included_term);
        if keep_suffix {
            self.forget_before(index.next());
        } else {
            // What stood behind the commit index may differ from what the snapshot holds.
            self.durable_index = self.durable_index.min(self.commit_index);
            self.entries.clear();
            self.packed.clear();
            self.configurations.clear();
            self.first_index = index.next();
            self.unpacked_from = index.next();
            self.unwritten_from = index.next();
        }
        self.term_before_first = Some(snapshot.last_included_term);
        self.move_snapshot(snapshot);
        self.commit_index = index;
        self.handed_out = index;
        self.handed_out_bytes = 0;
        keep_suffix
    }

    fn forget_before(&mut self, first_retained: LogIndex) {
        if first_retained <= self.first_index {
            return;
        }
        self.term_before_first = self.term_at(first_retained.previous());
        self.packed.forget_before(first_retained);
        if first_retained > self.unpacked_from {
            self.entries
                .drain(..index_distance(self.unpacked_from, first_retained));
            self.unpacked_from = first_retained;
        }
        self.first_index = first_retained;
    }

    fn move_snapshot(&mut self, snapshot: SnapshotMeta) {
        let index = snapshot.last_included_index;
        self.configurations = self.configurations.split_off(&index.next());
        self.configurations.insert(index, snapshot.configuration.clone());
        self.snapshot = snapshot;
    }
}

fn leadership_told_by(snapshot: &SnapshotMeta, term: Term) -> Option<Leadership> {
    let mut told = snapshot.leaderships();
    told.find_map(|(of, leadership)| (of == term).then_some(leadership))
}

fn index_distance(from: LogIndex, to: LogIndex) -> usize {
    let distance = to
        .get()
        .checked_sub(from.get())
        .expect("callers pass indexes inside the log");
    usize::try_from(distance).expect("the log is in memory, so its length fits in usize")
}

fn check_continuous(snapshot: &SnapshotMeta, entries: &[Entry]) -> Result<(), ConfigError> {
    let Some(first) = entries.first() else {
        return Ok(());
    };
    let covered = snapshot.last_included_index;
    if first.index > covered.next() || first.index == LogIndex::ZERO {
        return Err(ConfigError::BrokenLog {
            index: covered.next(),
        });
    }
    let gap = entries
        .windows(2)
        .find(|pair| pair[1].index != pair[0].index.next() || pair[1].term < pair[0].term);
    if let Some(pair) = gap {
        return Err(ConfigError::BrokenLog {
            index: pair[0].index.next(),
        });
    }
    let last = entries.last().map_or(LogIndex::ZERO, |entry| entry.index);
    let at_snapshot = entries.iter().find(|entry| entry.index == covered);
    if last < covered || at_snapshot.is_some_and(|entry| entry.term != snapshot.last_included_term) {
        return Err(ConfigError::BrokenLog { index: covered });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

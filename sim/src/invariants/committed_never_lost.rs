//! What is committed stays: all agree on it, a majority has it on disk, and no disk loses it (Raft §5.3, §5.4).
//!
//! A disk is known by the store on it. One that was lost keeps what it had: what it acknowledged before was counted
//! rightly, for as long as the cluster knows the node by that store (see `raft_core::Standing`).

use std::collections::{BTreeMap, VecDeque};

use raft_core::{Configuration, HardState, Incarnation, LogIndex, NodeId, Restored, Role, Term};

use super::Violation;
use crate::server::LogChange;

const NAME: &str = "committed never lost";

/// A committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// The entry's term.
    pub(crate) term: Term,
    /// The term of the leader that committed it. Every leader of a later term has it.
    pub(crate) by: Term,
}

/// All committed entries, and what of them is on which disk.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// By index, from 1; `None` where nobody who knew it to be committed still had it in its log.
    commits: Vec<Option<Commit>>,
    disks: BTreeMap<(NodeId, Incarnation), DiskLog>,
}

/// The terms of the entries on a disk, and what else counts.
#[derive(Clone, Debug, Default)]
struct DiskLog {
    hard_state: HardState,
    snapshot: LogIndex,
    snapshot_term: Term,
    first: LogIndex,
    terms: VecDeque<Term>,
    /// How far the log ever went.
    furthest: (Term, LogIndex),
}

impl Committed {
    /// The entry at `index`, if it is committed.
    pub(crate) fn at(&self, index: LogIndex) -> Option<Commit> {
        let position = usize::try_from(index.get().checked_sub(1)?).ok()?;
        self.commits.get(position).copied().flatten()
    }

    /// All of them, from `first` on.
    pub(crate) fn from(&self, first: LogIndex) -> impl Iterator<Item = (LogIndex, Commit)> {
        (first.get().max(1)..=self.commits.len() as u64)
            .filter_map(|index| Some((LogIndex(index), self.at(LogIndex(index))?)))
    }

    /// `node` learned that entries are committed.
    pub(crate) fn changed(&mut self, node: NodeId, change: &LogChange) -> Result<(), Violation> {
        for (index, term) in &change.committed {
            match self.at(*index) {
                Some(known) if known.term != *term => {
                    let what = format!(
                        "entry {index} was committed with term {}, and node {node} commits one of term {term}",
                        known.term
                    );
                    return Err(Violation::new(NAME, what));
                }
                Some(_) => {}
                None => self.commit(*index, *term, change.term),
            }
            if change.role == Role::Leader {
                self.is_on_a_majority(node, &change.configuration, *index, *term)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, index: LogIndex, term: Term, by: Term) {
        let position = usize::try_from(index.get() - 1).unwrap_or(usize::MAX);
        if self.commits.len() <= position {
            self.commits.resize(position + 1, None);
        }
        self.commits[position] = Some(Commit { term, by });
    }

    /// On the disks of the stores that count for `leader`.
    fn is_on_a_majority(
        &self,
        leader: NodeId,
        members: &Configuration,
        index: LogIndex,
        term: Term,
    ) -> Result<(), Violation> {
        let holds = |node| {
            self.registered(node, members)
                .is_some_and(|disk| disk.holds(index, term))
        };
        if members.has_quorum(holds) {
            return Ok(());
        }
        let holders = members.voters().iter().filter(|node| holds(**node)).count();
        let what = format!(
            "node {leader} commits entry {index} of term {term}, which is on {holders} of {} disks",
            members.voters().len()
        );
        Err(Violation::new(NAME, what))
    }

    /// The disk by which `node` takes part.
    fn registered(&self, node: NodeId, members: &Configuration) -> Option<&DiskLog> {
        self.disks.get(&(node, members.incarnation_of(node)?))
    }

    /// The disk of `node`, with the store `store`, holds `durable` now.
    pub(crate) fn is_on_disk(
        &mut self,
        node: NodeId,
        store: Incarnation,
        durable: &Restored,
    ) -> Result<(), Violation> {
        let mut now = DiskLog::of(durable);
        let before = self.disks.remove(&(node, store)).unwrap_or_default();
        now.furthest = before.furthest.max(now.last());
        self.covers_what_is_committed(node, &now)?;
        for (index, commit) in self.from(before.snapshot.min(now.snapshot).next()) {
            if before.holds(index, commit.term) && !now.holds(index, commit.term) {
                let what = format!(
                    "the disk of node {node} has lost entry {index} of term {}, which is committed",
                    commit.term
                );
                return Err(Violation::new(NAME, what));
            }
        }
        self.disks.insert((node, store), now);
        Ok(())
    }

    /// A snapshot covers nothing but what is committed, and ends with the entry that was.
    fn covers_what_is_committed(&self, node: NodeId, disk: &DiskLog) -> Result<(), Violation> {
        let what = match self.at(disk.snapshot) {
            Some(commit) if commit.term != disk.snapshot_term => {
                format!("that of term {} was committed", commit.term)
            }
            None if disk.snapshot.get() > self.commits.len() as u64 => "nobody committed that".to_owned(),
            _ => return Ok(()),
        };
        let what = format!(
            "the snapshot of node {node} ends with entry {} of term {}, and {what}",
            disk.snapshot, disk.snapshot_term
        );
        Err(Violation::new(NAME, what))
    }

    /// Whether the disk of `node` with the store `store`, which holds `durable`, has all that it ever had.
    pub(crate) fn is_complete(&self, node: NodeId, store: Incarnation, durable: &Restored) -> bool {
        let known = self.disks.get(&(node, store));
        known.is_none_or(|known| known.furthest <= DiskLog::of(durable).last())
    }

    /// Whether the disk of `node` can be taken back to `copy`, an earlier state of the same store, without harm: it
    /// forgets no vote, and whatever else it forgets is on the disks of a majority without it. That majority shares
    /// a node with every other one.
    pub(crate) fn bears_copy(
        &self,
        node: NodeId,
        store: Incarnation,
        copy: &Restored,
        members: &Configuration,
    ) -> bool {
        let Some(latest) = self.disks.get(&(node, store)) else {
            return false;
        };
        let (copy, others) = (DiskLog::of(copy), |other: NodeId| other != node);
        let is_elsewhere = |index: LogIndex| {
            let holds = |disk: &DiskLog| latest.term_at(index).is_some_and(|term| disk.holds(index, term));
            members.has_quorum(|other| others(other) && self.registered(other, members).is_some_and(holds))
        };
        let is_earlier = latest.holds(copy.last().1, copy.last().0);
        let mut forgotten = (copy.last().1.next().get()..=latest.last().1.get()).map(LogIndex);
        latest.hard_state == copy.hard_state && is_earlier && forgotten.all(is_elsewhere)
    }

    /// The disk of `node` with the store `store` is put back to a state in which it held `durable`.
    pub(crate) fn is_put_back(&mut self, node: NodeId, store: Incarnation, durable: &Restored) {
        let furthest = self.disks.get(&(node, store)).map(|disk| disk.furthest);
        let mut disk = DiskLog::of(durable);
        disk.furthest = disk.last().max(furthest.unwrap_or_default());
        self.disks.insert((node, store), disk);
    }
}

impl DiskLog {
    fn of(durable: &Restored) -> Self {
        let snapshot = durable.snapshot.last_included_index;
        let mut log = Self {
            hard_state: durable.hard_state,
            snapshot,
            snapshot_term: durable.snapshot.last_included_term,
            first: durable
                .entries
                .first()
                .map_or(snapshot.next(), |first| first.index),
            terms: durable.entries.iter().map(|entry| entry.term).collect(),
            furthest: (Term::ZERO, LogIndex::ZERO),
        };
        log.furthest = log.last();
        log
    }

    /// Term and index of the last entry.
    fn last(&self) -> (Term, LogIndex) {
        let end = LogIndex((self.first.get() + self.terms.len() as u64).saturating_sub(1));
        match self.terms.back() {
            Some(term) if end >= self.snapshot => (*term, end),
            _ => (self.snapshot_term, self.snapshot),
        }
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        let position = usize::try_from(index.get().checked_sub(self.first.get())?).ok()?;
        self.terms.get(position).copied()
    }

    /// In the log, or under the snapshot, which holds nothing but what is committed.
    fn holds(&self, index: LogIndex, term: Term) -> bool {
        index <= self.snapshot || self.term_at(index) == Some(term)
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{
        Configuration, Entry, Incarnation, Leadership, LogIndex, NodeId, Payload, Restored, Role,
        SnapshotMeta, Term,
    };

    use super::Committed;
    use crate::invariants::tests::change;
    use crate::server::LogChange;

    const STORE: Incarnation = Incarnation(1);

    fn disk(terms: &[u64]) -> Restored {
        let entries = (1..).zip(terms).map(|(index, term)| Entry {
            term: Term(*term),
            index: LogIndex(index),
            payload: Payload::Noop {
                leader_id: NodeId(1),
                leadership: Leadership(70),
            },
        });
        Restored {
            entries: entries.collect(),
            ..Restored::default()
        }
    }

    fn members() -> Configuration {
        let ids = [1, 2, 3].map(NodeId);
        ids.into_iter()
            .fold(Configuration::of_voters(ids), |members, id| {
                members.with_incarnation(id, STORE)
            })
    }

    /// The leader of term 1 commits its first entry.
    fn commits() -> LogChange {
        let mut commits = change(Role::Leader, Term(1), None, &[]);
        commits.committed = vec![(LogIndex(1), Term(1))];
        commits.configuration = members();
        commits
    }

    #[test]
    fn what_is_on_too_few_disks_or_leaves_one_is_caught() {
        let mut invariant = Committed::default();
        let mut commits = commits();
        assert!(invariant.is_on_disk(NodeId(1), STORE, &disk(&[1, 1])).is_ok());
        assert!(invariant.changed(NodeId(1), &commits).is_err());
        assert!(invariant.is_on_disk(NodeId(2), STORE, &disk(&[1])).is_ok());
        assert!(invariant.changed(NodeId(1), &commits).is_ok());
        assert!(invariant.is_on_disk(NodeId(1), STORE, &disk(&[1, 2])).is_ok());
        assert!(invariant.is_on_disk(NodeId(1), STORE, &disk(&[2])).is_err());
        commits.committed = vec![(LogIndex(1), Term(2))];
        assert!(invariant.changed(NodeId(3), &commits).is_err());
    }

    #[test]
    fn a_snapshot_of_what_is_not_committed_is_caught() {
        let snapshot = |index, term| Restored {
            snapshot: SnapshotMeta {
                last_included_index: LogIndex(index),
                last_included_term: Term(term),
                ..SnapshotMeta::default()
            },
            ..Restored::default()
        };
        let mut invariant = Committed::default();
        for node in [1, 2] {
            invariant.is_on_disk(NodeId(node), STORE, &disk(&[1])).unwrap();
        }
        invariant.changed(NodeId(1), &commits()).unwrap();
        assert!(invariant.is_on_disk(NodeId(1), STORE, &snapshot(1, 1)).is_ok());
        assert!(invariant.is_on_disk(NodeId(2), STORE, &snapshot(1, 2)).is_err());
        assert!(invariant.is_on_disk(NodeId(3), STORE, &snapshot(2, 1)).is_err());
    }

    #[test]
    fn what_is_on_a_disk_that_does_not_count_is_no_majority() {
        let mut invariant = Committed::default();
        let mut commits = commits();
        invariant.is_on_disk(NodeId(1), STORE, &disk(&[1])).unwrap();
        let other = Incarnation(2);
        invariant.is_on_disk(NodeId(2), other, &disk(&[1])).unwrap();
        assert!(invariant.changed(NodeId(1), &commits).is_err());
        commits.configuration = members().with_incarnation(NodeId(2), other);
        assert!(invariant.changed(NodeId(1), &commits).is_ok());
    }

    #[test]
    fn a_copy_may_come_back_if_a_majority_of_the_others_has_what_it_lacks() {
        let mut invariant = Committed::default();
        let bears = |invariant: &Committed, copy| invariant.bears_copy(NodeId(1), STORE, &copy, &members());
        invariant.is_on_disk(NodeId(1), STORE, &disk(&[1, 1])).unwrap();
        invariant.is_on_disk(NodeId(2), STORE, &disk(&[1, 1])).unwrap();
        assert!(bears(&invariant, disk(&[1, 1])));
        assert!(!bears(&invariant, disk(&[1])));
        invariant.is_on_disk(NodeId(3), STORE, &disk(&[1, 1])).unwrap();
        assert!(bears(&invariant, disk(&[1])));
        assert!(!bears(&invariant, disk(&[2])), "that is another log");
        let mut voted = disk(&[1]);
        voted.hard_state.current_term = Term(7);
        assert!(!bears(&invariant, voted));
        assert!(invariant.is_complete(NodeId(1), STORE, &disk(&[1, 1])));
        assert!(!invariant.is_complete(NodeId(1), STORE, &disk(&[1])));
        invariant.is_put_back(NodeId(1), STORE, &disk(&[1]));
        assert!(!invariant.is_complete(NodeId(1), STORE, &disk(&[1])));
        assert!(invariant.is_complete(NodeId(1), STORE, &disk(&[1, 2])));
    }
}

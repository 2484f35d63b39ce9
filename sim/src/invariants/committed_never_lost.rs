//! What is committed stays: all agree on it, a majority has it on disk, and no disk loses it (Raft §5.3, §5.4).

use std::collections::{BTreeMap, VecDeque};

use raft_core::{LogIndex, NodeId, Restored, Role, Term};

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
#[derive(Debug)]
pub(crate) struct Committed {
    majority: usize,
    /// By index, from 1; `None` where nobody who knew it to be committed still had it in its log.
    commits: Vec<Option<Commit>>,
    disks: BTreeMap<NodeId, DiskLog>,
}

/// The terms of the entries on a disk.
#[derive(Clone, Debug, Default)]
struct DiskLog {
    snapshot: LogIndex,
    first: LogIndex,
    terms: VecDeque<Term>,
}

impl Committed {
    pub(crate) fn new(nodes: u64) -> Self {
        Self {
            majority: usize::try_from(nodes / 2 + 1).unwrap_or(usize::MAX),
            commits: Vec::new(),
            disks: BTreeMap::new(),
        }
    }

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
                self.is_on_a_majority(node, *index, *term)?;
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

    fn is_on_a_majority(&self, leader: NodeId, index: LogIndex, term: Term) -> Result<(), Violation> {
        let holders = self.disks.values().filter(|disk| disk.holds(index, term)).count();
        if holders >= self.majority {
            return Ok(());
        }
        let what = format!(
            "node {leader} commits entry {index} of term {term}, which is on {holders} disks and not on {}",
            self.majority
        );
        Err(Violation::new(NAME, what))
    }

    /// The disk of `node` holds `durable` now.
    pub(crate) fn is_on_disk(&mut self, node: NodeId, durable: &Restored) -> Result<(), Violation> {
        let now = DiskLog::of(durable);
        let before = self.disks.insert(node, now.clone()).unwrap_or_default();
        for (index, commit) in self.from(before.snapshot.min(now.snapshot).next()) {
            if before.holds(index, commit.term) && !now.holds(index, commit.term) {
                let what = format!(
                    "the disk of node {node} has lost entry {index} of term {}, which is committed",
                    commit.term
                );
                return Err(Violation::new(NAME, what));
            }
        }
        Ok(())
    }
}

impl DiskLog {
    fn of(durable: &Restored) -> Self {
        let snapshot = durable.snapshot.last_included_index;
        Self {
            snapshot,
            first: durable
                .entries
                .first()
                .map_or(snapshot.next(), |first| first.index),
            terms: durable.entries.iter().map(|entry| entry.term).collect(),
        }
    }

    /// In the log, or under the snapshot, which holds nothing but what is committed.
    fn holds(&self, index: LogIndex, term: Term) -> bool {
        let in_log = || {
            let position = usize::try_from(index.get().checked_sub(self.first.get())?).ok()?;
            self.terms.get(position).copied()
        };
        index <= self.snapshot || in_log() == Some(term)
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{Entry, LogIndex, NodeId, Payload, Restored, Role, Term};

    use super::Committed;
    use crate::invariants::tests::change;

    fn disk(terms: &[u64]) -> Restored {
        let entries = (1..).zip(terms).map(|(index, term)| Entry {
            term: Term(*term),
            index: LogIndex(index),
            payload: Payload::Noop,
        });
        Restored {
            entries: entries.collect(),
            ..Restored::default()
        }
    }

    #[test]
    fn what_is_on_too_few_disks_or_leaves_one_is_caught() {
        let mut invariant = Committed::new(3);
        let mut commits = change(Role::Leader, Term(1), None, &[]);
        commits.committed = vec![(LogIndex(1), Term(1))];
        assert!(invariant.is_on_disk(NodeId(1), &disk(&[1, 1])).is_ok());
        assert!(invariant.changed(NodeId(1), &commits).is_err());
        assert!(invariant.is_on_disk(NodeId(2), &disk(&[1])).is_ok());
        assert!(invariant.changed(NodeId(1), &commits).is_ok());
        assert!(invariant.is_on_disk(NodeId(1), &disk(&[1, 2])).is_ok());
        assert!(invariant.is_on_disk(NodeId(1), &disk(&[2])).is_err());
        commits.committed = vec![(LogIndex(1), Term(2))];
        assert!(invariant.changed(NodeId(3), &commits).is_err());
    }
}

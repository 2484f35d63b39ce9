//! A node applies what is committed, and nothing else: each entry with the term and the content with which it was
//! committed, one index after the other (Raft §5.3). Only a snapshot lets it go on elsewhere.

use std::collections::BTreeMap;

use raft_core::{Entry, LogIndex, NodeId};

use super::Violation;
use super::committed_never_lost::Committed;
use super::log_matching::LogMatching;
use super::state_machine_safety::AppliedBatch;

/// How far each node has come.
#[derive(Debug, Default)]
pub(crate) struct AppliedInOrder {
    applied: BTreeMap<NodeId, LogIndex>,
}

impl AppliedInOrder {
    /// `node` starts with the state after `index`, that of its snapshot.
    pub(crate) fn started(&mut self, node: NodeId, index: LogIndex) {
        self.applied.insert(node, index);
    }

    /// `node` applied `batch`; one without entries is a snapshot that it restored.
    pub(crate) fn applied(
        &mut self,
        node: NodeId,
        batch: &AppliedBatch,
        committed: &Committed,
        logs: &LogMatching,
    ) -> Result<(), Violation> {
        let mut last = self.applied.get(&node).copied().unwrap_or_default();
        for entry in &batch.entries {
            if entry.index != last.next() {
                return Err(violation(node, entry, &format!("right behind entry {last}")));
            }
            last = entry.index;
            match committed.at(entry.index) {
                None => return Err(violation(node, entry, "before anybody knew it to be committed")),
                Some(commit) if commit.term != entry.term => {
                    let what = format!("and that of term {} was committed", commit.term);
                    return Err(violation(node, entry, &what));
                }
                Some(_) => {}
            }
            if logs
                .payload_of(entry)
                .is_some_and(|payload| *payload != entry.payload)
            {
                return Err(violation(node, entry, "with another content than in the logs"));
            }
        }
        self.applied.insert(node, batch.up_to);
        Ok(())
    }
}

fn violation(node: NodeId, entry: &Entry, how: &str) -> Violation {
    let what = format!(
        "node {node} applied entry {} of term {} {how}",
        entry.index, entry.term
    );
    Violation::new("applied in order", what)
}

#[cfg(test)]
mod tests {
    use raft_core::{Entry, LogIndex, NodeId, Payload, Role, Term};

    use super::{AppliedBatch, AppliedInOrder, Committed, LogMatching};
    use crate::invariants::tests::change;

    /// Entries 1 and 2 of term 1 are in the log and committed, as a follower hears.
    fn world() -> (Committed, LogMatching) {
        let mut change = change(Role::Follower, Term(1), None, &[(1, 1), (2, 1)]);
        change.committed = vec![(LogIndex(1), Term(1)), (LogIndex(2), Term(1))];
        let (mut committed, mut logs) = (Committed::default(), LogMatching::default());
        committed.changed(NodeId(1), &change).unwrap();
        logs.changed(NodeId(1), &change).unwrap();
        (committed, logs)
    }

    fn batch(entries: &[(u64, u64)], up_to: u64) -> AppliedBatch {
        // The same content as in the logs.
        let logged = change(Role::Follower, Term(1), None, entries)
            .appended
            .remove(0)
            .entries;
        AppliedBatch {
            entries: logged,
            up_to: LogIndex(up_to),
            state_hash: None,
        }
    }

    fn holds(batches: &[AppliedBatch]) -> bool {
        let (committed, logs) = world();
        let mut invariant = AppliedInOrder::default();
        invariant.started(NodeId(1), LogIndex::ZERO);
        batches
            .iter()
            .all(|batch| invariant.applied(NodeId(1), batch, &committed, &logs).is_ok())
    }

    #[test]
    fn gaps_repetitions_and_what_is_not_committed_are_caught() {
        assert!(holds(&[batch(&[(1, 1)], 1), batch(&[(2, 1)], 2)]));
        assert!(holds(&[batch(&[], 1), batch(&[(2, 1)], 2)]), "a snapshot");
        assert!(!holds(&[batch(&[(2, 1)], 2)]), "a gap");
        assert!(!holds(&[batch(&[(1, 1)], 1), batch(&[(1, 1)], 1)]), "twice");
        assert!(!holds(&[batch(&[(1, 2)], 1)]), "of another term");
        assert!(!holds(&[batch(&[(1, 1), (2, 1), (3, 1)], 3)]), "not committed");
        let other = Entry {
            term: Term(1),
            index: LogIndex(1),
            payload: Payload::Command("x".into()),
        };
        let with_other = AppliedBatch {
            entries: vec![other],
            up_to: LogIndex(1),
            state_hash: None,
        };
        assert!(!holds(&[with_other]), "of another content");
    }
}

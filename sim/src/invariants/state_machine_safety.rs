//! All nodes apply the same entry at an index, and have the same state after it (Raft figure 3).

use std::collections::BTreeMap;

use raft_core::{Entry, LogIndex, NodeId};

use super::Violation;

const NAME: &str = "state machine safety";

/// What a node applied at once, and the state it came to. No entries after a snapshot was installed.
#[derive(Clone, Debug)]
pub(crate) struct AppliedBatch {
    pub(crate) entries: Vec<Entry>,
    pub(crate) up_to: LogIndex,
    /// Walking the whole state is dear, so not every batch has it.
    pub(crate) state_hash: Option<u64>,
}

/// Everything that was ever applied anywhere.
#[derive(Debug, Default)]
pub(crate) struct StateMachineSafety {
    entries: BTreeMap<LogIndex, (NodeId, Entry)>,
    states: BTreeMap<LogIndex, (NodeId, u64)>,
    last_applied: LogIndex,
}

impl StateMachineSafety {
    /// `node` applied `batch`.
    pub(crate) fn applied(&mut self, node: NodeId, batch: &AppliedBatch) -> Result<(), Violation> {
        for entry in &batch.entries {
            let (first, known) = self
                .entries
                .entry(entry.index)
                .or_insert_with(|| (node, entry.clone()));
            if known != entry {
                let what = format!(
                    "at index {}, node {first} applied an entry of term {} and node {node} another, of term {}",
                    entry.index, known.term, entry.term
                );
                return Err(Violation::new(NAME, what));
            }
        }
        self.last_applied = self.last_applied.max(batch.up_to);
        batch
            .state_hash
            .map_or(Ok(()), |hash| self.has_state(node, batch.up_to, hash))
    }

    /// `node` has this state after `index`.
    pub(crate) fn has_state(&mut self, node: NodeId, index: LogIndex, hash: u64) -> Result<(), Violation> {
        let (first, known) = self.states.entry(index).or_insert((node, hash));
        if *known == hash {
            return Ok(());
        }
        let what = format!(
            "after index {index}, node {first} has state {known:016x} and node {node} has {hash:016x}"
        );
        Err(Violation::new(NAME, what))
    }

    /// At how many indexes a state is known.
    pub(crate) fn states_compared(&self) -> usize {
        self.states.len()
    }

    /// All entries that any node applied, in order.
    pub(crate) fn applied_entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(|(_, entry)| entry)
    }

    /// The last entry that any node applied.
    pub(crate) fn last_applied(&self) -> LogIndex {
        self.last_applied
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{Entry, Leadership, LogIndex, NodeId, Payload, Term};

    use super::{AppliedBatch, StateMachineSafety};

    fn batch(term: u64, state_hash: u64) -> AppliedBatch {
        let entry = Entry {
            term: Term(term),
            index: LogIndex(1),
            payload: Payload::Noop {
                leader_id: NodeId(1),
                leadership: Leadership(70),
            },
        };
        AppliedBatch {
            entries: vec![entry],
            up_to: LogIndex(1),
            state_hash: Some(state_hash),
        }
    }

    #[test]
    fn another_entry_at_an_applied_index_is_caught() {
        let mut invariant = StateMachineSafety::default();
        assert!(invariant.applied(NodeId(1), &batch(1, 7)).is_ok());
        assert!(invariant.applied(NodeId(2), &batch(1, 7)).is_ok());
        assert!(invariant.applied(NodeId(3), &batch(2, 7)).is_err());
    }

    #[test]
    fn another_state_after_the_same_entries_is_caught() {
        let mut invariant = StateMachineSafety::default();
        assert!(invariant.applied(NodeId(1), &batch(1, 7)).is_ok());
        assert!(invariant.applied(NodeId(2), &batch(1, 8)).is_err());
    }
}

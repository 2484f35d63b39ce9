//! Two logs that have an entry with the same index and term are the same up to there (Raft figure 3).
//!
//! It is enough to look at each entry with the one before it: if the same entry always has the same content and
//! the same predecessor, then by induction so has everything before.

use std::collections::BTreeMap;

use raft_core::{Entry, LogIndex, NodeId, Payload, Term};

use super::Violation;
use crate::server::LogChange;

/// Every entry that was ever in a log, with the term of the one before it and who had it first.
#[derive(Debug, Default)]
pub(crate) struct LogMatching {
    known: BTreeMap<(LogIndex, Term), Known>,
}

#[derive(Debug)]
struct Known {
    first_seen_at: NodeId,
    previous_term: Option<Term>,
    payload: Payload,
}

impl LogMatching {
    /// The log of `node` has changed.
    pub(crate) fn changed(&mut self, node: NodeId, change: &LogChange) -> Result<(), Violation> {
        for appended in &change.appended {
            let mut previous_term = appended.previous_term;
            for entry in &appended.entries {
                self.has(node, previous_term, entry)?;
                previous_term = Some(entry.term);
            }
        }
        Ok(())
    }

    /// What every log holds that has an entry of this index and term.
    pub(super) fn payload_of(&self, entry: &Entry) -> Option<&Payload> {
        self.known
            .get(&(entry.index, entry.term))
            .map(|known| &known.payload)
    }

    fn has(&mut self, node: NodeId, previous_term: Option<Term>, entry: &Entry) -> Result<(), Violation> {
        let known = self
            .known
            .entry((entry.index, entry.term))
            .or_insert_with(|| Known {
                first_seen_at: node,
                previous_term,
                payload: entry.payload.clone(),
            });
        let first = known.first_seen_at;
        if known.payload != entry.payload {
            return Err(violation(node, first, entry, "with another content"));
        }
        match (known.previous_term, previous_term) {
            (Some(one), Some(other)) if one != other => {
                let what = format!("behind an entry of term {other} instead of {one}");
                Err(violation(node, first, entry, &what))
            }
            (None, other) => {
                known.previous_term = other;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn violation(node: NodeId, first: NodeId, entry: &Entry, what: &str) -> Violation {
    let (index, term) = (entry.index, entry.term);
    let what = format!("node {node} has entry {index} of term {term} {what}, compared with node {first}");
    Violation::new("log matching", what)
}

#[cfg(test)]
mod tests {
    use raft_core::{NodeId, Role, Term};

    use super::LogMatching;
    use crate::invariants::tests::change;

    #[test]
    fn the_same_entry_behind_another_one_is_caught() {
        let mut invariant = LogMatching::default();
        let one = change(Role::Follower, Term(3), Some(Term(1)), &[(5, 2), (6, 3)]);
        assert!(invariant.changed(NodeId(1), &one).is_ok());
        assert!(invariant.changed(NodeId(2), &one).is_ok());
        let other = change(Role::Follower, Term(3), Some(Term(1)), &[(5, 1), (6, 3)]);
        assert!(invariant.changed(NodeId(3), &other).is_err());
    }
}

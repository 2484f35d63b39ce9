//! At most one leader is elected in a term (Raft figure 3). A node that crashed and forgot counts as another.

use std::collections::BTreeMap;

use raft_core::{NodeId, Term};

use super::Violation;

/// Who was elected when.
#[derive(Debug, Default)]
pub(crate) struct ElectionSafety {
    /// The leader of each term, and in which of its lives it was elected.
    leaders: BTreeMap<Term, (NodeId, u64)>,
}

impl ElectionSafety {
    /// `node` says that it leads `term`.
    pub(crate) fn elected(&mut self, term: Term, node: NodeId, incarnation: u64) -> Result<(), Violation> {
        match self.leaders.insert(term, (node, incarnation)) {
            None => Ok(()),
            Some((earlier, life)) => Err(Violation::new(
                "election safety",
                format!(
                    "term {term} elected node {earlier} (life {life}) and node {node} (life {incarnation})"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{NodeId, Term};

    use super::ElectionSafety;

    #[test]
    fn a_second_leader_in_a_term_is_caught() {
        let mut invariant = ElectionSafety::default();
        assert!(invariant.elected(Term(1), NodeId(1), 1).is_ok());
        assert!(invariant.elected(Term(2), NodeId(1), 1).is_ok());
        assert!(invariant.elected(Term(2), NodeId(2), 1).is_err());
    }
}

//! What must hold whatever happens, one file an invariant.

pub(crate) mod applied_in_order;
pub(crate) mod commit_rule;
pub(crate) mod committed_never_lost;
pub(crate) mod configuration_lineage;
pub(crate) mod durable_promises;
pub(crate) mod election_safety;
pub(crate) mod exactly_once;
pub(crate) mod fresh_reads;
pub(crate) mod leader_append_only;
pub(crate) mod leader_completeness;
pub(crate) mod linearizable;
pub(crate) mod log_matching;
pub(crate) mod one_vote;
pub(crate) mod state_machine_safety;

use std::fmt;

use raft_core::{Configuration, Incarnation, LogIndex, NodeId, Restored};

use crate::scenario::Scenario;
use crate::server::LogChange;
use applied_in_order::AppliedInOrder;
use commit_rule::CommitRule;
use committed_never_lost::Committed;
use configuration_lineage::ConfigurationLineage;
use durable_promises::DurablePromises;
use election_safety::ElectionSafety;
use exactly_once::ExactlyOnce;
use fresh_reads::FreshReads;
use leader_append_only::LeaderAppendOnly;
use leader_completeness::LeaderCompleteness;
use log_matching::LogMatching;
use one_vote::OneVote;
use state_machine_safety::{AppliedBatch, StateMachineSafety};

/// What was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// Several lines that show it, if one sentence cannot. How few they are may depend on how fast the machine is.
    pub window: Option<String>,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self {
            invariant,
            what: what.into(),
            window: None,
        }
    }

    /// With lines that show it.
    pub(crate) fn showing(self, window: impl Into<String>) -> Self {
        Self {
            window: Some(window.into()),
            ..self
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// All of them, with what they remember.
#[derive(Debug)]
pub(crate) struct Invariants {
    pub(crate) election_safety: ElectionSafety,
    pub(crate) leader_append_only: LeaderAppendOnly,
    pub(crate) log_matching: LogMatching,
    pub(crate) leader_completeness: LeaderCompleteness,
    pub(crate) state_machine_safety: StateMachineSafety,
    pub(crate) committed: Committed,
    commit_rule: CommitRule,
    applied_in_order: AppliedInOrder,
    pub(crate) one_vote: OneVote,
    pub(crate) configuration_lineage: ConfigurationLineage,
    pub(crate) durable_promises: DurablePromises,
    pub(crate) exactly_once: ExactlyOnce,
    pub(crate) fresh_reads: FreshReads,
}

impl Invariants {
    /// Those of a cluster that nothing has happened to yet.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            election_safety: ElectionSafety::default(),
            leader_append_only: LeaderAppendOnly::default(),
            log_matching: LogMatching::default(),
            leader_completeness: LeaderCompleteness,
            state_machine_safety: StateMachineSafety::default(),
            committed: Committed::default(),
            commit_rule: CommitRule,
            applied_in_order: AppliedInOrder::default(),
            one_vote: OneVote::default(),
            configuration_lineage: ConfigurationLineage::new(Configuration::of_voters(scenario.node_ids())),
            durable_promises: DurablePromises::default(),
            exactly_once: ExactlyOnce::default(),
            fresh_reads: FreshReads::default(),
        }
    }

    /// `node` starts with what its disk holds, by the store `store`, and its log ends at `last`.
    pub(crate) fn started(
        &mut self,
        node: NodeId,
        store: Incarnation,
        durable: &Restored,
        last: LogIndex,
    ) -> Result<(), Violation> {
        self.leader_append_only.started(node, last);
        self.applied_in_order
            .started(node, durable.snapshot.last_included_index);
        self.committed.is_on_disk(node, store, durable)
    }

    /// The stores by which the members take part, as of the last committed configuration that says so.
    pub(crate) fn registry(&self) -> Option<&Configuration> {
        let latest = self
            .configuration_lineage
            .before(LogIndex(u64::MAX), &self.committed);
        Some(latest).filter(|configuration| configuration.is_founded())
    }

    /// `node` applied `batch`.
    pub(crate) fn applied(&mut self, node: NodeId, batch: &AppliedBatch) -> Result<(), Violation> {
        self.applied_in_order
            .applied(node, batch, &self.committed, &self.log_matching)?;
        self.state_machine_safety.applied(node, batch)
    }

    /// The log of `node` has changed, or what it knows to be committed.
    pub(crate) fn changed(&mut self, node: NodeId, change: &LogChange) -> Result<(), Violation> {
        self.leader_append_only.changed(node, change)?;
        self.log_matching.changed(node, change)?;
        self.commit_rule.changed(node, change)?;
        self.committed.changed(node, change)?;
        self.configuration_lineage.changed(node, change, &self.committed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use raft_core::{Configuration, Entry, LogIndex, Payload, Role, Term};

    use crate::server::{Appended, LogChange};

    /// A node of that role and term has put entries, each an index and a term, into its log.
    pub(crate) fn change(
        role: Role,
        term: Term,
        previous_term: Option<Term>,
        entries: &[(u64, u64)],
    ) -> LogChange {
        let entries = entries.iter().map(|(index, term)| Entry {
            term: Term(*term),
            index: LogIndex(*index),
            payload: Payload::Noop {
                leader_id: raft_core::NodeId(1),
                leadership: raft_core::Leadership(70),
            },
        });
        let entries: Vec<Entry> = entries.collect();
        LogChange {
            role,
            term,
            last_log_index: entries.last().map_or(LogIndex::ZERO, |entry| entry.index),
            appended: vec![Appended {
                previous_term,
                entries,
            }],
            snapshots: Vec::new(),
            has_installed: false,
            committed: Vec::new(),
            configuration: Configuration::default(),
        }
    }
}

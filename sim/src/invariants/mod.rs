//! What must hold whatever happens, one file an invariant.

pub(crate) mod durable_promises;
pub(crate) mod election_safety;
pub(crate) mod exactly_once;
pub(crate) mod fresh_reads;
pub(crate) mod state_machine_safety;

use std::fmt;

use durable_promises::DurablePromises;
use election_safety::ElectionSafety;
use exactly_once::ExactlyOnce;
use fresh_reads::FreshReads;
use state_machine_safety::StateMachineSafety;

/// What was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self {
            invariant,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// All of them, with what they remember.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    pub(crate) election_safety: ElectionSafety,
    pub(crate) state_machine_safety: StateMachineSafety,
    pub(crate) durable_promises: DurablePromises,
    pub(crate) exactly_once: ExactlyOnce,
    pub(crate) fresh_reads: FreshReads,
}

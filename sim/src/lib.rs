//! A deterministic simulator of whole clusters.
//!
//! It runs the structs that `kv-server` runs, a cluster of them in one thread: the driver around the consensus
//! core, group commit, the state machine with its sessions, waiting requests, snapshot transfers. Storage is
//! the in-memory twin. Network, disks and clocks are simulated: time is a queue of events. One 64-bit seed
//! decides everything, so a run that fails is replayed by its number.
//!
//! A run has two phases. In the first, messages are delayed, lost, repeated and overtaken, links are cut in one
//! direction or both, nodes crash and lose what is not durable, disks are slow, leaders are asked to hand over.
//! Clients go on writing and reading, and retry what is not answered. In the second, everything works: within
//! ten election timeouts an operation must be done, and soon after all nodes must have the same state.
//!
//! ```
//! let report = sim::run(7);
//! assert_eq!(report.verdict, sim::Verdict::Passed);
//! // The same seed again is the same run.
//! assert_eq!(sim::run(7).trace_hash, report.trace_hash);
//! ```
//!
//! # What is checked, all the time
//!
//! | invariant | file |
//! |---|---|
//! | one leader a term | `invariants/election_safety.rs` |
//! | the same entries and the same state at the same index, everywhere | `invariants/state_machine_safety.rs` |
//! | votes, matched logs and installed snapshots that leave a node are on its disk | `invariants/durable_promises.rs` |
//! | an append takes effect at most once, an acknowledged one exactly once, in its client's order | `invariants/exactly_once.rs` |
//! | a read sees what was acknowledged or read before it began | `invariants/fresh_reads.rs` |
//!
//! The assertions of the core and the refusals of the storage count too: a panic or an error ends the run.
//!
//! # What it does not do
//!
//! It does not run the actors, sled or sockets: tests of `kv-server`, `storage` and `deploy` do that. It injects
//! no failing writes, no damaged files and no full disks; clocks drift a little and never jump; clients are
//! never cut off; nothing is deleted or scanned. It checks reads against what was known when they began, which
//! is weaker than a full check of linearizability.
#![forbid(unsafe_code)]

mod client;
mod clock;
mod conversations;
mod describe;
mod ending;
mod faults;
mod history;
mod invariants;
pub mod linearizability;
mod machine;
mod messages;
mod network;
mod obedience;
mod planted_bug;
mod report;
mod scenario;
mod server;
mod simulation;
mod trace;
mod traffic;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use faults::{FaultCounts, FaultKind};
pub use invariants::Violation;
pub use planted_bug::PlantedBug;
pub use report::{Report, Totals, Verdict};
pub use trace::Listener;

use simulation::Simulation;
use trace::Trace;

/// Runs one seed.
#[must_use]
pub fn run(seed: u64) -> Report {
    run_with(seed, None, None)
}

/// Runs one seed and tells `listener` everything, line by line. The run is the same as with [`run`].
#[must_use]
pub fn run_traced(seed: u64, listener: Listener<'_>) -> Report {
    run_with(seed, None, Some(listener))
}

/// Runs one seed with a bug planted, to see that it is found.
#[must_use]
pub fn run_with_bug(seed: u64, bug: PlantedBug) -> Report {
    run_with(seed, Some(bug), None)
}

fn run_with(seed: u64, bug: Option<PlantedBug>, listener: Option<Listener<'_>>) -> Report {
    let mut simulation = Simulation::new(seed, bug, Trace::new(listener));
    // A broken invariant of the core is a panic. The simulation is only looked at afterwards.
    let outcome = catch_unwind(AssertUnwindSafe(|| simulation.run()))
        .unwrap_or_else(|panic| Err(Violation::new("no panics", panic_message(panic.as_ref()))));
    Report {
        seed,
        trace_hash: simulation.trace_hash(),
        verdict: outcome.map_or_else(Verdict::Failed, |()| Verdict::Passed),
        totals: simulation.totals,
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

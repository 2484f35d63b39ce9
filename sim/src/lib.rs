//! A deterministic simulator of whole clusters.
//!
//! It runs the structs that `kv-server` runs, a cluster of them in one thread: the driver around the consensus
//! core, group commit, the apply loop with its snapshots, the state machine with its sessions, waiting requests,
//! snapshot transfers. Storage is the in-memory twin. Network, disks and clocks are simulated: time is a queue of
//! events. One 64-bit seed decides everything, so a run that fails is replayed by its number.
//!
//! A run has two phases. In the first, things go wrong; which of them, and how often, the seed decides, so that
//! runs differ in kind. Messages are lost, repeated and overtaken. Links are cut in one direction or both, for a
//! side or so that a chain, a ring or a star is left; connections break, also in the middle of a snapshot. Nodes
//! crash at any time and in the middle of their writes, stand still, and have clocks that run fast or slow. Disks
//! are slow, stall, fail (the node stops), flip bits (a node that finds one in its log, its hard state or the
//! snapshot that it needs refuses to start), are lost whole, and are put back as they were earlier. Such nodes do
//! not count: they are turned away by the others until an operator lets them join anew. Appliers are slow, leaders
//! are asked to hand over. In some runs leaders are left by the others while some of their clients stay with them
//! and read. Some runs are quiet: faults and clients are rare in them, and minutes pass. Clients put, append, delete,
//! get and scan, retry as [`clerk`] does, crash and come back with their session, and are cut off. They read by a round
//! of heartbeats, at followers, through the log, and in some runs on the leader's lease, with clocks within what leases
//! allow for. In the second phase, everything works: within ten election timeouts an operation must be done, and soon
//! after all nodes must have the same state and every waiter its answer.
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
//! | a leader only appends to its log | `invariants/leader_append_only.rs` |
//! | a server votes once in a term, whatever happens to it | `invariants/one_vote.rs` |
//! | a leader commits by counting only what is of its own term | `invariants/commit_rule.rs` |
//! | logs with an equal entry are equal up to there | `invariants/log_matching.rs` |
//! | a leader has all that was committed before its term | `invariants/leader_completeness.rs` |
//! | a node applies what is committed, index after index, and nothing else | `invariants/applied_in_order.rs` |
//! | the same entries and the same state at the same index, everywhere | `invariants/state_machine_safety.rs` |
//! | what is committed is on the disks of a majority that counts, and no disk loses it | `invariants/committed_never_lost.rs` |
//! | a snapshot names the members of the log before it | `invariants/configuration_lineage.rs` |
//! | votes, matched logs and installed snapshots that leave a node are on its disk | `invariants/durable_promises.rs` |
//! | an append takes effect at most once, an acknowledged one exactly once, in its client's order | `invariants/exactly_once.rs` |
//! | a read sees what was acknowledged or read before it began | `invariants/fresh_reads.rs` |
//! | at the end: what the clients saw is linearizable | `invariants/linearizable.rs` |
//! | at the end: the cluster goes on, agrees, and owes nobody an answer | `ending.rs` |
//!
//! The assertions of the core and the refusals of the storage count too: a panic or an error ends the run. So does a
//! node that refuses to start though its disk is whole, or is turned away though it has what it had.
//!
//! # Scenarios
//!
//! [`cluster`] is the same simulation with a test in the place of chance: see `tests/course` and
//! `tests/scenarios`.
//!
//! # How fast it is
//!
//! Of quiet runs, some thousand simulated seconds a second on two cores; of the others several hundred, for in a second of
//! theirs there are hundreds of messages and dozens of operations, and all of the above is checked after each of them:
//! `docs/results.md` tells what was measured. The processor's time is spread thin: consensus core, state machine, storage
//! and oracles have a few per cent each.
//!
//! # What it does not do
//!
//! It does not run the actors, sled or sockets: tests of `kv-server`, `storage` and `deploy` do that. Its disks
//! keep records and not bytes. A crash keeps a beginning of what was not synced, in whole batches, because that is
//! what the journal makes of any crash: that writes which are torn, reordered or lost in part come to no more is what
//! the crash points of `storage` show, a step at a time. Only to flip a bit of them the records are laid out as the
//! bytes that the real storage would write, and read back by its checks; sled's own files and the journal are damaged
//! by tests of `storage`. Disks do not fill. More disks than the rules bear are never lost at once: a majority that
//! counts is always left. The members never change. Clocks run fast or slow and never jump. Two clients at most
//! write in one session at the same time. Scans are of few keys, so that they come in one page.
//!
//! What its last long run showed is in `docs/results.md`, what it found in `docs/findings.md`, and what it catches, if the
//! rules are broken on purpose, in `docs/mutants.md`.
#![forbid(unsafe_code)]

mod client;
mod clock;
pub mod cluster;
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
mod read_indexes;
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
    let mut totals = simulation.totals;
    if simulation.scenario.is_quiet {
        totals.quiet_us = totals.simulated_us;
    }
    Report {
        seed,
        trace_hash: simulation.trace_hash(),
        verdict: outcome.map_or_else(Verdict::Failed, |()| Verdict::Passed),
        totals,
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

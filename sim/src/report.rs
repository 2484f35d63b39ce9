//! What a run, or many runs, came to.

use std::ops::AddAssign;

use crate::faults::FaultCounts;
use crate::invariants::Violation;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every invariant held, and the healed cluster made progress and agreed.
    Passed,
    /// This did not hold.
    Failed(Violation),
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed that decided everything.
    pub seed: u64,
    /// A hash over all that happened: the same for the same seed and release, in any process.
    pub trace_hash: u64,
    /// How it ended.
    pub verdict: Verdict,
    /// What happened in it.
    pub totals: Totals,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Virtual time, in microseconds.
    pub simulated_us: u64,
    /// So much of it was in runs in which little happens for long.
    pub quiet_us: u64,
    /// Messages that nodes sent each other, answers included.
    pub messages: u64,
    /// Calls between nodes that were lost, by whatever fault.
    pub drops: u64,
    /// Faults of each kind.
    pub faults: FaultCounts,
    /// Nodes that refused to start from a damaged disk.
    pub refusals: u64,
    /// Nodes that stopped because the cluster knows them by other data than they had.
    pub turned_away: u64,
    /// Nodes that were registered by a new store, and counted from then on.
    pub admitted: u64,
    /// Elections won.
    pub elections: u64,
    /// Snapshots that nodes cut.
    pub snapshots_cut: u64,
    /// Snapshots that were sent and installed.
    pub snapshots_installed: u64,
    /// Entries that leaders had no longer in memory and read back from their disks.
    pub entries_read_back: u64,
    /// Operations of clients that were done and acknowledged.
    pub operations: u64,
    /// Promises that were compared with the disk, in runs that passed.
    pub promises: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.simulated_us += other.simulated_us;
        self.quiet_us += other.quiet_us;
        self.messages += other.messages;
        self.drops += other.drops;
        self.faults += other.faults;
        self.refusals += other.refusals;
        self.turned_away += other.turned_away;
        self.admitted += other.admitted;
        self.elections += other.elections;
        self.snapshots_cut += other.snapshots_cut;
        self.snapshots_installed += other.snapshots_installed;
        self.entries_read_back += other.entries_read_back;
        self.operations += other.operations;
        self.promises += other.promises;
    }
}

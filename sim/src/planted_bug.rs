//! Bugs that the simulator can plant on purpose, to show that its invariants catch them.

/// A fault in the wiring around the consensus core. For the simulator's own tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Nodes believe a write to be durable as soon as it is queued, so promises leave before it is.
    PromiseBeforePersist,
    /// A client retries under a new sequence number, so the servers cannot know the write again.
    RetryAsNewWrite,
    /// Servers answer reads from what they have, whoever leads.
    ReadWithoutReadIndex,
    /// A node that crashes comes back with an empty disk, and has forgotten its votes and its log.
    LoseDiskInCrash,
    /// A node whose disk is lost comes back under the number of the lost store, so that it counts as before.
    LostDiskCounts,
}

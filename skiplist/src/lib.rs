//! Skip list.
mod arena;
mod batch;
mod block;
mod dump;
mod edit;
mod epoch;
mod heights;
mod history;
/// Iterators.
pub mod iter;
mod list;
mod load;
mod page;
mod search;
mod shared;
mod snapshot;
mod versioned;

pub use batch::WriteBatch;
pub use dump::Dump;
pub use list::{ListStats, SkipList};
pub use load::LoadError;
pub use shared::{SharedSkipList, SharedStats};
pub use snapshot::{Snapshot, SnapshotIter};

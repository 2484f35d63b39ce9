//! An ordered map on a skip list, in safe Rust: one for a single owner, and one for many threads that can be read at a
//! point in time while writes go on.
//!
//! - [`SkipList`] is the plain map: insert, get, remove, ordered ranges, dump and load.
//! - [`SharedSkipList`] is a handle to a list that many threads use. Its [`snapshot`](SharedSkipList::snapshot) takes
//!   constant time and shows one moment for as long as it is kept: for a long scan, a backup, or a reader that must
//!   see all of its answers from the same moment.
//!
//! ```
//! use skiplist::SharedSkipList;
//!
//! let accounts = SharedSkipList::new();
//! accounts.insert("alice", 70);
//! accounts.insert("bob", 30);
//!
//! // Both changes or none, for every reader.
//! let before = accounts.snapshot();
//! accounts.write(|batch| {
//!     batch.insert("alice", 20);
//!     batch.insert("bob", 80);
//! });
//!
//! assert_eq!(accounts.get("bob"), Some(80));
//! assert!(before.iter().eq([("alice", 70), ("bob", 30)]));
//! assert_eq!(before.range("b"..).map(|(_, amount)| amount).sum::<i32>(), 30);
//! ```
//!
//! # How the list is built
//!
//! A skip list (W. Pugh, *Skip Lists: A Probabilistic Alternative to Balanced Trees*, 1990) is a linked list with express
//! lanes: each node carries a tower of links, one for each level that it takes part in. A node reaches the next
//! level with probability 1/4, so a level holds a quarter of the nodes of the level below. A search starts on the top
//! level, goes forward as far as it may, and descends: O(log n) expected steps, with no rebalancing ever.
//!
//! With one entry a node, each of those steps would wait for main memory twice, once for the node and once for the
//! key that it points to. So this list is *unrolled*, twice:
//!
//! ```text
//! level 1   head ────────────────────────────► node ─────────────► end
//! level 0   head ─────────► node ────────────► node ─────────────► end
//!            │               │                  │
//! pages     block │ block   block │ block │ …  block │ block        up to 64 blocks, with fences between them
//! blocks    a b c │ f g     k l m │ p q   │    x y   │ z            up to 64 entries, keys and values
//! ```
//!
//! A node holds a page of blocks, a block holds sorted entries. A *fence* (the lower bound of a node or block, a copy of
//! a key) stands beside the links and between the blocks. A million entries make a few hundred nodes, so the walk over
//! towers stays in the cache. The two short runs that remain to be searched, fences and keys, are searched so that the
//! processor waits for several keys at once. A full block or page splits in two, one that has run low merges with
//! a neighbour, so memory stays in proportion to the entries. Nodes lie in one vector (the arena) and link to each
//! other by number; slots are used again.
//!
//! Heights come from a seeded generator: the same seed and the same calls build the same list.
//!
//! # Snapshots
//!
//! The list itself knows no versions. Beside it lies a *history*, a skip list too: the first write to a key after
//! a snapshot was taken puts the value that the snapshot sees there. A snapshot looks into the history first; what it
//! does not find there has not changed since, and is in the list.
//!
//! - While no snapshot is alive, a write does nothing for them but look whether there is one.
//! - While one is alive, the first write to each key costs about two more insertions, and the old value is kept.
//! - A snapshot's iterator copies some hundred entries at a time under the lock, and holds no lock in between.
//! - When a snapshot is dropped, what nobody else sees is reclaimed in small steps: some by the drop, four old versions
//!   by each later write. No call ever waits for all of it. [`SharedSkipList::reclaim`] does it at once if wanted.
//!
//! # What it does not do
//!
//! - Writers do not run beside each other or beside readers of the present: the lock is one [`std::sync::RwLock`].
//!   (For many writers at once see `crossbeam-skiplist`; it has no snapshots and no batches.)
//! - Iterators go forward only.
//! - Snapshots live in memory. What shall survive the process is to be written out: lists, [`Dump`]s and snapshots
//!   are [`serde::Serialize`].
#![forbid(unsafe_code)]

mod arena;
mod batch;
mod block;
mod dump;
mod edit;
mod epoch;
mod heights;
mod history;
#[cfg(test)]
mod invariants;
pub mod iter;
mod list;
mod load;
mod page;
mod search;
mod shared;
mod snapshot;
mod sorted;
mod versioned;

pub use batch::WriteBatch;
pub use dump::Dump;
pub use list::{ListStats, SkipList};
pub use load::LoadError;
pub use shared::{SharedSkipList, SharedStats};
pub use snapshot::{Snapshot, SnapshotIter};

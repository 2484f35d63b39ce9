//! Durable storage for Raft (front page follows).
#![forbid(unsafe_code)]

mod changes;
mod codec;
pub mod conformance;
mod directory;
mod durability;
mod error;
mod hard_state;
mod high_water;
mod memory;
mod panics;
mod record;
mod restore;
mod rules;
mod sealed;
mod sled_storage;
mod snapshot_file;

pub use error::StorageError;
pub use hard_state::Identity;
pub use memory::{MemoryDisk, MemoryStorage, WriteFault};
pub use sled_storage::{Options, SledStorage};
pub use snapshot_file::{
    CHUNK_BYTES, FileSnapshots, MemorySnapshots, SnapshotReader, SnapshotStore, SnapshotWriter, StagedVerdict,
};

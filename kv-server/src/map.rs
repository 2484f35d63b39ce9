//! The key-value map that the state machine changes and readers share.

use bytes::Bytes;
use raft_core::LogIndex;
use rpc::client::Found;
use skiplist::{SharedSkipList, SkipList, Snapshot, WriteBatch};

/// A value and the log index of the write that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versioned {
    pub(crate) value: Bytes,
    pub(crate) version: LogIndex,
}

pub(crate) type SharedMap = SharedSkipList<Bytes, Versioned>;
pub(crate) type List = SkipList<Bytes, Versioned>;
pub(crate) type Batch<'a> = WriteBatch<'a, Bytes, Versioned>;
pub(crate) type MapSnapshot = Snapshot<Bytes, Versioned>;

impl Versioned {
    pub(crate) fn to_found(&self) -> Found {
        Found {
            value: self.value.clone(),
            version: self.version,
        }
    }
}

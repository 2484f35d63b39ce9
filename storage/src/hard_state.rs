//! The small records: hard state, snapshot, identity, and the root that ties all records together.
//!
//! | key | record | written |
//! |---|---|---|
//! | `a/hard-state` | term, vote and standing, one record (Raft figure 2) | when one changes |
//! | `a/identity` | cluster, node and incarnation | once |
//! | `a/root` | which state of the other records belongs together | in every batch |
//! | `a/snapshot` | the latest snapshot | when one is cut or installed |
//! | `l` + index + fragment | the log, see [`record`](crate::record) | |
//!
//! Each record carries a *serial*, a number that is never used twice in a store. The root names the serials
//! of the current hard state, the current snapshot and the last log record; each log record names the one
//! before it. An old but intact record that turns up again (a write that the disk lost, or an old sector that
//! it returned) has a good checksum and the wrong serial.

use raft_core::{HardState, Incarnation, LogIndex, NodeId, SnapshotMeta};
use serde::{Deserialize, Serialize};

use crate::record::MAX_RECORD_BYTES;
use crate::sealed::ENVELOPE_BYTES;

/// The key of the hard state.
pub(crate) const HARD_STATE_KEY: &[u8] = b"a/hard-state";
/// The key of the identity.
pub(crate) const IDENTITY_KEY: &[u8] = b"a/identity";
/// The key of the root.
pub(crate) const ROOT_KEY: &[u8] = b"a/root";
/// The key of the snapshot.
pub(crate) const SNAPSHOT_KEY: &[u8] = b"a/snapshot";

/// The largest small record, in bytes. A configuration of a thousand members is a tenth of it.
pub(crate) const SMALL_RECORD_LIMIT_BYTES: usize = MAX_RECORD_BYTES - ENVELOPE_BYTES;

/// Whose store it is. A directory of another cluster or another node is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster, as its configuration names it.
    pub cluster_id: String,
    /// The node.
    pub node_id: NodeId,
}

/// What the database says about whose it is. The marker says the same, so that a database of another store of
/// the same node is found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) identity: Identity,
    pub(crate) incarnation: Incarnation,
}

/// The hard state with its serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HardStateRecord {
    pub(crate) serial: u64,
    pub(crate) hard_state: HardState,
}

/// The latest snapshot with its serial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub(crate) serial: u64,
    pub(crate) snapshot: SnapshotMeta,
}

/// What belongs together. Rewritten in every batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    /// Counts the batches of this store; the high-water file says which one was acknowledged last.
    pub(crate) batch: u64,
    /// The last serial that was given out.
    pub(crate) last_serial: u64,
    /// The serial of the hard state.
    pub(crate) hard_state_serial: u64,
    /// The serial of the snapshot.
    pub(crate) snapshot_serial: u64,
    /// The first index of the log; one more than `last_index` when the log is empty. Records may hold
    /// entries before it.
    pub(crate) first_index: LogIndex,
    /// The last index of the log.
    pub(crate) last_index: LogIndex,
    /// The serial of the log's last record; 0 when the log is empty.
    pub(crate) last_record_serial: u64,
}

#[cfg(test)]
mod tests {
    use super::{ROOT_KEY, SMALL_RECORD_LIMIT_BYTES};
    use crate::record::MAX_RECORD_BYTES;
    use crate::sealed;

    #[test]
    fn the_largest_small_record_is_as_long_as_the_largest_of_the_log() {
        let sealed = |content_bytes: usize| {
            // The length takes three of them.
            let content = vec![0_u8; content_bytes - 3];
            sealed::seal(ROOT_KEY, &content, SMALL_RECORD_LIMIT_BYTES)
        };
        assert_eq!(sealed(SMALL_RECORD_LIMIT_BYTES).unwrap().len(), MAX_RECORD_BYTES);
        assert!(sealed(SMALL_RECORD_LIMIT_BYTES + 1).is_err());
    }
}

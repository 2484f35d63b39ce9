//! The bounds inside one server that nobody needs to tune.

/// Messages that may wait for the Raft node before clients and peers are told that it is busy.
pub(crate) const RAFT_NODE_MAILBOX: usize = 16_384;
/// Requests that may wait for the KV server before clients are told that it is busy.
pub(crate) const KV_SERVER_INTAKE: usize = 16_384;

//! Raft as a pure state machine (front page follows).
#![forbid(unsafe_code)]

mod configuration;
mod message;
mod storage;
mod types;

pub use configuration::Configuration;
pub use message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Envelope, InstallSnapshot, InstallSnapshotResponse, Message,
    SnapshotOutcome, TimeoutNow, TimeoutNowResponse, VoteRequest, VoteResponse,
};
pub use storage::{Restored, Storage, Write};
pub use types::{
    CallId, Entry, HardState, LogIndex, NodeId, Payload, ReadId, ReadyNumber, Role, SnapshotMeta, Term, Ticks,
};

//! Raft as a pure state machine (front page follows).
#![forbid(unsafe_code)]

mod candidate;
mod config;
mod configuration;
mod event;
mod follower;
mod leader;
mod log;
mod message;
mod node;
mod progress;
mod read_index;
mod ready;
mod storage;
mod types;

pub use config::{Config, ConfigError};
pub use configuration::Configuration;
pub use event::{Event, StepDownReason, VoteRefusal};
pub use message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Envelope, InstallSnapshot, InstallSnapshotResponse,
    Message, SnapshotOutcome, TimeoutNow, TimeoutNowResponse, VoteRequest, VoteResponse,
};
pub use node::{Node, ProposeError, Status};
pub use progress::ProgressState;
pub use read_index::ReadOutcome;
pub use ready::{Ready, SnapshotChunk, SnapshotToSend, SoftState};
pub use storage::{Restored, Storage, Write};
pub use types::{
    CallId, Entry, HardState, LogIndex, NodeId, Payload, ReadId, ReadyNumber, Role, SnapshotMeta, Term, Ticks,
};

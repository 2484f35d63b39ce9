//! The replicated key-value server (front page follows).
#![forbid(unsafe_code)]

mod codec;
pub mod command;
mod map;
pub mod pending;
pub mod sessions;
pub mod state_machine;
pub mod state_reader;
pub mod state_snapshot;

//! The replicated key-value server (front page follows).
#![forbid(unsafe_code)]

pub mod cli;
mod codec;
pub mod command;
pub mod config;
pub mod logging;
mod map;
pub mod pending;
pub mod sessions;
pub mod state_machine;
pub mod state_reader;
pub mod state_snapshot;

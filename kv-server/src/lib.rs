//! The replicated key-value server (front page follows).
#![forbid(unsafe_code)]

mod actors;
pub mod cli;
mod client_service;
mod codec;
pub mod command;
pub mod config;
pub mod driver;
mod exit;
pub mod group_commit;
mod limits;
pub mod logging;
mod map;
mod peer_service;
pub mod pending;
pub mod replication;
mod run;
mod server;
mod server_error;
pub mod sessions;
mod shutdown;
pub mod state_machine;
pub mod state_reader;
pub mod state_snapshot;

pub use run::run;

//! The wire contract (front page follows).
#![forbid(unsafe_code)]

pub mod client;
pub mod limits;
pub mod peer;

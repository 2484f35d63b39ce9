//! The stores from outside, in one program: the long suites run beside each other, and it is built once.
//!
//! Two are programs of their own: `memory.rs` counts what its process allocates, and `failing_disk.rs` starts
//! processes. Until such a process runs its program it has all locks that are held at that moment, and a
//! store that another test closes and opens again would find itself in use.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod conformance;
mod crash;
mod crash_points;
mod damage;
mod damage_table;
mod inspect;
mod journal;
mod model;
mod refusals;
mod scripted;

//! The clerk against a fake cluster on real sockets: the library, the blocking clerk, the program.
#![allow(
    clippy::unwrap_used,
    reason = "a panic in a test's helper is the test's failure"
)]

mod fake;
mod library;
#[cfg(feature = "cli")]
mod program;

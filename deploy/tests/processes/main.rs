//! `deploy` with real processes. Every wait has a deadline, and every process that a test starts ends with it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say so and fail"
)]

mod bench;
mod demo;
mod deploy_process;
mod torture;
mod up;

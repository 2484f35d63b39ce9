//! The `kv-server` program as its users meet it: real processes, real ports, a real disk.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that is not as expected"
)]

mod full_disk;
mod inspect;
mod lost_disk;
mod refusals;
mod serving;
mod support;

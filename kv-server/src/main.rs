//! The `kv-server` program: see `kv-server --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Chosen by measurement: see `docs/profile.md`.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kv_server::run(std::env::args_os())
}

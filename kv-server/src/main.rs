//! The `kv-server` program: see `kv-server --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    kv_server::run(std::env::args_os())
}

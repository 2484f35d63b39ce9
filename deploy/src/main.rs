//! Runs clusters of `kv-server` on this machine: a demonstration of a failover, a cluster to try things on, and one
//! that is tormented to see that it keeps its promises.
//!
//! Every node is a process of its own. The program needs no other file to start them: it can be a node
//! itself, through the entry point that `kv-server` has.
#![forbid(unsafe_code)]

mod arguments;
mod bench;
mod cluster_file;
mod demo;
mod directory;
mod error;
mod local;
mod made;
mod node;
mod node_process;
mod observe;
mod ports;
mod report;
mod signals;
mod torture;
mod up;

use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::Builder;

use crate::arguments::{Arguments, Command};
use crate::error::Error;
use crate::report::Reporter;

/// The exit status when all is well.
const DONE: u8 = 0;
/// The exit status when a check did not hold.
pub(crate) const CHECK_FAILED: u8 = 1;

/// The nodes that this program can be have the allocator that `kv-server` has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let reporter = Reporter::new(arguments.output);
    let outcome = match arguments.command {
        Command::Demo => run(demo::run(reporter)),
        Command::Bench(bench) => run_on(&mut clerk::load::runtime(), async move {
            bench::run(&bench, reporter).await.map(|()| true)
        }),
        Command::Up(up) => run(async move { up::run(&up, reporter).await.map(|()| true) }),
        Command::Torture(torture) => run(async move { torture::run(&torture, reporter).await }),
        Command::Node(node) => return node::run(node),
        Command::Echo(echo) => return bench::echo::run(&echo),
        #[cfg(feature = "etcd")]
        Command::Guard(guard) => return bench::guard::run(&guard),
    };
    let status = match outcome {
        Ok(true) => DONE,
        Ok(false) => CHECK_FAILED,
        Err(error) => {
            // Nothing is left to be done if stderr is closed.
            let _ = write!(std::io::stderr(), "{}", error.report());
            error.exit_status()
        }
    };
    ExitCode::from(report::exit_status(status))
}

/// Runs a command to its end; `Ok(false)` means that a check did not hold.
fn run(command: impl Future<Output = Result<bool, Error>>) -> Result<bool, Error> {
    run_on(&mut Builder::new_multi_thread(), command)
}

/// The same, on a runtime of this kind.
fn run_on(runtime: &mut Builder, command: impl Future<Output = Result<bool, Error>>) -> Result<bool, Error> {
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(Error::system("start the asynchronous runtime"))?;
    runtime.block_on(command)
}

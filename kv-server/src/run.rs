//! The program: arguments in, exit status out.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use crate::cli::Cli;
use crate::config::Config;
use crate::descriptors::ConnectionRoom;
use crate::{exit, inspect, logging, server};

/// Runs `kv-server` with these arguments, the first being the program's name, until it is told to stop.
///
/// Everything the user can do wrong is told on stderr as `error: ...`; the exit status is 0 for an orderly
/// stop, 2 for arguments, a configuration or a data directory that cannot be used, and 3 for a failure while
/// it ran. `kv-server inspect` looks into the data directory of a stopped node: 1 means damage.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|first| first == inspect::COMMAND) {
        return inspect::run(&args);
    }
    let cli = match Cli::read(&args) {
        Ok(cli) => cli,
        Err(error) => return print_usage(&error),
    };
    let config = match Config::load(&cli) {
        Ok(config) => config,
        Err(error) => return refuse(&error, exit::UNUSABLE),
    };
    if let Err(error) = logging::check(&cli.log) {
        return refuse(&error, exit::UNUSABLE);
    }
    if cli.check {
        return check(&cli, &config);
    }
    if let Err(error) = logging::init(&cli.log, config.id) {
        return refuse(&error, exit::UNUSABLE);
    }
    let room = match ConnectionRoom::secure(&config) {
        Ok(room) => room,
        Err(error) => return refuse(&error, exit::FAILED),
    };
    let join = config.join_command();
    // As a task of its own: what a system blocks on is polled whenever anything on its thread is.
    let served =
        actix_rt::System::new().block_on(async { actix_rt::spawn(server::serve(config, room)).await });
    match served.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => refuse(&error.told_to_starter(&join), error.exit_code()),
    }
}

/// What can be told without touching the data directory or the ports.
fn check(cli: &Cli, config: &Config) -> ExitCode {
    if let Err(error) = ConnectionRoom::secure(config) {
        return refuse(&error, exit::FAILED);
    }
    let file = cli.config.display();
    let report = format!("{file}: ok for node {} of {}\n", config.id, config.nodes.len());
    match std::io::stdout().write_all(report.as_bytes()) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(_) => ExitCode::from(exit::FAILED),
    }
}

/// Prints help, or what is wrong with the arguments; the exit status for it.
pub(crate) fn print_usage(error: &clap::Error) -> ExitCode {
    // A reader that went away is no reason to complain.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() {
        exit::UNUSABLE
    } else {
        exit::OK
    })
}

pub(crate) fn refuse(error: &impl Display, status: u8) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(status)
}

//! The `clerk` command line: reads and writes a cluster, shows its status, moves data, measures.
#![forbid(unsafe_code)]

mod arguments;
mod bench;
mod commands;
mod duration;
mod failure;
mod import_line;
mod interrupt;
mod output;
mod transfer;

use std::io::Write;
use std::process::ExitCode;

use arguments::{Arguments, Command, Format};
use clap::{CommandFactory, Parser};
use clerk::{Clerk, ReadFrom, load};
use failure::{Failure, Status};
use tokio::runtime;

/// The allocator that the servers have, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Help, the version, or what is wrong. Where it cannot be printed, the status says it still.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(Status::Usage as u8));
        }
    };
    match run(arguments) {
        Ok(status) => status.into(),
        Err(failure) => failure.report(),
    }
}

fn run(arguments: Arguments) -> Result<Status, Failure> {
    if let Command::Completions { shell } = arguments.command {
        return completions(shell);
    }
    let runtime = match arguments.command {
        Command::Bench(_) => load::runtime(),
        _ => runtime::Builder::new_current_thread(),
    }
    .enable_all()
    .build()
    .map_err(|error| Failure::not_done(format!("the async runtime did not start: {error}")))?;
    let status = runtime.block_on(dispatch(arguments));
    // A read of stdin that is still under way must not hold the process.
    runtime.shutdown_background();
    status
}

async fn dispatch(arguments: Arguments) -> Result<Status, Failure> {
    let Arguments {
        endpoints,
        timeout,
        spread_reads,
        output: format,
        command,
        ..
    } = arguments;
    let read_from = if spread_reads {
        ReadFrom::Any
    } else {
        ReadFrom::Leader
    };
    let settings = Clerk::builder()
        .endpoints(&endpoints)
        .timeout(timeout)
        .read_from(read_from);
    let built = settings.clone().build();
    let clerk = built.map_err(|error| blame_the_variable(error.into()))?;
    match command {
        Command::Put { key, value } => commands::put(&clerk, format, key, value).await,
        Command::Append { key, value } => commands::append(&clerk, format, key, value).await,
        Command::Get {
            key,
            consistency,
            raw,
        } => commands::get(&clerk, format, key, consistency.into(), raw).await,
        Command::Delete { key } => commands::delete(&clerk, format, key).await,
        Command::Scan(range) => commands::scan(&clerk, format, range).await,
        Command::Status => commands::status(&clerk, format).await,
        Command::Import { file } => transfer::import(&clerk, format, &file).await,
        Command::Export { prefix, file } => transfer::export(&clerk, format, prefix, &file).await,
        Command::Bench(load) => bench::run(settings, format, spread_reads, load).await,
        Command::Completions { shell } => completions(shell),
    }
}

/// Names the variable where the endpoints came from there: the flag, which errors else mean, was not given.
fn blame_the_variable(failure: Failure) -> Failure {
    const VARIABLE: &str = "CLERK_ENDPOINTS";
    let is_the_flag = |word: std::ffi::OsString| {
        let word = word.to_string_lossy();
        word.split('=').next() == Some("--endpoints")
    };
    if std::env::var_os(VARIABLE).is_none() || std::env::args_os().any(is_the_flag) {
        return failure;
    }
    failure.at(VARIABLE)
}

fn completions(shell: clap_complete::Shell) -> Result<Status, Failure> {
    // Into memory first: the generator panics when its output is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "clerk", &mut script);
    let mut stdout = output::stdout();
    stdout.write_all(&script)?;
    stdout.flush()?;
    Ok(Status::Done)
}

/// Whether the output is to be JSON.
fn is_json(format: Format) -> bool {
    format == Format::Json
}

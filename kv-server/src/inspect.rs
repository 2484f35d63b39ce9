//! `kv-server inspect`: looks into the data directory of a stopped node.

mod json;
mod text;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use raft_core::{Entry, Payload};
use storage::StorageError;
use storage::inspect::{Inspection, Workspace};

use crate::command::{Command, Operation};
use crate::exit;
use crate::run::{print_usage, refuse};
use crate::server::Signals;

/// The first argument that asks for this.
pub(crate) const COMMAND: &str = "inspect";

const EXAMPLES: &str = "\
Examples:
  kv-server inspect --data-dir data/node-1
  kv-server inspect --data-dir data/node-1 --entries
  kv-server inspect --data-dir data/node-1 --output json | jq .problems

Exit status: 0 whole, 1 damaged, 2 wrong usage or a directory that cannot be looked into (one in use, say), 3 not done.

Nothing in the directory is changed. The database is read from a private copy in the directory for temporary files
(TMPDIR), which is removed again. Symbolic links are followed.";

/// Look into the data directory of a stopped node, without changing it: whose it is, term and vote, snapshot, log,
/// and of every record whether it is what was written.
#[derive(Clone, Debug, Parser)]
#[command(name = "kv-server inspect", bin_name = "kv-server inspect", version, after_help = EXAMPLES)]
struct Arguments {
    /// The directory
    #[arg(long, env = "KV_SERVER_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// How to print what is found
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// Print the entries of the log, too: their keys and sizes, never values
    #[arg(long)]
    entries: bool,
}

/// How to print what is found.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// One entry of the log, as it may be shown.
#[derive(Debug, PartialEq, Eq)]
struct Shown<'a> {
    entry: &'a Entry,
    kind: &'static str,
    key: Option<bytes::Bytes>,
    value_bytes: Option<usize>,
}

/// Runs `kv-server inspect ...`.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let arguments = match Arguments::try_parse_from(&args[1..]) {
        Ok(arguments) => arguments,
        Err(error) => return print_usage(&error),
    };
    match actix_rt::System::new().block_on(look(arguments.data_dir.clone())) {
        Ok(found) => report(&arguments, &found),
        Err(status) => status,
    }
}

/// Looks on a thread of its own, so that a signal can end it at any time; the copy goes in any case.
async fn look(dir: PathBuf) -> Result<Inspection, ExitCode> {
    let mut signals = Signals::install().map_err(|error| refuse(&error, exit::FAILED))?;
    let workspace = Workspace::create(&std::env::temp_dir()).map_err(|error| not_copied(&error))?;
    let workspace = Arc::new(workspace);
    let copy = Arc::clone(&workspace);
    let looking = actix_rt::task::spawn_blocking(move || storage::inspect::inspect(&dir, &copy));
    tokio::select! {
        signal = signals.next() => {
            workspace.remove();
            eprintln!("error: stopped by {signal}");
            std::process::exit(i32::from(exit::FAILED));
        }
        found = looking => match found {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) if is_below(workspace.path(), &error) => Err(not_copied(&error)),
            Ok(Err(error)) => Err(cannot_look(&error)),
            Err(panic) => Err(refuse(&format!("looking failed: {panic}"), exit::FAILED)),
        }
    }
}

const NAME_IT: &str = "name the directory that data_dir in the cluster file stands for";

fn cannot_look(error: &StorageError) -> ExitCode {
    match error {
        StorageError::InUse { path } => refuse(
            &format!(
                "{} is in use by a running node\nstop the node first, or look into a copy",
                path.display()
            ),
            exit::UNUSABLE,
        ),
        StorageError::NotAStore {
            path,
            found_nothing_of,
        } => refuse(
            &format!(
                "{} is not a data directory: it has no file {found_nothing_of}\n{NAME_IT}",
                path.display()
            ),
            exit::UNUSABLE,
        ),
        StorageError::Io {
            action: "find",
            path,
            source,
        } => refuse(
            &format!("{}: {source}\n{NAME_IT}", path.display()),
            exit::UNUSABLE,
        ),
        StorageError::NotADirectory { path } => refuse(
            &format!("{} is not a directory\n{NAME_IT}", path.display()),
            exit::UNUSABLE,
        ),
        StorageError::PermissionDenied { .. } => refuse(error, exit::UNUSABLE),
        _ => refuse(error, exit::FAILED),
    }
}

fn is_below(dir: &Path, error: &StorageError) -> bool {
    error.refused_path().is_some_and(|path| path.starts_with(dir))
}

/// The directory for temporary files cannot be used.
fn not_copied(error: &StorageError) -> ExitCode {
    let advice = "set TMPDIR to a directory that can be written to, with room for a copy of the database";
    refuse(&format!("{error}\n{advice}"), exit::FAILED)
}

fn report(arguments: &Arguments, found: &Inspection) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = match arguments.output {
        Output::Text => text::print(&mut out, found, arguments.entries),
        Output::Json => json::print(&mut out, found, arguments.entries),
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => {}
        // Whoever read it has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return refuse(&format!("cannot write to stdout: {error}"), exit::FAILED),
    }
    ExitCode::from(if found.is_whole() { exit::OK } else { exit::NO })
}

impl<'a> Shown<'a> {
    fn of(entry: &'a Entry) -> Self {
        let plain = |kind| (kind, None, None);
        let (kind, key, value_bytes) = match &entry.payload {
            Payload::Noop { .. } => plain("noop"),
            Payload::Configuration(_) => plain("configuration"),
            Payload::Command(encoded) => match Command::decode(encoded) {
                Err(_) => plain("unreadable"),
                Ok(Command::OpenSession { .. }) => plain("open-session"),
                Ok(Command::Get { key }) => ("get", Some(key), None),
                Ok(Command::Write { op, .. }) => {
                    let (kind, value_bytes) = match &op {
                        Operation::Put { .. } => ("put", Some(op.value().len())),
                        Operation::Append { .. } => ("append", Some(op.value().len())),
                        Operation::Delete { .. } => ("delete", None),
                    };
                    (kind, Some(op.key().clone()), value_bytes)
                }
            },
        };
        Self {
            entry,
            kind,
            key,
            value_bytes,
        }
    }
}

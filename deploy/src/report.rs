//! Tells the user what happens, as text or as JSON lines.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::OnceLock;

use clap::ValueEnum;
use serde::Serialize;
use tokio::sync::Notify;

use crate::error::NOT_DONE;

/// Set once stdout has failed to take something.
static NOT_TOLD: OnceLock<()> = OnceLock::new();
/// Told when whoever read stdout is found to be gone.
static READER_WENT_AWAY: Notify = Notify::const_new();

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Prints events on stdout as they happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter {
    format: Format,
}

impl Reporter {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints one event.
    ///
    /// One that cannot be written is no reason to stop: the cluster that the events are about goes on. It is told on
    /// stderr, once, and in the exit status; see [`exit_status`]. A reader that went away has seen what it wanted: that
    /// is no failure, and [`reader_went_away`] tells a command that works for its output alone.
    pub(crate) fn tell(self, event: &(impl Display + Serialize)) {
        let line = match self.format {
            Format::Text => event.to_string(),
            Format::Json => to_json(event),
        };
        let mut stdout = std::io::stdout().lock();
        if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
            give_up(&error);
        }
    }
}

fn give_up(error: &io::Error) {
    if error.kind() == io::ErrorKind::BrokenPipe {
        READER_WENT_AWAY.notify_one();
    } else if NOT_TOLD.set(()).is_ok() {
        // Nothing is left to be done if stderr is closed.
        let _ = writeln!(
            io::stderr(),
            "error: the output could not be written: {error}\n  \
             the command goes on, and ends with exit status {NOT_DONE} if nothing else fails"
        );
    }
}

/// Waits until something could not be told because nobody reads any more.
pub(crate) async fn reader_went_away() {
    READER_WENT_AWAY.notified().await;
}

/// The exit status of a command whose work itself would end with `status`: it is not done when not all of what came of
/// it could be told.
pub(crate) fn exit_status(status: u8) -> u8 {
    match NOT_TOLD.get() {
        Some(_) if status == 0 => NOT_DONE,
        _ => status,
    }
}

fn to_json(event: &impl Serialize) -> String {
    serde_json::to_string(event)
        .expect("events are plain structs with string keys, which JSON can always hold")
}

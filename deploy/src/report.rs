//! Tells the user what happens, as text or as JSON lines.

use std::fmt::Display;
use std::io::Write as _;

use clap::ValueEnum;
use serde::Serialize;

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
    /// A reader that went away is no reason to stop: the cluster that the events are about goes on.
    pub(crate) fn tell(self, event: &(impl Display + Serialize)) {
        let line = match self.format {
            Format::Text => event.to_string(),
            Format::Json => to_json(event),
        };
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    }
}

fn to_json(event: &impl Serialize) -> String {
    serde_json::to_string(event)
        .expect("events are plain structs with string keys, which JSON can always hold")
}

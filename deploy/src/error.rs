//! What can go wrong, and the exit status it ends in.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::CHECK_FAILED;

/// The exit status for wrong usage or configuration.
const WRONG_USAGE: u8 = 2;
/// The exit status for what was not done.
pub(crate) const NOT_DONE: u8 = 3;

/// Why a command did not do its work. The message says what is wrong and, on further lines, what to do.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// An argument or a file asks for what cannot be.
    #[error("{problem}\n{remedy}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// kv-server refused the configuration.
    #[error("{}: the configuration is refused\n{refusal}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What kv-server said.
        refusal: String,
    },
    /// kv-server would not run here, whatever the configuration.
    #[error("no node can run here\n{refusal}")]
    NoNodeRuns {
        /// What kv-server said.
        refusal: String,
    },
    /// A port of the cluster is taken.
    #[error(
        "cannot listen on {address} ({purpose} of node {node}): {source}\n\
         stop what uses the port, or choose other ports with --base-port (and --fresh, or another --dir)"
    )]
    Port {
        /// The address.
        address: String,
        /// What it is for.
        purpose: &'static str,
        /// Whose it is.
        node: u64,
        /// Why not.
        source: io::Error,
    },
    /// Another `deploy up` runs in the directory.
    #[error("{} is in use by another `deploy up`\nstop that one, or choose another --dir", dir.display())]
    DirectoryInUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// Why not.
        source: io::Error,
    },
    /// A node ended that should run.
    #[error("node {node} ended unexpectedly ({status}); the end of {}:\n{log_tail}", log.display())]
    NodeEnded {
        /// The node.
        node: u64,
        /// How.
        status: String,
        /// Where it logs.
        log: PathBuf,
        /// What it said last.
        log_tail: String,
    },
    /// A wait was over before what it waited for.
    #[error("waited {waited:?} in vain: {what}")]
    Late {
        /// How long.
        waited: Duration,
        /// For what.
        what: String,
    },
    /// A call to the cluster failed where the command cannot go on without it.
    #[error("{action}: {source}")]
    Clerk {
        /// What was asked.
        action: String,
        /// What came of it.
        source: clerk::Error,
    },
    /// A benchmark cannot go on.
    #[error("{system}: {problem}")]
    Bench {
        /// Whose cluster it was.
        system: &'static str,
        /// What went wrong with it.
        problem: String,
    },
    /// A node ended while its cluster was measured. What was measured is told.
    #[error("{0}\nwhat was measured before, if anything, is told above")]
    EndedWhileMeasured(Box<Error>),
    /// Ctrl-C or a signal to stop.
    #[error("interrupted")]
    Interrupted,
    /// Nobody reads what a command prints, which is all that it works for.
    #[error("nobody reads the output")]
    Unread,
    /// The demo failed; its directory is kept.
    #[error("{source}\nthe nodes' logs and data are kept in {}", dir.display())]
    Kept {
        /// What went wrong.
        source: Box<Error>,
        /// The directory.
        dir: PathBuf,
    },
}

impl Error {
    /// Turns an operating system's refusal to `action` into an error.
    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }

    /// Whether the caller asked for what cannot be, rather than the machine being in the way.
    fn is_usage(&self) -> bool {
        match self {
            Self::Usage { .. } | Self::Configuration { .. } => true,
            Self::Kept { source, .. } => source.is_usage(),
            _ => false,
        }
    }

    /// The exit status: 1 for what did not hold, 2 for wrong usage or configuration, 3 for not done.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::EndedWhileMeasured(_) => CHECK_FAILED,
            _ if self.is_usage() => WRONG_USAGE,
            _ => NOT_DONE,
        }
    }

    /// The lines for stderr: `error: what is wrong`, then what to do.
    pub(crate) fn report(&self) -> String {
        let mut report = String::new();
        for (number, line) in self.to_string().lines().enumerate() {
            let lead = if number == 0 { "error: " } else { "  " };
            // Writing into a String cannot fail.
            let _ = writeln!(report, "{lead}{line}");
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Error {
        Error::Usage {
            problem: "no such thing".into(),
            remedy: "ask for another".into(),
        }
    }

    #[test]
    fn a_report_begins_with_what_is_wrong_and_goes_on_with_what_to_do() {
        assert_eq!(usage().report(), "error: no such thing\n  ask for another\n");
    }

    #[test]
    fn wrong_usage_exits_with_2_and_everything_not_done_with_3() {
        assert_eq!(usage().exit_status(), 2);
        assert_eq!(Error::Interrupted.exit_status(), 3);
        let kept = Error::Kept {
            source: Box::new(usage()),
            dir: "/tmp/x".into(),
        };
        assert_eq!(kept.exit_status(), 2);
    }
}

//! How the program ends, and what it says when it did not do what was asked.

use std::io::{self, Write};
use std::process::ExitCode;

use clerk::{Error, Reason};
use rpc::client::{BusyReason, KvError};

/// The exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Done = 0,
    /// A question was answered with no: the key is not there.
    No = 1,
    /// Wrong usage, or an argument past its limit.
    Usage = 2,
    NotDone = 3,
    Unknown = 4,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Why the program did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What happened, with the status that it ends in and perhaps what to do.
    Told {
        status: Status,
        message: String,
        hint: Option<String>,
    },
    /// Whoever read the output has closed it, which is no mistake.
    OutputClosed,
}

impl Failure {
    pub(crate) fn no(message: impl Into<String>) -> Self {
        Self::told(Status::No, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::told(Status::Usage, message)
    }

    pub(crate) fn not_done(message: impl Into<String>) -> Self {
        Self::told(Status::NotDone, message)
    }

    fn told(status: Status, message: impl Into<String>) -> Self {
        Self::Told {
            status,
            message: message.into(),
            hint: None,
        }
    }

    /// Adds a line on what to do, in place of the usual one.
    pub(crate) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Told { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// The write is done and only the answer could not be printed. The status must not say "not done".
    pub(crate) fn after_the_write(self) -> Self {
        match self {
            Self::Told { message, hint, .. } => Self::Told {
                status: Status::Done,
                message: format!("the write is done, but {message}"),
                hint,
            },
            Self::OutputClosed => Self::OutputClosed,
        }
    }

    /// Says where it happened, in the input for instance.
    pub(crate) fn at(mut self, place: &str) -> Self {
        if let Self::Told { message, .. } = &mut self {
            *message = format!("{place}: {message}");
        }
        self
    }

    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Told { status, .. } => *status,
            Self::OutputClosed => Status::Done,
        }
    }

    /// Prints `error: ...` and the hint, and gives the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        if let Self::Told { message, hint, .. } = self {
            let hint = hint.as_ref().map(|hint| format!("  {hint}\n"));
            let text = format!("error: {message}\n{}", hint.unwrap_or_default());
            // Where stderr is closed, the status says it still.
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
        self.status().into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::InvalidArgument(_) => Status::Usage,
            Error::NotDone { .. } => Status::NotDone,
            Error::OutcomeUnknown { .. } | Error::SessionExpired => Status::Unknown,
        };
        let hint = what_to_do(&error).map(str::to_owned);
        Self::Told {
            status,
            message: error.to_string(),
            hint,
        }
    }
}

/// What to do when nothing is wrong with the request.
pub(crate) fn about_the_cluster(error: &Error) -> Option<&'static str> {
    let Error::NotDone { reason, .. } = error else {
        return None;
    };
    Some(match reason {
        Reason::Unreachable { .. } | Reason::NotConnectedInTime { .. } => {
            "is the cluster running? --endpoints or CLERK_ENDPOINTS name its servers"
        }
        Reason::WrongServer { .. } => {
            "--endpoints or CLERK_ENDPOINTS must name the client ports (client_addr) of servers of this release"
        }
        Reason::TooManyConnections { .. } => {
            "close connections to that server, or raise limits.connections or limits.connections_per_address there"
        }
        Reason::Refused {
            error: KvError::NotLeader { leader: Some(_) },
            ..
        } => "the leader that it names did not serve the call (see clerk status)",
        Reason::Refused {
            error: KvError::NotLeader { leader: None },
            ..
        } => "the cluster has no leader: a majority of its nodes must be up and connected (see clerk status)",
        _ => return None,
    })
}

fn what_to_do(error: &Error) -> Option<&'static str> {
    about_the_cluster(error).or(match error {
        Error::InvalidArgument(_) => None,
        Error::OutcomeUnknown { .. } | Error::SessionExpired => {
            Some("look at the key before you write again: the write may have taken effect")
        }
        Error::NotDone { reason, .. } => Some(match reason {
            Reason::Refused {
                error: KvError::Busy(BusyReason::DiskFull { .. }),
                ..
            } => {
                "nothing was changed: free space on that node's disk, or delete keys; the cluster goes on by itself"
            }
            _ => "nothing was changed: try again, or give it more time with --timeout",
        }),
    })
}

/// Only for writing to stdout; reading maps its errors with the file's name.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::not_done(format!("the output could not be written: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_outcome_has_its_exit_status() {
        let reason = || Reason::NoTime;
        let after = Duration::ZERO;
        let cases = [
            (Error::InvalidArgument(clerk::InvalidArgument::NoEndpoint), 2),
            (
                Error::NotDone {
                    after,
                    reason: reason(),
                },
                3,
            ),
            (
                Error::OutcomeUnknown {
                    after,
                    reason: reason(),
                },
                4,
            ),
            (Error::SessionExpired, 4),
        ];
        for (error, status) in cases {
            assert_eq!(Failure::from(error).status() as u8, status);
        }
    }

    #[test]
    fn a_closed_output_is_no_failure_and_a_full_disk_is() {
        assert_eq!(
            Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).status(),
            Status::Done
        );
        assert_eq!(
            Failure::from(io::Error::from(io::ErrorKind::StorageFull)).status(),
            Status::NotDone
        );
    }
}

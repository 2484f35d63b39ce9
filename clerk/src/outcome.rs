//! What a caller can know when a call did not succeed.

use std::time::Duration;

use rpc::client::KvError;
use thiserror::Error;

/// Why a call did not succeed, told by what is known of its effect.
///
/// ```
/// use clerk::Error;
///
/// fn advice(error: &Error) -> &'static str {
///     match error {
///         Error::InvalidArgument(_) => "mend the argument",
///         Error::NotDone { .. } => "nothing happened: try again when you like",
///         Error::OutcomeUnknown { .. } | Error::SessionExpired => "look before you write again",
///     }
/// }
/// # assert_eq!(advice(&Error::SessionExpired), "look before you write again");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// An argument is outside its limit. Nothing was done, and the same call can never succeed.
    #[error(transparent)]
    InvalidArgument(#[from] InvalidArgument),
    /// The call had no effect and will have none: trying again later is safe.
    #[error("not done{}: {reason}", within(*after))]
    NotDone {
        /// How long the call tried.
        after: Duration,
        /// What the last attempt met.
        reason: Reason,
    },
    /// A write was sent and no definite answer came in time: it took effect once, or not at all, or it still
    /// may take effect until a later write on the same [`Clerk`](crate::Clerk) is acknowledged.
    #[error("outcome unknown after {after:?}: the write was sent, then {reason}")]
    OutcomeUnknown {
        /// How long the call tried.
        after: Duration,
        /// What the last attempt met.
        reason: Reason,
    },
    /// The session ended between two attempts of one write, so nobody can tell any more whether the first
    /// took effect. No attempt will take effect from here on. The next write opens a new session.
    #[error(
        "outcome unknown: the session ended before the write was answered, and an attempt may have taken effect"
    )]
    SessionExpired,
}

impl Error {
    /// Whether it is certain that the call had no effect and never will.
    ///
    /// ```
    /// use clerk::Error;
    /// assert!(!Error::SessionExpired.is_without_effect());
    /// ```
    #[must_use]
    pub fn is_without_effect(&self) -> bool {
        match self {
            Self::InvalidArgument(_) | Self::NotDone { .. } => true,
            Self::OutcomeUnknown { .. } | Self::SessionExpired => false,
        }
    }

    /// What a server cannot tell about the session that was to be opened says nothing of the write, which was
    /// not sent.
    pub(crate) fn of_opening_a_session(self) -> Self {
        match self {
            Self::NotDone {
                after,
                reason:
                    Reason::Refused {
                        endpoint,
                        error: KvError::OutcomeUnknown,
                    },
            } => Self::NotDone {
                after,
                reason: Reason::NoSession { endpoint },
            },
            other => other,
        }
    }
}

/// How long a call tried. One that ended at once is not told to have waited for nothing.
fn within(after: Duration) -> String {
    if after.is_zero() {
        String::new()
    } else {
        format!(" within {after:?}")
    }
}

impl From<rpc::client::InvalidArgument> for Error {
    fn from(argument: rpc::client::InvalidArgument) -> Self {
        Self::InvalidArgument(InvalidArgument::Request(argument))
    }
}

/// Which argument was outside its limit.
///
/// ```
/// use clerk::{Clerk, Error, InvalidArgument};
///
/// let error = Clerk::builder().endpoints(["no port"]).build().unwrap_err();
/// assert!(matches!(error, Error::InvalidArgument(InvalidArgument::Endpoint(_))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidArgument {
    /// A key or a value, by the limits that servers and clients share.
    #[error(transparent)]
    Request(#[from] rpc::client::InvalidArgument),
    /// No endpoint was given.
    #[error("no endpoint: give at least one as host:port")]
    NoEndpoint,
    /// More endpoints than a clerk keeps.
    #[error("{count} endpoints: the limit is {max}", max = crate::directory::MAX_ENDPOINTS)]
    TooManyEndpoints {
        /// How many were given.
        count: usize,
    },
    /// An endpoint that is not `host:port`.
    #[error("the endpoint {0:?} is not host:port, such as 127.0.0.1:7102")]
    Endpoint(String),
    /// A setting of the builder.
    #[error("{setting} {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
}

/// What the last attempt of a call met.
///
/// ```
/// use clerk::{Error, Reason};
///
/// fn is_nobody_there(error: &Error) -> bool {
///     matches!(error, Error::NotDone { reason: Reason::Unreachable { .. }, .. })
/// }
/// # assert!(!is_nobody_there(&Error::SessionExpired));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// No connection: nothing was sent.
    #[error("{problem}")]
    Unreachable {
        /// Whom the attempt wanted.
        endpoint: String,
        /// What the connection attempt met; names the server.
        problem: String,
    },
    /// What answers there is no server that this clerk can use: it speaks another protocol version, it serves
    /// something else at this port, or it is another program. Nothing was sent. A call that meets this at all
    /// its endpoints ends at once.
    #[error("{problem}")]
    WrongServer {
        /// Whom the attempt wanted.
        endpoint: String,
        /// What it is instead; names the server.
        problem: String,
    },
    /// The server takes no more connections, in all or from this address. Nothing was sent.
    #[error("{problem}")]
    TooManyConnections {
        /// Whom the attempt wanted.
        endpoint: String,
        /// What the server said; names it.
        problem: String,
    },
    /// The call's time was up before there was a connection: nothing was sent.
    #[error("no connection to {endpoint} before the time was up")]
    NotConnectedInTime {
        /// Whom the attempt wanted.
        endpoint: String,
    },
    /// The server answered that it did not do it, or does not know.
    #[error("{endpoint} answered: {error}")]
    Refused {
        /// Who answered.
        endpoint: String,
        /// Its answer.
        error: KvError,
    },
    /// Leadership moved while a session was being opened: the write itself was not sent.
    #[error("{endpoint} lost its leadership while it opened a session for the write")]
    NoSession {
        /// Who was asked.
        endpoint: String,
    },
    /// The server was asked and said nothing.
    #[error("{endpoint} gave no answer within {waited:?}")]
    Silent {
        /// Who was asked.
        endpoint: String,
        /// How long the attempt waited.
        waited: Duration,
    },
    /// The connection broke after the request had gone out.
    #[error("the connection to {endpoint} broke: {problem}")]
    ConnectionLost {
        /// Who was asked.
        endpoint: String,
        /// What the connection met.
        problem: String,
    },
    /// A server answered what no server of ours answers.
    #[error("a server's answer makes no sense: {0}")]
    BadAnswer(&'static str),
    /// Too many calls were in flight on this clerk for the whole time.
    #[error("too many calls in flight on this clerk")]
    TooManyInFlight,
    /// Time ran out before the first attempt.
    #[error("no time was left for an attempt")]
    NoTime,
    /// The blocking clerk was called inside an async runtime, which it would stop.
    #[error("clerk::blocking was called inside an async runtime: use clerk::Clerk there, or a plain thread")]
    InsideRuntime,
    /// The background thread of the blocking clerk could not be started or is gone.
    #[error("the blocking clerk's background thread does not run: {0}")]
    NoBackground(String),
}

impl Reason {
    /// Whether this is to be told in the end, and not `before`, which was met earlier: unless it says less.
    pub(crate) fn replaces(&self, before: &Self) -> bool {
        // Where the leader takes no more connections, everyone else only says who leads.
        let only_names_it = self.names_a_leader() && matches!(before, Self::TooManyConnections { .. });
        self.weight() >= before.weight() && !only_names_it
    }

    fn names_a_leader(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                error: KvError::NotLeader { leader: Some(_) },
                ..
            }
        )
    }

    /// How much this says of why a call was not done. The last of the weightiest is told in the end.
    fn weight(&self) -> u8 {
        match self {
            Self::NoTime => 0,
            Self::NotConnectedInTime { .. } => 1,
            Self::Unreachable { .. } => 2,
            Self::WrongServer { .. } => 3,
            _ => 4,
        }
    }
}

//! What clients asked and were told.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets the value.
    Put {
        /// Of this key.
        key: Bytes,
        /// To this.
        value: Bytes,
    },
    /// Adds to the end of the value; a missing key counts as empty.
    Append {
        /// Of this key.
        key: Bytes,
        /// What is added.
        value: Bytes,
    },
    /// Removes the key.
    Delete {
        /// Which.
        key: Bytes,
    },
    /// Reads the value.
    Get {
        /// Of this key.
        key: Bytes,
    },
    /// Reads one page of a range of keys, which is the range at one point in time.
    Scan {
        /// The first key of the range.
        from: Bytes,
        /// The first key behind the range; without it the range has no end.
        to: Option<Bytes>,
    },
}

impl Action {
    /// The key, unless it is a scan.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        match self {
            Self::Put { key, .. } | Self::Append { key, .. } | Self::Delete { key } | Self::Get { key } => {
                Some(key)
            }
            Self::Scan { .. } => None,
        }
    }

    /// Whether it can change anything.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Append { .. } | Self::Delete { .. })
    }

    /// The name that it has in a history file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::Append { .. } => "append",
            Self::Delete { .. } => "delete",
            Self::Get { .. } => "get",
            Self::Scan { .. } => "scan",
        }
    }
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write took effect.
    Done,
    /// A delete took effect, and the key was there before or not.
    Deleted {
        /// Whether it was there.
        existed: bool,
    },
    /// What a get read.
    Value(Option<Bytes>),
    /// What a scan read.
    Page {
        /// Keys and values, in the order of the keys.
        items: Vec<(Bytes, Bytes)>,
        /// The page ended with its last item, and what lies behind it was not read.
        more: bool,
    },
    /// It had no effect, and nothing was read.
    Failed,
    /// It may take effect once at any time after its start, or never; nothing was read.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Whose. It is told, and otherwise of no meaning to the checker.
    pub client: u64,
    /// What was asked.
    pub action: Action,
    /// Before it was sent, in microseconds of a clock that all clients share.
    pub start_us: u64,
    /// After it was answered or given up, on the same clock.
    pub end_us: u64,
    /// What the client was told.
    pub outcome: Outcome,
}

impl Operation {
    /// Whether it took effect for certain, so that it has to be explained.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !matches!(self.outcome, Outcome::Failed | Outcome::Unknown)
    }
}

/// A history cannot be checked as it makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// An operation ended before it began.
    #[error("operation {operation} ended before it started: `start_us` must not be above `end_us`")]
    EndsBeforeItStarts {
        /// Its place in the history, from 1.
        operation: usize,
    },
    /// An operation was told something that is no answer to it.
    #[error("operation {operation}: the outcome is no answer to a {action}")]
    WrongOutcome {
        /// Its place in the history, from 1.
        operation: usize,
        /// What was asked.
        action: &'static str,
    },
    /// A page has keys out of order, twice, or outside the range.
    #[error("operation {operation}: the items of the page are not in order or not in the range")]
    WrongPage {
        /// Its place in the history, from 1.
        operation: usize,
    },
}

/// Operations that make sense, in any order, and what was there before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
    initial: BTreeMap<Bytes, Bytes>,
}

impl History {
    /// A history that begins with an empty map.
    ///
    /// # Errors
    /// An operation makes no sense.
    pub fn new(operations: Vec<Operation>) -> Result<Self, HistoryError> {
        Self::with_initial(BTreeMap::new(), operations)
    }

    /// A history that begins with these keys and values.
    ///
    /// # Errors
    /// An operation makes no sense.
    pub fn with_initial(
        initial: BTreeMap<Bytes, Bytes>,
        operations: Vec<Operation>,
    ) -> Result<Self, HistoryError> {
        for (place, operation) in operations.iter().enumerate() {
            validate(place + 1, operation)?;
        }
        Ok(Self { operations, initial })
    }

    /// The operations, as they were given.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// What was there before the first operation.
    #[must_use]
    pub fn initial(&self) -> &BTreeMap<Bytes, Bytes> {
        &self.initial
    }
}

fn validate(number: usize, operation: &Operation) -> Result<(), HistoryError> {
    if operation.start_us > operation.end_us {
        return Err(HistoryError::EndsBeforeItStarts { operation: number });
    }
    let fits = match (&operation.outcome, &operation.action) {
        (Outcome::Failed | Outcome::Unknown, _) | (Outcome::Deleted { .. }, Action::Delete { .. }) => true,
        (Outcome::Done, action) => action.is_write(),
        (Outcome::Value(_), Action::Get { .. }) => true,
        (Outcome::Page { items, .. }, Action::Scan { from, to }) => {
            if !is_page(items, from, to.as_ref()) {
                return Err(HistoryError::WrongPage { operation: number });
            }
            true
        }
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(HistoryError::WrongOutcome {
            operation: number,
            action: operation.action.name(),
        })
    }
}

fn is_page(items: &[(Bytes, Bytes)], from: &Bytes, to: Option<&Bytes>) -> bool {
    let inside = |key: &Bytes| key >= from && to.is_none_or(|to| key < to);
    items.is_sorted_by(|(left, _), (right, _)| left < right) && items.iter().all(|(key, _)| inside(key))
}

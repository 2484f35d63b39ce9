//! Short ways to write a history down.

use bytes::Bytes;
use sim::linearizability::{Action, History, Limits, Operation, Outcome, Verdict, check};

/// An operation of a client from a start to an end, in microseconds.
#[derive(Clone, Copy)]
pub(crate) struct At(pub(crate) u64, pub(crate) u64, pub(crate) u64);

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

impl At {
    fn operation(self, action: Action, outcome: Outcome) -> Operation {
        Operation {
            client: self.0,
            action,
            start_us: self.1,
            end_us: self.2,
            outcome,
        }
    }

    pub(crate) fn put(self, key: &str, value: &str) -> Operation {
        let (key, value) = (bytes(key), bytes(value));
        self.operation(Action::Put { key, value }, Outcome::Done)
    }

    pub(crate) fn append(self, key: &str, value: &str) -> Operation {
        let (key, value) = (bytes(key), bytes(value));
        self.operation(Action::Append { key, value }, Outcome::Done)
    }

    pub(crate) fn delete(self, key: &str, existed: bool) -> Operation {
        self.operation(Action::Delete { key: bytes(key) }, Outcome::Deleted { existed })
    }

    pub(crate) fn get(self, key: &str, value: Option<&str>) -> Operation {
        self.operation(Action::Get { key: bytes(key) }, Outcome::Value(value.map(bytes)))
    }

    /// A scan of the keys from `from` up to `to` that read these items, and all there were.
    pub(crate) fn scan(self, from: &str, to: &str, items: &[(&str, &str)]) -> Operation {
        let action = Action::Scan {
            from: bytes(from),
            to: Some(bytes(to)),
        };
        let items = items
            .iter()
            .map(|(key, value)| (bytes(key), bytes(value)))
            .collect();
        self.operation(action, Outcome::Page { items, more: false })
    }
}

/// The operation with another outcome.
pub(crate) trait WithOutcome {
    fn unknown(self) -> Operation;
    fn failed(self) -> Operation;
}

impl WithOutcome for Operation {
    fn unknown(mut self) -> Operation {
        self.outcome = Outcome::Unknown;
        self
    }

    fn failed(mut self) -> Operation {
        self.outcome = Outcome::Failed;
        self
    }
}

pub(crate) fn history(operations: Vec<Operation>) -> History {
    History::new(operations).expect("the history makes sense")
}

#[track_caller]
pub(crate) fn assert_linearizable(operations: Vec<Operation>) {
    let report = check(&history(operations), Limits::default());
    assert_eq!(report.verdict, Verdict::Linearizable);
}

/// The operation at `place` is the one that cannot be explained.
#[track_caller]
pub(crate) fn assert_broken_by(place: usize, operations: Vec<Operation>) {
    match check(&history(operations), Limits::default()).verdict {
        Verdict::Violation(violation) => assert_eq!(violation.operation, place),
        other => panic!("{other:?}"),
    }
}

//! What the clients saw could have come from one copy of the data, asked one thing at a time.
//!
//! Judged at the end of a run, by [the checker](crate::linearizability).

use std::time::Duration;

use super::Violation;
use crate::history::{History, Operation, Request};
use crate::linearizability::{self as checker, Action, Limits, Verdict, Window};

const NAME: &str = "linearizability";
/// More than any run needs. What decides is a number and not the clock, so that a seed is judged the same on any
/// machine.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(3_600),
    configurations: 20_000_000,
};

/// For the search for a small window that shows a violation. What is found then may depend on the machine; the verdict does
/// not.
const WINDOW_TIME: Duration = Duration::from_secs(5);

/// Checks all that the clients did.
pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let operations: Vec<checker::Operation> = history.operations().iter().map(translate).collect();
    let translated =
        checker::History::new(operations).map_err(|error| Violation::new(NAME, error.to_string()))?;
    match checker::check(&translated, LIMITS).verdict {
        Verdict::Linearizable => Ok(()),
        Verdict::Undecided { why } => Err(Violation::new(NAME, why)),
        Verdict::Violation(violation) => {
            let window = in_virtual_time(checker::explain(&translated, &violation, WINDOW_TIME), history);
            let mut lines = checker::to_text(&window);
            let shown = lines.split_off(lines.find('\n').unwrap_or(lines.len()));
            Err(Violation::new(NAME, lines).showing(shown.trim()))
        }
    }
}

/// The checker orders operations by the moments of the run, of which each is told apart. Who reads a window looks for it in
/// the trace. Where times are equal, the order of the lines is the true one.
fn in_virtual_time(mut window: Window, history: &History) -> Window {
    for shown in &mut window.operations {
        if let Some(operation) = history.operations().get(shown.place) {
            shown.operation.start_us = operation.began_at;
            shown.operation.end_us = operation.ended_at.unwrap_or(u64::MAX);
        }
    }
    window
}

fn translate(operation: &Operation) -> checker::Operation {
    let action = match operation.request.clone() {
        Request::Put { key, value } => Action::Put { key, value },
        Request::Append { key, value } => Action::Append { key, value },
        Request::Delete { key } => Action::Delete { key },
        Request::Get { key, .. } => Action::Get { key },
        Request::Scan { from, to } => Action::Scan { from, to: Some(to) },
    };
    checker::Operation {
        client: operation.client,
        action,
        start_us: operation.start,
        end_us: operation.end.unwrap_or(u64::MAX),
        outcome: operation.outcome.clone(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::check;
    use crate::history::{History, ReadWay, Request};
    use crate::linearizability::Outcome;

    fn history(read: &'static str) -> History {
        let mut history = History::default();
        let key = Bytes::from("k");
        let put = |value: &'static str| Request::Put {
            key: Bytes::from("k"),
            value: Bytes::from(value),
        };
        for (value, at) in [("1", 100), ("2", 300)] {
            let id = history.begin(1, put(value), at);
            history.end(id, at + 100, Outcome::Done);
        }
        // Nobody knows whether this one took effect, or when.
        let unknown = history.begin(2, put("3"), 400);
        history.end(unknown, 450, Outcome::Unknown);
        let get = history.begin(
            3,
            Request::Get {
                key,
                way: ReadWay::Round,
            },
            500,
        );
        history.end(get, 600, Outcome::Value(Some(Bytes::from(read))));
        history
    }

    #[test]
    fn a_stale_read_is_caught_and_one_of_an_unknown_write_is_not() {
        assert!(check(&history("2")).is_ok());
        assert!(check(&history("3")).is_ok());
        let violation = check(&history("1")).unwrap_err();
        assert_eq!(
            violation.to_string(),
            "linearizability: not linearizable: nothing explains operation 4 of 4, client 3: get \"k\" -> \"1\""
        );
        let window = violation.window.unwrap();
        assert!(window.contains("!      4 client 3    500 to 600"), "{window}");
        assert!(window.contains("       2 client 1    300 to 400"), "{window}");
    }
}

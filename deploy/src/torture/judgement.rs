//! What the history shows: counts, gaps, what is lost or there twice, and whether it is linearizable.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sim::linearizability::{self, Action, History, Limits, Operation, Outcome, Verdict, Window};

use super::workload::{CLIENTS, list};

/// How long the check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(120);
/// How long a smaller part of a history that shows a violation is looked for.
const WINDOW_LIMIT: Duration = Duration::from_secs(20);
/// What ends each item of a list.
const SEPARATOR: u8 = b';';

/// How many operations had which outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// They took effect, or read.
    pub(crate) acknowledged: u64,
    /// They had no effect.
    pub(crate) failed: u64,
    /// Nobody knows.
    pub(crate) unknown: u64,
}

impl Counts {
    /// Adds one operation.
    pub(crate) fn add(&mut self, operation: &Operation) {
        match operation.outcome {
            Outcome::Failed => self.failed += 1,
            Outcome::Unknown => self.unknown += 1,
            _ => self.acknowledged += 1,
        }
    }
}

/// What the history shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// By kind of operation.
    pub(crate) counts: BTreeMap<&'static str, Counts>,
    /// The longest time in which no operation was acknowledged: from when, and to when.
    pub(crate) longest_gap_us: (u64, u64),
    /// Acknowledged appends to a list that are not in it.
    pub(crate) lost: u64,
    /// Appends to a list that are in it more than once.
    pub(crate) duplicated: u64,
    /// Whether the history is linearizable.
    pub(crate) verdict: Verdict,
    /// What shows that it is not.
    pub(crate) window: Option<Window>,
}

impl Judgement {
    /// All kinds together.
    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.counts.values() {
            total.acknowledged += counts.acknowledged;
            total.failed += counts.failed;
            total.unknown += counts.unknown;
        }
        total
    }
}

/// Judges a history whose last operations read every list.
pub(crate) fn judge(history: &History) -> Judgement {
    let mut counts: BTreeMap<&'static str, Counts> = BTreeMap::new();
    for operation in history.operations() {
        counts.entry(operation.action.name()).or_default().add(operation);
    }
    let (lost, duplicated) = judge_lists(history.operations());
    let limits = Limits {
        time: CHECK_LIMIT,
        ..Limits::default()
    };
    let verdict = linearizability::check(history, limits).verdict;
    let window = match &verdict {
        Verdict::Violation(violation) => Some(linearizability::explain(history, violation, WINDOW_LIMIT)),
        Verdict::Linearizable | Verdict::Undecided { .. } => None,
    };
    Judgement {
        counts,
        longest_gap_us: longest_gap(history.operations()),
        lost,
        duplicated,
        verdict,
        window,
    }
}

fn longest_gap(operations: &[Operation]) -> (u64, u64) {
    let acknowledged = operations.iter().filter(|operation| operation.is_certain());
    let mut ends: Vec<u64> = acknowledged.map(|operation| operation.end_us).collect();
    ends.sort_unstable();
    let gaps = ends.windows(2).map(|pair| (pair[0], pair[1]));
    gaps.max_by_key(|(from, to)| to - from).unwrap_or_default()
}

/// How many appends to the lists are lost, and how many are there more than once. A list that was not read at the end
/// has lost all.
fn judge_lists(operations: &[Operation]) -> (u64, u64) {
    let (mut lost, mut duplicated) = (0, 0);
    for list in (0..CLIENTS).map(list) {
        let of_list = operations
            .iter()
            .filter(|operation| operation.action.key() == Some(&list));
        let last_read = of_list
            .clone()
            .rev()
            .find_map(|operation| match &operation.outcome {
                Outcome::Value(value) => Some(value.clone().unwrap_or_default()),
                _ => None,
            });
        let found = count_items(&last_read.unwrap_or_default());
        for operation in of_list {
            if let Action::Append { value, .. } = &operation.action {
                match found.get(&value[..]) {
                    None if operation.outcome == Outcome::Done => lost += 1,
                    Some(2..) => duplicated += 1,
                    _ => {}
                }
            }
        }
    }
    (lost, duplicated)
}

fn count_items(list: &Bytes) -> BTreeMap<Vec<u8>, u64> {
    let mut counts = BTreeMap::new();
    for item in list.split_inclusive(|byte| *byte == SEPARATOR) {
        *counts.entry(item.to_vec()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(token: &'static str, outcome: Outcome) -> Operation {
        Operation {
            client: 0,
            action: Action::Append {
                key: list(0),
                value: token.into(),
            },
            start_us: 1,
            end_us: 2,
            outcome,
        }
    }

    fn read(value: &'static str, end_us: u64) -> Operation {
        Operation {
            client: 9,
            action: Action::Get { key: list(0) },
            start_us: 3,
            end_us,
            outcome: Outcome::Value(Some(value.into())),
        }
    }

    fn judgement(operations: Vec<Operation>) -> Judgement {
        judge(&History::new(operations).unwrap())
    }

    #[test]
    fn a_good_history_is_good_and_its_longest_gap_is_found() {
        let good = judgement(vec![
            append("0.1;", Outcome::Done),
            append("0.2;", Outcome::Unknown),
            read("0.1;", 4),
            read("0.1;0.2;", 10),
        ]);
        assert_eq!((good.lost, good.duplicated), (0, 0));
        assert_eq!(good.verdict, Verdict::Linearizable);
        assert_eq!(good.longest_gap_us, (4, 10));
        assert_eq!(
            good.counts["append"],
            Counts {
                acknowledged: 1,
                failed: 0,
                unknown: 1
            }
        );
    }

    #[test]
    fn a_lost_append_and_a_double_one_are_counted_and_shown() {
        let lost = judgement(vec![append("0.1;", Outcome::Done), read("", 4)]);
        assert_eq!((lost.lost, lost.duplicated), (1, 0));
        assert!(lost.window.is_some());
        let double = judgement(vec![append("0.1;", Outcome::Unknown), read("0.1;0.1;", 4)]);
        assert_eq!((double.lost, double.duplicated), (0, 1));
        assert!(double.window.is_some());
    }
}

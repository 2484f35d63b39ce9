//! A checker of linearizability: could one copy of the data, asked one thing at a time, have given these answers?
//!
//! A [`History`] holds what clients asked, when, and what they were told. It is linearizable if each operation
//! can be given a point in time between its start and its end such that, done in the order of these points on
//! one map, every operation gets the answer that it got. An operation of unknown outcome may have its point at
//! any time after its start, or none; one that failed has none.
//!
//! ```
//! use sim::linearizability::{Action, History, Limits, Operation, Outcome, Verdict, check};
//!
//! let put = Action::Put { key: "k".into(), value: "1".into() };
//! let get = Action::Get { key: "k".into() };
//! let history = History::new(vec![
//!     Operation { client: 1, action: put, start_us: 0, end_us: 10, outcome: Outcome::Done },
//!     // It began after the put was acknowledged, and did not see it.
//!     Operation { client: 2, action: get, start_us: 20, end_us: 30, outcome: Outcome::Value(None) },
//! ])?;
//! assert!(matches!(check(&history, Limits::default()).verdict, Verdict::Violation(_)));
//! # Ok::<(), sim::linearizability::HistoryError>(())
//! ```
//!
//! # How it works
//!
//! It is the search of Wing and Gong with the memory of configurations that Lowe added, run over the events in
//! the order of time, so that nothing is recursive. A configuration of a key is what its value may be now and
//! which of the open operations have taken effect to make it so. When an operation ends, every configuration in
//! which it has not taken effect is led on: open writes take effect, in every order that makes a difference,
//! until this one has. A configuration that can do nothing that another cannot do as well is dropped. Writes of unknown
//! outcome that do the same, for all that anybody saw, take effect in the order in which they began: which of them
//! did makes no difference. If no configuration is left, the operation that just ended is the one that cannot be
//! explained.
//!
//! Keys are searched each by itself, as linearizability is local. A page of a scan reads many keys at one point
//! in time. It joins the keys that it covers, and yet their configurations are not multiplied: between scans
//! they have nothing to do with each other. A *world* has a set of configurations for each key, and says which
//! scans have taken effect. A scan takes effect in a world by leaving, for each key, the configurations that
//! hold what it read; where that loses something, the world before it is kept beside it. Worlds that have become
//! the same again are one. With few scans, there are few worlds.
//!
//! # What it does not do
//!
//! It checks nothing that no operation observed: writes alone are always linearizable. It does not look at the
//! order of one client's operations beyond their times. The time limit counts as a failure to prove:
//! [`Verdict::Undecided`].

mod bits;
mod configurations;
mod file;
mod history;
mod limits;
mod needs;
mod page;
mod partition;
mod register;
mod remarks;
mod strict;
mod text;
mod values;
mod window;
mod worlds;

pub use file::{FileError, initial_to_json, read, to_json, write};
pub use history::{Action, History, HistoryError, Operation, Outcome};
pub use limits::Limits;
pub use page::to_html;
pub use text::{describe, to_text};
pub use window::{Shown, Window, explain};

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use limits::{Budget, Exhausted};
use partition::Part;

/// A shorter history is searched before other threads have begun.
const LONG_HISTORY: usize = 5_000;

/// What a check found, and how much work it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The finding.
    pub verdict: Verdict,
    /// Parts of the history that were searched each by itself.
    pub parts: usize,
    /// Configurations that were looked at.
    pub configurations: u64,
}

/// Whether a history is linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Linearizable,
    /// It is not.
    Violation(Violation),
    /// A limit was reached first.
    Undecided {
        /// Which limit, and what to do.
        why: String,
    },
}

/// Where a history stops being linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The place in the history of the operation that cannot be explained, given all that ended before it.
    pub operation: usize,
}

/// Checks a whole history, a long one on all processors unless the number of configurations is limited. The same history
/// and number of configurations always give the same report; only [`Limits::time`] depends on the machine.
///
/// Of several violations, the one that ended first is reported; if a limit is reached after one was found, the first of
/// those found so far.
#[must_use]
pub fn check(history: &History, limits: Limits) -> Report {
    let started = Instant::now();
    let parts = match partition::parts(history, &Budget::new(limits, started)) {
        Ok(parts) => parts,
        Err(exhausted) => {
            return Report {
                verdict: Verdict::Undecided {
                    why: exhausted.to_string(),
                },
                parts: 0,
                configurations: 0,
            };
        }
    };
    let searched = search_all(&parts, history, limits, started);
    let configurations = searched.spent;
    let verdict = match searched.conclude(history) {
        Ok(None) => Verdict::Linearizable,
        Ok(Some(operation)) => Verdict::Violation(Violation { operation }),
        Err(exhausted) => Verdict::Undecided {
            why: exhausted.to_string(),
        },
    };
    Report {
        verdict,
        parts: parts.len(),
        configurations,
    }
}

/// What came of some parts of a history.
#[derive(Debug, Default)]
struct Searched {
    /// Operations that break it.
    found: Vec<usize>,
    /// The first part that could not be searched to its end, and why.
    gave_up: Option<(usize, Exhausted)>,
    /// Configurations that were looked at.
    spent: u64,
}

impl Searched {
    fn and(mut self, other: Self) -> Self {
        self.found.extend(other.found);
        self.gave_up = [self.gave_up, other.gave_up]
            .into_iter()
            .flatten()
            .min_by_key(|(part, _)| *part);
        self.spent += other.spent;
        self
    }

    /// The operation that breaks the history, if one does. A violation is one whatever the other parts would show, so a
    /// part that could not be searched to its end only counts where none was found.
    fn conclude(self, history: &History) -> Result<Option<usize>, Exhausted> {
        let end = |operation: &usize| (history.operations()[*operation].end_us, *operation);
        match (self.found.into_iter().min_by_key(end), self.gave_up) {
            (None, Some((_, exhausted))) => Err(exhausted),
            (first, _) => Ok(first),
        }
    }
}

/// Searches every part, unless a limit for all of them is reached.
fn search_all(parts: &[Part], history: &History, limits: Limits, started: Instant) -> Searched {
    let next = AtomicUsize::new(0);
    let worker = || search_some(parts, &next, Budget::new(limits, started));
    // One budget of configurations is for all parts, in their order.
    if limits.configurations < u64::MAX || history.operations().len() < LONG_HISTORY {
        return worker();
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        // One that cannot be started leaves its share to the others.
        let helpers: Vec<_> = (1..processors.min(parts.len()))
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, worker).ok())
            .collect();
        helpers
            .into_iter()
            .fold(worker(), |all, helper| match helper.join() {
                Ok(searched) => all.and(searched),
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}

/// Searches one part after the other, as long as `next` tells of another.
fn search_some(parts: &[Part], next: &AtomicUsize, mut budget: Budget) -> Searched {
    let mut searched = Searched::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(part) = parts.get(number) else {
            break;
        };
        match part.search(&mut budget) {
            Ok(found) => searched.found.extend(found),
            Err(exhausted) => {
                searched.gave_up.get_or_insert((number, exhausted));
                if exhausted.is_for_all_parts() {
                    break;
                }
            }
        }
    }
    searched.spent = budget.spent();
    searched
}

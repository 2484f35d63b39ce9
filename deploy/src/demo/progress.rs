//! When writes were acknowledged, as seen by all clients together.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The moments of the acknowledgements, shared by the clients.
///
/// It holds one moment a write; the demo's pace and length bound how many.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Vec<Instant>>);

impl Progress {
    /// A write was acknowledged just now.
    pub(crate) fn acknowledged(&self) {
        // The moment is taken under the lock, so that the moments are in order.
        let mut moments = self.moments();
        moments.push(Instant::now());
    }

    /// How many so far.
    pub(crate) fn count(&self) -> usize {
        self.moments().len()
    }

    /// Whether any came after `moment`.
    pub(crate) fn any_since(&self, moment: Instant) -> bool {
        self.moments().last().is_some_and(|last| *last > moment)
    }

    /// The longest time without an acknowledgement that touches the span from `from` to `to`.
    pub(crate) fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let moments = self.moments();
        let pairs = moments.iter().zip(moments.iter().skip(1));
        let touching = pairs.filter(|(before, after)| **after >= from && **before <= to);
        touching
            .map(|(before, after)| after.duration_since(*before))
            .max()
            .unwrap_or_default()
    }

    fn moments(&self) -> MutexGuard<'_, Vec<Instant>> {
        // A push that panicked (out of memory) leaves the moments before it intact.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(origin: Instant, milliseconds: &[u64]) -> Progress {
        let moments = milliseconds
            .iter()
            .map(|ms| origin + Duration::from_millis(*ms))
            .collect();
        Progress(Mutex::new(moments))
    }

    #[test]
    fn the_longest_gap_is_looked_for_around_the_span_only() {
        let origin = Instant::now();
        let progress = at(origin, &[0, 900, 1_000, 1_010, 1_410, 1_420, 1_520, 3_000]);
        let gap = |from, to| {
            progress
                .longest_gap(
                    origin + Duration::from_millis(from),
                    origin + Duration::from_millis(to),
                )
                .as_millis()
        };
        assert_eq!(gap(1_011, 1_500), 400);
        assert_eq!(gap(950, 1_005), 100);
        assert_eq!(gap(1_011, 1_600), 1_480);
    }

    #[test]
    fn without_two_acknowledgements_there_is_no_gap() {
        let now = Instant::now();
        assert_eq!(at(now, &[]).longest_gap(now, now), Duration::ZERO);
        assert_eq!(at(now, &[0]).longest_gap(now, now), Duration::ZERO);
    }

    #[test]
    fn acknowledgements_are_counted_and_known_to_be_later() {
        let progress = Progress::default();
        let before = Instant::now();
        assert!(!progress.any_since(before));
        progress.acknowledged();
        assert!(progress.any_since(before));
        assert_eq!(progress.count(), 1);
    }
}

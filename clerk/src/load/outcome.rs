//! What came of a load.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies are kept to three digits up to a minute; longer ones count as a minute.
pub const LONGEST_LATENCY_US: u64 = 60_000_000;

/// What calls came to while it counted.
#[derive(Debug)]
pub(super) struct Tally<E> {
    latencies_us: Histogram<u64>,
    errors: u64,
    first_error: Option<E>,
}

impl<E> Tally<E> {
    pub(super) fn new() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LONGEST_LATENCY_US, 3)
            .expect("the bounds are in order and three digits are within what the histogram takes");
        Self {
            latencies_us,
            errors: 0,
            first_error: None,
        }
    }

    pub(super) fn count(&mut self, outcome: Result<(), E>, took: Duration) {
        match outcome {
            Ok(()) => {
                let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.latencies_us
                    .saturating_record(us.clamp(1, LONGEST_LATENCY_US));
            }
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    /// The calls took `took` in all; `due` of them were due, if they had a rate.
    pub(super) fn conclude(self, took: Duration, due: Option<u64>, longest_gap_us: u64) -> Outcome<E> {
        let begun = self.latencies_us.len() + self.errors;
        Outcome {
            took,
            latencies_us: self.latencies_us,
            errors: self.errors,
            first_error: self.first_error,
            longest_gap_us,
            not_begun: due.map(|due| due.saturating_sub(begun)),
        }
    }
}

/// What came of a load, the warm-up left out. Made by [`run`](super::run).
#[derive(Clone, Debug)]
pub struct Outcome<E> {
    /// How long it took, until the last call was answered.
    pub took: Duration,
    /// How many calls did not succeed. They have no latency.
    pub errors: u64,
    /// The first of their errors.
    pub first_error: Option<E>,
    /// The longest time in which no operation was acknowledged to any client, in microseconds; one that was
    /// still going on at the end counts.
    pub longest_gap_us: u64,
    /// How many calls were due and could not begin before the end; `None` without a rate.
    pub not_begun: Option<u64>,
    latencies_us: Histogram<u64>,
}

impl<E> Outcome<E> {
    /// How many calls succeeded.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.latencies_us.len()
    }

    /// How many calls succeeded a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    pub fn per_second(&self) -> f64 {
        self.operations() as f64 / self.took.as_secs_f64()
    }

    /// The latency, in microseconds, that this share of the calls (0 to 1) did not exceed, to three digits; 0
    /// when no call succeeded.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> u64 {
        self.latencies_us.value_at_quantile(share)
    }

    /// The longest latency in microseconds, to three digits.
    #[must_use]
    pub fn max_us(&self) -> u64 {
        self.latencies_us.max()
    }
}

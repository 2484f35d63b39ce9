//! What came of a load.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies are kept to three digits up to a minute; longer ones count as a minute.
pub const LONGEST_LATENCY_US: u64 = 60_000_000;

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Ended<E> {
    pub(super) outcome: Result<(), E>,
    /// How long it took, if it began while it counted.
    pub(super) latency: Option<Duration>,
    /// Whether it ended while it counted.
    pub(super) ended_in_time: bool,
}

/// What calls came to while it counted.
#[derive(Debug)]
pub(super) struct Tally<E> {
    operations: u64,
    latencies_us: Histogram<u64>,
    begun: u64,
    errors: u64,
    first_error: Option<E>,
}

impl<E> Tally<E> {
    pub(super) fn new() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LONGEST_LATENCY_US, 3)
            .expect("the bounds are in order and three digits are within what the histogram takes");
        Self {
            operations: 0,
            latencies_us,
            begun: 0,
            errors: 0,
            first_error: None,
        }
    }

    pub(super) fn count(&mut self, call: Ended<E>) {
        if call.ended_in_time && call.outcome.is_ok() {
            self.operations += 1;
        }
        let Some(latency) = call.latency else {
            return;
        };
        self.begun += 1;
        match call.outcome {
            Ok(()) => self.record(latency, 1),
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    /// A call began while it counted, and after so long nobody waited for its end any more.
    pub(super) fn count_abandoned(&mut self, waited: Duration) {
        self.begun += 1;
        self.record(waited, 1);
    }

    /// So many calls were due while it counted, and had waited for at least so long when that was over.
    pub(super) fn count_not_begun(&mut self, waited: Duration, calls: u64) {
        self.record(waited, calls);
    }

    fn record(&mut self, latency: Duration, calls: u64) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies_us
            .saturating_record_n(us.clamp(1, LONGEST_LATENCY_US), calls);
    }

    /// It counted for `measured`; `due` calls were due then, if they had a rate.
    pub(super) fn conclude(self, measured: Duration, due: Option<u64>, longest_gap_us: u64) -> Outcome<E> {
        Outcome {
            measured,
            operations: self.operations,
            begun: self.begun,
            errors: self.errors,
            first_error: self.first_error,
            longest_gap_us,
            not_begun: due.map(|due| due.saturating_sub(self.begun)),
            latencies_us: self.latencies_us,
        }
    }
}

/// What came of a load. Made by [`run`](super::run) and [`run_until`](super::run_until).
///
/// It is of the time measured, which begins when the warm-up ends and has the length of
/// [`Load::duration`](super::Load::duration) unless the load was interrupted. *Operations* are the calls that
/// succeeded and ended in it, whenever they began: so many a second is what the target did, whatever the last calls
/// took. *Errors* are of the calls that began in it, whenever they ended, and so are *latencies*, of those that
/// succeeded: a call that takes longer than all others is not left out. So there may be a few more of them than
/// operations, or a few less: at most as many as there are clients, and at a rate those, too, that were due in the
/// warm-up and were made up for later. At a rate the calls that were [not begun](Self::not_begun) have latencies
/// besides.
#[derive(Clone, Debug)]
pub struct Outcome<E> {
    /// How long was measured.
    pub measured: Duration,
    /// How many calls succeeded, and ended in the time measured.
    pub operations: u64,
    /// How many calls began in the time measured (at a rate: were due in it, and began), whatever came of them.
    pub begun: u64,
    /// How many of those did not succeed. They have no latency.
    pub errors: u64,
    /// The first of their errors.
    pub first_error: Option<E>,
    /// The longest time in which no operation was acknowledged to any client, in microseconds. One that was
    /// still going on at the end counts until it is over, without a rate.
    pub longest_gap_us: u64,
    /// How many calls were due in the time measured and could not begin in it; `None` without a rate.
    pub not_begun: Option<u64>,
    latencies_us: Histogram<u64>,
}

impl<E> Outcome<E> {
    /// How many operations there were a second; no number if nothing was measured.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.measured.as_secs_f64()
    }

    /// The latency, in microseconds, that this share of the calls (0 to 1) did not exceed, to three digits; 0 when there
    /// is none. A call that was [not begun](Self::not_begun) counts with the time from when it was due to the end, which is less
    /// than it would have taken.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> u64 {
        self.latencies_us.value_at_quantile(share)
    }

    /// The longest latency of the same calls in microseconds, to three digits.
    #[must_use]
    pub fn max_us(&self) -> u64 {
        self.latencies_us.max()
    }
}

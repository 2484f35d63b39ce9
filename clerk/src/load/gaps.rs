//! How long nothing was acknowledged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::client::Clock;

/// The longest time between one acknowledged operation and the next, of whichever clients.
///
/// Moments are microseconds since the start.
#[derive(Debug)]
pub(super) struct Gaps {
    start: Instant,
    /// Gaps that end earlier belong to the warm-up.
    from_us: u64,
    /// Gaps that begin here or later do not count: no call begins any more.
    until_us: u64,
    /// When the latest operation was acknowledged.
    latest_us: AtomicU64,
    longest_us: AtomicU64,
    /// Nor do they last longer: at a rate, clients that have no call any more say nothing.
    ends_in_time: bool,
}

impl Gaps {
    /// Watches operations from the start on, and counts gaps that reach beyond `from` and begin before `until`.
    pub(super) fn on(clock: Clock, has_rate: bool) -> Self {
        let since_start = |moment: Instant| micros(moment.duration_since(clock.start));
        Self {
            start: clock.start,
            from_us: since_start(clock.from),
            until_us: since_start(clock.until),
            latest_us: AtomicU64::new(0),
            longest_us: AtomicU64::new(0),
            ends_in_time: has_rate,
        }
    }

    /// An operation was acknowledged at `now`.
    pub(super) fn acknowledged(&self, now: Instant) {
        let now_us = micros(now.duration_since(self.start));
        let latest_us = self.latest_us.fetch_max(now_us, Ordering::Relaxed);
        self.count(latest_us, now_us);
    }

    /// The longest gap, in microseconds, with the one that is still open at `end`.
    pub(super) fn longest_until(&self, end: Instant) -> u64 {
        self.count(
            self.latest_us.load(Ordering::Relaxed),
            micros(end.duration_since(self.start)),
        );
        self.longest_us.load(Ordering::Relaxed)
    }

    /// Only the part of a gap that is measured counts.
    fn count(&self, earlier_us: u64, later_us: u64) {
        if earlier_us >= self.until_us {
            return;
        }
        let later_us = if self.ends_in_time {
            later_us.min(self.until_us)
        } else {
            later_us
        };
        let gap_us = later_us.saturating_sub(earlier_us.max(self.from_us));
        // Most gaps are short: reading first keeps the clients from taking the cache line from each other.
        if gap_us > self.longest_us.load(Ordering::Relaxed) {
            self.longest_us.fetch_max(gap_us, Ordering::Relaxed);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

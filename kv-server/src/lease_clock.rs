//! The clock that leader leases are measured by.

use std::time::{Duration, Instant};

use raft_core::Ticks;

/// Reads the system's monotonic clock in whole ticks of the election clock.
///
/// The tickers will not do: a process that was stopped has missed their ticks, and would serve from a lease
/// that ended meanwhile. This clock goes on while the process does not.
#[derive(Debug)]
pub(crate) struct LeaseClock {
    origin: Instant,
    tick: Duration,
}

impl LeaseClock {
    /// A clock whose ticks are `tick` long, at least a nanosecond.
    #[must_use]
    pub(crate) fn new(tick: Duration) -> Self {
        Self {
            origin: Instant::now(),
            tick: tick.max(Duration::from_nanos(1)),
        }
    }

    /// How many whole ticks have passed since the clock was made.
    #[must_use]
    pub(crate) fn now(&self) -> Ticks {
        let ticks = self.origin.elapsed().as_nanos() / self.tick.as_nanos();
        Ticks(u64::try_from(ticks).unwrap_or(u64::MAX))
    }
}

//! The clock by which elections and leases are timed: how long a tick is, and how many a timeout has.

use std::time::Duration;

use raft_core::Ticks;

use crate::config::RaftConfig;

/// The length of one tick: a thirtieth of the shortest timeout, so that the draw is fine enough, yet no shorter than a
/// millisecond and no longer than ten.
pub(crate) fn election_tick(config: &RaftConfig) -> Duration {
    tick_of(config.election_timeout_min)
}

fn tick_of(shortest_timeout: Duration) -> Duration {
    (shortest_timeout / 30).clamp(Duration::from_millis(1), Duration::from_millis(10))
}

/// How many whole ticks there are in `timeout`.
pub(crate) fn ticks_in(timeout: Duration, tick: Duration) -> Ticks {
    Ticks(u64::try_from(timeout.as_nanos() / tick.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raft_core::Ticks;

    use super::{tick_of, ticks_in};

    #[test]
    fn timeouts_are_as_long_as_configured_whatever_the_length_of_a_tick() {
        for shortest_ms in [2, 50, 59, 100, 300, 299, 1_000, 12_345] {
            let shortest = Duration::from_millis(shortest_ms);
            let tick = tick_of(shortest);
            for timeout in [shortest, 2 * shortest] {
                let Ticks(ticks) = ticks_in(timeout, tick);
                let long = tick * u32::try_from(ticks).unwrap();
                assert!(
                    long <= timeout && timeout < long + tick,
                    "{shortest:?}, {timeout:?}: {long:?}"
                );
            }
        }
    }
}

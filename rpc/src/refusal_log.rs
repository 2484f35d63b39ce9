//! Tells of connections that were turned away, without letting strangers fill the log.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// At most one line in this time; the next line says how many went untold.
const INTERVAL: Duration = Duration::from_secs(1);

/// The refusals of one port.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_told: Option<Instant>,
    untold: u64,
}

impl RefusalLog {
    /// A connection of `caller` was refused or ended, because of `reason`.
    pub(crate) fn tell(&self, caller: SocketAddr, reason: &dyn Display) {
        if let Some(untold) = self.turn() {
            tracing::info!(%caller, %reason, untold, "refused a connection");
        }
    }

    /// Whether it is time for a line, and how many were passed over since the last.
    fn turn(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last_told.is_some_and(|told| told.elapsed() < INTERVAL) {
            state.untold += 1;
            return None;
        }
        state.last_told = Some(Instant::now());
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::{INTERVAL, RefusalLog};

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refusals_makes_one_line_a_second_that_counts_the_rest() {
        let log = RefusalLog::default();
        assert_eq!(log.turn(), Some(0));
        assert!((0..500).all(|_| log.turn().is_none()));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(log.turn(), Some(500));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(log.turn(), Some(0));
    }
}

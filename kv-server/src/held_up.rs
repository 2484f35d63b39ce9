//! Tells when the main thread was held up: the node, its connections and all actors but the persister and the tickers
//! share it, so that everything waits for one step that takes long, or for a processor that others use.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often the thread is looked at.
///
/// Often enough for another reason, too. Each request brings a deadline. A timer that is due sooner than that lets the
/// runtime take it in without waking its own thread for it: a system call, and then another poll of all sockets.
const INTERVAL: Duration = Duration::from_millis(100);
/// What is shorter is told by nobody: a client would hardly notice.
const TOLD_FROM: Duration = Duration::from_millis(50);
/// At most one line of the log in this time, so that a machine that is too busy does not fill its disk as well.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Runs as long as its thread does.
pub(crate) async fn tell_when_held_up() {
    let mut told = Told::default();
    loop {
        let due = Instant::now() + INTERVAL;
        sleep_until(due).await;
        let late = due.elapsed();
        if told.is_to_be_told(late, Instant::now()) {
            tracing::info!(?late, "the main thread was held up");
        }
    }
}

/// When it was told last.
#[derive(Debug, Default)]
struct Told(Option<Instant>);

impl Told {
    fn is_to_be_told(&mut self, late: Duration, now: Instant) -> bool {
        let is_due = |told: Instant| now - told >= TELL_EVERY;
        let is_told = late >= TOLD_FROM && self.0.is_none_or(is_due);
        if is_told {
            self.0 = Some(now);
        }
        is_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_told_and_then_not_again_for_a_while() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert!(!told.is_to_be_told(TOLD_FROM - Duration::from_millis(1), now));
        assert!(told.is_to_be_told(TOLD_FROM, now));
        assert!(!told.is_to_be_told(TOLD_FROM, now + TELL_EVERY / 2));
        assert!(told.is_to_be_told(TOLD_FROM, now + TELL_EVERY));
    }
}

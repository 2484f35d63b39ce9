//! The clocks. They have a thread of their own, so that a busy node is still told the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Message, Recipient};

use super::FatalOnPanic;

/// Lets one tick through at a time: a node that was held up gets one late tick, never a burst of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct TickGate(Arc<AtomicBool>);

impl TickGate {
    /// Takes the one place. `false` if the last tick was not taken yet.
    fn enter(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The tick was taken: the next may come.
    pub(crate) fn leave(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// One unit of the election clock passed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ElectionTick(pub(crate) TickGate);

/// One heartbeat interval passed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct HeartbeatTick(pub(crate) TickGate);

/// When the tick after the one that was due at `due` is due, if it is `now`: on schedule, but if that is over,
/// an interval from now.
fn next_due(due: Instant, now: Instant, interval: Duration) -> Instant {
    let on_schedule = due + interval;
    if on_schedule >= now {
        on_schedule
    } else {
        now + interval
    }
}

macro_rules! ticker {
    ($(#[$doc:meta])* $name:ident, $tick:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name {
            interval: Duration,
            due: Instant,
            node: Recipient<$tick>,
            gate: TickGate,
            _fatal: FatalOnPanic,
        }

        impl $name {
            /// Ticks `node` every `interval`.
            #[must_use]
            pub(crate) fn new(interval: Duration, node: Recipient<$tick>) -> Self {
                Self {
                    interval,
                    due: Instant::now(),
                    node,
                    gate: TickGate::default(),
                    _fatal: FatalOnPanic::of(stringify!($name)),
                }
            }

            /// Arranges for the next tick. What was missed is not made up for: leases count on it that a
            /// voter's clock is never far ahead of the time.
            fn schedule(&mut self, ctx: &mut Context<Self>) {
                let now = Instant::now();
                self.due = next_due(self.due, now, self.interval);
                ctx.run_later(self.due - now, |ticker, ctx| {
                    if ticker.gate.enter() {
                        ticker.node.do_send($tick(ticker.gate.clone()));
                    }
                    ticker.schedule(ctx);
                });
            }
        }

        impl Actor for $name {
            type Context = Context<Self>;

            fn started(&mut self, ctx: &mut Self::Context) {
                self.due = Instant::now();
                self.schedule(ctx);
            }
        }
    };
}

ticker! {
    /// Drives elections and the leader's check for a quorum (the notes' `electionTimeOutTicker`).
    ElectionTicker, ElectionTick
}
ticker! {
    /// Drives the leader's heartbeats (the notes' `leaderHearBeatTicker`).
    HeartbeatTicker, HeartbeatTick
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_that_is_a_little_late_does_not_move_the_next() {
        let (due, interval) = (Instant::now(), Duration::from_millis(10));
        let late = due + Duration::from_millis(7);
        assert_eq!(next_due(due, late, interval), due + interval);
    }

    #[test]
    fn ticks_that_were_missed_are_not_made_up_for() {
        let (due, interval) = (Instant::now(), Duration::from_millis(10));
        let after_a_stop = due + Duration::from_secs(5);
        assert_eq!(next_due(due, after_a_stop, interval), after_a_stop + interval);
    }

    #[test]
    fn one_tick_waits_at_a_time() {
        let gate = TickGate::default();
        assert!(gate.enter());
        assert!(!gate.enter());
        gate.leave();
        assert!(gate.enter());
    }
}

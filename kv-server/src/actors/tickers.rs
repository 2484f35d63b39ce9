//! The clocks. They have a thread of their own, so that a busy node is still told the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

macro_rules! ticker {
    ($(#[$doc:meta])* $name:ident, $tick:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name {
            interval: Duration,
            node: Recipient<$tick>,
            gate: TickGate,
            _fatal: FatalOnPanic,
        }

        impl $name {
            /// Ticks `node` every `interval`.
            #[must_use]
            pub(crate) fn new(interval: Duration, node: Recipient<$tick>) -> Self {
                Self { interval, node, gate: TickGate::default(), _fatal: FatalOnPanic::of(stringify!($name)) }
            }
        }

        impl Actor for $name {
            type Context = Context<Self>;

            fn started(&mut self, ctx: &mut Self::Context) {
                ctx.run_interval(self.interval, |ticker, _| {
                    if ticker.gate.enter() {
                        ticker.node.do_send($tick(ticker.gate.clone()));
                    }
                });
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

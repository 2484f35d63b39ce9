//! The leader's lease, between the node that holds it and the connections that serve reads from it.
//!
//! A read looks here instead of asking the node: nobody has to be woken for it. The node tells of its lease before
//! anything leaves that could end it, and the lease itself tells when its time is over ([`Node::read_lease`]).
//!
//! [`Node::read_lease`]: raft_core::Node::read_lease

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use raft_core::{LogIndex, ReadLease, Term, Ticks};

/// What the node told of its lease last, and the clock that it is measured by. Clones share both.
#[derive(Clone, Debug)]
pub(crate) struct SharedLease(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: LeaseClock,
    told: Mutex<Option<ReadLease>>,
}

impl SharedLease {
    /// No lease yet. The ticks of its clock are `tick` long, at least a nanosecond.
    #[must_use]
    pub(crate) fn new(tick: Duration) -> Self {
        let clock = LeaseClock {
            origin: Instant::now(),
            tick: tick.max(Duration::from_nanos(1)),
        };
        Self(Arc::new(Shared {
            clock,
            told: Mutex::default(),
        }))
    }

    /// What the clock reads.
    #[must_use]
    pub(crate) fn now(&self) -> Ticks {
        self.0.clock.now()
    }

    /// From now on reads are served from `lease`.
    pub(crate) fn tell(&self, lease: Option<ReadLease>) {
        *self.0.told.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }

    /// The leader's term, and the read index of a read that is here already, if the lease holds at this very moment.
    #[must_use]
    pub(crate) fn read_index(&self) -> Option<(Term, LogIndex)> {
        let told = *self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = told?;
        Some((lease.term(), lease.read_index(self.now())?))
    }
}

/// Reads the system's monotonic clock in whole ticks of the election clock.
///
/// The tickers will not do: a process that was stopped has missed their ticks, and would serve from a lease
/// that ended meanwhile. This clock goes on while the process does not.
#[derive(Debug)]
struct LeaseClock {
    origin: Instant,
    tick: Duration,
}

impl LeaseClock {
    /// How many whole ticks have passed since the clock was made.
    fn now(&self) -> Ticks {
        let ticks = self.origin.elapsed().as_nanos() / self.tick.as_nanos();
        Ticks(u64::try_from(ticks).unwrap_or(u64::MAX))
    }
}

//! One client: makes one call after the other until the time is up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep_until};

use super::gaps::Gaps;
use super::keys::Keys;
use super::outcome::{Ended, Tally};
use super::target::{Call, Target};
use super::{Load, Operation, key};

const NANOS_PER_SECOND: u128 = 1_000_000_000;
/// The runtime's timer wakes a client up to so much later than it wanted: it rounds up to a millisecond once when it notes
/// the moment, and once when it waits for it.
const TIMER_LATE: Duration = Duration::from_millis(2);
/// How many calls a client makes before it takes the tally that all share. A tally for each would be hundreds of
/// kilobytes a client, and every call would find its part of it out of the cache.
const COUNTED_AT_ONCE: usize = 64;
/// In how many slices at most the calls are counted that nobody has taken on.
const MOST_SLICES: u64 = 10_000;

/// Who broke off while it counted has left numbers behind that are good enough to go on with.
pub(super) fn lock<E>(tally: &Mutex<Tally<E>>) -> MutexGuard<'_, Tally<E>> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the calls that are due while `clock` counts and whose numbers, from `taken` on, no client has taken on.
pub(super) fn count_not_taken<E>(tally: &mut Tally<E>, clock: Clock, taken: u64, rate: u64) {
    let end = clock.due_before(clock.until, rate);
    let first = taken.max(clock.due_before(clock.from, rate));
    let calls = end.saturating_sub(first);
    // At the highest rates they are too many to be looked at one by one.
    let slices = calls.min(MOST_SLICES);
    for slice in 0..slices {
        // As many in each, and one more in the first ones.
        let [from, to] = [slice, slice + 1].map(|at| at * (calls / slices) + at.min(calls % slices));
        let waited = clock.until - clock.due(first + to - 1, rate);
        tally.count_not_begun(waited, to - from);
    }
}

/// What became of one client's calls since it last told.
struct Counted<E> {
    ended: Vec<Ended<E>>,
    /// From when on a call that is out counts, if it began while it counted.
    out_since: Option<Instant>,
    /// Which all clients share.
    tally: Arc<Mutex<Tally<E>>>,
}

impl<E> Counted<E> {
    fn new(tally: Arc<Mutex<Tally<E>>>) -> Self {
        Self {
            ended: Vec::with_capacity(COUNTED_AT_ONCE),
            out_since: None,
            tally,
        }
    }

    fn count(&mut self, ended: Ended<E>) {
        self.out_since = None;
        self.ended.push(ended);
        if self.ended.len() == COUNTED_AT_ONCE {
            self.tell();
        }
    }

    fn tell(&mut self) {
        let mut tally = lock(&self.tally);
        for ended in self.ended.drain(..) {
            tally.count(ended);
        }
    }
}

/// A client that is stopped in the middle of a call has told what it had counted, too.
impl<E> Drop for Counted<E> {
    fn drop(&mut self) {
        self.tell();
        if let Some(since) = self.out_since {
            lock(&self.tally).count_abandoned(since.elapsed());
        }
    }
}

/// When calls may begin, and when they count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) start: Instant,
    /// Until here all warms up.
    pub(super) from: Instant,
    /// No call begins here or later.
    pub(super) until: Instant,
}

impl Clock {
    /// How long it counts.
    pub(super) fn measured(self) -> Duration {
        self.until.saturating_duration_since(self.from)
    }

    pub(super) fn starting_now(load: &Load) -> Self {
        let start = Instant::now();
        let from = start + load.warm_up;
        Self {
            start,
            from,
            until: from + load.duration,
        }
    }

    /// Whether it counts at this moment.
    fn counts_at(self, moment: Instant) -> bool {
        self.from <= moment && moment < self.until
    }

    /// When the call of this number is due, at `rate` calls a second.
    fn due(self, number: u64, rate: u64) -> Instant {
        let nanos = u128::from(number) * NANOS_PER_SECOND / u128::from(rate.max(1));
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many calls are due while it counts, at `rate` calls a second.
    pub(super) fn due_while_measured(self, rate: u64) -> u64 {
        self.due_before(self.until, rate)
            .saturating_sub(self.due_before(self.from, rate))
    }

    /// How many calls are due before `moment`, at `rate` calls a second.
    fn due_before(self, moment: Instant, rate: u64) -> u64 {
        let calls = moment.duration_since(self.start).as_nanos() * u128::from(rate);
        u64::try_from(calls.div_ceil(NANOS_PER_SECOND)).unwrap_or(u64::MAX)
    }
}

/// When a call is due, and from when on its latency counts.
#[derive(Clone, Copy, Debug)]
struct Due {
    due: Instant,
    counts_from: Instant,
}

pub(super) struct Client<T> {
    target: T,
    operation: Operation,
    rate: Option<u64>,
    value: Bytes,
    keys: Keys,
    random: Xoshiro256PlusPlus,
    /// How many calls all clients have taken on, to keep a rate.
    taken: Arc<AtomicU64>,
    gaps: Arc<Gaps>,
}

impl<T: Target> Client<T> {
    /// The client of this number; its number and the load's seed decide its keys.
    pub(super) fn new(target: T, load: &Load, number: u32, taken: Arc<AtomicU64>, gaps: Arc<Gaps>) -> Self {
        Self {
            target,
            operation: load.operation,
            rate: load.rate,
            value: load.value(),
            keys: Keys::new(load.keys, load.distribution),
            // No two clients of any two loads have the same.
            random: Xoshiro256PlusPlus::seed_from_u64((u64::from(load.seed) << 32) | u64::from(number)),
            taken,
            gaps,
        }
    }

    /// Calls until the time is up; what came of it goes into `tally`, which all clients share.
    pub(super) async fn run(mut self, clock: Clock, tally: Arc<Mutex<Tally<T::Error>>>) {
        let mut counted = Counted::new(tally);
        loop {
            let Due { due, counts_from } = self.wait_until_due(clock).await;
            // Calls that were due and could not begin in time are not begun: the end is the end.
            if due.max(Instant::now()) >= clock.until {
                if self.rate.is_some() && clock.counts_at(due) && counts_from < clock.until {
                    lock(&counted.tally).count_not_begun(clock.until - counts_from, 1);
                }
                return;
            }
            let call = self.next_call();
            let counts = clock.counts_at(due);
            counted.out_since = counts.then_some(counts_from);
            let outcome = self.target.call(call).await;
            let now = Instant::now();
            if outcome.is_ok() {
                self.gaps.acknowledged(now);
            }
            counted.count(Ended {
                outcome,
                latency: counts.then(|| now.duration_since(counts_from)),
                ended_in_time: clock.counts_at(now),
            });
        }
    }

    /// Waits until the next call is due. With a rate it counts as begun then, even if all clients were busy: a
    /// stall shows in every call that it held up. Only what the timer is late in waking a client that has waited is
    /// not the target's.
    async fn wait_until_due(&self, clock: Clock) -> Due {
        let now = Instant::now();
        let Some(rate) = self.rate else {
            return Due {
                due: now,
                counts_from: now,
            };
        };
        let due = clock.due(self.taken.fetch_add(1, Ordering::Relaxed), rate);
        sleep_until(due.min(clock.until)).await;
        let counts_from = if now < due {
            Instant::now().min(due + TIMER_LATE)
        } else {
            due
        };
        Due { due, counts_from }
    }

    fn next_call(&mut self) -> Call {
        let key = key(self.keys.next(&mut self.random));
        let value = self.value.clone();
        match self.operation {
            Operation::Put => Call::Put { key, value },
            Operation::Get => Call::Get { key },
            Operation::Append => Call::Append { key, value },
            Operation::Mixed { reads_percent } => {
                if self.random.random_range(0..100) < reads_percent {
                    Call::Get { key }
                } else {
                    Call::Put { key, value }
                }
            }
        }
    }
}

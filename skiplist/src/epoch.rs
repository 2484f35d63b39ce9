//! Epochs and which of them are still looked at.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A stretch of writes between two points at which snapshots were taken. A snapshot sees what was written up to the end
/// of its epoch; the first write after it starts the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

impl Epoch {
    pub(crate) const FIRST: Self = Self(0);

    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The epochs of the snapshots that are alive.
///
/// It has a lock of its own, so that a snapshot can be dropped anywhere, also while its own thread holds the lock of
/// the list. Where both locks are held, this one is taken last; no code of the caller runs under it.
pub(crate) struct Epochs {
    state: Mutex<State>,
}

struct State {
    current: Epoch,
    /// For each epoch with snapshots, how many there are.
    live: BTreeMap<Epoch, usize>,
    /// Whether an epoch has lost its last snapshot since the writers last asked.
    released: bool,
}

/// What a writer must know before it writes.
pub(crate) struct WriteStart {
    /// The newest epoch with a snapshot: what that snapshot sees must be kept.
    pub(crate) newest: Option<Epoch>,
    /// Whether versions may have become useless; told once.
    pub(crate) released: bool,
}

impl Epochs {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                current: Epoch::FIRST,
                live: BTreeMap::new(),
                released: false,
            }),
        }
    }

    /// Registers a snapshot of the current state. The caller keeps writers out meanwhile.
    pub(crate) fn acquire_current(&self) -> Epoch {
        let mut state = self.lock();
        let epoch = state.current;
        *state.live.entry(epoch).or_insert(0) += 1;
        epoch
    }

    /// Registers one more snapshot of an epoch that has one.
    pub(crate) fn acquire_again(&self, epoch: Epoch) {
        *self.lock().live.entry(epoch).or_insert(0) += 1;
    }

    /// Takes a snapshot off. Returns whether it was the last one of its epoch.
    pub(crate) fn release(&self, epoch: Epoch) -> bool {
        let mut state = self.lock();
        let Some(count) = state.live.get_mut(&epoch) else {
            return false;
        };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        state.live.remove(&epoch);
        state.released = true;
        true
    }

    /// Tells a writer, who keeps other writers and new snapshots out, what it must keep; starts a new epoch if a
    /// snapshot sees the current one.
    pub(crate) fn start_write(&self) -> WriteStart {
        let mut state = self.lock();
        let newest = state.live.last_key_value().map(|(&epoch, _)| epoch);
        if newest == Some(state.current) {
            state.current = state.current.next();
        }
        WriteStart {
            newest,
            released: std::mem::take(&mut state.released),
        }
    }

    /// Whether versions may have become useless since somebody last asked.
    pub(crate) fn take_released(&self) -> bool {
        std::mem::take(&mut self.lock().released)
    }

    /// For each of the ranges whether a live snapshot lies within.
    pub(crate) fn are_watched(&self, ranges: impl Iterator<Item = RangeInclusive<Epoch>>) -> Vec<bool> {
        let state = self.lock();
        ranges
            .map(|range| state.live.range(range).next().is_some())
            .collect()
    }

    /// How many snapshots are alive.
    pub(crate) fn live_snapshots(&self) -> usize {
        self.lock().live.values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way (counters and a map of our own), so a poisoned state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_stay_in_one_epoch_while_nobody_takes_a_snapshot() {
        let epochs = Epochs::new();
        assert!(epochs.start_write().newest.is_none());
        let first = epochs.acquire_current();
        assert!(epochs.release(first));
        assert!(epochs.start_write().newest.is_none());
        assert_eq!(epochs.acquire_current(), first);
    }

    #[test]
    fn the_first_write_after_a_snapshot_starts_an_epoch() {
        let epochs = Epochs::new();
        let first = epochs.acquire_current();
        assert_eq!(epochs.start_write().newest, Some(first));
        assert_eq!(epochs.start_write().newest, Some(first));
        assert_eq!(epochs.acquire_current(), first.next());
    }

    #[test]
    fn only_the_last_snapshot_of_an_epoch_releases_it() {
        let epochs = Epochs::new();
        let epoch = epochs.acquire_current();
        epochs.acquire_again(epoch);
        assert!(!epochs.release(epoch));
        assert!(!epochs.start_write().released);
        assert!(epochs.release(epoch));
        assert!(epochs.start_write().released);
        assert!(!epochs.take_released(), "told once");
        assert_eq!(epochs.live_snapshots(), 0);
    }
}

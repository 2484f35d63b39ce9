//! The history: values that the live list no longer holds but some snapshot still sees.
//!
//! It is a skip list of its own, keyed by `(key, epochs)`. An entry says: *snapshots of these epochs see this value
//! for this key* (or that there was none). A snapshot that finds no such entry sees what the live list says, for then
//! the key has not changed since. So the live list knows nothing of versions, and a write pays for them only while
//! a snapshot is alive and only the first time it touches a key after that snapshot.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::{Bound, RangeInclusive};

use crate::block::BLOCK_CAPACITY;
use crate::epoch::{Epoch, Epochs};
use crate::iter::Range;
use crate::list::SkipList;

/// How many old versions a write looks at while there are some to reclaim.
///
/// A write adds one version at most, so a pass over the history, at four a write, meets at most a third of what it
/// started with in new ones: reclaiming outruns writing.
const RECLAIMED_PER_WRITE: usize = 4;

/// Names an old version: the key, and the first and last epoch whose snapshots see it.
///
/// Versions of one key never overlap. They are ordered newest first, so that the one search that a list offers (the
/// first entry past those that do not qualify) finds the version that a snapshot sees.
#[derive(Clone, Debug)]
pub(crate) struct OldVersion<K> {
    pub(crate) key: K,
    from: Epoch,
    until: Epoch,
}

impl<K> OldVersion<K> {
    pub(crate) fn is_seen_from(&self, epoch: Epoch) -> bool {
        self.epochs().contains(&epoch)
    }

    fn epochs(&self) -> RangeInclusive<Epoch> {
        self.from..=self.until
    }
}

impl<K: Ord> Ord for OldVersion<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key).then_with(|| other.from.cmp(&self.from))
    }
}

impl<K: Ord> PartialOrd for OldVersion<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord> PartialEq for OldVersion<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<K: Ord> Eq for OldVersion<K> {}

/// Old versions, and how far reclaiming them has come.
pub(crate) struct History<K, V> {
    /// A value of `None` says that the key was not there.
    versions: SkipList<OldVersion<K>, Option<V>>,
    sweep: Sweep<K>,
    /// Versions that writes have earned to be looked at and that were not looked at yet.
    credit: usize,
}

/// Passes over the history, a block at a time, that drop what no snapshot sees any more.
enum Sweep<K> {
    /// No snapshot has gone since the last pass began: there is nothing to find.
    Idle,
    /// Under way; the block that holds `next` comes next, the first one if there is none. Asked for once more, the pass
    /// starts again when it is through.
    Passing {
        next: Option<OldVersion<K>>,
        again: bool,
    },
}

impl<K: Ord + Clone, V> History<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            versions: SkipList::new(),
            sweep: Sweep::Idle,
            credit: 0,
        }
    }

    /// How many old versions there are.
    pub(crate) fn len(&self) -> usize {
        self.versions.len()
    }

    /// Keeps what `key` was before it changed now, unless the snapshots of `newest` and before have their value of
    /// it already.
    pub(crate) fn keep(&mut self, key: K, newest: Epoch, previous: impl FnOnce() -> Option<V>) {
        let from = match self.newest_version(&key) {
            Some(version) if version.until >= newest => return,
            Some(version) => version.until.next(),
            None => Epoch::FIRST,
        };
        self.versions.insert(
            OldVersion {
                key,
                from,
                until: newest,
            },
            previous(),
        );
    }

    /// What a snapshot of `epoch` sees for `key`: `None` if it sees what the live list says, `Some(None)` if it sees
    /// no such key.
    pub(crate) fn value_at<Q>(&self, key: &Q, epoch: Epoch) -> Option<&Option<V>>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let start = self.versions.position_after(|version| {
            version
                .key
                .borrow()
                .cmp(key)
                .then_with(|| epoch.cmp(&version.from))
                .is_lt()
        });
        let (version, value) = Range::between(&self.versions.arena, start, None).next()?;
        (version.key.borrow() == key && version.is_seen_from(epoch)).then_some(value)
    }

    /// The versions of the keys from `start` on, in ascending order of the keys.
    pub(crate) fn versions_from(&self, start: Bound<&K>) -> Range<'_, OldVersion<K>, Option<V>> {
        let start = self.versions.position_after(|version| match start {
            Bound::Unbounded => false,
            Bound::Included(start) => version.key < *start,
            Bound::Excluded(start) => version.key <= *start,
        });
        Range::between(&self.versions.arena, start, None)
    }

    fn newest_version(&self, key: &K) -> Option<&OldVersion<K>> {
        let start = self.versions.position_after(|version| version.key < *key);
        let (version, _) = Range::between(&self.versions.arena, start, None).next()?;
        (version.key == *key).then_some(version)
    }

    /// Notes that a snapshot has gone: what it alone has seen can be dropped.
    pub(crate) fn request_sweep(&mut self) {
        match &mut self.sweep {
            Sweep::Passing { again, .. } => *again = true,
            idle @ Sweep::Idle => {
                *idle = Sweep::Passing {
                    next: None,
                    again: false,
                }
            }
        }
    }

    /// Whether there may be something to reclaim.
    pub(crate) fn is_sweeping(&self) -> bool {
        matches!(self.sweep, Sweep::Passing { .. })
    }

    /// Does one write's share of the sweep: a whole block once enough writes have come, and never more than one.
    pub(crate) fn sweep_for_one_write(&mut self, epochs: &Epochs) {
        if !self.is_sweeping() {
            return;
        }
        self.credit = (self.credit + RECLAIMED_PER_WRITE).min(2 * BLOCK_CAPACITY);
        if self.credit >= BLOCK_CAPACITY {
            // A block that is not full leaves credit over, so that the next comes sooner.
            let visited = self.sweep_block(epochs);
            self.credit -= visited.clamp(1, self.credit);
        }
    }

    /// Goes over one block of versions. Returns how many it has looked at.
    pub(crate) fn sweep_block(&mut self, epochs: &Epochs) -> usize {
        let Sweep::Passing { next: start, again } = std::mem::replace(&mut self.sweep, Sweep::Idle) else {
            return 0;
        };
        let done = self.versions.sweep_block(start.as_ref(), |block| {
            epochs.are_watched(block.keys().iter().map(OldVersion::epochs))
        });
        self.sweep = match done.next {
            Some(next) => Sweep::Passing {
                next: Some(next),
                again,
            },
            None if again => Sweep::Passing {
                next: None,
                again: false,
            },
            None => Sweep::Idle,
        };
        done.visited
    }
}

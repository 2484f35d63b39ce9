//! A shared list at a point in time.

use std::borrow::Borrow;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::epoch::Epoch;
use crate::shared::Shared;

/// How many entries an iterator looks at before it lets writers in.
const CHUNK: usize = 256;

/// A [`SharedSkipList`](crate::SharedSkipList) exactly as it was when the snapshot was taken.
///
/// It stays the same whatever is written afterwards, for as long as it lives, on any thread. While it lives, the first
/// write to each key keeps the value that the snapshot sees. A clone is a snapshot of the same moment, and as cheap.
///
/// Like the list's handles it must not be read inside a closure that holds the list's lock, and reading it panics once
/// a write has panicked; see [`SharedSkipList`](crate::SharedSkipList#deadlocks).
///
/// # Drop
///
/// Dropping a snapshot never waits for the lock. What only it has seen is reclaimed a bounded step at a time: one step
/// here if the lock is free, the others by the writes that follow or by
/// [`SharedSkipList::reclaim`](crate::SharedSkipList::reclaim).
pub struct Snapshot<K: Ord + Clone, V: Clone> {
    shared: Arc<Shared<K, V>>,
    epoch: Epoch,
    len: usize,
}

impl<K: Ord + Clone, V: Clone> Snapshot<K, V> {
    /// `epoch` is registered already; the snapshot takes it off when it is dropped.
    pub(crate) fn new(shared: Arc<Shared<K, V>>, epoch: Epoch, len: usize) -> Self {
        Self { shared, epoch, len }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy of the value of `key`.
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.shared.lock_to_read().get_at(key, self.epoch).cloned()
    }

    /// Whether there is an entry for `key`.
    #[must_use]
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.shared.lock_to_read().get_at(key, self.epoch).is_some()
    }

    /// All entries in ascending order of their keys. See [`range`](Self::range).
    #[must_use]
    pub fn iter(&self) -> SnapshotIter<K, V> {
        self.range(..)
    }

    /// Copies of the entries whose keys lie within `bounds`, in ascending order.
    ///
    /// The iterator takes the lock for some hundred entries at a time and holds none while the caller works on them,
    /// so writers never wait long, however slow the caller. It keeps a clone of the snapshot and may outlive this one.
    /// Bounds that exclude every key give an empty iterator.
    #[must_use]
    pub fn range(&self, bounds: impl RangeBounds<K>) -> SnapshotIter<K, V> {
        SnapshotIter {
            snapshot: self.clone(),
            chunk: Vec::new().into_iter(),
            rest: Some((bounds.start_bound().cloned(), bounds.end_bound().cloned())),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Clone for Snapshot<K, V> {
    fn clone(&self) -> Self {
        self.shared.acquire_again(self.epoch);
        Self {
            shared: Arc::clone(&self.shared),
            epoch: self.epoch,
            len: self.len,
        }
    }
}

impl<K: Ord + Clone, V: Clone> Drop for Snapshot<K, V> {
    fn drop(&mut self) {
        self.shared.release(self.epoch);
    }
}

impl<K: Ord + Clone, V: Clone> fmt::Debug for Snapshot<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl<K: Ord + Clone, V: Clone> IntoIterator for &Snapshot<K, V> {
    type Item = (K, V);
    type IntoIter = SnapshotIter<K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Entries of a snapshot in ascending order; see [`Snapshot::range`].
pub struct SnapshotIter<K: Ord + Clone, V: Clone> {
    snapshot: Snapshot<K, V>,
    chunk: std::vec::IntoIter<(K, V)>,
    /// The bounds of what was not fetched yet; none when everything was.
    rest: Option<(Bound<K>, Bound<K>)>,
}

impl<K: Ord + Clone, V: Clone> SnapshotIter<K, V> {
    fn fetch_chunk(&mut self, (start, end): (Bound<K>, Bound<K>)) {
        let Snapshot { shared, epoch, .. } = &self.snapshot;
        let chunk = shared
            .lock_to_read()
            .chunk_at(*epoch, (start.as_ref(), end.as_ref()), CHUNK);
        self.chunk = chunk.entries.into_iter();
        self.rest = chunk.resume_after.map(|key| (Bound::Excluded(key), end));
    }
}

impl<K: Ord + Clone, V: Clone> Iterator for SnapshotIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.chunk.next() {
                return Some(entry);
            }
            let rest = self.rest.take()?;
            self.fetch_chunk(rest);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.chunk.len(), Some(self.snapshot.len()))
    }
}

impl<K: Ord + Clone, V: Clone> FusedIterator for SnapshotIter<K, V> {}

impl<K: Ord + Clone, V: Clone> fmt::Debug for SnapshotIter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotIter")
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

//! A live list together with its history.

use std::borrow::Borrow;
use std::ops::Bound;

use crate::epoch::{Epoch, Epochs};
use crate::history::History;
use crate::list::SkipList;

/// What the lock of a [`SharedSkipList`](crate::SharedSkipList) guards.
pub(crate) struct Versioned<K, V> {
    pub(crate) live: SkipList<K, V>,
    pub(crate) history: History<K, V>,
}

/// Some entries of a snapshot, and the key to go on behind if there may be more.
pub(crate) struct Chunk<K, V> {
    pub(crate) entries: Vec<(K, V)>,
    pub(crate) resume_after: Option<K>,
}

impl<K: Ord + Clone, V: Clone> Versioned<K, V> {
    pub(crate) fn new(live: SkipList<K, V>) -> Self {
        Self {
            live,
            history: History::new(),
        }
    }

    /// What a snapshot of `epoch` sees for `key`.
    pub(crate) fn get_at<Q>(&self, key: &Q, epoch: Epoch) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        match self.history.value_at(key, epoch) {
            Some(old) => old.as_ref(),
            None => self.live.get(key),
        }
    }

    /// What a snapshot of `epoch` sees within `bounds`: the first entries, found by looking at `limit` places or a
    /// few more (the versions of the last key).
    pub(crate) fn chunk_at(&self, epoch: Epoch, bounds: (Bound<&K>, Bound<&K>), limit: usize) -> Chunk<K, V> {
        let mut live = self.live.range::<K, _>(bounds).peekable();
        let mut history = self
            .history
            .versions_from(bounds.0)
            .take_while(|(version, _)| is_before_end(&version.key, bounds.1))
            .peekable();
        let mut entries = Vec::new();
        let mut visited = 0;
        while let Some(key) = least(
            live.peek().map(|(key, _)| *key),
            history.peek().map(|(old, _)| &old.key),
        ) {
            let mut seen = live
                .next_if(|(live_key, _)| *live_key == key)
                .map(|(_, value)| value);
            visited += 1;
            while let Some((version, old)) = history.next_if(|(version, _)| version.key == *key) {
                visited += 1;
                if version.is_seen_from(epoch) {
                    seen = old.as_ref();
                }
            }
            entries.extend(seen.map(|value| (key.clone(), value.clone())));
            if visited >= limit {
                return Chunk {
                    entries,
                    resume_after: Some(key.clone()),
                };
            }
        }
        Chunk {
            entries,
            resume_after: None,
        }
    }

    /// Looks at up to about `limit` old versions and drops those that no snapshot sees. Returns whether more are left
    /// to look at.
    pub(crate) fn reclaim(&mut self, epochs: &Epochs, limit: usize) -> bool {
        if epochs.take_released() {
            self.history.request_sweep();
        }
        let mut visited = 0;
        while visited < limit && self.history.is_sweeping() {
            visited += self.history.sweep_block(epochs).max(1);
        }
        self.history.is_sweeping()
    }
}

fn is_before_end<K: Ord>(key: &K, end: Bound<&K>) -> bool {
    match end {
        Bound::Unbounded => true,
        Bound::Included(end) => key <= end,
        Bound::Excluded(end) => key < end,
    }
}

/// The lesser of the keys that are there.
fn least<'a, K: Ord>(left: Option<&'a K>, right: Option<&'a K>) -> Option<&'a K> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

//! Changes to a shared list under one lock.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use crate::epoch::{Epoch, Epochs};
use crate::list::SkipList;
use crate::versioned::Versioned;

/// The right to change a shared list for the time of one [`SharedSkipList::write`](crate::SharedSkipList::write).
///
/// It reads like the [`SkipList`] as it is now, the batch's own changes included.
pub struct WriteBatch<'a, K, V> {
    versioned: &'a mut Versioned<K, V>,
    epochs: &'a Epochs,
    /// The newest epoch that a snapshot looks at. New snapshots cannot come while the batch holds the lock.
    newest: Option<Epoch>,
}

impl<'a, K: Ord + Clone, V: Clone> WriteBatch<'a, K, V> {
    pub(crate) fn start(versioned: &'a mut Versioned<K, V>, epochs: &'a Epochs) -> Self {
        let start = epochs.start_write();
        if start.released {
            versioned.history.request_sweep();
        }
        Self {
            versioned,
            epochs,
            newest: start.newest,
        }
    }

    /// Sets `key` to `value` and returns the value it had, if any.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Versioned { live, history } = &mut *self.versioned;
        let previous = match self.newest {
            None => live.insert(key, value),
            Some(newest) => {
                let previous = live.insert(key.clone(), value);
                history.keep(key, newest, || previous.clone());
                previous
            }
        };
        history.sweep_for_one_write(self.epochs);
        previous
    }

    /// Removes `key` and returns its value.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let Versioned { live, history } = &mut *self.versioned;
        history.sweep_for_one_write(self.epochs);
        let (key, value) = live.remove_entry(key)?;
        if let Some(newest) = self.newest {
            history.keep(key, newest, || Some(value.clone()));
        }
        Some(value)
    }

    /// Removes all entries.
    ///
    /// While a snapshot is alive this takes as long as removing them one by one: the snapshot needs them.
    pub fn clear(&mut self) {
        self.replace(SkipList::new());
    }

    /// Puts the entries of `list` in place of all entries there are: the way to install a state that came from
    /// elsewhere, built beforehand without a lock.
    ///
    /// With no snapshot alive this exchanges two lists. While one is alive it takes O((n + m) log (n + m)) for n old
    /// and m new entries under the lock: the snapshot needs the old ones.
    pub fn replace(&mut self, list: SkipList<K, V>) {
        let Versioned { live, history } = &mut *self.versioned;
        let replaced = std::mem::replace(live, list);
        if let Some(newest) = self.newest {
            for (key, value) in replaced {
                history.keep(key, newest, || Some(value));
            }
            for key in live.keys() {
                history.keep(key.clone(), newest, || None);
            }
        }
    }
}

impl<K, V> Deref for WriteBatch<'_, K, V> {
    type Target = SkipList<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.versioned.live
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for WriteBatch<'_, K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for WriteBatch<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.versioned.live.fmt(f)
    }
}

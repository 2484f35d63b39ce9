//! The list of many threads.

use std::borrow::Borrow;
use std::fmt;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::batch::WriteBatch;
use crate::epoch::{Epoch, Epochs};
use crate::list::SkipList;
use crate::snapshot::Snapshot;
use crate::versioned::Versioned;

/// How many old versions the drop of a snapshot looks at by itself; the others are left to the writes that follow.
const RECLAIMED_PER_DROP: usize = 256;

/// A skip list for many threads, which can be read at a point in time while writes go on.
///
/// A handle is cheap to clone, and all clones mean the same list. Reads of the present share a lock, writes take it
/// alone. [`snapshot`](Self::snapshot) gives a [`Snapshot`] of this moment in constant time; see the
/// [crate documentation](crate#snapshots) for what that costs and when.
///
/// # Deadlocks
///
/// The lock is a [`std::sync::RwLock`]. A closure given to [`read`](Self::read) or [`write`](Self::write) must not
/// use a handle or a snapshot of the same list: that would wait for the lock that it holds itself. Dropping a snapshot
/// is allowed anywhere.
///
/// # Panics
///
/// If code of the caller (a closure given to [`write`](Self::write), or a key's `Ord`) panics in the middle of a
/// write, the list may hold half of a batch. Nobody shall take that for a state of the list, so the lock stays poisoned
/// and every later use of the list or of its snapshots panics. Only dropping them does not.
///
/// # Examples
///
/// ```
/// use skiplist::SharedSkipList;
///
/// let list = SharedSkipList::new();
/// list.insert("a", 1);
/// let before = list.snapshot();
///
/// let writer = list.clone();
/// std::thread::spawn(move || {
///     writer.write(|batch| {
///         batch.remove("a");
///         batch.insert("b", 2);
///     });
/// })
/// .join()
/// .unwrap();
///
/// assert_eq!(list.get("a"), None);
/// assert_eq!(before.get("a"), Some(1));
/// assert!(before.iter().eq([("a", 1)]));
/// ```
pub struct SharedSkipList<K, V> {
    shared: Arc<Shared<K, V>>,
}

/// How much a shared list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedStats {
    /// Entries in the list as it is now.
    pub entries: usize,
    /// Values of the past that are kept for snapshots or wait to be reclaimed.
    pub old_versions: usize,
    /// Snapshots that are alive.
    pub snapshots: usize,
}

impl<K: Ord + Clone, V: Clone> SharedSkipList<K, V> {
    /// An empty list with a fixed seed.
    #[must_use]
    pub fn new() -> Self {
        Self::from(SkipList::new())
    }

    /// An empty list that draws the heights of its towers from `seed`; see [`SkipList::with_seed`].
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self::from(SkipList::with_seed(seed))
    }

    /// Sets `key` to `value` and returns the value it had, if any.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.write(|batch| batch.insert(key, value))
    }

    /// Removes `key` and returns its value.
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.write(|batch| batch.remove(key))
    }

    /// Removes all entries.
    pub fn clear(&self) {
        self.write(|batch| batch.clear());
    }

    /// A copy of the value of `key`.
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.read(|list| list.get(key).cloned())
    }

    /// Whether the list holds `key`.
    #[must_use]
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.read(|list| list.contains_key(key))
    }

    /// How many entries the list holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read(SkipList::len)
    }

    /// Whether the list holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read(SkipList::is_empty)
    }

    /// Reads the list as it is now. Writers wait until `read` returns.
    pub fn read<R>(&self, read: impl FnOnce(&SkipList<K, V>) -> R) -> R {
        read(&self.shared.lock_to_read().live)
    }

    /// Makes any number of changes at once: no reader and no snapshot sees some of them without the others.
    /// Everybody else waits until `write` returns.
    pub fn write<R>(&self, write: impl FnOnce(&mut WriteBatch<'_, K, V>) -> R) -> R {
        let mut versioned = self.shared.lock_to_write();
        write(&mut WriteBatch::start(&mut versioned, &self.shared.epochs))
    }

    /// The list as it is at this moment, to be read for as long as the snapshot lives. Takes O(1).
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<K, V> {
        let versioned = self.shared.lock_to_read();
        let epoch = self.shared.epochs.acquire_current();
        Snapshot::new(Arc::clone(&self.shared), epoch, versioned.live.len())
    }

    /// Looks at about `limit` old versions and drops those that no snapshot needs. Returns whether there may be more
    /// to reclaim.
    ///
    /// Nobody has to call this: dropping a snapshot reclaims some, and each write reclaims a few more. It serves a list
    /// that falls silent after a large snapshot and should give the memory back all the same.
    pub fn reclaim(&self, limit: usize) -> bool {
        self.shared.lock_to_write().reclaim(&self.shared.epochs, limit)
    }

    /// How much the list holds.
    #[must_use]
    pub fn stats(&self) -> SharedStats {
        let versioned = self.shared.lock_to_read();
        SharedStats {
            entries: versioned.live.len(),
            old_versions: versioned.history.len(),
            snapshots: self.shared.epochs.live_snapshots(),
        }
    }
}

/// What all handles and snapshots of one list share.
pub(crate) struct Shared<K, V> {
    versioned: RwLock<Versioned<K, V>>,
    epochs: Epochs,
}

impl<K, V> Shared<K, V> {
    pub(crate) fn lock_to_read(&self) -> RwLockReadGuard<'_, Versioned<K, V>> {
        self.versioned.read().unwrap_or_else(|_| panic_because_poisoned())
    }

    fn lock_to_write(&self) -> RwLockWriteGuard<'_, Versioned<K, V>> {
        self.versioned
            .write()
            .unwrap_or_else(|_| panic_because_poisoned())
    }

    /// Registers one more snapshot of an epoch that has one.
    pub(crate) fn acquire_again(&self, epoch: Epoch) {
        self.epochs.acquire_again(epoch);
    }

    /// Takes a snapshot off, and reclaims a bounded part of what it held if nobody has the lock just now.
    pub(crate) fn release(&self, epoch: Epoch)
    where
        K: Ord + Clone,
        V: Clone,
    {
        // Waiting for the lock here could be waiting for the thread's own guard.
        if self.epochs.release(epoch)
            && let Ok(mut versioned) = self.versioned.try_write()
        {
            versioned.reclaim(&self.epochs, RECLAIMED_PER_DROP);
        }
    }
}

fn panic_because_poisoned() -> ! {
    panic!("an earlier panic in the middle of a write has left this skip list in doubt: build it anew")
}

impl<K, V> Clone for SharedSkipList<K, V> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Default for SharedSkipList<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone, V: Clone> From<SkipList<K, V>> for SharedSkipList<K, V> {
    fn from(list: SkipList<K, V>) -> Self {
        Self {
            shared: Arc::new(Shared {
                versioned: RwLock::new(Versioned::new(list)),
                epochs: Epochs::new(),
            }),
        }
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedSkipList<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self::from(SkipList::from_iter(entries))
    }
}

impl<K, V> fmt::Debug for SharedSkipList<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSkipList")
            .field("snapshots", &self.shared.epochs.live_snapshots())
            .finish_non_exhaustive()
    }
}

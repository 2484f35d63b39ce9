//! The list of one owner: its type and everything that reads it.

use std::borrow::Borrow;
use std::fmt;
use std::ops::RangeBounds;

use crate::arena::{Arena, BlockId};
use crate::heights::Heights;
use crate::iter::{Iter, Keys, Range, Values};

/// The seed of [`SkipList::new`]. Any number does; a fixed one makes runs repeatable.
const DEFAULT_SEED: u64 = 0x5eed;

/// An ordered map on a skip list, for one owner.
///
/// Search, insertion and removal take O(log n) expected time; walking on to the next entry takes O(1). The
/// [crate documentation](crate) tells how the list is built. For several threads or for reads at a point in time see
/// [`SharedSkipList`](crate::SharedSkipList).
///
/// A key must not change its order while it is in a list (through a `Cell`, say). The list then stays memory-safe but
/// may miss entries. The same holds after a panic of the key's own `Ord` or `Clone` in the middle of a change.
///
/// # Examples
///
/// ```
/// use skiplist::SkipList;
///
/// let mut list = SkipList::new();
/// assert_eq!(list.insert("b", 1), None);
/// assert_eq!(list.insert("a", 2), None);
/// assert_eq!(list.insert("b", 3), Some(1));
///
/// assert_eq!(list.get("b"), Some(&3));
/// assert_eq!(list.first(), Some((&"a", &2)));
/// assert!(list.range("aa"..).eq([(&"b", &3)]));
/// assert_eq!(list.remove("a"), Some(2));
/// assert_eq!(list.len(), 1);
/// ```
#[derive(Clone)]
pub struct SkipList<K, V> {
    pub(crate) arena: Arena<K, V>,
    pub(crate) heights: Heights,
    /// Levels in use: the height of the tallest tower, at least one.
    pub(crate) levels: usize,
    pub(crate) len: usize,
}

/// How much a list holds and how much room it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListStats {
    /// Entries in the list.
    pub entries: usize,
    /// Blocks that hold them.
    pub blocks: usize,
    /// Nodes that hold the blocks.
    pub nodes: usize,
    /// Slots of former nodes that the next new nodes use.
    pub free_slots: usize,
    /// Levels of links over the nodes.
    pub levels: usize,
}

impl<K, V> SkipList<K, V> {
    /// An empty list with a fixed seed: the same calls always build the same towers.
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(DEFAULT_SEED)
    }

    /// An empty list that draws the heights of its towers from `seed`.
    ///
    /// The seed has no influence on what the list holds, only on its shape. A secret seed keeps somebody who chooses
    /// the keys, and knows this crate, from removing just the tall towers.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self {
            arena: Arena::new(),
            heights: Heights::with_seed(seed),
            levels: 1,
            len: 0,
        }
    }

    /// How many entries the list holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the list holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry with the least key.
    #[must_use]
    pub fn first(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    /// The entry with the greatest key.
    #[must_use]
    pub fn last(&self) -> Option<(&K, &V)> {
        let block = self.arena.block(self.last_block(|_| true));
        block.entry(block.len().checked_sub(1)?)
    }

    /// All entries in ascending order of their keys.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter::new(Range::all(&self.arena), self.len)
    }

    /// All keys in ascending order.
    #[must_use]
    pub fn keys(&self) -> Keys<'_, K, V> {
        Keys::new(self.iter())
    }

    /// All values, in ascending order of their keys.
    #[must_use]
    pub fn values(&self) -> Values<'_, K, V> {
        Values::new(self.iter())
    }

    /// How much the list holds and how much room it takes.
    #[must_use]
    pub fn stats(&self) -> ListStats {
        ListStats {
            entries: self.len,
            blocks: std::iter::successors(Some(BlockId::FIRST), |&block| self.arena.next_block(block))
                .count(),
            nodes: self.arena.nodes(),
            free_slots: self.arena.free_slots(),
            levels: self.levels,
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The key and value that the list holds for `key`.
    #[must_use]
    pub fn get_key_value<Q>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let position = self.find(key)?;
        self.arena.block(position.block).entry(position.index)
    }

    /// The value of `key`, to be changed in place.
    #[must_use]
    pub fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let position = self.find(key)?;
        Some(self.arena.block_mut(position.block).value_mut(position.index))
    }

    /// Whether the list holds `key`.
    #[must_use]
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.find(key).is_some()
    }

    /// The entries whose keys lie within `bounds`, in ascending order.
    ///
    /// Bounds that exclude every key, such as `5..3`, give an empty iterator (where `BTreeMap` panics).
    ///
    /// ```
    /// use std::ops::Bound::{Excluded, Unbounded};
    ///
    /// let list = skiplist::SkipList::from([(1, 'a'), (2, 'b'), (3, 'c')]);
    /// assert!(list.range(2..).eq([(&2, &'b'), (&3, &'c')]));
    /// assert!(list.range((Excluded(&2), Unbounded)).eq([(&3, &'c')]));
    /// ```
    pub fn range<Q, R>(&self, bounds: R) -> Range<'_, K, V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
        R: RangeBounds<Q>,
    {
        match self.positions(&bounds) {
            Some((start, end)) => Range::between(&self.arena, start, end),
            None => Range::empty(&self.arena),
        }
    }
}

impl<K, V> Default for SkipList<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SkipList<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// Two lists are equal if they hold equal entries; their shape does not count.
impl<K: PartialEq, V: PartialEq> PartialEq for SkipList<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other)
    }
}

impl<K: Eq, V: Eq> Eq for SkipList<K, V> {}

impl<'a, K, V> IntoIterator for &'a SkipList<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

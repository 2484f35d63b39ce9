//! Building a list from many entries at once: from sorted ones in linear time, from others by sorting them first.

use crate::arena::{BlockId, Predecessors};
use crate::block::Block;
use crate::list::SkipList;
use crate::page::Page;

/// Why entries were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A key is equal to or less than the one before it.
    #[error(
        "the key at position {position} is not greater than the one before it: the entries must be in strictly \
         ascending order of their keys, as a dump has them; sort them and drop duplicates, or take another copy of the dump"
    )]
    NotAscending {
        /// The offending key's position, counted from 0.
        position: usize,
    },
    /// A dump has more keys than values or fewer.
    #[error("the dump holds {keys} keys but {values} values: it is damaged, take another copy")]
    Uneven {
        /// How many keys there are.
        keys: usize,
        /// How many values there are.
        values: usize,
    },
}

impl<K: Ord + Clone, V> SkipList<K, V> {
    /// A list of entries that come in strictly ascending order of their keys, built in O(n).
    ///
    /// # Errors
    ///
    /// [`LoadError::NotAscending`] at the first key that is not greater than the one before it.
    ///
    /// # Examples
    ///
    /// ```
    /// use skiplist::{LoadError, SkipList};
    ///
    /// let list = SkipList::from_sorted([(1, 'a'), (2, 'b')])?;
    /// assert_eq!(list.last(), Some((&2, &'b')));
    /// assert_eq!(
    ///     SkipList::from_sorted([(2, 'b'), (2, 'c')]),
    ///     Err(LoadError::NotAscending { position: 1 }),
    /// );
    /// # Ok::<(), LoadError>(())
    /// ```
    pub fn from_sorted(entries: impl IntoIterator<Item = (K, V)>) -> Result<Self, LoadError> {
        let mut appender = Appender::new(Self::new());
        for (key, value) in entries {
            appender.push(key, value)?;
        }
        Ok(appender.finish())
    }
}

/// Appends to the end of a list in constant time an entry.
pub(crate) struct Appender<K, V> {
    list: SkipList<K, V>,
    /// The last block.
    last: BlockId,
    /// The last node of each level.
    tails: Predecessors,
}

impl<K: Ord + Clone, V> Appender<K, V> {
    pub(crate) fn new(list: SkipList<K, V>) -> Self {
        let last = list.last_block(|_| true);
        let tails = list.tails();
        Self { list, last, tails }
    }

    /// Appends an entry whose key must be greater than the last.
    pub(crate) fn push(&mut self, key: K, value: V) -> Result<(), LoadError> {
        let block = self.list.arena.block(self.last);
        if block.keys().last().is_some_and(|last| *last >= key) {
            return Err(LoadError::NotAscending {
                position: self.list.len(),
            });
        }
        if block.is_full() {
            self.start_block(key.clone());
        }
        self.list.arena.block_mut(self.last).push(key, value);
        self.list.len += 1;
        Ok(())
    }

    pub(crate) fn finish(self) -> SkipList<K, V> {
        self.list
    }

    fn start_block(&mut self, fence: K) {
        let BlockId { node, slot } = self.last;
        let page = self.list.arena.page_mut(node);
        if !page.is_full() {
            page.insert_after(slot, fence, Block::default());
            self.last = BlockId { node, slot: slot + 1 };
            return;
        }
        let height = self.list.draw_height();
        let node = self.list.arena.link(fence, Page::default(), height, &self.tails);
        self.tails[..height].fill(node);
        self.last = BlockId { node, slot: 0 };
    }
}

/// Of entries with equal keys the last one wins, as if they were inserted one after another.
impl<K: Ord + Clone, V> FromIterator<(K, V)> for SkipList<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        entries.dedup_by(|later, kept| {
            let equal = later.0 == kept.0;
            if equal {
                std::mem::swap(later, kept);
            }
            equal
        });
        Self::from_sorted(entries).expect("sorted entries without duplicates are strictly ascending")
    }
}

impl<K: Ord + Clone, V, const N: usize> From<[(K, V); N]> for SkipList<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Clone, V> Extend<(K, V)> for SkipList<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

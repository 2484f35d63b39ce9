//! Changing a list: entries come and go, blocks split when they are full and merge when they run low.

use std::borrow::Borrow;

use crate::arena::{Arena, NodeId};
use crate::block::{BLOCK_CAPACITY, Block};
use crate::list::SkipList;

/// A block with fewer entries looks for a neighbour to merge with.
const MERGE_BELOW: usize = BLOCK_CAPACITY / 4;

/// Two blocks merge if this many entries or fewer come together. Well under the capacity, so that the next few
/// insertions do not split the block again.
const MERGED_AT_MOST: usize = BLOCK_CAPACITY * 3 / 4;

impl<K: Ord + Clone, V> SkipList<K, V> {
    /// Sets `key` to `value` and returns the value it had, if any. A key that is already there stays the same object.
    ///
    /// # Panics
    ///
    /// If the list would need 2^32 blocks, which no memory of today holds.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let node = self.locate(&key);
        match self.index_in(node, &key) {
            Ok(index) => Some(std::mem::replace(
                self.arena.block_mut(node).value_mut(index),
                value,
            )),
            Err(index) => {
                self.insert_at(node, index, key, value);
                None
            }
        }
    }

    /// Removes `key` and returns its value.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.remove_entry(key).map(|(_, value)| value)
    }

    /// Removes `key` and returns the key and value that the list held.
    pub fn remove_entry<Q>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let position = self.find(key)?;
        Some(self.remove_at(position.node, position.index))
    }

    /// Removes and returns the entry with the least key.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        (!self.is_empty()).then(|| self.remove_at(NodeId::HEAD, 0))
    }

    /// Removes all entries and gives their memory back.
    pub fn clear(&mut self) {
        self.arena = Arena::new();
        self.levels = 1;
        self.len = 0;
    }

    /// Keeps the entries for which `keep` says true and removes the others, in ascending order.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let mut start = None;
        loop {
            let sweep = self.sweep_block(start.as_ref(), |block| {
                block.entries_mut().map(|(key, value)| keep(key, value)).collect()
            });
            match sweep.next {
                Some(next) => start = Some(next),
                None => return,
            }
        }
    }

    /// Goes over the one block that holds the keys from `start` on (the first block, if there is no start) and removes
    /// the entries that `choose` flags with false.
    pub(crate) fn sweep_block(
        &mut self,
        start: Option<&K>,
        choose: impl FnOnce(&mut Block<K, V>) -> Vec<bool>,
    ) -> BlockSweep<K> {
        let node = start.map_or(NodeId::HEAD, |start| self.locate(start));
        // The next block may be merged into this one below. Its fence then still leads behind this block's old keys.
        let next = self
            .arena
            .next(node, 0)
            .map(|next| self.arena.fence(next).clone());
        let block = self.arena.block_mut(node);
        let visited = block.len();
        let flags = choose(block);
        let removed = block.keep_flagged(&flags);
        if removed > 0 {
            self.len -= removed;
            self.rebalance(node);
        }
        BlockSweep { next, visited }
    }

    fn remove_at(&mut self, node: NodeId, index: usize) -> (K, V) {
        let entry = self.arena.block_mut(node).remove(index);
        self.len -= 1;
        self.rebalance(node);
        entry
    }

    fn insert_at(&mut self, node: NodeId, index: usize, key: K, value: V) {
        let full = self.arena.block(node).is_full();
        let (node, index) = if full {
            self.split(node, index, &key)
        } else {
            (node, index)
        };
        self.arena.block_mut(node).insert(index, key, value);
        self.len += 1;
    }

    /// Splits the full block of `node`, into which `key` belongs at `index`. Returns where it belongs now.
    ///
    /// The block splits in the middle; but if the key goes behind all others, it starts a block of its own. So keys
    /// that come in ascending order leave full blocks behind, not halves.
    fn split(&mut self, node: NodeId, index: usize, key: &K) -> (NodeId, usize) {
        let full = self.arena.block(node).len();
        let appends = index == full && self.arena.next(node, 0).is_none();
        let middle = if appends { full } else { full / 2 };
        let fence = self.arena.block(node).keys().get(middle).unwrap_or(key).clone();
        let predecessors = self.predecessors(&fence);
        let height = self.draw_height();
        let upper = self.arena.block_mut(node).split_off(middle);
        let right = self.arena.link(fence, upper, height, &predecessors);
        if appends || index > middle {
            (right, index - middle)
        } else {
            (node, index)
        }
    }

    pub(crate) fn draw_height(&mut self) -> usize {
        let height = self.heights.draw();
        self.levels = self.levels.max(height);
        height
    }

    /// Merges the block of `node` with a neighbour if both are low enough, and always if it is empty.
    ///
    /// So no block but the head's is ever empty, and of two neighbours at least one holds a fair share: the memory
    /// that the list takes stays in proportion to its entries.
    fn rebalance(&mut self, node: NodeId) {
        if self.arena.block(node).len() >= MERGE_BELOW {
            return;
        }
        if let Some(next) = self.arena.next(node, 0)
            && self.may_merge(node, next)
        {
            self.absorb_next(node, next);
        } else if node != NodeId::HEAD {
            let [previous, ..] = self.predecessors(self.arena.fence(node));
            if self.may_merge(previous, node) {
                self.absorb_next(previous, node);
            }
        }
    }

    fn may_merge(&self, left: NodeId, right: NodeId) -> bool {
        let (left, right) = (self.arena.block(left).len(), self.arena.block(right).len());
        left == 0 || right == 0 || left + right <= MERGED_AT_MOST
    }

    /// Moves the entries of `next` into `node`, which stands right before it, and unlinks `next`.
    fn absorb_next(&mut self, node: NodeId, next: NodeId) {
        let predecessors = self.predecessors(self.arena.fence(next));
        let block = self.arena.unlink(next, &predecessors);
        self.arena.block_mut(node).append(block);
        while self.levels > 1 && self.arena.next(NodeId::HEAD, self.levels - 1).is_none() {
            self.levels -= 1;
        }
    }
}

/// What [`SkipList::sweep_block`] has done.
pub(crate) struct BlockSweep<K> {
    /// Where the following block starts; none behind the last.
    pub(crate) next: Option<K>,
    /// How many entries it has looked at.
    pub(crate) visited: usize,
}

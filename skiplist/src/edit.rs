//! Changing a list: entries come and go, blocks split when they are full and merge when they run low.

use std::borrow::Borrow;

use crate::arena::{Arena, BlockId, NodeId};
use crate::block::{BLOCK_CAPACITY, Block};
use crate::list::SkipList;
use crate::page::PAGE_CAPACITY;
use crate::search::Position;

/// A block with fewer entries looks for a neighbour to merge with.
const MERGE_BLOCK_BELOW: usize = BLOCK_CAPACITY / 4;

/// Two blocks merge if this many entries or fewer come together. Well under the capacity, so that the next few
/// insertions do not split the block again.
const MERGED_BLOCK_AT_MOST: usize = BLOCK_CAPACITY * 3 / 4;

/// The same for pages and their blocks.
const MERGE_PAGE_BELOW: usize = PAGE_CAPACITY / 4;
const MERGED_PAGE_AT_MOST: usize = PAGE_CAPACITY * 3 / 4;

impl<K: Ord + Clone, V> SkipList<K, V> {
    /// Sets `key` to `value` and returns the value it had, if any. A key that is already there stays the same object.
    ///
    /// # Panics
    ///
    /// If the list would need 2^32 nodes, which no memory of today holds.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let block = self.locate(&key);
        match self.index_in(block, &key) {
            Ok(index) => Some(std::mem::replace(
                self.arena.block_mut(block).value_mut(index),
                value,
            )),
            Err(index) => {
                self.insert_at(Position { block, index }, key, value);
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
        Some(self.remove_at(position))
    }

    /// Removes and returns the entry with the least key.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        (!self.is_empty()).then(|| self.remove_at(Position::START))
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
        let id = start.map_or(BlockId::FIRST, |start| self.locate(start));
        // The next block may be merged into this one below. Its fence then still leads behind this block's old keys.
        let next = self
            .arena
            .next_block(id)
            .map(|next| self.arena.block_fence(next).clone());
        let block = self.arena.block_mut(id);
        let visited = block.len();
        let flags = choose(block);
        let removed = block.keep_flagged(&flags);
        if removed > 0 {
            self.len -= removed;
            self.rebalance(id);
        }
        BlockSweep { next, visited }
    }

    fn remove_at(&mut self, position: Position) -> (K, V) {
        let entry = self.arena.block_mut(position.block).remove(position.index);
        self.len -= 1;
        self.rebalance(position.block);
        entry
    }

    fn insert_at(&mut self, position: Position, key: K, value: V) {
        let full = self.arena.block(position.block).is_full();
        let Position { block, index } = if full {
            self.split_block(position, &key)
        } else {
            position
        };
        self.arena.block_mut(block).insert(index, key, value);
        self.len += 1;
    }

    /// Splits the full block into which `key` belongs at `position`. Returns where it belongs now.
    ///
    /// The block splits in the middle; but the last one of all splits where the key goes, if that is behind the middle,
    /// and a key behind all others starts a block of its own. So keys that come in ascending order, or nearly, leave
    /// full blocks behind, not halves.
    fn split_block(&mut self, Position { block, index }: Position, key: &K) -> Position {
        let full = self.arena.block(block).len();
        let is_last = self.arena.next_block(block).is_none();
        let appends = is_last && index == full;
        let middle = if is_last { index.max(full / 2) } else { full / 2 };
        let fence = self.arena.block(block).keys().get(middle).unwrap_or(key).clone();
        let block = if self.arena.page(block.node).is_full() {
            self.split_page(block)
        } else {
            block
        };
        let upper = self.arena.block_mut(block).split_off(middle);
        self.arena
            .page_mut(block.node)
            .insert_after(block.slot, fence, upper);
        if appends || index > middle {
            let right = BlockId {
                node: block.node,
                slot: block.slot + 1,
            };
            Position {
                block: right,
                index: index - middle,
            }
        } else {
            Position { block, index }
        }
    }

    /// Splits the full page that `block` lies in. Returns where the block lies now.
    ///
    /// The page splits in the middle; but if the block is the last of all, it alone moves, as in
    /// [`split_block`](Self::split_block).
    fn split_page(&mut self, block: BlockId) -> BlockId {
        let middle = match self.arena.next_block(block) {
            Some(_) => PAGE_CAPACITY / 2,
            None => block.slot,
        };
        let predecessors = self.predecessors(self.arena.block_fence(BlockId {
            node: block.node,
            slot: middle,
        }));
        let height = self.draw_height();
        let (fence, upper) = self.arena.page_mut(block.node).split_off(middle);
        let right = self.arena.link(fence, upper, height, &predecessors);
        match block.slot.checked_sub(middle) {
            Some(slot) => BlockId { node: right, slot },
            None => block,
        }
    }

    pub(crate) fn draw_height(&mut self) -> usize {
        let height = self.heights.draw();
        self.levels = self.levels.max(height);
        height
    }

    /// Merges a block that has run low with a neighbour in its page, and the page, if it has run low too, with
    /// a neighbour.
    ///
    /// So no block is ever empty but the only one of an empty list, and of neighbours at least one holds a fair
    /// share: the memory that the list takes stays in proportion to its entries.
    fn rebalance(&mut self, BlockId { node, slot }: BlockId) {
        if self.arena.block(BlockId { node, slot }).len() >= MERGE_BLOCK_BELOW {
            return;
        }
        if !self.merge_blocks(node, slot) && slot > 0 {
            self.merge_blocks(node, slot - 1);
        }
        if self.arena.page(node).len() < MERGE_PAGE_BELOW {
            self.rebalance_page(node);
        }
    }

    /// Merges the block in `slot` with the next one of its page if there is one and few entries come together.
    fn merge_blocks(&mut self, node: NodeId, slot: usize) -> bool {
        let page = self.arena.page_mut(node);
        if slot + 1 >= page.len() {
            return false;
        }
        let (left, right) = (page.block(slot).len(), page.block(slot + 1).len());
        let merges = left == 0 || right == 0 || left + right <= MERGED_BLOCK_AT_MOST;
        if merges {
            page.absorb_after(slot);
        }
        merges
    }

    fn rebalance_page(&mut self, node: NodeId) {
        if let Some(next) = self.arena.next(node, 0)
            && self.may_merge_pages(node, next)
        {
            self.merge_pages(node, next);
        } else if node != NodeId::HEAD {
            let [previous, ..] = self.predecessors(self.arena.fence(node));
            if self.may_merge_pages(previous, node) {
                self.merge_pages(previous, node);
            }
        }
    }

    fn may_merge_pages(&self, left: NodeId, right: NodeId) -> bool {
        let (left, right) = (self.arena.page(left), self.arena.page(right));
        left.is_empty() || right.is_empty() || left.len() + right.len() <= MERGED_PAGE_AT_MOST
    }

    /// Moves the blocks of `next` into the page of `node`, which stands right before it, and unlinks `next`.
    fn merge_pages(&mut self, node: NodeId, next: NodeId) {
        let predecessors = self.predecessors(self.arena.fence(next));
        let (fence, page) = self.arena.unlink(next, &predecessors);
        let seam = self.arena.page(node).len() - 1;
        self.arena.page_mut(node).append(fence, page);
        // Across the border between two pages blocks do not merge. Here one has gone.
        self.merge_blocks(node, seam);
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

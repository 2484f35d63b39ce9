//! A page: neighbouring blocks and the fences between them, what one node of the list holds.

use crate::block::Block;

/// How many blocks a page holds at most.
pub(crate) const PAGE_CAPACITY: usize = 64;

/// Blocks in ascending order. There is always one at least.
#[derive(Clone)]
pub(crate) struct Page<K, V> {
    /// Between each two blocks a lower bound of the second one's keys. It repeats a key so that a search finds its
    /// block in this one run of memory.
    fences: Vec<K>,
    blocks: Vec<Block<K, V>>,
}

/// One empty block.
impl<K, V> Default for Page<K, V> {
    fn default() -> Self {
        Self::from(Block::default())
    }
}

impl<K, V> From<Block<K, V>> for Page<K, V> {
    fn from(block: Block<K, V>) -> Self {
        Self {
            fences: Vec::new(),
            blocks: vec![block],
        }
    }
}

impl<K, V> Page<K, V> {
    /// How many blocks there are.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is no entry in any block. (A block is empty only if it is alone.)
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.len() == 1 && self.blocks[0].len() == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.blocks.len() >= PAGE_CAPACITY
    }

    pub(crate) fn fences(&self) -> &[K] {
        &self.fences
    }

    #[inline]
    pub(crate) fn block(&self, slot: usize) -> &Block<K, V> {
        &self.blocks[slot]
    }

    #[inline]
    pub(crate) fn block_mut(&mut self, slot: usize) -> &mut Block<K, V> {
        &mut self.blocks[slot]
    }

    /// Puts a block behind that of `slot`.
    pub(crate) fn insert_after(&mut self, slot: usize, fence: K, block: Block<K, V>) {
        self.fences.insert(slot, fence);
        self.blocks.insert(slot + 1, block);
    }

    /// Moves the entries of the block behind that of `slot` into that of `slot`.
    pub(crate) fn absorb_after(&mut self, slot: usize) {
        self.fences.remove(slot);
        let next = self.blocks.remove(slot + 1);
        self.blocks[slot].append(next);
    }

    /// Cuts the blocks from `slot` on, which is not the first, off into a page of their own, and returns the fence
    /// before them.
    pub(crate) fn split_off(&mut self, slot: usize) -> (K, Self) {
        let upper = Self {
            fences: self.fences.split_off(slot),
            blocks: self.blocks.split_off(slot),
        };
        let fence = self
            .fences
            .pop()
            .expect("there is a fence between each two blocks");
        (fence, upper)
    }

    /// Puts the blocks of the page that starts at `fence` behind those of this one.
    pub(crate) fn append(&mut self, fence: K, mut next: Self) {
        self.fences.push(fence);
        self.fences.append(&mut next.fences);
        self.blocks.append(&mut next.blocks);
    }
}

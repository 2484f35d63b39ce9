//! Finding places in a list.

use std::borrow::Borrow;
use std::ops::{Bound, RangeBounds};

use crate::arena::{BlockId, MAX_HEIGHT, NodeId, Predecessors};
use crate::list::SkipList;
use crate::sorted::count_before;

/// A place between entries: before entry `index` of a block. `index` may be the block's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) block: BlockId,
    pub(crate) index: usize,
}

impl Position {
    pub(crate) const START: Self = Self {
        block: BlockId::FIRST,
        index: 0,
    };
}

impl<K, V> SkipList<K, V> {
    /// Walks from the top level down, forward while `passes` holds for the next fence, and reports where it left each
    /// level. Returns the last node whose fence passes. `passes` must hold up to some fence and for none behind it.
    #[inline]
    fn descend(
        &self,
        mut passes: impl FnMut(&K) -> bool,
        mut left_level_at: impl FnMut(usize, NodeId),
    ) -> NodeId {
        let mut node = NodeId::HEAD;
        // A node that stopped the walk on one level is often met again on the next: it need not be compared twice.
        let mut stopped_by = None;
        for level in (0..self.levels).rev() {
            while let Some(next) = self.arena.next(node, level) {
                if stopped_by == Some(next) || !passes(self.arena.fence(next)) {
                    stopped_by = Some(next);
                    break;
                }
                node = next;
            }
            left_level_at(level, node);
        }
        node
    }

    /// The last block whose fence passes.
    #[inline]
    pub(crate) fn last_block(&self, passes: impl Fn(&K) -> bool) -> BlockId {
        let node = self.descend(&passes, |_, _| {});
        let slot = count_before(self.arena.page(node).fences(), passes);
        BlockId { node, slot }
    }

    /// The block that holds `key` if the list does.
    #[inline]
    pub(crate) fn locate<Q>(&self, key: &Q) -> BlockId
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.last_block(|fence| fence.borrow() <= key)
    }

    /// `key`'s index in `block`, or the index where it would have to stand.
    #[inline]
    pub(crate) fn index_in<Q>(&self, block: BlockId, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let keys = self.arena.block(block).keys();
        let index = count_before(keys, |probe| probe.borrow() < key);
        if keys.get(index).is_some_and(|found| found.borrow() == key) {
            Ok(index)
        } else {
            Err(index)
        }
    }

    /// Where an entry that the list holds stands.
    #[inline]
    pub(crate) fn find<Q>(&self, key: &Q) -> Option<Position>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let block = self.locate(key);
        let index = self.index_in(block, key).ok()?;
        Some(Position { block, index })
    }

    /// On each level the last node with a fence below `fence`.
    pub(crate) fn predecessors(&self, fence: &K) -> Predecessors
    where
        K: Ord,
    {
        let mut predecessors = [NodeId::HEAD; MAX_HEIGHT];
        self.descend(|other| other < fence, |level, node| predecessors[level] = node);
        predecessors
    }

    /// On each level the last node of all.
    pub(crate) fn tails(&self) -> Predecessors {
        let mut tails = [NodeId::HEAD; MAX_HEIGHT];
        self.descend(|_| true, |level, node| tails[level] = node);
        tails
    }

    /// The place behind all keys for which `before` holds. It must hold up to some key and for none behind it.
    pub(crate) fn position_after(&self, before: impl Fn(&K) -> bool) -> Position {
        let block = self.last_block(&before);
        let index = count_before(self.arena.block(block).keys(), before);
        Position { block, index }
    }

    /// The places where the entries within `bounds` start and end; none if the bounds exclude everything.
    pub(crate) fn positions<Q>(&self, bounds: &impl RangeBounds<Q>) -> Option<(Position, Option<Position>)>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        if excludes_all(bounds) {
            return None;
        }
        let start = match bounds.start_bound() {
            Bound::Unbounded => Position::START,
            Bound::Included(start) => self.position_after(|key| key.borrow() < start),
            Bound::Excluded(start) => self.position_after(|key| key.borrow() <= start),
        };
        let end = match bounds.end_bound() {
            Bound::Unbounded => None,
            Bound::Included(end) => Some(self.position_after(|key| key.borrow() <= end)),
            Bound::Excluded(end) => Some(self.position_after(|key| key.borrow() < end)),
        };
        Some((start, end))
    }
}

/// Whether no key at all can lie within `bounds`.
fn excludes_all<Q: Ord + ?Sized>(bounds: &impl RangeBounds<Q>) -> bool {
    match (bounds.start_bound(), bounds.end_bound()) {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
            start >= end
        }
    }
}

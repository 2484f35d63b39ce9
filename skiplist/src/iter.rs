//! Iterators over a list.

use std::fmt;
use std::iter::{FusedIterator, Zip};
use std::slice;

use crate::arena::{Arena, BlockId};
use crate::list::SkipList;
use crate::search::Position;

type BlockEntries<'a, K, V> = Zip<slice::Iter<'a, K>, slice::Iter<'a, V>>;

/// The entries of a range of keys in ascending order; see [`SkipList::range`].
pub struct Range<'a, K, V> {
    arena: &'a Arena<K, V>,
    /// What is left of the current block.
    entries: BlockEntries<'a, K, V>,
    block: BlockId,
    end: Option<Position>,
}

impl<'a, K, V> Range<'a, K, V> {
    pub(crate) fn all(arena: &'a Arena<K, V>) -> Self {
        Self::between(arena, Position::START, None)
    }

    /// The entries from `start` to before `end`, which must not lie before `start`.
    pub(crate) fn between(arena: &'a Arena<K, V>, start: Position, end: Option<Position>) -> Self {
        let entries = block_entries(arena, start.block, start.index, end);
        Self {
            arena,
            entries,
            block: start.block,
            end,
        }
    }

    pub(crate) fn empty(arena: &'a Arena<K, V>) -> Self {
        Self::between(arena, Position::START, Some(Position::START))
    }
}

/// The entries of a block from `from` on, up to the end of the range if that lies within.
fn block_entries<K, V>(
    arena: &Arena<K, V>,
    block: BlockId,
    from: usize,
    end: Option<Position>,
) -> BlockEntries<'_, K, V> {
    let entries = arena.block(block);
    let to = match end {
        Some(end) if end.block == block => end.index,
        _ => entries.len(),
    };
    entries.keys()[from..to].iter().zip(&entries.values()[from..to])
}

impl<'a, K, V> Iterator for Range<'a, K, V> {
    type Item = (&'a K, &'a V);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(entry);
            }
            if self.end.is_some_and(|end| end.block == self.block) {
                return None;
            }
            self.block = self.arena.next_block(self.block)?;
            self.entries = block_entries(self.arena, self.block, 0, self.end);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.entries.len(), None)
    }
}

impl<K, V> FusedIterator for Range<'_, K, V> {}

impl<K, V> Clone for Range<'_, K, V> {
    fn clone(&self) -> Self {
        Self {
            arena: self.arena,
            entries: self.entries.clone(),
            block: self.block,
            end: self.end,
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Range<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.clone()).finish()
    }
}

/// All entries in ascending order; see [`SkipList::iter`].
pub struct Iter<'a, K, V> {
    range: Range<'a, K, V>,
    remaining: usize,
}

impl<'a, K, V> Iter<'a, K, V> {
    pub(crate) fn new(range: Range<'a, K, V>, remaining: usize) -> Self {
        Self { range, remaining }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.range.next()?;
        self.remaining -= 1;
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}
impl<K, V> FusedIterator for Iter<'_, K, V> {}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self {
            range: self.range.clone(),
            remaining: self.remaining,
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Iter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.range.fmt(f)
    }
}

/// All keys in ascending order; see [`SkipList::keys`].
#[derive(Debug)]
pub struct Keys<'a, K, V>(Iter<'a, K, V>);

impl<'a, K, V> Keys<'a, K, V> {
    pub(crate) fn new(iter: Iter<'a, K, V>) -> Self {
        Self(iter)
    }
}

impl<'a, K, V> Iterator for Keys<'a, K, V> {
    type Item = &'a K;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, _)| key)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<K, V> ExactSizeIterator for Keys<'_, K, V> {}
impl<K, V> FusedIterator for Keys<'_, K, V> {}

/// All values in ascending order of their keys; see [`SkipList::values`].
#[derive(Debug)]
pub struct Values<'a, K, V>(Iter<'a, K, V>);

impl<'a, K, V> Values<'a, K, V> {
    pub(crate) fn new(iter: Iter<'a, K, V>) -> Self {
        Self(iter)
    }
}

impl<'a, K, V> Iterator for Values<'a, K, V> {
    type Item = &'a V;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(_, value)| value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<K, V> ExactSizeIterator for Values<'_, K, V> {}
impl<K, V> FusedIterator for Values<'_, K, V> {}

/// The entries of a list that is taken apart, in ascending order; see [`SkipList::into_iter`].
pub struct IntoIter<K, V> {
    arena: Arena<K, V>,
    block: BlockId,
    entries: Zip<std::vec::IntoIter<K>, std::vec::IntoIter<V>>,
    remaining: usize,
}

impl<K, V> Iterator for IntoIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                self.remaining -= 1;
                return Some(entry);
            }
            self.block = self.arena.next_block(self.block)?;
            self.entries = std::mem::take(self.arena.block_mut(self.block)).into_entries();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl<K, V> ExactSizeIterator for IntoIter<K, V> {}
impl<K, V> FusedIterator for IntoIter<K, V> {}

impl<K, V> fmt::Debug for IntoIter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoIter")
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

impl<K, V> IntoIterator for SkipList<K, V> {
    type Item = (K, V);
    type IntoIter = IntoIter<K, V>;

    fn into_iter(mut self) -> Self::IntoIter {
        let entries = std::mem::take(self.arena.block_mut(BlockId::FIRST)).into_entries();
        IntoIter {
            arena: self.arena,
            block: BlockId::FIRST,
            entries,
            remaining: self.len,
        }
    }
}

//! A block: a short sorted run of entries.

/// How many entries a block holds at most. Fewer make scans slower, more make insertions slower (more to move over).
pub(crate) const BLOCK_CAPACITY: usize = 64;

/// Room is made for so many entries at a time. Doubled instead, as vectors do by themselves, it would stand empty by
/// a third in a list that grows at random places, and by half in one whose keys come nearly in order.
const GROWTH: usize = 8;

/// So much room may stand empty after removals.
const SPARE: usize = 3 * GROWTH;

/// Sorted keys and, at the same positions, their values.
///
/// Keys and values lie apart so that a search walks over keys alone.
#[derive(Clone)]
pub(crate) struct Block<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K, V> Default for Block<K, V> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<K, V> Block<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.keys.len() >= BLOCK_CAPACITY
    }

    pub(crate) fn keys(&self) -> &[K] {
        &self.keys
    }

    pub(crate) fn values(&self) -> &[V] {
        &self.values
    }

    pub(crate) fn entry(&self, index: usize) -> Option<(&K, &V)> {
        Some((self.keys.get(index)?, self.values.get(index)?))
    }

    pub(crate) fn value_mut(&mut self, index: usize) -> &mut V {
        &mut self.values[index]
    }

    pub(crate) fn insert(&mut self, index: usize, key: K, value: V) {
        self.make_room();
        self.keys.insert(index, key);
        self.values.insert(index, value);
    }

    /// Appends an entry whose key is greater than all others.
    pub(crate) fn push(&mut self, key: K, value: V) {
        self.make_room();
        self.keys.push(key);
        self.values.push(value);
    }

    pub(crate) fn remove(&mut self, index: usize) -> (K, V) {
        let entry = (self.keys.remove(index), self.values.remove(index));
        self.give_back_room();
        entry
    }

    /// Cuts the entries from `index` on off into a block of their own.
    pub(crate) fn split_off(&mut self, index: usize) -> Self {
        let upper = Self {
            keys: self.keys.split_off(index),
            values: self.values.split_off(index),
        };
        self.keys.shrink_to_fit();
        self.values.shrink_to_fit();
        upper
    }

    /// Puts the entries of `next`, whose keys are all greater, behind those of this block.
    pub(crate) fn append(&mut self, mut next: Self) {
        self.keys.reserve_exact(next.len());
        self.values.reserve_exact(next.len());
        self.keys.append(&mut next.keys);
        self.values.append(&mut next.values);
    }

    /// Drops the entries whose flag is false and returns how many there were.
    ///
    /// The flags come from the caller's code and are complete before anything moves: if that code panics, the block
    /// is as it was.
    pub(crate) fn keep_flagged(&mut self, flags: &[bool]) -> usize {
        let before = self.len();
        retain_flagged(&mut self.keys, flags);
        retain_flagged(&mut self.values, flags);
        self.give_back_room();
        before - self.len()
    }

    fn make_room(&mut self) {
        if self.keys.len() == self.keys.capacity() {
            self.keys.reserve_exact(GROWTH);
        }
        if self.values.len() == self.values.capacity() {
            self.values.reserve_exact(GROWTH);
        }
    }

    fn give_back_room(&mut self) {
        let room = self.len() + GROWTH;
        if self.keys.capacity() > self.len() + SPARE {
            self.keys.shrink_to(room);
            self.values.shrink_to(room);
        }
    }

    /// Keys to read and values to change, for code that decides what to keep.
    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.keys.iter().zip(self.values.iter_mut())
    }

    pub(crate) fn into_entries(self) -> std::iter::Zip<std::vec::IntoIter<K>, std::vec::IntoIter<V>> {
        self.keys.into_iter().zip(self.values)
    }
}

fn retain_flagged<T>(items: &mut Vec<T>, flags: &[bool]) {
    let mut flags = flags.iter();
    items.retain(|_| flags.next().copied().unwrap_or(true));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(keys: impl IntoIterator<Item = u32>) -> Block<u32, u32> {
        let mut block = Block::default();
        for (index, key) in keys.into_iter().enumerate() {
            block.insert(index, key, key * 10);
        }
        block
    }

    #[test]
    fn a_split_and_an_append_give_the_same_entries_back() {
        let mut left = block(0..10);
        let right = left.split_off(4);
        assert_eq!(
            (left.keys(), right.keys()),
            (&[0, 1, 2, 3][..], &[4, 5, 6, 7, 8, 9][..])
        );
        left.append(right);
        assert!(left.into_entries().eq((0..10).map(|key| (key, key * 10))));
    }

    #[test]
    fn little_room_stands_empty_whatever_came_and_went() {
        let room = |block: &Block<u32, u32>| block.keys.capacity().max(block.values.capacity());
        let mut left = block(0..64);
        assert_eq!(room(&left), 64);
        let mut right = left.split_off(32);
        assert!(room(&left) <= 32 + GROWTH && room(&right) <= 32 + GROWTH);
        right.insert(32, 64, 640);
        assert!(room(&right) <= 32 + GROWTH);
        while right.len() > 1 {
            right.remove(0);
            assert!(room(&right) <= right.len() + SPARE);
        }
        left.keep_flagged(&[false; 31]);
        left.append(right);
        assert!(left.len() == 2 && room(&left) <= 2 + SPARE);
    }

    #[test]
    fn keeping_flagged_entries_drops_key_and_value_together() {
        let mut block = block(0..4);
        assert_eq!(block.keep_flagged(&[true, false, false, true]), 2);
        assert!(block.into_entries().eq([(0, 0), (3, 30)]));
    }
}

//! A small set of small numbers, copied freely.

/// A set of numbers below `64 * W`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Bits<const W: usize>([u64; W]);

impl<const W: usize> Bits<W> {
    /// What does not fit in.
    pub(super) const CAPACITY: usize = W * 64;

    pub(super) const fn empty() -> Self {
        Self([0; W])
    }

    pub(super) fn has(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    pub(super) fn with(mut self, number: usize) -> Self {
        self.0[number / 64] |= 1 << (number % 64);
        self
    }

    pub(super) fn without(mut self, number: usize) -> Self {
        self.0[number / 64] &= !(1 << (number % 64));
        self
    }

    /// What is in both.
    pub(super) fn and(mut self, other: &Self) -> Self {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own &= other;
        }
        self
    }

    /// What is not in the other.
    pub(super) fn and_not(mut self, other: &Self) -> Self {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own &= !other;
        }
        self
    }

    pub(super) fn is_subset_of(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(own, other)| own & !other == 0)
    }

    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The numbers, rising.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..W).flat_map(move |place| {
            let mut word = self.0[place];
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                word &= word.checked_sub(1)?;
                Some(place * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn numbers_go_in_and_out_and_are_listed_in_order() {
        let bits = Bits::<2>::empty().with(0).with(63).with(64).with(127).without(63);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 64, 127]);
        assert!(bits.has(64) && !bits.has(63));
        assert_eq!(bits.count(), 3);
        assert!(Bits::empty().with(64).is_subset_of(&bits));
        assert!(!bits.is_subset_of(&Bits::empty().with(64)));
        assert_eq!(bits.and(&Bits::empty().with(0).with(1)), Bits::empty().with(0));
    }
}

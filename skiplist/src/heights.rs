//! How tall the towers are: drawn from a seeded generator, so that the same seed builds the same towers.

use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

use crate::arena::MAX_HEIGHT;

/// Draws heights from 1 to [`MAX_HEIGHT`]; each level above the first with probability p = 1/4.
///
/// Pugh's paper finds p = 1/4 as good as p = 1/2 in expected search time, with half the links.
#[derive(Clone)]
pub(crate) struct Heights {
    generator: Pcg32,
}

impl Heights {
    pub(crate) fn with_seed(seed: u64) -> Self {
        Self {
            generator: Pcg32::seed_from_u64(seed),
        }
    }

    /// Two zero bits come up with probability 1/4: one more level for each such pair at the low end of the draw.
    pub(crate) fn draw(&mut self) -> usize {
        let pairs = self.generator.next_u32().trailing_zeros() / 2;
        (1 + pairs as usize).min(MAX_HEIGHT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_is_reached_by_a_quarter_of_the_level_below() {
        let draws = 1_000_000;
        let mut heights = Heights::with_seed(7);
        let mut reaching = [0_u32; MAX_HEIGHT + 1];
        for _ in 0..draws {
            let height = heights.draw();
            assert!((1..=MAX_HEIGHT).contains(&height));
            for count in &mut reaching[1..=height] {
                *count += 1;
            }
        }
        assert_eq!(reaching[1], draws);
        for level in 2..=6 {
            let share = f64::from(reaching[level]) / f64::from(reaching[level - 1]);
            assert!(
                (0.22..0.28).contains(&share),
                "{share} of level {} reach level {level}",
                level - 1
            );
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_heights_and_another_seed_others() {
        let draw = |seed| {
            let mut heights = Heights::with_seed(seed);
            std::iter::repeat_with(move || heights.draw())
                .take(100)
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}

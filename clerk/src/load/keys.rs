//! Which key comes next.

use rand::{Rng, RngExt};
use rand_distr::{Distribution as _, Zipf};

use super::Distribution;

/// The exponent that YCSB uses.
const ZIPF_EXPONENT: f64 = 0.99;

/// Chooses the numbers of keys.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    Uniform { count: u64 },
    Zipf { count: u64, ranks: Zipf<f64> },
}

impl Keys {
    /// Chooses among `count` keys, at least one.
    pub(super) fn new(count: u64, distribution: Distribution) -> Self {
        let count = count.max(1);
        #[expect(
            clippy::cast_precision_loss,
            reason = "the tail of so many keys is not told apart"
        )]
        let ranks = Zipf::new(count as f64, ZIPF_EXPONENT);
        match (distribution, ranks) {
            (Distribution::Zipf, Ok(ranks)) => Self::Zipf { count, ranks },
            // Zipf refuses only counts below one and exponents below zero.
            (Distribution::Uniform, _) | (_, Err(_)) => Self::Uniform { count },
        }
    }

    /// The number of the next key, from zero.
    pub(super) fn next(&self, random: &mut impl Rng) -> u64 {
        match self {
            Self::Uniform { count } => random.random_range(0..*count),
            Self::Zipf { count, ranks } => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "ranks are whole numbers from 1 to the count"
                )]
                let rank = ranks.sample(random) as u64;
                rank.clamp(1, *count) - 1
            }
        }
    }
}

//! How much work a check may be.

use std::fmt;
use std::time::{Duration, Instant};

const DEFAULT_TIME: Duration = Duration::from_secs(60);
/// So many configurations of one key at one time would fill the memory.
const MAX_AT_ONCE: usize = 4_000_000;
/// The clock is read once in so many configurations.
const CLOCK_EVERY: u64 = 4_096;
/// And once in so many comparisons.
const COMPARISONS_BETWEEN_CLOCKS: u64 = 1_000_000;

/// When a check gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After so long.
    pub time: Duration,
    /// After so many configurations, which is the same on every machine.
    pub configurations: u64,
}

impl Default for Limits {
    /// A minute, and any number of configurations.
    fn default() -> Self {
        Self {
            time: DEFAULT_TIME,
            configurations: u64::MAX,
        }
    }
}

/// A limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exhausted {
    Time(Duration),
    Configurations(u64),
    AtOnce,
    OpenOperations(usize),
}

impl Exhausted {
    /// Whether nothing is left for any other part of the history either.
    pub(super) fn is_for_all_parts(self) -> bool {
        match self {
            Self::Time(_) | Self::Configurations(_) => true,
            Self::AtOnce | Self::OpenOperations(_) => false,
        }
    }
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(limit) => write!(
                f,
                "not decided within {limit:?}: allow more time, or record fewer operations at once"
            ),
            Self::Configurations(limit) => write!(f, "not decided within {limit} configurations"),
            Self::AtOnce => write!(
                f,
                "more than {MAX_AT_ONCE} configurations of one key: let reads come between the writes"
            ),
            Self::OpenOperations(limit) => write!(
                f,
                "more than {limit} operations of one key are open at once: use more keys, or fewer clients"
            ),
        }
    }
}

/// What is left of the limits.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    started: Instant,
    spent: u64,
    clock_at: u64,
    /// Comparisons since the clock was last read for their sake.
    compared: u64,
}

impl Budget {
    /// For a check that has begun at `started`.
    pub(super) fn new(limits: Limits, started: Instant) -> Self {
        Self {
            limits,
            started,
            spent: 0,
            clock_at: 0,
            compared: 0,
        }
    }

    pub(super) fn spent(&self) -> u64 {
        self.spent
    }

    /// Pays for looking at `count` configurations, of which `at_once` are kept.
    pub(super) fn pay(&mut self, count: u64, at_once: usize) -> Result<(), Exhausted> {
        self.spent += count;
        if self.spent > self.limits.configurations {
            return Err(Exhausted::Configurations(self.limits.configurations));
        }
        if at_once > MAX_AT_ONCE {
            return Err(Exhausted::AtOnce);
        }
        if self.spent >= self.clock_at {
            self.clock_at = self.spent + CLOCK_EVERY;
            self.look_at_the_clock()?;
        }
        Ok(())
    }

    /// Pays for `count` comparisons of configurations, which take time and are no others to look at.
    pub(super) fn pay_comparisons(&mut self, count: usize) -> Result<(), Exhausted> {
        self.compared += count as u64;
        if self.compared >= COMPARISONS_BETWEEN_CLOCKS {
            self.compared = 0;
            self.look_at_the_clock()?;
        }
        Ok(())
    }

    /// Fails if the time is over.
    pub(super) fn look_at_the_clock(&self) -> Result<(), Exhausted> {
        if self.started.elapsed() > self.limits.time {
            return Err(Exhausted::Time(self.limits.time));
        }
        Ok(())
    }
}

//! Tells a disk that is slow from one that does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the steps that a store has made durable. A write may wait for many of them: where the journal is full, for
/// sled to take in what is in it.
///
/// ```
/// let progress = storage::Progress::default();
/// assert_eq!(progress.steps(), 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// How many steps there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Another one is done.
    pub(crate) fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

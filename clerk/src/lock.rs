//! Locks whose data stays whole whatever happens to a holder.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks for a few instructions, never across an await. A poisoned lock is taken all the same: what it
/// guards here is never left half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Letting go of sled on a disk that fails.

use std::ops::Deref;

use crate::panics;

/// A handle of sled that can be dropped whatever the disk does.
///
/// The last handle that goes syncs sled's file, and panics when that fails. At that point nothing depends on the
/// sync any more: all that was acknowledged was synced before.
pub(crate) struct Quiet<T> {
    /// Always there until the drop.
    handle: Option<T>,
}

impl<T> Quiet<T> {
    pub(crate) fn new(handle: T) -> Self {
        Self { handle: Some(handle) }
    }
}

impl<T> Deref for Quiet<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.handle.as_ref().expect("it is only taken by drop")
    }
}

impl<T> Drop for Quiet<T> {
    fn drop(&mut self) {
        let handle = self.handle.take();
        if let Err(panic) = panics::catch(move || drop(handle)) {
            tracing::warn!(%panic, "sled could not be closed in order");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Quiet;

    struct Explosive;

    impl Drop for Explosive {
        fn drop(&mut self) {
            panic!("the disk is gone");
        }
    }

    #[test]
    fn a_panic_while_letting_go_ends_there() {
        drop(Quiet::new(Explosive));
    }
}

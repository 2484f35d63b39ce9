//! Whether the node still works on the files that its data directory names.
//!
//! The persister asks after every commit, before anything is told of it; a watch looks more closely, and also when there
//! are no commits. Once the answer was no it stays no: nothing leaves the node any more, and it stops.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use storage::{Missing, Presence};
use thiserror::Error;

/// The files of the data directory. Shared by all who acknowledge anything.
#[derive(Debug, Default)]
pub(crate) struct DataFiles {
    presence: Presence,
    lost: AtomicBool,
}

/// What was removed or replaced while the node ran, what that means, and what to do.
#[derive(Debug, Error)]
#[error("{}", self.message())]
pub(crate) struct FilesLost(Missing);

impl DataFiles {
    /// Of the data directory `dir`, whose store has just been opened.
    #[must_use]
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            presence: Presence::of(dir),
            lost: AtomicBool::new(false),
        }
    }

    /// Looks whether everything is in place.
    #[must_use]
    pub(crate) fn are_in_place(&self) -> bool {
        self.look(Presence::is_whole)
    }

    /// Looks whether everything is in place as far as this system's own calls could change that
    /// ([`Presence::is_still_whole`]).
    #[must_use]
    pub(crate) fn are_still_in_place(&self) -> bool {
        self.look(Presence::is_still_whole)
    }

    fn look(&self, is_whole: impl FnOnce(&Presence) -> bool) -> bool {
        if !self.are_lost() && !is_whole(&self.presence) {
            self.lost.store(true, Ordering::Release);
        }
        !self.are_lost()
    }

    /// Whether a look has found something missing.
    #[must_use]
    pub(crate) fn are_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// What is missing now.
    #[must_use]
    pub(crate) fn what_is_lost(&self) -> FilesLost {
        FilesLost(self.presence.missing())
    }
}

impl FilesLost {
    /// Whether the node cannot be started again as it was.
    #[must_use]
    pub(crate) fn leaves_joining(&self) -> bool {
        !self.0.parts.is_empty() && !self.0.is_only_the_lock()
    }

    fn message(&self) -> String {
        let dir = self.0.dir.display();
        let parts: Vec<_> = self
            .0
            .parts
            .iter()
            .map(|part| part.display().to_string())
            .collect();
        let what = match (self.0.all, parts.as_slice()) {
            (true, _) => format!("the data directory {dir}"),
            (false, []) => format!("a file of the data directory {dir}"),
            (false, parts) => format!("{} in the data directory {dir}", parts.join(", ")),
        };
        let told = format!("{what} was removed or replaced while the node ran, so it stops");
        if self.0.parts.is_empty() {
            format!("{told}. It is back where it was: start the node again")
        } else if self.0.is_only_the_lock() {
            format!(
                "{told}: without this file another server could use the directory at the same time. The file is \
                 always empty, and the data is whole: start the node again"
            )
        } else {
            format!(
                "{told}, and has acknowledged nothing since it noticed. What it acknowledged before may not be on \
                 its disk any more. If the very files were only moved, or the disk unmounted, put them back and start \
                 the node again. If they are lost, empty the data directory and start the node with --join"
            )
        }
    }
}

//! The rules of [`Storage`](raft_core::Storage) in their plainest form.

use raft_core::{Configuration, LogIndex, Restored, SnapshotMeta, Write};

/// What a store should hold: the writes of [`raft_core::Write`] applied to a vector.
///
/// It has no notion of durability and does not check the writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    state: Restored,
}

impl Model {
    /// A fresh store with the configuration `initial`.
    #[must_use]
    pub fn new(initial: &Configuration) -> Self {
        let snapshot = SnapshotMeta {
            configuration: initial.clone(),
            ..SnapshotMeta::default()
        };
        Self {
            state: Restored {
                snapshot,
                ..Restored::default()
            },
        }
    }

    /// What `Storage::restore` should yield.
    #[must_use]
    pub fn restored(&self) -> Restored {
        self.state.clone()
    }

    /// The first entry that is kept; one more than [`last_index`](Self::last_index) if there is none.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.state
            .entries
            .first()
            .map_or(self.state.snapshot.last_included_index.next(), |entry| {
                entry.index
            })
    }

    /// The last entry of the log, whether kept or covered by the snapshot.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.state
            .entries
            .last()
            .map_or(self.state.snapshot.last_included_index, |entry| entry.index)
    }

    /// Applies one batch.
    pub fn apply_all(&mut self, writes: &[Write]) {
        writes.iter().for_each(|write| self.apply(write));
    }

    fn apply(&mut self, write: &Write) {
        let Restored {
            hard_state,
            snapshot,
            entries,
        } = &mut self.state;
        match write {
            Write::HardState(new) => *hard_state = *new,
            Write::Append(new) => {
                let first = new.first().map(|entry| entry.index);
                entries.retain(|entry| first.is_none_or(|first| entry.index < first));
                entries.extend(new.iter().cloned());
            }
            Write::InstallSnapshot {
                snapshot: new,
                keep_suffix,
            } => {
                entries.retain(|entry| *keep_suffix && entry.index > new.last_included_index);
                *snapshot = new.clone();
            }
            Write::Compact {
                snapshot: new,
                first_retained,
            } => {
                entries.retain(|entry| entry.index >= *first_retained);
                *snapshot = new.clone();
            }
        }
    }
}

//! Which writes a correct Raft log can ask for. Both implementations refuse the others, alike.

use raft_core::{Entry, LogIndex, SnapshotMeta, Write};

use crate::error::StorageError;

/// The largest index that a store accepts. It leaves room to count on, and no cluster lives to see it.
pub(crate) const MAX_INDEX: LogIndex = LogIndex(u64::MAX / 2);

/// The extent of a log and of the snapshot before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogBounds {
    /// The first entry; one more than `last` when the log is empty.
    pub(crate) first: LogIndex,
    /// The last entry; the snapshot's last included index when the log is empty.
    pub(crate) last: LogIndex,
    /// The last entry that the snapshot covers.
    pub(crate) snapshot: LogIndex,
}

impl LogBounds {
    /// Checks `write` and yields the bounds after it.
    pub(crate) fn after(self, write: &Write) -> Result<Self, StorageError> {
        self.check(write)?;
        Ok(match write {
            Write::HardState(_) => self,
            Write::Append(entries) => Self {
                last: entries.last().map_or(self.last, |entry| entry.index),
                ..self
            },
            Write::InstallSnapshot {
                snapshot,
                keep_suffix,
            } => {
                let index = snapshot.last_included_index;
                let last = if *keep_suffix { self.last } else { index };
                Self {
                    first: index.next(),
                    last,
                    snapshot: index,
                }
            }
            Write::Compact {
                snapshot,
                first_retained,
            } => Self {
                first: self.first.max(*first_retained),
                last: self.last,
                snapshot: snapshot.last_included_index,
            },
        })
    }

    /// Refuses what would leave a gap, lose what the snapshot covers, or move the snapshot back.
    pub(crate) fn check(&self, write: &Write) -> Result<(), StorageError> {
        match write {
            Write::HardState(_) => Ok(()),
            Write::Append(entries) => self.check_append(entries),
            Write::InstallSnapshot {
                snapshot,
                keep_suffix,
            } => {
                self.check_snapshot(snapshot)?;
                let index = snapshot.last_included_index;
                require(
                    !keep_suffix || (self.first.previous() <= index && index <= self.last),
                    || {
                        format!(
                            "an installed snapshot at {index} keeps the suffix of a log that does not hold it"
                        )
                    },
                )
            }
            Write::Compact {
                snapshot,
                first_retained,
            } => {
                self.check_snapshot(snapshot)?;
                let index = snapshot.last_included_index;
                require(index <= self.last, || {
                    format!(
                        "a snapshot was cut at {index}, behind the end of the log at {}",
                        self.last
                    )
                })?;
                require(*first_retained <= index.next(), || {
                    format!("entries from {index} to {first_retained} would be in no snapshot and in no log")
                })
            }
        }
    }

    fn check_append(&self, entries: &[Entry]) -> Result<(), StorageError> {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return Err(StorageError::invalid_write("an append without entries"));
        };
        require(
            first <= self.last.next() && self.first <= first && self.snapshot < first,
            || {
                format!(
                    "an append at {first} is not in or right behind the log from {} to {} (snapshot at {})",
                    self.first, self.last, self.snapshot
                )
            },
        )?;
        let consecutive = entries
            .iter()
            .zip(first.get()..)
            .all(|(entry, index)| entry.index.get() == index);
        require(consecutive, || {
            format!("the entries of the append at {first} are not consecutive")
        })?;
        require(entries.last().is_none_or(|last| last.index <= MAX_INDEX), || {
            format!("the append at {first} runs past the largest index")
        })
    }

    fn check_snapshot(&self, snapshot: &SnapshotMeta) -> Result<(), StorageError> {
        let index = snapshot.last_included_index;
        require(index >= self.snapshot && index <= MAX_INDEX, || {
            format!(
                "a snapshot at {index} does not follow the one at {}",
                self.snapshot
            )
        })?;
        require(index > LogIndex::ZERO && snapshot.size_bytes > 0, || {
            format!("the snapshot at {index} is the empty one, which only a fresh store has")
        })
    }
}

fn require(holds: bool, what: impl FnOnce() -> String) -> Result<(), StorageError> {
    if holds {
        Ok(())
    } else {
        Err(StorageError::invalid_write(what()))
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{Entry, Leadership, LogIndex, NodeId, Payload, SnapshotMeta, Term, Write};

    use super::LogBounds;

    /// Entries 6 to 9 behind a snapshot at 5.
    const BOUNDS: LogBounds = LogBounds {
        first: LogIndex(6),
        last: LogIndex(9),
        snapshot: LogIndex(5),
    };

    #[test]
    fn an_append_begins_in_the_log_or_right_behind_it() {
        for (index, is_taken) in [(5, false), (6, true), (10, true), (11, false)] {
            let entry = Entry {
                index: LogIndex(index),
                term: Term(1),
                payload: Payload::Noop {
                    leader_id: NodeId(1),
                    leadership: Leadership(70),
                },
            };
            let checked = BOUNDS.check(&Write::Append(vec![entry]));
            assert_eq!(checked.is_ok(), is_taken, "at {index}");
        }
    }

    #[test]
    fn a_suffix_is_kept_only_of_a_log_that_holds_the_last_entry_of_the_snapshot() {
        for (index, is_taken) in [(5, true), (9, true), (10, false)] {
            let snapshot = SnapshotMeta {
                last_included_index: LogIndex(index),
                last_included_term: Term(1),
                size_bytes: 1,
                ..SnapshotMeta::default()
            };
            let checked = BOUNDS.check(&Write::InstallSnapshot {
                snapshot,
                keep_suffix: true,
            });
            assert_eq!(checked.is_ok(), is_taken, "at {index}");
        }
    }
}

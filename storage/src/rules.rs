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

    use super::{LogBounds, MAX_INDEX};

    /// Entries 6 to 9 behind a snapshot at 5.
    const BOUNDS: LogBounds = LogBounds {
        first: LogIndex(6),
        last: LogIndex(9),
        snapshot: LogIndex(5),
    };

    /// The same with entries 3 to 5 kept before the snapshot.
    const BOUNDS_KEPT: LogBounds = LogBounds {
        first: LogIndex(3),
        ..BOUNDS
    };

    const FRESH: LogBounds = LogBounds {
        first: LogIndex(1),
        last: LogIndex(0),
        snapshot: LogIndex(0),
    };

    fn append(indexes: &[u64]) -> Write {
        let entry = |index: &u64| Entry {
            index: LogIndex(*index),
            term: Term(1),
            payload: Payload::Noop {
                leader_id: NodeId(1),
                leadership: Leadership(70),
            },
        };
        Write::Append(indexes.iter().map(entry).collect())
    }

    fn snapshot(index: u64, size_bytes: u64) -> SnapshotMeta {
        SnapshotMeta {
            last_included_index: LogIndex(index),
            last_included_term: Term(1),
            size_bytes,
            ..SnapshotMeta::default()
        }
    }

    fn install(index: u64, keep_suffix: bool) -> Write {
        Write::InstallSnapshot {
            snapshot: snapshot(index, 1),
            keep_suffix,
        }
    }

    fn compact(index: u64, first_retained: u64) -> Write {
        Write::Compact {
            snapshot: snapshot(index, 1),
            first_retained: LogIndex(first_retained),
        }
    }

    #[test]
    fn an_append_begins_in_the_log_or_right_behind_it() {
        for (index, is_taken) in [(5, false), (6, true), (10, true), (11, false)] {
            let checked = BOUNDS.check(&append(&[index]));
            assert_eq!(checked.is_ok(), is_taken, "at {index}");
        }
    }

    #[test]
    fn an_append_begins_behind_the_snapshot_also_where_entries_before_it_are_kept() {
        for (index, is_taken) in [(2, false), (3, false), (5, false), (6, true)] {
            let checked = BOUNDS_KEPT.check(&append(&[index]));
            assert_eq!(checked.is_ok(), is_taken, "at {index}");
        }
    }

    #[test]
    fn the_entries_of_an_append_follow_each_other_up_to_the_largest_index() {
        let LogIndex(max) = MAX_INDEX;
        let before_it = LogBounds {
            last: LogIndex(max - 2),
            ..BOUNDS
        };
        for (indexes, is_taken) in [
            (&[][..], false),
            (&[7, 8, 9], true),
            (&[7, 9], false),
            (&[7, 7], false),
        ] {
            assert_eq!(BOUNDS.check(&append(indexes)).is_ok(), is_taken, "{indexes:?}");
        }
        assert!(before_it.check(&append(&[max - 1, max])).is_ok());
        assert!(before_it.check(&append(&[max - 1, max, max + 1])).is_err());
    }

    #[test]
    fn a_suffix_is_kept_only_of_a_log_that_holds_the_last_entry_of_the_snapshot() {
        for (index, is_taken) in [(5, true), (9, true), (10, false)] {
            let checked = BOUNDS.check(&install(index, true));
            assert_eq!(checked.is_ok(), is_taken, "at {index}");
        }
    }

    #[test]
    fn a_snapshot_is_not_older_than_the_one_before_and_has_an_index_and_a_file() {
        let LogIndex(max) = MAX_INDEX;
        for (index, is_taken) in [(4, false), (5, true), (10, true), (max, true), (max + 1, false)] {
            let checked = BOUNDS.check(&install(index, false));
            assert_eq!(checked.is_ok(), is_taken, "at {index}");
        }
        for (index, size_bytes, is_taken) in [(0, 0, false), (0, 1, false), (1, 0, false), (1, 1, true)] {
            let checked = FRESH.check(&Write::InstallSnapshot {
                snapshot: snapshot(index, size_bytes),
                keep_suffix: false,
            });
            assert_eq!(checked.is_ok(), is_taken, "{size_bytes} bytes at {index}");
        }
    }

    #[test]
    fn a_snapshot_is_cut_inside_the_log_and_every_entry_behind_it_stays() {
        for (index, first_retained, is_taken) in [
            (4, 3, false),
            (5, 6, true),
            (9, 10, true),
            (9, 11, false),
            (10, 6, false),
        ] {
            let checked = BOUNDS.check(&compact(index, first_retained));
            assert_eq!(checked.is_ok(), is_taken, "at {index} from {first_retained}");
        }
    }

    #[test]
    fn the_bounds_follow_what_is_written() {
        let after = |first, last, snapshot| LogBounds {
            first: LogIndex(first),
            last: LogIndex(last),
            snapshot: LogIndex(snapshot),
        };
        for (write, bounds) in [
            (append(&[7, 8]), after(3, 8, 5)),
            (append(&[10]), after(3, 10, 5)),
            (install(8, true), after(9, 9, 8)),
            (install(8, false), after(9, 8, 8)),
            (compact(8, 4), after(4, 9, 8)),
            (compact(8, 2), after(3, 9, 8)),
        ] {
            assert_eq!(BOUNDS_KEPT.after(&write).unwrap(), bounds, "{write:?}");
        }
        assert!(BOUNDS_KEPT.after(&append(&[5])).is_err());
    }
}

//! What one batch of the core did to its log, for those who watch.

use raft_core::{Configuration, Entry, LogIndex, Node, Role, SnapshotMeta, Term, Write};

/// Entries that the core put into its log, and the term of the one before them, if that is still there.
#[derive(Clone, Debug)]
pub(crate) struct Appended {
    pub(crate) previous_term: Option<Term>,
    pub(crate) entries: Vec<Entry>,
}

/// What changed, and how things stand after it.
#[derive(Clone, Debug)]
pub(crate) struct LogChange {
    pub(crate) role: Role,
    pub(crate) term: Term,
    pub(crate) last_log_index: LogIndex,
    pub(crate) appended: Vec<Appended>,
    /// Snapshots that were cut here or came from a leader.
    pub(crate) snapshots: Vec<SnapshotMeta>,
    /// Whether one of them replaced the log.
    pub(crate) has_installed: bool,
    /// What is newly known to be committed.
    pub(crate) committed: Vec<(LogIndex, Term)>,
    /// The members as of the end of the log, and the stores by which they count here.
    pub(crate) configuration: Configuration,
}

impl LogChange {
    pub(super) fn of(node: &Node, told_commit: LogIndex, writes: &[Write]) -> Self {
        let status = node.status();
        let mut change = Self {
            role: status.soft_state.role,
            term: status.soft_state.term,
            last_log_index: status.last_log_index,
            appended: Vec::new(),
            snapshots: Vec::new(),
            has_installed: false,
            committed: Vec::new(),
            configuration: status.configuration,
        };
        for write in writes {
            match write {
                Write::HardState(_) => {}
                Write::Append(entries) => change.appended.push(Appended {
                    previous_term: entries
                        .first()
                        .and_then(|first| node.term_at(first.index.previous())),
                    entries: entries.clone(),
                }),
                Write::InstallSnapshot { snapshot, .. } => {
                    change.has_installed = true;
                    change.snapshots.push(snapshot.clone());
                }
                Write::Compact { snapshot, .. } => change.snapshots.push(snapshot.clone()),
            }
        }
        let mut index = told_commit;
        while index < status.commit_index {
            index = index.next();
            if let Some(term) = node.term_at(index) {
                change.committed.push((index, term));
            }
        }
        change
    }
}

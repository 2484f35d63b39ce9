//! Looks into the data directory of a stopped node without changing it.
//!
//! Opening a store writes: sled truncates and rewrites its files, left-overs are removed. So what is looked at is a
//! private copy in a [`Workspace`] (the snapshot files, which are only read, are linked to instead). On the copy
//! runs the very code that opens a store, so that its verdict is what the node would say when it is started;
//! and beside it a reading that goes on behind damage and tells of each record what is wrong with it.
//!
//! ```
//! # use raft_core::{Configuration, NodeId};
//! # use storage::{Identity, Options, SledStorage};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let dir = temporary.path();
//! # let identity = Identity { cluster_id: "demo".to_owned(), node_id: NodeId(1) };
//! # let initial = Configuration::of_voters([NodeId(1)]);
//! # drop(SledStorage::open(dir, &identity, &initial, &Options::default())?);
//! use storage::inspect::{Workspace, inspect};
//!
//! let workspace = Workspace::create(&std::env::temp_dir())?;
//! let found = inspect(dir, &workspace)?;
//! assert!(found.is_whole());
//! assert_eq!(found.identity.unwrap().cluster_id, "demo");
//! # Ok(())
//! # }
//! ```

mod records;
mod workspace;

use std::io;
use std::path::{Path, PathBuf};

use raft_core::{Configuration, Entry, HardState, Incarnation, LogIndex, NodeId, SnapshotMeta};

pub use self::workspace::Workspace;
use crate::directory::{self, Look};
use crate::error::StorageError;
use crate::hard_state::Identity;
use crate::high_water::HighWater;
use crate::journal::{self, JOURNAL_FILES};
use crate::sled_storage::{Options, SledStorage};
use crate::snapshot_file::{FileSnapshots, SnapshotStore as _};

/// What a data directory holds, as far as it can be read.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Inspection {
    /// The directory.
    pub path: PathBuf,
    /// Whose it is.
    pub identity: Option<Identity>,
    /// Which store of its node it is, by the marker.
    pub incarnation: Option<Incarnation>,
    /// Its creation was never finished: nothing was ever acknowledged, and the next start begins anew.
    pub unfinished: bool,
    /// Term and vote.
    pub hard_state: Option<HardState>,
    /// The latest snapshot on record.
    pub snapshot: Option<SnapshotReport>,
    /// The first and the last index of the log that is on record; the last is one below the first when the
    /// log is empty.
    pub log: Option<(LogIndex, LogIndex)>,
    /// The last batch of writes that the store holds.
    pub last_batch: Option<u64>,
    /// The last batch of writes that is known to have been acknowledged.
    pub high_water: Option<u64>,
    /// The files of the journal.
    pub journal: Vec<JournalReport>,
    /// Every record, in the order of the keys, as it is with the journal carried out.
    pub records: Vec<RecordReport>,
    /// The entries of the log that can be read, in order.
    pub entries: Vec<Entry>,
    /// Snapshot files that no record names, and their sizes in bytes. The next start removes them.
    pub left_over: Vec<(String, u64)>,
    /// What is wrong, but for single records and the snapshot.
    pub problems: Vec<String>,
    /// Why a node would refuse to start from this directory, if it would.
    pub refusal: Option<String>,
    /// Some of the journal that was acknowledged cannot be read, so that what is on record may be outdated.
    journal_is_cut_short: bool,
}

/// One of the two files of the journal, the redo log in front of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalReport {
    /// Its name in the directory `journal`.
    pub name: String,
    /// What it holds, if that can be read.
    pub content: Option<JournalContent>,
    /// What is wrong with it by itself.
    pub problem: Option<String>,
}

/// What a file of the journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalContent {
    /// Counts the uses of the two files: the higher one is the active file.
    pub generation: u64,
    /// The first and the last batch of writes in it; the last is one below the first if there is none.
    pub batches: (u64, u64),
    /// Up to where it is used, in bytes.
    pub used_bytes: u64,
    /// Its length, in bytes.
    pub size_bytes: u64,
    /// Its last record is torn, as a crash leaves it. It was never acknowledged, so that is no damage.
    pub torn: bool,
    /// The database has all that it held, so nothing in it is needed any more. It may have been made shorter for
    /// its next use.
    pub spent: bool,
}

/// The latest snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotReport {
    /// What the record says of it.
    pub meta: SnapshotMeta,
    /// What is wrong with its file: it is missing, or a checksum in it does not match.
    pub problem: Option<String>,
}

/// One record of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordReport {
    /// Its key: readable for the small records, `log INDEX` or `log INDEX.FRAGMENT` for those of the log.
    pub key: String,
    /// The entries in it. For a fragment of an entry, that entry.
    pub indexes: Option<(LogIndex, LogIndex)>,
    /// Its serial number.
    pub serial: Option<u64>,
    /// Its length, in bytes.
    pub bytes: usize,
    /// What is wrong with it: its checksum, its version, its content, or its place in the chain.
    pub problem: Option<String>,
}

impl Inspection {
    /// Whether nothing is wrong, and a node would start from this.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.refusal.is_none()
            && self.problems.is_empty()
            && self.journal.iter().all(|file| file.problem.is_none())
            && self.records.iter().all(|record| record.problem.is_none())
            && self
                .snapshot
                .as_ref()
                .is_none_or(|snapshot| snapshot.problem.is_none())
    }
}

/// Looks into `dir`, of which nothing is changed, with `workspace` for the copy. A node that is started
/// meanwhile is refused as for a directory in use.
///
/// # Errors
///
/// When there is nothing to look into: the directory is none, is no data directory, is in use or cannot be read, or
/// the copy cannot be written. Damage is no error, and told in the result.
pub fn inspect(dir: &Path, workspace: &Workspace) -> Result<Inspection, StorageError> {
    let _closed = directory::keep_closed(dir)?;
    let mut found = Inspection {
        path: dir.to_path_buf(),
        ..Inspection::default()
    };
    let copy = workspace.copy(dir)?;
    match directory::look(&copy) {
        Ok(Look {
            identity,
            incarnation,
            ready,
        }) => {
            found.identity = Some(identity);
            found.incarnation = Some(incarnation);
            found.unfinished = !ready;
        }
        Err(error) => found.problems.push(error.to_string()),
    }
    if !found.unfinished {
        found.read(&copy);
        // Anew: to read the database has changed the copy, and a node would open what was found.
        found.judge(&workspace.copy(dir)?);
    }
    let told_of_files = found.journal.iter().filter_map(|file| file.problem.as_ref());
    let told: Vec<&String> = told_of_files.chain(&found.refusal).collect();
    found.problems.retain(|problem| !told.contains(&problem));
    found.say_where_it_really_is(&copy);
    Ok(found)
}

impl Inspection {
    fn read(&mut self, copy: &Path) {
        // Of a part that is not there nothing more is to be said than that.
        let is_there = |part: &str| copy.join(part).exists();
        match HighWater::open(copy) {
            Ok((_, batch)) => self.high_water = Some(batch),
            Err(error) if is_there("high-water") => self.problems.push(error.to_string()),
            Err(_) => {}
        }
        let mut in_sled = None;
        if is_there("sled/db") {
            match records::read(self, copy) {
                Ok(last_batch) => in_sled = last_batch,
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        self.journal = JOURNAL_FILES
            .iter()
            .map(|name| read_journal_file(copy, name, in_sled))
            .collect();
        self.read_snapshots(copy);
    }

    /// What a node does with it.
    fn judge(&mut self, copy: &Path) {
        // First, as to open the store creates what it lacks.
        let missing = directory::require_parts(copy).err();
        // Without a marker it does not come to a comparison of identities.
        let identity = self.identity.clone().unwrap_or(Identity {
            cluster_id: String::new(),
            node_id: NodeId(0),
        });
        let opened = SledStorage::open(copy, &identity, &Configuration::default(), &Options::default());
        // A marker that cannot be read is refused first.
        let refusal = match missing {
            Some(missing) if self.incarnation.is_some() => Some(missing),
            _ => opened.err(),
        };
        // A node also loads the state that its snapshot holds.
        let damage = || self.snapshot.as_ref()?.problem.clone();
        self.refusal = refusal.map(|error| error.to_string()).or_else(damage);
    }

    fn read_snapshots(&mut self, copy: &Path) {
        let dir = directory::snapshots_dir(copy);
        match self.left_over_in(&dir) {
            Ok(left_over) => self.left_over = left_over,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let error = StorageError::io("list", &dir, error);
                self.problems.push(error.to_string());
            }
        }
        if let Some(snapshot) = self
            .snapshot
            .as_mut()
            .filter(|snapshot| snapshot.meta.size_bytes > 0)
        {
            snapshot.problem = verify_snapshot(&dir, &snapshot.meta, self.journal_is_cut_short).err();
        }
    }

    fn left_over_in(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let on_record = self
            .snapshot
            .as_ref()
            .map(|snapshot| FileSnapshots::name_of(&snapshot.meta));
        let mut left_over = Vec::new();
        for entry in dir.read_dir()? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if Some(&name) != on_record.as_ref() {
                left_over.push((name, path.metadata()?.len()));
            }
        }
        left_over.sort();
        Ok(left_over)
    }

    /// Messages name what the reader knows, not the copy.
    fn say_where_it_really_is(&mut self, copy: &Path) {
        let (copy, real) = (copy.display().to_string(), self.path.display().to_string());
        let records = self
            .records
            .iter_mut()
            .filter_map(|record| record.problem.as_mut());
        let snapshot = self
            .snapshot
            .iter_mut()
            .filter_map(|snapshot| snapshot.problem.as_mut());
        let journal = self.journal.iter_mut().filter_map(|file| file.problem.as_mut());
        let texts = self
            .problems
            .iter_mut()
            .chain(&mut self.refusal)
            .chain(records)
            .chain(journal)
            .chain(snapshot);
        texts.for_each(|text| *text = text.replace(&copy, &real));
    }
}

fn read_journal_file(copy: &Path, name: &str, in_sled: Option<u64>) -> JournalReport {
    let dir = &directory::journal_dir(copy);
    let looked = journal::look(dir, name, in_sled);
    let is_spent = in_sled.is_some_and(|in_sled| journal::is_spent(dir, name, in_sled));
    let problem = looked.as_ref().err().map(|error| match error {
        StorageError::Damaged { path, what, .. } if is_spent => format!(
            "{} is damaged: {what}. Nothing in it is needed any more: the database has all that it held, and a node starts \
             without it. Check the disk",
            path.display()
        ),
        StorageError::Damaged { path, .. } if in_sled.is_none() && journal::may_be_spent(dir, name) => format!(
            "{} is shorter than its header says: it was damaged, or, if the database has all that it held, made shorter \
             for its next use. Which of the two cannot be told without the database",
            path.display()
        ),
        error => error.to_string(),
    });
    let content = looked.ok().map(|look| JournalContent {
        generation: look.generation,
        batches: (look.first_batch, look.last_batch),
        used_bytes: look.used_bytes,
        size_bytes: look.size_bytes,
        torn: look.torn,
        spent: look.spent,
    });
    JournalReport {
        name: name.to_owned(),
        content,
        problem,
    }
}

/// Reads all of the file, every chunk of which has a checksum. What is on record is not the latest snapshot when the
/// journal `is_cut_short`.
fn verify_snapshot(dir: &Path, meta: &SnapshotMeta, is_cut_short: bool) -> Result<(), String> {
    let opened = FileSnapshots::at(dir).and_then(|snapshots| snapshots.open(meta));
    let reader = opened.map_err(|error| match error {
        StorageError::SnapshotLost { path } if is_cut_short => format!(
            "the snapshot file {} is not there: a later one may have taken its place, whose record was in the part of \
             the journal that cannot be read",
            path.display()
        ),
        error => error.to_string(),
    })?;
    let read = io::copy(&mut reader.content(), &mut io::sink());
    read.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use raft_core::SnapshotMeta;

    use super::{Inspection, JournalReport, RecordReport, SnapshotReport};

    #[test]
    fn whatever_is_wrong_is_enough_for_not_being_whole() {
        assert!(Inspection::default().is_whole());
        let what = || Some("wrong".to_owned());
        let refused = Inspection {
            refusal: what(),
            ..Inspection::default()
        };
        let with_a_problem = Inspection {
            problems: vec!["wrong".to_owned()],
            ..Inspection::default()
        };
        let journal = Inspection {
            journal: vec![JournalReport {
                name: "a".to_owned(),
                content: None,
                problem: what(),
            }],
            ..Inspection::default()
        };
        let record = Inspection {
            records: vec![RecordReport {
                key: "log 1".to_owned(),
                indexes: None,
                serial: None,
                bytes: 0,
                problem: what(),
            }],
            ..Inspection::default()
        };
        let snapshot = Inspection {
            snapshot: Some(SnapshotReport {
                meta: SnapshotMeta::default(),
                problem: what(),
            }),
            ..Inspection::default()
        };
        for inspection in [refused, with_a_problem, journal, record, snapshot] {
            assert!(!inspection.is_whole(), "{inspection:?}");
        }
    }
}

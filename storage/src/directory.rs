//! The data directory: who owns it, who has it open, and whether it has ever been a store.
//!
//! ```text
//! data directory/
//!   raft-storage.lock   held with an OS file lock as long as a store is open
//!   raft-storage        the marker: whose directory this is, and whether its creation was finished
//!   high-water          how far this node has acknowledged
//!   journal/            what is acknowledged and not yet in the database
//!   sled/               the database: hard state, log, which snapshot
//!   snapshots/          the snapshot files
//! ```
//!
//! # Creation, and what a crash after each step leaves
//!
//! 1. The directory, synced into its parent. *Empty: the next open starts anew.*
//! 2. The lock file; and again a sync of the way here, because a crash in 1 may have left the directory without
//!    it. *Not counted as content: as after 1.*
//! 3. The marker with state `Creating`. *The next open clears what step 4 left and starts anew: nothing was
//!    ever acknowledged, because the first write comes after step 6.*
//! 4. `snapshots/`, `sled/` with the first batch, `journal/`, `high-water`; all synced. *As after 3.*
//! 5. The marker with state `Ready`, by rename. *Before the rename as after 3; after it the store exists.*
//! 6. The directory is synced. *From here on the marker says that a store was here; if the rest is gone, the
//!    contents were lost and opening is refused.*
//!
//! A directory that was emptied completely, marker included, cannot be told from a fresh one *here*. But the
//! marker names the store by a number drawn at random, its incarnation, and the cluster keeps a registry of
//! those: a node that comes back with another one is found out by its peers (see `raft_core::Standing`), and has
//! to be created with [`Options::join`](crate::Options) to take the lost one's place.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use raft_core::Incarnation;
use serde::{Deserialize, Serialize};

use crate::durability::{self, SLED_CONFIG_FILE, SLED_DATA_FILE};
use crate::error::StorageError;
use crate::hard_state::{Identity, SMALL_RECORD_LIMIT_BYTES};
use crate::high_water::HIGH_WATER_FILE;
use crate::journal::JOURNAL_FILES;
use crate::sealed::{self, FORMAT_VERSION, Flaw};

/// The file in a data directory that is locked as long as its store is open. It is never replaced.
pub(crate) const LOCK_FILE: &str = "raft-storage.lock";
pub(crate) const MARKER_FILE: &str = "raft-storage";
const MARKER_TEMPORARY_FILE: &str = "raft-storage.tmp";
const SLED_DIR: &str = "sled";
const SNAPSHOTS_DIR: &str = "snapshots";
const JOURNAL_DIR: &str = "journal";

/// What a store keeps in its directory.
pub(crate) const PARTS: [&str; 5] = [MARKER_FILE, HIGH_WATER_FILE, SLED_DIR, SNAPSHOTS_DIR, JOURNAL_DIR];

/// What file systems put into an empty directory by themselves.
const NOT_CONTENT: [&str; 3] = [LOCK_FILE, MARKER_TEMPORARY_FILE, "lost+found"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    Creating,
    Ready,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) stage: Stage,
    pub(crate) identity: Identity,
    pub(crate) store: StoreId,
}

/// Which store this is, and how it came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreId {
    /// Drawn at random for each creation.
    pub(crate) incarnation: Incarnation,
    /// Whether the operator made it to join a cluster, in place of a store that was lost.
    pub(crate) joins: bool,
}

impl StoreId {
    /// For a store that is about to be created.
    pub(crate) fn draw(joins: bool) -> Self {
        Self {
            incarnation: Incarnation(rand::random()),
            joins,
        }
    }
}

/// What a claimed directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing that was ever used.
    Fresh,
    /// What an unfinished creation left: nothing that was ever used, either.
    Unfinished {
        /// Whether the store was to join, which stays so.
        joins: bool,
    },
    /// A store of this node, with all its parts.
    Store(StoreId),
}

/// A data directory that is ours alone as long as this value lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Its lock goes when it is dropped.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing, and locks it.
    pub(crate) fn claim(path: &Path) -> Result<Self, StorageError> {
        durability::create_dir_durably(path)?;
        // Before the lock file: a directory that is somebody's home should not even get that.
        if !is_there(&path.join(MARKER_FILE))? {
            require_empty(path)?;
        }
        refuse_what_is_no_file(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            _lock: lock(path)?,
        })
    }

    /// Takes a private copy as it is, whatever it lacks.
    pub(crate) fn of_copy(path: &Path) -> Result<Self, StorageError> {
        Ok(Self {
            path: path.to_path_buf(),
            _lock: lock(path)?,
        })
    }

    pub(crate) fn sled_dir(&self) -> PathBuf {
        self.path.join(SLED_DIR)
    }

    pub(crate) fn snapshots_dir(&self) -> PathBuf {
        snapshots_dir(&self.path)
    }

    pub(crate) fn journal_dir(&self) -> PathBuf {
        journal_dir(&self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is there, after checking whose it is and that nothing is missing.
    pub(crate) fn contents(&self, identity: &Identity) -> Result<Contents, StorageError> {
        let Some(marker) = read_marker(&self.path)? else {
            require_empty(&self.path)?;
            return Ok(Contents::Fresh);
        };
        self.check_identity(identity, &marker.identity)?;
        match marker.stage {
            Stage::Creating => Ok(Contents::Unfinished {
                joins: marker.store.joins,
            }),
            Stage::Ready => self.require_parts().map(|()| Contents::Store(marker.store)),
        }
    }

    /// Announces that a store is about to be created here, and clears what an unfinished creation left.
    pub(crate) fn begin_creation(&self, identity: &Identity, store: StoreId) -> Result<(), StorageError> {
        durability::sync_way_to(&self.path)?;
        self.write_marker(identity, store, Stage::Creating)?;
        for leftover in [self.sled_dir(), self.snapshots_dir(), self.journal_dir()] {
            match fs::remove_dir_all(&leftover) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StorageError::io("remove", &leftover, error));
                }
                _ => {}
            }
        }
        durability::create_dir_durably(&self.snapshots_dir())
    }

    /// From here on, what is missing was lost.
    pub(crate) fn finish_creation(&self, identity: &Identity, store: StoreId) -> Result<(), StorageError> {
        self.write_marker(identity, store, Stage::Ready)
    }

    fn write_marker(&self, identity: &Identity, store: StoreId, stage: Stage) -> Result<(), StorageError> {
        let marker = Marker {
            stage,
            identity: identity.clone(),
            store,
        };
        let bytes = sealed::seal(MARKER_FILE.as_bytes(), &marker, SMALL_RECORD_LIMIT_BYTES)
            .map_err(|error| StorageError::invalid_write(format!("the cluster id is too long: {error}")))?;
        durability::replace_file(&self.path, MARKER_FILE, &bytes)
    }

    fn check_identity(&self, expected: &Identity, found: &Identity) -> Result<(), StorageError> {
        let path = self.path.clone();
        if found.cluster_id != expected.cluster_id {
            let (expected, found) = (expected.cluster_id.clone(), found.cluster_id.clone());
            return Err(StorageError::OtherCluster {
                path,
                expected,
                found,
            });
        }
        if found.node_id != expected.node_id {
            return Err(StorageError::OtherNode {
                path,
                expected: expected.node_id,
                found: found.node_id,
            });
        }
        Ok(())
    }

    fn require_parts(&self) -> Result<(), StorageError> {
        require_parts(&self.path)
    }
}

/// What an open store relies on: there from the end of its creation on, and never replaced.
pub(crate) fn standing_parts() -> Vec<PathBuf> {
    let (sled, journal) = (Path::new(SLED_DIR), Path::new(JOURNAL_DIR));
    let mut parts = vec![
        sled.join(SLED_DATA_FILE),
        sled.join(SLED_CONFIG_FILE),
        PathBuf::from(SNAPSHOTS_DIR),
    ];
    parts.extend(JOURNAL_FILES.map(|file| journal.join(file)));
    parts.extend([MARKER_FILE, HIGH_WATER_FILE, LOCK_FILE].map(PathBuf::from));
    parts
}

/// The directories that they are in, relative to the data directory.
pub(crate) fn standing_directories() -> [&'static Path; 3] {
    ["", SLED_DIR, JOURNAL_DIR].map(Path::new)
}

/// Checks that a directory whose creation was finished has all that belongs there.
pub(crate) fn require_parts(dir: &Path) -> Result<(), StorageError> {
    let sled_dir = Path::new(SLED_DIR);
    let parts = [
        sled_dir.join(SLED_DATA_FILE),
        sled_dir.join(SLED_CONFIG_FILE),
        PathBuf::from(SNAPSHOTS_DIR),
        PathBuf::from(HIGH_WATER_FILE),
        Path::new(JOURNAL_DIR).join(JOURNAL_FILES[0]),
        Path::new(JOURNAL_DIR).join(JOURNAL_FILES[1]),
    ];
    for part in parts {
        if !is_there(&dir.join(&part))? {
            return Err(StorageError::ContentsLost {
                path: dir.to_path_buf(),
                missing: part.display().to_string(),
            });
        }
    }
    Ok(())
}

/// Whether there is something. What cannot be looked at may well be whole, so that is an error.
fn is_there(path: &Path) -> Result<bool, StorageError> {
    match path.try_exists() {
        // What should be a directory on the way is none, so there is nothing behind it.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        looked => looked.map_err(StorageError::while_trying("look at", path)),
    }
}

fn read_marker(dir: &Path) -> Result<Option<Marker>, StorageError> {
    let path = dir.join(MARKER_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("read", &path, error)),
    };
    match sealed::unseal(MARKER_FILE.as_bytes(), &bytes, SMALL_RECORD_LIMIT_BYTES) {
        Ok(marker) => Ok(Some(marker)),
        Err(Flaw::Version(found)) => Err(StorageError::UnsupportedVersion {
            path,
            found: found.into(),
            supported: FORMAT_VERSION.into(),
        }),
        Err(flaw) => Err(StorageError::Damaged {
            path,
            what: flaw.to_string(),
            index: None,
        }),
    }
}

/// Whose directory it is, and whether its creation was finished.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) identity: Identity,
    pub(crate) incarnation: Incarnation,
    pub(crate) ready: bool,
}

/// Reads the marker of a directory that has one.
pub(crate) fn look(dir: &Path) -> Result<Look, StorageError> {
    match read_marker(dir)? {
        Some(Marker {
            stage,
            identity,
            store,
        }) => Ok(Look {
            identity,
            incarnation: store.incarnation,
            ready: stage == Stage::Ready,
        }),
        None => Err(not_a_store(dir)),
    }
}

/// Keeps stores from being opened in a data directory as long as the file is open. Writes nothing; without a
/// lock file nothing has to be kept.
pub(crate) fn keep_closed(dir: &Path) -> Result<Option<File>, StorageError> {
    let is_dir = fs::metadata(dir)
        .map_err(StorageError::while_trying("find", dir))?
        .is_dir();
    if !is_dir {
        return Err(StorageError::NotADirectory {
            path: dir.to_path_buf(),
        });
    }
    let path = dir.join(LOCK_FILE);
    // A lock file alone is what a node leaves that never came further.
    let mut is_empty = true;
    for part in PARTS {
        is_empty &= !is_there(&dir.join(part))?;
    }
    if is_empty {
        return Err(not_a_store(dir));
    }
    refuse_what_is_no_file(dir)?;
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
        opened => opened.map_err(StorageError::while_trying("open", &path))?,
    };
    if path.is_dir() {
        let error = io::ErrorKind::IsADirectory.into();
        return Err(StorageError::io("open", &path, error));
    }
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(StorageError::InUse {
            path: dir.to_path_buf(),
        }),
        Err(TryLockError::Error(error)) => Err(StorageError::io("lock", &path, error)),
    }
}

/// Where the snapshot files of the data directory `dir` are.
pub(crate) fn snapshots_dir(dir: &Path) -> PathBuf {
    dir.join(SNAPSHOTS_DIR)
}

/// Where the journal of the data directory `dir` is.
pub(crate) fn journal_dir(dir: &Path) -> PathBuf {
    dir.join(JOURNAL_DIR)
}

fn not_a_store(dir: &Path) -> StorageError {
    StorageError::NotAStore {
        path: dir.to_path_buf(),
        found_nothing_of: MARKER_FILE,
    }
}

fn require_empty(dir: &Path) -> Result<(), StorageError> {
    let listing = fs::read_dir(dir).map_err(StorageError::while_trying("list", dir))?;
    for entry in listing {
        let name = entry
            .map_err(StorageError::while_trying("list", dir))?
            .file_name();
        if !NOT_CONTENT.iter().any(|known| name == OsStr::new(known)) {
            return Err(not_a_store(dir));
        }
    }
    Ok(())
}

/// Whoever opens a pipe waits until somebody has its other end.
fn refuse_what_is_no_file(dir: &Path) -> Result<(), StorageError> {
    let is_one = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|found| !found.is_file() && !found.is_dir())
    };
    match standing_parts().iter().map(|part| dir.join(part)).find(is_one) {
        None => Ok(()),
        Some(path) => {
            let what = "it is neither a file nor a directory";
            let error = io::Error::new(io::ErrorKind::IsADirectory, what);
            Err(StorageError::io("open", &path, error))
        }
    }
}

fn lock(dir: &Path) -> Result<File, StorageError> {
    let path = dir.join(LOCK_FILE);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(StorageError::while_trying("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::InUse {
            path: dir.to_path_buf(),
        }),
        Err(TryLockError::Error(error)) => Err(StorageError::io("lock", &path, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use raft_core::NodeId;

    use super::{
        Contents, DataDir, JOURNAL_DIR, MARKER_FILE, SLED_DIR, SNAPSHOTS_DIR, StoreId, is_there, keep_closed,
        read_marker,
    };
    use crate::hard_state::Identity;

    #[test]
    fn behind_a_file_there_is_nothing_and_a_marker_that_cannot_be_read_is_no_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(is_there(&file).unwrap());
        assert!(!is_there(&file.join("part")).unwrap());
        assert!(!is_there(&dir.path().join("part")).unwrap());
        assert!(read_marker(dir.path()).unwrap().is_none());
        fs::create_dir(dir.path().join(MARKER_FILE)).unwrap();
        read_marker(dir.path()).unwrap_err();
    }

    #[test]
    fn a_copy_without_its_lock_file_has_nothing_to_be_kept_from() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER_FILE), "").unwrap();
        assert!(keep_closed(dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_creation_begins_only_when_what_the_last_one_left_is_gone() {
        let identity = Identity {
            cluster_id: "test".to_owned(),
            node_id: NodeId(1),
        };
        let dir = tempfile::tempdir().unwrap();
        let claimed = DataDir::claim(dir.path()).unwrap();
        let store = StoreId::draw(true);
        claimed.begin_creation(&identity, store).unwrap();
        for part in [SLED_DIR, SNAPSHOTS_DIR, JOURNAL_DIR] {
            let leftover = dir.path().join(part).join("leftover");
            fs::create_dir_all(&leftover).unwrap();
            claimed.begin_creation(&identity, store).unwrap();
            assert!(!leftover.exists(), "{part}");
        }
        let unfinished = Contents::Unfinished { joins: true };
        assert_eq!(claimed.contents(&identity).unwrap(), unfinished);
        // No directory, so it is nothing that a creation has left.
        fs::write(dir.path().join(SLED_DIR), "").unwrap();
        claimed.begin_creation(&identity, store).unwrap_err();
    }
}

//! What it takes for bytes to survive a power loss: the rule that makes sled durable, and the file
//! operations.
//!
//! `sled::Db::flush` writes the log to the operating system and asks it to *start* writing the pages out
//! (`sync_file_range`), which neither waits for the disk's cache nor covers the file's metadata: after a
//! power loss the flushed data may be gone. So what goes into sled here is
//!
//! 1. applied as `sled::Batch`es (each atomic: recovered whole or not at all),
//! 2. flushed (all of it is in the operating system),
//! 3. `fdatasync`ed through a handle of our own on sled's `db` file (all of it is on the disk),
//!
//! and only then relied upon. A new file or directory also needs its parent directory synced, once.
//!
//! A failed sync is never tried again: the kernel may have dropped the pages it could not write and would
//! call the second try a success.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::changes::Records;
use crate::database::{of_the_system, text_of};
use crate::error::StorageError;
use crate::panics;
use crate::progress::Progress;
use crate::quiet::Quiet;
use crate::record::LOG_PREFIX;
use crate::spacers;
use crate::upkeep::{Traffic, Upkeep};

/// sled's data file inside its directory.
pub(crate) const SLED_DATA_FILE: &str = "db";

/// sled's parameter file inside its directory.
pub(crate) const SLED_CONFIG_FILE: &str = "conf";

/// Commits batches to sled so that they survive a power loss.
pub(crate) struct DurableTree {
    tree: Quiet<sled::Tree>,
    upkeep: Upkeep,
    data_file: File,
    path: PathBuf,
    progress: Progress,
    /// Called before each batch, to fail, to panic or to hang as sled can.
    #[cfg(test)]
    hook: Option<Hook>,
}

/// See `DurableTree::set_hook`.
#[cfg(test)]
pub(crate) type Hook = std::sync::Arc<dyn Fn() -> Result<(), StorageError> + Send + Sync>;

impl fmt::Debug for DurableTree {
    /// Names the file; sled's own would print every record.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableTree")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl DurableTree {
    /// Wraps the default tree of `db`, which lives in `sled_dir`.
    pub(crate) fn new(db: &sled::Db, sled_dir: &Path) -> Result<Self, StorageError> {
        let path = sled_dir.join(SLED_DATA_FILE);
        // Opened for writing because some systems refuse to sync a handle that cannot write.
        let data_file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(StorageError::while_trying("open", &path))?;
        let progress = Progress::default();
        Ok(Self {
            tree: Quiet::new((**db).clone()),
            upkeep: Upkeep::new(db.clone(), progress.clone()),
            data_file,
            path,
            progress,
            #[cfg(test)]
            hook: None,
        })
    }

    /// Makes `batch` and all before it durable. After a failure the tree must not be written again.
    pub(crate) fn commit(&self, batch: sled::Batch) -> Result<(), StorageError> {
        self.apply(batch)?;
        self.make_durable()
    }

    /// Counts the batches.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Applies `batch`, which is not durable yet. After a failure the tree must not be written again.
    pub(crate) fn apply(&self, batch: sled::Batch) -> Result<(), StorageError> {
        #[cfg(test)]
        if let Some(hook) = &self.hook {
            hook()?;
        }
        self.written(|| self.tree.apply_batch(batch))
    }

    /// Makes all that was applied durable. After a failure the tree must not be written again.
    pub(crate) fn make_durable(&self) -> Result<(), StorageError> {
        self.written(|| self.tree.flush())?;
        self.sync()?;
        self.progress.step();
        Ok(())
    }

    fn written<T>(&self, write: impl FnOnce() -> sled::Result<T>) -> Result<T, StorageError> {
        match panics::catch(write) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(sled::Error::Io(error))) => {
                Err(StorageError::io("write", &self.path, of_the_system(error)))
            }
            Ok(Err(error)) => Err(self.write_failed(text_of(&error))),
            Err(panic) => Err(self.write_failed(panic)),
        }
    }

    /// So much was committed and read since the last call: keeps sled's cache and its file within bounds.
    pub(crate) fn keep_up(&mut self, traffic: Traffic) -> Result<(), StorageError> {
        let Self {
            upkeep, data_file, ..
        } = self;
        match panics::catch(|| upkeep.after(traffic, data_file)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.write_failed(text_of(&error))),
            Err(panic) => Err(self.write_failed(panic)),
        }
    }

    /// Waits until everything written to the data file so far is on the disk.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.data_file
            .sync_data()
            .map_err(StorageError::while_trying("sync", &self.path))
    }

    /// Whether there is no record at all. Also when sled fails on finding out: reading then tells why.
    pub(crate) fn is_empty(&self) -> bool {
        panics::catch(|| self.tree.is_empty()).unwrap_or(false)
    }

    /// The value under `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, String> {
        panics::catch(|| self.tree.get(key))?.map_err(|error| text_of(&error))
    }

    /// Whether there is something under `key`.
    pub(crate) fn has(&self, key: &[u8]) -> Result<bool, StorageError> {
        let found = self.get(key).map_err(|cause| self.write_failed(cause))?;
        Ok(found.is_some())
    }

    /// Whether every key that there is comes before `key`.
    pub(crate) fn ends_before(&self, key: &[u8]) -> Result<bool, String> {
        let next = panics::catch(|| self.tree.range(key..).next().transpose())?;
        next.map(|next| next.is_none()).map_err(|error| text_of(&error))
    }

    /// Hands every record but the [spacers](crate::spacers) to `visit`, in the order of the keys, until one is refused.
    pub(crate) fn for_each<E: From<String>>(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut records = self.tree.iter();
        loop {
            match panics::catch(|| records.next()).map_err(E::from)? {
                None => return Ok(()),
                Some(Err(error)) => return Err(E::from(text_of(&error))),
                Some(Ok((key, _))) if spacers::is_spacer(&key) => {}
                Some(Ok((key, value))) => visit(&key, &value)?,
            }
        }
    }

    /// The spacers that stand before the first record of the log.
    pub(crate) fn spacers_before_the_log(&self) -> Result<Vec<Vec<u8>>, StorageError> {
        let found = panics::catch(|| {
            let keys = self.tree.range([LOG_PREFIX]..).keys();
            let is_spacer =
                |key: &sled::Result<sled::IVec>| key.as_ref().map_or(true, |key| spacers::is_spacer(key));
            keys.take_while(is_spacer)
                .map(|key| key.map(|key| key.to_vec()))
                .collect::<sled::Result<_>>()
        });
        found
            .and_then(|found| found.map_err(|error| text_of(&error)))
            .map_err(|cause| self.write_failed(cause))
    }

    /// sled's data file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn write_failed(&self, cause: String) -> StorageError {
        StorageError::WriteFailed {
            path: self.path.clone(),
            cause,
        }
    }

    /// Has `hook` called before each batch from now on.
    #[cfg(test)]
    pub(crate) fn set_hook(&mut self, hook: Hook) {
        self.hook = Some(hook);
    }
}

impl Records for DurableTree {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let value = Self::get(self, key).map_err(|cause| self.write_failed(cause))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the entries of a directory durable: files created in it, renamed into it, removed from it.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(StorageError::while_trying("sync", dir))
}

/// Makes the way to `dir` durable: its name in the directory above it, and so on to the top. A crash may have
/// come between the creation of any of them and its sync.
pub(crate) fn sync_way_to(dir: &Path) -> Result<(), StorageError> {
    let whole = dir
        .canonicalize()
        .map_err(StorageError::while_trying("find", dir))?;
    for above in whole.ancestors().skip(1) {
        match File::open(above) {
            // It is none that this user could have created.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
            opened => opened.and_then(|handle| handle.sync_all()),
        }
        .map_err(StorageError::while_trying("sync", above))?;
    }
    Ok(())
}

/// Makes the bytes of an existing file durable.
pub(crate) fn sync_file(path: &Path) -> Result<(), StorageError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.sync_all())
        .map_err(StorageError::while_trying("sync", path))
}

/// Replaces `dir/name` by `bytes`: after a crash it holds the old bytes or the new ones, and the new ones for
/// certain once this has returned.
pub(crate) fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let temporary = dir.join(format!("{name}.tmp"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(StorageError::while_trying("write", &temporary))?;
    let path = dir.join(name);
    fs::rename(&temporary, &path).map_err(StorageError::while_trying("rename a file to", &path))?;
    sync_dir(dir)
}

/// Creates `dir` with its parents, each durable in the one above it.
pub(crate) fn create_dir_durably(dir: &Path) -> Result<(), StorageError> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir_durably(parent)?;
    match fs::create_dir(dir) {
        Ok(()) => sync_dir(parent),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(StorageError::NotADirectory {
            path: dir.to_path_buf(),
        }),
        Err(error) => Err(StorageError::io("create the directory", dir, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{DurableTree, create_dir_durably};
    use crate::error::StorageError;
    use crate::upkeep::Traffic;

    #[test]
    fn much_traffic_is_followed_by_upkeep_and_little_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path()).unwrap();
        let mut tree = DurableTree::new(&db, dir.path()).unwrap();
        let mut steps_after = |changed_bytes| {
            let before = tree.progress().steps();
            let read_bytes = 0;
            tree.keep_up(Traffic {
                changed_bytes,
                read_bytes,
            })
            .unwrap();
            tree.progress().steps() - before
        };
        assert_eq!(steps_after(1), 0);
        assert!(steps_after(64 << 20) > 0);
    }

    #[test]
    fn a_directory_that_cannot_be_created_is_told_from_a_file_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a").join("b");
        create_dir_durably(&deep).unwrap();
        create_dir_durably(&deep).unwrap();
        assert!(deep.is_dir());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let told = create_dir_durably(&file).unwrap_err();
        assert!(matches!(told, StorageError::NotADirectory { .. }), "{told:?}");
        let told = create_dir_durably(&dir.path().join("n".repeat(1_000))).unwrap_err();
        assert!(matches!(told, StorageError::Io { .. }), "{told:?}");
    }
}

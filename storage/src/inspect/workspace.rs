//! A place for the private copy, which goes away again.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::directory;
use crate::error::StorageError;

const PREFIX: &str = "kv-server-inspect-";
const LOCK_FILE: &str = "in-use";
const REMOVE_ATTEMPTS: u32 = 10;
const COPY_DIR: &str = "copy";
/// A store keeps files in directories, and sled some in one below its own.
const DEEPEST: usize = 2;

/// A directory of its own, removed when this value is dropped. One that a killed process left behind is removed
/// when the next one is created.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    /// Tells that this process lives.
    _lock: File,
}

impl Workspace {
    /// Creates a workspace in `parent`, readable for this user only.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn create(parent: &Path) -> Result<Self, StorageError> {
        remove_abandoned(parent);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{PREFIX}{}-{}", std::process::id(), now.as_nanos());
        // Not under its name before it is locked: nobody takes it for abandoned.
        let (unnamed, path) = (parent.join(format!(".{name}")), parent.join(name));
        let create = || -> io::Result<File> {
            private_dir(&unnamed)?;
            let lock = File::create(unnamed.join(LOCK_FILE))?;
            lock.lock()?;
            fs::rename(&unnamed, &path)?;
            Ok(lock)
        };
        let lock = create().map_err(StorageError::while_trying("create", &path))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies what a store keeps in the data directory `dir`. Symbolic links are followed. What cannot be read is an
    /// error: of what is left out, nothing could be said. A copy that was made before is replaced.
    pub(super) fn copy(&self, dir: &Path) -> Result<PathBuf, StorageError> {
        let source = fs::canonicalize(dir).map_err(StorageError::while_trying("find", dir))?;
        let copy = self.path.join(COPY_DIR);
        match fs::remove_dir_all(&copy) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::io("remove", &copy, error));
            }
            _ => {}
        }
        private_dir(&copy).map_err(StorageError::while_trying("create", &copy))?;
        let copying = Copying {
            snapshots: directory::snapshots_dir(&source),
        };
        for part in directory::PARTS {
            copying.part(&source.join(part), &copy.join(part), DEEPEST)?;
        }
        Ok(copy)
    }
}

impl Workspace {
    /// Removes it at once, also while a copy is being made or looked into: that then fails.
    pub fn remove(&self) {
        // What is made in a directory while it is being removed can keep it. If it stays, the next one removes it.
        let _ = (0..REMOVE_ATTEMPTS).find(|_| fs::remove_dir_all(&self.path).is_ok());
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.remove();
    }
}

fn private_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Removes the workspaces whose process is gone: their lock can be had. Others, and those of other users, stay.
fn remove_abandoned(parent: &Path) {
    let Ok(listing) = fs::read_dir(parent) else { return };
    for entry in listing.flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX));
        if is_ours && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A workspace has a lock file before it has its name, so one without is abandoned, too.
fn is_abandoned(path: &Path) -> bool {
    match File::options().write(true).open(path.join(LOCK_FILE)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

struct Copying {
    /// Snapshot files are large and only ever read: a link is enough.
    snapshots: PathBuf,
}

impl Copying {
    /// `levels`: how many directories may lie in each other.
    fn part(&self, from: &Path, to: &Path, levels: usize) -> Result<(), StorageError> {
        match fs::metadata(from) {
            Ok(found) if found.is_dir() && levels > 0 => self.dir(from, to, levels - 1),
            Ok(found) if found.is_file() => self.file(from, to),
            // Nothing of ours.
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StorageError::io("read", from, error)),
        }
    }

    fn dir(&self, from: &Path, to: &Path, levels: usize) -> Result<(), StorageError> {
        private_dir(to).map_err(StorageError::while_trying("create", to))?;
        let listing = fs::read_dir(from).map_err(StorageError::while_trying("list", from))?;
        for entry in listing {
            let entry = entry.map_err(StorageError::while_trying("list", from))?;
            self.part(&entry.path(), &to.join(entry.file_name()), levels)?;
        }
        Ok(())
    }

    fn file(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        let mut source = File::open(from).map_err(StorageError::while_trying("read", from))?;
        if from.starts_with(&self.snapshots) {
            #[cfg(unix)]
            return std::os::unix::fs::symlink(from, to).map_err(StorageError::while_trying("create", to));
        }
        let mut copy = File::create(to).map_err(StorageError::while_trying("write", to))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = match io::Read::read(&mut source, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StorageError::io("read", from, error)),
            };
            io::Write::write_all(&mut copy, &buffer[..read])
                .map_err(StorageError::while_trying("write the private copy", to))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{LOCK_FILE, PREFIX, Workspace};

    #[test]
    fn a_workspace_without_its_lock_file_is_abandoned_and_one_whose_lock_cannot_be_looked_at_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let [without, unclear] = ["1-1", "1-2"].map(|name| parent.path().join(format!("{PREFIX}{name}")));
        fs::create_dir(&without).unwrap();
        fs::create_dir_all(unclear.join(LOCK_FILE)).unwrap();
        drop(Workspace::create(parent.path()).unwrap());
        assert!(!without.exists() && unclear.exists());
    }

    #[test]
    fn what_lies_deeper_than_anything_of_a_store_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("sled/below");
        fs::create_dir_all(below.join("deeper/deepest")).unwrap();
        for place in ["db", "below/blob", "below/deeper/file"] {
            fs::write(dir.path().join("sled").join(place), b"content").unwrap();
        }
        let parent = tempfile::tempdir().unwrap();
        let workspace = Workspace::create(parent.path()).unwrap();
        let copy = workspace.copy(dir.path()).unwrap();
        assert_eq!(fs::read(copy.join("sled/db")).unwrap(), b"content");
        assert_eq!(fs::read(copy.join("sled/below/blob")).unwrap(), b"content");
        assert!(!copy.join("sled/below/deeper").exists());
    }
}

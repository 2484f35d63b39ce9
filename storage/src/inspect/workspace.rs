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

    /// Copies the data directory `dir`. What cannot be read of it is told in `problems` and left out.
    pub(super) fn copy(&self, dir: &Path, problems: &mut Vec<String>) -> Result<PathBuf, StorageError> {
        let source = fs::canonicalize(dir).map_err(StorageError::while_trying("find", dir))?;
        let copy = self.path.join(COPY_DIR);
        private_dir(&copy).map_err(StorageError::while_trying("create", &copy))?;
        let mut copying = Copying {
            snapshots: directory::snapshots_dir(&source),
            problems,
        };
        copying.dir(&source, &copy)?;
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

struct Copying<'a> {
    /// Snapshot files are large and only ever read: a link is enough.
    snapshots: PathBuf,
    problems: &'a mut Vec<String>,
}

impl Copying<'_> {
    fn dir(&mut self, source: &Path, copy: &Path) -> Result<(), StorageError> {
        let listing = match fs::read_dir(source) {
            Ok(listing) => listing,
            Err(error) => return self.unreadable("list", source, error),
        };
        for entry in listing {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.unreadable("list", source, error),
            };
            let (from, to) = (entry.path(), copy.join(entry.file_name()));
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    private_dir(&to).map_err(StorageError::while_trying("create", &to))?;
                    self.dir(&from, &to)?;
                }
                Ok(kind) if kind.is_file() => self.file(&from, &to)?,
                // Nothing of ours.
                Ok(_) => {}
                Err(error) => self.unreadable("read", &from, error)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path) -> Result<(), StorageError> {
        if from.starts_with(&self.snapshots) {
            #[cfg(unix)]
            return std::os::unix::fs::symlink(from, to).map_err(StorageError::while_trying("create", to));
        }
        let mut source = match File::open(from) {
            Ok(source) => source,
            Err(error) => return self.unreadable("read", from, error),
        };
        let mut copy = File::create(to).map_err(StorageError::while_trying("write", to))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = match io::Read::read(&mut source, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.unreadable("read", from, error),
            };
            io::Write::write_all(&mut copy, &buffer[..read])
                .map_err(StorageError::while_trying("write the private copy", to))?;
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "so that callers can return it")]
    fn unreadable(
        &mut self,
        action: &'static str,
        path: &Path,
        error: io::Error,
    ) -> Result<(), StorageError> {
        self.problems
            .push(StorageError::io(action, path, error).to_string());
        Ok(())
    }
}

//! Mounting, and unmounting whatever happens.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use fuser::{BackgroundSession, Config, MountOption};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use crate::disk::Disk;
use crate::file_system::FileSystem;

/// The name of the mounts in the system's table: with the id of the process that serves them.
const SOURCE: &str = "faulty-disk-of-process-";

/// Why a disk cannot be mounted here. Tests print it and pass.
#[derive(Debug)]
pub struct Unavailable {
    cause: io::Error,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: needs root and /dev/fuse ({})", self.cause)
    }
}

impl std::error::Error for Unavailable {}

impl From<io::Error> for Unavailable {
    fn from(cause: io::Error) -> Self {
        Self { cause }
    }
}

/// Also when files are open, and with an error for every request that waits or comes later: so nothing can wait
/// for a disk that nobody serves.
const AT_ONCE: UnmountFlags = UnmountFlags::FORCE.union(UnmountFlags::DETACH);

/// A mounted disk. Dropping it unmounts at once; whoever still has files on it open gets errors.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    session: Option<BackgroundSession>,
    /// Where it is mounted, if that is ours to remove.
    _directory: Option<TempDir>,
}

impl Mount {
    pub(crate) fn in_temporary_directory(disk: &Disk) -> Result<Self, Unavailable> {
        let directory = tempfile::tempdir()?;
        let mut mount = Self::on(disk, directory.path())?;
        mount._directory = Some(directory);
        Ok(mount)
    }

    pub(crate) fn on(disk: &Disk, path: &Path) -> Result<Self, Unavailable> {
        if !rustix::process::geteuid().is_root() {
            return Err(io::Error::other("this process is not root").into());
        }
        unmount_what_dead_processes_left();
        let path = path.canonicalize()?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName(format!("{SOURCE}{}", process::id()))];
        let session = fuser::spawn_mount(FileSystem::new(disk.clone()), &path, &config)?;
        Ok(Self {
            path,
            session: Some(session),
            _directory: None,
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.path, AT_ONCE) {
            eprintln!("could not unmount {}: {error}", self.path.display());
        }
        drop(self.session.take());
    }
}

/// A process that was killed could not unmount, and nobody serves its mounts any more. If it was killed while a
/// thread of its own waited for its disk, that thread waits, and the process stays a zombie, until this is done.
fn unmount_what_dead_processes_left() {
    let Ok(table) = fs::read_to_string("/proc/self/mounts") else {
        return;
    };
    for line in table.lines() {
        let mut words = line.split(' ');
        let (Some(source), Some(path)) = (words.next(), words.next()) else {
            continue;
        };
        if source.strip_prefix(SOURCE).is_some_and(is_dead) {
            // Another process may do the same at this moment.
            let _ = unmount(path, AT_ONCE);
        }
    }
}

/// Whether the process with this id is gone or a zombie.
fn is_dead(id: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(id).join("stat"));
    // `id (name) state …`, and the name may hold anything.
    status.map_or(true, |status| {
        status
            .rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

//! Whether the files that an open store works on still have their names.
//!
//! What is written to a file that was removed is gone with the process: the operating system goes on taking it, and
//! its syncs succeed. Only the name tells.
//!
//! The question is which file has the name, and never when it was written. Since Linux 6.13 a file whose times somebody
//! asked for gets new ones of full precision at its next write, and on ext4 without a journal the next sync has its inode
//! to write beside its data: half as long again, for each batch, as this is asked after each.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::directory::{LOCK_FILE, standing_parts};

/// The parts of a data directory as they were when the store was opened. None of them is ever replaced while it is open.
#[derive(Debug, Default)]
pub struct Presence {
    dir: PathBuf,
    /// The directory, open, and which file it is. Names are looked up from here: the way is shorter for each.
    root: Option<(File, FileId)>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: PathBuf,
    /// Which file it is; `None` if there was none.
    id: Option<FileId>,
    /// Open, so that no other file gets the same number.
    _held: Option<File>,
}

/// The device, and the number of the file on it.
type FileId = (u64, u64);

fn id_of(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// Which file has the name `path`, without a question for its times.
fn id_at(path: &Path) -> io::Result<FileId> {
    id_from(CWD, path)
        // There is no file, or no such call in this system: the common one tells.
        .or_else(|_| path.metadata().map(|metadata| id_of(&metadata)))
}

/// Which file has the name `name` in the directory `root`.
fn id_from(root: impl AsFd, name: &Path) -> io::Result<FileId> {
    let found = rustix::fs::statx(root, name, AtFlags::empty(), StatxFlags::INO)?;
    let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
    Ok((device, found.stx_ino))
}

impl Part {
    fn of(dir: &Path, name: PathBuf) -> Self {
        let path = dir.join(&name);
        let held = File::open(&path).ok();
        let id = match &held {
            Some(file) => file.metadata().ok().as_ref().map(id_of),
            None => id_at(&path).ok(),
        };
        Self {
            name,
            id,
            _held: held,
        }
    }

    /// What cannot be told counts as being in place.
    fn is_in_place(&self, dir: &Path) -> bool {
        match id_at(&dir.join(&self.name)) {
            Ok(found) => self.id == Some(found),
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
        }
    }
}

impl Presence {
    /// Of the data directory `dir`, whose store has just been opened.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        let parts = standing_parts().into_iter();
        let root = File::open(dir).and_then(|root| root.metadata().map(|metadata| (root, id_of(&metadata))));
        Self {
            dir: dir.to_path_buf(),
            root: root.ok(),
            parts: parts.map(|name| Part::of(dir, name)).collect(),
        }
    }

    /// Whether every part is in place. A few microseconds: it asks for each name.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole_from_the_root() || self.parts.iter().all(|part| part.is_in_place(&self.dir))
    }

    /// The same in less time; `false` also if that cannot be told.
    fn is_whole_from_the_root(&self) -> bool {
        let Some((root, id)) = &self.root else {
            return false;
        };
        let is_in_place = |part: &Part| part.id.is_some() && id_from(root, &part.name).ok() == part.id;
        id_at(&self.dir).is_ok_and(|found| found == *id) && self.parts.iter().all(is_in_place)
    }

    /// What was removed or replaced.
    #[must_use]
    pub fn missing(&self) -> Missing {
        let missing = self.parts.iter().filter(|part| !part.is_in_place(&self.dir));
        let parts: Vec<_> = missing.map(|part| part.name.clone()).collect();
        Missing {
            all: parts.len() == self.parts.len(),
            dir: self.dir.clone(),
            parts,
        }
    }
}

/// What was removed or replaced of an open store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The data directory.
    pub dir: PathBuf,
    /// Relative to it.
    pub parts: Vec<PathBuf>,
    /// There is nothing else: the directory itself is another one, or none.
    pub all: bool,
}

impl Missing {
    /// Whether it is only the lock file, in which there is nothing.
    #[must_use]
    pub fn is_only_the_lock(&self) -> bool {
        self.parts == [Path::new(LOCK_FILE)]
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use raft_core::{Configuration, NodeId};

    use super::{LOCK_FILE, Presence, standing_parts};
    use crate::{Identity, Options, SledStorage};

    #[test]
    fn each_part_that_is_removed_or_replaced_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity {
            cluster_id: "test".to_owned(),
            node_id: NodeId(1),
        };
        let initial = Configuration::of_voters([NodeId(1)]);
        let _store = SledStorage::open(dir.path(), &identity, &initial, &Options::default()).unwrap();
        let presence = Presence::of(dir.path());
        assert!(presence.is_whole(), "{:?}", presence.missing());
        for part in standing_parts() {
            let (path, aside) = (dir.path().join(&part), dir.path().join("aside"));
            fs::rename(&path, &aside).unwrap();
            let missing = presence.missing();
            assert!(!presence.is_whole(), "{part:?} is missing");
            assert_eq!((&missing.parts, missing.all), (&vec![part.clone()], false));
            assert_eq!(missing.is_only_the_lock(), part.as_os_str() == LOCK_FILE);
            if aside.is_file() {
                fs::copy(&aside, &path).unwrap();
                assert_eq!(presence.missing(), missing, "a copy is another file");
            }
            fs::rename(&aside, &path).unwrap();
            assert!(presence.is_whole(), "{part:?} is back");
        }
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(presence.missing().all);
    }
}

//! Whether the files that an open store works on still have their names.
//!
//! What is written to a file that was removed is gone with the process: the operating system goes on taking it, and
//! its syncs succeed. Only the name tells.
//!
//! The question is which file has the name, and never when it was written. Since Linux 6.13 a file whose times somebody
//! asked for gets new ones of full precision at its next write, and on ext4 without a journal the next sync has its inode
//! to write beside its data: half as long again, for each batch, as this is asked after each.
//!
//! Nor is each name looked up after each batch, which takes as long as to write it. The kernel tells which names of a
//! directory were removed or given to another file (inotify), before whoever did it goes on; the names are looked up when
//! it has told of any.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::directory::{LOCK_FILE, standing_directories, standing_parts};

/// The parts of a data directory as they were when the store was opened. None of them is ever replaced while it is open.
#[derive(Debug, Default)]
pub struct Presence {
    dir: PathBuf,
    /// The directory, open, and which file it is. Names are looked up from here: the way is shorter for each.
    root: Option<(File, FileId)>,
    /// `None` where the kernel does not tell of changes.
    changes: Option<Mutex<Changes>>,
    parts: Vec<Part>,
}

/// What the kernel tells of the directories that the parts are in.
#[derive(Debug)]
struct Changes {
    told: File,
    /// A name was removed or given to another file since all were in place.
    unseen: bool,
}

impl Changes {
    /// Of the parts of the data directory `dir`, from now on.
    fn of(dir: &Path) -> io::Result<Self> {
        let told = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let names = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        for directory in standing_directories() {
            inotify::add_watch(&told, dir.join(directory), names | itself | WatchFlags::ONLYDIR)?;
        }
        Ok(Self {
            told: told.into(),
            unseen: false,
        })
    }

    /// Takes what was told. Which names does not matter: if there was any, all are looked up.
    fn take(&mut self) {
        let mut events = [0; 4096];
        loop {
            match self.told.read(&mut events) {
                Ok(0) => return,
                Ok(_) => self.unseen = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.unseen = true;
                    return;
                }
            }
        }
    }
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
        let root = File::open(dir).and_then(|root| root.metadata().map(|metadata| (root, id_of(&metadata))));
        // Before the names are looked up: what changes in between is told.
        let changes = Changes::of(dir).ok().map(Mutex::new);
        let parts = standing_parts().into_iter();
        Self {
            dir: dir.to_path_buf(),
            root: root.ok(),
            changes,
            parts: parts.map(|name| Part::of(dir, name)).collect(),
        }
    }

    /// Whether every part is in place, after a look at each name: some ten microseconds.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole_from_the_root() || self.parts.iter().all(|part| part.is_in_place(&self.dir))
    }

    /// Whether every part is in place as far as this system's own calls could change it: whoever removed or replaced a
    /// part is noticed once that call of theirs has returned. Two system calls, unless something has changed.
    ///
    /// What was mounted over a part, and what another machine does on a network's file system, is left for
    /// [`Presence::is_whole`] to find.
    #[must_use]
    pub fn is_still_whole(&self) -> bool {
        let Some(changes) = self.changes.as_ref().filter(|_| self.dir_is_in_place()) else {
            return self.is_whole();
        };
        // Held until the names are looked up: nobody else may find that there is nothing to look for meanwhile.
        let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.take();
        changes.unseen = changes.unseen && !self.is_whole();
        !changes.unseen
    }

    /// Whether the path of the directory leads to it; `false` also if that cannot be told.
    fn dir_is_in_place(&self) -> bool {
        let id = self.root.as_ref().map(|(_, id)| *id);
        id.is_some() && id_at(&self.dir).ok() == id
    }

    /// As [`Presence::is_whole`], in less time; `false` also if that cannot be told.
    fn is_whole_from_the_root(&self) -> bool {
        let Some((root, _)) = &self.root else {
            return false;
        };
        let is_in_place = |part: &Part| part.id.is_some() && id_from(root, &part.name).ok() == part.id;
        self.dir_is_in_place() && self.parts.iter().all(is_in_place)
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
    use std::path::Path;

    use raft_core::{Configuration, NodeId};

    use super::{LOCK_FILE, Presence, standing_parts};
    use crate::{Identity, Options, SledStorage};

    /// The store is closed when this returns, which its files do not show.
    fn presence_of_a_new_store(dir: &Path) -> Presence {
        let identity = Identity {
            cluster_id: "test".to_owned(),
            node_id: NodeId(1),
        };
        let initial = Configuration::of_voters([NodeId(1)]);
        let _store = SledStorage::open(dir, &identity, &initial, &Options::default()).unwrap();
        Presence::of(dir)
    }

    #[test]
    fn each_part_that_is_removed_or_replaced_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let presence = presence_of_a_new_store(dir.path());
        assert!(presence.is_whole(), "{:?}", presence.missing());
        let looks = [
            Presence::is_whole,
            Presence::is_still_whole,
            Presence::is_still_whole,
        ];
        for part in standing_parts() {
            let (path, aside) = (dir.path().join(&part), dir.path().join("aside"));
            fs::rename(&path, &aside).unwrap();
            let missing = presence.missing();
            for is_whole in looks {
                assert!(!is_whole(&presence), "{part:?} is missing");
            }
            assert_eq!((&missing.parts, missing.all), (&vec![part.clone()], false));
            assert_eq!(missing.is_only_the_lock(), part.as_os_str() == LOCK_FILE);
            if aside.is_file() {
                fs::copy(&aside, &path).unwrap();
                assert_eq!(presence.missing(), missing, "a copy is another file");
                assert!(!presence.is_still_whole(), "{part:?} is another file");
            }
            fs::rename(&aside, &path).unwrap();
            for is_whole in looks {
                assert!(is_whole(&presence), "{part:?} is back");
            }
        }
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(presence.missing().all);
        assert!(!presence.is_still_whole());
    }

    /// A part that is exchanged for another without being gone in between, and a directory above all of them that is
    /// renamed, in which nothing was removed.
    #[test]
    fn what_is_never_without_its_name_is_told_too() {
        let above = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (above.path().join("data"), above.path().join("elsewhere"));
        let presence = presence_of_a_new_store(&dir);
        let (part, copy) = (dir.join("journal/0"), above.path().join("copy"));
        fs::copy(&part, dir.join("copy")).unwrap();
        assert!(presence.is_still_whole(), "a file more takes nothing away");
        fs::copy(&part, &copy).unwrap();
        fs::rename(copy, &part).unwrap();
        assert!(!presence.is_still_whole());

        let parent = above.path().join("parent");
        fs::create_dir(&parent).unwrap();
        let presence = presence_of_a_new_store(&parent.join("data"));
        fs::rename(&parent, &elsewhere).unwrap();
        assert!(!presence.is_still_whole());
        fs::rename(&elsewhere, &parent).unwrap();
        assert!(presence.is_still_whole());
    }

    /// Where the kernel tells of nothing, the names do.
    #[test]
    fn without_news_of_changes_the_names_are_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut presence = presence_of_a_new_store(dir.path());
        assert!(presence.changes.is_some());
        presence.changes = None;
        assert!(presence.is_still_whole());
        fs::remove_file(dir.path().join(LOCK_FILE)).unwrap();
        assert!(!presence.is_still_whole());
    }
}

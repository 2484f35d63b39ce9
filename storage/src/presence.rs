//! Whether the files that an open store works on still have their names.
//!
//! What is written to a file that was removed is gone with the process: the operating system goes on taking it, and
//! its syncs succeed. Only the name tells.
//!
//! The question is which file has the name, and never when it was written. Since Linux 6.13 a file whose times somebody
//! asked for gets new ones of full precision at its next write, and on ext4 without a journal the next sync has its inode
//! to write beside its data: half as long again, for each batch, as this is asked after each.
//!
//! Nor is each name looked up after each batch, which with one client is felt. The kernel tells which names of a
//! directory were removed or given to another file (inotify), before whoever did it goes on; the names are looked up when
//! it has told of any. Where it may not tell of all, because another machine has its part in the file system or a part is
//! a link to elsewhere, they are looked up each time.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, StatxFlags, fstatfs};
use rustix::io::Errno;

use crate::directory::{LOCK_FILE, standing_directories, standing_parts};

/// The parts of a data directory as they were when the store was opened. None of them is ever replaced while it is open.
#[derive(Debug, Default)]
pub struct Presence {
    dir: PathBuf,
    /// The directory, open, and which file it is. Names are looked up from here: the way is shorter for each.
    root: Option<(File, FileId)>,
    /// `None` where the kernel may not tell of all changes.
    changes: Option<Mutex<Changes>>,
    parts: Vec<Part>,
    /// The directories below it that parts are in.
    directories: Vec<Part>,
}

/// File systems in which nothing changes but by calls of this machine: ext2 to 4, XFS, Btrfs, F2FS, ZFS, tmpfs.
const OF_THIS_MACHINE: [u64; 6] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0xF2F5_2010,
    0x2FC1_2FC1,
    0x0102_1994,
];

/// Whether the kernel tells of all that happens to the names in `dir`, which is open as `root`: they are on a file system of
/// this machine alone, and none leads to elsewhere.
fn all_is_told(dir: &Path, root: &File, (device, _): FileId) -> bool {
    let is_here = |name: &Path| {
        let found = fs::symlink_metadata(dir.join(name));
        found.is_ok_and(|found| !found.is_symlink() && found.dev() == device)
    };
    fstatfs(root).is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|of| OF_THIS_MACHINE.contains(&of)))
        && standing_directories().into_iter().all(is_here)
        && standing_parts().iter().all(|part| is_here(part))
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
    fn watch(dir: &Path) -> io::Result<Self> {
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

    fn judge(&self, found: io::Result<FileId>) -> Look {
        match found.map_err(|error| Errno::from_io_error(&error)) {
            Ok(found) if self.id == Some(found) => Look::InPlace,
            Ok(_) | Err(Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => Look::Lost,
            Err(_) => Look::Unknown,
        }
    }
}

/// What a look at a name told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    InPlace,
    /// It leads to nothing, or to another file.
    Lost,
    /// It could not be looked up.
    Unknown,
}

impl Presence {
    /// Of the data directory `dir`, whose store has just been opened.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        let root = File::open(dir).and_then(|root| root.metadata().map(|metadata| (root, id_of(&metadata))));
        let root = root.ok();
        // Before the names are looked up: what changes in between is told.
        let changes = match root.as_ref().filter(|(root, id)| all_is_told(dir, root, *id)) {
            Some(_) => Changes::watch(dir).ok().map(Mutex::new),
            None => None,
        };
        if changes.is_none() {
            tracing::debug!(dir = %dir.display(), "the names of the data files are looked up after each write");
        }
        let part = |name| Part::of(dir, name);
        let below = standing_directories()
            .into_iter()
            .filter(|name| *name != Path::new(""));
        Self {
            dir: dir.to_path_buf(),
            root,
            changes,
            parts: standing_parts().into_iter().map(part).collect(),
            directories: below.map(|name| part(name.to_path_buf())).collect(),
        }
    }

    /// Whether every part is in place, after a look at each name. What cannot be told counts as being in place.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.all_in_place_from_the_root() || self.all_looks(|look| look != Look::Lost)
    }

    /// The same, of what could have changed since it was so: whoever removed or replaced a part is noticed once that
    /// call of theirs has returned. Two system calls, unless something has changed.
    ///
    /// A file system that was mounted over a part is left for [`Presence::is_whole`] to find.
    #[must_use]
    pub fn is_still_whole(&self) -> bool {
        let Some(changes) = self.changes.as_ref().filter(|_| self.dir_is_in_place()) else {
            return self.is_whole();
        };
        // Held until the names are looked up: nobody else may find that there is nothing to look for meanwhile.
        let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.take();
        // Something has happened: now it has to be seen that all is in place.
        changes.unseen = changes.unseen
            && !self.all_in_place_from_the_root()
            && !self.all_looks(|look| look == Look::InPlace);
        !changes.unseen
    }

    /// Whether the path of the directory leads to it; `false` also if that cannot be told.
    fn dir_is_in_place(&self) -> bool {
        let id = self.root.as_ref().map(|(_, id)| *id);
        id.is_some() && id_at(&self.dir).ok() == id
    }

    /// Whether a look at each part, and at each directory that they are in, is so.
    fn all_looks(&self, is_so: impl Fn(Look) -> bool) -> bool {
        self.parts
            .iter()
            .chain(&self.directories)
            .all(|part| is_so(self.look_at(part)))
    }

    fn look_at(&self, part: &Part) -> Look {
        match (part.judge(id_at(&self.dir.join(&part.name))), &self.root) {
            // Whoever may not go the way of the path can still look from the directory itself.
            (Look::Unknown, Some((root, _))) => part.judge(id_from(root, &part.name)),
            (look, _) => look,
        }
    }

    /// Whether each part, and each directory that they are in, is in place. Takes less time than a look at each path; `false`
    /// also if the path of the directory does not lead to it.
    fn all_in_place_from_the_root(&self) -> bool {
        let Some((root, _)) = &self.root else {
            return false;
        };
        let mut all = self.parts.iter().chain(&self.directories);
        self.dir_is_in_place() && all.all(|part| part.judge(id_from(root, &part.name)) == Look::InPlace)
    }

    /// What was removed or replaced.
    #[must_use]
    pub fn missing(&self) -> Missing {
        let missing = self.parts.iter().filter(|part| self.look_at(part) == Look::Lost);
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
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

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

    #[test]
    fn a_path_that_cannot_be_followed_does_not_hide_what_is_gone() {
        // The directory, and a part, are moved, and a link to itself takes the place: it leads to nothing.
        for name in ["", "journal"] {
            let above = tempfile::tempdir().unwrap();
            let dir = above.path().join("data");
            let presence = presence_of_a_new_store(&dir);
            let moved = above.path().join("moved");
            let place = if name.is_empty() { dir } else { dir.join(name) };
            fs::rename(&place, &moved).unwrap();
            symlink(place.file_name().unwrap(), &place).unwrap();
            for is_whole in [Presence::is_still_whole, Presence::is_whole] {
                assert!(!is_whole(&presence), "{place:?} leads to itself");
            }
            assert!(!presence.missing().parts.is_empty());
        }
    }

    #[test]
    fn what_a_directory_itself_tells_counts_where_the_way_to_it_is_closed() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("data");
        let mut presence = presence_of_a_new_store(&dir);
        // A way that nobody may go, not even root: its name is longer than a name can be.
        presence.dir = above.path().join("x".repeat(300));
        let whole = [Presence::is_still_whole, Presence::is_whole];
        assert_eq!(whole.map(|is_whole| is_whole(&presence)), [true, true]);
        fs::remove_file(dir.join("journal/1")).unwrap();
        assert_eq!(whole.map(|is_whole| is_whole(&presence)), [false, false]);
        assert_eq!(presence.missing().parts, [Path::new("journal/1")]);
    }

    /// A link of a part, or of a directory, leads to where nobody tells of changes.
    #[test]
    fn parts_elsewhere_are_looked_up_each_time() {
        for name in ["journal", "journal/0", "sled/db"] {
            let above = tempfile::tempdir().unwrap();
            let (dir, elsewhere) = (above.path().join("data"), above.path().join("elsewhere"));
            drop(presence_of_a_new_store(&dir));
            fs::create_dir(&elsewhere).unwrap();
            let target = elsewhere.join("target");
            fs::rename(dir.join(name), &target).unwrap();
            symlink(&target, dir.join(name)).unwrap();
            let presence = presence_of_a_new_store(&dir);
            assert!(presence.is_still_whole(), "{name}: {:?}", presence.missing());
            fs::rename(&elsewhere, above.path().join("moved")).unwrap();
            assert!(!presence.is_still_whole(), "{name}");
        }
    }

    #[test]
    fn a_directory_in_the_place_of_another_is_told_though_its_files_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let presence = presence_of_a_new_store(dir.path());
        let (journal, copy) = (dir.path().join("journal"), dir.path().join("copy"));
        fs::create_dir(&copy).unwrap();
        for file in ["0", "1"] {
            fs::hard_link(journal.join(file), copy.join(file)).unwrap();
        }
        fs::rename(&journal, dir.path().join("old")).unwrap();
        fs::rename(&copy, &journal).unwrap();
        for is_whole in [Presence::is_still_whole, Presence::is_whole] {
            assert!(!is_whole(&presence));
        }
        assert_eq!(presence.missing().parts, [] as [PathBuf; 0]);
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

//! Watches the disk from the side: how much room is left, whether the files are still there, and whether a write ever
//! comes back.
//!
//! Each watch has a plain thread of its own, because what it looks at may block: none holds up the node, nor another
//! one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use raft_core::SnapshotMeta;
use rpc::peer::DiskRoom;
use storage::SnapshotStore;

use crate::data_files::DataFiles;
use crate::disk_room::{DiskSpace, LOOKS_UNTIL_BACK};
use crate::exit;
use crate::shutdown::StopSender;

/// How often the free space is looked at.
const SPACE_INTERVAL: Duration = Duration::from_millis(200);
/// For how many looks room must be back until that is told: two seconds.
const LOOKS_UNTIL_ROOM_IS_TOLD: u32 = 10;
/// How often the names of the data files are looked at.
const FILES_INTERVAL: Duration = Duration::from_millis(200);
/// How long an orderly stop may take after a stall was told; then the process ends as it is.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A file system's sizes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSystemSpace {
    /// What is free for this user. Nothing is where no file can be created.
    pub(crate) free_bytes: u64,
    /// All of it.
    pub(crate) total_bytes: u64,
    /// Whether it has no inode left for another file.
    pub(crate) lacks_inodes: bool,
}

impl FileSystemSpace {
    /// `inodes`: how many are free for this user, and how many there are; 0 on a file system that has as many as it
    /// needs.
    fn new(free_bytes: u64, total_bytes: u64, inodes: (u64, u64)) -> Self {
        let (free_inodes, all_inodes) = inodes;
        let lacks_inodes = all_inodes > 0 && free_inodes == 0;
        Self {
            free_bytes: if lacks_inodes { 0 } else { free_bytes },
            total_bytes,
            lacks_inodes,
        }
    }
}

/// Asks for the space of the file system that `path` is on.
pub(crate) fn space_of(path: &Path) -> io::Result<FileSystemSpace> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(FileSystemSpace::new(
        stat.f_bavail.saturating_mul(stat.f_frsize),
        stat.f_blocks.saturating_mul(stat.f_frsize),
        (stat.f_favail, stat.f_files),
    ))
}

/// The same where `path` may not exist yet: for the nearest directory above it that does.
pub(crate) fn space_around(path: &Path) -> io::Result<FileSystemSpace> {
    let above = path.ancestors().map(|path| {
        if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        }
    });
    let exists = above.into_iter().find(|path| path.exists());
    space_of(exists.unwrap_or(path))
}

/// A thread that watches; it ends soon after this value is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    _running: Sender<()>,
}

impl Watch {
    /// Runs `step` every `interval` until it says that it is done.
    fn start(
        name: &str,
        interval: Duration,
        mut step: impl FnMut(&Receiver<()>) + Send + 'static,
    ) -> io::Result<Self> {
        let (running, dropped) = mpsc::channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            loop {
                step(&dropped);
                if dropped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Self { _running: running })
    }
}

/// Stops the node when files of its data directory were removed or replaced. What is gone is told one look after that was
/// found: by then whoever removes a whole directory is done.
pub(crate) fn watch_files(files: Arc<DataFiles>, stop: StopSender) -> io::Result<Watch> {
    let mut looks_after = 0_u64;
    Watch::start("file-watch", FILES_INTERVAL, move |_| {
        if files.are_in_place() {
            return;
        }
        if looks_after == 1 {
            stop.files_lost(files.what_is_lost());
        }
        looks_after += 1;
    })
}

/// Has another snapshot written in the place of one whose file something else removed: at every look that does not find
/// it `replace` is called. The state is in memory, and without the file the node could not be started again.
pub(crate) fn watch_snapshot(
    snapshots: Arc<dyn SnapshotStore>,
    replace: impl Fn(SnapshotMeta) + Send + 'static,
) -> io::Result<Watch> {
    let mut told = false;
    Watch::start("snapshot-watch", FILES_INTERVAL, move |_| {
        let Some((snapshot, path)) = snapshots.lost() else {
            told = false;
            return;
        };
        if !told {
            tracing::warn!(
                "the snapshot file {} was removed while the node ran: it writes another one, and could not be started \
                 again without it",
                path.display()
            );
            told = true;
        }
        replace(snapshot);
    })
}

/// Keeps `disk` up to date about the file system of `dir`. `low` is called at every look that finds less than
/// ample room.
pub(crate) fn watch_space(
    dir: PathBuf,
    disk: Arc<DiskSpace>,
    low: impl Fn() + Send + 'static,
) -> io::Result<Watch> {
    let mut failed = false;
    let mut news = News::default();
    Watch::start("space-watch", SPACE_INTERVAL, move |_| {
        match space_of(&dir) {
            Ok(space) => {
                failed = false;
                disk.measured(space.free_bytes);
                if let Some(room) = news.of(disk.room()) {
                    let message = if space.lacks_inodes {
                        told_of_inodes(&dir)
                    } else {
                        told(&dir, &disk, room)
                    };
                    match room {
                        DiskRoom::Ample => tracing::info!("{message}"),
                        DiskRoom::Low | DiskRoom::Out => tracing::warn!("{message}"),
                    }
                }
            }
            Err(error) if !failed => {
                failed = true;
                tracing::warn!("cannot tell how much room {} has: {error}", dir.display());
            }
            Err(_) => {}
        }
        if disk.room() < DiskRoom::Ample {
            low();
        }
    })
}

/// What is new about the room: less is told at once, more when it has lasted. Under load the estimate sways.
#[derive(Debug, Default)]
struct News {
    told: DiskRoom,
    looks_with_more: u32,
}

impl News {
    fn of(&mut self, room: DiskRoom) -> Option<DiskRoom> {
        self.looks_with_more = if room > self.told {
            self.looks_with_more + 1
        } else {
            0
        };
        if room < self.told || self.looks_with_more >= LOOKS_UNTIL_ROOM_IS_TOLD {
            self.looks_with_more = 0;
            self.told = room;
            return Some(room);
        }
        None
    }
}

fn told_of_inodes(dir: &Path) -> String {
    format!(
        "the file system of {} has no free inodes, so no file can be created there: this node takes no log entries at \
         all. Remove files, however small; it goes on by itself",
        dir.display()
    )
}

fn told(dir: &Path, disk: &DiskSpace, room: DiskRoom) -> String {
    let (dir, free) = (dir.display(), disk.expected_free_bytes());
    let lacking = |fullness: &str, threshold: u64, refused: &str| {
        format!(
            "the disk of {dir} is {fullness}: when all that was admitted is written, {free} bytes are free. Below \
             {threshold} this node takes {refused}, until {} are free, or {threshold} for {} s. Make room; it goes on by \
             itself",
            DiskSpace::back_from(threshold),
            (SPACE_INTERVAL * LOOKS_UNTIL_BACK).as_secs()
        )
    };
    match room {
        DiskRoom::Ample => format!("{dir} has room again: {free} bytes are free"),
        DiskRoom::Low => lacking(
            "almost full",
            disk.low_below(),
            "no new data (deletes and reads go on)",
        ),
        DiskRoom::Out => lacking("full", disk.out_below(), "no log entries at all"),
    }
}

/// Since when the disk has been busy with one commit.
#[derive(Debug, Default)]
pub(crate) struct CommitClock {
    origin: OnceLock<Instant>,
    /// Milliseconds after the origin, counted from 1; 0 while the disk is idle.
    since: AtomicU64,
}

impl CommitClock {
    fn now(&self) -> u64 {
        let origin = self.origin.get_or_init(Instant::now);
        1 + u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// A commit begins; it ends when the guard is dropped.
    pub(crate) fn start(&self) -> impl Drop + '_ {
        self.since.store(self.now(), Ordering::Release);
        Running(self)
    }

    /// How long the commit under way has taken.
    fn elapsed(&self) -> Option<Duration> {
        match self.since.load(Ordering::Acquire) {
            0 => None,
            since => Some(Duration::from_millis(self.now().saturating_sub(since))),
        }
    }
}

struct Running<'a>(&'a CommitClock);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.since.store(0, Ordering::Release);
    }
}

/// Stops the node when a commit takes longer than `timeout`: a disk that does not come back is as good as a
/// broken one, and a node that hangs silently helps nobody. If the orderly stop hangs as well, ends the process.
pub(crate) fn watch_stalls(
    dir: PathBuf,
    clock: Arc<CommitClock>,
    timeout: Duration,
    stop: StopSender,
) -> io::Result<Watch> {
    let interval = (timeout / 8).clamp(Duration::from_millis(1), Duration::from_secs(1));
    let mut told = false;
    Watch::start("stall-watch", interval, move |dropped| {
        let Some(waited) = clock.elapsed().filter(|waited| *waited >= timeout && !told) else {
            return;
        };
        told = true;
        stop.storage_stalled(dir.clone(), waited);
        if dropped.recv_timeout(STOP_PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("did not stop in time, and ends at once; what was acknowledged is on disk");
            std::process::exit(i32::from(exit::FAILED));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rpc::peer::DiskRoom::{Ample, Low, Out};

    use super::{
        CommitClock, FileSystemSpace, LOOKS_UNTIL_ROOM_IS_TOLD, News, space_around, space_of, told,
        told_of_inodes,
    };
    use crate::disk_room::{DiskSpace, WEIGHT};

    #[test]
    fn the_number_that_is_told_is_the_one_that_was_judged() {
        let disk = DiskSpace::new(64_000);
        disk.spend(20_000);
        disk.measured(70_000);
        assert_eq!(disk.room(), Out);
        let message = told(Path::new("data"), &disk, disk.room());
        let expected = 70_000 - 20_000 * WEIGHT;
        assert!(
            message.contains(&format!("{expected} bytes are free")),
            "{message}"
        );
        assert!(
            message.contains("Below 16000") && message.contains("until 18000 are free, or 16000 for 2 s"),
            "{message}"
        );
    }

    #[test]
    fn a_file_system_without_a_free_inode_has_no_room_and_one_that_does_not_count_them_has() {
        let space = |inodes| FileSystemSpace::new(70_000, 90_000, inodes);
        for (inodes, free_bytes) in [((0, 100), 0), ((1, 100), 70_000), ((0, 0), 70_000)] {
            let space = space(inodes);
            assert_eq!(space.free_bytes, free_bytes, "{inodes:?}");
            assert_eq!(space.lacks_inodes, free_bytes == 0, "{inodes:?}");
        }
        assert!(told_of_inodes(Path::new("data")).contains("data has no free inodes"));
    }

    #[test]
    fn less_room_is_told_at_once_and_more_when_it_has_lasted() {
        let mut news = News::default();
        assert_eq!(news.of(Ample), None);
        assert_eq!(news.of(Low), Some(Low));
        assert_eq!(news.of(Out), Some(Out));
        for _ in 0..100 {
            assert_eq!((news.of(Low), news.of(Out)), (None, None), "it sways");
        }
        for _ in 1..LOOKS_UNTIL_ROOM_IS_TOLD {
            assert_eq!(news.of(Low), None);
        }
        assert_eq!(news.of(Ample), Some(Ample));
    }

    #[test]
    fn the_clock_runs_during_a_commit_only() {
        let clock = CommitClock::default();
        assert_eq!(clock.elapsed(), None);
        let working = clock.start();
        std::thread::sleep(Duration::from_millis(5));
        assert!(
            clock
                .elapsed()
                .is_some_and(|elapsed| elapsed >= Duration::from_millis(4))
        );
        drop(working);
        assert_eq!(clock.elapsed(), None);
    }

    #[test]
    fn a_file_system_has_no_more_free_than_it_has() {
        let space = space_of(Path::new(".")).unwrap();
        assert!(
            space.total_bytes > 0 && space.free_bytes <= space.total_bytes,
            "{space:?}"
        );
        let absent = Path::new("no/such/directory");
        assert!(space_of(absent).is_err());
        assert_eq!(space_around(absent).unwrap().total_bytes, space.total_bytes);
    }
}

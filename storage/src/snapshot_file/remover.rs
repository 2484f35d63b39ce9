//! Frees the space of large files in a way that others who use the same disk hardly feel.
//!
//! A file system may tell the disk of every block that becomes free (`discard`), and while the disk takes in that
//! hundreds of MiB are, the syncs of everybody else wait. So a file becomes shorter step by step before it is removed.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// At least so much is freed at a time.
const SHORTEST_STEP_BYTES: u64 = 2 * 1024 * 1024;

/// In so many steps a file is gone, however long it was: who waits for the space waits for a few seconds.
const MOST_STEPS: u64 = 128;

/// How long others have the disk between two steps.
const REST: Duration = Duration::from_millis(15);

/// Removes files on a thread of its own, which starts with the first. Dropping it waits until all are removed.
#[derive(Debug, Default)]
pub(super) struct Remover(Option<Running>);

#[derive(Debug)]
struct Running {
    paths: Sender<PathBuf>,
    thread: JoinHandle<()>,
}

impl Remover {
    /// Does not wait for it. A file that somebody reads must be [held](hold): it stays whole, and its space is free when
    /// it is closed.
    pub(super) fn remove(&mut self, path: PathBuf) {
        if self.0.is_none() {
            let (paths, queue) = mpsc::channel();
            let spawned = thread::Builder::new()
                .name("snapshot-remover".to_owned())
                .spawn(move || Worker::new(queue).run());
            self.0 = spawned.ok().map(|thread| Running { paths, thread });
        }
        // Without a thread it stays until the next open.
        if let Some(running) = &self.0 {
            let _ = running.paths.send(path);
        }
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        if let Some(Running { paths, thread }) = self.0.take() {
            // It rests no more.
            drop(paths);
            // Nothing in it panics.
            let _ = thread.join();
        }
    }
}

/// What runs on the thread.
struct Worker {
    /// Ends when the remover is dropped.
    queue: Receiver<PathBuf>,
    /// Came while another was shortened.
    waiting: VecDeque<PathBuf>,
}

impl Worker {
    fn new(queue: Receiver<PathBuf>) -> Self {
        Self {
            queue,
            waiting: VecDeque::new(),
        }
    }

    fn run(mut self) {
        while let Some(path) = self.waiting.pop_front().or_else(|| self.queue.recv().ok()) {
            self.remove(&path);
        }
    }

    fn remove(&mut self, path: &Path) {
        // Its lock is kept until the file has no name: nobody may take it for whole.
        let shortened = self.shorten(path);
        if let Err(error) = &shortened {
            tracing::debug!(%error, path = %path.display(), "an older snapshot is removed in one step");
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "could not remove an older snapshot");
            }
            _ => {}
        }
    }

    /// Makes the file shorter, step by step, and locks it. Not one that somebody [holds](hold), or that has another name:
    /// that may be somebody's backup.
    fn shorten(&mut self, path: &Path) -> io::Result<Option<File>> {
        // What is behind a link is not ours, and to open a pipe might take for ever.
        if !fs::symlink_metadata(path)?.is_file() {
            return Ok(None);
        }
        let file = File::options().write(true).open(path)?;
        let found = file.metadata()?;
        if found.nlink() > 1 || file.try_lock().is_err() {
            return Ok(None);
        }
        let step = (found.len() / MOST_STEPS).max(SHORTEST_STEP_BYTES);
        let mut length = found.len();
        while length > step && self.rest() {
            length -= step;
            file.set_len(length)?;
        }
        Ok(Some(file))
    }

    /// Whether there is time for another step.
    fn rest(&mut self) -> bool {
        match self.queue.recv_timeout(REST) {
            Ok(path) => self.waiting.push_back(path),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }
}

/// Keeps `file` whole until it is closed.
///
/// # Errors
///
/// [`io::ErrorKind::NotFound`] when it has been removed, [`io::ErrorKind::WouldBlock`] when that has begun.
pub(super) fn hold(file: &File) -> io::Result<()> {
    match file.try_lock_shared() {
        Ok(()) => {}
        // Then the remover gets no lock either, and makes nothing shorter.
        Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
        Err(error) => return Err(error.into()),
    }
    if file.metadata()?.nlink() == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc::{self, Sender};

    use super::{MOST_STEPS, Remover, SHORTEST_STEP_BYTES, Worker, hold};

    const WHOLE: u64 = 3 * SHORTEST_STEP_BYTES + 1;

    fn file_of(bytes: u64, path: &Path) {
        File::create(path).unwrap().set_len(bytes).unwrap();
    }

    fn length(path: &Path) -> u64 {
        path.metadata().unwrap().len()
    }

    /// A worker, which rests as long as the other half is there.
    fn worker() -> (Sender<PathBuf>, Worker) {
        let (paths, queue) = mpsc::channel();
        (paths, Worker::new(queue))
    }

    fn is_held(path: &Path) -> Result<(), io::ErrorKind> {
        hold(&File::open(path).unwrap()).map_err(|error| error.kind())
    }

    #[test]
    fn a_file_is_shortened_to_one_step_in_as_many_as_there_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let (_paths, mut worker) = worker();
        for (bytes, left) in [
            (WHOLE, 1),
            (SHORTEST_STEP_BYTES, SHORTEST_STEP_BYTES),
            (2 * MOST_STEPS * SHORTEST_STEP_BYTES, 2 * SHORTEST_STEP_BYTES),
        ] {
            file_of(bytes, &path);
            drop(worker.shorten(&path).unwrap().unwrap());
            assert_eq!(length(&path), left, "of {bytes}");
        }
    }

    #[test]
    fn what_somebody_reads_or_has_under_another_name_stays_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        file_of(WHOLE, &path);
        let (_paths, mut worker) = worker();
        let reader = File::open(&path).unwrap();
        hold(&reader).unwrap();
        assert_eq!(is_held(&path), Ok(()), "there may be many");
        assert!(worker.shorten(&path).unwrap().is_none());
        drop(reader);
        let backup = dir.path().join("backup");
        fs::hard_link(&path, &backup).unwrap();
        assert!(worker.shorten(&path).unwrap().is_none());
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        fs::remove_file(backup).unwrap();
        worker.remove(&link);
        assert!(!link.exists());
        assert_eq!(length(&path), WHOLE);
    }

    #[test]
    fn nobody_holds_a_file_whose_removal_has_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        file_of(WHOLE, &path);
        let (_paths, mut worker) = worker();
        let opened_before = File::open(&path).unwrap();
        let shortened = worker.shorten(&path).unwrap();
        assert_eq!(is_held(&path), Err(io::ErrorKind::WouldBlock));
        drop(shortened);
        worker.remove(&path);
        let late = hold(&opened_before).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn all_are_removed_also_when_there_is_no_time_or_one_cannot_be_shortened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |number: u64| dir.path().join(number.to_string());
        let mut remover = Remover::default();
        remover.remove(dir.path().join("gone"));
        for number in 0..4 {
            file_of((number + 1) * MOST_STEPS * SHORTEST_STEP_BYTES, &path(number));
            remover.remove(path(number));
        }
        let socket = std::os::unix::net::UnixListener::bind(path(4)).unwrap();
        remover.remove(path(4));
        drop(remover);
        drop(socket);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let (paths, mut worker) = worker();
        drop(paths);
        file_of(WHOLE, &path(5));
        worker.shorten(&path(5)).unwrap().unwrap();
        assert_eq!(length(&path(5)), WHOLE, "it is removed as it is");
    }
}

//! Frees the space of large files in a way that others who use the same disk hardly feel.
//!
//! Many file systems tell the disk of every block that becomes free, and while the disk takes in that hundreds of MiB are,
//! the syncs of everybody else wait: for 50 to 90 ms, where 20 were usual. So a file becomes shorter step by step before it
//! is removed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// So much is freed at a time.
const STEP_BYTES: u64 = 2 * 1024 * 1024;

/// How long others have the disk between two steps: 200 MiB are freed in one to two seconds.
const REST: Duration = Duration::from_millis(15);

/// Removes files on a thread of its own. Dropping it waits for that.
#[derive(Debug, Default)]
pub(super) struct Remover(Option<Running>);

#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    /// The thread rests no more once this is dropped.
    rests: Sender<()>,
}

impl Remover {
    /// Waits for what it was given before, which as a rule was done long ago.
    ///
    /// A file that somebody reads must be [held](hold): it stays whole, and its space is free when it is closed.
    pub(super) fn remove(&mut self, paths: Vec<PathBuf>) {
        self.finish();
        if paths.is_empty() {
            return;
        }
        let (rests, until) = mpsc::channel();
        let remove = move || {
            for path in paths {
                match shorten(&path, &until).and_then(|()| fs::remove_file(&path)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(%error, path = %path.display(), "could not remove an older snapshot");
                    }
                    _ => {}
                }
            }
        };
        // Without a thread they stay until the next open.
        let spawned = thread::Builder::new()
            .name("snapshot-remover".to_owned())
            .spawn(remove);
        self.0 = spawned.ok().map(|thread| Running { thread, rests });
    }

    fn finish(&mut self) {
        if let Some(Running { thread, rests }) = self.0.take() {
            drop(rests);
            // Nothing in it panics.
            let _ = thread.join();
        }
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Keeps `file` as long as it is, until it is closed. Whether that came before its removal began.
pub(super) fn hold(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Makes the file shorter, step by step. Not one that somebody [holds](hold), or that has another name: that may be
/// somebody's backup.
fn shorten(path: &Path, rests: &Receiver<()>) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let about = file.metadata()?;
    if about.nlink() > 1 || file.try_lock().is_err() {
        return Ok(());
    }
    let mut length = about.len();
    while length > STEP_BYTES && rests.recv_timeout(REST) == Err(RecvTimeoutError::Timeout) {
        length -= STEP_BYTES;
        file.set_len(length)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::sync::mpsc;

    use super::{Remover, STEP_BYTES, hold, shorten};

    fn file_of(bytes: u64, path: &Path) -> File {
        let file = File::create(path).unwrap();
        file.set_len(bytes).unwrap();
        file
    }

    fn length(path: &Path) -> u64 {
        path.metadata().unwrap().len()
    }

    #[test]
    fn a_file_is_shortened_to_one_step_and_then_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        file_of(3 * STEP_BYTES + 1, &path);
        let (_rests, until) = mpsc::channel();
        shorten(&path, &until).unwrap();
        assert_eq!(length(&path), 1);
        let mut remover = Remover::default();
        remover.remove(vec![dir.path().join("gone"), path.clone()]);
        drop(remover);
        assert!(!path.exists());
    }

    #[test]
    fn what_somebody_reads_or_has_under_another_name_stays_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let whole = 3 * STEP_BYTES;
        file_of(whole, &path);
        let (_rests, until) = mpsc::channel();
        let reader = File::open(&path).unwrap();
        assert!(hold(&reader).unwrap());
        assert!(hold(&File::open(&path).unwrap()).unwrap(), "there may be many");
        shorten(&path, &until).unwrap();
        assert_eq!(length(&path), whole);
        drop(reader);
        let backup = dir.path().join("backup");
        fs::hard_link(&path, &backup).unwrap();
        shorten(&path, &until).unwrap();
        assert_eq!(length(&backup), whole);
        fs::remove_file(backup).unwrap();
        let remover = File::open(&path).unwrap();
        remover.try_lock().unwrap();
        assert!(
            !hold(&File::open(&path).unwrap()).unwrap(),
            "its removal has begun"
        );
    }

    #[test]
    fn who_waits_for_a_removal_waits_for_no_rests() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        file_of(3 * STEP_BYTES, &path);
        let (rests, until) = mpsc::channel();
        drop(rests);
        shorten(&path, &until).unwrap();
        assert_eq!(length(&path), 3 * STEP_BYTES, "it is removed as it is");
    }
}

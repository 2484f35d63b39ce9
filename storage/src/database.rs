//! Opens sled: its settings, and what each of its failures means.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::directory::DataDir;
use crate::durability::{self, DurableTree, SLED_CONFIG_FILE};
use crate::error::StorageError;
use crate::panics;
use crate::quiet::Quiet;
use crate::record::SLED_SEGMENT_BYTES;

/// What the names of files end in that sled has not completed.
const SLED_UNFINISHED_EXTENSION: &str = "generating";

/// How long to wait for sled to let go of its file. Its background tasks may outlive the database that was
/// just closed in this process by a moment.
const SLED_LOCK_WAIT: Duration = Duration::from_secs(5);

/// Opens sled and makes durable what it did to its files in doing so.
pub(crate) fn open_tree(dir: &DataDir, cache_bytes: u64) -> Result<DurableTree, StorageError> {
    let sled_dir = dir.sled_dir();
    remove_unfinished(&sled_dir)?;
    let db = Quiet::new(open_sled(dir, &sled_dir, cache_bytes)?);
    let tree = DurableTree::new(&db, &sled_dir)?;
    tree.sync()?;
    durability::sync_file(&sled_dir.join(SLED_CONFIG_FILE))?;
    durability::sync_dir(&sled_dir)?;
    durability::sync_dir(dir.path())?;
    Ok(tree)
}

/// Removes the files that sled was still writing when it was killed. At each open it saves where its pages are
/// to such a file, which it renames when it is complete; but the next open takes it for complete, and calls
/// the database corrupted. The file only saves work: without it sled goes through its log.
fn remove_unfinished(sled_dir: &Path) -> Result<(), StorageError> {
    let listing = match fs::read_dir(sled_dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StorageError::io("list", sled_dir, error)),
    };
    for entry in listing {
        let path = entry
            .map_err(StorageError::while_trying("list", sled_dir))?
            .path();
        if path.extension() == Some(OsStr::new(SLED_UNFINISHED_EXTENSION)) {
            fs::remove_file(&path).map_err(StorageError::while_trying("remove", &path))?;
        }
    }
    Ok(())
}

/// Without sled's flusher thread, which only logs its errors. With it goes the collector that would move the last pages
/// out of thin segments (sled 0.34.7 calls `attempt_gc` there and nowhere else): a segment is used anew when all of
/// its pages have been replaced, and the file stays about as long as it once was.
fn open_sled(dir: &DataDir, sled_dir: &Path, cache_bytes: u64) -> Result<sled::Db, StorageError> {
    let config = sled::Config::new()
        .path(sled_dir)
        .cache_capacity(cache_bytes)
        .segment_size(SLED_SEGMENT_BYTES)
        .flush_every_ms(None);
    let deadline = Instant::now() + SLED_LOCK_WAIT;
    loop {
        let error = match panics::catch(|| config.open()) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(error)) => error,
            Err(panic) => return Err(damaged(sled_dir, panic)),
        };
        if !is_locked(&error) {
            return Err(refusal_of(sled_dir, error));
        }
        if Instant::now() >= deadline {
            return Err(StorageError::InUse {
                path: dir.path().to_path_buf(),
            });
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn refusal_of(sled_dir: &Path, error: sled::Error) -> StorageError {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error {
        sled::Error::Io(error) if !matches!(error.kind(), InvalidData | UnexpectedEof) => {
            StorageError::io("open the database in", sled_dir, error)
        }
        error => damaged(
            sled_dir,
            format!("the database cannot be opened ({})", text_of(&error)),
        ),
    }
}

/// What sled says.
pub(crate) fn text_of(error: &sled::Error) -> String {
    panics::without_backtrace(&error.to_string())
}

fn damaged(path: &Path, what: String) -> StorageError {
    StorageError::Damaged {
        path: path.to_path_buf(),
        what,
        index: None,
    }
}

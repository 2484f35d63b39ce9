//! Opens sled: its settings, and what each of its failures means.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::directory::DataDir;
use crate::durability::{self, DurableTree, SLED_CONFIG_FILE};
use crate::error::StorageError;
use crate::panics;
use crate::record::SLED_SEGMENT_BYTES;

/// How long to wait for sled to let go of its file. Its background tasks may outlive the database that was
/// just closed in this process by a moment.
const SLED_LOCK_WAIT: Duration = Duration::from_secs(5);

/// Opens sled and makes durable what it did to its files in doing so.
pub(crate) fn open_tree(dir: &DataDir, cache_bytes: u64) -> Result<DurableTree, StorageError> {
    let sled_dir = dir.sled_dir();
    let db = open_sled(dir, &sled_dir, cache_bytes)?;
    let tree = DurableTree::new(&db, &sled_dir)?;
    tree.sync()?;
    durability::sync_file(&sled_dir.join(SLED_CONFIG_FILE))?;
    durability::sync_dir(&sled_dir)?;
    durability::sync_dir(dir.path())?;
    Ok(tree)
}

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
        error => damaged(sled_dir, format!("the database cannot be opened ({error})")),
    }
}

fn damaged(path: &Path, what: String) -> StorageError {
    StorageError::Damaged {
        path: path.to_path_buf(),
        what,
        index: None,
    }
}

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

/// What the names of such files begin with, and how they end: a length (8 bytes), and the CRC-32 of all before that.
const SLED_SAVE_PREFIX: &str = "snap.";
const SLED_SAVE_TRAILER_BYTES: usize = 12;

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
        let unfinished = path.extension() == Some(OsStr::new(SLED_UNFINISHED_EXTENSION));
        if unfinished || is_damaged_save(&path)? {
            fs::remove_file(&path).map_err(StorageError::while_trying("remove", &path))?;
        }
    }
    Ok(())
}

/// Whether it is such a file, complete, and not what sled wrote. sled would call the whole database corrupted.
fn is_damaged_save(path: &Path) -> Result<bool, StorageError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with(SLED_SAVE_PREFIX) {
        return Ok(false);
    }
    let bytes = fs::read(path).map_err(StorageError::while_trying("read", path))?;
    let whole = bytes
        .split_last_chunk::<SLED_SAVE_TRAILER_BYTES>()
        .is_some_and(|(body, trailer)| {
            !body.is_empty() && trailer.ends_with(&crc32fast::hash(body).to_le_bytes())
        });
    if !whole {
        let path = path.display();
        tracing::warn!("{path} is damaged and is removed: it only saves sled work. Check the disk");
    }
    Ok(!whole)
}

/// Without sled's flusher thread, which only logs its errors. What else it would do, [`upkeep`](crate::upkeep) does.
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
            StorageError::io("open the database in", sled_dir, of_the_system(error))
        }
        error => damaged(
            sled_dir,
            format!("the database cannot be opened ({})", text_of(&error)),
        ),
    }
}

/// What sled says.
pub(crate) fn text_of(error: &sled::Error) -> String {
    panics::readable(&error.to_string())
}

/// The error of the operating system as it was. sled keeps, of one that it has told before, only the kind and the text
/// for developers.
pub(crate) fn of_the_system(error: io::Error) -> io::Error {
    let told_again = error.raw_os_error().is_none();
    let code = told_again
        .then(|| panics::os_code_in(&error.to_string()))
        .flatten();
    code.map_or(error, io::Error::from_raw_os_error)
}

fn damaged(path: &Path, what: String) -> StorageError {
    StorageError::Damaged {
        path: path.to_path_buf(),
        what,
        index: None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{is_damaged_save, of_the_system, refusal_of, remove_unfinished};
    use crate::error::StorageError;

    #[test]
    fn what_sled_wrote_is_told_from_what_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        // The file is written when a database that holds something is opened.
        for _ in 0..2 {
            let config = sled::Config::new().path(dir.path()).flush_every_ms(None);
            let deadline = Instant::now() + Duration::from_secs(60);
            let database = loop {
                match config.open() {
                    Ok(database) => break database,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
                thread::sleep(Duration::from_millis(5));
            };
            database.insert(b"key", b"value").unwrap();
            database.flush().unwrap();
        }
        let files = fs::read_dir(dir.path()).unwrap();
        let mut files = files.map(|entry| entry.unwrap().path());
        let saved = files.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("snap."));
        let saved = saved.unwrap();
        assert!(!is_damaged_save(&saved).unwrap());
        let mut bytes = fs::read(&saved).unwrap();
        bytes[0] ^= 1;
        fs::write(&saved, bytes).unwrap();
        assert!(is_damaged_save(&saved).unwrap());
    }

    #[test]
    fn an_error_that_sled_tells_again_is_the_error_of_the_system() {
        let full = || std::io::Error::from_raw_os_error(28);
        let told = sled::Error::Io(full());
        let (sled::Error::Io(again), sled::Error::Io(first)) = (told.clone(), told) else {
            panic!("another error")
        };
        assert_ne!(again.to_string(), first.to_string());
        assert_eq!(of_the_system(again).to_string(), full().to_string());
        assert_eq!(of_the_system(full()).to_string(), full().to_string());
        assert_eq!(of_the_system(std::io::Error::other("odd")).to_string(), "odd");
    }

    #[test]
    fn what_sled_left_unfinished_or_damaged_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let body = b"body";
        let whole = [body.as_slice(), &[0; 8], &crc32fast::hash(body).to_le_bytes()].concat();
        let files = [
            ("snap.01", whole.as_slice(), true),
            ("snap.02", b"damaged", false),
            ("snap.03.generating", whole.as_slice(), false),
            ("db", b"anything", true),
        ];
        for (name, bytes, _) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        remove_unfinished(dir.path()).unwrap();
        for (name, _, stays) in files {
            assert_eq!(dir.path().join(name).exists(), stays, "{name}");
        }
        remove_unfinished(&dir.path().join("missing")).unwrap();
        // What cannot be listed is no empty directory.
        remove_unfinished(&dir.path().join("db")).unwrap_err();
    }

    #[test]
    fn a_database_that_cannot_be_read_is_told_from_one_that_is_damaged() {
        use std::io::ErrorKind::{InvalidData, Other, StorageFull, UnexpectedEof};
        for (kind, is_damage) in [
            (InvalidData, true),
            (UnexpectedEof, true),
            (Other, false),
            (StorageFull, false),
        ] {
            let refusal = refusal_of("sled".as_ref(), sled::Error::Io(kind.into()));
            assert_eq!(
                matches!(refusal, StorageError::Damaged { .. }),
                is_damage,
                "{kind}"
            );
            assert_eq!(matches!(refusal, StorageError::Io { .. }), !is_damage, "{kind}");
        }
        let refusal = refusal_of("sled".as_ref(), sled::Error::ReportableBug("odd".to_owned()));
        assert!(matches!(refusal, StorageError::Damaged { what, .. } if what.contains("odd")));
    }
}

//! Snapshot files in a directory.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use raft_core::{Configuration, LogIndex, SnapshotMeta, Term};

use super::format::HeaderMeta;
use super::reader::Reader;
use super::writer::Encoder;
use super::{SnapshotReader, SnapshotStore, SnapshotWriter, StagedVerdict};
use crate::durability;
use crate::error::StorageError;

const SNAPSHOT_SUFFIX: &str = ".snapshot";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Snapshot files in a directory of their own.
#[derive(Debug)]
pub struct FileSnapshots {
    dir: PathBuf,
    /// Numbers the temporary files, so that two snapshots being cut never share one.
    temporaries: AtomicU64,
    staged: Mutex<Option<Staged>>,
}

/// The file that is being received.
#[derive(Debug)]
struct Staged {
    snapshot: SnapshotMeta,
    file: TemporaryFile,
    length: u64,
}

impl FileSnapshots {
    /// The snapshots in `dir`, which must exist. Unfinished files from before are removed.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read, or a file in it cannot be removed.
    pub fn at(dir: &Path) -> Result<Self, StorageError> {
        remove_files(dir, |name| name.ends_with(TEMPORARY_SUFFIX))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            temporaries: AtomicU64::new(0),
            staged: Mutex::new(None),
        })
    }

    /// What the file of a snapshot is called.
    pub(crate) fn name_of(snapshot: &SnapshotMeta) -> String {
        name_of(snapshot)
    }

    /// Removes every snapshot but `keep`. Only right while nobody else can have finished one, that is at
    /// open.
    pub(crate) fn keep_only(&self, keep: &SnapshotMeta) -> Result<(), StorageError> {
        let kept = name_of(keep);
        remove_files(&self.dir, |name| name.ends_with(SNAPSHOT_SUFFIX) && name != kept)
    }

    fn temporary(&self) -> Result<TemporaryFile, StorageError> {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        TemporaryFile::create(self.dir.join(format!("{number}{TEMPORARY_SUFFIX}")))
    }

    fn staged(&self) -> MutexGuard<'_, Option<Staged>> {
        // A panic while the lock was held leaves at worst a half-written file, which verification finds.
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SnapshotStore for FileSnapshots {
    fn create(
        &self,
        last_included_index: LogIndex,
        last_included_term: Term,
        configuration: &Configuration,
    ) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let configuration = configuration.clone();
        let meta = HeaderMeta {
            last_included_index,
            last_included_term,
            configuration,
        };
        let file = self.temporary()?;
        let path = file.path.clone();
        let encoder = Encoder::start(file, meta).map_err(StorageError::while_trying("write", &path))?;
        Ok(Box::new(FileWriter {
            dir: self.dir.clone(),
            path,
            encoder,
        }))
    }

    fn open(&self, snapshot: &SnapshotMeta) -> Result<Box<dyn SnapshotReader>, StorageError> {
        let path = self.dir.join(name_of(snapshot));
        match File::open(&path) {
            Ok(file) => Ok(Box::new(Reader::open(file, snapshot)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StorageError::SnapshotMissing {
                index: snapshot.last_included_index,
            }),
            Err(error) => Err(StorageError::io("open", &path, error)),
        }
    }

    fn stage(&self, snapshot: &SnapshotMeta, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        let mut guard = self.staged();
        if offset == 0 {
            super::check_chunk(snapshot, snapshot, 0, 0, data)?;
            *guard = Some(Staged {
                snapshot: snapshot.clone(),
                file: self.temporary()?,
                length: 0,
            });
        }
        let Some(staged) = guard.as_mut() else {
            return Err(super::nothing_staged(offset));
        };
        super::check_chunk(&staged.snapshot, snapshot, staged.length, offset, data)?;
        let path = staged.file.path.clone();
        staged
            .file
            .handle
            .seek(SeekFrom::Start(offset))
            .and_then(|_| staged.file.handle.write_all(data))
            .map_err(StorageError::while_trying("write", &path))?;
        staged.length += data.len() as u64;
        Ok(())
    }

    fn finish_staged(&self, snapshot: &SnapshotMeta) -> Result<StagedVerdict, StorageError> {
        let taken = self.staged().take_if(|staged| staged.snapshot == *snapshot);
        let Some(staged) = taken else {
            return Err(super::nothing_staged(snapshot.size_bytes));
        };
        let path = staged.file.path.clone();
        let file = File::open(&path).map_err(StorageError::while_trying("open", &path))?;
        let verified = Reader::open(file, snapshot)
            .map_err(io::Error::other)
            .and_then(Reader::verify_all);
        if let Err(error) = verified {
            tracing::warn!(%error, "a received snapshot was thrown away");
            return Ok(StagedVerdict::Damaged);
        }
        staged.file.keep_as(&self.dir, snapshot)?;
        Ok(StagedVerdict::Good)
    }

    fn remove_except(&self, keep: &SnapshotMeta) -> Result<(), StorageError> {
        remove_files(&self.dir, |name| {
            index_in(name).is_some_and(|index| index < keep.last_included_index)
        })
    }
}

fn name_of(snapshot: &SnapshotMeta) -> String {
    let SnapshotMeta {
        last_included_index: index,
        last_included_term: term,
        checksum,
        ..
    } = snapshot;
    format!(
        "{:020}-{:020}-{checksum:08x}{SNAPSHOT_SUFFIX}",
        index.get(),
        term.get()
    )
}

/// The index in the name of a snapshot file; `None` for any other file.
fn index_in(name: &str) -> Option<LogIndex> {
    let (index, _) = name.strip_suffix(SNAPSHOT_SUFFIX)?.split_once('-')?;
    index.parse().ok().map(LogIndex)
}

fn remove_files(dir: &Path, unwanted: impl Fn(&str) -> bool) -> Result<(), StorageError> {
    let mut removed = false;
    for entry in fs::read_dir(dir).map_err(StorageError::while_trying("list", dir))? {
        let entry = entry.map_err(StorageError::while_trying("list", dir))?;
        if entry.file_name().to_str().is_some_and(&unwanted) {
            let path = entry.path();
            fs::remove_file(&path).map_err(StorageError::while_trying("remove", &path))?;
            removed = true;
        }
    }
    if removed {
        durability::sync_dir(dir)
    } else {
        Ok(())
    }
}

/// A file that goes away again unless it is kept.
#[derive(Debug)]
struct TemporaryFile {
    handle: File,
    path: PathBuf,
    kept: bool,
}

impl TemporaryFile {
    fn create(path: PathBuf) -> Result<Self, StorageError> {
        let handle = File::create_new(&path).map_err(StorageError::while_trying("create", &path))?;
        Ok(Self {
            handle,
            path,
            kept: false,
        })
    }

    /// Makes the file durable under the name of `snapshot`.
    fn keep_as(mut self, dir: &Path, snapshot: &SnapshotMeta) -> Result<(), StorageError> {
        self.handle
            .sync_all()
            .map_err(StorageError::while_trying("sync", &self.path))?;
        let path = dir.join(name_of(snapshot));
        fs::rename(&self.path, &path).map_err(StorageError::while_trying("rename a file to", &path))?;
        self.kept = true;
        durability::sync_dir(dir)
    }
}

impl Write for TemporaryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.handle.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.handle.flush()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.kept {
            // If this fails, the next open removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[derive(Debug)]
struct FileWriter {
    dir: PathBuf,
    path: PathBuf,
    encoder: Encoder<TemporaryFile>,
}

impl FileWriter {
    /// The same error, with the file that it is about.
    fn naming_the_file(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

impl Write for FileWriter {
    fn write(&mut self, payload: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(payload);
        written.map_err(|error| self.naming_the_file(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.encoder.flush();
        flushed.map_err(|error| self.naming_the_file(&error))
    }
}

impl SnapshotWriter for FileWriter {
    fn finish(self: Box<Self>) -> Result<SnapshotMeta, StorageError> {
        let Self { dir, path, encoder } = *self;
        let (file, snapshot) = encoder
            .finish()
            .map_err(StorageError::while_trying("write", &path))?;
        file.keep_as(&dir, &snapshot)?;
        Ok(snapshot)
    }
}

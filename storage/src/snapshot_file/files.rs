//! Snapshot files in a directory.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use raft_core::{Configuration, LogIndex, SnapshotMeta, Term};

use super::format::HeaderMeta;
use super::pace::Pace;
use super::reader::Reader;
use super::remover::{self, Remover};
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
    /// The snapshot on record: the file of an older one is removed only after a newer one has been put here.
    on_record: Mutex<Option<SnapshotMeta>>,
    staged: Mutex<Option<Staged>>,
    remover: Mutex<Remover>,
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
            on_record: Mutex::default(),
            staged: Mutex::new(None),
            remover: Mutex::default(),
        })
    }

    /// What the file of a snapshot is called.
    pub(crate) fn name_of(snapshot: &SnapshotMeta) -> String {
        name_of(snapshot)
    }

    /// Removes every snapshot but `keep`, which is the one on record. Only right while nobody else can have finished
    /// one, that is at open.
    pub(crate) fn keep_only(&self, keep: &SnapshotMeta) -> Result<(), StorageError> {
        self.set_on_record(keep);
        let kept = name_of(keep);
        remove_files(&self.dir, |name| name.ends_with(SNAPSHOT_SUFFIX) && name != kept)
    }

    /// `rests`: see [`Pace`].
    fn temporary(&self, rests: bool) -> Result<TemporaryFile, StorageError> {
        TemporaryFile::create(self.temporary_path(""), rests)
    }

    fn temporary_path(&self, what: &str) -> PathBuf {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{number}{what}{TEMPORARY_SUFFIX}"))
    }

    fn on_record(&self) -> MutexGuard<'_, Option<SnapshotMeta>> {
        // Nothing panics while the lock is held.
        self.on_record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_on_record(&self, snapshot: &SnapshotMeta) {
        let mut on_record = self.on_record();
        let is_newer = |known: &SnapshotMeta| known.last_included_index <= snapshot.last_included_index;
        if on_record.as_ref().is_none_or(is_newer) {
            *on_record = Some(snapshot.clone());
        }
    }

    fn has_newer_on_record(&self, index: LogIndex) -> bool {
        let on_record = self.on_record();
        on_record
            .as_ref()
            .is_some_and(|known| index < known.last_included_index)
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
        let file = self.temporary(true)?;
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
        let index = snapshot.last_included_index;
        match open_file(&path) {
            Ok(file) => Ok(Box::new(Reader::open(file, &path, snapshot)?)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::WouldBlock if self.has_newer_on_record(index) => {
                    Err(StorageError::SnapshotMissing { index })
                }
                io::ErrorKind::NotFound => Err(StorageError::SnapshotLost { path }),
                _ => Err(StorageError::io("open", &path, error)),
            },
        }
    }

    fn stage(&self, snapshot: &SnapshotMeta, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        let mut guard = self.staged();
        if offset == 0 {
            super::check_chunk(snapshot, snapshot, 0, 0, data)?;
            *guard = Some(Staged {
                snapshot: snapshot.clone(),
                // The thread that receives it makes the log durable, too.
                file: self.temporary(false)?,
                length: 0,
            });
        }
        let Some(staged) = guard.as_mut() else {
            return Err(super::nothing_staged(offset));
        };
        super::check_chunk(&staged.snapshot, snapshot, staged.length, offset, data)?;
        let written = staged
            .file
            .handle
            .seek(SeekFrom::Start(offset))
            .and_then(|_| staged.file.write_all(data));
        match written {
            Ok(()) => staged.length += data.len() as u64,
            Err(error) => {
                let path = staged.file.path.clone();
                // It cannot become whole. If room was lacking, the file gives back what it has taken.
                *guard = None;
                return Err(StorageError::io("write", &path, error));
            }
        }
        Ok(())
    }

    fn finish_staged(&self, snapshot: &SnapshotMeta) -> Result<StagedVerdict, StorageError> {
        let taken = self.staged().take_if(|staged| staged.snapshot == *snapshot);
        let Some(staged) = taken else {
            return Err(super::nothing_staged(snapshot.size_bytes));
        };
        let path = staged.file.path.clone();
        let file = File::open(&path).map_err(StorageError::while_trying("open", &path))?;
        let verified = Reader::open(file, &path, snapshot)
            .map_err(io::Error::other)
            .and_then(Reader::verify_all);
        if let Err(error) = verified {
            tracing::warn!(%error, "a received snapshot was thrown away");
            return Ok(StagedVerdict::Damaged);
        }
        staged.file.keep_as(&self.dir, snapshot)?;
        Ok(StagedVerdict::Good)
    }

    /// The files lose their names at once, and their space within a few seconds, on another thread and step by step: see
    /// `remover.rs`. After a crash in between the next open removes them.
    fn remove_except(&self, keep: &SnapshotMeta) -> Result<(), StorageError> {
        // First: who does not find a file any more knows why.
        self.set_on_record(keep);
        let is_older = |name: &str| index_in(name).is_some_and(|index| index < keep.last_included_index);
        let mut remover = self.remover.lock().unwrap_or_else(PoisonError::into_inner);
        for path in find_files(&self.dir, is_older)? {
            // No file that is being written ever has such a name.
            let temporary = self.temporary_path(".removed");
            fs::rename(&path, &temporary).map_err(StorageError::while_trying("rename", &path))?;
            remover.remove(temporary);
        }
        Ok(())
    }

    fn lost(&self) -> Option<(SnapshotMeta, PathBuf)> {
        let snapshot = self
            .on_record()
            .clone()
            .filter(|snapshot| snapshot.size_bytes > 0)?;
        let path = self.dir.join(name_of(&snapshot));
        // What cannot be told counts as being there.
        if path.try_exists().unwrap_or(true) {
            return None;
        }
        // It was removed here if a newer one came on record meanwhile: that comes first.
        let is_still_on_record = self.on_record().as_ref() == Some(&snapshot);
        is_still_on_record.then_some((snapshot, path))
    }
}

/// Opens a file that stays whole while it is read.
fn open_file(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // A directory can be opened like a file.
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    remover::hold(&file)?;
    Ok(file)
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

fn find_files(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, StorageError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(StorageError::while_trying("list", dir))? {
        let entry = entry.map_err(StorageError::while_trying("list", dir))?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove_files(dir: &Path, unwanted: impl Fn(&str) -> bool) -> Result<(), StorageError> {
    let found = find_files(dir, unwanted)?;
    for path in &found {
        match fs::remove_file(path) {
            // Whoever had the directory before may still be removing it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(StorageError::while_trying("remove", path))?,
        }
    }
    if found.is_empty() {
        Ok(())
    } else {
        durability::sync_dir(dir)
    }
}

/// A file that goes away again unless it is kept.
#[derive(Debug)]
struct TemporaryFile {
    handle: File,
    path: PathBuf,
    kept: bool,
    pace: Pace,
}

impl TemporaryFile {
    fn create(path: PathBuf, rests: bool) -> Result<Self, StorageError> {
        let handle = File::create_new(&path).map_err(StorageError::while_trying("create", &path))?;
        Ok(Self {
            handle,
            path,
            kept: false,
            pace: Pace::new(rests),
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
        let written = self.handle.write(bytes)?;
        self.pace.written(&self.handle, written)?;
        Ok(written)
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

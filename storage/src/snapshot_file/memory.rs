//! Snapshot files in memory: the same bytes as on disk, for tests and simulation.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use raft_core::{Configuration, LogIndex, SnapshotMeta, Term};

use super::files::FileSnapshots;
use super::format::HeaderMeta;
use super::reader::Reader;
use super::writer::Encoder;
use super::{SnapshotReader, SnapshotStore, SnapshotWriter, StagedVerdict};
use crate::error::StorageError;

/// Which file: index, term, checksum, in the order of the index.
type FileKey = (LogIndex, Term, u32);

/// Snapshot files in memory. Clones share the files, as two handles on one directory would.
#[derive(Clone, Debug, Default)]
pub struct MemorySnapshots {
    shared: Arc<Mutex<Files>>,
}

#[derive(Clone, Debug, Default)]
struct Files {
    finished: BTreeMap<FileKey, Bytes>,
    staged: Option<(SnapshotMeta, Vec<u8>)>,
}

impl MemorySnapshots {
    /// No files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Flips one bit of a finished file, as a bad disk would; whether there is such a file with such a bit.
    pub fn flip_bit(&self, snapshot: &SnapshotMeta, bit: u64) -> bool {
        let mut files = self.files();
        let Some(file) = files.finished.get_mut(&key_of(snapshot)) else {
            return false;
        };
        let mut bytes = file.to_vec();
        let flipped = usize::try_from(bit / 8)
            .ok()
            .and_then(|position| bytes.get_mut(position))
            .map(|byte| {
                *byte ^= 1 << (bit % 8);
            });
        *file = Bytes::from(bytes);
        flipped.is_some()
    }

    /// The same files once more, apart from these.
    pub(crate) fn copy(&self) -> Self {
        Self {
            shared: Arc::new(Mutex::new(self.files().clone())),
        }
    }

    /// Forgets what is unfinished, and every file but `keep`: what opening a directory does.
    pub(crate) fn reopen(&self, keep: &SnapshotMeta) {
        let mut files = self.files();
        files.staged = None;
        files.finished.retain(|key, _| *key == key_of(keep));
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // No operation leaves the files half changed, so a panic elsewhere does not matter.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(snapshot: &SnapshotMeta) -> FileKey {
    (
        snapshot.last_included_index,
        snapshot.last_included_term,
        snapshot.checksum,
    )
}

/// It is told by the name that it would have on a disk.
fn open(bytes: &Bytes, snapshot: &SnapshotMeta) -> Result<Reader<Cursor<Bytes>>, StorageError> {
    let name = FileSnapshots::name_of(snapshot);
    Reader::open(Cursor::new(bytes.clone()), Path::new(&name), snapshot)
}

impl SnapshotStore for MemorySnapshots {
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
        let encoder = Encoder::start(Vec::new(), meta).map_err(|error| refused(&error))?;
        Ok(Box::new(MemoryWriter {
            store: self.clone(),
            encoder,
        }))
    }

    fn open(&self, snapshot: &SnapshotMeta) -> Result<Box<dyn SnapshotReader>, StorageError> {
        match self.files().finished.get(&key_of(snapshot)) {
            Some(bytes) => Ok(Box::new(open(bytes, snapshot)?)),
            None => Err(StorageError::SnapshotMissing {
                index: snapshot.last_included_index,
            }),
        }
    }

    fn stage(&self, snapshot: &SnapshotMeta, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        let mut files = self.files();
        if offset == 0 {
            super::check_chunk(snapshot, snapshot, 0, 0, data)?;
            files.staged = Some((snapshot.clone(), Vec::new()));
        }
        let Some((staged, bytes)) = files.staged.as_mut() else {
            return Err(super::nothing_staged(offset));
        };
        super::check_chunk(staged, snapshot, bytes.len() as u64, offset, data)?;
        bytes.extend_from_slice(data);
        Ok(())
    }

    fn finish_staged(&self, snapshot: &SnapshotMeta) -> Result<StagedVerdict, StorageError> {
        let mut files = self.files();
        let Some((_, bytes)) = files.staged.take_if(|(staged, _)| staged == snapshot) else {
            return Err(super::nothing_staged(snapshot.size_bytes));
        };
        let bytes = Bytes::from(bytes);
        let reader = open(&bytes, snapshot);
        if reader.is_ok_and(|reader| reader.verify_all().is_ok()) {
            files.finished.insert(key_of(snapshot), bytes);
            return Ok(StagedVerdict::Good);
        }
        Ok(StagedVerdict::Damaged)
    }

    fn remove_except(&self, keep: &SnapshotMeta) -> Result<(), StorageError> {
        self.files()
            .finished
            .retain(|(index, ..), _| *index >= keep.last_included_index);
        Ok(())
    }

    /// Nobody else can remove anything.
    fn lost(&self) -> Option<(SnapshotMeta, PathBuf)> {
        None
    }
}

fn refused(error: &io::Error) -> StorageError {
    StorageError::invalid_write(format!("a snapshot cannot be written: {error}"))
}

#[derive(Debug)]
struct MemoryWriter {
    store: MemorySnapshots,
    encoder: Encoder<Vec<u8>>,
}

impl Write for MemoryWriter {
    fn write(&mut self, payload: &[u8]) -> io::Result<usize> {
        self.encoder.write(payload)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

impl SnapshotWriter for MemoryWriter {
    fn finish(self: Box<Self>) -> Result<SnapshotMeta, StorageError> {
        let Self { store, encoder } = *self;
        let (bytes, snapshot) = encoder.finish().map_err(|error| refused(&error))?;
        store
            .files()
            .finished
            .insert(key_of(&snapshot), Bytes::from(bytes));
        Ok(snapshot)
    }
}

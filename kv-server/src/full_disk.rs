//! For tests: a disk that is full for a while.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use raft_core::{Configuration, LogIndex, SnapshotMeta, Term};
use storage::{MemorySnapshots, SnapshotReader, SnapshotStore, SnapshotWriter, StagedVerdict, StorageError};

/// Where the disk has no room `failures` times, or says `kind` instead.
pub(crate) struct FullDisk {
    inner: MemorySnapshots,
    failures: AtomicU32,
    kind: io::ErrorKind,
}

impl FullDisk {
    /// Both for snapshots that are cut and for pieces of one that is received.
    pub(crate) fn new(failures: u32, kind: io::ErrorKind) -> Self {
        Self {
            inner: MemorySnapshots::default(),
            failures: failures.into(),
            kind,
        }
    }

    /// How many failures were left, this one included; `None` from the time on when there is room.
    fn next_failure(&self) -> Option<u32> {
        let left = self
            .failures
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        left.ok()
    }

    fn refuse<T>(&self, action: &'static str) -> Result<T, StorageError> {
        Err(StorageError::Io {
            action,
            path: "0.tmp".into(),
            source: Arc::new(self.kind.into()),
        })
    }
}

impl SnapshotStore for FullDisk {
    fn create(
        &self,
        index: LogIndex,
        term: Term,
        configuration: &Configuration,
    ) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        match self.next_failure() {
            None => self.inner.create(index, term, configuration),
            // Turn and turn about: the file cannot be created, or not written.
            Some(left) if left % 2 == 0 => self.refuse("create"),
            Some(_) => Ok(Box::new(FullFile(self.kind))),
        }
    }

    fn open(&self, snapshot: &SnapshotMeta) -> Result<Box<dyn SnapshotReader>, StorageError> {
        self.inner.open(snapshot)
    }

    fn stage(&self, snapshot: &SnapshotMeta, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        match self.next_failure() {
            None => self.inner.stage(snapshot, offset, data),
            Some(_) => self.refuse("write"),
        }
    }

    fn finish_staged(&self, snapshot: &SnapshotMeta) -> Result<StagedVerdict, StorageError> {
        self.inner.finish_staged(snapshot)
    }

    fn remove_except(&self, keep: &SnapshotMeta) -> Result<(), StorageError> {
        self.inner.remove_except(keep)
    }

    fn lost(&self) -> Option<(SnapshotMeta, PathBuf)> {
        None
    }
}

struct FullFile(io::ErrorKind);

impl io::Write for FullFile {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotWriter for FullFile {
    fn finish(self: Box<Self>) -> Result<SnapshotMeta, StorageError> {
        panic!("nothing was written")
    }
}

//! The devices that the suites run on.
#![allow(dead_code, reason = "each test program uses its share")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_core::{Configuration, NodeId};
use storage::conformance::Device;
use storage::{Identity, MemoryDisk, MemoryStorage, Options, SledStorage, SnapshotStore, StorageError};
use tempfile::TempDir;

pub(crate) fn identity() -> Identity {
    Identity {
        cluster_id: "test".to_owned(),
        node_id: NodeId(1),
    }
}

pub(crate) fn open(dir: &Path) -> Result<SledStorage, StorageError> {
    SledStorage::open(
        dir,
        &identity(),
        &storage::conformance::initial_configuration(),
        &Options::default(),
    )
}

/// Options with which a journal file is soon full.
pub(crate) fn small_journal() -> Options {
    let mut options = Options::default();
    options.journal_bytes = 64 * 1024;
    options
}

pub(crate) fn open_small(dir: &Path) -> Result<SledStorage, StorageError> {
    let initial = storage::conformance::initial_configuration();
    SledStorage::open(dir, &identity(), &initial, &small_journal())
}

/// Works on the records of the closed store in `dir`, as a disk that goes bad would.
pub(crate) fn tamper(dir: &Path, change: impl FnOnce(&sled::Db)) {
    let config = sled::Config::new()
        .path(dir.join("sled"))
        .segment_size(8 << 20)
        .flush_every_ms(None);
    // sled's background tasks may hold its lock for a moment after a store is closed.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let database = loop {
        match config.open() {
            Ok(database) => break database,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    };
    change(&database);
    database.flush().unwrap();
}

/// A directory for one store.
#[derive(Debug)]
pub(crate) struct OnDisk {
    dir: TempDir,
    options: Options,
}

impl OnDisk {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            options: Options::default(),
        }
    }

    pub(crate) fn with_small_journal() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            options: small_journal(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("node")
    }
}

impl Device for OnDisk {
    type Store = SledStorage;

    fn open(&mut self, initial: &Configuration) -> Result<SledStorage, StorageError> {
        SledStorage::open(&self.path(), &identity(), initial, &self.options)
    }

    fn snapshots(store: &SledStorage) -> Arc<dyn SnapshotStore> {
        store.snapshots()
    }
}

impl Drop for OnDisk {
    /// sled never syncs its blob files, so a store that has one is not durable.
    fn drop(&mut self) {
        if let Ok(blobs) = fs::read_dir(self.path().join("sled/blobs")) {
            assert_eq!(blobs.count(), 0, "blob files in {}", self.path().display());
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct InMemory {
    pub(crate) disk: MemoryDisk,
}

impl Device for InMemory {
    type Store = MemoryStorage;

    fn open(&mut self, initial: &Configuration) -> Result<MemoryStorage, StorageError> {
        MemoryStorage::open(&self.disk, &identity(), initial)
    }

    fn snapshots(store: &MemoryStorage) -> Arc<dyn SnapshotStore> {
        store.snapshots()
    }
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

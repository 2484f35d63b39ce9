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

/// A directory for one store.
#[derive(Debug)]
pub(crate) struct OnDisk {
    dir: TempDir,
}

impl OnDisk {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("node")
    }
}

impl Device for OnDisk {
    type Store = SledStorage;

    fn open(&mut self, initial: &Configuration) -> Result<SledStorage, StorageError> {
        SledStorage::open(&self.path(), &identity(), initial, &Options::default())
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

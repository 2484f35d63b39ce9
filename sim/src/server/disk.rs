//! The persister: everything that queued while the disk was busy becomes one write.
//!
//! A write has two steps. After the first the bytes are durable and nobody knows; after the second the node
//! is told. A crash may come before, between and after them.

use std::sync::Arc;

use kv_server::driver::PersistJob;
use kv_server::group_commit::{Committed, GroupCommit};
use raft_core::{Restored, Storage};
use storage::{MemoryStorage, SnapshotStore, StorageError};

use super::{Output, Server};
use crate::planted_bug::PlantedBug;

/// What the persister owns.
pub(super) struct Disk {
    storage: MemoryStorage,
    pub(super) snapshots: Arc<dyn SnapshotStore>,
    queue: GroupCommit,
    is_busy: bool,
    written: Option<Committed>,
    /// What a restart would find.
    pub(super) durable: Restored,
}

impl Disk {
    pub(super) fn new(storage: MemoryStorage, snapshots: Arc<dyn SnapshotStore>, durable: Restored) -> Self {
        Self {
            storage,
            snapshots,
            queue: GroupCommit::default(),
            is_busy: false,
            written: None,
            durable,
        }
    }

    /// Whether the disk was idle and has something to do now.
    fn start(&mut self) -> bool {
        let starts = !self.is_busy && !self.queue.is_empty();
        self.is_busy |= starts;
        starts
    }
}

impl Server {
    pub(super) fn persist(&mut self, job: PersistJob) {
        self.disk.queue.push(job);
        self.start_disk();
    }

    fn start_disk(&mut self) {
        if self.disk.start() {
            self.outputs.push(Output::DiskBusy);
        }
    }

    /// What has queued becomes durable.
    ///
    /// # Errors
    ///
    /// When the storage refuses, which without an injected fault it never may.
    pub(crate) fn disk_writes(&mut self) -> Result<(), StorageError> {
        let disk = &mut self.disk;
        disk.written = disk.queue.commit(&mut disk.storage, disk.snapshots.as_ref())?;
        disk.durable = disk.storage.restore()?;
        self.outputs.push(Output::DiskWritten);
        Ok(())
    }

    /// The node learns what became durable.
    pub(crate) fn disk_reports(&mut self) {
        self.disk.is_busy = false;
        if let Some(committed) = self.disk.written.take() {
            if self.bug != Some(PlantedBug::PromiseBeforePersist) {
                self.driver.persisted(committed.number);
            }
            for (snapshot, intact) in committed.received {
                self.driver.node_mut().snapshot_received(&snapshot, intact);
            }
        }
        self.flush();
        self.start_disk();
    }
}

//! The in-memory twin: the same rules as on disk, without a disk. For tests and for simulation.

mod image;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::{
    Configuration, Entry, HardState, Incarnation, LogIndex, LogRead, LogReadReply, Restored, SnapshotMeta,
    Standing, Storage, Write,
};

use crate::error::StorageError;
use crate::hard_state::{Identity, Owner};
use crate::read_back;
use crate::restore::Loaded;
use crate::rules::LogBounds;
use crate::snapshot_file::{MemorySnapshots, SnapshotStore};
use image::Image;

/// What survives when a [`MemoryStorage`] is dropped. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    shared: Arc<Mutex<Disk>>,
    snapshots: MemorySnapshots,
    incarnation: Incarnation,
    standing: Standing,
}

/// What the next write does instead of succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// It fails and nothing of it is on the disk.
    LostBatch,
    /// It fails although all of it is on the disk.
    KeptBatch,
}

#[derive(Debug, Default)]
struct Disk {
    identity: Option<Identity>,
    contents: Contents,
    /// Counts opens and crashes: a store of an earlier count has lost the disk.
    generation: u64,
    in_use: bool,
    fault: Option<WriteFault>,
    /// The records as bytes, once a bit of them has flipped. The next open reads these.
    damaged: Option<Image>,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    hard_state: HardState,
    snapshot: SnapshotMeta,
    first_index: LogIndex,
    entries: Vec<Entry>,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk for a store of this incarnation, with this standing at first. The other disks are all of
    /// incarnation 0 and founders.
    #[must_use]
    pub fn of_store(incarnation: Incarnation, standing: Standing) -> Self {
        Self {
            incarnation,
            standing,
            ..Self::default()
        }
    }

    /// Which store is on it, or will be.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Stops the machine: the open store answers [`StorageError::Crashed`] from now on, what it has
    /// acknowledged stays, and snapshots not finished are gone after the next open.
    pub fn crash(&self) {
        let mut disk = self.disk();
        disk.generation += 1;
        disk.in_use = false;
    }

    /// Makes the next write fail, once. The store is finished then, as after any failed write.
    pub fn fail_next_write(&self, fault: WriteFault) {
        self.disk().fault = Some(fault);
    }

    /// Flips one bit of the records (log, hard state, identity, and what ties them together), as a bad disk would:
    /// they are laid out as on a real one, and the next open reads them back with the same checks. `bit` is taken
    /// modulo their length. Returns the name of the record; `None`, and nothing happens, on a disk that was never
    /// used or whose store is open.
    #[must_use = "nothing may have been flipped"]
    pub fn flip_record_bit(&self, bit: u64) -> Option<String> {
        let mut disk = self.disk();
        let owner = self.owner(disk.identity.clone()?);
        if disk.in_use {
            return None;
        }
        if disk.damaged.is_none() {
            disk.damaged = Some(Image::of(&owner, &disk.contents).ok()?);
        }
        disk.damaged.as_mut()?.flip_bit(bit)
    }

    /// What a restart would find, were nothing damaged; `None` on a disk that was never used.
    #[must_use]
    pub fn peek(&self) -> Option<Restored> {
        let disk = self.disk();
        disk.identity.as_ref()?;
        Some(disk.contents.restored())
    }

    /// Another disk with what is on this one now, as a copy of the data directory would be.
    #[must_use]
    pub fn copy(&self) -> Self {
        let disk = self.disk();
        let copy = Disk {
            identity: disk.identity.clone(),
            contents: disk.contents.clone(),
            damaged: disk.damaged.clone(),
            ..Disk::default()
        };
        Self {
            shared: Arc::new(Mutex::new(copy)),
            snapshots: self.snapshots.copy(),
            ..*self
        }
    }

    fn owner(&self, identity: Identity) -> Owner {
        Owner {
            identity,
            incarnation: self.incarnation,
        }
    }

    /// The snapshot files on this disk, to damage them.
    #[must_use]
    pub fn snapshots(&self) -> &MemorySnapshots {
        &self.snapshots
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A write is checked before it changes anything, so a panic elsewhere leaves the contents whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raft's state on a [`MemoryDisk`]. Dropping it and opening another on the same disk is a restart.
#[derive(Debug)]
pub struct MemoryStorage {
    disk: MemoryDisk,
    generation: u64,
    failure: Option<StorageError>,
}

impl MemoryStorage {
    /// Opens the store on `disk`; on an empty one, creates it with the configuration `initial`.
    ///
    /// # Errors
    ///
    /// When the disk belongs to another cluster or node, a store on it is still open, or its records are damaged.
    pub fn open(
        disk: &MemoryDisk,
        identity: &Identity,
        initial: &Configuration,
    ) -> Result<Self, StorageError> {
        let mut shared = disk.disk();
        let path = || "memory".into();
        match &shared.identity {
            Some(found) if found.cluster_id != identity.cluster_id => {
                let (expected, found) = (identity.cluster_id.clone(), found.cluster_id.clone());
                return Err(StorageError::OtherCluster {
                    path: path(),
                    expected,
                    found,
                });
            }
            Some(found) if found.node_id != identity.node_id => {
                let (expected, found) = (identity.node_id, found.node_id);
                return Err(StorageError::OtherNode {
                    path: path(),
                    expected,
                    found,
                });
            }
            _ if shared.in_use => return Err(StorageError::InUse { path: path() }),
            Some(_) => shared.read_back(&disk.owner(identity.clone()))?,
            None => shared.format(identity, initial, disk.standing),
        }
        shared.in_use = true;
        shared.generation += 1;
        disk.snapshots.reopen(&shared.contents.snapshot);
        Ok(Self {
            disk: disk.clone(),
            generation: shared.generation,
            failure: None,
        })
    }

    /// The snapshot files of this store.
    #[must_use]
    pub fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(self.disk.snapshots.clone())
    }

    fn check_usable(&self, disk: &Disk) -> Result<(), StorageError> {
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None if disk.generation != self.generation => Err(StorageError::Crashed),
            None => Ok(()),
        }
    }

    fn try_write(&self, writes: &[Write]) -> Result<(), StorageError> {
        let mut disk = self.disk.disk();
        self.check_usable(&disk)?;
        let mut bounds = disk.contents.bounds();
        for write in writes {
            bounds = bounds.after(write)?;
            if let Write::InstallSnapshot { snapshot, .. } | Write::Compact { snapshot, .. } = write {
                drop(self.disk.snapshots.open(snapshot)?);
            }
        }
        let fault = disk.fault.take();
        if fault != Some(WriteFault::LostBatch) {
            writes.iter().for_each(|write| disk.contents.apply(write));
        }
        if fault.is_some() {
            let cause = "the test asked for it".to_owned();
            return Err(StorageError::WriteFailed {
                path: "memory".into(),
                cause,
            });
        }
        self.disk.snapshots.remove_except(&disk.contents.snapshot)
    }
}

impl Storage for MemoryStorage {
    type Error = StorageError;

    fn restore(&mut self) -> Result<Restored, StorageError> {
        let disk = self.disk.disk();
        self.check_usable(&disk)?;
        let restored = disk.contents.restored();
        if restored.snapshot.size_bytes > 0 {
            drop(self.disk.snapshots.open(&restored.snapshot)?);
        }
        Ok(restored)
    }

    fn write(&mut self, writes: &[Write]) -> Result<(), StorageError> {
        self.try_write(writes)
            .inspect_err(|failure| self.failure = Some(failure.clone()))
    }

    fn read(&mut self, read: &LogRead, reply: LogReadReply<StorageError>) {
        let disk = self.disk.disk();
        let entries = self.check_usable(&disk).map(|()| disk.contents.read(read));
        drop(disk);
        reply(entries);
    }
}

impl Drop for MemoryStorage {
    fn drop(&mut self) {
        let mut disk = self.disk.disk();
        if disk.generation == self.generation {
            disk.in_use = false;
        }
    }
}

impl Disk {
    /// Goes on from what the bytes of the records say, if they are damaged and that was not noticed.
    fn read_back(&mut self, owner: &Owner) -> Result<(), StorageError> {
        let Some(image) = &self.damaged else {
            return Ok(());
        };
        self.contents = Contents::from(image.load(owner)?);
        self.damaged = None;
        Ok(())
    }

    fn format(&mut self, identity: &Identity, initial: &Configuration, standing: Standing) {
        self.identity = Some(identity.clone());
        self.contents = Contents {
            hard_state: HardState {
                standing,
                ..HardState::default()
            },
            snapshot: SnapshotMeta {
                configuration: initial.clone(),
                ..SnapshotMeta::default()
            },
            first_index: LogIndex(1),
            ..Contents::default()
        };
    }
}

impl From<Loaded> for Contents {
    fn from(loaded: Loaded) -> Self {
        Self {
            hard_state: loaded.restored.hard_state,
            snapshot: loaded.restored.snapshot,
            first_index: loaded.state.root.first_index,
            entries: loaded.restored.entries,
        }
    }
}

impl Contents {
    fn restored(&self) -> Restored {
        Restored {
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            entries: self.entries.clone(),
        }
    }

    fn bounds(&self) -> LogBounds {
        let last = self
            .entries
            .last()
            .map_or(self.first_index.previous(), |entry| entry.index);
        LogBounds {
            first: self.first_index,
            last,
            snapshot: self.snapshot.last_included_index,
        }
    }

    fn read(&self, read: &LogRead) -> Vec<Entry> {
        if read.from < self.first_index {
            return Vec::new();
        }
        let entries = &self.entries[self.position_of(read.from)..];
        read_back::within(read, entries.iter().cloned())
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::HardState(hard_state) => self.hard_state = *hard_state,
            Write::Append(entries) => {
                if let Some(first) = entries.first() {
                    self.entries.truncate(self.position_of(first.index));
                }
                self.entries.extend(entries.iter().cloned());
            }
            Write::InstallSnapshot {
                snapshot,
                keep_suffix,
            } => {
                if !keep_suffix {
                    self.entries.clear();
                }
                self.retain_from(snapshot.last_included_index.next());
                self.snapshot = snapshot.clone();
            }
            Write::Compact {
                snapshot,
                first_retained,
            } => {
                self.retain_from(*first_retained);
                self.snapshot = snapshot.clone();
            }
        }
    }

    fn retain_from(&mut self, first: LogIndex) {
        self.entries.drain(..self.position_of(first));
        self.first_index = self.first_index.max(first);
    }

    /// Where in `entries` an index stands, or where they end.
    fn position_of(&self, index: LogIndex) -> usize {
        let distance = index.get().saturating_sub(self.first_index.get());
        usize::try_from(distance).map_or(self.entries.len(), |position| position.min(self.entries.len()))
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{Configuration, Incarnation, LogIndex, NodeId, Standing, Storage as _, Write};

    use super::{MemoryDisk, MemoryStorage, WriteFault};
    use crate::conformance::{command, cut_snapshot};
    use crate::error::StorageError;
    use crate::hard_state::Identity;

    fn open(disk: &MemoryDisk) -> Result<MemoryStorage, StorageError> {
        let identity = Identity {
            cluster_id: "test".to_owned(),
            node_id: NodeId(1),
        };
        MemoryStorage::open(disk, &identity, &Configuration::of_voters([NodeId(1)]))
    }

    fn append(index: u64) -> [Write; 1] {
        [Write::Append(vec![command(1, index, 3)])]
    }

    #[test]
    fn a_crashed_disk_is_gone_for_the_store_that_was_open_and_keeps_what_it_has() {
        let disk = MemoryDisk::new();
        let mut store = open(&disk).unwrap();
        store.write(&append(1)).unwrap();
        assert!(matches!(open(&disk), Err(StorageError::InUse { .. })));
        disk.crash();
        assert!(matches!(store.write(&append(2)), Err(StorageError::Crashed)));
        let mut next = open(&disk).unwrap();
        assert_eq!(next.restore().unwrap().entries, [command(1, 1, 3)]);
        drop(store);
        assert!(
            matches!(open(&disk), Err(StorageError::InUse { .. })),
            "the next is open"
        );
        next.write(&append(2)).unwrap();
    }

    #[test]
    fn a_write_that_was_made_to_fail_finishes_the_store_with_the_batch_or_without_it() {
        for (fault, kept) in [(WriteFault::LostBatch, 0), (WriteFault::KeptBatch, 1)] {
            let disk = MemoryDisk::new();
            let mut store = open(&disk).unwrap();
            disk.fail_next_write(fault);
            for _ in 0..2 {
                assert!(matches!(
                    store.write(&append(1)),
                    Err(StorageError::WriteFailed { .. })
                ));
            }
            drop(store);
            let mut store = open(&disk).unwrap();
            assert_eq!(store.restore().unwrap().entries.len(), kept);
            store.write(&append(1)).unwrap();
        }
    }

    #[test]
    fn the_snapshots_of_a_disk_are_those_of_its_store() {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let snapshot = cut_snapshot(store.snapshots().as_ref(), 1, 1, b"state").unwrap();
        assert!(disk.snapshots().flip_bit(&snapshot, 0));
    }

    #[test]
    fn a_disk_of_another_cluster_or_node_is_refused() {
        let disk = MemoryDisk::new();
        drop(open(&disk).unwrap());
        let open_as = |cluster_id: &str, node_id| {
            let identity = Identity {
                cluster_id: cluster_id.to_owned(),
                node_id: NodeId(node_id),
            };
            MemoryStorage::open(&disk, &identity, &Configuration::default())
        };
        let refused = open_as("other", 1);
        assert!(
            matches!(refused, Err(StorageError::OtherCluster { .. })),
            "{refused:?}"
        );
        let refused = open_as("test", 2);
        assert!(
            matches!(refused, Err(StorageError::OtherNode { .. })),
            "{refused:?}"
        );
        open_as("test", 1).unwrap();
    }

    #[test]
    fn a_store_begins_with_the_standing_that_it_was_made_with() {
        let disk = MemoryDisk::of_store(Incarnation(7), Standing::Joining);
        assert_eq!(disk.incarnation(), Incarnation(7));
        let restored = open(&disk).unwrap().restore().unwrap();
        assert_eq!(restored.hard_state.standing, Standing::Joining);
    }

    #[test]
    fn a_copy_of_a_damaged_disk_is_damaged() {
        let disk = MemoryDisk::new();
        drop(open(&disk).unwrap());
        let before = disk.copy();
        disk.flip_record_bit(0).unwrap();
        open(&disk.copy()).unwrap_err();
        open(&before).unwrap();
    }

    #[test]
    fn a_store_is_not_restored_from_a_snapshot_whose_file_is_damaged() {
        let disk = MemoryDisk::new();
        let mut store = open(&disk).unwrap();
        store.write(&append(1)).unwrap();
        let snapshot = cut_snapshot(store.snapshots().as_ref(), 1, 1, b"state").unwrap();
        let compact = Write::Compact {
            snapshot: snapshot.clone(),
            first_retained: LogIndex(2),
        };
        store.write(&[compact]).unwrap();
        assert_eq!(store.restore().unwrap().snapshot, snapshot);
        assert!(disk.snapshots().flip_bit(&snapshot, 0));
        store.restore().unwrap_err();
    }
}

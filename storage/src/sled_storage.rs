//! Raft's durable state: sled, with a journal in front of it.
//!
//! # The order of every write, and what a crash after each step leaves
//!
//! All the writes of one call (hard state, appends with their truncations, snapshot records, compaction)
//! become changes to records, collected first and committed as one batch:
//!
//! 1. Changes are collected in memory; snapshot files that the writes name are checked to be in place.
//!    *Nothing on disk has changed.*
//! 2. The batch is appended to the [`journal`](crate::journal) as one record. *After a power loss the record
//!    is whole, or it is torn and dropped: the state before or after the call. Nothing has been acknowledged,
//!    so both are right.*
//! 3. `fdatasync` of the journal. *The state after the call.*
//! 4. The high-water file. *The state after the call; the file may name the batch before, which is less than
//!    the store holds and therefore no complaint.*
//! 5. `write` returns: only now may anything be acknowledged.
//! 6. Files of older snapshots are removed. *Left-over files are removed at the next open.*
//!
//! Each kind of write takes exactly these steps. What it changes in step 2 is
//!
//! | write | changes, besides the root |
//! |---|---|
//! | hard state | the one record of term and vote |
//! | append | new log records; those that it replaces (§5.3) are removed, or rewritten without their end, in the same batch |
//! | compaction | the snapshot record, and the removal of the first few hundred forgotten log records |
//! | snapshot install | the snapshot record, and the removal of the log records that it replaces |
//!
//! For a snapshot the file comes first (written, synced, renamed, directory synced; see
//! [`snapshot_file`](crate::snapshot_file)), then its record together with the compaction in one batch, then
//! the removal of the older file. *A crash in between leaves the older snapshot with its log and at most a
//! file too many.* Creation is described in [`directory`](crate::directory), rotation of the journal there,
//! and how its content reaches sled in [`checkpoint`](crate::checkpoint).
//!
//! A compaction moves the start of the log at once and removes the records before it a few hundred at a time,
//! in its own batch and the ones after. *A crash in between leaves records that hold only forgotten entries;
//! they are verified and skipped when the store is opened, and later batches remove them.*
//!
//! When any step of a write fails, the store is finished: each later call returns the same error, because
//! what is on disk is unknown until it has been read back by a new open. What fails on the way into sled, or does not
//! end in time, fails the next write.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raft_core::{
    Configuration, HardState, Incarnation, LogIndex, LogRead, LogReadReply, Restored, SnapshotMeta, Standing,
    Storage, Write,
};
use tracing::{info, warn};

use crate::changes::{Changes, State};
use crate::database::open_tree;
use crate::deadline;
use crate::directory::{self, Contents, DataDir, StoreId};
use crate::durability::DurableTree;
use crate::error::StorageError;
use crate::hard_state::{IDENTITY_KEY, Identity, Owner, Root};
use crate::high_water::HighWater;
use crate::journal::Journal;
use crate::journaled::JournaledTree;
use crate::progress::Progress;
use crate::restore::Loaded;
use crate::snapshot_file::{FileSnapshots, SnapshotStore};

/// How a store is run. None of it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Memory that sled may use for its page cache, in bytes. What went into sled since the cache was last made to
    /// keep to it, up to 16 MiB, comes on top. Default: 8 MiB.
    pub cache_bytes: u64,
    /// The store is to take the place of one that was lost: it joins a cluster that knows this node by other
    /// data. Only for a directory that is missing or empty, or whose store never held anything; on one that
    /// was created with it, it changes nothing. Default: false.
    pub join: bool,
    /// The length that each of the two files of the journal may reach, in bytes; at least 64 KiB. A log that is
    /// forgotten, by a snapshot, before four fifths of what a file holds were written behind it never reaches sled. So
    /// a file should be a quarter longer than what is written between two snapshots; beyond that it only makes the
    /// replay longer when the store is opened, which takes as much memory as a file is long. In use, each record takes
    /// some 150 bytes of memory while it is in the journal. Default: 96 MiB.
    pub journal_bytes: u64,
    /// How long a write waits for sled to take in a piece of the journal, when the journal is full or sled far behind: a
    /// few MiB. After that the store fails: the disk does not answer. Default: 30 s.
    pub checkpoint_wait: Duration,
}

/// How long opening sled may take. It reads all of its file.
const OPEN_WAIT: Duration = Duration::from_secs(600);

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 8 * 1024 * 1024,
            join: false,
            journal_bytes: 96 * 1024 * 1024,
            checkpoint_wait: Duration::from_secs(30),
        }
    }
}

/// The durable state of one node, in a directory of its own. See the crate's front page.
pub struct SledStorage {
    // Dropped in this order: the database before the lock on the directory.
    tree: JournaledTree,
    state: State,
    restored: Option<Restored>,
    high_water: HighWater,
    snapshots: Arc<FileSnapshots>,
    owner: Owner,
    progress: Progress,
    failure: Option<StorageError>,
    dir: Arc<DataDir>,
}

impl fmt::Debug for SledStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStorage")
            .field("dir", &self.dir.path())
            .field("owner", &self.owner)
            .field("root", &self.state.root)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl SledStorage {
    /// Opens the store in `dir`, or creates one there when the directory is missing or empty. A fresh store
    /// starts from the empty snapshot with the configuration `initial`; an existing one keeps what it has.
    ///
    /// Everything in the store is read and verified here. The directory is locked until the store is dropped.
    ///
    /// # Errors
    ///
    /// Each reason to refuse is a variant of [`StorageError`] of its own: a directory of another cluster or
    /// node, in use, not a store, without permission, of another format version, with lost, damaged or
    /// rolled-back contents. The message names the path and the fix. The node must not start.
    pub fn open(
        dir: &Path,
        identity: &Identity,
        initial: &Configuration,
        options: &Options,
    ) -> Result<Self, StorageError> {
        let dir = Arc::new(DataDir::claim(dir)?);
        let store = match dir.contents(identity)? {
            Contents::Fresh => return Self::create(dir, identity, initial, options),
            Contents::Unfinished { joins } => {
                let options = Options {
                    join: options.join || joins,
                    ..options.clone()
                };
                return Self::create(dir, identity, initial, &options);
            }
            Contents::Store(store) => store,
        };
        let opened = Self::open_existing(dir, identity, store, options)?;
        if !options.join {
            return Ok(opened);
        }
        if store.joins {
            info!(
                path = %opened.dir.path().display(),
                "--join changes nothing: this store was made by it, and is used as it is"
            );
            return Ok(opened);
        }
        if !opened.is_unused() {
            let path = opened.dir.path().to_path_buf();
            return Err(StorageError::JoinsWithData { path });
        }
        // It was started without being told to join, and nothing came of it. The new store is another one.
        let dir = Arc::clone(&opened.dir);
        drop(opened);
        Self::create(dir, identity, initial, options)
    }

    fn create(
        dir: Arc<DataDir>,
        identity: &Identity,
        initial: &Configuration,
        options: &Options,
    ) -> Result<Self, StorageError> {
        let store = create(&dir, identity, initial, options)?;
        info!(path = %dir.path().display(), incarnation = store.incarnation.get(), "created a fresh store");
        Self::open_existing(dir, identity, store, options)
    }

    /// Which store this is: a number that was drawn at random when it was created. To be handed to
    /// `raft_core::Config`.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.owner.incarnation
    }

    /// Counts what is made durable, also while a write waits.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Whether its log never held an entry.
    fn is_unused(&self) -> bool {
        self.state.root.last_index == LogIndex::ZERO
    }

    /// The snapshot files of this store.
    #[must_use]
    pub fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::clone(&self.snapshots) as Arc<dyn SnapshotStore>
    }

    /// Carries everything that is in the journal into sled, and waits for it. Never needed, but after it sled
    /// alone holds the state, and the next open has nothing to replay.
    ///
    /// # Errors
    ///
    /// When sled or the disk fails or does not answer; the store is finished then, as after a failed write.
    pub fn checkpoint(&mut self) -> Result<(), StorageError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.tree
            .checkpoint()
            .inspect_err(|failure| self.failure = Some(failure.clone()))
    }

    fn open_existing(
        dir: Arc<DataDir>,
        identity: &Identity,
        store: StoreId,
        options: &Options,
    ) -> Result<Self, StorageError> {
        let owner = Owner {
            identity: identity.clone(),
            incarnation: store.incarnation,
        };
        let tree = open_within_bounds(&dir, options)?;
        Self::open_over(tree, dir, owner, options)
    }

    fn open_over(
        tree: DurableTree,
        dir: Arc<DataDir>,
        owner: Owner,
        options: &Options,
    ) -> Result<Self, StorageError> {
        if tree.is_empty() {
            let missing = "everything in its database".to_owned();
            return Err(StorageError::ContentsLost {
                path: dir.path().to_path_buf(),
                missing,
            });
        }
        let (high_water, acknowledged) = HighWater::open(dir.path())?;
        let progress = tree.progress();
        let (tree, loaded) = JournaledTree::open(tree, &dir, &owner, acknowledged, options)?;
        let Loaded { state, restored } = loaded;
        let snapshots = Arc::new(FileSnapshots::at(&dir.snapshots_dir())?);
        check_snapshot_file(&dir, &snapshots, &state.snapshot)?;
        snapshots.keep_only(&state.snapshot)?;
        info!(
            path = %dir.path().display(),
            batch = state.root.batch,
            snapshot_index = state.snapshot.last_included_index.get(),
            last_log_index = state.root.last_index.get(),
            "opened the store"
        );
        Ok(Self {
            tree,
            state,
            restored: Some(restored),
            high_water,
            snapshots,
            owner,
            progress,
            failure: None,
            dir,
        })
    }

    fn try_write(&mut self, writes: &[Write]) -> Result<(), StorageError> {
        let mut changes = Changes::new(&self.tree, &mut self.state);
        for write in writes {
            changes.apply(write)?;
            if let Some(snapshot) = snapshot_of(write) {
                drop(self.snapshots.open(snapshot)?);
            }
        }
        let batch = changes.finish()?;
        self.tree.commit(batch)?;
        let sync_high_water = writes.iter().any(|write| !matches!(write, Write::Append(_)));
        self.high_water.record(self.state.root.batch, sync_high_water)?;
        if writes.iter().any(|write| snapshot_of(write).is_some()) {
            self.remove_superseded_snapshots();
        }
        Ok(())
    }

    /// A file that cannot be removed costs space and nothing else, so it does not fail the write.
    fn remove_superseded_snapshots(&self) {
        if let Err(error) = self.snapshots.remove_except(&self.state.snapshot) {
            warn!(%error, "could not remove the files of older snapshots");
        }
    }
}

impl Storage for SledStorage {
    type Error = StorageError;

    fn restore(&mut self) -> Result<Restored, StorageError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if let Some(restored) = self.restored.take() {
            return Ok(restored);
        }
        Ok(self.tree.load(&self.owner)?.restored)
    }

    fn write(&mut self, writes: &[Write]) -> Result<(), StorageError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.restored = None;
        self.try_write(writes)
            .inspect_err(|failure| self.failure = Some(failure.clone()))
    }

    fn read(&mut self, read: &LogRead, reply: LogReadReply<StorageError>) {
        match &self.failure {
            Some(failure) => reply(Err(failure.clone())),
            None => self.tree.read_log(read, &self.state, reply),
        }
    }
}

fn snapshot_of(write: &Write) -> Option<&SnapshotMeta> {
    match write {
        Write::InstallSnapshot { snapshot, .. } | Write::Compact { snapshot, .. } => Some(snapshot),
        Write::HardState(_) | Write::Append(_) => None,
    }
}

fn open_within_bounds(dir: &Arc<DataDir>, options: &Options) -> Result<DurableTree, StorageError> {
    let cache_bytes = options.cache_bytes;
    let its_dir = Arc::clone(dir);
    deadline::run(&dir.sled_dir(), OPEN_WAIT, move || {
        open_tree(&its_dir, cache_bytes)
    })
}

/// Steps 3 to 6 of the creation, see [`directory`](crate::directory).
fn create(
    dir: &Arc<DataDir>,
    identity: &Identity,
    initial: &Configuration,
    options: &Options,
) -> Result<StoreId, StorageError> {
    let store = StoreId::draw(options.join);
    dir.begin_creation(identity, store)?;
    let tree = open_within_bounds(dir, options)?;
    let owner = Owner {
        identity: identity.clone(),
        incarnation: store.incarnation,
    };
    let standing = if store.joins {
        Standing::Joining
    } else {
        Standing::Founder
    };
    let (its_owner, its_initial) = (owner.clone(), initial.clone());
    let batch = deadline::run(&dir.sled_dir(), options.checkpoint_wait, move || {
        write_first_batch(&tree, &its_owner, &its_initial, standing)
    })?;
    Journal::create(&dir.journal_dir(), &owner, batch + 1, options.journal_bytes)?;
    HighWater::create(dir.path(), batch)?;
    dir.finish_creation(identity, store)?;
    Ok(store)
}

/// Puts the records of a fresh store straight into sled; yields the number of the batch.
fn write_first_batch(
    tree: &DurableTree,
    owner: &Owner,
    initial: &Configuration,
    standing: Standing,
) -> Result<u64, StorageError> {
    let root = Root {
        first_index: LogIndex(1),
        ..Root::default()
    };
    let mut state = State {
        root,
        ..State::default()
    };
    let mut changes = Changes::new(tree, &mut state);
    changes.put_small(IDENTITY_KEY, owner)?;
    changes.set_hard_state(HardState {
        standing,
        ..HardState::default()
    })?;
    changes.set_snapshot(&SnapshotMeta {
        configuration: initial.clone(),
        ..SnapshotMeta::default()
    })?;
    let batch = changes.finish()?;
    let mut records = sled::Batch::default();
    for (key, change) in batch.changes {
        records.insert(key, change.value.unwrap_or_default());
    }
    tree.commit(records)?;
    Ok(batch.number)
}

fn check_snapshot_file(
    dir: &DataDir,
    snapshots: &FileSnapshots,
    snapshot: &SnapshotMeta,
) -> Result<(), StorageError> {
    if snapshot.size_bytes == 0 {
        return Ok(());
    }
    match snapshots.open(snapshot) {
        Ok(_) => Ok(()),
        Err(StorageError::SnapshotLost { path }) => Err(StorageError::ContentsLost {
            path: dir.path().to_path_buf(),
            missing: format!("the snapshot file {}", path.display()),
        }),
        Err(StorageError::SnapshotDamaged { path, index, what }) => Err(StorageError::Damaged {
            path,
            what,
            index: Some(index),
        }),
        Err(error) => Err(error),
    }
}

/// Where the store in the directory `dir` keeps the file of this snapshot.
#[must_use]
pub fn snapshot_path(dir: &Path, snapshot: &SnapshotMeta) -> PathBuf {
    directory::snapshots_dir(dir).join(FileSnapshots::name_of(snapshot))
}

#[cfg(test)]
mod tests;

//! sled with the journal in front of it: where a batch becomes durable, and where it goes from there.
//!
//! Of what the two journal files hold and sled may not hold yet, the keys are kept in memory, with where the values are in
//! the files: some 150 bytes for each record. A batch takes 512 bytes of a file or more, so that is at most a third of what
//! the files have where one client writes little ones, and next to nothing where batches are large.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft_core::{LogRead, LogReadReply};

use crate::carrying::Carrying;
use crate::changes::{Records, State};
use crate::checkpoint::{Carried, Checkpointer};
use crate::directory::DataDir;
use crate::durability::DurableTree;
use crate::error::StorageError;
use crate::hard_state::Owner;
use crate::journal::{self, Journal, Opened};
use crate::overlay::{Batch, Layer, Overlay, View};
use crate::read_back::ReadBack;
use crate::restore::{self, Loaded};
use crate::sled_storage::Options;

/// A write that waits so long for sled is told in the log, and one that waits so long for the disk.
const LONG_WAIT: Duration = Duration::from_millis(50);
/// Waits for the disk are told no more often: on a slow one every write is one.
const TELL_OF_DISK_EVERY: Duration = Duration::from_secs(10);

/// Commits batches so that they survive a power loss.
#[derive(Debug)]
pub(crate) struct JournaledTree {
    journal: Journal,
    /// The file that is written.
    active: Layer,
    /// The other file, while sled has not been given all of it.
    full: Option<Carrying>,
    checkpointer: Checkpointer,
    journal_bytes: u64,
    told_of_disk: Option<Instant>,
}

impl JournaledTree {
    /// Reads and verifies sled with the journal over it.
    pub(crate) fn open(
        tree: DurableTree,
        dir: &Arc<DataDir>,
        store: &Owner,
        acknowledged: u64,
        options: &Options,
    ) -> Result<(Self, Loaded), StorageError> {
        let in_sled = restore::last_batch(&View::new(&tree, &[]))?;
        let opened = Journal::open(&dir.journal_dir(), store, in_sled, acknowledged)?;
        let Opened {
            journal,
            full,
            active,
        } = opened;
        let (full, active) = (full.map(Arc::new), Arc::new(active));
        let layers: Vec<Arc<Layer>> = full.iter().chain([&active]).map(Arc::clone).collect();
        let view = View::new(&tree, &layers);
        let loaded = restore::load(&view, store)?;
        let largest_record = view.largest_visited();
        drop(layers);
        let checkpointer =
            Checkpointer::start(tree, largest_record, Arc::clone(dir), options.checkpoint_wait)?;
        let mut opened = Self {
            journal,
            active: Arc::unwrap_or_clone(active),
            full: full.map(Carrying::new),
            checkpointer,
            journal_bytes: options.journal_bytes,
            told_of_disk: None,
        };
        opened.keep_in_step()?;
        Ok((opened, loaded))
    }

    /// Makes `batch` durable, or fails with nothing acknowledged. After a failure nothing must be written any
    /// more.
    pub(crate) fn commit(&mut self, batch: Batch) -> Result<(), StorageError> {
        if let Some(carried) = self.checkpointer.poll()? {
            self.take_note_of(&carried);
        }
        if !self.journal.encode(&batch)? {
            let began = Instant::now();
            self.rotate()?;
            tell_wait(self.checkpointer.path(), began);
        }
        let began = Instant::now();
        let start = self.journal.append()?;
        self.tell_wait_for_disk(began.elapsed());
        self.active.changes.absorb(journal::journaled(batch, start));
        self.keep_in_step()
    }

    /// Carries everything into sled; the journal is empty then.
    pub(crate) fn checkpoint(&mut self) -> Result<(), StorageError> {
        if !self.journal.is_empty() {
            self.journal.forget_encoded();
            self.rotate()?;
        }
        self.carry_the_rest()
    }

    /// Reads entries of the log back; waits for nothing but the journal.
    pub(crate) fn read_log(&self, read: &LogRead, state: &State, reply: LogReadReply<StorageError>) {
        match ReadBack::prepare(read, state, |key| Ok(self.journaled(key)?.flatten())) {
            Ok(prepared) if prepared.needs_sled() => self.checkpointer.read_log(prepared, reply),
            Ok(prepared) => reply(prepared.entries(self.checkpointer.path(), |_| Ok(None))),
            Err(error) => reply(Err(error)),
        }
    }

    /// What the journal says of `key`, see [`Layer::get_verified`].
    fn journaled(&self, key: &[u8]) -> Result<Option<Option<Vec<u8>>>, StorageError> {
        match (self.active.get_verified(key)?, &self.full) {
            (None, Some(full)) => full.layer().get_verified(key),
            (found, _) => Ok(found),
        }
    }

    /// Reads and verifies everything again.
    pub(crate) fn load(&self, store: &Owner) -> Result<Loaded, StorageError> {
        let full = self.full.iter().map(|full| Arc::clone(full.layer()));
        let layers = full.chain([Arc::new(self.active.clone())]).collect();
        self.checkpointer.load(layers, store)
    }

    fn rotate(&mut self) -> Result<(), StorageError> {
        self.carry_the_rest()?;
        self.journal.rotate()?;
        let active = Layer {
            changes: Overlay::default(),
            values: self.journal.active_values(),
        };
        let full = std::mem::replace(&mut self.active, active);
        self.full = Some(Carrying::new(Arc::new(full)));
        Ok(())
    }

    /// Gives sled the next piece of the full file, if it is time for one. Waits for the piece before if sled is far behind:
    /// else all that is left would come at once when the active file is full.
    fn keep_in_step(&mut self) -> Result<(), StorageError> {
        let Some(full) = &mut self.full else {
            return Ok(());
        };
        let due = self.journal.share_due(full.total_bytes());
        let written = self.journal.written();
        if self.checkpointer.is_busy() {
            if !full.is_far_behind(written.room) {
                return Ok(());
            }
            let began = Instant::now();
            self.checkpointer.wait()?;
            tell_wait(self.checkpointer.path(), began);
        }
        match full.next_in_step(&self.active.changes, due, written) {
            Some(piece) => self.checkpointer.begin(piece, None),
            None if full.is_passed() => self.begin_last(),
            None => Ok(()),
        }
    }

    /// Waits until sled has all of the full file.
    fn carry_the_rest(&mut self) -> Result<(), StorageError> {
        loop {
            if let Some(carried) = self.checkpointer.wait()? {
                self.take_note_of(&carried);
            }
            let Some(full) = &mut self.full else {
                return Ok(());
            };
            match full.next(&self.active.changes) {
                Some(piece) => self.checkpointer.begin(piece, None)?,
                None if full.is_passed() => self.begin_last()?,
                None => {}
            }
        }
    }

    /// Gives sled the root. From here on nothing is read from the full file, which is made ready for its next use.
    fn begin_last(&mut self) -> Result<(), StorageError> {
        let Some(full) = self.full.take() else {
            return Ok(());
        };
        let next_use = self.journal.next_use(self.journal_bytes);
        self.checkpointer.begin(full.root(), Some(next_use))
    }

    fn take_note_of(&mut self, carried: &Carried) {
        if let Some(bytes) = carried.file_bytes {
            self.journal.set_other_bytes(bytes);
        }
    }

    fn tell_wait_for_disk(&mut self, waited: Duration) {
        let is_due = |told: Instant| told.elapsed() >= TELL_OF_DISK_EVERY;
        if waited >= LONG_WAIT && self.told_of_disk.is_none_or(is_due) {
            self.told_of_disk = Some(Instant::now());
            let path = self.journal.active_path().display();
            tracing::info!(%path, ?waited, "a write waited for the disk");
        }
    }

    #[cfg(test)]
    pub(crate) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }
}

/// Tells of a wait of a write for sled, if clients feel it.
fn tell_wait(path: &Path, began: Instant) {
    let waited = began.elapsed();
    if waited >= LONG_WAIT {
        tracing::info!(path = %path.display(), ?waited, "a write waited for the database");
    }
}

impl Records for JournaledTree {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        match self.journaled(key)? {
            Some(value) => Ok(value),
            None => self.checkpointer.get(key),
        }
    }

    fn path(&self) -> &Path {
        self.checkpointer.path()
    }
}

//! sled with the journal in front of it: where a batch becomes durable, and where it goes from there.
//!
//! What the two journal files hold and sled may not hold yet is kept in memory, as one layer for each. So at
//! most twice the length of a file is kept, and what the containers cost: some 100 bytes a record.

use std::path::Path;
use std::sync::Arc;

use raft_core::{LogRead, LogReadReply};

use crate::changes::{Records, State};
use crate::checkpoint::Checkpointer;
use crate::directory::DataDir;
use crate::durability::DurableTree;
use crate::error::StorageError;
use crate::hard_state::Owner;
use crate::journal::{Journal, Opened};
use crate::overlay::{Batch, Overlay, View};
use crate::read_back::ReadBack;
use crate::restore::{self, Loaded};
use crate::sled_storage::Options;

/// Commits batches so that they survive a power loss.
#[derive(Debug)]
pub(crate) struct JournaledTree {
    journal: Journal,
    /// The changes in the file that is written.
    active: Overlay,
    /// The changes in the other file, while they may not all be in sled.
    full: Option<Arc<Overlay>>,
    checkpointer: Checkpointer,
    journal_bytes: u64,
}

impl JournaledTree {
    /// Reads and verifies sled with the journal over it, and begins to carry over what a full file holds.
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
        let active = Arc::new(active);
        let layers: Vec<Arc<Overlay>> = full.iter().chain([&active]).map(Arc::clone).collect();
        let view = View::new(&tree, &layers);
        let loaded = restore::load(&view, store)?;
        let largest_record = view.largest_visited();
        drop(layers);
        let checkpointer =
            Checkpointer::start(tree, largest_record, Arc::clone(dir), options.checkpoint_wait)?;
        let mut opened = Self {
            journal,
            active: Arc::unwrap_or_clone(active),
            full: None,
            checkpointer,
            journal_bytes: options.journal_bytes,
        };
        if let Some(full) = full {
            opened.begin_checkpoint(full)?;
        }
        Ok((opened, loaded))
    }

    /// Makes `batch` durable, or fails with nothing acknowledged. After a failure nothing must be written any
    /// more.
    pub(crate) fn commit(&mut self, batch: Batch) -> Result<(), StorageError> {
        if let Some(bytes) = self.checkpointer.poll()? {
            self.end_checkpoint(bytes);
        }
        if !self.journal.encode(&batch)? {
            self.rotate()?;
        }
        self.journal.append()?;
        self.active.absorb(batch);
        Ok(())
    }

    /// Carries everything into sled; the journal is empty then.
    pub(crate) fn checkpoint(&mut self) -> Result<(), StorageError> {
        if !self.journal.is_empty() {
            self.journal.forget_encoded();
            self.rotate()?;
        }
        self.await_checkpoint()
    }

    /// Reads entries of the log back; waits for nothing.
    pub(crate) fn read_log(&self, read: &LogRead, state: &State, reply: LogReadReply<StorageError>) {
        let prepared = ReadBack::prepare(read, state, |key| self.journaled(key).flatten());
        if prepared.needs_sled() {
            self.checkpointer.read_log(prepared, reply);
        } else {
            reply(prepared.entries(self.checkpointer.path(), |_| Ok(None)));
        }
    }

    /// What the journal says of `key`, see [`Overlay::get`].
    fn journaled(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let full = || self.full.as_ref().and_then(|full| full.get(key));
        self.active.get(key).or_else(full)
    }

    /// Reads and verifies everything again.
    pub(crate) fn load(&self, store: &Owner) -> Result<Loaded, StorageError> {
        let layers = self.full.iter().cloned();
        let layers = layers.chain([Arc::new(self.active.clone())]).collect();
        self.checkpointer.load(layers, store)
    }

    fn rotate(&mut self) -> Result<(), StorageError> {
        self.await_checkpoint()?;
        self.journal.rotate()?;
        let full = Arc::new(std::mem::take(&mut self.active));
        self.begin_checkpoint(full)
    }

    fn begin_checkpoint(&mut self, full: Arc<Overlay>) -> Result<(), StorageError> {
        self.full = Some(Arc::clone(&full));
        let file = self.journal.full_file(self.journal_bytes);
        self.checkpointer.begin(full, file)
    }

    fn await_checkpoint(&mut self) -> Result<(), StorageError> {
        if let Some(bytes) = self.checkpointer.wait()? {
            self.end_checkpoint(bytes);
        }
        Ok(())
    }

    fn end_checkpoint(&mut self, other_bytes: u64) {
        self.full = None;
        self.journal.set_other_bytes(other_bytes);
    }

    #[cfg(test)]
    pub(crate) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }
}

impl Records for JournaledTree {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        match self.journaled(key) {
            Some(value) => Ok(value.map(<[u8]>::to_vec)),
            None => self.checkpointer.get(key),
        }
    }

    fn path(&self) -> &Path {
        self.checkpointer.path()
    }
}

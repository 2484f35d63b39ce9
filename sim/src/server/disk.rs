//! The persister: everything that queued while the disk was busy becomes one write.
//!
//! A write has two steps. After the first the bytes are durable and nobody knows; after the second the node
//! is told. A crash may come before, between and after them.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};

use kv_server::driver::PersistJob;
use kv_server::group_commit::{Committed, GroupCommit};
use raft_core::{LogIndex, LogRead, Restored, Storage, Write};
use storage::{MemoryStorage, SnapshotStore, StorageError};

use super::{Output, Server};
use crate::invariants::Violation;
use crate::planted_bug::PlantedBug;

/// What the persister owns.
pub(super) struct Disk {
    storage: MemoryStorage,
    pub(super) snapshots: Arc<dyn SnapshotStore>,
    queue: Vec<PersistJob>,
    /// Entries that the node wants back.
    reads: VecDeque<LogRead>,
    is_busy: bool,
    written: Option<Committed>,
    /// What a restart would find: what the last start found, and what was written since. The storage itself
    /// cannot be asked without looking at the snapshot file, which a running node does not do either.
    pub(super) durable: Restored,
}

impl Disk {
    pub(super) fn new(storage: MemoryStorage, snapshots: Arc<dyn SnapshotStore>, durable: Restored) -> Self {
        Self {
            storage,
            snapshots,
            queue: Vec::new(),
            reads: VecDeque::new(),
            is_busy: false,
            written: None,
            durable,
        }
    }

    fn commit(&mut self, jobs: Vec<PersistJob>) -> Result<Option<Committed>, StorageError> {
        let mut group = GroupCommit::default();
        jobs.into_iter().for_each(|job| group.push(job));
        let mut all: Option<Committed> = None;
        while let Some(mut committed) = group.commit(&mut self.storage, self.snapshots.as_ref())? {
            if let Some(before) = all.take() {
                committed.received.splice(0..0, before.received);
            }
            all = Some(committed);
        }
        Ok(all)
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

    pub(super) fn queue_log_reads(&mut self, reads: Vec<LogRead>) {
        for read in reads {
            self.disk.reads.push_back(read);
            self.outputs.push(Output::LogReadBegun);
        }
    }

    /// The node gets the entries that it asked for first. Returns how many.
    ///
    /// # Errors
    ///
    /// When the node would have to stop.
    pub(crate) fn log_read(&mut self) -> Result<usize, Violation> {
        let Some(read) = self.disk.reads.pop_front() else {
            return Ok(0);
        };
        let (reply, answer) = mpsc::channel();
        // Memory answers at once, and the channel is open until it has.
        let reply = move |entries| reply.send(entries).unwrap_or_default();
        self.disk.storage.read(&read, Box::new(reply));
        let entries = answer.recv().unwrap_or_else(|_| Ok(Vec::new()));
        let entries = entries.map_err(|error| self.must_stop(&error.to_string()))?;
        let count = entries.len();
        self.driver.node_mut().log_was_read(&read, entries);
        self.flush();
        Ok(count)
    }

    /// What has queued becomes durable.
    ///
    /// # Errors
    ///
    /// When the storage refuses, which without an injected fault it never may.
    pub(crate) fn disk_writes(&mut self) -> Result<(), StorageError> {
        let jobs = std::mem::take(&mut self.disk.queue);
        let writes: Vec<Write> = jobs.iter().flat_map(|job| job.writes.clone()).collect();
        self.disk.written = self.disk.commit(jobs)?;
        writes
            .into_iter()
            .for_each(|write| note(&mut self.disk.durable, write));
        self.outputs.push(Output::DiskWritten);
        Ok(())
    }

    /// The node is about to crash: some of what has queued, from its beginning, becomes durable, and nobody
    /// learns of it. Returns how many batches that were, at least one if there is one; `chosen` decides.
    pub(crate) fn write_in_part(&mut self, chosen: usize) -> usize {
        let mut jobs = std::mem::take(&mut self.disk.queue);
        jobs.truncate(1 + chosen % jobs.len().max(1));
        let count = jobs.len();
        // The node goes down anyway, whatever the storage says.
        let written = self.disk.commit(jobs);
        if written.is_ok() { count } else { 0 }
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

/// What the disk holds after `write`.
fn note(durable: &mut Restored, write: Write) {
    match write {
        Write::HardState(hard_state) => durable.hard_state = hard_state,
        Write::Append(entries) => {
            if let Some(first) = entries.first() {
                durable.entries.truncate(position_of(first.index, durable));
            }
            durable.entries.extend(entries);
        }
        Write::InstallSnapshot {
            snapshot,
            keep_suffix,
        } => {
            if !keep_suffix {
                durable.entries.clear();
            }
            keep_from(snapshot.last_included_index.next(), durable);
            durable.snapshot = snapshot;
        }
        Write::Compact {
            snapshot,
            first_retained,
        } => {
            keep_from(first_retained, durable);
            durable.snapshot = snapshot;
        }
    }
}

fn keep_from(first: LogIndex, durable: &mut Restored) {
    durable.entries.drain(..position_of(first, durable));
}

/// How many entries there are before `index`.
fn position_of(index: LogIndex, durable: &Restored) -> usize {
    durable.entries.partition_point(|entry| entry.index < index)
}

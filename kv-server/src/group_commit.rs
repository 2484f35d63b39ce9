//! Group commit: everything that queued while the disk was busy goes down as one batch with one sync.

use raft_core::{ReadyNumber, SnapshotChunk, SnapshotMeta, Storage, Write};
use storage::{SnapshotStore, StagedVerdict, StorageError};

use crate::driver::PersistJob;

/// The jobs that wait for the disk, in order.
#[derive(Debug, Default)]
pub struct GroupCommit {
    queued: Vec<PersistJob>,
}

/// What one commit achieved.
#[derive(Debug, PartialEq, Eq)]
pub struct Committed {
    /// Everything up to this job is durable.
    pub number: ReadyNumber,
    /// Snapshots that arrived whole, and whether they are what their checksum says.
    pub received: Vec<(SnapshotMeta, bool)>,
}

impl GroupCommit {
    /// Adds a job behind the others.
    pub fn push(&mut self, job: PersistJob) {
        self.queued.push(job);
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Makes everything that waits durable. `None` if nothing waits.
    ///
    /// # Errors
    ///
    /// The first failure of the storage. What is on disk is then unknown: the node must stop, and never try
    /// again with this store.
    pub fn commit<S>(
        &mut self,
        storage: &mut S,
        snapshots: &dyn SnapshotStore,
    ) -> Result<Option<Committed>, StorageError>
    where
        S: Storage<Error = StorageError>,
    {
        let jobs = std::mem::take(&mut self.queued);
        let Some(number) = jobs.last().map(|job| job.number) else {
            return Ok(None);
        };
        let mut received = Vec::new();
        let mut writes = Vec::new();
        for job in jobs {
            for chunk in job.chunks {
                let staged = stage(snapshots, &chunk)?;
                if chunk.done {
                    received.push((chunk.snapshot, staged));
                }
            }
            job.writes.into_iter().for_each(|write| merge(&mut writes, write));
        }
        if !writes.is_empty() {
            storage.write(&writes)?;
        }
        Ok(Some(Committed { number, received }))
    }
}

/// Puts a chunk aside. For the last one, whether the whole file is what its checksum says. A chunk that does
/// not fit comes from a sender in error: the file will not be intact, and the disk is not to blame.
fn stage(snapshots: &dyn SnapshotStore, chunk: &SnapshotChunk) -> Result<bool, StorageError> {
    let staged = snapshots
        .stage(&chunk.snapshot, chunk.offset, &chunk.data)
        .and_then(|()| Ok(chunk.done && snapshots.finish_staged(&chunk.snapshot)? == StagedVerdict::Good));
    match staged {
        Err(StorageError::ChunkRefused { offset, what }) => {
            tracing::warn!("refuses the snapshot chunk at offset {offset}: {what}");
            Ok(false)
        }
        staged => staged,
    }
}

/// Adds a write behind the others: entries that go on where the last ones ended become one append.
fn merge(writes: &mut Vec<Write>, write: Write) {
    match (writes.last_mut(), write) {
        (Some(Write::Append(before)), Write::Append(entries)) if goes_on(before, &entries) => {
            before.extend(entries);
        }
        (_, write) => writes.push(write),
    }
}

fn goes_on(before: &[raft_core::Entry], entries: &[raft_core::Entry]) -> bool {
    match (before.last(), entries.first()) {
        (Some(last), Some(first)) => last.index.next() == first.index,
        _ => false,
    }
}

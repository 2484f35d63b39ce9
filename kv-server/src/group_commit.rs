//! Group commit: everything that queued while the disk was busy goes down as one batch with one sync.

use std::collections::VecDeque;

use raft_core::{Entry, ReadyNumber, SnapshotChunk, SnapshotMeta, Storage, Write};
use storage::{SnapshotStore, StagedVerdict, StorageError};

use crate::driver::PersistJob;

/// Jobs are committed together up to so many bytes. One sync for more would save nothing, and all would wait for all
/// of them.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// The jobs that wait for the disk, in order.
#[derive(Debug, Default)]
pub struct GroupCommit {
    queued: VecDeque<PersistJob>,
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
        self.queued.push_back(job);
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Makes what waits durable, together: all of it, or the first few MiB. `None` if nothing waits.
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
        let jobs = self.take_group();
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

    fn take_group(&mut self) -> Vec<PersistJob> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while bytes < MAX_GROUP_BYTES
            && let Some(job) = self.queued.pop_front()
        {
            bytes += bytes_of(&job);
            group.push(job);
        }
        group
    }
}

/// What a job writes, about.
fn bytes_of(job: &PersistJob) -> usize {
    let chunks = job.chunks.iter().map(|chunk| chunk.data.len());
    let entries = job.writes.iter().filter_map(|write| match write {
        Write::Append(entries) => Some(entries),
        _ => None,
    });
    chunks.sum::<usize>() + entries.flatten().map(Entry::size_bytes).sum::<usize>()
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

#[cfg(test)]
mod tests {
    use raft_core::{
        Configuration, Entry, LogIndex, NodeId, Payload, ReadyNumber, Storage as _, Term, Write,
    };
    use storage::{Identity, MemoryDisk, MemoryStorage};

    use super::GroupCommit;
    use crate::driver::PersistJob;

    fn job(number: u64, command_bytes: usize) -> PersistJob {
        let entry = Entry {
            term: Term(1),
            index: LogIndex(number),
            payload: Payload::Command(vec![b'c'; command_bytes].into()),
        };
        PersistJob {
            number: ReadyNumber(number),
            chunks: Vec::new(),
            writes: vec![Write::Append(vec![entry])],
        }
    }

    /// How many groups it takes to commit ten jobs, and the last job of each.
    fn groups_of(command_bytes: usize) -> Vec<u64> {
        let identity = Identity {
            cluster_id: "test".to_owned(),
            node_id: NodeId(1),
        };
        let voters = Configuration::of_voters([NodeId(1)]);
        let mut storage = MemoryStorage::open(&MemoryDisk::new(), &identity, &voters).unwrap();
        storage.restore().unwrap();
        let snapshots = storage.snapshots();
        let mut queue = GroupCommit::default();
        (1..=10).for_each(|number| queue.push(job(number, command_bytes)));
        let mut groups = Vec::new();
        while let Some(committed) = queue.commit(&mut storage, snapshots.as_ref()).unwrap() {
            groups.push(committed.number.0);
        }
        assert!(queue.is_empty());
        groups
    }

    #[test]
    fn what_waits_is_committed_together_but_for_what_is_large() {
        assert_eq!(groups_of(100), [10]);
        assert_eq!(groups_of(1 << 20), [4, 8, 10]);
        assert_eq!(groups_of(5 << 20), (1..=10).collect::<Vec<_>>());
    }
}

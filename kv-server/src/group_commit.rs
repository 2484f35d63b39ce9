//! Group commit: everything that queued while the disk was busy goes down as one batch with one sync.

use std::collections::VecDeque;

use raft_core::{Entry, ReadyNumber, SnapshotChunk, SnapshotMeta, Storage, Write};
use storage::{SnapshotStore, StagedVerdict, StorageError};

use crate::driver::PersistJob;

/// Jobs are committed together up to so many bytes. One sync for more would save nothing, and all would wait for all
/// of them.
const MAX_GROUP_BYTES: usize = 2 << 20;

/// The jobs that wait for the disk, in order.
#[derive(Debug, Default)]
pub struct GroupCommit {
    queued: VecDeque<PersistJob>,
    /// It was told that files of own snapshots are removed before they are recorded, and none was recorded since.
    told_lost_cut: bool,
    /// It was told that a received snapshot finds no room, or was removed, and none was put aside whole since.
    told_put_off: bool,
}

/// What one commit achieved.
#[derive(Debug, PartialEq, Eq)]
pub struct Committed {
    /// Everything up to this job is durable.
    pub number: ReadyNumber,
    /// Snapshots that arrived whole, and whether they are what their checksum says; not so, too, one of which a piece
    /// found no room, or whose file something else removed.
    pub received: Vec<(SnapshotMeta, bool)>,
    /// A piece of a snapshot found no room on the disk, or in a quota: nothing of it is there any more.
    pub lacked_room: bool,
    /// Snapshots of this node's own whose file something else removed before they were on record: the log stays, and
    /// another snapshot is to be cut.
    pub lost_cuts: Vec<SnapshotMeta>,
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
        let mut committed = Committed {
            number,
            received: Vec::new(),
            lacked_room: false,
            lost_cuts: Vec::new(),
        };
        let mut writes = Vec::new();
        for job in jobs {
            for chunk in job.chunks {
                self.stage(snapshots, chunk, &mut committed)?;
            }
            job.writes.into_iter().for_each(|write| merge(&mut writes, write));
        }
        writes.retain(|write| self.may_write(write, snapshots, &mut committed));
        if !writes.is_empty() {
            storage.write(&writes)?;
        }
        Ok(Some(committed))
    }

    /// Puts a chunk aside. After the last one it is known whether the whole file is what its checksum says. A chunk
    /// that does not fit comes from a sender in error: the file will not be intact, and the disk is not to blame.
    /// Without room, or when something else removed the file, the snapshot is as good as not sent, and nothing that was
    /// promised depends on it.
    fn stage(
        &mut self,
        snapshots: &dyn SnapshotStore,
        chunk: SnapshotChunk,
        committed: &mut Committed,
    ) -> Result<(), StorageError> {
        let index = chunk.snapshot.last_included_index;
        let staged = snapshots
            .stage(&chunk.snapshot, chunk.offset, &chunk.data)
            .and_then(
                |()| Ok(chunk.done && snapshots.finish_staged(&chunk.snapshot)? == StagedVerdict::Good),
            );
        let mut is_settled = chunk.done;
        let intact = match staged {
            Err(StorageError::ChunkRefused { offset, what }) => {
                tracing::warn!("refuses the snapshot chunk at offset {offset}: {what}");
                false
            }
            Err(error) if error.is_for_want_of_room() || error.is_for_want_of_the_file() => {
                if !std::mem::replace(&mut self.told_put_off, true) {
                    tracing::warn!(
                        "the snapshot at {index} that the leader sends is put off, and this node cannot catch up \
                         without it: {error}. It goes on by itself"
                    );
                }
                committed.lacked_room |= error.is_for_want_of_room();
                is_settled = true;
                false
            }
            staged => staged?,
        };
        self.told_put_off &= !intact;
        if is_settled {
            committed.received.push((chunk.snapshot, intact));
        }
        Ok(())
    }

    /// Whether nothing has to be left out: a snapshot of this node's own needs its file, or its record would be the
    /// end of the store. Without both the log is whole.
    fn may_write(&mut self, write: &Write, snapshots: &dyn SnapshotStore, committed: &mut Committed) -> bool {
        let Write::Compact { snapshot, .. } = write else {
            return true;
        };
        let Err(StorageError::SnapshotLost { path }) = snapshots.open(snapshot) else {
            // If it cannot be opened for another reason, the storage tells.
            self.told_lost_cut = false;
            return true;
        };
        if !std::mem::replace(&mut self.told_lost_cut, true) {
            tracing::warn!(
                "the snapshot file {} was removed before it was on record: the log is kept, and another snapshot is cut",
                path.display()
            );
        }
        committed.lost_cuts.push(snapshot.clone());
        false
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
    use std::path::Path;
    use std::sync::Arc;
    use std::{fs, io};

    use raft_core::{
        Configuration, Entry, LogIndex, NodeId, Payload, ReadyNumber, SnapshotChunk, SnapshotMeta,
        Storage as _, Term, Write,
    };
    use storage::{Identity, MemoryDisk, MemoryStorage, Options, SledStorage, SnapshotStore, snapshot_path};

    use super::{Committed, GroupCommit};
    use crate::driver::PersistJob;
    use crate::full_disk::FullDisk;

    fn identity() -> Identity {
        Identity {
            cluster_id: "test".to_owned(),
            node_id: NodeId(1),
        }
    }

    fn voters() -> Configuration {
        Configuration::of_voters([NodeId(1)])
    }

    fn in_memory() -> (MemoryStorage, Arc<dyn SnapshotStore>) {
        let mut storage = MemoryStorage::open(&MemoryDisk::new(), &identity(), &voters()).unwrap();
        storage.restore().unwrap();
        let snapshots = storage.snapshots();
        (storage, snapshots)
    }

    fn job(number: u64, command_bytes: usize) -> PersistJob {
        let entry = Entry {
            term: Term(1),
            index: LogIndex(number),
            payload: Payload::Command(vec![b'c'; command_bytes].into()),
        };
        write_job(number, Write::Append(vec![entry]))
    }

    fn write_job(number: u64, write: Write) -> PersistJob {
        PersistJob {
            number: ReadyNumber(number),
            chunks: Vec::new(),
            writes: vec![write],
        }
    }

    /// How many groups it takes to commit ten jobs, and the last job of each.
    fn groups_of(command_bytes: usize) -> Vec<u64> {
        let (mut storage, snapshots) = in_memory();
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
        assert_eq!(groups_of(1 << 20), [2, 4, 6, 8, 10]);
        assert_eq!(groups_of(5 << 20), (1..=10).collect::<Vec<_>>());
    }

    fn open(dir: &Path) -> SledStorage {
        SledStorage::open(dir, &identity(), &voters(), &Options::default()).unwrap()
    }

    fn cut(snapshots: &dyn SnapshotStore, index: u64) -> SnapshotMeta {
        let mut file = snapshots.create(LogIndex(index), Term(1), &voters()).unwrap();
        io::Write::write_all(&mut file, b"state").unwrap();
        file.finish().unwrap()
    }

    fn compact(number: u64, snapshot: &SnapshotMeta) -> PersistJob {
        let write = Write::Compact {
            snapshot: snapshot.clone(),
            first_retained: snapshot.last_included_index.next(),
        };
        write_job(number, write)
    }

    #[test]
    fn an_own_snapshot_whose_file_was_removed_is_left_out_and_the_log_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut storage = open(dir.path());
        let snapshots = storage.snapshots();
        let mut queue = GroupCommit::default();
        let mut commit = |jobs: Vec<PersistJob>| {
            jobs.into_iter().for_each(|job| queue.push(job));
            queue.commit(&mut storage, snapshots.as_ref()).unwrap().unwrap()
        };
        commit((1..=3).map(|number| job(number, 9)).collect());
        let lost = cut(snapshots.as_ref(), 3);
        fs::remove_file(snapshot_path(dir.path(), &lost)).unwrap();
        assert_eq!(
            commit(vec![compact(4, &lost), job(4, 9)]).lost_cuts,
            std::slice::from_ref(&lost)
        );
        drop(storage);
        let restored = open(dir.path()).restore().unwrap();
        assert_eq!((restored.entries.len(), restored.snapshot.size_bytes), (4, 0));

        // Its file is there again.
        let mut storage = open(dir.path());
        let snapshots = storage.snapshots();
        assert!(cut(snapshots.as_ref(), 3).is_of_same_file(&lost));
        queue.push(compact(5, &lost));
        let committed = queue.commit(&mut storage, snapshots.as_ref()).unwrap().unwrap();
        assert_eq!(committed.lost_cuts, []);
        drop(storage);
        let restored = open(dir.path()).restore().unwrap();
        assert_eq!((restored.entries.len(), restored.snapshot), (1, lost));
    }

    #[test]
    fn a_received_snapshot_without_room_or_whose_file_was_removed_is_put_off_and_taken_when_it_comes_again() {
        let (mut storage, sender) = in_memory();
        let snapshot = cut(sender.as_ref(), 3);
        let file = sender.open(&snapshot).unwrap().read_chunk(0, usize::MAX).unwrap();
        let mut queue = GroupCommit::default();
        let mut receive = |kind, failures, is_all: bool| {
            let disk = FullDisk::new(failures, kind);
            let mut chunk = SnapshotChunk {
                snapshot: snapshot.clone(),
                offset: 0,
                data: file.clone(),
                done: is_all,
            };
            if !is_all {
                chunk.data.truncate(9);
            }
            queue.push(PersistJob {
                number: ReadyNumber(1),
                chunks: vec![chunk],
                writes: Vec::new(),
            });
            queue.commit(&mut storage, &disk)
        };
        use io::ErrorKind::{NotFound, QuotaExceeded, StorageFull};
        for (kind, is_full) in [(StorageFull, true), (QuotaExceeded, true), (NotFound, false)] {
            for is_all in [true, false] {
                let Committed {
                    received,
                    lacked_room,
                    ..
                } = receive(kind, 1, is_all).unwrap().unwrap();
                assert_eq!(
                    (received, lacked_room),
                    (vec![(snapshot.clone(), false)], is_full)
                );
            }
        }
        let taken = receive(io::ErrorKind::StorageFull, 0, true).unwrap().unwrap();
        assert_eq!(
            (taken.received, taken.lacked_room),
            (vec![(snapshot.clone(), true)], false)
        );
        receive(io::ErrorKind::Other, 1, true).expect_err("the disk is failing");
    }
}

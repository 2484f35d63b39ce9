//! How long a durable append takes: `cargo bench -p storage`.
//!
//! Each iteration appends one batch of entries of 200 bytes and waits until it is on the disk. The directory
//! is on the file system of the system's temporary directory; set `TMPDIR` to measure another one. Numbers
//! from a tmpfs mean nothing.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::ops::Range;
use std::path::Path;

use divan::Bencher;
use divan::counter::ItemsCount;
use raft_core::{Configuration, Entry, LogIndex, NodeId, Payload, Storage as _, Term, Write};
use storage::{Identity, Options, SledStorage};

const ENTRY_BYTES: usize = 200;

fn main() {
    divan::main();
}

/// A write of the store: one record of the journal and one sync.
#[divan::bench(args = [1, 16, 100, 256], sample_count = 200, sample_size = 5)]
fn append_with_sync(bencher: Bencher<'_, '_>, entries: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory can be created");
    let mut store = open(dir.path());
    let mut next = 1;
    bencher.counter(ItemsCount::new(entries)).bench_local(|| {
        let indexes = next..next + entries;
        next += entries;
        store.write(&[append(indexes)]).expect("the disk takes an append");
    });
}

/// What any durable write takes at least: as many bytes into a file whose space is reserved, and one sync.
#[divan::bench(args = [1, 16, 100, 256], sample_count = 200, sample_size = 5)]
fn bare_fdatasync(bencher: Bencher<'_, '_>, entries: usize) {
    let mut file = tempfile::tempfile().expect("a temporary file can be created");
    let bytes = vec![7; (entries * ENTRY_BYTES).next_multiple_of(512)];
    file.write_all(&vec![0; 64 * 1024 * 1024])
        .and_then(|()| file.sync_all())
        .and_then(|()| file.rewind())
        .expect("the disk takes 64 MiB");
    bencher.counter(ItemsCount::new(entries)).bench_local(|| {
        file.write_all(&bytes)
            .and_then(|()| file.sync_data())
            .expect("the disk takes an append");
    });
}

/// The same without a journal: one batch of sled, flushed, and one sync of its file.
#[divan::bench(args = [1, 16, 100, 256], sample_count = 200, sample_size = 5)]
fn sled_batch_with_sync(bencher: Bencher<'_, '_>, entries: usize) {
    let dir = tempfile::tempdir().expect("a temporary directory can be created");
    let config = sled::Config::new()
        .path(dir.path())
        .segment_size(8 * 1024 * 1024)
        .flush_every_ms(None);
    let database = config.open().expect("an empty directory can be opened");
    let file = File::open(dir.path().join("db")).expect("sled has its file there");
    let record = vec![7; (entries * ENTRY_BYTES).min(32 * 1024)];
    let mut next = 0_u64;
    bencher.counter(ItemsCount::new(entries)).bench_local(|| {
        let mut batch = sled::Batch::default();
        for _ in 0..(entries * ENTRY_BYTES).div_ceil(record.len()) {
            next += 1;
            batch.insert(&next.to_be_bytes(), record.as_slice());
        }
        batch.insert(b"root", &next.to_be_bytes());
        database.apply_batch(batch).expect("sled takes a batch");
        database.flush().expect("sled flushes");
        file.sync_data().expect("the disk takes a sync");
    });
}

/// A snapshot lets go of a log of this many records; the time is that of the one write that removes them.
#[divan::bench(args = [1_000, 20_000], sample_count = 3, sample_size = 1)]
fn compact_with_sync(bencher: Bencher<'_, '_>, records: u64) {
    bencher
        .with_inputs(|| {
            let dir = tempfile::tempdir().expect("a temporary directory can be created");
            let mut store = open(dir.path());
            for first in (1..=records).step_by(1000) {
                let appends: Vec<Write> = (first..first + 1000)
                    .map(|index| append(index..index + 1))
                    .collect();
                store.write(&appends).expect("the disk takes an append");
            }
            let writer = store
                .snapshots()
                .create(LogIndex(records), Term(1), &Configuration::default());
            let snapshot = writer
                .and_then(|writer| writer.finish())
                .expect("the disk takes a snapshot");
            (
                dir,
                store,
                Write::Compact {
                    snapshot,
                    first_retained: LogIndex(records + 1),
                },
            )
        })
        .bench_local_values(|(dir, mut store, compact)| {
            store.write(&[compact]).expect("the disk takes a compaction");
            (store, dir)
        });
}

fn open(dir: &Path) -> SledStorage {
    let identity = Identity {
        cluster_id: "bench".to_owned(),
        node_id: NodeId(1),
    };
    let initial = Configuration::of_voters([NodeId(1)]);
    SledStorage::open(dir, &identity, &initial, &Options::default())
        .expect("an empty directory can be opened")
}

fn append(indexes: Range<u64>) -> Write {
    let payload = Payload::Command(vec![7; ENTRY_BYTES].into());
    let entry = |index| Entry {
        term: Term(1),
        index: LogIndex(index),
        payload: payload.clone(),
    };
    Write::Append(indexes.map(entry).collect())
}

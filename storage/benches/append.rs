//! How long a durable append takes: `cargo bench -p storage`.
//!
//! Each iteration appends one batch of entries of 200 bytes and waits until it is on the disk. The directory
//! is on the file system of the system's temporary directory; set `TMPDIR` to measure another one. Numbers
//! from a tmpfs mean nothing.

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

#[divan::bench(args = [1, 16, 256], sample_count = 200, sample_size = 5)]
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

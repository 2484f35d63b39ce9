//! How long a durable append takes: `cargo bench -p storage`.
//!
//! Each iteration appends one batch of entries of 200 bytes and waits until it is on the disk. The directory is on the
//! file system of the system's temporary directory; set `TMPDIR` to measure another one. Numbers from a
//! tmpfs mean nothing.

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
    let identity = Identity {
        cluster_id: "bench".to_owned(),
        node_id: NodeId(1),
    };
    let initial = Configuration::of_voters([NodeId(1)]);
    let mut store = SledStorage::open(dir.path(), &identity, &initial, &Options::default())
        .expect("an empty directory can be opened");
    let payload = Payload::Command(vec![7; ENTRY_BYTES].into());
    let mut next = 1;
    bencher.counter(ItemsCount::new(entries)).bench_local(|| {
        let indexes = next..next + entries;
        next += entries;
        let batch = indexes.map(|index| Entry {
            term: Term(1),
            index: LogIndex(index),
            payload: payload.clone(),
        });
        store
            .write(&[Write::Append(batch.collect())])
            .expect("the disk takes an append");
    });
}

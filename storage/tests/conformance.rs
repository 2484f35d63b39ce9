//! Both implementations pass the one suite.

use crate::common::{InMemory, OnDisk};
use raft_core::{LogIndex, Storage as _, Write};
use storage::conformance::{self, Device, command, cut_snapshot, initial_configuration};

#[test]
fn the_store_on_disk_conforms() {
    conformance::run(OnDisk::new);
}

#[test]
fn the_store_on_disk_conforms_when_its_journal_is_always_full() {
    conformance::run(OnDisk::with_small_journal);
}

#[test]
fn the_store_in_memory_conforms() {
    conformance::run(InMemory::default);
}

/// The check is in [`OnDisk`]: sled must not have made a blob file, which it would never sync.
#[test]
fn a_log_of_the_largest_records_makes_no_blob_files() {
    let mut device = OnDisk::new();
    let mut store = device.open(&initial_configuration()).expect("a fresh directory");
    let mut write = |writes: &[Write]| store.write(writes).expect("a valid write");
    let batch = |first: u64| {
        Write::Append(
            (first..first + 8)
                .map(|index| command(1, index, 32_500))
                .collect(),
        )
    };
    for first in (1..200).step_by(8) {
        write(&[batch(first)]);
        write(&[batch(first + 4)]);
        write(&[Write::Append(vec![command(1, first + 6, 700_000)])]);
        write(&[batch(first + 3)]);
    }
    let snapshot = cut_snapshot(&*store.snapshots(), 150, 1, b"state").expect("a snapshot");
    store.checkpoint().expect("sled takes the journal");
    store
        .write(&[Write::Compact {
            snapshot,
            first_retained: LogIndex(140),
        }])
        .expect("a valid compaction");
    store.checkpoint().expect("sled takes the journal");
}

//! The memory that a store takes is bounded by its settings, and not by the length of the log.

use std::alloc::System;
use std::time::{Duration, Instant};

use cap::Cap;
use raft_core::{Configuration, Entry, LogIndex, NodeId, Payload, Storage as _, Term, Write};
use storage::{Identity, Options, SledStorage};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const MIB: usize = 1024 * 1024;
const LOG_BYTES: usize = 64 * MIB;
const ENTRY_BYTES: usize = 8 * 1024;
const ENTRIES_A_WRITE: u64 = 64;

/// The cache, what may come on top of it, and buffers of sled; about half of it is used.
const BOUND_BYTES: usize = 40 * MIB;

const DEADLINE: Duration = Duration::from_secs(60);

fn write_from(first: u64) -> Write {
    let entry = |index| Entry {
        term: Term(1),
        index: LogIndex(index),
        payload: Payload::Command(vec![7; ENTRY_BYTES].into()),
    };
    Write::Append((first..first + ENTRIES_A_WRITE).map(entry).collect())
}

/// There is one test in this program: another would allocate beside it.
#[test]
fn a_long_log_does_not_stay_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity {
        cluster_id: "memory".to_owned(),
        node_id: NodeId(1),
    };
    let initial = Configuration::of_voters([NodeId(1)]);
    let mut options = Options::default();
    options.cache_bytes = 4 * MIB as u64;
    options.journal_bytes = 2 * MIB as u64;
    let mut store = SledStorage::open(dir.path(), &identity, &initial, &options).unwrap();
    let before = ALLOCATOR.allocated();
    let entries = u64::try_from(LOG_BYTES / ENTRY_BYTES).unwrap();
    for written in (0..entries).step_by(usize::try_from(ENTRIES_A_WRITE).unwrap()) {
        store.write(&[write_from(written + 1)]).unwrap();
    }
    store.checkpoint().unwrap();
    // The cache is brought back within its bound behind the checkpoint, and sled frees pages a little later.
    let begun = Instant::now();
    let taken = || ALLOCATOR.allocated().saturating_sub(before);
    while taken() > BOUND_BYTES {
        assert!(
            begun.elapsed() < DEADLINE,
            "a log of {} MiB takes {} MiB of memory",
            LOG_BYTES / MIB,
            taken() / MIB
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    println!(
        "{} MiB of memory for {} MiB of log",
        taken() / MIB,
        LOG_BYTES / MIB
    );
}

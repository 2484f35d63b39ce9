//! The journal in front of sled, from outside: nothing is lost wherever it stops, and little reaches sled.

use std::fs;
use std::path::Path;

use crate::common::{copy_dir, open_small, tamper};
use raft_core::{HardState, LogIndex, NodeId, Storage as _, Term, Write};
use storage::SledStorage;
use storage::conformance::{Model, command, cut_snapshot, initial_configuration};

fn append(first: u64, last: u64, length: usize) -> Write {
    Write::Append((first..=last).map(|index| command(1, index, length)).collect())
}

fn vote(term: u64) -> Write {
    Write::HardState(HardState {
        current_term: Term(term),
        voted_for: Some(NodeId(1)),
        ..HardState::default()
    })
}

fn compact(store: &SledStorage, index: u64) -> Write {
    Write::Compact {
        snapshot: cut_snapshot(&*store.snapshots(), index, 1, b"state").unwrap(),
        first_retained: LogIndex(index - 1),
    }
}

/// The next of a long series of writes: appends that go on and that overwrite, votes, compactions.
fn next_write(store: &SledStorage, model: &Model, step: u64) -> Write {
    let last = model.last_index().get();
    match step % 10 {
        3 => vote(step),
        5 if last > 40 => append(last - 3, last + 2, 300),
        7 if last > 40 => compact(store, last - 20),
        _ => append(
            last + 1,
            last + 1 + step % 7,
            usize::try_from(step * 37 % 3000).unwrap(),
        ),
    }
}

/// The keys in sled.
fn keys(dir: &Path) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    tamper(dir, |database| {
        keys.extend(database.iter().keys().map(|key| key.unwrap().to_vec()));
    });
    keys
}

/// A kill leaves the files as they are at that moment, which a copy of them has too.
#[test]
fn a_kill_or_a_restart_between_any_two_writes_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    let mut model = Model::new(&initial_configuration());
    let mut rotations = 0;
    let header = || fs::read(dir.path().join("journal/0")).unwrap()[..4096].to_vec();
    for step in 0..90 {
        let write = next_write(&store, &model, step);
        let before = header();
        store.write(std::slice::from_ref(&write)).unwrap();
        model.apply_all(&[write]);
        rotations += usize::from(before != header());
        if step % 3 == 0 {
            // This waits for the checkpoint, so that the copy is of files at rest.
            assert_eq!(store.restore().unwrap(), model.restored(), "step {step}");
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let restored = open_small(copy.path()).unwrap().restore().unwrap();
            assert_eq!(restored, model.restored(), "step {step}");
        } else if step % 3 == 1 {
            drop(store);
            store = open_small(dir.path()).unwrap();
            assert_eq!(store.restore().unwrap(), model.restored(), "step {step}");
        }
    }
    assert!(rotations > 1, "{rotations} rotations");
}

/// Records are removed while the file that has them is carried into sled, also some whose place another record takes.
#[test]
fn a_log_that_is_forgotten_while_it_is_carried_is_whole_after_every_restart_and_every_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    let mut model = Model::new(&initial_configuration());
    for step in 1..=150 {
        let last = model.last_index().get();
        let write = match step % 9 {
            3 | 8 if last > 8 => compact(&store, last - step % 6),
            5 if last > 2 => append(last - 1, last + step % 3, 2_000),
            _ => append(last + 1, last + 1 + step % 3, 3_000),
        };
        store.write(std::slice::from_ref(&write)).unwrap();
        model.apply_all(&[write]);
        if step % 4 == 0 {
            drop(store);
            store = open_small(dir.path()).unwrap();
        }
        if step % 7 == 0 {
            // This waits for the piece that is being carried.
            assert_eq!(store.restore().unwrap(), model.restored(), "step {step}");
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let mut store = open_small(copy.path()).unwrap();
            assert_eq!(store.restore().unwrap(), model.restored(), "step {step}");
            store.checkpoint().unwrap();
            assert_eq!(store.restore().unwrap(), model.restored(), "step {step}");
        }
    }
}

#[test]
fn records_that_were_removed_in_the_same_journal_file_never_reach_sled() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    for index in 1..=50 {
        store.write(&[append(index, index, 100)]).unwrap();
    }
    let write = compact(&store, 50);
    store.write(&[write]).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    // The small records, and the log from 49 on, with a spacer behind each of its records.
    assert_eq!(keys(dir.path()).len(), 4 + 2 * 2);
    let mut store = open_small(dir.path()).unwrap();
    assert_eq!(
        store.restore().unwrap().entries,
        [command(1, 49, 100), command(1, 50, 100)]
    );
    let write = compact(&store, 50);
    store.write(&[append(51, 51, 100), write]).unwrap();
}

#[test]
fn records_of_an_older_file_are_removed_from_sled_when_a_later_file_forgets_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    for index in 1..=50 {
        store.write(&[append(index, index, 100)]).unwrap();
        if index % 20 == 0 {
            store.checkpoint().unwrap();
        }
    }
    // Overwritten after they were forgotten and removed, and removed again.
    store.write(&[append(30, 31, 10)]).unwrap();
    store.write(&[append(30, 60, 10)]).unwrap();
    let write = compact(&store, 60);
    store.write(&[write]).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    // The small records, and the last of the log with the spacer behind it.
    assert_eq!(keys(dir.path()).len(), 4 + 2);
    assert_eq!(
        open_small(dir.path()).unwrap().restore().unwrap().entries.len(),
        2
    );
}

#[test]
fn a_store_that_fills_its_journal_again_and_again_stays_small_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    let mut model = Model::new(&initial_configuration());
    for step in 0..400 {
        let write = next_write(&store, &model, step);
        store.write(std::slice::from_ref(&write)).unwrap();
        model.apply_all(&[write]);
    }
    assert_eq!(store.restore().unwrap(), model.restored());
    drop(store);
    for file in ["journal/0", "journal/1"] {
        assert_eq!(
            fs::metadata(dir.path().join(file)).unwrap().len(),
            64 * 1024,
            "{file}"
        );
    }
    assert_eq!(
        open_small(dir.path()).unwrap().restore().unwrap(),
        model.restored()
    );
}

//! A power loss in the middle of a write leaves the state before or the state after it, never one between.

use std::fs;
use std::path::Path;

use crate::common::{copy_dir, open};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use raft_core::{HardState, LogIndex, NodeId, Restored, Storage as _, Term, Write};
use storage::SledStorage;
use storage::conformance::{command, cut_snapshot};

const SECTOR_BYTES: usize = 512;

fn append(term: u64, first: u64, last: u64, length: usize) -> Write {
    Write::Append((first..=last).map(|index| command(term, index, length)).collect())
}

/// A store, and one more write to it.
struct Case {
    name: &'static str,
    next: fn(&mut SledStorage) -> Vec<Write>,
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "append",
            next: |_| vec![append(2, 61, 64, 100)],
        },
        Case {
            name: "vote and append",
            next: |_| {
                let vote = HardState {
                    current_term: Term(9),
                    voted_for: Some(NodeId(3)),
                    ..HardState::default()
                };
                vec![Write::HardState(vote), append(9, 61, 61, 10)]
            },
        },
        Case {
            name: "large append",
            next: |_| vec![append(2, 61, 62, 200_000)],
        },
        Case {
            name: "truncation inside a record",
            next: |_| vec![append(2, 34, 36, 100)],
        },
        Case {
            name: "compaction",
            next: |store| {
                let snapshot = cut_snapshot(&*store.snapshots(), 40, 1, b"state").unwrap();
                vec![Write::Compact {
                    snapshot,
                    first_retained: LogIndex(33),
                }]
            },
        },
        Case {
            name: "snapshot install",
            next: |store| {
                let snapshot = cut_snapshot(&*store.snapshots(), 100, 2, b"state").unwrap();
                vec![
                    Write::InstallSnapshot {
                        snapshot,
                        keep_suffix: false,
                    },
                    append(2, 101, 103, 100),
                ]
            },
        },
    ]
}

fn prepare(dir: &Path) -> SledStorage {
    let mut store = open(dir).unwrap();
    let vote = HardState {
        current_term: Term(1),
        voted_for: Some(NodeId(1)),
        ..HardState::default()
    };
    store.write(&[Write::HardState(vote)]).unwrap();
    for first in (1..=60).step_by(5) {
        store.write(&[append(1, first, first + 4, 100)]).unwrap();
        if first == 31 {
            let snapshot = cut_snapshot(&*store.snapshots(), 12, 1, b"older state").unwrap();
            store
                .write(&[Write::Compact {
                    snapshot,
                    first_retained: LogIndex(10),
                }])
                .unwrap();
        }
    }
    store
}

/// The sectors in which the two files differ.
fn changed_sectors(before: &[u8], after: &[u8]) -> Vec<usize> {
    assert!(before.len() <= after.len(), "a write does not shorten the file");
    let sector = |bytes: &[u8], number: usize| {
        let start = (number * SECTOR_BYTES).min(bytes.len());
        bytes[start..bytes.len().min(start + SECTOR_BYTES)].to_vec()
    };
    (0..after.len().div_ceil(SECTOR_BYTES))
        .filter(|number| {
            let mut old = sector(before, *number);
            let new = sector(after, *number);
            old.resize(new.len(), 0);
            old != new
        })
        .collect()
}

/// What the disk holds when only these sectors of the write have reached it.
fn torn(before: &[u8], after: &[u8], reached: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let mut bytes = before.to_vec();
    bytes.resize(after.len(), 0);
    for number in reached {
        let range = number * SECTOR_BYTES..after.len().min((number + 1) * SECTOR_BYTES);
        bytes[range.clone()].copy_from_slice(&after[range]);
    }
    bytes
}

fn reopen(dir: &Path, name: &str) -> Restored {
    match open(dir).and_then(|mut store| store.restore()) {
        Ok(restored) => restored,
        Err(error) => panic!("{name}: does not reopen: {error}"),
    }
}

/// Which parts of a write reach the disk: every prefix (at most 16 of them), every one alone left out (at
/// most 30), and some subsets at random.
fn subsets(sectors: &[usize], rng: &mut TestRng) -> Vec<Vec<usize>> {
    use proptest::prelude::Rng as _;
    let step = sectors.len().div_ceil(16).max(1);
    let prefixes = (0..sectors.len())
        .step_by(step)
        .chain([sectors.len()])
        .map(|end| sectors[..end].to_vec());
    let all_but_one = (0..sectors.len()).step_by(step).map(|absent| {
        sectors
            .iter()
            .enumerate()
            .filter(|(position, _)| *position != absent)
            .map(|(_, sector)| *sector)
            .collect()
    });
    let mut all: Vec<Vec<usize>> = prefixes.chain(all_but_one).collect();
    for _ in 0..12 {
        all.push(
            sectors
                .iter()
                .copied()
                .filter(|_| rng.next_u32().is_multiple_of(2))
                .collect(),
        );
    }
    all
}

/// The file of the journal that the write between the two copies has changed.
fn written_file(before: &Path, after: &Path) -> &'static str {
    // A full file may get more space in the background.
    let read = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes.truncate(
            bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1),
        );
        bytes
    };
    let changed = |file: &&str| read(&before.join(file)) != read(&after.join(file));
    let mut changed = ["journal/0", "journal/1"].into_iter().filter(changed);
    let file = changed.next().expect("a write changes the journal");
    assert_eq!(changed.next(), None, "a write changes one file");
    file
}

/// Opens a copy of `crashed` for each part of the way that `file` can have come from `before` to `after`.
fn for_each_torn(crashed: &Path, file: &str, before: &[u8], after: &[u8], mut check: impl FnMut(&Path)) {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let sectors = changed_sectors(before, after);
    for reached in subsets(&sectors, runner.rng()) {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(crashed, dir.path());
        fs::write(dir.path().join(file), torn(before, after, reached)).unwrap();
        check(dir.path());
    }
}

#[test]
fn a_torn_write_reopens_to_before_or_after() {
    for Case { name, next } in cases() {
        let origin = tempfile::tempdir().unwrap();
        let mut store = prepare(origin.path());
        let writes = next(&mut store);
        let old = store.restore().unwrap();
        let crashed = tempfile::tempdir().unwrap();
        copy_dir(origin.path(), crashed.path());
        store.write(&writes).unwrap();
        let new = store.restore().unwrap();
        let file = written_file(crashed.path(), origin.path());
        let before = fs::read(crashed.path().join(file)).unwrap();
        let after = fs::read(origin.path().join(file)).unwrap();
        let mut seen_old = false;
        let mut seen_new = false;
        for_each_torn(crashed.path(), file, &before, &after, |dir| {
            let restored = reopen(dir, name);
            assert!(restored == old || restored == new, "{name}: a state between");
            seen_old |= restored == old;
            seen_new |= restored == new;
        });
        assert!(seen_old && seen_new, "{name}: both outcomes must have been met");
    }
}

/// At each open sled saves where its pages are, in a file that it renames when it is complete.
#[test]
fn a_file_that_sled_had_not_completed_when_it_was_killed_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let intact = prepare(dir.path()).restore().unwrap();
    for content in [&b""[..], b"the first half"] {
        let unfinished = dir.path().join("sled/snap.00000000000FFFFF.generating");
        fs::write(&unfinished, content).unwrap();
        assert_eq!(reopen(dir.path(), "unfinished"), intact);
        assert!(!unfinished.exists());
    }
}

#[test]
fn a_damaged_file_of_those_that_save_sled_work_is_no_damage_to_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let intact = prepare(dir.path()).restore().unwrap();
    for cut_to in [0, 12, 20] {
        assert_eq!(reopen(dir.path(), "whole"), intact);
        let files = fs::read_dir(dir.path().join("sled")).unwrap();
        let mut files = files.map(|entry| entry.unwrap().path());
        let saved = files.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("snap."));
        let saved = fs::File::options().write(true).open(saved.unwrap()).unwrap();
        saved.set_len(cut_to).unwrap();
        assert_eq!(reopen(dir.path(), "cut short"), intact);
    }
}

#[test]
fn a_torn_checkpoint_loses_nothing() {
    for Case { name, next } in cases().into_iter().step_by(2) {
        let origin = tempfile::tempdir().unwrap();
        let mut store = prepare(origin.path());
        store.checkpoint().unwrap();
        let writes = next(&mut store);
        store.write(&writes).unwrap();
        let state = store.restore().unwrap();
        drop(store);
        let crashed = tempfile::tempdir().unwrap();
        copy_dir(origin.path(), crashed.path());
        let mut store = open(origin.path()).unwrap();
        store.checkpoint().unwrap();
        drop(store);
        // The journal is as it is before sled is touched: the next file has its header.
        fs::remove_dir_all(crashed.path().join("journal")).unwrap();
        copy_dir(&origin.path().join("journal"), &crashed.path().join("journal"));
        let before = fs::read(crashed.path().join("sled/db")).unwrap();
        let after = fs::read(origin.path().join("sled/db")).unwrap();
        for_each_torn(crashed.path(), "sled/db", &before, &after, |dir| {
            assert_eq!(reopen(dir, name), state, "{name}");
        });
    }
}

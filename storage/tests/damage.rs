//! Damage in the database is told, with the index where it lies, and is never a panic or a silent loss.

use std::fs;
use std::path::Path;

use crate::common::{copy_dir, open, tamper};
use raft_core::{HardState, LogIndex, NodeId, Restored, Storage as _, Term, Write};
use storage::StorageError;
use storage::conformance::{command, cut_snapshot};

const RECORDS: u64 = 6;

fn append(first: u64, last: u64) -> Write {
    Write::Append((first..=last).map(|index| command(1, index, 30)).collect())
}

/// A store with six log records of five entries each, from index 1, and a vote, all of it in sled.
fn make_store(dir: &Path) -> Restored {
    let mut store = open(dir).unwrap();
    let vote = HardState {
        current_term: Term(3),
        voted_for: Some(NodeId(2)),
        ..HardState::default()
    };
    store.write(&[Write::HardState(vote)]).unwrap();
    for record in 0..RECORDS {
        store.write(&[append(5 * record + 1, 5 * record + 5)]).unwrap();
    }
    store.checkpoint().unwrap();
    store.restore().unwrap()
}

fn log_key(index: u64, fragment: u32) -> Vec<u8> {
    [b"l".as_slice(), &index.to_be_bytes(), &fragment.to_be_bytes()].concat()
}

/// The refusal to open `dir`, which must be about damage; with the index that it names.
fn damage_in(dir: &Path) -> (Option<u64>, String) {
    match open(dir).unwrap_err() {
        StorageError::Damaged { index, what, .. } => (index.map(LogIndex::get), what),
        other => panic!("not told as damage: {other:?}"),
    }
}

/// Applies each change to a store of its own, and asserts that the refusal names the index.
fn assert_told(changes: impl IntoIterator<Item = (u64, Box<dyn FnOnce(&sled::Db)>)>) {
    for (index, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        make_store(dir.path());
        tamper(dir.path(), change);
        let (named, what) = damage_in(dir.path());
        assert_eq!(named, Some(index), "{what}");
        assert!(what.contains(&format!("index {index}")), "{what}");
    }
}

#[test]
fn a_flipped_bit_in_any_record_is_told() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let mut keys = Vec::new();
    tamper(dir.path(), |database| {
        let records = database.iter().map(Result::unwrap);
        // Spacers are empty.
        keys.extend(records.filter(|(_, value)| !value.is_empty()).map(|(key, _)| key));
    });
    assert_eq!(keys.len(), usize::try_from(RECORDS).unwrap() + 4);
    for key in keys {
        // One bit of the version, of the checksum, of the content's start and of its end.
        for bit in [0, 15, 42, -1_i64] {
            let mut intact = None;
            tamper(dir.path(), |database| {
                let value = database.get(&key).unwrap().unwrap();
                let bits = i64::try_from(value.len() * 8).unwrap();
                let bit = usize::try_from(bit.rem_euclid(bits)).unwrap();
                let mut flipped = value.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                database.insert(&key, flipped).unwrap();
                intact = Some(value);
            });
            let (index, what) = damage_in(dir.path());
            if key.starts_with(b"l") {
                let first = u64::from_be_bytes(key[1..9].try_into().unwrap());
                assert_eq!(index, Some(first), "{what}");
            } else {
                assert!(what.contains(std::str::from_utf8(&key).unwrap()), "{what}");
            }
            tamper(dir.path(), |database| {
                drop(database.insert(&key, intact.unwrap()).unwrap());
            });
        }
    }
    drop(open(dir.path()).unwrap());
}

#[test]
fn a_lost_log_record_is_told_at_the_start_in_the_middle_and_at_the_end() {
    assert_told([1, 6, 16, 26].map(|index| {
        let remove = move |database: &sled::Db| drop(database.remove(log_key(index, 0)).unwrap());
        (index, Box::new(remove) as Box<dyn FnOnce(&sled::Db)>)
    }));
}

#[test]
fn a_lost_tail_of_the_log_is_told() {
    let lose = |database: &sled::Db| {
        for index in [16, 21, 26] {
            database.remove(log_key(index, 0)).unwrap();
        }
    };
    assert_told([(16, Box::new(lose) as Box<dyn FnOnce(&sled::Db)>)]);
}

#[test]
fn two_swapped_records_are_told() {
    let swap = |database: &sled::Db| {
        let (one, other) = (log_key(6, 0), log_key(16, 0));
        let value = database.get(&one).unwrap().unwrap();
        let value = database.insert(&other, value).unwrap().unwrap();
        database.insert(&one, value).unwrap();
    };
    assert_told([(6, Box::new(swap) as Box<dyn FnOnce(&sled::Db)>)]);
}

#[test]
fn a_record_copied_to_another_place_is_told() {
    let copy = |database: &sled::Db| {
        let value = database.get(log_key(26, 0)).unwrap().unwrap();
        database.insert(log_key(31, 0), value).unwrap();
    };
    // Behind the end of the log there is nothing to follow, so it is the checksum or the end that tells.
    assert_told([(31, Box::new(copy) as Box<dyn FnOnce(&sled::Db)>)]);
}

/// Takes the value of `key`, does `then`, and puts the old value back into the closed store.
fn replay(dir: &Path, key: &[u8], then: impl FnOnce(&mut storage::SledStorage)) {
    let mut old = None;
    tamper(dir, |database| old = database.get(key).unwrap());
    let mut store = open(dir).unwrap();
    then(&mut store);
    store.checkpoint().unwrap();
    drop(store);
    tamper(dir, |database| drop(database.insert(key, old.unwrap()).unwrap()));
}

#[test]
fn an_outdated_log_record_is_told() {
    // A record in the middle is found by its follower, which names another one before it.
    for (overwritten, index) in [(16, 21), (26, 30)] {
        let dir = tempfile::tempdir().unwrap();
        make_store(dir.path());
        replay(dir.path(), &log_key(overwritten, 0), |store| {
            // The same entries again, so that only the serials tell the records apart.
            for first in (overwritten..30).step_by(5) {
                store.write(&[append(first, first + 4)]).unwrap();
            }
        });
        let (named, what) = damage_in(dir.path());
        assert!(named == Some(index), "{named:?}: {what}");
        assert!(what.contains("outdated"), "{what}");
    }
}

#[test]
fn an_outdated_hard_state_or_snapshot_is_told() {
    for key in ["a/hard-state", "a/snapshot"] {
        let dir = tempfile::tempdir().unwrap();
        make_store(dir.path());
        replay(dir.path(), key.as_bytes(), |store| {
            let vote = HardState {
                current_term: Term(4),
                voted_for: None,
                ..HardState::default()
            };
            let snapshot = cut_snapshot(&*store.snapshots(), 3, 1, b"state").unwrap();
            let compact = Write::Compact {
                snapshot,
                first_retained: LogIndex(1),
            };
            store
                .write(&[Write::HardState(vote), compact, append(31, 35)])
                .unwrap();
        });
        let (_, what) = damage_in(dir.path());
        assert!(what.contains("outdated"), "{key}: {what}");
    }
}

#[test]
fn an_outdated_root_is_brought_up_by_the_journal_or_told() {
    let vote = |term| {
        Write::HardState(HardState {
            current_term: Term(term),
            voted_for: None,
            ..HardState::default()
        })
    };
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    replay(dir.path(), b"a/root", |store| store.write(&[vote(4)]).unwrap());
    // The last file of the journal is still there, and goes on where that root ends.
    let restored = open(dir.path()).unwrap().restore().unwrap();
    assert_eq!(restored.hard_state.current_term, Term(4));
    replay(dir.path(), b"a/root", |store| {
        for term in 5..8 {
            store.write(&[vote(term)]).unwrap();
            store.checkpoint().unwrap();
        }
    });
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StorageError::RolledBack { .. }), "{error:?}");
}

#[test]
fn a_lost_small_record_is_told() {
    for key in ["a/hard-state", "a/identity", "a/snapshot", "a/root"] {
        let dir = tempfile::tempdir().unwrap();
        make_store(dir.path());
        tamper(dir.path(), |database| drop(database.remove(key).unwrap()));
        let (_, what) = damage_in(dir.path());
        assert!(what.contains(key) && what.contains("missing"), "{key}: {what}");
    }
}

#[test]
fn a_record_that_is_not_ours_is_told() {
    for key in ["b", "l", "l0123456789abcdef", "a/other"] {
        let dir = tempfile::tempdir().unwrap();
        make_store(dir.path());
        tamper(dir.path(), |database| {
            drop(database.insert(key, b"value").unwrap());
        });
        let (_, what) = damage_in(dir.path());
        assert!(what.contains(key) && what.contains("not ours"), "{key}: {what}");
    }
}

#[test]
fn a_lost_or_flipped_fragment_of_a_large_entry_is_told() {
    for fragment in [0, 1, 7, 32] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path()).unwrap();
        let entries = vec![command(1, 1, 10), command(1, 2, 1 << 20), command(1, 3, 10)];
        store.write(&[Write::Append(entries)]).unwrap();
        store.checkpoint().unwrap();
        drop(store);
        let mut intact = None;
        tamper(dir.path(), |database| {
            intact = database.remove(log_key(2, fragment)).unwrap();
        });
        let (index, what) = damage_in(dir.path());
        assert_eq!(index, Some(2), "{what}");
        tamper(dir.path(), |database| {
            let mut flipped = intact.unwrap().to_vec();
            flipped[1000] ^= 2;
            database.insert(log_key(2, fragment), flipped).unwrap();
        });
        let (index, what) = damage_in(dir.path());
        assert_eq!(index, Some(2), "{what}");
    }
}

/// Below the records: damage in sled's own file. sled may notice, panic, or open without the end of its log,
/// or without anything; we refuse in all these cases, and otherwise everything is there.
#[test]
fn a_flipped_byte_in_the_file_of_the_database_never_loses_anything_silently() {
    let origin = tempfile::tempdir().unwrap();
    let intact = make_store(origin.path());
    let database = fs::read(origin.path().join("sled/db")).unwrap();
    let used = database.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut refused = 0;
    for position in (0..used).step_by(used.div_ceil(100)) {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(origin.path(), dir.path());
        let mut damaged = database.clone();
        damaged[position] ^= 0x40;
        fs::write(dir.path().join("sled/db"), &damaged).unwrap();
        match open(dir.path()).and_then(|mut store| store.restore()) {
            Ok(restored) => assert_eq!(restored, intact, "byte {position}"),
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains("must not vote"), "byte {position}: {message}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "some of the damage must have hit something");
}

#[test]
fn a_database_cut_short_never_loses_anything_silently() {
    let origin = tempfile::tempdir().unwrap();
    let intact = make_store(origin.path());
    let database = fs::read(origin.path().join("sled/db")).unwrap();
    for length in (0..database.len()).step_by(database.len().div_ceil(60)) {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(origin.path(), dir.path());
        fs::write(dir.path().join("sled/db"), &database[..length]).unwrap();
        if let Ok(restored) = open(dir.path()).and_then(|mut store| store.restore()) {
            assert_eq!(restored, intact, "{length} bytes");
        }
    }
}

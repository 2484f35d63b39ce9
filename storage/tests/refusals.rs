//! Every reason not to open a directory is told apart, with the path and the fix; nothing is damaged by
//! asking.

use std::fs;
use std::path::Path;

use crate::common::{copy_dir, identity, open};
use raft_core::{HardState, NodeId, Standing, Storage as _, Term, Write};
use storage::conformance::{command, cut_snapshot, initial_configuration};
use storage::{Identity, Options, SledStorage, StorageError};

fn vote(term: u64) -> Write {
    Write::HardState(HardState {
        current_term: Term(term),
        voted_for: Some(NodeId(1)),
        ..HardState::default()
    })
}

/// A store with a little of everything.
fn make_store(dir: &Path) {
    let mut store = open(dir).unwrap();
    store
        .write(&[
            vote(1),
            Write::Append((1..=5).map(|index| command(1, index, 10)).collect()),
        ])
        .unwrap();
    let snapshot = cut_snapshot(&*store.snapshots(), 2, 1, b"state").unwrap();
    store
        .write(&[Write::Compact {
            snapshot,
            first_retained: raft_core::LogIndex(2),
        }])
        .unwrap();
}

fn refusal(dir: &Path) -> StorageError {
    open(dir).unwrap_err()
}

fn assert_tells(error: &StorageError, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let other = Identity {
        cluster_id: "other".to_owned(),
        ..identity()
    };
    let error =
        SledStorage::open(dir.path(), &other, &initial_configuration(), &Options::default()).unwrap_err();
    assert!(matches!(error, StorageError::OtherCluster { .. }), "{error:?}");
    assert_tells(
        &error,
        &[
            &dir.path().display().to_string(),
            "\"test\"",
            "\"other\"",
            "data_dir",
        ],
    );
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let other = Identity {
        node_id: NodeId(2),
        ..identity()
    };
    let error =
        SledStorage::open(dir.path(), &other, &initial_configuration(), &Options::default()).unwrap_err();
    assert!(
        matches!(error, StorageError::OtherNode { found: NodeId(1), .. }),
        "{error:?}"
    );
    assert_tells(
        &error,
        &[&dir.path().display().to_string(), "node 1", "node 2", "--id"],
    );
}

#[test]
fn a_database_copied_from_another_node_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_store(ours.path());
    let other = Identity {
        node_id: NodeId(2),
        ..identity()
    };
    drop(
        SledStorage::open(
            theirs.path(),
            &other,
            &initial_configuration(),
            &Options::default(),
        )
        .unwrap(),
    );
    fs::remove_dir_all(ours.path().join("sled")).unwrap();
    copy_dir(&theirs.path().join("sled"), &ours.path().join("sled"));
    assert_tells(&refusal(ours.path()), &["belongs to node 2"]);
}

#[test]
fn a_directory_in_use_is_refused_and_free_again_after_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(error, StorageError::InUse { .. }), "{error:?}");
    assert_tells(&error, &[&dir.path().display().to_string(), "stop that process"]);
    drop(first);
    drop(open(dir.path()).unwrap());
}

#[test]
fn a_database_that_sled_calls_locked_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let database = fs::File::open(dir.path().join("sled/db")).unwrap();
    database.lock().unwrap();
    let error = refusal(dir.path());
    assert!(matches!(error, StorageError::InUse { .. }), "{error:?}");
    database.unlock().unwrap();
    drop(open(dir.path()).unwrap());
}

#[test]
fn a_file_instead_of_a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"text").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refusal(&path);
        assert!(matches!(error, StorageError::NotADirectory { .. }), "{error:?}");
        assert_tells(&error, &[&file.display().to_string(), "not a directory"]);
    }
}

#[test]
fn missing_directories_are_created() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir.path().join("a/b/c")).unwrap());
}

#[test]
fn a_directory_with_files_of_somebody_else_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), b"text").unwrap();
    let error = refusal(dir.path());
    assert!(matches!(error, StorageError::NotAStore { .. }), "{error:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_store_without_its_marker_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    fs::remove_file(dir.path().join("raft-storage")).unwrap();
    assert_tells(&refusal(dir.path()), &["raft-storage", "lost", "--join"]);
}

#[test]
fn every_lost_part_is_named() {
    let journal = ["journal", "journal/0", "journal/1"];
    for part in ["sled", "sled/db", "sled/conf", "snapshots", "high-water"]
        .into_iter()
        .chain(journal)
    {
        let dir = tempfile::tempdir().unwrap();
        make_store(dir.path());
        let path = dir.path().join(part);
        if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        }
        .unwrap();
        for _ in 0..2 {
            let error = refusal(dir.path());
            assert!(
                matches!(error, StorageError::ContentsLost { .. }),
                "{part}: {error:?}"
            );
            assert_tells(&error, &[part, "must not vote", "--join"]);
        }
    }
}

#[test]
fn a_lost_or_damaged_snapshot_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let mut files = fs::read_dir(dir.path().join("snapshots")).unwrap();
    let file = files.next().unwrap().unwrap().path();
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[1..]).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(error, StorageError::Damaged { .. }), "{error:?}");
    assert_tells(&error, &[file.to_str().unwrap(), "instead of", "--join"]);
    fs::remove_file(&file).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(error, StorageError::ContentsLost { .. }), "{error:?}");
    assert_tells(
        &error,
        &[&format!("the snapshot file {} is gone", file.display())],
    );
}

#[test]
fn a_database_emptied_behind_our_back_is_contents_lost() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    fs::write(dir.path().join("sled/db"), b"").unwrap();
    for snapshot in fs::read_dir(dir.path().join("sled")).unwrap() {
        let path = snapshot.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("snap.") {
            fs::remove_file(path).unwrap();
        }
    }
    let error = refusal(dir.path());
    assert!(matches!(error, StorageError::ContentsLost { .. }), "{error:?}");
}

/// Puts an older copy of `part` back after `newer` was written.
fn roll_back(dir: &Path, part: &str, newer: impl FnOnce(&mut SledStorage)) {
    let copy = tempfile::tempdir().unwrap();
    let (current, old) = (dir.join(part), copy.path().join("old"));
    copy_dir(&current, &old);
    newer(&mut open(dir).unwrap());
    fs::remove_dir_all(&current).unwrap();
    copy_dir(&old, &current);
}

#[test]
fn a_database_rolled_back_to_an_older_copy_is_brought_up_by_the_journal_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    roll_back(dir.path(), "sled", |store| {
        store.write(&[vote(2)]).unwrap();
        store.checkpoint().unwrap();
    });
    let restored = open(dir.path()).unwrap().restore().unwrap();
    assert_eq!(restored.hard_state.current_term, Term(2));
    roll_back(dir.path(), "sled", |store| {
        for term in 3..6 {
            store.write(&[vote(term)]).unwrap();
            store.checkpoint().unwrap();
        }
    });
    let error = refusal(dir.path());
    assert!(
        matches!(error, StorageError::RolledBack { found: 1, .. }),
        "{error:?}"
    );
    assert_tells(&error, &["batch 1", "batch 6", "must not vote"]);
}

#[test]
fn a_journal_rolled_back_to_an_older_copy_is_refused() {
    for checkpoints in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        make_store(dir.path());
        roll_back(dir.path(), "journal", |store| {
            for term in 2..5 {
                store.write(&[vote(term)]).unwrap();
                if checkpoints {
                    store.checkpoint().unwrap();
                }
            }
        });
        let error = refusal(dir.path());
        assert!(matches!(error, StorageError::RolledBack { .. }), "{error:?}");
        assert_tells(&error, &["journal", "batch 6", "must not vote"]);
    }
}

#[test]
fn a_damaged_marker_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let path = dir.path().join("raft-storage");
    let intact = fs::read(&path).unwrap();
    for position in 0..intact.len() {
        let mut damaged = intact.clone();
        damaged[position] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        let error = refusal(dir.path());
        assert!(
            matches!(error, StorageError::Damaged { .. }),
            "byte {position}: {error:?}"
        );
    }
    fs::write(&path, &intact).unwrap();
    drop(open(dir.path()).unwrap());
}

#[test]
fn a_marker_of_another_format_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let path = dir.path().join("raft-storage");
    let mut marker = fs::read(&path).unwrap();
    marker[0] = 9;
    let checksum = {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(b"raft-storage");
        hasher.update(&marker[..1]);
        hasher.update(&marker[5..]);
        hasher.finalize()
    };
    marker[1..5].copy_from_slice(&checksum.to_be_bytes());
    fs::write(&path, &marker).unwrap();
    let error = refusal(dir.path());
    assert!(
        matches!(
            error,
            StorageError::UnsupportedVersion {
                found: 9,
                supported: 7,
                ..
            }
        ),
        "{error:?}"
    );
    assert_tells(&error, &["version 9", "version 7"]);
}

#[test]
fn an_unfinished_creation_starts_anew() {
    let (finished, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Stopped after the lock file, and while the first marker was written.
    fs::write(dir.path().join("raft-storage.lock"), b"").unwrap();
    fs::write(dir.path().join("raft-storage.tmp"), b"half").unwrap();
    make_store(dir.path());
    // Stopped before the marker said that the store is ready: the marker of a store that was never finished,
    // with all kinds of remains.
    make_store(finished.path());
    let unfinished = tempfile::tempdir().unwrap();
    fs::write(unfinished.path().join("raft-storage"), creating_marker()).unwrap();
    copy_dir(&finished.path().join("sled"), &unfinished.path().join("sled"));
    fs::write(unfinished.path().join("sled/db"), b"half").unwrap();
    let restored = open(unfinished.path()).unwrap().restore().unwrap();
    assert_eq!(restored.hard_state, HardState::default());
    assert_eq!(restored.entries, []);
}

/// The marker with its stage, the first number of the content, set back to the first stage.
fn creating_marker() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let mut marker = fs::read(dir.path().join("raft-storage")).unwrap();
    assert_eq!(marker[5], 1, "the stage of a finished store");
    marker[5] = 0;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(b"raft-storage");
    hasher.update(&marker[..1]);
    hasher.update(&marker[5..]);
    marker[1..5].copy_from_slice(&hasher.finalize().to_be_bytes());
    marker
}

#[test]
fn an_existing_store_keeps_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let other = raft_core::Configuration::of_voters([NodeId(9)]);
    let mut store = SledStorage::open(dir.path(), &identity(), &other, &Options::default()).unwrap();
    assert_eq!(
        store.restore().unwrap().snapshot.configuration,
        initial_configuration()
    );
}

fn open_to_join(dir: &Path) -> Result<SledStorage, StorageError> {
    let mut options = Options::default();
    options.join = true;
    SledStorage::open(dir, &identity(), &initial_configuration(), &options)
}

fn standing(store: &mut SledStorage) -> Standing {
    store.restore().unwrap().hard_state.standing
}

#[test]
fn a_store_made_to_join_stays_one_until_a_write_says_otherwise_with_the_flag_or_without() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_to_join(dir.path()).unwrap();
    let incarnation = store.incarnation();
    assert_eq!(standing(&mut store), Standing::Joining);
    drop(store);
    let mut store = open(dir.path()).unwrap();
    assert_eq!(standing(&mut store), Standing::Joining);
    let member = HardState {
        standing: Standing::Member,
        ..HardState::default()
    };
    store
        .write(&[Write::HardState(member), Write::Append(vec![command(1, 1, 10)])])
        .unwrap();
    drop(store);
    let mut store = open_to_join(dir.path()).unwrap();
    assert_eq!(standing(&mut store), Standing::Member);
    assert_eq!(store.incarnation(), incarnation);
}

#[test]
fn a_store_that_held_nothing_can_be_made_to_join_and_is_another_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut founder = open(dir.path()).unwrap();
    assert_eq!(standing(&mut founder), Standing::Founder);
    founder.write(&[vote(3)]).unwrap();
    let incarnation = founder.incarnation();
    drop(founder);
    let mut joining = open_to_join(dir.path()).unwrap();
    assert_eq!(standing(&mut joining), Standing::Joining);
    assert_ne!(joining.incarnation(), incarnation);
    assert_eq!(joining.restore().unwrap().hard_state.voted_for, None);
}

#[test]
fn a_store_with_data_is_not_made_to_join() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let error = open_to_join(dir.path()).unwrap_err();
    assert!(matches!(error, StorageError::JoinsWithData { .. }), "{error:?}");
    assert_tells(&error, &[&dir.path().display().to_string(), "--join", "empty"]);
    assert!(open(dir.path()).is_ok(), "and nothing happened to it");
}

#[test]
fn a_directory_in_the_place_of_a_file_is_not_taken_for_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let snapshot = fs::read_dir(dir.path().join("snapshots")).unwrap().next();
    let places = [snapshot.unwrap().unwrap().path(), dir.path().join("high-water")];
    for path in places {
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = refusal(dir.path());
        assert_tells(
            &error,
            &[path.to_str().unwrap(), "in the place of", "move it away"],
        );
        assert!(
            !error.to_string().contains("full") && !error.is_of_the_disk() && !error.leaves_joining(),
            "{error}"
        );
        fs::remove_dir(&path).unwrap();
        fs::write(&path, kept).unwrap();
    }
}

#[test]
fn what_was_removed_from_a_running_store_is_not_taken_for_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let store = open(dir.path()).unwrap();
    fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
    let error = cut_snapshot(&*store.snapshots(), 4, 1, b"state").unwrap_err();
    assert_tells(&error, &["snapshots", "is not there", "put it back"]);
    assert!(!error.to_string().contains("full"), "{error}");
}

#[test]
fn the_database_of_another_store_of_the_same_node_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_store(one.path());
    make_store(two.path());
    for part in ["sled", "journal"] {
        let mixed = tempfile::tempdir().unwrap();
        copy_dir(one.path(), mixed.path());
        fs::remove_dir_all(mixed.path().join(part)).unwrap();
        copy_dir(&two.path().join(part), &mixed.path().join(part));
        assert_tells(&refusal(mixed.path()), &["store"]);
    }
}

//! What an inspection tells of a damaged store, record by record, and that it leaves nothing behind.

use std::fs;
use std::path::Path;

use crate::common::{identity, open, open_small};
use raft_core::{HardState, LogIndex, NodeId, Storage as _, Term, Write};
use storage::StorageError;
use storage::conformance::{command, cut_snapshot};
use storage::inspect::{Inspection, Workspace};

/// A store with six log records of five entries each, from index 1, one of 100 kB in fragments, and a vote.
/// All of it is in the database.
fn make_store(dir: &Path) {
    fill(dir).checkpoint().unwrap();
}

fn fill(dir: &Path) -> storage::SledStorage {
    let mut store = open(dir).unwrap();
    let vote = HardState {
        current_term: Term(3),
        voted_for: Some(NodeId(2)),
        ..HardState::default()
    };
    store.write(&[Write::HardState(vote)]).unwrap();
    for first in (1..=26).step_by(5) {
        let entries = (first..first + 5).map(|index| command(1, index, 30)).collect();
        store.write(&[Write::Append(entries)]).unwrap();
    }
    store
        .write(&[Write::Append(vec![command(1, 31, 100_000)])])
        .unwrap();
    store.write(&[Write::Append(vec![command(1, 32, 30)])]).unwrap();
    store
}

/// Works on the records of the closed store in `dir`, as a disk that goes bad would.
fn tamper(dir: &Path, change: impl FnOnce(&sled::Db)) {
    let config = sled::Config::new()
        .path(dir.join("sled"))
        .segment_size(8 << 20)
        .flush_every_ms(None);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let database = loop {
        match config.open() {
            Ok(database) => break database,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    change(&database);
    database.flush().unwrap();
}

fn log_key(index: u64, fragment: u32) -> Vec<u8> {
    [b"l".as_slice(), &index.to_be_bytes(), &fragment.to_be_bytes()].concat()
}

fn flip(database: &sled::Db, key: &[u8]) {
    let mut value = database.get(key).unwrap().unwrap().to_vec();
    let middle = value.len() / 2;
    value[middle] ^= 1;
    database.insert(key, value).unwrap();
}

fn inspect(dir: &Path) -> Inspection {
    let parent = tempfile::tempdir().unwrap();
    let workspace = Workspace::create(parent.path()).unwrap();
    let found = storage::inspect::inspect(dir, &workspace).unwrap();
    drop(workspace);
    assert_eq!(
        fs::read_dir(parent.path()).unwrap().count(),
        0,
        "something was left behind"
    );
    found
}

fn journal_problems(found: &Inspection) -> Vec<&String> {
    let problems = found.journal.iter().filter_map(|file| file.problem.as_ref());
    problems.collect()
}

/// The keys of the records with something wrong.
fn bad_records(found: &Inspection) -> Vec<&str> {
    let bad = found.records.iter().filter(|record| record.problem.is_some());
    bad.map(|record| record.key.as_str()).collect()
}

fn indexes(found: &Inspection) -> Vec<u64> {
    found.entries.iter().map(|entry| entry.index.get()).collect()
}

#[test]
fn a_whole_store_is_shown_in_all_its_parts() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let found = inspect(dir.path());
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.identity, Some(identity()));
    assert_eq!(found.hard_state.unwrap().voted_for, Some(NodeId(2)));
    assert_eq!(found.log, Some((LogIndex(1), LogIndex(32))));
    assert_eq!(indexes(&found), (1..=32).collect::<Vec<_>>());
    assert_eq!(found.high_water, found.last_batch);
    assert_eq!(found.snapshot.unwrap().meta.size_bytes, 0);
    assert!(!found.unfinished && found.left_over.is_empty());
}

#[test]
fn what_is_only_in_the_journal_is_shown_as_well() {
    let (in_database, in_journal) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_store(in_database.path());
    drop(fill(in_journal.path()));
    let (one, other) = (inspect(in_database.path()), inspect(in_journal.path()));
    assert!(other.is_whole(), "{other:?}");
    assert_eq!((one.records, one.entries), (other.records, other.entries));
    assert_eq!((one.log, one.last_batch), (other.log, other.last_batch));
    // A bad record in it: what comes before is still shown.
    let path = in_journal.path().join("journal/0");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = inspect(in_journal.path());
    let [active, other] = found.journal.as_slice() else {
        panic!("{:?}", found.journal)
    };
    let (active, other) = (active.content.unwrap(), other.content.unwrap());
    assert!(active.torn && !other.torn, "{active:?}, {other:?}");
    assert!(other.batches.1 < active.batches.0 && active.generation > other.generation);
    assert_eq!(found.last_batch, Some(active.batches.1));
    assert!(found.refusal.unwrap().contains("journal/0"));
    assert_eq!(found.log, Some((LogIndex(1), LogIndex(31))));
}

#[test]
fn a_bad_record_in_the_middle_of_the_journal_and_a_missing_file_are_told() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path()));
    let path = dir.path().join("journal/0");
    let intact = fs::read(&path).unwrap();
    let mut bytes = intact.clone();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    // The entry in fragments takes most of it.
    bytes[end / 2] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found = inspect(dir.path());
    let problem = found.journal[0].problem.as_ref().unwrap();
    assert!(
        problem.contains("checksum") && problem.contains("journal/0"),
        "{problem}"
    );
    assert!(!found.is_whole() && found.refusal.is_some());

    fs::write(&path, &intact).unwrap();
    assert!(inspect(dir.path()).is_whole());
    fs::remove_file(&path).unwrap();
    let found = inspect(dir.path());
    assert!(found.journal[0].problem.is_some() && found.journal[1].problem.is_none());
    assert!(found.refusal.unwrap().contains("journal"));
    assert_eq!(found.identity, Some(identity()));
}

#[test]
fn of_a_part_that_is_gone_just_that_is_told() {
    for part in ["sled/db", "high-water", "snapshots", "sled/conf", "journal/1"] {
        let dir = tempfile::tempdir().unwrap();
        make_store(dir.path());
        let path = dir.path().join(part);
        fs::remove_file(&path)
            .or_else(|_| fs::remove_dir_all(&path))
            .unwrap();
        let found = inspect(dir.path());
        assert_eq!(found.problems, [] as [String; 0], "{part}");
        let refusal = found.refusal.unwrap();
        assert!(refusal.contains(&format!("but {part} is gone")), "{refusal}");
    }
}

#[test]
fn a_node_does_not_start_from_a_snapshot_of_which_a_chunk_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fill(dir.path());
    let snapshot = cut_snapshot(&*store.snapshots(), 20, 1, &[7; 100_000]).unwrap();
    let first_retained = LogIndex(21);
    store
        .write(&[Write::Compact {
            snapshot: snapshot.clone(),
            first_retained,
        }])
        .unwrap();
    drop(store);
    let path = storage::snapshot_path(dir.path(), &snapshot);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    drop(open(dir.path()).expect("the store itself does not read it whole"));
    let found = inspect(dir.path());
    let problem = found.snapshot.as_ref().unwrap().problem.as_ref();
    assert!(
        problem.is_some() && found.refusal.as_ref() == problem,
        "{found:?}"
    );
}

#[test]
fn a_spent_journal_file_that_was_made_shorter_is_called_spent_and_a_torn_one_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    let entries = (1..=20).map(|index| command(1, index, 30_000)).collect();
    store.write(&[Write::Append(entries)]).unwrap();
    store.checkpoint().unwrap();
    store.write(&[Write::Append(vec![command(1, 21, 30)])]).unwrap();
    drop(store);
    let found = inspect(dir.path());
    assert!(found.is_whole(), "{found:?}");
    let mut files: Vec<_> = found
        .journal
        .iter()
        .map(|file| (file.content.unwrap(), &file.name))
        .collect();
    files.sort_by_key(|(content, _)| content.generation);
    let [(spent, _), (active, name)] = files[..] else {
        panic!("{files:?}")
    };
    assert!(
        spent.spent && !spent.torn && !active.spent,
        "{spent:?}, {active:?}"
    );
    assert_eq!(spent.size_bytes, 64 * 1024);

    // Without the database nobody can tell that it is spent.
    let database = dir.path().join("sled/db");
    let intact = fs::read(&database).unwrap();
    fs::write(&database, b"damaged").unwrap();
    let found = inspect(dir.path());
    let problems = journal_problems(&found);
    assert!(
        problems.len() == 1 && problems[0].contains("cannot be told without the database"),
        "{problems:?}"
    );
    fs::write(&database, intact).unwrap();

    let path = dir.path().join("journal").join(name);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(20_000).unwrap();
    let found = inspect(dir.path());
    let problems = journal_problems(&found);
    assert!(
        problems.len() == 1 && problems[0].contains("cut short") && problems[0].contains(name.as_str()),
        "{problems:?}"
    );
    assert!(found.refusal.is_some());
}

#[test]
fn a_damaged_journal_file_that_is_spent_is_no_reason_to_give_the_data_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fill(dir.path());
    store.checkpoint().unwrap();
    store.write(&[Write::Append(vec![command(1, 33, 30)])]).unwrap();
    drop(store);
    let found = inspect(dir.path());
    let is_spent = |file: &&storage::inspect::JournalReport| file.content.unwrap().spent;
    let spent = found.journal.iter().find(is_spent).unwrap();
    let path = dir.path().join("journal").join(&spent.name);
    let intact = fs::read(&path).unwrap();
    let mut flipped = intact.clone();
    let used = usize::try_from(spent.content.unwrap().used_bytes).unwrap();
    flipped[used / 2] ^= 1;
    for damaged in [&flipped[..], &intact[..4096]] {
        fs::write(&path, damaged).unwrap();
        let found = inspect(dir.path());
        assert!(found.refusal.is_none() && !found.is_whole(), "{found:?}");
        let problems: Vec<_> = found
            .journal
            .iter()
            .filter_map(|file| file.problem.as_ref())
            .chain(&found.problems)
            .collect();
        let [problem] = problems[..] else {
            panic!("{problems:?}")
        };
        assert!(
            problem.contains("is damaged") && problem.contains("the database has all that it held"),
            "{problem}"
        );
        assert!(
            !problem.contains("empty") && !problem.contains("vote"),
            "{problem}"
        );
        assert!(problem.contains(path.to_str().unwrap()), "{problem}");
    }
    drop(open(dir.path()).unwrap());
}

#[test]
fn one_bad_log_record_is_told_and_those_behind_it_are_read() {
    for (index, fragment, bad, lost) in [
        (11, 0, &["log 11"][..], 11..=15),
        (1, 0, &["log 1"], 1..=5),
        (32, 0, &["log 32"], 32..=32),
        (31, 0, &["log 31", "log 31.1", "log 31.2", "log 31.3"], 31..=31),
        (31, 2, &["log 31.2", "log 31.3"], 31..=31),
    ] {
        let dir = tempfile::tempdir().unwrap();
        make_store(dir.path());
        tamper(dir.path(), |database| flip(database, &log_key(index, fragment)));
        let found = inspect(dir.path());
        assert_eq!(bad_records(&found), bad);
        let rest: Vec<u64> = (1..=32).filter(|index| !lost.contains(index)).collect();
        assert_eq!(indexes(&found), rest);
        let refusal = found.refusal.unwrap();
        assert!(
            refusal.contains("checksum") && refusal.contains(dir.path().to_str().unwrap()),
            "{refusal}"
        );
    }
}

#[test]
fn a_missing_record_is_told_at_the_one_behind_it_or_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    tamper(dir.path(), |database| {
        drop(database.remove(log_key(6, 0)).unwrap());
    });
    let found = inspect(dir.path());
    assert_eq!(bad_records(&found), ["log 11"]);
    assert_eq!(indexes(&found).len(), 27);

    tamper(dir.path(), |database| {
        drop(database.remove(log_key(32, 0)).unwrap());
    });
    let found = inspect(dir.path());
    assert!(
        found
            .problems
            .iter()
            .any(|problem| problem.contains("index 32 is missing")),
        "{found:?}"
    );
}

#[test]
fn without_a_root_everything_else_is_still_shown() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    tamper(dir.path(), |database| flip(database, b"a/root"));
    let found = inspect(dir.path());
    assert_eq!(bad_records(&found), ["a/root"]);
    assert_eq!(indexes(&found).len(), 32);
    assert_eq!(found.hard_state.unwrap().current_term, Term(3));
    tamper(dir.path(), |database| drop(database.remove(b"a/root").unwrap()));
    let found = inspect(dir.path());
    assert!(
        found
            .problems
            .iter()
            .any(|problem| problem.contains("a/root is missing")),
        "{found:?}"
    );
}

#[test]
fn a_snapshot_is_verified_to_its_last_byte_and_left_over_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let mut store = open(dir.path()).unwrap();
    let state = vec![7; 300_000];
    let snapshot = cut_snapshot(store.snapshots().as_ref(), 20, 1, &state).unwrap();
    store
        .write(&[Write::Compact {
            snapshot,
            first_retained: LogIndex(16),
        }])
        .unwrap();
    drop(store);
    let snapshots = dir.path().join("snapshots");
    fs::write(snapshots.join("9.tmp"), b"unfinished").unwrap();
    let found = inspect(dir.path());
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.left_over, [("9.tmp".to_owned(), 10)]);
    assert!(snapshots.join("9.tmp").exists());

    let file = fs::read_dir(&snapshots)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| !path.ends_with("9.tmp")).unwrap();
    let intact = fs::read(&file).unwrap();
    for place in [100_000, 280_000] {
        let mut flipped = intact.clone();
        flipped[place] ^= 1;
        fs::write(&file, flipped).unwrap();
        let found = inspect(dir.path());
        let problem = found.snapshot.unwrap().problem.unwrap();
        assert!(problem.contains("checksum"), "{problem}");
    }
}

#[test]
fn a_snapshot_that_was_replaced_by_one_in_a_damaged_journal_is_not_called_gone() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let mut store = open(dir.path()).unwrap();
    let cut = |store: &mut storage::SledStorage, index| {
        let snapshot = cut_snapshot(store.snapshots().as_ref(), index, 1, &[7; 1000]).unwrap();
        let first_retained = LogIndex(index);
        store
            .write(&[Write::Compact {
                snapshot,
                first_retained,
            }])
            .unwrap();
    };
    cut(&mut store, 20);
    store.checkpoint().unwrap();
    cut(&mut store, 25);
    drop(store);
    let whole = inspect(dir.path());
    assert!(whole.is_whole(), "{whole:?}");
    // The record of the second one is the last of the journal, and takes a block.
    let active = whole
        .journal
        .iter()
        .max_by_key(|file| file.content.unwrap().generation)
        .unwrap();
    let path = dir.path().join("journal").join(&active.name);
    let block = usize::try_from(active.content.unwrap().used_bytes).unwrap() - 512;
    let mut bytes = fs::read(&path).unwrap();
    bytes[block + 40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = inspect(dir.path());
    assert!(found.refusal.unwrap().contains("journal/"));
    let snapshot = found.snapshot.unwrap();
    assert_eq!(snapshot.meta.last_included_index, LogIndex(20));
    let problem = snapshot.problem.unwrap();
    assert!(
        problem.contains("a later one may have taken its place"),
        "{problem}"
    );
    assert_eq!(found.left_over.len(), 1);
}

/// Moves a part of a data directory elsewhere, and leaves a symbolic link.
fn move_away(dir: &Path, elsewhere: &Path, part: &str) {
    let moved = elsewhere.join(part);
    fs::rename(dir.join(part), &moved).unwrap();
    std::os::unix::fs::symlink(moved, dir.join(part)).unwrap();
}

#[test]
fn parts_on_another_disk_are_found_through_symbolic_links() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_store(dir.path());
    for part in ["sled", "journal", "snapshots", "high-water"] {
        move_away(dir.path(), elsewhere.path(), part);
        let found = inspect(dir.path());
        assert!(found.is_whole(), "{part}: {found:?}");
        assert_eq!(indexes(&found).len(), 32, "{part}");
    }
    drop(open(dir.path()).unwrap());
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_gone() {
    for part in [
        "sled",
        "sled/db",
        "journal/1",
        "snapshots",
        "high-water",
        "raft-storage",
    ] {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make_store(dir.path());
        let path = dir.path().join(part);
        fs::rename(&path, elsewhere.path().join("kept")).unwrap();
        // A link to itself: to look at it fails, for root as well.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let workspace = Workspace::create(elsewhere.path()).unwrap();
        let inspected = storage::inspect::inspect(dir.path(), &workspace).unwrap_err();
        let opened = open(dir.path()).unwrap_err();
        for error in [inspected, opened] {
            assert!(
                error.is_of_the_disk() && !error.leaves_joining(),
                "{part}: {error:?}"
            );
            assert!(
                error.refused_path().unwrap().starts_with(&path),
                "{part}: {error}"
            );
        }
        fs::remove_file(&path).unwrap();
        fs::rename(elsewhere.path().join("kept"), &path).unwrap();
        assert!(inspect(dir.path()).is_whole(), "{part}: something was changed");
    }
}

#[test]
fn a_directory_in_use_is_refused_and_nothing_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let workspace = Workspace::create(parent.path()).unwrap();
    let refused = storage::inspect::inspect(dir.path(), &workspace).unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused}");
    drop(store);
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next_and_one_in_use_stays() {
    let parent = tempfile::tempdir().unwrap();
    let in_use = Workspace::create(parent.path()).unwrap();
    let abandoned = parent.path().join("kv-server-inspect-1-1");
    fs::create_dir_all(abandoned.join("copy")).unwrap();
    fs::write(abandoned.join("in-use"), b"").unwrap();
    let other = parent.path().join("somebody-elses");
    fs::create_dir(&other).unwrap();
    drop(Workspace::create(parent.path()).unwrap());
    assert!(!abandoned.exists() && other.exists() && in_use.path().exists());
}

#[cfg(unix)]
#[test]
fn where_something_else_stands_in_the_place_of_a_file_neither_a_node_nor_an_inspection_begins() {
    let dir = tempfile::tempdir().unwrap();
    make_store(dir.path());
    let lock = dir.path().join("raft-storage.lock");
    let cannot_begin = || {
        open(dir.path()).expect_err("a node");
        let parent = tempfile::tempdir().unwrap();
        let workspace = Workspace::create(parent.path()).unwrap();
        storage::inspect::inspect(dir.path(), &workspace).expect_err("an inspection")
    };
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    assert!(cannot_begin().to_string().contains("raft-storage.lock"));
    fs::remove_dir(&lock).unwrap();
    std::os::unix::fs::symlink("nowhere/at/all", &lock).unwrap();
    assert!(cannot_begin().to_string().contains("raft-storage.lock"));
    fs::remove_file(&lock).unwrap();

    // Nothing waits for somebody at the other end.
    for part in [
        "raft-storage",
        "high-water",
        "journal/1",
        "raft-storage.lock",
        "sled/db",
    ] {
        let (part, aside) = (dir.path().join(part), dir.path().join("aside"));
        let was_there = fs::rename(&part, &aside).is_ok();
        let _socket = std::os::unix::net::UnixListener::bind(&part).unwrap();
        let told = cannot_begin().to_string();
        assert!(told.contains("neither a file nor a directory"), "{told}");
        fs::remove_file(&part).unwrap();
        if was_there {
            fs::rename(&aside, &part).unwrap();
        }
    }
    open(dir.path()).unwrap();
}

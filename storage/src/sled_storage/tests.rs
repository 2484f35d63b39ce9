use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use raft_core::{
    Configuration, HardState, LogIndex, LogRead, NodeId, Payload, SnapshotMeta, Standing, Storage as _, Term,
    Write,
};

use super::{FileSnapshots, Options, SledStorage, open_within_bounds};
use crate::changes::Records as _;
use crate::conformance::{command, cut_snapshot, read_back};
use crate::directory::{DataDir, StoreId};
use crate::durability::Hook;
use crate::error::StorageError;
use crate::hard_state::{Identity, ROOT_KEY, SMALL_RECORD_LIMIT_BYTES};
use crate::overlay::{Batch, Change, View};
use crate::record::RecordKey;
use crate::{restore, sealed};

fn identity() -> Identity {
    Identity {
        cluster_id: "test".to_owned(),
        node_id: NodeId(1),
    }
}

fn open(dir: &Path) -> SledStorage {
    let initial = Configuration::of_voters([NodeId(1)]);
    SledStorage::open(dir, &identity(), &initial, &Options::default()).unwrap()
}

fn vote(term: u64) -> Write {
    Write::HardState(HardState {
        current_term: Term(term),
        voted_for: None,
        ..HardState::default()
    })
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.write(&[vote(1)]).unwrap();
    let before = store.restore().unwrap();
    store.tree.journal().break_sync(true);
    let first = store.write(&[vote(2)]).unwrap_err();
    assert!(
        matches!(first, StorageError::Io { action: "sync", .. }),
        "{first:?}"
    );
    let message = first.to_string();
    assert!(
        message.contains("journal/") && message.contains("Check the disk"),
        "{message}"
    );
    // The disk is well again, and it changes nothing.
    store.tree.journal().break_sync(false);
    for refused in [
        store.write(&[vote(3)]),
        store.write(&[]),
        store.restore().map(drop),
    ] {
        assert_eq!(refused.unwrap_err().to_string(), message);
    }
    drop(store);
    let after = open(dir.path()).restore().unwrap();
    assert!(
        after == before || after.hard_state.current_term == Term(2),
        "{after:?}"
    );
}

#[test]
fn a_batch_whose_sync_failed_is_not_counted_as_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.write(&[vote(1)]).unwrap();
    let acknowledged = store.state.root.batch;
    store.tree.journal().break_sync(true);
    store.write(&[vote(2)]).unwrap_err();
    drop(store);
    let (_, recorded) = crate::high_water::HighWater::open(dir.path()).unwrap();
    assert_eq!(recorded, acknowledged);
}

#[test]
fn the_number_of_a_vote_is_on_the_disk_when_it_is_acknowledged() {
    let disk = faulty_disk::Disk::new();
    let mount = match disk.mount() {
        Ok(mount) => mount,
        Err(unavailable) => return println!("{unavailable}"),
    };
    let mut store = open(&mount.path().join("node"));
    let mut recorded_after = |write: Write| {
        store.write(&[write]).unwrap();
        let after = tempfile::tempdir().unwrap();
        let left = disk.after_power_loss(faulty_disk::Survival::Nothing);
        left.write_to(after.path()).unwrap();
        let (_, recorded) = crate::high_water::HighWater::open(&after.path().join("node")).unwrap();
        (recorded, store.state.root.batch)
    };
    let (recorded, voted) = recorded_after(vote(1));
    assert_eq!(recorded, voted);
    // Appends are many, and each of them has its sync of the journal: they are spared this one.
    let (recorded, appended) = recorded_after(Write::Append(vec![command(1, 1, 9)]));
    assert_eq!((recorded, appended), (voted, voted + 1));
}

/// Options with which the journal is soon full.
fn small_journal() -> Options {
    Options {
        journal_bytes: 64 * 1024,
        checkpoint_wait: Duration::from_secs(60),
        ..Options::default()
    }
}

#[test]
fn a_store_whose_creation_was_cut_short_still_joins() {
    let dir = tempfile::tempdir().unwrap();
    let claimed = DataDir::claim(dir.path()).unwrap();
    claimed.begin_creation(&identity(), StoreId::draw(true)).unwrap();
    drop(claimed);
    let restored = open(dir.path()).restore().unwrap();
    assert_eq!(restored.hard_state.standing, Standing::Joining);
}

fn open_small(dir: &Path) -> Result<SledStorage, StorageError> {
    let initial = Configuration::of_voters([NodeId(1)]);
    SledStorage::open(dir, &identity(), &initial, &small_journal())
}

/// Opens the store in `dir`, with `hook` called before each batch that goes into sled, and appends until
/// that fails. Yields the failed store, the failure, and the last index that was acknowledged.
fn append_until_failure(dir: &Path, options: &Options, hook: Hook) -> (SledStorage, StorageError, u64) {
    let owner = open_small(dir).unwrap().owner;
    let claimed = Arc::new(DataDir::claim(dir).unwrap());
    let mut tree = open_within_bounds(&claimed, options).unwrap();
    tree.set_hook(hook);
    let mut store = SledStorage::open_over(tree, claimed, owner, options).unwrap();
    for index in 1..10_000 {
        if let Err(failure) = store.write(&[Write::Append(vec![command(1, index, 5000)])]) {
            return (store, failure, index - 1);
        }
    }
    panic!("two full files of the journal and no failure");
}

fn assert_has_all(dir: &Path, acknowledged: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut store = loop {
        match open_small(dir) {
            Ok(store) => break store,
            // A thread that was left behind still has the directory.
            Err(StorageError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let entries = store.restore().unwrap().entries;
    let all: Vec<_> = (1..=acknowledged).map(|index| command(1, index, 5000)).collect();
    assert!(entries == all, "{} of {acknowledged} entries", entries.len());
    store.checkpoint().unwrap();
}

#[test]
fn a_database_that_hangs_fails_the_store_in_bounded_time() {
    let dir = tempfile::tempdir().unwrap();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let hang = move || {
        let _ = gate.lock().unwrap().recv();
        Ok(())
    };
    let options = Options {
        checkpoint_wait: Duration::from_millis(100),
        ..small_journal()
    };
    let (mut store, failure, acknowledged) = append_until_failure(dir.path(), &options, Arc::new(hang));
    assert!(matches!(failure, StorageError::NoAnswer { .. }), "{failure:?}");
    let message = failure.to_string();
    assert!(
        message.contains("sled/db") && message.contains("the disk does not answer"),
        "{message}"
    );
    // One file became full after the other, and commits went on in the second.
    assert!(acknowledged > 11, "{acknowledged}");
    assert_eq!(store.write(&[]).unwrap_err().to_string(), message);
    // Closing the store does not hang either, and the directory stays locked as long as sled is open.
    drop(store);
    let refused = open_small(dir.path()).unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused:?}");
    drop(release);
    assert_has_all(dir.path(), acknowledged);
}

#[test]
fn a_database_that_fails_fails_the_store_at_a_later_write() {
    let full = || {
        let error = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Err(StorageError::io("write", Path::new("sled/db"), error))
    };
    let panicking = || panic!("page 7 is odd");
    let hooks: [(Hook, &str); 2] = [
        (Arc::new(full), "no storage space"),
        (Arc::new(panicking), "page 7"),
    ];
    for (hook, cause) in hooks {
        let dir = tempfile::tempdir().unwrap();
        let (store, failure, acknowledged) = append_until_failure(dir.path(), &small_journal(), hook);
        assert!(failure.to_string().contains(cause), "{failure}");
        assert!(failure.to_string().contains("sled/db"), "{failure}");
        drop(store);
        assert_has_all(dir.path(), acknowledged);
    }
}

#[test]
fn forgotten_records_are_removed_a_few_at_a_time_until_none_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let appends: Vec<Write> = (1..=1200)
        .map(|index| Write::Append(vec![command(1, index, 9)]))
        .collect();
    store.write(&appends).unwrap();
    let mut writer = store
        .snapshots()
        .create(LogIndex(1200), Term(1), &Configuration::default())
        .unwrap();
    writer.write_all(b"state").unwrap();
    let snapshot = writer.finish().unwrap();
    let mut left = vec![store.state.spans.len()];
    store
        .write(&[Write::Compact {
            snapshot,
            first_retained: LogIndex(1200),
        }])
        .unwrap();
    for term in 2..4 {
        left.push(store.state.spans.len());
        store.write(&[vote(term)]).unwrap();
    }
    left.push(store.state.spans.len());
    assert_eq!(left, [1200, 688, 176, 1]);
    drop(store);
    assert_eq!(open(dir.path()).restore().unwrap().entries, [command(1, 1200, 9)]);
}

#[test]
fn the_database_is_rid_of_a_log_a_few_records_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let owner = open(dir.path()).owner;
    let claimed = Arc::new(DataDir::claim(dir.path()).unwrap());
    let options = Options::default();
    let mut tree = open_within_bounds(&claimed, &options).unwrap();
    let batches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&batches);
    tree.set_hook(Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }));
    let mut store = SledStorage::open_over(tree, claimed, owner, &options).unwrap();
    for index in 1..=160 {
        store
            .write(&[Write::Append(vec![command(1, index, 30_000)])])
            .unwrap();
    }
    store.checkpoint().unwrap();
    let snapshot = crate::conformance::cut_snapshot(&*store.snapshots(), 160, 1, b"state").unwrap();
    let compact = Write::Compact {
        snapshot,
        first_retained: LogIndex(160),
    };
    store.write(&[compact]).unwrap();
    batches.store(0, Ordering::Relaxed);
    store.checkpoint().unwrap();
    let batches = batches.load(Ordering::Relaxed);
    assert!(batches > 4, "4.7 MB of records were removed in {batches} batches");
}

#[test]
fn a_log_that_is_forgotten_soon_hardly_reaches_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let owner = open_small(dir.path()).unwrap().owner;
    let claimed = Arc::new(DataDir::claim(dir.path()).unwrap());
    let mut tree = open_within_bounds(&claimed, &small_journal()).unwrap();
    let batches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&batches);
    tree.set_hook(Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }));
    let mut store = SledStorage::open_over(tree, claimed, owner, &small_journal()).unwrap();
    for index in 1..=220 {
        store
            .write(&[Write::Append(vec![command(1, index, 5_000)])])
            .unwrap();
        if index % 3 == 0 {
            let snapshot = crate::conformance::cut_snapshot(&*store.snapshots(), index, 1, b"state").unwrap();
            let first_retained = LogIndex(index);
            store
                .write(&[Write::Compact {
                    snapshot,
                    first_retained,
                }])
                .unwrap();
        }
    }
    // Eleven entries fill a file. For each file there is the record of the snapshot, and the root.
    let (files, batches) = (220 / 10, batches.load(Ordering::Relaxed));
    assert!(batches <= 2 * files, "{batches} batches for {files} files");
    assert_eq!(store.restore().unwrap().entries.len(), 2);
}

#[test]
fn what_the_disk_has_changed_in_the_journal_is_not_carried_into_the_database() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    let mut store = open_small(dir.path()).unwrap();
    for index in 1..=5 {
        store
            .write(&[Write::Append(vec![command(1, index, 5_000)])])
            .unwrap();
    }
    let path = dir.path().join("journal/0");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = store.checkpoint().unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("journal/0"), "{error}");
    assert_eq!(
        store.write(&[vote(1)]).unwrap_err().to_string(),
        error.to_string()
    );
}

/// Appends of `length` bytes, until they are in sled, in the full file of the journal, and in the one that is
/// written. Yields the last index.
fn append_everywhere(store: &mut SledStorage, length: usize) -> u64 {
    for index in 1..=100 {
        store
            .write(&[Write::Append(vec![command(1, index, length)])])
            .unwrap();
    }
    100
}

#[test]
fn entries_are_read_back_from_wherever_they_are() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    let mut store = open_small(dir.path()).unwrap();
    let last = append_everywhere(&mut store, 5_000);
    for from in 1..=last {
        let entries = read_back(&mut store, from, last, usize::MAX).unwrap();
        assert!(
            entries
                == (from..=last)
                    .map(|index| command(1, index, 5_000))
                    .collect::<Vec<_>>()
        );
    }
    let piece = read_back(&mut store, 3, 90, 16_000).unwrap();
    assert_eq!(piece.len(), 3);
}

#[test]
fn an_entry_that_sled_has_lost_is_told_and_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    let mut store = open_small(dir.path()).unwrap();
    let last = append_everywhere(&mut store, 5_000);
    // As if one record were of another batch: its serial does not follow.
    store.state.spans.remove(4);
    let error = read_back(&mut store, 1, last, usize::MAX).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("sled/db") && error.contains("index 5"), "{error}");
}

#[test]
fn an_entry_that_the_journal_gives_otherwise_than_it_was_written_is_told_with_the_name_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let entry = command(1, 1, 5_000);
    store.write(&[Write::Append(vec![entry.clone()])]).unwrap();
    let Payload::Command(written) = &entry.payload else {
        panic!("{entry:?} is no command");
    };
    let is_in = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes
            .windows(written.len())
            .position(|window| window == &written[..])
    };
    let files = crate::journal::JOURNAL_FILES.map(|name| dir.path().join("journal").join(name));
    let (path, at) = files
        .iter()
        .find_map(|path| is_in(path).map(|at| (path, at)))
        .unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let error = read_back(&mut store, 1, 1, usize::MAX).unwrap_err().to_string();
    let name = path.display().to_string();
    assert!(error.contains(&name) && error.contains("index 1"), "{error}");
}

#[test]
fn a_store_that_failed_reads_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.write(&[Write::Append(vec![command(1, 1, 9)])]).unwrap();
    store.tree.journal().break_sync(true);
    let failure = store.write(&[vote(2)]).unwrap_err().to_string();
    let error = read_back(&mut store, 1, 1, usize::MAX).unwrap_err();
    assert_eq!(error.to_string(), failure);
}

#[test]
fn debug_output_does_not_print_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.write(&[Write::Append(vec![command(1, 1, 5000)])]).unwrap();
    assert!(format!("{store:?}").len() < 1000);
}

#[test]
fn what_is_carried_into_the_database_counts_as_progress() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    let progress = store.progress();
    let before = progress.steps();
    store.write(&[Write::Append(vec![command(1, 1, 10)])]).unwrap();
    store.checkpoint().unwrap();
    assert!(progress.steps() > before);
}

#[test]
fn what_is_remembered_of_the_records_is_what_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    let append = |term, first, last| {
        let entries = (first..=last).map(|index| command(term, index, 10));
        Write::Append(entries.collect())
    };
    let cut = |store: &SledStorage, index| cut_snapshot(store.snapshots.as_ref(), index, 2, b"").unwrap();
    let write = |mut store: SledStorage, write| {
        store.write(&[write]).unwrap();
        let remembered = store.state.clone();
        drop(store);
        let store = open_small(dir.path()).unwrap();
        assert_eq!(store.state, remembered);
        store
    };
    for before in [append(1, 1, 5), append(2, 4, 4)] {
        store = write(store, before);
    }
    let older = cut(&store, 2);
    let compact = Write::Compact {
        snapshot: older.clone(),
        first_retained: LogIndex(2),
    };
    store = write(store, compact);
    store = write(store, append(3, 3, 6));
    let newer = cut(&store, 9);
    let install = Write::InstallSnapshot {
        snapshot: newer.clone(),
        keep_suffix: false,
    };
    store.write(&[install]).unwrap();
    assert!(
        !dir.path()
            .join("snapshots")
            .join(FileSnapshots::name_of(&older))
            .exists()
    );
    store = write(store, append(3, 10, 11));
    // Without its file no snapshot comes on record.
    let missing = SnapshotMeta {
        checksum: !newer.checksum,
        ..newer
    };
    let compact = Write::Compact {
        snapshot: missing,
        first_retained: LogIndex(10),
    };
    store.write(&[compact]).unwrap_err();
}

#[test]
fn a_record_that_the_database_alone_has_loses_its_end_when_that_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    let entries = |term, first, last| (first..=last).map(move |index| command(term, index, 10));
    store.write(&[Write::Append(entries(1, 1, 5).collect())]).unwrap();
    store.checkpoint().unwrap();
    store.write(&[Write::Append(entries(2, 4, 6).collect())]).unwrap();
    let expected: Vec<_> = entries(1, 1, 3).chain(entries(2, 4, 6)).collect();
    assert_eq!(store.restore().unwrap().entries, expected);
    drop(store);
    assert_eq!(
        open_small(dir.path()).unwrap().restore().unwrap().entries,
        expected
    );
}

/// Opens the store in `dir`, with `hook` called before each batch that goes into sled.
fn open_with_hook(dir: &Path, hook: Hook) -> SledStorage {
    let owner = open_small(dir).unwrap().owner;
    let claimed = Arc::new(DataDir::claim(dir).unwrap());
    let mut tree = open_within_bounds(&claimed, &small_journal()).unwrap();
    tree.set_hook(hook);
    SledStorage::open_over(tree, claimed, owner, &small_journal()).unwrap()
}

/// Entries of which eleven fill a file of the journal.
fn append(store: &mut SledStorage, index: u64) {
    store
        .write(&[Write::Append(vec![command(1, index, 5_000)])])
        .unwrap();
}

#[test]
fn the_database_has_all_of_a_full_journal_file_before_the_other_one_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    let mut last_of_the_full_file = 0;
    for index in 1..=22 {
        append(&mut store, index);
        // This waits for the piece that is being carried.
        store.restore().unwrap();
        if index == 11 {
            last_of_the_full_file = store.state.root.batch;
        }
    }
    drop(store);
    let claimed = Arc::new(DataDir::claim(dir.path()).unwrap());
    let tree = open_within_bounds(&claimed, &small_journal()).unwrap();
    let in_sled = restore::last_batch(&View::new(&tree, &[])).unwrap();
    assert_eq!(in_sled, last_of_the_full_file);
}

/// A store that has begun to carry its first journal file into sled, where nothing goes on until the sender
/// is dropped, and how many batches were to go into sled. Eleven entries are in the full file, three in the
/// other.
fn carrying_into_a_database_that_hangs(dir: &Path) -> (SledStorage, Arc<AtomicUsize>, mpsc::Sender<()>) {
    let (release, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let batches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&batches);
    let hook = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let _ = gate.lock().unwrap().recv();
        Ok(())
    };
    let mut store = open_with_hook(dir, Arc::new(hook));
    for index in 1..=14 {
        append(&mut store, index);
    }
    (store, batches, release)
}

#[test]
fn what_the_journal_has_is_read_back_at_once_though_the_database_hangs() {
    let dir = tempfile::tempdir().unwrap();
    // The sender is dropped first.
    let (mut store, _, _release) = carrying_into_a_database_that_hangs(dir.path());
    let read = LogRead {
        peer: NodeId(2),
        from: LogIndex(10),
        to: LogIndex(13),
        max_bytes: usize::MAX,
    };
    let (reply, answer) = mpsc::channel();
    store.read(&read, Box::new(move |entries| drop(reply.send(entries))));
    let entries = answer.try_recv().expect("nobody waits for the database");
    let expected: Vec<_> = (10..=13).map(|index| command(1, index, 5_000)).collect();
    assert!(entries.unwrap() == expected);
}

#[test]
fn what_is_forgotten_while_the_database_hangs_is_not_given_to_it_later() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, batches, release) = carrying_into_a_database_that_hangs(dir.path());
    for index in 15..=20 {
        append(&mut store, index);
    }
    let snapshot = cut_snapshot(&*store.snapshots(), 20, 1, b"state").unwrap();
    let compact = Write::Compact {
        snapshot,
        first_retained: LogIndex(20),
    };
    store.write(&[compact]).unwrap();
    drop(release);
    store.checkpoint().unwrap();
    let batches = batches.load(Ordering::Relaxed);
    // Of the full file the piece that hung, with its places, and the root; as much of the other one, and a
    // spacer.
    assert!(batches <= 8, "{batches} batches");
}

#[test]
fn after_its_use_a_journal_file_that_a_large_batch_made_longer_is_as_short_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    let large = (1..=10).map(|index| command(1, index, 30_000));
    store.write(&[Write::Append(large.collect())]).unwrap();
    let lengths = || ["journal/0", "journal/1"].map(|file| dir.path().join(file).metadata().unwrap().len());
    assert!(lengths()[1] > 300_000);
    for term in 1..=4 {
        store.checkpoint().unwrap();
        assert_eq!(lengths(), [64 * 1024; 2]);
        store.write(&[vote(term)]).unwrap();
    }
    drop(store);
    let restored = open_small(dir.path()).unwrap().restore().unwrap();
    assert_eq!(restored.hard_state.current_term, Term(4));
}

#[test]
fn a_checkpoint_of_an_empty_journal_leaves_it_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    store.write(&[vote(1)]).unwrap();
    store.checkpoint().unwrap();
    let files = || ["journal/0", "journal/1"].map(|file| std::fs::read(dir.path().join(file)).unwrap());
    let before = files();
    store.checkpoint().unwrap();
    assert!(files() == before);
}

#[test]
fn a_full_journal_file_is_carried_to_its_end_however_many_of_its_records_are_gone_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path()).unwrap();
    let number = store.state.root.batch + 1;
    // More than two pieces can pass over, of which one is begun by the second write.
    let keys = (1..=70_000).map(|index| RecordKey::new(LogIndex(index), 0).to_bytes().to_vec());
    let keys: Vec<Vec<u8>> = keys.collect();
    let put = |key: &Vec<u8>| Change {
        value: Some(sealed::seal(key, &(), 0).unwrap().into()),
        existed: false,
    };
    let removal = Change {
        value: None,
        existed: true,
    };
    // Every batch has it.
    let root = Change {
        value: Some(
            sealed::seal(ROOT_KEY, &store.state.root, SMALL_RECORD_LIMIT_BYTES)
                .unwrap()
                .into(),
        ),
        existed: true,
    };
    let (last, gone) = keys.split_last().unwrap();
    let put = keys.iter().map(|key| (key.clone(), put(key)));
    let removed = gone.iter().map(|key| (key.clone(), removal.clone()));
    let batches: [BTreeMap<_, _>; 2] = [put.collect(), removed.collect()];
    for (number, mut changes) in (number..).zip(batches) {
        changes.insert(ROOT_KEY.to_vec(), root.clone());
        store.tree.commit(Batch { number, changes }).unwrap();
    }
    store.tree.checkpoint().unwrap();
    assert!(store.tree.get(last).unwrap().is_some());
    assert_eq!(store.tree.get(&keys[0]).unwrap(), None);
}

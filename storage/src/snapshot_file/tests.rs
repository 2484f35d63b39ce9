use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use raft_core::{Configuration, LogIndex, NodeId, SnapshotMeta, Term};

use super::{CHUNK_BYTES, FileSnapshots, MemorySnapshots, SnapshotStore, StagedVerdict};
use crate::error::StorageError;

fn cut(store: &dyn SnapshotStore, payload: &[u8]) -> SnapshotMeta {
    let configuration = Configuration::of_voters([1, 2, 3].map(NodeId));
    let mut writer = store.create(LogIndex(7), Term(2), &configuration).unwrap();
    writer.write_all(payload).unwrap();
    writer.finish().unwrap()
}

fn file_in(dir: &Path) -> std::path::PathBuf {
    fs::read_dir(dir).unwrap().next().unwrap().unwrap().path()
}

/// Reads the file in each way that a node does; the first damage met.
fn read_in_every_way(store: &dyn SnapshotStore, snapshot: &SnapshotMeta) -> [Result<Vec<u8>, String>; 2] {
    let content = || {
        let mut payload = Vec::new();
        let mut content = store.open(snapshot).map_err(|error| error.to_string())?.content();
        match content.read_to_end(&mut payload) {
            Ok(_) => Ok(payload),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                Err(error.to_string())
            }
        }
    };
    let sent = || {
        let mut reader = store.open(snapshot)?;
        let mut bytes = Vec::new();
        loop {
            let chunk = reader.read_chunk(bytes.len() as u64, 100)?;
            if chunk.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&chunk);
        }
    };
    [content(), sent().map_err(|error: StorageError| error.to_string())]
}

fn receive(store: &dyn SnapshotStore, snapshot: &SnapshotMeta, bytes: &[u8]) -> StagedVerdict {
    store.stage(snapshot, 0, bytes).unwrap();
    store.finish_staged(snapshot).unwrap()
}

#[test]
fn the_meta_describes_the_bytes_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let snapshot = cut(&store, &vec![5; CHUNK_BYTES + 10]);
    let bytes = fs::read(file_in(dir.path())).unwrap();
    assert_eq!(snapshot.size_bytes, bytes.len() as u64);
    assert_eq!(snapshot.checksum, crc32fast::hash(&bytes));
    assert_eq!(snapshot, cut(&MemorySnapshots::new(), &vec![5; CHUNK_BYTES + 10]));
}

#[test]
fn a_file_of_several_pieces_comes_back_as_it_was_cut_and_as_it_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let payload: Vec<u8> = (0..=250).cycle().take(5 << 19).collect();
    let snapshot = cut(&store, &payload);
    let bytes = fs::read(file_in(dir.path())).unwrap();
    assert!(read_in_every_way(&store, &snapshot) == [Ok(payload), Ok(bytes.clone())]);
    fs::remove_file(file_in(dir.path())).unwrap();
    for (number, chunk) in bytes.chunks(1 << 19).enumerate() {
        store.stage(&snapshot, (number << 19) as u64, chunk).unwrap();
    }
    assert_eq!(store.finish_staged(&snapshot).unwrap(), StagedVerdict::Good);
    assert!(fs::read(file_in(dir.path())).unwrap() == bytes);
}

#[test]
fn the_space_of_an_older_snapshot_is_freed_before_the_store_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let older = cut(&store, b"older");
    let newer = SnapshotMeta {
        last_included_index: older.last_included_index.next(),
        ..older.clone()
    };
    store.remove_except(&newer).unwrap();
    assert!(matches!(
        store.open(&older),
        Err(StorageError::SnapshotMissing { .. })
    ));
    drop(store);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn who_reads_an_older_snapshot_reads_on_while_and_after_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    // Removed step by step, were nobody reading it.
    let payload: Vec<u8> = (0..=250).cycle().take(5 << 20).collect();
    let older = cut(&store, &payload);
    let reader = store.open(&older).unwrap();
    let newer = SnapshotMeta {
        last_included_index: older.last_included_index.next(),
        ..older.clone()
    };
    store.remove_except(&newer).unwrap();
    let begun = Instant::now();
    while fs::read_dir(dir.path()).unwrap().count() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not removed");
        thread::sleep(Duration::from_millis(1));
    }
    let mut read = Vec::new();
    reader.content().read_to_end(&mut read).unwrap();
    assert!(read == payload);
}

#[test]
fn a_file_that_something_else_removed_is_told_apart_from_one_that_was_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let snapshot = cut(&store, b"state");
    let path = file_in(dir.path());
    fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        let error = store.open(&snapshot).map(drop).unwrap_err();
        assert!(error.calls_for_another_snapshot(), "{error}");
        let message = error.to_string();
        assert!(
            message.contains(&format!("{} is gone", path.display())),
            "{message}"
        );
        store.remove_except(&snapshot).unwrap();
    }
    let newer = SnapshotMeta {
        last_included_index: snapshot.last_included_index.next(),
        ..snapshot.clone()
    };
    store.remove_except(&newer).unwrap();
    let error = store.open(&snapshot).map(drop).unwrap_err();
    assert!(matches!(error, StorageError::SnapshotMissing { .. }), "{error}");
    assert!(!error.calls_for_another_snapshot());
}

#[test]
fn every_flipped_byte_is_found_on_loading_on_sending_and_on_receiving() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let snapshot = cut(&store, b"a small state machine");
    let path = file_in(dir.path());
    let intact = fs::read(&path).unwrap();
    assert_eq!(
        read_in_every_way(&store, &snapshot),
        [Ok(b"a small state machine".to_vec()), Ok(intact.clone())]
    );
    for bit in 0..intact.len() * 8 {
        let mut damaged = intact.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &damaged).unwrap();
        for read in read_in_every_way(&store, &snapshot) {
            let what = read.expect_err("damage must be found");
            let told = format!("{} is damaged", path.display());
            assert!(what.contains(&told), "bit {bit}: {what}");
        }
        assert_eq!(
            receive(&store, &snapshot, &damaged),
            StagedVerdict::Damaged,
            "bit {bit}"
        );
    }
    assert_eq!(receive(&store, &snapshot, &intact), StagedVerdict::Good);
    assert_eq!(read_in_every_way(&store, &snapshot)[1], Ok(intact));
}

#[test]
fn every_shortening_and_anything_appended_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let snapshot = cut(&store, b"state");
    let path = file_in(dir.path());
    let intact = fs::read(&path).unwrap();
    for length in 0..intact.len() {
        fs::write(&path, &intact[..length]).unwrap();
        assert!(store.open(&snapshot).is_err(), "{length} bytes");
        assert_eq!(
            receive(&store, &snapshot, &intact[..length]),
            StagedVerdict::Damaged,
            "{length} bytes"
        );
    }
    fs::write(&path, [intact, vec![0]].concat()).unwrap();
    assert!(store.open(&snapshot).is_err());
}

#[test]
fn chunks_that_change_places_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let payload: Vec<u8> = [vec![1; CHUNK_BYTES], vec![2; CHUNK_BYTES]].concat();
    let snapshot = cut(&store, &payload);
    let path = file_in(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let trailer = bytes.len() - super::format::TRAILER_BYTES;
    let start = trailer - 2 * super::format::FRAME_BYTES;
    bytes[start..trailer].rotate_left(super::format::FRAME_BYTES);
    fs::write(&path, &bytes).unwrap();
    for read in read_in_every_way(&store, &snapshot) {
        let what = read.expect_err("swapped chunks must be found");
        assert!(what.contains("chunk 0"), "{what}");
    }
}

#[test]
fn another_file_of_the_same_index_and_size_is_not_taken_for_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let one = cut(&store, b"one");
    let one_path = file_in(dir.path());
    let two = cut(&store, b"two");
    assert_ne!(one.checksum, two.checksum);
    for (snapshot, payload) in [(&one, b"one"), (&two, b"two")] {
        assert_eq!(read_in_every_way(&store, snapshot)[0], Ok(payload.to_vec()));
    }
    let others = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
    let two_path = others.into_iter().find(|path| *path != one_path).unwrap();
    fs::copy(two_path, one_path).unwrap();
    let what = store.open(&one).err().unwrap().to_string();
    assert!(what.contains("another file"), "{what}");
}

#[test]
fn damage_in_one_chunk_spares_the_others_when_sending() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let snapshot = cut(&store, &vec![3; 3 * CHUNK_BYTES]);
    let path = file_in(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let mut reader = store.open(&snapshot).unwrap();
    assert_eq!(reader.read_chunk(0, CHUNK_BYTES).unwrap(), bytes[..CHUNK_BYTES]);
    assert!(reader.read_chunk(middle as u64, 1).is_err());
    assert_eq!(
        reader.read_chunk(snapshot.size_bytes - 10, 100).unwrap(),
        bytes[bytes.len() - 10..]
    );
    assert!(reader.read_chunk(snapshot.size_bytes, 100).unwrap().is_empty());
    assert!(reader.read_chunk(u64::MAX, 100).unwrap().is_empty());
    assert!(reader.read_chunk(0, 0).unwrap().is_empty());
}

#[test]
fn a_header_that_claims_absurd_lengths_is_refused() {
    let store = MemorySnapshots::new();
    let intact = cut(&store, b"state");
    let mut bytes = store
        .open(&intact)
        .unwrap()
        .read_chunk(0, 1 << 20)
        .unwrap()
        .to_vec();
    bytes[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(receive(&store, &intact, &bytes), StagedVerdict::Damaged);
    let huge = SnapshotMeta {
        size_bytes: u64::MAX,
        ..intact
    };
    assert_eq!(receive(&store, &huge, &bytes), StagedVerdict::Damaged);
}

#[test]
fn an_unfinished_snapshot_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let mut writer = store
        .create(LogIndex(7), Term(2), &Configuration::default())
        .unwrap();
    writer.write_all(&vec![0; 2 * CHUNK_BYTES]).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_file_on_record_is_lost_only_where_something_else_removed_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let snapshot = cut(&store, b"state");
    let path = file_in(dir.path());
    assert_eq!(store.lost(), None, "none is on record");
    store.keep_only(&snapshot).unwrap();
    assert_eq!(store.lost(), None);
    fs::remove_file(&path).unwrap();
    assert_eq!(store.lost(), Some((snapshot.clone(), path)));
    assert_eq!(cut(&store, b"state"), snapshot, "equal states give the very file");
    assert_eq!(store.lost(), None);
    store.keep_only(&SnapshotMeta::default()).unwrap();
}

#[test]
fn a_snapshot_that_a_newer_one_replaces_is_never_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut lost = None;
            while !is_done.load(std::sync::atomic::Ordering::SeqCst) && lost.is_none() {
                lost = store.lost();
            }
            lost
        });
        for index in 1..300 {
            let snapshot = crate::conformance::cut_snapshot(&store, index, 1, b"state").unwrap();
            store.remove_except(&snapshot).unwrap();
        }
        is_done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(looks.join().unwrap(), None);
    });
}

#[test]
fn leftovers_of_a_crash_are_removed_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("0.tmp"), b"half a snapshot").unwrap();
    fs::write(dir.path().join("notes.txt"), b"not ours").unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let snapshot = cut(&store, b"state");
    store.keep_only(&snapshot).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    store.keep_only(&SnapshotMeta::default()).unwrap();
    assert_eq!(file_in(dir.path()), dir.path().join("notes.txt"));
}

#[test]
fn two_snapshots_can_be_cut_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let configuration = Configuration::default();
    let mut one = store.create(LogIndex(1), Term(1), &configuration).unwrap();
    let mut two = store.create(LogIndex(2), Term(1), &configuration).unwrap();
    one.write_all(b"one").unwrap();
    two.write_all(b"two").unwrap();
    let (one, two) = (one.finish().unwrap(), two.finish().unwrap());
    assert_eq!(read_in_every_way(&store, &one)[0], Ok(b"one".to_vec()));
    assert_eq!(read_in_every_way(&store, &two)[0], Ok(b"two".to_vec()));
}

#[test]
fn a_leftover_that_cannot_be_removed_is_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("0.tmp")).unwrap();
    FileSnapshots::at(dir.path()).unwrap_err();
}

#[test]
fn the_empty_snapshot_has_no_file_to_lose() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    store.keep_only(&SnapshotMeta::default()).unwrap();
    assert_eq!(store.lost(), None);
    let memory = MemorySnapshots::new();
    cut(&memory, b"state");
    assert_eq!(memory.lost(), None);
}

#[test]
fn a_bit_of_a_file_in_memory_is_flipped_where_it_was_asked_for() {
    let store = MemorySnapshots::new();
    let snapshot = cut(&store, b"state");
    let read = || read_in_every_way(&store, &snapshot);
    let whole = read();
    assert!(whole.iter().all(Result::is_ok));
    for bit in [0, 11, 8 * snapshot.size_bytes - 1] {
        assert!(store.flip_bit(&snapshot, bit));
        assert!(read().iter().all(Result::is_err), "bit {bit}");
        assert!(store.flip_bit(&snapshot, bit));
        assert!(read() == whole, "bit {bit}");
    }
    assert!(!store.flip_bit(&snapshot, 8 * snapshot.size_bytes));
    assert!(!store.flip_bit(&SnapshotMeta::default(), 0));
}

#[test]
fn it_does_not_matter_in_which_pieces_a_payload_is_written() {
    let store = MemorySnapshots::new();
    let payload = vec![5; 2 * CHUNK_BYTES + 10];
    let at_once = cut(&store, &payload);
    let mut writer = store
        .create(LogIndex(7), Term(2), &at_once.configuration)
        .unwrap();
    let (some, rest) = payload.split_at(10);
    writer.write_all(some).unwrap();
    writer.write_all(rest).unwrap();
    assert_eq!(writer.finish().unwrap(), at_once);
}

#[test]
fn a_file_that_was_damaged_on_the_way_is_not_put_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileSnapshots::at(dir.path()).unwrap();
    let snapshot = cut(&store, b"state");
    let mut bytes = fs::read(file_in(dir.path())).unwrap();
    fs::remove_file(file_in(dir.path())).unwrap();
    let payload = bytes.windows(5).position(|bytes| bytes == b"state").unwrap();
    bytes[payload] ^= 1;
    assert_eq!(receive(&store, &snapshot, &bytes), StagedVerdict::Damaged);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    bytes[payload] ^= 1;
    assert_eq!(receive(&store, &snapshot, &bytes), StagedVerdict::Good);
}

//! Scenarios about compaction, installed snapshots and the files behind them.

use std::io::Read as _;

use raft_core::{LogIndex, SnapshotMeta, Storage as _, Write};

use super::{Device, Scenario, Session, append, command, cut_snapshot, vote};
use crate::error::StorageError;
use crate::snapshot_file::{CHUNK_BYTES, SnapshotStore, StagedVerdict};

pub(super) fn scenarios<D: Device>() -> Vec<(&'static str, Scenario<D>)> {
    vec![
        (
            "compaction keeps the entries from the first retained one on",
            compaction_keeps_suffix,
        ),
        (
            "compaction inside a record hides the entries before",
            compaction_inside_a_record,
        ),
        (
            "the log goes on after a compaction of everything",
            compaction_of_everything,
        ),
        (
            "a compaction of thousands of records goes on over later writes",
            compaction_of_many_records,
        ),
        ("an installed snapshot replaces the whole log", install_replaces),
        (
            "an installed snapshot keeps the suffix when asked to",
            install_keeps_suffix,
        ),
        (
            "snapshot writes and appends mix in one batch, in order",
            snapshots_in_one_batch,
        ),
        (
            "snapshot writes that would lose entries are refused",
            broken_snapshots_are_refused,
        ),
        (
            "a superseded snapshot file goes, a newer one stays",
            superseded_files_go,
        ),
        (
            "a snapshot's payload of any length comes back",
            payloads_come_back,
        ),
        (
            "a snapshot sent in chunks of any size is received",
            chunks_are_received,
        ),
        (
            "chunks that do not continue what is staged are refused",
            misplaced_chunks_are_refused,
        ),
        (
            "what is staged is gone after a restart",
            staging_ends_with_a_restart,
        ),
    ]
}

fn compact(snapshot: &SnapshotMeta, first_retained: u64) -> Write {
    Write::Compact {
        snapshot: snapshot.clone(),
        first_retained: LogIndex(first_retained),
    }
}

fn install(snapshot: &SnapshotMeta, keep_suffix: bool) -> Write {
    Write::InstallSnapshot {
        snapshot: snapshot.clone(),
        keep_suffix,
    }
}

fn compaction_keeps_suffix<D: Device>(session: &mut Session<D>) {
    for first in [1, 5, 9, 13] {
        session.write(&[append(1, first..=first + 3)]);
    }
    let snapshot = session.cut(8);
    session.write(&[compact(&snapshot, 5)]);
    session.write(&[append(2, 17..=18)]);
    let snapshot = session.cut(16);
    session.write(&[compact(&snapshot, 17)]);
    session.write(&[append(3, 18..=20)]);
}

fn compaction_inside_a_record<D: Device>(session: &mut Session<D>) {
    session.write(&[append(1, 1..=10), append(1, 11..=20)]);
    let snapshot = session.cut(14);
    session.write(&[compact(&snapshot, 13)]);
    let snapshot = session.cut(15);
    session.write(&[compact(&snapshot, 2)]);
    session.write(&[append(2, 16..=17)]);
    let snapshot = session.cut(16);
    session.write(&[compact(&snapshot, 17)]);
    session.write(&[append(3, 17..=17)]);
    session.write(&[append(3, 18..=30)]);
}

fn compaction_of_everything<D: Device>(session: &mut Session<D>) {
    session.write(&[append(1, 1..=10)]);
    let snapshot = session.cut(10);
    session.write(&[compact(&snapshot, 11)]);
    session.write(&[vote(2, 2)]);
    session.write(&[append(2, 11..=12)]);
}

fn compaction_of_many_records<D: Device>(session: &mut Session<D>) {
    let appends: Vec<Write> = (1..=2000).map(|index| append(1, index..=index)).collect();
    session.write(&appends);
    let snapshot = session.cut(2000);
    session.write(&[compact(&snapshot, 1900)]);
    session.write(&[append(2, 2001..=2002)]);
    let snapshot = session.cut(2002);
    session.write(&[compact(&snapshot, 2003)]);
    session.write(&[append(3, 2003..=2005)]);
    session.write(&[append(4, 2004..=2004)]);
    for _ in 0..4 {
        session.write(&[vote(4, 1)]);
    }
    let snapshot = session.cut(3000);
    session.write(&[install(&snapshot, false)]);
}

fn install_replaces<D: Device>(session: &mut Session<D>) {
    let snapshot = session.cut(100);
    session.write(&[install(&snapshot, false)]);
    session.write(&[append(2, 101..=110)]);
    session.write(&[append(2, 111..=120)]);
    // The log reaches further than the snapshot and still goes, because it held another entry there.
    let snapshot = session.cut(115);
    session.write(&[install(&snapshot, false)]);
    session.write(&[append(3, 116..=117)]);
}

fn install_keeps_suffix<D: Device>(session: &mut Session<D>) {
    session.write(&[append(1, 1..=10), append(1, 11..=20)]);
    for (index, next) in [(5, 21), (10, 22), (12, 23)] {
        let snapshot = session.cut(index);
        session.write(&[install(&snapshot, true)]);
        session.write(&[append(2, next..=next)]);
    }
    let snapshot = session.cut(23);
    session.write(&[install(&snapshot, true)]);
    session.write(&[append(3, 24..=25)]);
}

fn snapshots_in_one_batch<D: Device>(session: &mut Session<D>) {
    let (first, second, third) = (session.cut(4), session.cut(9), session.cut(50));
    session.write(&[
        append(1, 1..=6),
        compact(&first, 3),
        append(2, 6..=12),
        compact(&second, 8),
        vote(2, 1),
    ]);
    let fourth = session.cut(52);
    // The restart in between has removed the file of the third, which no record named.
    let third_again = session.cut(50);
    assert_eq!(
        third, third_again,
        "{}: the same state gives the same file",
        session.name
    );
    session.write(&[
        install(&third_again, false),
        append(5, 51..=55),
        install(&fourth, true),
        append(6, 54..=60),
        vote(6, 2),
    ]);
}

fn broken_snapshots_are_refused<D: Device>(session: &mut Session<D>) {
    session.write(&[append(1, 1..=10)]);
    let snapshot = session.cut(11);
    session.must_refuse(
        "a snapshot cut behind the end of the log",
        &[compact(&snapshot, 5)],
    );
    let snapshot = session.cut(11);
    session.must_refuse(
        "a suffix of a log that does not hold the entry",
        &[install(&snapshot, true)],
    );
    let snapshot = session.cut(6);
    session.must_refuse("a compaction that loses entries", &[compact(&snapshot, 8)]);
    let absent = SnapshotMeta {
        checksum: 1,
        ..session.cut(6)
    };
    session.must_refuse("a snapshot without a file", &[compact(&absent, 5)]);
    let empty = SnapshotMeta::default();
    session.must_refuse("the empty snapshot", &[install(&empty, false)]);
    let snapshot = session.cut(6);
    session.write(&[compact(&snapshot, 3)]);
    session.must_refuse("an append into what the snapshot covers", &[append(2, 6..=7)]);
    let older = session.cut(5);
    session.must_refuse(
        "a snapshot older than the one on record",
        &[install(&older, false)],
    );
}

fn superseded_files_go<D: Device>(session: &mut Session<D>) {
    session.write(&[append(1, 1..=10)]);
    let old = session.cut(3);
    session.write(&[compact(&old, 1)]);
    let (recorded, unrecorded) = (session.cut(6), session.cut(8));
    if let Err(error) = session.store().write(&[compact(&recorded, 4)]) {
        session.fail(error);
    }
    session.model.apply_all(&[compact(&recorded, 4)]);
    let files = session.snapshots();
    assert!(is_missing(&*files, &old), "{}: the old file", session.name);
    assert!(
        files.open(&recorded).is_ok() && files.open(&unrecorded).is_ok(),
        "{}",
        session.name
    );
    session.restart();
    let files = session.snapshots();
    assert!(
        files.open(&recorded).is_ok(),
        "{}: the file on record, after a restart",
        session.name
    );
    assert!(
        is_missing(&*files, &unrecorded),
        "{}: a file that no record names",
        session.name
    );
}

fn is_missing(files: &dyn SnapshotStore, snapshot: &SnapshotMeta) -> bool {
    matches!(
        files.open(snapshot),
        Err(StorageError::SnapshotMissing { .. } | StorageError::SnapshotLost { .. })
    )
}

fn payload_of(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

fn payloads_come_back<D: Device>(session: &mut Session<D>) {
    let files = session.snapshots();
    for length in [
        0,
        1,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        3 * CHUNK_BYTES,
    ] {
        let payload = payload_of(length);
        let read = cut_snapshot(&*files, 7, 1, &payload).and_then(|snapshot| files.open(&snapshot));
        let mut found = Vec::new();
        match read.map(|reader| reader.content().read_to_end(&mut found)) {
            Ok(Ok(_)) => assert!(found == payload, "{}: {length} bytes", session.name),
            Ok(Err(error)) => session.fail(error),
            Err(error) => session.fail(error),
        }
    }
}

fn chunks_are_received<D: Device>(session: &mut Session<D>) {
    for chunk_bytes in [997, CHUNK_BYTES, 1024 * 1024] {
        if let Err(error) = send_to_oneself(&*session.snapshots(), chunk_bytes) {
            session.fail(format_args!("in chunks of {chunk_bytes} bytes: {error}"));
        }
        session.restart();
    }
    session.write(&[append(1, 1..=3), Write::Append(vec![command(1, 4, 9)])]);
}

fn send_to_oneself(files: &dyn SnapshotStore, chunk_bytes: usize) -> Result<(), StorageError> {
    let snapshot = cut_snapshot(files, 9, 1, &payload_of(2 * CHUNK_BYTES + 100))?;
    let mut reader = files.open(&snapshot)?;
    // Removes the file that is being read; the one that arrives takes its place.
    files.remove_except(&SnapshotMeta {
        last_included_index: LogIndex(10),
        ..SnapshotMeta::default()
    })?;
    assert!(
        is_missing(files, &snapshot),
        "the file is removed while it is read"
    );
    let mut offset = 0;
    loop {
        let chunk = reader.read_chunk(offset, chunk_bytes)?;
        if chunk.is_empty() {
            break;
        }
        files.stage(&snapshot, offset, &chunk)?;
        offset += chunk.len() as u64;
    }
    assert_eq!(offset, snapshot.size_bytes, "the chunks are the file");
    assert_eq!(
        files.finish_staged(&snapshot)?,
        StagedVerdict::Good,
        "the file arrived whole"
    );
    files.open(&snapshot).map(drop)
}

fn misplaced_chunks_are_refused<D: Device>(session: &mut Session<D>) {
    let files = session.snapshots();
    let snapshot = session.cut(9);
    let other = SnapshotMeta {
        checksum: snapshot.checksum ^ 1,
        ..snapshot.clone()
    };
    let refused = |result: Result<(), StorageError>| matches!(result, Err(StorageError::ChunkRefused { .. }));
    let name = session.name;
    assert!(
        refused(files.stage(&snapshot, 1, b"x")),
        "{name}: a chunk before the first"
    );
    assert!(
        files.finish_staged(&snapshot).is_err(),
        "{name}: nothing is staged"
    );
    assert!(files.stage(&snapshot, 0, b"ten bytes.").is_ok(), "{name}");
    assert!(refused(files.stage(&snapshot, 11, b"x")), "{name}: a gap");
    assert!(refused(files.stage(&snapshot, 9, b"x")), "{name}: an overlap");
    assert!(refused(files.stage(&other, 10, b"x")), "{name}: another file");
    assert!(files.finish_staged(&other).is_err(), "{name}: another file's end");
    let too_long = vec![0; 1 << 20];
    assert!(
        refused(files.stage(&snapshot, 10, &too_long)),
        "{name}: past the end"
    );
    assert!(
        files.stage(&snapshot, 10, b"y").is_ok(),
        "{name}: refusals leave what is staged"
    );
    let verdict = files.finish_staged(&snapshot);
    assert!(
        matches!(verdict, Ok(StagedVerdict::Damaged)),
        "{name}: wrong bytes"
    );
    assert!(
        refused(files.stage(&snapshot, 11, b"x")),
        "{name}: a damaged file is gone"
    );
}

fn staging_ends_with_a_restart<D: Device>(session: &mut Session<D>) {
    let snapshot = session.cut(9);
    let staged = session.snapshots().stage(&snapshot, 0, b"abc");
    assert!(staged.is_ok(), "{}", session.name);
    session.restart();
    let goes_on = session.snapshots().stage(&snapshot, 3, b"def");
    assert!(
        matches!(goes_on, Err(StorageError::ChunkRefused { .. })),
        "{}",
        session.name
    );
}

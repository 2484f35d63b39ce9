use std::io;

use raft_core::{Configuration, Entry, LogIndex, NodeId, Payload, SnapshotMeta, Term};
use storage::{MemorySnapshots, StorageError};

use super::{ApplyLoop, CutEnd, SnapshotError, load};
use crate::command::Command;
use crate::state_machine::StateMachine;

const LOG_BYTES: u64 = 1_000_000;

fn entry(index: u64) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(1),
        payload: Payload::Command(Command::OpenSession { secret: 7 }.encode()),
    }
}

fn apply_loop() -> ApplyLoop {
    ApplyLoop::new(StateMachine::new(), SnapshotMeta::default(), LOG_BYTES)
}

fn apply(apply_loop: &mut ApplyLoop, index: u64) -> Option<LogIndex> {
    let progress = apply_loop.apply(vec![entry(index)]).unwrap();
    progress.map(|progress| progress.up_to)
}

/// A snapshot of the first `index` entries, in `snapshots`.
fn snapshot_at(index: u64, snapshots: &MemorySnapshots) -> SnapshotMeta {
    let mut other = apply_loop();
    for index in 1..=index {
        apply(&mut other, index);
    }
    other.begin_cut().unwrap().write(snapshots).unwrap()
}

fn state_of(snapshot: &SnapshotMeta, snapshots: &MemorySnapshots) -> Result<StateMachine, SnapshotError> {
    load(snapshots, snapshot, StateMachine::new)
}

fn not_written(kind: io::ErrorKind) -> SnapshotError {
    SnapshotError::Write {
        index: LogIndex(7),
        source: kind.into(),
    }
}

#[test]
fn a_full_disk_is_not_asked_whether_it_is_full() {
    let told = |kind| not_written(kind).to_string();
    assert!(told(io::ErrorKind::StorageFull).ends_with("The disk is full: make room on it"));
    assert!(told(io::ErrorKind::FileTooLarge).contains("ulimit -f"));
    assert!(told(io::ErrorKind::Other).ends_with("is it full, or failing?"));
}

#[test]
fn what_is_committed_behind_a_snapshot_is_applied_behind_it() {
    let snapshots = MemorySnapshots::new();
    let snapshot = snapshot_at(5, &snapshots);
    let mut apply_loop = apply_loop();
    assert_eq!(apply(&mut apply_loop, 1), Some(LogIndex(1)));
    apply_loop.begin_restore(snapshot.clone());
    assert_eq!(apply(&mut apply_loop, 6), None);
    assert_eq!(apply(&mut apply_loop, 7), None);
    assert_eq!(apply_loop.state().last_applied(), LogIndex(1));
    let state = state_of(&snapshot, &snapshots);
    let restored = apply_loop.restored(&snapshot, state).unwrap().unwrap();
    assert_eq!(restored.progress.up_to, LogIndex(5));
    assert_eq!(restored.replaced.last_applied(), LogIndex(1));
    assert_eq!(apply_loop.log_bytes(), 0, "the snapshot covers the log");
    let behind: Vec<_> = restored
        .waiting
        .into_iter()
        .map(|entries| apply_loop.apply(entries).unwrap().unwrap().up_to)
        .collect();
    assert_eq!(behind, [LogIndex(6), LogIndex(7)]);
}

#[test]
fn a_newer_snapshot_replaces_one_that_is_being_loaded_and_what_was_to_come_behind_it() {
    let snapshots = MemorySnapshots::new();
    let (older, newer) = (snapshot_at(5, &snapshots), snapshot_at(8, &snapshots));
    let mut apply_loop = apply_loop();
    apply_loop.begin_restore(older.clone());
    assert_eq!(apply(&mut apply_loop, 6), None);
    apply_loop.begin_restore(newer.clone());
    assert_eq!(apply(&mut apply_loop, 9), None);
    let late = state_of(&older, &snapshots);
    assert!(apply_loop.restored(&older, late).unwrap().is_none());
    let state = state_of(&newer, &snapshots);
    let restored = apply_loop.restored(&newer, state).unwrap().unwrap();
    assert_eq!(restored.progress.up_to, LogIndex(8));
    assert_eq!(restored.waiting, [vec![entry(9)]]);
}

#[test]
fn a_snapshot_that_cannot_be_loaded_is_a_reason_to_stop() {
    let snapshots = MemorySnapshots::new();
    let snapshot = snapshot_at(5, &snapshots);
    let index = snapshot.last_included_index;
    let path = "file".into();
    for error in [
        StorageError::SnapshotMissing { index },
        StorageError::SnapshotLost { path },
    ] {
        let mut apply_loop = apply_loop();
        apply_loop.begin_restore(snapshot.clone());
        assert!(apply_loop.restored(&snapshot, Err(error.into())).is_err());
    }
}

#[test]
fn a_snapshot_holds_the_members_as_of_its_last_entry() {
    let snapshots = MemorySnapshots::new();
    let members = |ids: &[u64]| Configuration::of_voters(ids.iter().copied().map(NodeId));
    let mut apply_loop = apply_loop();
    let mut change = |index, ids| {
        let payload = Payload::Configuration(members(ids));
        let entry = Entry {
            payload,
            ..entry(index)
        };
        apply_loop.apply(vec![entry]).unwrap();
    };
    change(1, &[1, 2, 3]);
    change(2, &[1, 2]);
    let cut = apply_loop.begin_cut().unwrap();
    assert_eq!(cut.index(), LogIndex(2));
    let change = Entry {
        payload: Payload::Configuration(members(&[4])),
        ..entry(3)
    };
    apply_loop.apply(vec![change]).unwrap();
    let written = cut.write(&snapshots).unwrap();
    assert_eq!(written.configuration, members(&[1, 2]));
    assert_eq!(written.last_included_index, LogIndex(2));
    // Who restores it has its members, too.
    let mut other = self::apply_loop();
    other.begin_restore(written.clone());
    let state = state_of(&written, &snapshots);
    other.restored(&written, state).unwrap().unwrap();
    let again = other.begin_cut().unwrap().write(&snapshots).unwrap();
    assert_eq!(again.configuration, members(&[1, 2]));
}

#[test]
fn snapshots_are_cut_one_at_a_time_and_none_while_one_is_loaded() {
    let snapshots = MemorySnapshots::new();
    let mut apply_loop = apply_loop();
    apply(&mut apply_loop, 1);
    assert!(!apply_loop.is_cut_due());
    let cut = apply_loop.begin_cut().unwrap();
    assert!(apply_loop.begin_cut().is_none());
    apply_loop.cut_finished(cut.write(&snapshots)).unwrap();
    assert!(apply_loop.may_cut());
    // Once more the very file that is on record.
    let again = apply_loop.begin_cut().unwrap();
    apply_loop.cut_finished(again.write(&snapshots)).unwrap();
    assert!(apply_loop.may_cut());
    let snapshot = snapshot_at(5, &snapshots);
    apply_loop.begin_restore(snapshot);
    assert!(apply_loop.begin_cut().is_none());
}

#[test]
fn one_is_due_when_the_log_has_grown_by_so_much_since_the_last_one() {
    let snapshots = MemorySnapshots::new();
    let bytes = entry(1).size_bytes() as u64;
    let mut apply_loop = ApplyLoop::new(StateMachine::new(), SnapshotMeta::default(), 2 * bytes);
    apply(&mut apply_loop, 1);
    assert!(!apply_loop.is_cut_due());
    apply(&mut apply_loop, 2);
    assert!(apply_loop.is_cut_due());
    let cut = apply_loop.begin_cut().unwrap();
    assert!(!apply_loop.is_cut_due());
    apply(&mut apply_loop, 3);
    let end = apply_loop.cut_finished(cut.write(&snapshots)).unwrap();
    assert!(matches!(end, CutEnd::Written(_)), "{end:?}");
    assert_eq!(apply_loop.log_bytes(), bytes);
    apply(&mut apply_loop, 4);
    assert!(apply_loop.is_cut_due());
    let idle = ApplyLoop::new(StateMachine::new(), SnapshotMeta::default(), 0);
    assert!(!idle.is_cut_due(), "there is nothing to cut");
}

#[test]
fn one_that_found_no_room_is_put_off_and_its_part_of_the_log_counts_again() {
    let mut apply_loop = apply_loop();
    apply(&mut apply_loop, 1);
    let bytes = apply_loop.log_bytes();
    for kind in [
        io::ErrorKind::StorageFull,
        io::ErrorKind::QuotaExceeded,
        io::ErrorKind::NotFound,
    ] {
        apply_loop.begin_cut().unwrap();
        let end = apply_loop.cut_finished(Err(not_written(kind))).unwrap();
        assert!(matches!(end, CutEnd::PutOff(_)), "{end:?}");
        assert_eq!(apply_loop.log_bytes(), bytes);
        assert!(apply_loop.is_put_off() && apply_loop.begin_cut().is_none());
        apply_loop.resume_cuts();
        assert!(!apply_loop.is_put_off());
    }
    apply_loop.begin_cut().unwrap();
    let too_large = Err(not_written(io::ErrorKind::FileTooLarge));
    assert!(apply_loop.cut_finished(too_large).is_err());
}

#[test]
fn one_that_is_older_than_what_was_restored_meanwhile_is_not_the_latest_and_the_next_one_is_put_off() {
    let snapshots = MemorySnapshots::new();
    let newer = snapshot_at(5, &snapshots);
    let mut apply_loop = apply_loop();
    apply(&mut apply_loop, 1);
    let cut = apply_loop.begin_cut().unwrap();
    apply_loop.begin_restore(newer.clone());
    let state = state_of(&newer, &snapshots);
    apply_loop.restored(&newer, state).unwrap().unwrap();
    apply_loop.cut_finished(cut.write(&snapshots)).unwrap();
    assert!(apply_loop.is_put_off());
    assert!(apply_loop.is_to_replace(&newer), "it is the latest still");
    let unheard = SnapshotMeta {
        last_included_index: LogIndex(6),
        ..newer
    };
    assert!(!apply_loop.is_to_replace(&unheard));
}

#[test]
fn a_snapshot_makes_room_that_costs_less_than_twice_what_it_gives_back() {
    let snapshot = SnapshotMeta {
        size_bytes: 10 << 20,
        ..SnapshotMeta::default()
    };
    let apply_loop = ApplyLoop::new(StateMachine::new(), snapshot, LOG_BYTES);
    let third = (10 << 20) / 3 * 2;
    assert!(apply_loop.makes_room(third - 2), "a third was deleted");
    assert!(!apply_loop.makes_room(third + 2));
    assert!(!self::apply_loop().makes_room(0), "there is nothing to give back");
}

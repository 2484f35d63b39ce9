//! The shared list used by several threads, and by one thread in ways that must not block it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use skiplist::{SharedSkipList, SkipList, Snapshot};

const ACCOUNTS: u32 = 2_000;
const TOTAL: u64 = 100 * ACCOUNTS as u64;

fn accounts() -> SharedSkipList<u32, u64> {
    (0..ACCOUNTS).map(|account| (account, 100)).collect()
}

/// Moves money from one account to another in one batch; empty accounts are closed, so entries come and go.
fn transfer(list: &SharedSkipList<u32, u64>, from: u32, to: u32) {
    list.write(|batch| {
        let Some(balance) = batch.remove(&from) else {
            return;
        };
        let moved = balance / 2 + 1;
        if balance > moved {
            batch.insert(from, balance - moved);
        }
        let target = batch.get(&to).copied().unwrap_or(0);
        batch.insert(to, target + moved);
    });
}

fn assert_one_moment(snapshot: &Snapshot<u32, u64>) {
    let first: Vec<_> = snapshot.iter().collect();
    assert_eq!(
        first.iter().map(|(_, balance)| balance).sum::<u64>(),
        TOTAL,
        "half a batch was seen"
    );
    assert_eq!(first.len(), snapshot.len());
    assert!(first.is_sorted_by(|left, right| left.0 < right.0));
    let (middle, balance) = first[first.len() / 2];
    assert_eq!(snapshot.get(&middle), Some(balance));
    assert!(
        snapshot
            .range(middle..)
            .eq(first[first.len() / 2..].iter().copied())
    );
}

#[test]
fn readers_see_whole_batches_and_unchanging_snapshots_while_two_writers_write() {
    let list = accounts();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..2 {
            let (list, done) = (list.clone(), &done);
            scope.spawn(move || {
                let mut kept = list.snapshot();
                while !done.load(Ordering::Relaxed) {
                    let snapshot = list.snapshot();
                    assert_one_moment(&snapshot);
                    assert_one_moment(&kept);
                    list.read(|list| assert_eq!(list.values().sum::<u64>(), TOTAL));
                    if reader == 0 {
                        kept = snapshot;
                    }
                }
            });
        }
        let writers: Vec<_> = (1..3_u32)
            .map(|writer| {
                let list = list.clone();
                scope.spawn(move || {
                    for i in 0..15_000_u32 {
                        let from = i.wrapping_mul(0x9E37_79B1).wrapping_mul(writer) >> 8;
                        let to = i.wrapping_mul(0x85EB_CA6B).wrapping_mul(writer) >> 8;
                        transfer(&list, from % ACCOUNTS, to % ACCOUNTS);
                    }
                })
            })
            .collect();
        let results: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    while list.reclaim(1_000) {}
    assert_eq!((list.stats().snapshots, list.stats().old_versions), (0, 0));
}

#[test]
fn an_iterator_over_a_snapshot_holds_no_lock_between_entries() {
    let list: SharedSkipList<u32, u32> = (0..10_000).map(|key| (key, key)).collect();
    let mut seen = 0;
    for (key, value) in &list.snapshot() {
        assert_eq!(key, value);
        // With a lock held by the iterator, this write on the same thread would never return.
        list.insert(9_999 - key, u32::MAX);
        seen += 1;
    }
    assert_eq!(seen, 10_000);
}

#[test]
fn an_iterator_outlives_its_snapshot_and_its_list() {
    let list: SharedSkipList<u32, u32> = (0..1_000).map(|key| (key, key)).collect();
    let iter = list.snapshot().iter();
    list.clear();
    drop(list);
    let entries = thread::spawn(move || iter.count()).join().unwrap();
    assert_eq!(entries, 1_000);
}

#[test]
fn a_snapshot_may_be_dropped_while_its_thread_holds_the_lock() {
    let list: SharedSkipList<u32, u32> = (0..1_000).map(|key| (key, key)).collect();
    let (first, second) = (list.snapshot(), list.snapshot());
    list.write(|batch| {
        batch.clear();
        drop(first);
    });
    list.read(|_| drop(second));
    assert_eq!(list.stats().snapshots, 0);
    while list.reclaim(100) {}
    assert_eq!(list.stats().old_versions, 0);
}

#[test]
fn a_batch_sees_its_own_changes_and_the_snapshot_before_it_none() {
    let list = SharedSkipList::from(SkipList::from([(1, "a"), (2, "b")]));
    let before = list.snapshot();
    list.write(|batch| {
        assert_eq!(batch.insert(3, "c"), None);
        assert_eq!(batch.remove(&1), Some("a"));
        assert!(batch.iter().eq([(&2, &"b"), (&3, &"c")]));
        batch.replace(SkipList::from([(2, "x"), (9, "y")]));
        assert_eq!(batch.len(), 2);
    });
    assert!(before.iter().eq([(1, "a"), (2, "b")]));
    assert!(list.snapshot().iter().eq([(2, "x"), (9, "y")]));
}

#[test]
fn after_a_panic_in_a_write_the_list_refuses_to_be_used() {
    let list = SharedSkipList::from(SkipList::from([(1, 1)]));
    let snapshot = list.snapshot();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        list.write(|batch| {
            batch.remove(&1);
            panic!("in the middle of a batch");
        });
    }));
    assert!(panicked.is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| list.get(&1))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| snapshot.get(&1))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| list.insert(1, 1))).is_err());
    drop(snapshot);
}

#[test]
fn a_panic_in_a_read_leaves_the_list_usable() {
    let list = SharedSkipList::from(SkipList::from([(1, 1)]));
    let panicked = catch_unwind(AssertUnwindSafe(|| list.read(|_| panic!("in a read"))));
    assert!(panicked.is_err());
    assert_eq!(list.get(&1), Some(1));
}

#[test]
fn handles_and_snapshots_go_wherever_their_entries_may() {
    fn assert_goes_anywhere<T: Send + Sync + 'static>() {}
    assert_goes_anywhere::<SharedSkipList<String, Vec<u8>>>();
    assert_goes_anywhere::<Snapshot<String, Vec<u8>>>();
    assert_goes_anywhere::<skiplist::SnapshotIter<String, Vec<u8>>>();
}

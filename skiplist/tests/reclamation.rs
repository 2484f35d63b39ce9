//! What is no longer needed is given back.

use std::sync::Arc;

use proptest::prelude::*;
use skiplist::{ListStats, SharedSkipList, SkipList};

/// Blocks that a list may have however the entries came and went: of two neighbours one holds a quarter at least.
fn blocks_at_most(entries: usize) -> usize {
    4 + entries / 4
}

fn slots(stats: ListStats) -> usize {
    stats.nodes + stats.free_slots
}

#[test]
fn overwriting_and_removing_without_end_uses_the_same_slots_again() {
    let keys = 20_000_u32;
    let mut list = SkipList::new();
    let mut churn = |round: u32| {
        for i in 0..keys {
            let key = i.wrapping_mul(0x9E37_79B1) % keys;
            list.insert(key, round);
            if (i + round).is_multiple_of(3) {
                list.remove(&(keys - 1 - key));
            }
        }
        list.stats()
    };
    let first = churn(0);
    for round in 1..30 {
        let stats = churn(round);
        assert!(slots(stats) <= 2 * slots(first), "{stats:?} after {first:?}");
        assert!(stats.blocks <= 2 * first.blocks, "{stats:?} after {first:?}");
    }
}

#[test]
fn a_window_that_moves_over_the_keys_takes_the_room_of_the_window() {
    let window = 10_000;
    let mut list = SkipList::new();
    let mut most = 0;
    for key in 0..500_000_u32 {
        list.insert(key, ());
        if key >= window {
            assert_eq!(list.pop_first(), Some((key - window, ())));
        }
        if key % 10_000 == 0 {
            most = most.max(slots(list.stats()));
        }
    }
    assert!(most <= 6, "{most} slots for {window} entries");
}

#[test]
fn removing_nearly_everything_gives_the_blocks_back() {
    for spared in [1, 7, 63, 64, 65, 500, 5_000] {
        let mut list = SkipList::from_sorted((0..200_000_u32).map(|key| (key, ()))).unwrap();
        for key in (0..200_000).filter(|key| key % spared != 0 || spared == 1) {
            list.remove(&key);
        }
        let stats = list.stats();
        assert!(
            stats.blocks <= blocks_at_most(stats.entries),
            "{stats:?} sparing each {spared}th"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn blocks_stay_in_proportion_to_entries(runs in prop::collection::vec((0_u32..50_000, 1_u32..30_000, 1_u32..90), 1..8)) {
        let mut list = SkipList::from_sorted((0..60_000_u32).map(|key| (key, ()))).unwrap();
        for (start, len, spared) in runs {
            for key in (start..start + len).filter(|key| key % spared != 0) {
                list.remove(&key);
            }
            let stats = list.stats();
            prop_assert!(stats.blocks <= blocks_at_most(stats.entries), "{:?}", stats);
        }
    }
}

/// Values that tell whether they are still held.
fn filled(entries: u32) -> (SharedSkipList<u32, Arc<()>>, Arc<()>) {
    let value = Arc::new(());
    let list = (0..entries).map(|key| (key, Arc::clone(&value))).collect();
    (list, value)
}

#[test]
fn without_a_snapshot_no_old_version_is_kept() {
    let (list, value) = filled(1_000);
    drop(list.snapshot());
    for key in 0..1_000 {
        list.insert(key, Arc::new(()));
    }
    assert_eq!(list.stats().old_versions, 0);
    assert_eq!(Arc::strong_count(&value), 1, "only the test holds the old value");
}

#[test]
fn a_snapshot_keeps_one_version_of_a_key_however_often_it_is_written() {
    let (list, _) = filled(100);
    let snapshot = list.snapshot();
    for _ in 0..50 {
        for key in 0..100 {
            list.insert(key, Arc::new(()));
            list.remove(&key);
        }
    }
    assert_eq!(list.stats().old_versions, 100);
    assert_eq!(snapshot.iter().count(), 100);
}

#[test]
fn dropping_a_large_snapshot_does_a_bounded_part_and_later_writes_do_the_rest() {
    let entries = 50_000;
    let (list, value) = filled(entries);
    let snapshot = list.snapshot();
    // In no order, so that the blocks of the history are not full.
    for i in 0..entries {
        list.remove(&(i * 7_919 % entries));
    }
    let kept = list.stats().old_versions;
    assert_eq!(kept, entries as usize);
    drop(snapshot);
    let after_drop = list.stats().old_versions;
    assert!(
        after_drop < kept && after_drop > kept - 1_000,
        "{after_drop} of {kept} are left after the drop"
    );

    let mut writes = 0;
    while list.stats().old_versions > 0 {
        list.insert(0, Arc::new(()));
        writes += 1;
        assert!(
            writes <= entries / 4 + 100,
            "{writes} writes have not reclaimed what they should"
        );
    }
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn a_list_that_falls_silent_gives_everything_back_on_request() {
    let (list, value) = filled(10_000);
    let snapshot = list.snapshot();
    list.clear();
    drop(snapshot);
    while list.reclaim(100) {}
    assert_eq!((list.stats().old_versions, Arc::strong_count(&value)), (0, 1));
}

#[test]
fn what_the_newest_snapshot_alone_has_seen_goes_while_an_older_one_stays() {
    let (list, value) = filled(5_000);
    let old = list.snapshot();
    for key in 0..5_000 {
        list.insert(key, Arc::new(()));
    }
    let new = list.snapshot();
    for key in 0..5_000 {
        list.insert(key, Arc::new(()));
    }
    assert_eq!(list.stats().old_versions, 10_000);
    drop(new);
    while list.reclaim(1_000) {}
    assert_eq!(list.stats().old_versions, 5_000);
    assert!(old.iter().all(|(_, seen)| Arc::ptr_eq(&seen, &value)));
}

#[test]
fn snapshots_that_come_and_go_do_not_pile_up_old_versions() {
    let entries = 2_000_u32;
    let (list, _) = filled(entries);
    let lasting = list.snapshot();
    let mut recent = std::collections::VecDeque::new();
    for i in 0..60_000_u32 {
        list.insert(i.wrapping_mul(0x9E37_79B1) % entries, Arc::new(()));
        if i % 50 == 0 {
            recent.push_back(list.snapshot());
            if recent.len() > 3 {
                recent.pop_front();
            }
        }
        // One version a key for the lasting snapshot, at most 50 for each of the others, and what waits its turn.
        assert!(
            list.stats().old_versions <= 2 * entries as usize + 1_000,
            "{:?} at {i}",
            list.stats()
        );
    }
    assert_eq!(lasting.iter().count(), entries as usize);
}

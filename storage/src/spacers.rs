//! How the log lies in sled 0.34.7, so that sled writes the value of a record little more than once.
//!
//! sled keeps its records in leaves of 8 to 16. It writes a leaf anew, with all of its values,
//!
//! - when it is split, which every eighth record causes that is added at the end;
//! - when it has seen nine changes, each of which is an item of its own until then: eight values and a removal, say;
//! - when fewer than four records are left in it, and it is merged with the one before it;
//! - when it stands in a segment of which half or less is needed ([`upkeep`](crate::upkeep)), or in the last of a file half of
//!   which is free. The second is so for a good part of each snapshot, but sled looks at it only from six segments
//!   on that are needed: [`SLED_SEGMENT_BYTES`](crate::record::SLED_SEGMENT_BYTES) is so large for that reason, too.
//!
//! So the records of a piece of the journal get their *places* first: empty, because it costs next to nothing to split a leaf of
//! empty records, and in the order of their keys, because then every leaf has eight of them. Behind each comes a *spacer*, a
//! record that stays empty. Thus a leaf has four records and four spacers. It sees four values, then four removals, is not
//! written anew for them, and with its four spacers it is not merged either. These go after the piece that removed the
//! records, and with them goes what the leaf takes in sled's file.
//!
//! # Several batches before a sync
//!
//! sled puts a batch into its tree in no order, so places come in batches of one leaf each, and several of them come before
//! the next sync. All that sled writes meanwhile must be less than a segment. Then, as [`checkpoint`](crate::checkpoint)
//! tells, it uses no segment anew whose pages were replaced since the last sync: not before it has handed another whole
//! segment to the system than the one that holds what replaces them. What it writes is more than the places: to split a
//! leaf it replaces two pages, now and then one above them, and with each page that it replaces it may move one leaf that
//! it has noted, with all values. So it is the largest record in sled that tells how many may come: six leaves where there
//! are records of 32 KiB, and many where one client writes little ones, of which a journal file holds up to two hundred thousand.

use crate::durability::DurableTree;
use crate::error::StorageError;
use crate::record::{MAX_RECORD_BYTES, MAX_RECORDS_IN_A_LEAF, RecordKey, SLED_SEGMENT_BYTES};

/// With as many spacers, what a split leaves in a leaf.
const RECORDS_IN_A_LEAF: usize = 4;

/// The most leaves before a sync. What sled writes for these themselves, some 4 kB each, most of it the page above, is a
/// small part of a segment.
const MOST_LEAVES_BEFORE_A_SYNC: usize = 64;

/// What sled may move before a sync. The rest of the segment is for the places themselves, for the leaf at either end, which
/// may have values already, for the few records of the store that have no spacers, and for the end of a segment, which sled
/// leaves empty where the next leaf does not fit.
const MOST_BYTES_MOVED: usize = SLED_SEGMENT_BYTES / 4 * 3;

/// What a record takes in a leaf beside its value, at most: its key, its spacer and their lengths.
const RECORD_OVERHEAD_BYTES: usize = 64;

const _: () = assert!(
    leaves_before_a_sync(MAX_RECORD_BYTES) > 1,
    "sled might use a segment anew before what replaces its pages is durable"
);

/// How many leaves of places may come before a sync, where no record in sled is larger than `largest_record`, in bytes.
const fn leaves_before_a_sync(largest_record: usize) -> usize {
    // Every second record of a leaf is a spacer.
    let leaf_bytes = MAX_RECORDS_IN_A_LEAF / 2 * (largest_record + RECORD_OVERHEAD_BYTES);
    // Two pages are replaced for each that is split, and at most one for every four of the pages above them.
    let leaves = (MOST_BYTES_MOVED / leaf_bytes).saturating_sub(1) * 4 / 9;
    if leaves == 0 {
        1
    } else if leaves < MOST_LEAVES_BEFORE_A_SYNC {
        leaves
    } else {
        MOST_LEAVES_BEFORE_A_SYNC
    }
}

/// So many spacers go with one sync. Their leaves become empty and are merged, each with the one before it, which may still
/// have values: what that writes needs room before any is given back.
const SPACERS_REMOVED_AT_ONCE: usize = 128;

/// Whether `key` is that of a spacer.
pub(crate) fn is_spacer(key: &[u8]) -> bool {
    matches!(key.split_last(), Some((0, record)) if RecordKey::from_bytes(record).is_some())
}

/// The key of the spacer behind the record of this key: the next one that there can be.
fn behind(record: &[u8]) -> Vec<u8> {
    [record, &[0]].concat()
}

/// Puts empty records under `keys`, which come in order, and spacers behind them. `at_the_end`: every key comes behind all
/// that are in sled. No record in sled is larger than `largest_record`, in bytes. Durable when it returns.
pub(crate) fn make_places(
    tree: &DurableTree,
    keys: &[&[u8]],
    at_the_end: bool,
    largest_record: usize,
) -> Result<(), StorageError> {
    let leaves = if at_the_end {
        leaves_before_a_sync(largest_record)
    } else {
        1
    };
    for some in keys.chunks(leaves * RECORDS_IN_A_LEAF) {
        for leaf in some.chunks(RECORDS_IN_A_LEAF) {
            let mut batch = sled::Batch::default();
            for key in leaf {
                batch.insert(*key, &[]);
                batch.insert(behind(key), &[]);
            }
            tree.apply(batch)?;
        }
        tree.make_durable()?;
    }
    Ok(())
}

/// Removes the spacers behind the records that were under `keys`, which come in order and need not have any. Durable when
/// it returns.
pub(crate) fn remove_behind<'a>(
    tree: &DurableTree,
    keys: impl Iterator<Item = &'a [u8]>,
) -> Result<(), StorageError> {
    let mut spacers = Vec::new();
    for spacer in keys.map(behind) {
        if tree.has(&spacer)? {
            spacers.push(spacer);
        }
    }
    if spacers.is_empty() {
        return Ok(());
    }
    // To look for them may have made sled split, merge or move pages.
    tree.make_durable()?;
    remove(tree, &spacers)
}

/// Removes the spacers that a crash left before the first record of the log. Durable when it returns.
pub(crate) fn remove_forgotten(tree: &DurableTree) -> Result<(), StorageError> {
    remove(tree, &tree.spacers_before_the_log()?)
}

fn remove(tree: &DurableTree, spacers: &[Vec<u8>]) -> Result<(), StorageError> {
    for some in spacers.chunks(SPACERS_REMOVED_AT_ONCE) {
        let mut batch = sled::Batch::default();
        some.iter().for_each(|key| batch.remove(key.as_slice()));
        tree.commit(batch)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use raft_core::LogIndex;

    use super::{
        MOST_LEAVES_BEFORE_A_SYNC, behind, is_spacer, leaves_before_a_sync, make_places, remove_behind,
        remove_forgotten,
    };
    use crate::durability::{DurableTree, SLED_DATA_FILE};
    use crate::hard_state::{HARD_STATE_KEY, IDENTITY_KEY, ROOT_KEY, SNAPSHOT_KEY};
    use crate::record::{MAX_RECORD_BYTES, MAX_RECORDS_IN_A_LEAF, RecordKey, SLED_SEGMENT_BYTES};

    #[test]
    fn a_spacer_comes_right_behind_its_record_and_is_taken_for_no_other() {
        // The last byte of this key is that of spacers.
        let record = RecordKey::new(LogIndex(7), 256).to_bytes();
        let next = RecordKey::new(LogIndex(7), 257).to_bytes();
        let spacer = behind(&record);
        assert!(record.as_slice() < spacer.as_slice() && spacer.as_slice() < next.as_slice());
        assert!(is_spacer(&spacer));
        let twice = behind(&spacer);
        let others = [
            &record[..],
            HARD_STATE_KEY,
            IDENTITY_KEY,
            ROOT_KEY,
            SNAPSHOT_KEY,
            b"",
            b"\0",
            &twice,
        ];
        assert!(others.iter().all(|key| !is_spacer(key)));
    }

    #[test]
    fn what_sled_may_move_before_a_sync_is_less_than_a_segment() {
        for largest_record in 0..=MAX_RECORD_BYTES {
            let leaves = leaves_before_a_sync(largest_record);
            let moved = (2 * leaves + leaves / 4 + 1) * MAX_RECORDS_IN_A_LEAF / 2 * largest_record;
            assert!(
                leaves > 0 && moved < SLED_SEGMENT_BYTES,
                "{largest_record}: {leaves}"
            );
        }
        assert_eq!(leaves_before_a_sync(MAX_RECORD_BYTES), 6);
        assert_eq!(leaves_before_a_sync(28_000), 7);
        assert_eq!(leaves_before_a_sync(300), MOST_LEAVES_BEFORE_A_SYNC);
    }

    fn tree_in(dir: &Path) -> DurableTree {
        let config = sled::Config::new()
            .path(dir)
            .segment_size(SLED_SEGMENT_BYTES)
            .flush_every_ms(None);
        DurableTree::new(&config.open().unwrap(), dir).unwrap()
    }

    fn keys(count: u64) -> Vec<[u8; 13]> {
        (1..=count)
            .map(|index| RecordKey::new(LogIndex(index), 0).to_bytes())
            .collect()
    }

    fn make_places_at_the_end(tree: &DurableTree, keys: &[[u8; 13]]) {
        make_places(tree, &slices(keys).collect::<Vec<_>>(), true, MAX_RECORD_BYTES).unwrap();
    }

    fn slices(keys: &[[u8; 13]]) -> impl Iterator<Item = &[u8]> {
        keys.iter().map(<[u8; 13]>::as_slice)
    }

    fn commit(tree: &DurableTree, keys: &[[u8; 13]], value: Option<&[u8]>) {
        for some in keys.chunks(80) {
            let mut batch = sled::Batch::default();
            for key in some {
                match value {
                    Some(value) => batch.insert(key, value),
                    None => batch.remove(key),
                }
            }
            tree.commit(batch).unwrap();
        }
    }

    fn records(tree: &DurableTree) -> usize {
        let mut records = 0;
        tree.for_each(|_, _| {
            records += 1;
            Ok::<_, String>(())
        })
        .unwrap();
        records
    }

    #[test]
    fn syncs_come_after_as_many_places_as_may_be_and_after_each_leaf_before_records_that_were_there() {
        let keys = keys(513);
        let keys: Vec<&[u8]> = slices(&keys).collect();
        let syncs = |at_the_end, largest_record| {
            let dir = tempfile::tempdir().unwrap();
            let tree = tree_in(dir.path());
            let before = tree.progress().steps();
            make_places(&tree, &keys, at_the_end, largest_record).unwrap();
            tree.progress().steps() - before
        };
        assert_eq!(syncs(true, 300), 3);
        assert_eq!(syncs(true, MAX_RECORD_BYTES), 22);
        assert_eq!(syncs(false, 300), 129);
    }

    /// sled's file only becomes longer while no segment is free.
    #[test]
    fn a_value_is_written_once_until_its_record_and_its_spacer_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree_in(dir.path());
        let length = || fs::metadata(dir.path().join(SLED_DATA_FILE)).unwrap().len();
        let keys = keys(2_000);
        let value = [7; 12_000];
        make_places_at_the_end(&tree, &keys);
        commit(&tree, &keys, Some(&value));
        assert_eq!(records(&tree), keys.len());
        let all_but_last = &keys[..keys.len() - 1];
        commit(&tree, all_but_last, None);
        assert_eq!(records(&tree), 1);
        let values = (keys.len() * value.len()) as u64;
        assert!(length() < values * 6 / 5, "{} bytes for {values}", length());
        remove_behind(&tree, slices(all_but_last)).unwrap();
        assert!(tree.spacers_before_the_log().unwrap().is_empty());
    }

    #[test]
    fn spacers_that_were_forgotten_are_no_records_and_go_up_to_the_first_record() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree_in(dir.path());
        let keys = keys(20);
        make_places_at_the_end(&tree, &keys);
        commit(&tree, &keys[..5], None);
        commit(&tree, &keys[10..12], None);
        assert_eq!(records(&tree), 13);
        assert_eq!(tree.spacers_before_the_log().unwrap().len(), 5);
        remove_forgotten(&tree).unwrap();
        assert!(tree.spacers_before_the_log().unwrap().is_empty());
        assert_eq!(tree.get(&behind(&keys[5])).unwrap().as_deref(), Some(&[][..]));
        assert_eq!(records(&tree), 13);
    }
}

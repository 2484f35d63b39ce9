//! What holds for every list at all times, and tests that it does.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt::Debug;

use proptest::prelude::*;

use crate::arena::{BlockId, MAX_HEIGHT, NodeId};
use crate::block::BLOCK_CAPACITY;
use crate::list::SkipList;
use crate::page::PAGE_CAPACITY;

impl<K: Ord + Clone + Debug, V> SkipList<K, V> {
    fn assert_invariants(&self) {
        self.assert_towers();
        let mut len = 0;
        let mut block = Some(BlockId::FIRST);
        while let Some(id) = block {
            block = self.arena.next_block(id);
            self.assert_block(id, block);
            len += self.arena.block(id).len();
        }
        assert_eq!(len, self.len());
    }

    fn assert_block(&self, id: BlockId, next: Option<BlockId>) {
        let block = self.arena.block(id);
        assert_eq!(block.keys().len(), block.values().len());
        assert!(block.len() <= BLOCK_CAPACITY);
        assert!(
            block.len() > 0 || self.is_empty(),
            "an empty block in a list that is not empty"
        );
        assert!(block.keys().is_sorted_by(|left, right| left < right));
        if id != BlockId::FIRST {
            assert!(block.keys().iter().all(|key| key >= self.arena.block_fence(id)));
        }
        if let Some(next) = next {
            assert!(block.keys().iter().all(|key| key < self.arena.block_fence(next)));
        }
    }

    /// Each level links exactly the nodes whose towers reach it, in the order of the lowest level.
    fn assert_towers(&self) {
        let chain = |level| {
            std::iter::successors(self.arena.next(NodeId::HEAD, level), move |&node| {
                self.arena.next(node, level)
            })
            .collect::<Vec<_>>()
        };
        let nodes = chain(0);
        assert_eq!(nodes.len() + 1, self.arena.nodes());
        assert!(nodes.is_sorted_by(|left, right| self.arena.fence(*left) < self.arena.fence(*right)));
        for level in 0..MAX_HEIGHT {
            let reaching = nodes
                .iter()
                .copied()
                .filter(|&node| self.arena.height(node) > level);
            assert!(chain(level).into_iter().eq(reaching), "level {level}");
        }
        assert_eq!(self.levels, self.heights().into_iter().max().unwrap_or(1));
        for node in nodes.into_iter().chain([NodeId::HEAD]) {
            let page = self.arena.page(node);
            assert!((1..=PAGE_CAPACITY).contains(&page.len()));
            assert_eq!(page.fences().len() + 1, page.len());
        }
    }

    /// The heights of all towers in order.
    fn heights(&self) -> Vec<usize> {
        std::iter::successors(self.arena.next(NodeId::HEAD, 0), |&node| self.arena.next(node, 0))
            .map(|node| self.arena.height(node))
            .collect()
    }
}

/// Runs of neighbouring keys come and go, long enough to fill and empty whole pages.
fn runs() -> impl Strategy<Value = Vec<(bool, u32, u32, u32)>> {
    let run = (any::<bool>(), 0_u32..40_000, 1_u32..15_000, 1_u32..4);
    prop::collection::vec(run, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn blocks_pages_and_towers_stay_in_order_through_splits_and_merges(seed: u64, runs in runs()) {
        let mut list = SkipList::with_seed(seed);
        let mut model = std::collections::BTreeSet::new();
        for (inserts, start, len, step) in runs {
            let keys = (start..start + len).step_by(step as usize);
            if inserts {
                list.extend(keys.clone().map(|key| (key, ())));
                model.extend(keys);
            } else {
                for key in keys {
                    prop_assert_eq!(list.remove(&key).is_some(), model.remove(&key));
                }
            }
            list.assert_invariants();
        }
        prop_assert!(list.keys().eq(&model));
        list.retain(|key, ()| key % 97 == 0);
        list.assert_invariants();
        while list.pop_first().is_some() {}
        list.assert_invariants();
    }
}

#[test]
fn a_loaded_list_has_full_blocks_and_keeps_the_invariants() {
    let list = SkipList::from_sorted((0..100_000).map(|key| (key, ()))).unwrap();
    list.assert_invariants();
    assert_eq!(list.stats().blocks, 100_000_usize.div_ceil(BLOCK_CAPACITY));
}

#[test]
fn keys_in_ascending_order_leave_full_blocks_behind() {
    let mut list = SkipList::new();
    list.extend((0..100_000).map(|key| (key, ())));
    list.assert_invariants();
    assert_eq!(list.stats().blocks, 100_000_usize.div_ceil(BLOCK_CAPACITY));
}

/// A permutation of the numbers below a power of two.
fn scattered(len: u64) -> impl Iterator<Item = u64> {
    assert!(len.is_power_of_two());
    (0..len).map(move |i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) % len)
}

#[test]
fn the_same_seed_builds_the_same_towers_and_another_seed_others() {
    let heights = |seed| {
        let mut list = SkipList::with_seed(seed);
        list.extend(scattered(1 << 18).map(|key| (key, ())));
        for key in scattered(1 << 18).step_by(3) {
            list.remove(&key);
        }
        list.assert_invariants();
        list.heights()
    };
    assert_eq!(heights(1), heights(1));
    assert_ne!(heights(1), heights(2));
}

#[test]
fn a_level_links_about_a_quarter_of_the_nodes_of_the_level_below() {
    let mut list = SkipList::from_sorted((0..1_u32 << 23).map(|key| (key, ()))).unwrap();
    list.assert_towers();
    let heights = list.heights();
    let reaching = |height| heights.iter().filter(|&&other| other >= height).count();
    assert_eq!(reaching(1), (1 << 23) / BLOCK_CAPACITY / PAGE_CAPACITY - 1);
    for height in 2..=4 {
        let expected = reaching(1) >> (2 * (height - 1));
        let off = reaching(height).abs_diff(expected);
        assert!(
            off * off <= 9 * expected,
            "{} nodes reach {height}, not some {expected}",
            reaching(height)
        );
    }
    list.clear();
    list.assert_invariants();
}

thread_local! {
    static COMPARISONS: Cell<u64> = const { Cell::new(0) };
}

/// A key that counts how often it is compared.
#[derive(Clone, Copy, Debug)]
struct Counting(u64);

impl Ord for Counting {
    fn cmp(&self, other: &Self) -> Ordering {
        COMPARISONS.set(COMPARISONS.get() + 1);
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Counting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Counting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Counting {}

/// How many comparisons each of `actions` takes on average.
fn comparisons(actions: u32, act: impl FnOnce()) -> f64 {
    let before = COMPARISONS.get();
    act();
    let counted = u32::try_from(COMPARISONS.get() - before).unwrap();
    f64::from(counted) / f64::from(actions)
}

/// Comparisons in the two runs within a page, whatever the size of the list: two passes each, and one for equality.
const WITHIN_A_PAGE: f64 = 24.0;

/// Pugh's bound on the expected comparisons over towers, log4(n) / p for n nodes and p = 1/4, with a little on top.
fn over_towers(entries: u32) -> f64 {
    let nodes = f64::from(entries) / f64::from(1 << 11);
    4.0 * nodes.max(1.0).log(4.0) + 6.0
}

#[test]
fn comparisons_of_a_search_and_of_an_insertion_grow_like_the_logarithm_of_the_size() {
    for bits in [8, 12, 16, 17] {
        let len = 1_u32 << bits;
        let mut list = SkipList::new();
        let inserting = comparisons(len, || {
            list.extend(scattered(u64::from(len)).map(|key| (Counting(key), ())));
        });
        assert_within_bound(inserting, "an insertion", len);
        assert_within_bound(searching(&list, len), "a search", len);
    }
    // Too many to insert one by one in a test.
    for bits in [20, 22] {
        let len = 1_u32 << bits;
        let list = SkipList::from_sorted((0..u64::from(len)).map(|key| (Counting(key), ()))).unwrap();
        assert_within_bound(searching(&list, len), "a search", len);
    }
}

/// Comparisons of a search, on average over keys all over the list.
fn searching(list: &SkipList<Counting, ()>, len: u32) -> f64 {
    let searches = len.min(1 << 14);
    comparisons(searches, || {
        let mut keys = scattered(u64::from(len)).take(searches as usize);
        assert!(keys.all(|key| list.contains_key(&Counting(key))));
    })
}

fn assert_within_bound(comparisons: f64, what: &str, len: u32) {
    let bound = WITHIN_A_PAGE + over_towers(len);
    assert!(
        comparisons < bound,
        "{comparisons} comparisons {what} in {len} entries: over {bound}"
    );
}

#[test]
fn loading_a_sorted_dump_takes_a_constant_number_of_comparisons_an_entry() {
    for len in [1_000, 100_000] {
        let loading = comparisons(len, || {
            SkipList::from_sorted((0..u64::from(len)).map(|key| (Counting(key), ()))).unwrap();
        });
        assert!(loading <= 1.0, "{loading} comparisons an entry");
    }
}

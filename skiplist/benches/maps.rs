//! The skip lists beside `BTreeMap` and crossbeam's `SkipMap`: `cargo bench -p skiplist`.
//!
//! Keys are 24 bytes of `Bytes` in random order, values a small struct around `Bytes`.
//! Times are for all of the keys; the second line of each result is entries a second.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use skiplist::{SharedSkipList, SkipList, Snapshot};

const COUNTS: [usize; 2] = [10_000, 1_000_000];

#[derive(Clone)]
struct Value {
    data: Bytes,
    _version: u64,
}

impl Value {
    fn new(version: u64) -> Self {
        Self {
            data: Bytes::from(vec![7; 64]),
            _version: version,
        }
    }
}

/// Entries with keys in random order.
static ENTRIES: LazyLock<Vec<(Bytes, Value)>> = LazyLock::new(|| {
    let mut random = Pcg64Mcg::seed_from_u64(1);
    (0..1_000_000)
        .map(|i| {
            (
                Bytes::from(format!("tab/{:020}", random.next_u64())),
                Value::new(i),
            )
        })
        .collect()
});

/// The first `count` entries, shuffled: lookups in the order of insertion would find their keys near each other.
fn shuffled_keys(count: usize) -> Vec<Bytes> {
    let mut keys: Vec<Bytes> = ENTRIES[..count]
        .iter()
        .map(|(key, _)| Bytes::copy_from_slice(key))
        .collect();
    let mut random = Pcg64Mcg::seed_from_u64(2);
    for last in (1..keys.len()).rev() {
        keys.swap(last, random.next_u32() as usize % (last + 1));
    }
    keys
}

/// What the benchmarks ask of a map.
trait Map: Sized {
    fn empty() -> Self;
    fn put(&mut self, key: Bytes, value: Value);
    fn has(&self, key: &[u8]) -> bool;
    fn delete(&mut self, key: &[u8]);
    /// Looks at each entry in order, key and value.
    fn scan(&self) -> usize;
    /// Looks at a hundred entries from `start` on.
    fn scan_from(&self, start: &Bytes) -> usize;

    fn filled(count: usize) -> Self {
        let mut map = Self::empty();
        for (key, value) in &ENTRIES[..count] {
            map.put(key.clone(), value.clone());
        }
        map
    }
}

fn weigh(key: &Bytes, value: &Value) -> usize {
    usize::from(key[key.len() - 1]) + value.data.len()
}

macro_rules! impl_map_for_plain_maps {
    ($($map:ty),*) => {$(
        impl Map for $map {
            fn empty() -> Self {
                Self::new()
            }
            fn put(&mut self, key: Bytes, value: Value) {
                self.insert(key, value);
            }
            fn has(&self, key: &[u8]) -> bool {
                self.get(key).is_some()
            }
            fn delete(&mut self, key: &[u8]) {
                self.remove(key);
            }
            fn scan(&self) -> usize {
                self.iter().map(|(key, value)| weigh(key, value)).sum()
            }
            fn scan_from(&self, start: &Bytes) -> usize {
                self.range::<Bytes, _>(start..).take(100).map(|(key, value)| weigh(key, value)).sum()
            }
        }
    )*};
}

impl_map_for_plain_maps!(SkipList<Bytes, Value>, BTreeMap<Bytes, Value>);

impl Map for SkipMap<Bytes, Value> {
    fn empty() -> Self {
        Self::new()
    }
    fn put(&mut self, key: Bytes, value: Value) {
        self.insert(key, value);
    }
    fn has(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }
    fn delete(&mut self, key: &[u8]) {
        self.remove(key);
    }
    fn scan(&self) -> usize {
        self.iter().map(|entry| weigh(entry.key(), entry.value())).sum()
    }
    fn scan_from(&self, start: &Bytes) -> usize {
        self.range::<Bytes, _>(start..)
            .take(100)
            .map(|entry| weigh(entry.key(), entry.value()))
            .sum()
    }
}

impl Map for SharedSkipList<Bytes, Value> {
    fn empty() -> Self {
        Self::new()
    }
    fn put(&mut self, key: Bytes, value: Value) {
        self.insert(key, value);
    }
    fn has(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }
    fn delete(&mut self, key: &[u8]) {
        self.remove(key);
    }
    fn scan(&self) -> usize {
        self.snapshot()
            .iter()
            .map(|(key, value)| weigh(&key, &value))
            .sum()
    }
    fn scan_from(&self, start: &Bytes) -> usize {
        self.read(|list| {
            list.range::<Bytes, _>(start..)
                .take(100)
                .map(|(key, value)| weigh(key, value))
                .sum()
        })
    }
}

/// A shared list while a snapshot from before the measured work is alive.
struct Snapshotted {
    list: SharedSkipList<Bytes, Value>,
    _snapshot: Snapshot<Bytes, Value>,
}

type List = SkipList<Bytes, Value>;
type Shared = SharedSkipList<Bytes, Value>;
type BTree = BTreeMap<Bytes, Value>;
type Crossbeam = SkipMap<Bytes, Value>;

#[divan::bench(types = [List, Shared, BTree, Crossbeam], args = COUNTS, sample_count = 5, sample_size = 1)]
fn insert<M: Map>(bencher: Bencher<'_, '_>, count: usize) {
    LazyLock::force(&ENTRIES);
    bencher.counter(ItemsCount::new(count)).bench(|| M::filled(count));
}

#[divan::bench(types = [List, Shared, BTree, Crossbeam], args = COUNTS, sample_count = 5, sample_size = 1)]
fn insert_ascending<M: Map>(bencher: Bencher<'_, '_>, count: usize) {
    let mut entries = ENTRIES[..count].to_vec();
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let mut map = M::empty();
        for (key, value) in &entries {
            map.put(key.clone(), value.clone());
        }
        map
    });
}

#[divan::bench(types = [List, Shared, BTree, Crossbeam], args = COUNTS, sample_count = 5, sample_size = 1)]
fn get<M: Map>(bencher: Bencher<'_, '_>, count: usize) {
    let map = M::filled(count);
    let keys = shuffled_keys(count);
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        for key in &keys {
            assert!(black_box(map.has(key)));
        }
    });
}

#[divan::bench(types = [List, Shared, BTree, Crossbeam], args = COUNTS, sample_count = 5, sample_size = 1)]
fn scan<M: Map>(bencher: Bencher<'_, '_>, count: usize) {
    let map = M::filled(count);
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| black_box(map.scan()));
}

#[divan::bench(types = [List, Shared, BTree, Crossbeam], args = COUNTS, sample_count = 5, sample_size = 1)]
fn scan_100_from_anywhere<M: Map>(bencher: Bencher<'_, '_>, count: usize) {
    let map = M::filled(count);
    let keys = shuffled_keys(count);
    let starts = &keys[..count / 100];
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        starts
            .iter()
            .map(|start| black_box(map.scan_from(start)))
            .sum::<usize>()
    });
}

#[divan::bench(types = [List, Shared, BTree, Crossbeam], args = COUNTS, sample_count = 5, sample_size = 1)]
fn remove<M: Map>(bencher: Bencher<'_, '_>, count: usize) {
    let keys = shuffled_keys(count);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| M::filled(count))
        .bench_local_refs(|map| {
            for key in &keys {
                map.delete(key);
            }
        });
}

/// Overwrites every key while a snapshot keeps every old value, beside the same work without a snapshot.
#[divan::bench(args = COUNTS, sample_count = 5, sample_size = 1)]
fn overwrite_all_under_a_snapshot(bencher: Bencher<'_, '_>, count: usize) {
    let keys = shuffled_keys(count);
    let inputs = || {
        let list = Shared::filled(count);
        Snapshotted {
            _snapshot: list.snapshot(),
            list,
        }
    };
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(inputs)
        .bench_local_refs(|map| {
            overwrite_all(&map.list, &keys);
        });
}

/// See above.
#[divan::bench(args = COUNTS, sample_count = 5, sample_size = 1)]
fn overwrite_all_without_a_snapshot(bencher: Bencher<'_, '_>, count: usize) {
    let keys = shuffled_keys(count);
    let inputs = || Shared::filled(count);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(inputs)
        .bench_local_refs(|list| {
            overwrite_all(list, &keys);
        });
}

fn overwrite_all(list: &Shared, keys: &[Bytes]) {
    let value = Value::new(0);
    for key in keys {
        list.insert(key.clone(), value.clone());
    }
}

fn main() {
    divan::main();
}

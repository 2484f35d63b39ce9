//! The lists against the standard library's map: whatever the operations, both hold the same.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;
use skiplist::{SharedSkipList, SkipList, Snapshot};

/// Keys few enough to meet again, and enough for several blocks.
const KEYS: u16 = 600;

#[derive(Clone, Debug)]
enum Operation {
    Insert(u16, u32),
    Remove(u16),
    RemoveRange(u16, u16),
    InsertRange(u16, u16),
    PopFirst,
    Clear,
    Retain(u32),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        20 => (0..KEYS, any::<u32>()).prop_map(|(key, value)| Operation::Insert(key, value)),
        15 => (0..KEYS).prop_map(Operation::Remove),
        2 => (0..KEYS, 0..KEYS).prop_map(|(start, end)| Operation::InsertRange(start, end)),
        2 => (0..KEYS, 0..KEYS).prop_map(|(start, end)| Operation::RemoveRange(start, end)),
        2 => Just(Operation::PopFirst),
        1 => Just(Operation::Clear),
        1 => (1_u32..5).prop_map(Operation::Retain),
    ]
}

fn bound() -> impl Strategy<Value = Bound<u16>> {
    prop_oneof![
        Just(Bound::Unbounded),
        (0..KEYS).prop_map(Bound::Included),
        (0..KEYS).prop_map(Bound::Excluded),
    ]
}

/// What `BTreeMap::range` gives where it does not panic, and nothing where it does.
fn model_range(model: &BTreeMap<u16, u32>, bounds: (Bound<u16>, Bound<u16>)) -> Vec<(u16, u32)> {
    model
        .iter()
        .filter(|(key, _)| in_bounds(**key, bounds))
        .map(|(key, value)| (*key, *value))
        .collect()
}

fn in_bounds(key: u16, (start, end): (Bound<u16>, Bound<u16>)) -> bool {
    let after_start = match start {
        Bound::Unbounded => true,
        Bound::Included(start) => key >= start,
        Bound::Excluded(start) => key > start,
    };
    let before_end = match end {
        Bound::Unbounded => true,
        Bound::Included(end) => key <= end,
        Bound::Excluded(end) => key < end,
    };
    after_start && before_end
}

fn apply(list: &mut SkipList<u16, u32>, model: &mut BTreeMap<u16, u32>, operation: &Operation) {
    match *operation {
        Operation::Insert(key, value) => assert_eq!(list.insert(key, value), model.insert(key, value)),
        Operation::Remove(key) => assert_eq!(list.remove(&key), model.remove(&key)),
        Operation::InsertRange(start, end) => {
            for key in start..end {
                assert_eq!(list.insert(key, 0), model.insert(key, 0));
            }
        }
        Operation::RemoveRange(start, end) => {
            for key in start..end {
                assert_eq!(list.remove(&key), model.remove(&key));
            }
        }
        Operation::PopFirst => assert_eq!(list.pop_first(), model.pop_first()),
        Operation::Clear => {
            list.clear();
            model.clear();
        }
        Operation::Retain(divisor) => {
            list.retain(|_, value| *value % divisor == 0);
            model.retain(|_, value| *value % divisor == 0);
        }
    }
}

fn assert_same(list: &SkipList<u16, u32>, model: &BTreeMap<u16, u32>) {
    assert_eq!(list.len(), model.len());
    assert_eq!(list.is_empty(), model.is_empty());
    assert!(list.iter().eq(model), "{list:?} is not {model:?}");
    assert!(list.keys().eq(model.keys()) && list.values().eq(model.values()));
    assert_eq!(list.first(), model.first_key_value());
    assert_eq!(list.last(), model.last_key_value());
    for key in 0..KEYS {
        assert_eq!(list.get(&key), model.get(&key));
        assert_eq!(list.contains_key(&key), model.contains_key(&key));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_list_holds_what_a_map_holds_after_the_same_operations(
        seed: u64,
        operations in prop::collection::vec(operation(), 1..150),
    ) {
        let mut list = SkipList::with_seed(seed);
        let mut model = BTreeMap::new();
        for operation in &operations {
            apply(&mut list, &mut model, operation);
        }
        assert_same(&list, &model);
        prop_assert!(list.into_iter().eq(model));
    }

    #[test]
    fn a_range_holds_the_keys_within_its_bounds_and_no_other(
        seed: u64,
        keys in prop::collection::btree_set(0..KEYS, 0..400),
        ranges in prop::collection::vec((bound(), bound()), 1..50),
    ) {
        let mut list = SkipList::with_seed(seed);
        list.extend(keys.iter().map(|key| (*key, u32::from(*key))));
        let model: BTreeMap<u16, u32> = keys.iter().map(|key| (*key, u32::from(*key))).collect();
        let shared = SharedSkipList::from(list.clone());
        let snapshot = shared.snapshot();
        shared.clear();
        for bounds in ranges {
            let expected = model_range(&model, bounds);
            let found: Vec<_> = list.range(bounds).map(|(key, value)| (*key, *value)).collect();
            prop_assert_eq!(&found, &expected, "{:?}", bounds);
            let seen: Vec<_> = snapshot.range(bounds).collect();
            prop_assert_eq!(&seen, &expected, "{:?} of a snapshot", bounds);
        }
    }

    #[test]
    fn a_list_from_any_entries_holds_what_a_map_from_them_holds(
        entries in prop::collection::vec((0..KEYS, any::<u32>()), 0..1000),
    ) {
        let list: SkipList<u16, u32> = entries.iter().copied().collect();
        let model: BTreeMap<u16, u32> = entries.into_iter().collect();
        assert_same(&list, &model);
    }
}

#[derive(Clone, Debug)]
enum SharedOperation {
    /// Changes made in one batch.
    Write(Vec<Operation>),
    TakeSnapshot,
    /// Takes another snapshot of the same moment.
    CloneSnapshot(prop::sample::Index),
    DropSnapshot(prop::sample::Index),
    CheckSnapshot(prop::sample::Index, Bound<u16>, Bound<u16>),
    Replace(Vec<u16>),
    Reclaim(usize),
}

fn shared_operation() -> impl Strategy<Value = SharedOperation> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        20 => prop::collection::vec(operation(), 1..10).prop_map(SharedOperation::Write),
        5 => Just(SharedOperation::TakeSnapshot),
        1 => index().prop_map(SharedOperation::CloneSnapshot),
        5 => index().prop_map(SharedOperation::DropSnapshot),
        5 => (index(), bound(), bound()).prop_map(|(i, start, end)| SharedOperation::CheckSnapshot(i, start, end)),
        1 => prop::collection::vec(0..KEYS, 0..300).prop_map(SharedOperation::Replace),
        2 => (0_usize..200).prop_map(SharedOperation::Reclaim),
    ]
}

/// The list, the map that it should equal, and snapshots with clones of the map from the same moments.
struct Pair {
    list: SharedSkipList<u16, u32>,
    model: BTreeMap<u16, u32>,
    snapshots: Vec<(Snapshot<u16, u32>, BTreeMap<u16, u32>)>,
}

impl Pair {
    fn apply(&mut self, operation: &SharedOperation) {
        match operation {
            SharedOperation::Write(operations) => self.write(operations),
            SharedOperation::TakeSnapshot => self.snapshots.push((self.list.snapshot(), self.model.clone())),
            SharedOperation::CloneSnapshot(index) => {
                if !self.snapshots.is_empty() {
                    let copy = index.get(&self.snapshots).clone();
                    self.snapshots.push(copy);
                }
            }
            SharedOperation::DropSnapshot(index) => {
                if !self.snapshots.is_empty() {
                    self.snapshots.swap_remove(index.index(self.snapshots.len()));
                }
            }
            SharedOperation::CheckSnapshot(index, start, end) => {
                if !self.snapshots.is_empty() {
                    let (snapshot, model) = index.get(&self.snapshots);
                    let bounds = (*start, *end);
                    assert!(snapshot.range(bounds).eq(model_range(model, bounds)));
                }
            }
            SharedOperation::Replace(keys) => {
                self.model = keys.iter().map(|key| (*key, 1)).collect();
                let list = self.model.iter().map(|(key, value)| (*key, *value)).collect();
                self.list.write(|batch| batch.replace(list));
            }
            SharedOperation::Reclaim(limit) => {
                self.list.reclaim(*limit);
            }
        }
    }

    fn write(&mut self, operations: &[Operation]) {
        let model = &mut self.model;
        self.list.write(|batch| {
            for operation in operations {
                match *operation {
                    Operation::Insert(key, value) => {
                        assert_eq!(batch.insert(key, value), model.insert(key, value));
                    }
                    Operation::Remove(key) => assert_eq!(batch.remove(&key), model.remove(&key)),
                    Operation::InsertRange(start, end) => {
                        batch.extend((start..end).map(|key| (key, 0)));
                        model.extend((start..end).map(|key| (key, 0)));
                    }
                    Operation::RemoveRange(start, end) => {
                        for key in start..end {
                            assert_eq!(batch.remove(&key), model.remove(&key));
                        }
                    }
                    Operation::Clear => {
                        batch.clear();
                        model.clear();
                    }
                    Operation::PopFirst | Operation::Retain(_) => {}
                }
            }
        });
    }

    fn check(&self) {
        self.list.read(|list| assert_same(list, &self.model));
        for (snapshot, model) in &self.snapshots {
            assert_eq!(snapshot.len(), model.len());
            assert!(
                snapshot
                    .iter()
                    .eq(model.iter().map(|(key, value)| (*key, *value)))
            );
            for key in 0..KEYS {
                assert_eq!(snapshot.get(&key), model.get(&key).copied());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_stays_what_the_list_was_whatever_is_written_and_whichever_others_go(
        operations in prop::collection::vec(shared_operation(), 1..120),
    ) {
        let mut pair = Pair { list: SharedSkipList::new(), model: BTreeMap::new(), snapshots: Vec::new() };
        for operation in &operations {
            pair.apply(operation);
        }
        pair.check();

        pair.snapshots.clear();
        while pair.list.reclaim(1000) {}
        prop_assert_eq!(pair.list.stats().old_versions, 0, "nothing is left when no snapshot is");
        pair.check();
    }
}

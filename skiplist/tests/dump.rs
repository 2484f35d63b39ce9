//! Lists through serde and back.

use bytes::Bytes;
use proptest::prelude::*;
use skiplist::{Dump, LoadError, SharedSkipList, SkipList};

type List = SkipList<Bytes, Bytes>;

fn entries() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..6);
    prop::collection::vec((bytes(), bytes()), 0..300)
}

proptest! {
    #[test]
    fn a_list_comes_back_from_its_dump_and_from_its_pairs(entries in entries()) {
        let list: List = entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect();

        let dump = serde_json::to_string(&list.dump()).unwrap();
        let loaded = List::load(serde_json::from_str(&dump).unwrap()).unwrap();
        prop_assert_eq!(&loaded, &list);

        let pairs = serde_json::to_string(&list).unwrap();
        prop_assert_eq!(&serde_json::from_str::<List>(&pairs).unwrap(), &list);
    }

    #[test]
    fn pairs_out_of_order_are_refused_at_the_first_that_is_not_greater(keys in prop::collection::vec(0_u8..20, 0..12)) {
        let offending = (1..keys.len()).find(|&i| keys[i] <= keys[i - 1]);
        let values = keys.clone();
        let result = SkipList::load(Dump { keys: keys.clone(), values });
        match offending {
            None => prop_assert!(result.unwrap().keys().eq(&keys)),
            Some(position) => prop_assert_eq!(result, Err(LoadError::NotAscending { position })),
        }
    }
}

#[test]
fn a_snapshot_is_written_as_the_list_was() {
    let list = SharedSkipList::new();
    list.write(|batch| batch.extend((0..1_000).map(|key| (key, key * 2))));
    let expected = list.read(|list| serde_json::to_string(list).unwrap());
    let snapshot = list.snapshot();
    list.clear();
    assert_eq!(serde_json::to_string(&snapshot).unwrap(), expected);
    let dump: Dump<i32, i32> = snapshot.iter().collect();
    assert!(
        SkipList::load(dump)
            .unwrap()
            .into_iter()
            .eq((0..1_000).map(|key| (key, key * 2)))
    );
}

#[test]
fn a_dump_with_more_keys_than_values_is_refused() {
    let dump = Dump {
        keys: vec![1, 2],
        values: vec!["a"],
    };
    assert_eq!(
        SkipList::load(dump),
        Err(LoadError::Uneven { keys: 2, values: 1 })
    );
}

#[test]
fn a_duplicate_key_in_the_input_is_refused_with_its_position() {
    let error = serde_json::from_str::<SkipList<u32, u32>>("[[1,1],[2,2],[2,3]]").unwrap_err();
    assert!(error.to_string().contains("position 2"), "{error}");
}

#[test]
fn input_of_another_shape_is_refused() {
    for input in ["{}", "[1]", "[[1]]", "[[1,2],[\"a\",3]]", "[[1,2]", "null"] {
        assert!(
            serde_json::from_str::<SkipList<u32, u32>>(input).is_err(),
            "{input}"
        );
    }
}

#[test]
fn a_loaded_list_goes_on_as_any_other() {
    let mut list = SkipList::from_sorted((0..10_000).step_by(2).map(|key| (key, key))).unwrap();
    list.extend((1..10_000).step_by(2).map(|key| (key, key)));
    assert!(list.into_iter().eq((0..10_000).map(|key| (key, key))));
}

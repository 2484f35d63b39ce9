//! Random writes against the plain model, with restarts in between, on both implementations.

use std::sync::Arc;

use crate::common::{InMemory, OnDisk};
use proptest::prelude::*;
use raft_core::{HardState, LogIndex, NodeId, Storage as _, Term, Write};
use storage::SnapshotStore;
use storage::conformance::{Device, Model, command, cut_snapshot, initial_configuration};

/// A write before it is known where the log stands. Positions are fractions of what is possible then, in
/// 256ths.
#[derive(Clone, Debug)]
enum Wish {
    Vote { term: u64, node: Option<u64> },
    Append { overwrite: u8, lengths: Vec<usize> },
    Compact { at: u8, retain: u8 },
    InstallKeeping { at: u8 },
    InstallReplacing { ahead: u8 },
}

fn wish() -> impl Strategy<Value = Wish> {
    let length = prop_oneof![20 => 0..100_usize, 2 => 1000..5000_usize, 1 => 30_000..80_000_usize];
    let lengths = proptest::collection::vec(length, 1..12);
    // Most appends follow the log; the others overwrite a part of it.
    let overwrite = prop_oneof![3 => Just(0_u8), 1 => any::<u8>()];
    prop_oneof![
        3 => (0..9_u64, proptest::option::of(0..9_u64)).prop_map(|(term, node)| Wish::Vote { term, node }),
        8 => (overwrite, lengths).prop_map(|(overwrite, lengths)| Wish::Append { overwrite, lengths }),
        2 => any::<(u8, u8)>().prop_map(|(at, retain)| Wish::Compact { at, retain }),
        1 => any::<u8>().prop_map(|at| Wish::InstallKeeping { at }),
        1 => (0..20_u8).prop_map(|ahead| Wish::InstallReplacing { ahead }),
    ]
}

/// A batch of wishes, and whether the store is opened anew after it.
fn batches() -> impl Strategy<Value = Vec<(Vec<Wish>, bool)>> {
    proptest::collection::vec(
        (
            proptest::collection::vec(wish(), 1..5),
            proptest::bool::weighted(0.3),
        ),
        1..25,
    )
}

/// The number at `fraction` 256ths of the way from `low` to `high`.
fn between(low: LogIndex, high: LogIndex, fraction: u8) -> u64 {
    let (low, high) = (low.get(), high.get());
    low + (high.saturating_sub(low) + 1) * u64::from(fraction) / 256
}

/// Makes the wish come true where the log of `model` stands now. `None` when it cannot.
fn grant(wish: &Wish, model: &Model, files: &dyn SnapshotStore) -> Option<Write> {
    let snapshot_index = model.restored().snapshot.last_included_index;
    let cut = |index: u64| cut_snapshot(files, index, 1, format!("state {index}").as_bytes()).unwrap();
    match wish {
        Wish::Vote { term, node } => Some(Write::HardState(HardState {
            current_term: Term(*term),
            voted_for: node.map(NodeId),
            ..HardState::default()
        })),
        Wish::Append { overwrite, lengths } => {
            let lowest = snapshot_index.max(model.first_index().previous()).next();
            let back = between(lowest, model.last_index().next(), *overwrite) - lowest.get();
            let first = model.last_index().next().get() - back;
            let entries = (first..)
                .zip(lengths)
                .map(|(index, length)| command(back + 1, index, *length));
            Some(Write::Append(entries.collect()))
        }
        Wish::Compact { at, retain } => {
            let index = between(snapshot_index, model.last_index(), *at);
            let first_retained = LogIndex(between(LogIndex(1), LogIndex(index + 1), *retain));
            (index > 0).then(|| Write::Compact {
                snapshot: cut(index),
                first_retained,
            })
        }
        Wish::InstallKeeping { at } => {
            let index = between(snapshot_index, model.last_index(), *at);
            (index > 0).then(|| Write::InstallSnapshot {
                snapshot: cut(index),
                keep_suffix: true,
            })
        }
        Wish::InstallReplacing { ahead } => {
            let index = snapshot_index.get() + u64::from(*ahead);
            (index > 0).then(|| Write::InstallSnapshot {
                snapshot: cut(index),
                keep_suffix: false,
            })
        }
    }
}

fn check<D: Device>(mut device: D, batches: &[(Vec<Wish>, bool)]) {
    let mut model = Model::new(&initial_configuration());
    let mut store = device.open(&initial_configuration()).unwrap();
    for (wishes, restart) in batches {
        let files: Arc<dyn SnapshotStore> = D::snapshots(&store);
        let mut writes = Vec::new();
        for wish in wishes {
            if let Some(write) = grant(wish, &model, &*files) {
                model.apply_all(std::slice::from_ref(&write));
                writes.push(write);
            }
        }
        store.write(&writes).unwrap();
        if *restart {
            drop(store);
            store = device.open(&initial_configuration()).unwrap();
            assert_eq!(store.restore().unwrap(), model.restored());
        }
    }
    drop(store);
    let restored = device.open(&initial_configuration()).unwrap().restore().unwrap();
    assert_eq!(restored, model.restored());
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn the_store_on_disk_holds_what_the_model_holds(batches in batches()) {
        check(OnDisk::with_small_journal(), &batches);
    }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn the_store_in_memory_holds_what_the_model_holds(batches in batches()) {
        check(InMemory::default(), &batches);
    }
}

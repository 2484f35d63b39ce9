//! Whole runs: they can be repeated, they pass, and they fail when something is broken.

use sim::{PlantedBug, Verdict};

/// The invariant that catches `bug` first, over some seeds, each with how often it did.
fn caught_by(bug: PlantedBug, seeds: u64) -> Vec<&'static str> {
    let verdict = |seed| match sim::run_with_bug(seed, bug).verdict {
        Verdict::Passed => None,
        Verdict::Failed(violation) => Some(violation.invariant),
    };
    (0..seeds).filter_map(verdict).collect()
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, 3] {
        let (first, second) = (sim::run(seed), sim::run(seed));
        assert_eq!(first, second);
    }
    assert_ne!(sim::run(1).trace_hash, sim::run(2).trace_hash);
}

#[test]
fn listening_does_not_change_the_run() {
    let mut lines = 0;
    let traced = sim::run_traced(5, &mut |_, _| lines += 1);
    assert_eq!(traced, sim::run(5));
    assert!(lines > 100, "{lines}");
}

#[test]
fn thirty_seeds_pass_and_see_every_kind_of_trouble() {
    let mut totals = sim::Totals::default();
    for seed in 0..30 {
        let report = sim::run(seed);
        assert_eq!(report.verdict, Verdict::Passed, "replay with: sim --seed {seed}");
        totals += report.totals;
    }
    for (name, count) in [
        ("drops", totals.drops),
        ("crashes", totals.faults.of(sim::FaultKind::Crash)),
        ("elections", totals.elections),
        ("snapshots cut", totals.snapshots_cut),
        ("operations", totals.operations),
        ("promises", totals.promises),
    ] {
        assert!(count > 20, "only {count} {name}");
    }
    assert!(totals.snapshots_installed > 0);
}

#[test]
fn a_promise_that_leaves_before_it_is_durable_is_caught() {
    let caught = caught_by(PlantedBug::PromiseBeforePersist, 3);
    assert_eq!(caught, ["durable promises"; 3]);
}

#[test]
fn a_retry_that_is_executed_again_is_caught() {
    let caught = caught_by(PlantedBug::RetryAsNewWrite, 6);
    assert!(caught.contains(&"exactly once"), "{caught:?}");
}

#[test]
fn a_stale_read_is_caught() {
    let caught = caught_by(PlantedBug::ReadWithoutReadIndex, 4);
    assert!(caught.contains(&"fresh reads"), "{caught:?}");
}

#[test]
fn a_cluster_whose_nodes_lose_their_disks_does_not_pass() {
    let caught = caught_by(PlantedBug::LoseDiskInCrash, 6);
    assert!(!caught.is_empty());
}

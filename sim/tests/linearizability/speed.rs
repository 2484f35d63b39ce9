//! The checker is fast enough, and stops when it is told to.

use std::time::Duration;

use rand::SeedableRng as _;
use rand_pcg::Pcg64Mcg;
use sim::linearizability::{Limits, Report, Verdict, check};

use crate::build::history;
use crate::generate::{self, Shape};

fn run(keys: usize, operations: usize, scans_per_mille: u32, limits: Limits) -> Report {
    let shape = Shape {
        keys,
        clients: 8,
        operations,
        unknown_per_mille: 10,
        scans_per_mille,
        different_values: u64::MAX,
    };
    let history = history(generate::history(&mut Pcg64Mcg::seed_from_u64(1), shape));
    check(&history, limits)
}

#[test]
fn a_busy_key_takes_few_configurations() {
    let report = run(1, 1_000, 0, Limits::default());
    assert_eq!(report.verdict, Verdict::Linearizable);
    assert!(report.configurations < 2_000_000, "{report:?}");
}

#[test]
fn few_scans_of_many_keys_take_few_configurations() {
    let report = run(50, 5_000, 10, Limits::default());
    assert_eq!(report.verdict, Verdict::Linearizable);
    assert!(report.configurations < 2_000_000, "{report:?}");
}

#[test]
fn a_limit_is_kept_and_told() {
    let limits = Limits {
        configurations: 100,
        ..Limits::default()
    };
    assert!(matches!(
        run(1, 1_000, 0, limits).verdict,
        Verdict::Undecided { .. }
    ));
    let limits = Limits {
        time: Duration::ZERO,
        ..Limits::default()
    };
    assert!(matches!(
        run(1, 1_000, 0, limits).verdict,
        Verdict::Undecided { .. }
    ));
}

//! Random histories: those of a linearizable map pass, and what the checker says of changed ones is what trying
//! every order says.

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use sim::linearizability::{Limits, Verdict, check};

use super::brute_force::is_linearizable;
use super::build::history;
use super::generate::{self, Shape};

#[test]
fn what_a_linearizable_map_does_passes() {
    for seed in 0..40 {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let shape = Shape {
            keys: random.random_range(1..8),
            clients: random.random_range(1..9),
            operations: 200,
            unknown_per_mille: random.random_range(0..60),
            scans_per_mille: random.random_range(0..80),
            different_values: [4, 50, 1_000][random.random_range(0..3)],
            mix: generate::EVEN,
        };
        let history = history(generate::history(&mut random, shape));
        let report = check(&history, Limits::default());
        assert_eq!(report.verdict, Verdict::Linearizable, "seed {seed}: {shape:?}");
    }
}

#[test]
fn what_the_checker_says_of_small_histories_is_what_trying_every_order_says() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..5_000 {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let shape = Shape {
            keys: random.random_range(1..4),
            clients: random.random_range(2..5),
            operations: random.random_range(4..10),
            unknown_per_mille: [150, 150, 500][random.random_range(0..3)],
            scans_per_mille: 250,
            different_values: random.random_range(1..5),
            mix: generate::EVEN,
        };
        let mut operations = generate::history(&mut random, shape);
        for _ in 0..random.random_range(0..8) {
            generate::mutate(&mut random, &mut operations);
        }
        let expected = is_linearizable(&operations);
        let verdict = check(&history(operations.clone()), Limits::default()).verdict;
        assert_eq!(
            verdict == Verdict::Linearizable,
            expected,
            "seed {seed}: {verdict:?} of {operations:#?}"
        );
        if expected { good += 1 } else { bad += 1 }
    }
    assert!(
        good > 1_000 && bad > 500,
        "{good} good and {bad} bad ones prove too little"
    );
}

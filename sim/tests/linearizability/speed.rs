//! The checker is fast enough, and stops when it is told to.

use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand_pcg::Pcg64Mcg;
use sim::linearizability::{History, Limits, Operation, Report, Verdict, Violation, check};

use super::build::{At, history};
use super::generate::{self, Shape};

fn run(keys: usize, operations: usize, scans_per_mille: u32, limits: Limits) -> Report {
    let shape = Shape {
        keys,
        clients: 8,
        operations,
        unknown_per_mille: 10,
        scans_per_mille,
        different_values: u64::MAX,
        mix: generate::EVEN,
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

/// Writes of unknown outcome that nobody saw stay open for long. All that do the same count as one.
#[test]
fn few_reads_beside_many_unknown_outcomes_take_few_configurations() {
    for mix in [[5, 1, 1, 1], [1, 5, 1, 1], [1, 1, 5, 1]] {
        let shape = Shape {
            keys: 1,
            clients: 8,
            operations: 300,
            unknown_per_mille: 50,
            scans_per_mille: 0,
            different_values: u64::MAX,
            mix,
        };
        let history = history(generate::history(&mut Pcg64Mcg::seed_from_u64(1), shape));
        let report = check(&history, Limits::default());
        assert_eq!(report.verdict, Verdict::Linearizable);
        assert!(report.configurations < 400_000, "{mix:?}: {report:?}");
    }
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

/// A stale read of the key `bad`, and a key `busy` that takes more than any small limit.
fn stale_beside_busy(bad: &str, busy: &str, busy_writes: u64) -> Vec<Operation> {
    let stale = [At(1, 0, 10).put(bad, "1"), At(2, 20, 30).get(bad, None)];
    let writes = (0..busy_writes).map(|client| At(10 + client, 0, 1_000).append(busy, &format!("{client};")));
    let read = At(3, 2_000, 2_010).get(busy, Some("no such value"));
    stale.into_iter().chain(writes).chain([read]).collect()
}

#[test]
fn a_violation_stays_one_if_a_limit_is_reached_at_another_key() {
    let limits = Limits {
        configurations: 100,
        ..Limits::default()
    };
    let stale = stale_beside_busy("a", "b", 12);
    let report = check(&history(stale), limits);
    assert!(
        report.configurations > 100,
        "the limit was not reached: {report:?}"
    );
    assert_eq!(report.verdict, Verdict::Violation(Violation { operation: 1 }));
    // The busy key comes first, and only its own limit is reached.
    let too_many = stale_beside_busy("b", "a", 10_000);
    let report = check(&history(too_many), Limits::default());
    assert_eq!(report.verdict, Verdict::Violation(Violation { operation: 1 }));
}

/// Operations on each key: as many as a debug build checks in no time. With a thousand it is a measurement:
/// `CHECKER_OPERATIONS=1000 cargo test --release -p sim --test it busy -- --nocapture`
fn operations_per_key() -> usize {
    let asked = std::env::var("CHECKER_OPERATIONS").ok();
    asked.map_or(30, |text| text.parse().expect("CHECKER_OPERATIONS is a number"))
}

/// What eight clients do on each of 100 keys at once: the hardest way to have so many operations.
fn busy_keys(per_key: usize, mix: [u32; 4]) -> History {
    let of_one_key = |number| {
        let shape = Shape {
            keys: 1,
            clients: 8,
            operations: per_key,
            unknown_per_mille: 10,
            scans_per_mille: 0,
            different_values: u64::MAX,
            mix,
        };
        let operations = generate::history(&mut Pcg64Mcg::seed_from_u64(number), shape);
        operations
            .into_iter()
            .map(move |operation| generate::with_key(operation, number))
    };
    history((0..100).flat_map(of_one_key).collect())
}

/// The fewer reads there are, the more orders of the writes are possible.
#[test]
fn a_hundred_busy_keys_are_decided() {
    let per_key = operations_per_key();
    let most = |of_an_operation: u64| of_an_operation * 100 * per_key as u64;
    for (mix, configurations) in [(generate::EVEN, most(250)), ([1, 1, 1, 1], most(1_000))] {
        let history = busy_keys(per_key, mix);
        let started = Instant::now();
        let report = check(&history, Limits::default());
        let took = started.elapsed();
        println!("put, append, delete, get {mix:?}: {report:?} in {took:?}");
        assert_eq!(report.verdict, Verdict::Linearizable);
        assert!(report.configurations < configurations, "{report:?}");
    }
    let started = Instant::now();
    let report = run(100, 100 * per_key, 1, Limits::default());
    println!("with scans: {report:?} in {:?}", started.elapsed());
    assert_eq!(report.verdict, Verdict::Linearizable);
}

#[test]
fn a_long_history_gives_the_same_report_on_all_processors_as_on_one() {
    let one_by_one = Limits {
        configurations: u64::MAX - 1,
        ..Limits::default()
    };
    let long = busy_keys(60, generate::EVEN);
    let report = check(&long, Limits::default());
    assert_eq!(report.verdict, Verdict::Linearizable);
    assert_eq!(report, check(&long, one_by_one));
    // Two keys that read what nobody wrote: the first to end is told.
    let (mut broken, stale) = (long.operations().to_vec(), long.operations().len());
    broken.extend(
        [(20, "b"), (10, "a")].map(|(end, key)| At(90 + end, 0, end).get(key, Some("no such value"))),
    );
    let broken = history(broken);
    let report = check(&broken, Limits::default());
    let operation = stale + 1;
    assert_eq!(report.verdict, Verdict::Violation(Violation { operation }));
    assert_eq!(report, check(&broken, one_by_one));
}

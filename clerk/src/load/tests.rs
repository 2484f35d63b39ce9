//! Loads in virtual time: the same on any machine.

use std::convert::Infallible;
use std::sync::Mutex;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use tokio::time::sleep;

use super::keys::Keys;
use super::outcome::Ended;
use super::*;
use crate::Error;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Answers after a millisecond, but stalls once, or fails.
#[derive(Clone, Debug)]
struct Script {
    start: Instant,
    /// When it takes no call, from the start on.
    stall: std::ops::Range<Duration>,
    fails: bool,
    seen: Arc<Mutex<Vec<Call>>>,
}

impl Script {
    fn new(stall: std::ops::Range<Duration>) -> Self {
        Self {
            start: Instant::now(),
            stall,
            fails: false,
            seen: Arc::default(),
        }
    }

    fn reads(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|call| matches!(call, Call::Get { .. }))
            .count()
    }
}

impl Target for Script {
    type Error = Error;

    async fn call(&self, call: Call) -> Result<(), Error> {
        self.seen.lock().unwrap().push(call);
        if self.stall.contains(&self.start.elapsed()) {
            tokio::time::sleep_until(self.start + self.stall.end).await;
        }
        sleep(MS).await;
        if self.fails {
            return Err(Error::SessionExpired);
        }
        Ok(())
    }
}

fn load(rate: Option<u64>) -> Load {
    Load {
        clients: 1,
        warm_up: SECOND,
        duration: 4 * SECOND,
        keys: 10,
        rate,
        ..Load::default()
    }
}

#[tokio::test(start_paused = true)]
async fn at_a_rate_a_stall_shows_in_every_call_that_it_held_up() {
    let target = Script::new(2 * SECOND..3 * SECOND);
    let outcome = run(&[target], &load(Some(100))).await;
    assert_eq!((outcome.begun, outcome.not_begun), (400, Some(0)));
    // A hundred calls were due during the stall, and a few more while those were made up for: together over a
    // quarter of all, and the median of them waited for half a second.
    assert!(outcome.quantile_us(0.70) < 2_000, "{}", outcome.quantile_us(0.70));
    assert!(
        outcome.quantile_us(0.90) > 400_000,
        "{}",
        outcome.quantile_us(0.90)
    );
    assert!(
        (1_000_000..1_010_000).contains(&outcome.max_us()),
        "{}",
        outcome.max_us()
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_rate_a_stall_shows_in_one_call_and_in_the_longest_gap() {
    let target = Script::new(2 * SECOND..3 * SECOND);
    let outcome = run(&[target], &load(None)).await;
    assert!(
        outcome.quantile_us(0.999) < 2_500,
        "{}",
        outcome.quantile_us(0.999)
    );
    assert!((1_000_000..1_010_000).contains(&outcome.longest_gap_us));
    assert_eq!(outcome.not_begun, None);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_interrupted_tells_what_was_measured_until_then() {
    let steady = Script::new(Duration::ZERO..Duration::ZERO);
    let whole = run(std::slice::from_ref(&steady), &load(None)).await;
    let half = run_until(&[steady], &load(None), sleep(3 * SECOND)).await;
    assert_eq!((whole.measured, half.measured), (4 * SECOND, 2 * SECOND));
    // The last calls before the interrupt are not left out.
    assert_eq!(half.operations, whole.operations / 2);
    assert!((half.per_second() - whole.per_second()).abs() < 1.0);
    assert_eq!((half.errors, half.max_us()), (0, whole.max_us()));
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_out_when_a_load_is_interrupted_have_begun_and_are_not_waited_for() {
    let stalled = Script::new(2 * SECOND..100 * SECOND);
    let began = Instant::now();
    let outcome = run_until(&[stalled], &load(None), sleep(3 * SECOND)).await;
    assert!(began.elapsed() < 4 * SECOND);
    assert_eq!(outcome.begun, outcome.operations);
    assert!((990_000..=1_010_000).contains(&outcome.max_us()), "{outcome:?}");
    assert!(
        (990_000..=1_000_000).contains(&outcome.longest_gap_us),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn at_a_rate_every_call_that_was_due_before_the_interrupt_is_told_of() {
    for clients in [1, 8, 200] {
        let stalled = Script::new(2 * SECOND..100 * SECOND);
        let load = Load {
            clients,
            ..load(Some(100))
        };
        let outcome = run_until(&[stalled], &load, sleep(3 * SECOND)).await;
        // A client that waits for the next call has not begun it.
        assert_eq!(outcome.begun + outcome.not_begun.unwrap(), 200, "{outcome:?}");
        assert_eq!(outcome.begun, 100 + u64::from(clients.min(100)), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_interrupted_in_its_warm_up_has_measured_nothing() {
    for rate in [None, Some(100)] {
        let steady = Script::new(Duration::ZERO..Duration::ZERO);
        let outcome = run_until(&[steady], &load(rate), sleep(500 * MS)).await;
        assert_eq!((outcome.measured, outcome.operations), (Duration::ZERO, 0));
        assert_eq!((outcome.begun, outcome.not_begun.unwrap_or(0)), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_in_the_warm_up_does_not_count() {
    let target = Script::new(Duration::ZERO..900 * MS);
    let outcome = run(&[target], &load(None)).await;
    assert!(outcome.longest_gap_us < 10_000, "{}", outcome.longest_gap_us);
    assert!(outcome.max_us() < 10_000, "{}", outcome.max_us());
    assert!(outcome.per_second() > 300.0, "{}", outcome.per_second());
}

#[tokio::test(start_paused = true)]
async fn calls_that_could_not_begin_before_the_end_are_counted() {
    let target = Script::new(Duration::ZERO..Duration::ZERO);
    // One client that needs a millisecond or two for a call cannot make 10,000 in a second.
    let outcome = run(&[target], &load(Some(10_000))).await;
    assert_eq!(outcome.begun + outcome.not_begun.unwrap(), 40_000);
    assert!(outcome.not_begun.unwrap() > 20_000, "{outcome:?}");
    // The half that never began is not left out: those calls are the ones that waited longest.
    assert!(
        outcome.quantile_us(0.5) > 1_000_000,
        "{}",
        outcome.quantile_us(0.5)
    );
    assert!(
        (3_000_000..5_100_000).contains(&outcome.max_us()),
        "{}",
        outcome.max_us()
    );
}

#[tokio::test(start_paused = true)]
async fn at_a_rate_a_stall_to_the_end_shows_in_every_call_that_it_held_up() {
    for clients in [1, 8, 200] {
        let target = Script::new(4_100 * MS..6 * SECOND);
        let load = Load {
            clients,
            ..load(Some(100))
        };
        let outcome = run(&[target], &load).await;
        assert_eq!(outcome.begun + outcome.not_begun.unwrap(), 400);
        // 90 of 400 calls were due in the stall, one every ten milliseconds; of those not begun the wait is counted to the
        // end, when half of all that were held up had waited for 450 ms.
        assert!(outcome.quantile_us(0.77) < 2_500, "{}", outcome.quantile_us(0.77));
        let held_up = outcome.quantile_us(0.89);
        assert!(held_up > 400_000, "{clients} clients: {held_up}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_to_the_end_is_the_longest_gap_and_errors_are_counted() {
    let mut target = Script::new(Duration::ZERO..Duration::ZERO);
    target.fails = true;
    let outcome = run(&[target], &load(None)).await;
    assert_eq!(
        (outcome.operations, outcome.quantile_us(0.5), outcome.max_us()),
        (0, 0, 0)
    );
    assert!(outcome.errors > 1_000);
    assert_eq!(outcome.first_error, Some(Error::SessionExpired));
    assert!(outcome.longest_gap_us >= 4_000_000, "{}", outcome.longest_gap_us);
}

#[tokio::test(start_paused = true)]
async fn a_mixed_load_reads_as_often_as_it_is_told() {
    for (reads_percent, expected) in [(0, 0.0), (50, 0.5), (95, 0.95), (100, 1.0)] {
        let target = Script::new(Duration::ZERO..Duration::ZERO);
        let operation = Operation::Mixed { reads_percent };
        let load = Load {
            operation,
            ..load(None)
        };
        run(std::slice::from_ref(&target), &load).await;
        let calls = target.seen.lock().unwrap().len();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let share = target.reads() as f64 / calls as f64;
        assert!(
            calls > 1_000 && (share - expected).abs() < 0.05,
            "{share} of {calls}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_reads_finds_every_key_written() {
    let target = Script::new(Duration::ZERO..Duration::ZERO);
    let load = Load {
        operation: Operation::Get,
        keys: 200,
        ..load(None)
    };
    prepare(&[target.clone(), target.clone()], &load).await.unwrap();
    let written: std::collections::BTreeSet<String> = target
        .seen
        .lock()
        .unwrap()
        .iter()
        .filter_map(|call| match call {
            Call::Put { key, .. } => Some(key.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(written.len(), 200);
    assert!(written.contains(&key(0)) && written.contains(&key(199)));
}

#[tokio::test(start_paused = true)]
async fn loads_of_one_seed_draw_the_same_keys_and_of_two_seeds_others() {
    async fn seen(seed: u32) -> Vec<Call> {
        let target = Script::new(Duration::ZERO..Duration::ZERO);
        let load = Load { seed, ..load(None) };
        run(std::slice::from_ref(&target), &load).await;
        let seen = target.seen.lock().unwrap();
        seen[..100].to_vec()
    }
    assert_eq!(seen(1).await, seen(1).await);
    assert_ne!(seen(1).await, seen(2).await);
    assert_ne!(seen(0).await, seen(1).await);
}

fn hits(distribution: Distribution) -> Vec<u32> {
    let keys = Keys::new(1_000, distribution);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut hits = vec![0; 1_000];
    for _ in 0..100_000 {
        hits[usize::try_from(keys.next(&mut random)).unwrap()] += 1;
    }
    hits
}

#[test]
fn uniform_keys_are_all_alike_and_zipf_has_favourites() {
    let uniform = hits(Distribution::Uniform);
    assert!(uniform.iter().all(|hits| (30..250).contains(hits)));
    let zipf = hits(Distribution::Zipf);
    assert!((11_000..15_000).contains(&zipf[0]), "{}", zipf[0]);
    assert!(zipf[0] > zipf[1] && zipf[1] > zipf[9] && zipf[9] > zipf[99]);
    let last = zipf[900..].iter().sum::<u32>();
    assert!((500..4_000).contains(&last), "{last}");
}

#[test]
fn one_key_is_chosen_by_either_distribution() {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    for distribution in [Distribution::Uniform, Distribution::Zipf] {
        assert_eq!(Keys::new(1, distribution).next(&mut random), 0);
        assert_eq!(Keys::new(0, distribution).next(&mut random), 0);
    }
}

#[test]
fn there_are_never_more_connections_than_clients() {
    assert_eq!(connections(1, None), 1);
    assert_eq!(connections(256, None), USUAL_CONNECTIONS);
    assert_eq!(connections(257, None), 3);
    assert_eq!(connections(10_000, None), 79);
    assert_eq!(connections(3, Some(10)), 3);
}

#[tokio::test(start_paused = true)]
async fn what_the_timer_is_late_is_no_latency() {
    // Calls are due at thirds of milliseconds, and the timer knows whole ones.
    let target = Script::new(Duration::ZERO..Duration::ZERO);
    let outcome = run(std::slice::from_ref(&target), &load(Some(300))).await;
    let closed = run(&[target], &load(None)).await;
    assert_eq!(outcome.begun, 1_200);
    assert_eq!(outcome.max_us(), closed.max_us());
}

/// A call that began and ended while it counted.
fn within<E>(outcome: Result<(), E>, latency: Duration) -> Ended<E> {
    Ended {
        outcome,
        latency: Some(latency),
        ended_in_time: true,
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_last_call_has_its_latency_and_does_not_lower_the_rate() {
    // What begins in the last ten milliseconds is answered two seconds after the end.
    let stalls = Script::new(4_990 * MS..7 * SECOND);
    let outcome = run(&[stalls], &load(None)).await;
    assert!(outcome.max_us() >= 2_000_000, "{}", outcome.max_us());
    assert_eq!(outcome.measured, 4 * SECOND);
    let steady = run(&[Script::new(Duration::ZERO..Duration::ZERO)], &load(None)).await;
    let share = outcome.per_second() / steady.per_second();
    assert!((0.99..=1.0).contains(&share), "{share}");
}

#[tokio::test(start_paused = true)]
async fn what_began_in_the_warm_up_and_ended_while_it_counted_is_an_operation_without_a_latency() {
    let target = Script::new(500 * MS..1_500 * MS);
    let outcome = run(&[target], &load(None)).await;
    assert!(outcome.max_us() < 10_000, "{}", outcome.max_us());
    // The last call began in time and ended too late: without the first one there would be one less.
    assert_eq!(outcome.operations, outcome.begun);
}

#[tokio::test(start_paused = true)]
async fn at_a_low_rate_the_wait_for_the_last_call_is_no_gap_either() {
    let slow = Script::new(4_990 * MS..7 * SECOND);
    let load = Load {
        clients: 8,
        ..load(Some(500))
    };
    let outcome = run(&[slow], &load).await;
    assert!(outcome.max_us() >= 2_000_000, "{}", outcome.max_us());
    assert!(outcome.longest_gap_us <= 20_000, "{}", outcome.longest_gap_us);
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_the_last_of_many_calls_is_no_gap() {
    let slow = Script::new(4_990 * MS..7 * SECOND);
    let usual = Script::new(Duration::ZERO..Duration::ZERO);
    let load = Load {
        clients: 2,
        ..load(None)
    };
    let outcome = run(&[slow, usual], &load).await;
    assert!(outcome.max_us() >= 2_000_000, "{}", outcome.max_us());
    assert!(outcome.longest_gap_us < 10_000, "{}", outcome.longest_gap_us);
}

#[test]
fn a_latency_beyond_the_scale_counts_as_the_longest() {
    let mut tally = Tally::<Infallible>::new();
    tally.count(within(Ok(()), Duration::MAX));
    tally.count(within(Ok(()), Duration::ZERO));
    let outcome = tally.conclude(SECOND, None, 0);
    assert_eq!(outcome.operations, 2);
    assert!(outcome.max_us() >= LONGEST_LATENCY_US);
}

#[test]
fn a_tally_tells_quantiles_of_what_succeeded_and_counts_the_rest() {
    let mut tally = Tally::new();
    for us in 1..=1_000 {
        tally.count(within(Ok(()), Duration::from_micros(us)));
    }
    tally.count(within(Err(Error::SessionExpired), 50 * SECOND));
    let outcome = tally.conclude(2 * SECOND, Some(1_500), 7);
    assert_eq!(
        (outcome.operations, outcome.errors, outcome.not_begun),
        (1_000, 1, Some(499))
    );
    assert!((outcome.per_second() - 500.0).abs() < 1e-9);
    let quantiles = [0.5, 0.9, 0.99, 0.999].map(|share| outcome.quantile_us(share));
    assert_eq!(quantiles, [500, 900, 990, 999]);
    assert_eq!((outcome.max_us(), outcome.longest_gap_us), (1_000, 7));
}

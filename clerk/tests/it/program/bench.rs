//! `clerk bench`.

use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn bench_measures_every_operation_and_prints_the_promised_fields() {
    let cluster = Cluster::start(3).await;
    for op in ["put", "get", "append", "mixed"] {
        let load = [
            "bench",
            "--op",
            op,
            "--clients",
            "8",
            "--duration",
            "2s",
            "--keys",
            "20",
            "--value-size",
            "10",
        ];
        let report = run(&cluster, load.into_iter().chain(["--output", "json"])).await;
        assert_eq!((report.status(), report.stderr()), (0, ""));
        let report = report.json();
        assert_eq!(
            (&report["op"], &report["clients"], &report["errors"]),
            (&op.into(), &8.into(), &0.into())
        );
        assert!(report["operations"].as_u64().unwrap() > 0);
        assert_eq!(report["seconds"], 2.0);
        let operations = report["operations"].as_u64().unwrap();
        assert_eq!(report["ops_per_second"], operations as f64 / 2.0);
        let quantiles: Vec<u64> = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"]
            .into_iter()
            .map(|field| report[field].as_u64().unwrap())
            .collect();
        assert!(quantiles.is_sorted() && quantiles[0] > 0, "{quantiles:?}");
        assert!(report["longest_gap_us"].as_u64().unwrap() > 0);
        assert!(report.get("not_begun").is_none(), "there was no rate");
    }
    let text = run(
        &cluster,
        ["bench", "--duration", "100ms", "--clients", "2", "--rate", "200"],
    )
    .await;
    assert_eq!(text.status(), 0);
    for word in ["ops/s", "p50", "p90", "p99", "p99.9", "max", "errors"] {
        assert!(
            text.stdout().contains(word),
            "{word} is missing in {}",
            text.stdout()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_keeps_a_rate_and_reads_as_often_and_as_freshly_as_it_is_told() {
    let cluster = Cluster::start(3).await;
    let load =
        "bench --op mixed --reads 100 --skew zipf --consistency stale --rate 200 --duration 500ms --keys 5";
    let report = run(&cluster, load.split(' ').chain(["--output", "json"])).await;
    assert_eq!((report.status(), report.stderr()), (0, ""));
    let report = report.json();
    let count = |field: &str| report[field].as_u64().unwrap();
    // However slow the machine is, every call that was due is told of.
    assert_eq!(count("begun") + count("not_begun"), 100);
    assert!(count("errors") <= count("begun"));
    let reads: Vec<_> = cluster
        .world()
        .seen
        .iter()
        .filter_map(|seen| seen.consistency)
        .collect();
    assert!(
        !reads.is_empty() && reads.iter().all(|how| *how == Consistency::Stale),
        "{reads:?}"
    );
    for wrong in [
        ["--reads", "101"],
        ["--distribution", "normal"],
        ["--rate", "0"],
        // What a load of writes alone does not heed.
        ["--reads", "50"],
        ["--consistency", "stale"],
        // Only linearizable reads are spread.
        ["--spread-reads", "--op=put"],
        ["--spread-reads", "--op=append"],
    ] {
        run(&cluster, ["bench"].into_iter().chain(wrong))
            .await
            .fails(2, "");
    }
    for (op, how) in [("get", "stale"), ("get", "log"), ("mixed", "lease")] {
        let load = ["--spread-reads", "bench", "--op", op, "--consistency", how];
        run(&cluster, load).await.fails(2, "--spread-reads");
    }
    let no_reads = ["--spread-reads", "bench", "--op", "mixed", "--reads", "0"];
    run(&cluster, no_reads).await.fails(2, "--spread-reads");
    let load = [
        "--spread-reads",
        "bench",
        "--op",
        "get",
        "--duration",
        "100ms",
        "--keys",
        "5",
    ];
    assert_eq!(run(&cluster, load).await.status(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_against_nobody_is_not_done() {
    let cluster = Cluster::start(1).await;
    cluster.stop(1).await;
    run(&cluster, ["--timeout", "200ms", "bench"]).await.fails(3, "");
}

/// A load that lasts longer than any test, after a warm-up in which 200 calls are due.
const LONG: [&str; 7] = ["bench", "--rate", "100", "--duration", "60s", "--output", "json"];

fn start(cluster: &Cluster, arguments: &[&str], stdout: impl Into<Stdio>) -> Child {
    command(&cluster.endpoints())
        .args(arguments)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

async fn end_of(child: Child) -> Ended {
    let wait = move || child.wait_with_output().unwrap();
    Ended(tokio::task::spawn_blocking(wait).await.unwrap())
}

/// Waits until calls were made that are due in the time measured.
async fn measuring(cluster: &Cluster) {
    cluster.wait_until(|world| world.executed > 250).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_that_is_interrupted_tells_what_it_measured_until_then() {
    let cluster = Cluster::start(3).await;
    for how in [Signal::INT, Signal::TERM] {
        cluster.world().executed = 0;
        let bench = start(&cluster, &LONG, Stdio::piped());
        measuring(&cluster).await;
        signal(&bench, how);
        let ended = end_of(bench).await;
        assert_eq!((ended.status(), ended.stderr()), (3, "error: interrupted\n"));
        let report = ended.json();
        assert_eq!(report["interrupted"], true);
        let seconds = report["seconds"].as_f64().unwrap();
        assert!(0.0 < seconds && seconds < 60.0, "{report}");
        assert!(report["operations"].as_u64().unwrap() > 0, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_that_is_interrupted_before_it_measures_says_so() {
    let cluster = Cluster::start(1).await;
    cluster.script(1, [Step::Silence]);
    let bench = start(
        &cluster,
        &[&["--timeout", "60s"], &LONG[..]].concat(),
        Stdio::piped(),
    );
    cluster.wait_until(|world| !world.seen.is_empty()).await;
    signal(&bench, Signal::INT);
    let ended = end_of(bench).await;
    ended.fails(3, "interrupted before anything was measured\n");
    assert_eq!(ended.stdout(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_bench_that_cannot_print_its_report() {
    let cluster = Cluster::start(3).await;
    let (reader, stdout) = std::io::pipe().unwrap();
    let mut filler = stdout.try_clone().unwrap();
    // Far more than a pipe holds: it stays full until the reader is gone.
    let filler = std::thread::spawn(move || filler.write_all(&[0; 4 << 20]));
    let bench = start(&cluster, &LONG, stdout);
    measuring(&cluster).await;
    // Of one kind the second might come before the first was seen, and would be one with it.
    signal(&bench, Signal::INT);
    signal(&bench, Signal::TERM);
    assert_eq!(end_of(bench).await.status(), 3);
    drop(reader);
    assert!(filler.join().unwrap().is_err());
}

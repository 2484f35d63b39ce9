//! `deploy bench` with real processes. What it measures says nothing here: only that it measures.

#[cfg(feature = "etcd")]
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clerk::blocking::Clerk;
use rustix::process::Signal;
use serde_json::Value;

use crate::deploy_process::{Deploy, eventually, kill};

const SMALL: [&str; 6] = ["--clients", "4", "--duration", "1s", "--keys", "50"];

fn bench(tmp: &Path, options: &[&str]) -> Deploy {
    let arguments: Vec<&str> = ["bench"].iter().chain(options).copied().collect();
    Deploy::start(&arguments, tmp)
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn every_workload_is_measured_on_a_cluster_that_is_gone_afterwards() {
    let (tmp, plots) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plots_dir = plots.path().to_str().unwrap();
    let workloads = ["--workloads", "put,lease,mixed95", "--plots", plots_dir];
    let mut bench = bench(tmp.path(), &[&SMALL[..], &workloads].concat());
    let result = bench.wait_for("result");
    let (status, stderr) = bench.wait();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    let rows = result["results"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["put", "lease", "mixed95"]);
    for row in rows {
        assert_eq!(
            (&row["system"], &row["clients"], &row["value_bytes"]),
            (&"ours".into(), &4.into(), &128.into())
        );
        assert!(row["ops_per_second"].as_f64().unwrap() > 0.0, "{row}");
        assert!(
            row["p50_us"].as_f64().unwrap() <= row["p999_us"].as_f64().unwrap(),
            "{row}"
        );
        for ratio in ["ratio", "p99_ratio", "cpu_ratio"] {
            assert!(row[ratio].is_null(), "there was no peer");
        }
    }
    assert!(is_empty(tmp.path()));
    let svg = fs::read_to_string(plots.path().join("bench-128B-uniform.svg")).unwrap();
    assert!(svg.contains("<svg "));
}

#[test]
fn a_peer_that_cannot_be_had_is_told_and_ours_is_measured_alone() {
    let tmp = tempfile::tempdir().unwrap();
    // Nothing is on this PATH, and a program without the feature has no client of etcd either.
    let arguments = [&["bench", "--against", "etcd", "--workloads", "put"][..], &SMALL].concat();
    let mut bench = Deploy::start_with(&arguments, tmp.path(), &[("PATH", "/nowhere")]);
    let start = bench.wait_for("start");
    assert!(!start["peer_missing"].as_str().unwrap().is_empty());
    let result = bench.wait_for("result");
    assert_eq!(result["results"].as_array().unwrap().len(), 1);
    assert_eq!(bench.wait().0.code(), Some(0));
}

#[test]
fn an_echo_is_measured_beside_ours_and_only_with_workloads() {
    let tmp = tempfile::tempdir().unwrap();
    let options = ["--against", "echo", "--workloads", "lease,put", "--rounds", "1"];
    let mut compared = bench(tmp.path(), &[&SMALL[..], &options].concat());
    let start = compared.wait_for("start");
    assert_eq!(
        (&start["systems"][1]["name"], &start["peer_missing"]),
        (&"echo".into(), &Value::Null)
    );
    // In the first round ours comes first.
    assert_eq!(compared.wait_for("measured")["system"], "ours");
    let of_echo = compared.wait_for("measured");
    assert_eq!(
        (&of_echo["system"], &of_echo["errors"]),
        (&"echo".into(), &0.into())
    );
    if cfg!(target_os = "linux") {
        assert_eq!(of_echo["nodes"].as_array().unwrap().len(), 1, "{of_echo}");
    }
    let result = compared.wait_for("result");
    let (status, stderr) = compared.wait();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    let rows = result["results"].as_array().unwrap();
    let systems: Vec<&str> = rows.iter().map(|row| row["system"].as_str().unwrap()).collect();
    assert_eq!(systems, ["ours", "echo", "ours", "echo"]);
    for (row, is_ours) in rows.iter().zip([true, false, true, false]) {
        assert!(row["ops_per_second"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["ratio"].is_f64(), is_ours, "{row}");
    }

    let (status, stderr) = bench(tmp.path(), &["--restart", "--against", "echo"]).wait();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(
        stderr.starts_with("error: --restart cannot be measured against an echo"),
        "{stderr}"
    );
    assert!(is_empty(tmp.path()));
}

/// The only cluster in `tmp`, another than `last`.
fn cluster_in(tmp: &Path, last: &Path) -> PathBuf {
    eventually("a cluster is there", || {
        let mut clusters = fs::read_dir(tmp).unwrap().map(|entry| entry.unwrap().path());
        clusters.find(|cluster| cluster != last && cluster.join("node-3/pid").exists())
    })
}

/// Waits until somebody has written to the cluster what a load begins with.
fn wait_for_load(cluster: &Path) {
    let file: toml::Table = fs::read_to_string(cluster.join("cluster.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let nodes = file["node"].as_array().unwrap();
    let endpoints = nodes.iter().map(|node| node["client_addr"].as_str().unwrap());
    let clerk = Clerk::connect(endpoints).unwrap();
    eventually("the load begins", || clerk.get("bench/000000000").ok().flatten());
}

fn kill_node_2(cluster: &Path) {
    let pid = fs::read_to_string(cluster.join("node-2/pid")).unwrap();
    kill(pid.trim().parse().unwrap());
}

/// Waits until the benchmark has said that node 2 was killed.
#[track_caller]
fn ends_because_of_node_2(bench: &mut Deploy) {
    let (status, stderr) = bench.wait();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.starts_with("error: ours: node 2 ended unexpectedly (signal: 9"),
        "{stderr}"
    );
}

#[test]
fn a_node_that_ends_while_it_is_measured_is_an_error_and_what_was_measured_before_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    let options = [
        "--workloads",
        "put,get",
        "--clients",
        "4",
        "--duration",
        "4s",
        "--keys",
        "50",
    ];
    let mut bench = bench(tmp.path(), &options);
    let first = cluster_in(tmp.path(), Path::new(""));
    bench.wait_for("measured");
    let second = cluster_in(tmp.path(), &first);
    wait_for_load(&second);
    kill_node_2(&second);
    let result = bench.wait_for("result");
    let rows = result["results"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["workload"]), (1, &"put".into()), "{result}");
    ends_because_of_node_2(&mut bench);
    assert!(is_empty(tmp.path()));
}

#[test]
fn a_node_that_ends_ends_the_measurement_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    let options = [
        "--workloads",
        "put",
        "--clients",
        "4",
        "--duration",
        "5m",
        "--keys",
        "50",
    ];
    let mut bench = bench(tmp.path(), &options);
    let cluster = cluster_in(tmp.path(), Path::new(""));
    wait_for_load(&cluster);
    kill_node_2(&cluster);
    ends_because_of_node_2(&mut bench);
    assert!(is_empty(tmp.path()));
}

/// The `deploy echo` that is a child of this process, once it has said where it serves: then it starts its
/// second thread.
#[cfg(target_os = "linux")]
fn echo_of(parent: u32) -> Option<i32> {
    let is_echo = |process: &Path| {
        let read = |file| fs::read_to_string(process.join(file)).unwrap_or_default();
        let status = read("status");
        status.contains(&format!("\nPPid:\t{parent}\n"))
            && status.contains("\nThreads:\t2\n")
            && read("cmdline").contains("\0echo\0")
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|process| is_echo(process))
        .and_then(|process| process.file_name()?.to_str()?.parse().ok())
}

/// Its calls would wait for ten seconds each, and then be told as writes that failed.
#[cfg(target_os = "linux")]
#[test]
fn an_echo_that_ends_is_told_as_a_node_that_ended() {
    let tmp = tempfile::tempdir().unwrap();
    let options = "--against echo --workloads get --clients 4 --duration 100ms --keys 2000 --rounds 1";
    let options: Vec<&str> = options.split(' ').collect();
    let mut bench = bench(tmp.path(), &options);
    let echo = eventually("the echo is there", || echo_of(bench.pid()));
    kill(echo);
    let (status, stderr) = bench.wait();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.starts_with("error: echo: it ended unexpectedly (signal: 9"),
        "{stderr}"
    );
    assert!(is_empty(tmp.path()));
}

/// An `etcd` that tells its version, but as a node ends at once, on whatever ports. It notes its arguments in `runs`.
#[cfg(feature = "etcd")]
const ETCD_THAT_ENDS: &str = r#"#!/bin/sh
case "$1" in
--version) echo "etcd Version: 0.0.0" ;;
*) echo "$2" >> "${0%/*}/runs"; echo "cannot listen" >&2; exit 1 ;;
esac
"#;

/// Measures puts on ours and on the `etcd` that is this script, in a directory of its own.
#[cfg(feature = "etcd")]
fn bench_against(script: &str, tmp: &Path) -> (Deploy, tempfile::TempDir) {
    use std::os::unix::fs::PermissionsExt as _;
    let bin = tempfile::tempdir().unwrap();
    let etcd = bin.path().join("etcd");
    fs::write(&etcd, script).unwrap();
    fs::set_permissions(&etcd, fs::Permissions::from_mode(0o755)).unwrap();
    let arguments = [&["bench", "--against", "etcd", "--workloads", "put"][..], &SMALL].concat();
    let path = bin.path().to_str().unwrap();
    (Deploy::start_with(&arguments, tmp, &[("PATH", path)]), bin)
}

#[cfg(feature = "etcd")]
#[test]
fn a_peer_whose_nodes_end_at_once_is_started_three_times_on_other_ports() {
    let tmp = tempfile::tempdir().unwrap();
    let (mut bench, bin) = bench_against(ETCD_THAT_ENDS, tmp.path());
    let (status, stderr) = bench.wait();
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.starts_with("error: etcd: node "), "{stderr}");
    assert!(
        stderr.contains("ended unexpectedly; its log ends so: cannot listen"),
        "{stderr}"
    );
    let runs = fs::read_to_string(bin.path().join("runs")).unwrap();
    // Each attempt has a directory of its own, with the data of each node in it.
    let clusters: BTreeSet<&Path> = runs.lines().filter_map(|run| Path::new(run).parent()).collect();
    assert_eq!(clusters.len(), 3, "{runs}");
    assert!(is_empty(tmp.path()));
}

#[cfg(feature = "etcd")]
#[test]
fn a_signal_ends_a_benchmark_that_waits_for_the_version_of_a_peer() {
    let tmp = tempfile::tempdir().unwrap();
    let hangs = "#!/bin/sh\necho $$ > \"${0%/*}/pid\"; exec /bin/sleep 600\n";
    let (bench, bin) = bench_against(hangs, tmp.path());
    let etcd = eventually("etcd is asked", || pid_in(&bin.path().join("pid")));
    bench.signal(Signal::INT);
    ends_interrupted(bench, tmp.path());
    eventually("etcd has ended", || has_ended(etcd).then_some(()));
}

/// An `etcd` that serves nobody, and notes its guard and itself in `runs`.
#[cfg(feature = "etcd")]
const ETCD_THAT_WAITS: &str = r#"#!/bin/sh
case "$1" in
--version) echo "etcd Version: 0.0.0" ;;
*) echo "$PPID $$" >> "${0%/*}/runs"; exec /bin/sleep 600 ;;
esac
"#;

#[cfg(all(feature = "etcd", target_os = "linux"))]
#[test]
fn a_peer_ends_when_its_guard_is_killed() {
    let tmp = tempfile::tempdir().unwrap();
    let (bench, bin) = bench_against(ETCD_THAT_WAITS, tmp.path());
    let [guard, etcd] = eventually("a node runs", || {
        let runs = fs::read_to_string(bin.path().join("runs")).ok()?;
        let (run, _) = runs.split_once('\n')?;
        let (guard, etcd) = run.split_once(' ')?;
        Some([guard, etcd].map(|pid| pid.parse().unwrap()))
    });
    kill(guard);
    eventually("etcd has ended", || has_ended(etcd).then_some(()));
    drop(bench);
}

/// The process id that stands in this file, once it does.
#[cfg(feature = "etcd")]
fn pid_in(file: &Path) -> Option<i32> {
    let text = fs::read_to_string(file).ok()?;
    text.strip_suffix('\n')?.parse().ok()
}

/// Whether a process is gone, or dead and nobody has taken that in yet.
#[cfg(feature = "etcd")]
fn has_ended(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
}

/// Waits for the end of a benchmark that was sent a signal, of which nothing is left behind.
fn ends_interrupted(mut bench: Deploy, tmp: &Path) {
    let (status, stderr) = bench.wait();
    assert_eq!(
        (status.code(), stderr.as_str()),
        (Some(3), "error: interrupted\n")
    );
    assert!(is_empty(tmp));
}

#[test]
fn a_signal_ends_any_benchmark_and_its_nodes_and_leaves_nothing_behind() {
    for options in [
        &["--workloads", "put", "--clients", "1", "--duration", "5m"][..],
        &["--failover", "1"],
        &["--pause"],
        &["--memory"],
        &["--restart"],
        &["--growth"],
    ] {
        let tmp = tempfile::tempdir().unwrap();
        let bench = bench(tmp.path(), options);
        bench.wait_for("start");
        eventually("the cluster is there", || (!is_empty(tmp.path())).then_some(()));
        bench.signal(Signal::TERM);
        ends_interrupted(bench, tmp.path());
    }
}

#[test]
fn what_was_measured_before_a_signal_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    let bench = bench(tmp.path(), &SMALL);
    bench.wait_for("measured");
    bench.signal(Signal::INT);
    let result = bench.wait_for("result");
    let rows = result["results"].as_array().unwrap();
    assert!((1..4).contains(&rows.len()), "{result}");
    assert_eq!(rows[0]["workload"], "put");
    ends_interrupted(bench, tmp.path());
}

#[test]
fn what_was_endured_before_a_signal_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    let bench = bench(tmp.path(), &["--endure", "--duration", "20s"]);
    bench.wait_for("part");
    bench.signal(Signal::INT);
    let result = bench.wait_for("result");
    assert!(
        (1..20).contains(&result["endurance"].as_array().unwrap().len()),
        "{result}"
    );
    ends_interrupted(bench, tmp.path());
}

#[test]
fn failovers_and_restarts_before_a_signal_are_told() {
    for (options, event, results) in [
        (&["--failover", "100"][..], "failover", "failovers"),
        (
            &["--restart", "--keys", "50", "--rounds", "100"],
            "measured",
            "restarts",
        ),
    ] {
        let tmp = tempfile::tempdir().unwrap();
        let bench = bench(tmp.path(), options);
        bench.wait_for(event);
        bench.signal(Signal::INT);
        let result = bench.wait_for("result");
        assert_eq!(result[results].as_array().unwrap().len(), 1, "{result}");
        ends_interrupted(bench, tmp.path());
    }
}

#[test]
fn plots_are_drawn_though_nobody_reads() {
    let (tmp, plots) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (reader, stdout) = std::io::pipe().unwrap();
    drop(reader);
    let plots_dir = plots.path().to_str().unwrap();
    let options = ["bench", "--workloads", "put", "--plots", plots_dir];
    let mut bench = Deploy::start_onto(&[&options[..], &SMALL].concat(), tmp.path(), stdout);
    let (status, stderr) = bench.wait();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(!is_empty(plots.path()));
}

#[test]
fn nothing_is_measured_for_a_reader_that_went_away() {
    let tmp = tempfile::tempdir().unwrap();
    let (reader, stdout) = std::io::pipe().unwrap();
    drop(reader);
    let mut bench = Deploy::start_onto(&["bench", "--duration", "5m"], tmp.path(), stdout);
    let (status, stderr) = bench.wait();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(is_empty(tmp.path()));
}

#[test]
fn a_node_that_ends_by_itself_in_a_failover_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    let mut bench = bench(tmp.path(), &["--failover", "100"]);
    let cluster = cluster_in(tmp.path(), Path::new(""));
    bench.wait_for("failover");
    // Whenever it runs: it may be the leader that is ended right now, and is to come back then.
    eventually("deploy notices", || {
        let pid = fs::read_to_string(cluster.join("node-2/pid")).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse() {
            kill(pid);
        }
        bench.has_ended().then_some(())
    });
    ends_because_of_node_2(&mut bench);
    assert!(is_empty(tmp.path()));
}

#[test]
fn a_leader_that_is_killed_or_stopped_leaves_a_gap_that_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    let mut bench = bench(tmp.path(), &["--failover", "1"]);
    let result = bench.wait_for("result");
    assert_eq!(bench.wait().0.code(), Some(0));
    let ends: Vec<&Value> = result["failovers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["end"])
        .collect();
    assert_eq!(ends, ["killed", "stopped"]);
    for one in result["failovers"].as_array().unwrap() {
        assert!(one["longest_gap_ms"].as_f64().unwrap() > 0.0, "{one}");
    }
    assert!(is_empty(tmp.path()));
}

#[test]
fn nodes_that_were_killed_serve_again_and_how_long_it_took_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    let mut bench = bench(tmp.path(), &["--restart", "--keys", "50", "--rounds", "2"]);
    let each: Vec<Value> = (0..2).map(|_| bench.wait_for("measured")).collect();
    let result = bench.wait_for("result");
    let (status, stderr) = bench.wait();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    let seconds = |one: &Value, which: &str| one[which].as_f64().unwrap();
    let each: Vec<f64> = each.iter().map(|one| seconds(one, "seconds")).collect();
    assert!(each.iter().all(|seconds| *seconds > 0.0), "{each:?}");
    let restarts = result["restarts"].as_array().unwrap();
    assert_eq!((restarts.len(), &result["keys"]), (1, &50.into()), "{result}");
    let ours = &restarts[0];
    assert_eq!((&ours["system"], &ours["rounds"]), (&"ours".into(), &2.into()));
    assert_eq!(seconds(ours, "longest_seconds"), each[0].max(each[1]));
    // What is read from JSON may differ in the last digit from what was written.
    let off = seconds(ours, "median_seconds") - f64::midpoint(each[0], each[1]);
    assert!(off.abs() < 1e-9, "{result}, {each:?}");
    assert!(is_empty(tmp.path()));
}

#[test]
fn a_node_that_ends_while_it_is_to_endure_is_told_with_what_was_measured_and_exit_status_1() {
    let tmp = tempfile::tempdir().unwrap();
    let mut bench = bench(tmp.path(), &["--endure", "--duration", "30s"]);
    let part = bench.wait_for("part");
    assert!(
        part["seconds"].is_f64() && part["seconds"].as_f64() >= Some(1.5),
        "{part}"
    );
    let cluster = fs::read_dir(tmp.path()).unwrap().next().unwrap().unwrap().path();
    kill_node_2(&cluster);
    let result = bench.wait_for("result");
    let parts = result["endurance"].as_array().unwrap();
    assert!((1..20).contains(&parts.len()), "{result}");
    ends_because_of_node_2(&mut bench);
    assert!(is_empty(tmp.path()));
}

//! `deploy demo` with real processes.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::deploy_process::{Deploy, eventually, is_free, kill};

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// Waits for the start of all three nodes: their process ids and endpoints.
fn wait_for_nodes(demo: &Deploy) -> Vec<(i32, String)> {
    let started = |_| demo.wait_for("node_started");
    let node = |event: Value| {
        let pid = i32::try_from(event["pid"].as_i64().unwrap()).unwrap();
        (pid, event["endpoint"].as_str().unwrap().to_owned())
    };
    (0..3).map(started).map(node).collect()
}

#[test]
fn nothing_acknowledged_is_lost_or_duplicated_when_the_leader_is_killed() {
    let tmp = tempfile::tempdir().unwrap();
    let mut demo = Deploy::start(&["demo"], tmp.path());
    let lines = demo.rest();
    let (status, stderr) = demo.wait();
    assert!(status.success(), "{status}: {stderr}\n{}", lines.join("\n"));
    let events: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let killed = events.iter().find(|event| event["event"] == "killed").unwrap();
    let again = events.iter().find(|event| event["again"] == true).unwrap();
    assert_eq!(
        killed["id"], again["id"],
        "the node that was killed is the one that is restarted"
    );
    let summary = events.last().unwrap();
    assert!(summary["acknowledged"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(
        (&summary["lost"], &summary["duplicated"]),
        (&0.into(), &0.into()),
        "{summary}"
    );
    assert_eq!(summary["nodes_agree"], true, "{summary}");
    assert!(summary["failover_ms"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(
        entries(tmp.path()),
        [""; 0].map(PathBuf::from),
        "the demo cleans up after itself"
    );
}

#[test]
fn a_signal_ends_the_demo_and_its_nodes_and_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let mut demo = Deploy::start(&["demo"], tmp.path());
    let nodes = wait_for_nodes(&demo);
    demo.wait_for("written");
    demo.signal(Signal::TERM);
    let (status, stderr) = demo.wait();
    assert_eq!(
        (status.code(), stderr.as_str()),
        (Some(3), "error: interrupted\n")
    );
    eventually("the nodes are gone", || {
        nodes.iter().all(|(_, endpoint)| is_free(endpoint)).then_some(())
    });
    assert_eq!(entries(tmp.path()), [""; 0].map(PathBuf::from));
}

#[test]
fn a_cluster_that_breaks_fails_the_demo_and_its_directory_is_kept_and_told() {
    let tmp = tempfile::tempdir().unwrap();
    let mut demo = Deploy::start(&["demo"], tmp.path());
    let nodes = wait_for_nodes(&demo);
    demo.wait_for("written");
    nodes[..2].iter().for_each(|(pid, _)| kill(*pid));
    let (status, stderr) = demo.wait();
    assert_eq!(status.code(), Some(3), "{stderr}");
    let kept = entries(tmp.path());
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(
        stderr.contains(&format!("are kept in {}", kept[0].display())),
        "{stderr}"
    );
    assert!(kept[0].join("node-1/log").exists());
    eventually("the nodes are gone", || {
        nodes.iter().all(|(_, endpoint)| is_free(endpoint)).then_some(())
    });
}

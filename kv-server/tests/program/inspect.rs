//! `kv-server inspect`: what it shows of a stopped node's directory, and that it leaves it alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use serde_json::Value;

use crate::support::{Caller, Cluster, wait_until};

fn inspect(dir: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv-server"));
    command.arg("inspect").args(flags).arg("--data-dir").arg(dir);
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The status and the document, whose `problems` are never empty when something is wrong.
fn json(dir: &Path, flags: &[&str]) -> (Option<i32>, Value) {
    let output = inspect(dir, &[&["--output", "json"], flags].concat());
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let problems = found["problems"].as_array().unwrap();
    assert_eq!(problems.is_empty(), found["whole"] == true, "{found}");
    if let Some(refusal) = found["refusal"].as_str() {
        assert_eq!(problems.iter().filter(|problem| *problem == refusal).count(), 1);
    }
    (output.status.code(), found)
}

/// Every file below `dir`: its bytes and when they were last changed.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let changed = path.metadata().unwrap().modified().unwrap();
        if path.is_dir() {
            files.insert(path.clone(), (Vec::new(), changed));
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
    files
}

/// A node that was killed, with a snapshot and a log behind it.
fn killed_node() -> Cluster {
    let cluster = Cluster::with_settings(1, "snapshot_log_bytes = 20000");
    let mut server = cluster.start(1);
    let mut caller = Caller::new();
    let addr = cluster.client_addrs[0];
    let mut number = 0;
    wait_until("there is a snapshot", || {
        number += 1;
        caller.append(&cluster, &format!("key-{number}"), &"VALUE".repeat(400));
        caller
            .status(addr)
            .filter(|status| status.snapshot_index.get() > 0)
    });
    caller.append(&cluster, "last", "VALUE");
    server.kill();
    cluster
}

fn snapshot_file(dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(dir.join("snapshots")).unwrap();
    files.next().unwrap().unwrap().path()
}

#[test]
fn a_killed_nodes_directory_is_shown_whole_and_stays_as_it_is() {
    let cluster = killed_node();
    let dir = cluster.data_dir(1);
    let before = contents(&dir);

    let text = inspect(&dir, &["--entries"]);
    assert_eq!(
        (text.status.code(), stderr(&text).as_str()),
        (Some(0), ""),
        "{}",
        stdout(&text)
    );
    for expected in [
        "identity    node 1 of cluster \"test\"",
        "hard state  term 1, voted for 1",
        "checksum",
        "a/hard-state",
        "append \"last\" (4 bytes), value 5 bytes",
        "verdict     whole",
    ] {
        assert!(stdout(&text).contains(expected), "{expected}: {}", stdout(&text));
    }
    assert!(!stdout(&text).contains("VALUE"), "a value is shown");

    let (status, found) = json(&dir, &["--entries"]);
    assert_eq!(
        (status, &found["whole"], &found["node_id"]),
        (Some(0), &true.into(), &1.into())
    );
    assert_eq!(found["snapshot"]["ok"], true);
    let entries = found["entries"].as_array().unwrap();
    assert_eq!(found["log"]["last_index"], entries.last().unwrap()["index"]);
    assert_eq!(entries.last().unwrap()["key"], "last");
    assert!(found["last_batch"].as_u64() >= found["high_water"].as_u64());
    assert!(
        found["records"]
            .as_array()
            .unwrap()
            .iter()
            .all(|record| record["ok"] == true)
    );
    assert!(json(&dir, &[]).1.get("entries").is_none());

    assert!(contents(&dir) == before, "the directory was changed");
    let _ = cluster.start(1);
}

#[test]
fn a_directory_that_a_node_has_open_is_refused() {
    let cluster = Cluster::of(1);
    let _running = cluster.start(1);
    wait_until("the server is up", || {
        Caller::new().status(cluster.client_addrs[0]).map(drop)
    });
    let refused = inspect(&cluster.data_dir(1), &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("in use by a running node"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn what_cannot_be_looked_into_is_refused_with_status_2() {
    let empty = tempfile::tempdir().unwrap();
    for (dir, expected) in [
        (empty.path(), "is not a data directory"),
        (&empty.path().join("absent"), "No such file"),
        (Path::new(env!("CARGO_BIN_EXE_kv-server")), "is not a directory"),
    ] {
        let refused = inspect(dir, &[]);
        assert_eq!(refused.status.code(), Some(2), "{dir:?}");
        let message = stderr(&refused);
        assert!(
            message.starts_with("error: ") && message.contains(expected),
            "{message}"
        );
        assert!(message.contains("name the directory that data_dir"), "{message}");
    }
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
    let help = inspect(empty.path(), &["--help"]);
    assert!(help.status.success() && stdout(&help).contains("kv-server inspect --data-dir"));
    assert_eq!(inspect(empty.path(), &["--output", "xml"]).status.code(), Some(2));
    let usage = inspect(empty.path(), &["--no-such-flag"]);
    assert!(
        stderr(&usage).contains("Usage: kv-server inspect"),
        "{}",
        stderr(&usage)
    );
}

#[test]
fn a_part_that_cannot_be_read_is_told_with_status_3_and_is_neither_gone_nor_damaged() {
    let cluster = killed_node();
    let path = cluster.data_dir(1).join("sled");
    fs::rename(&path, cluster.dir.path().join("kept")).unwrap();
    std::os::unix::fs::symlink("sled", &path).unwrap();
    for output in [inspect(&cluster.data_dir(1), &[]), cluster.output(1, &[])] {
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{message}");
        let last = &message[message.rfind("error: ").unwrap()..];
        assert!(last.contains(path.to_str().unwrap()), "{message}");
        for wrong in ["gone", "damaged", "--join", "TMPDIR"] {
            assert!(!last.contains(wrong), "{wrong}: {message}");
        }
    }
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(cluster.dir.path().join("kept"), &path).unwrap();
    assert_eq!(inspect(&cluster.data_dir(1), &[]).status.code(), Some(0));
}

/// What the node says when it is started; with the command by which it joins.
fn refusal_of_the_node(cluster: &Cluster) -> String {
    let output = cluster.output(1, &[]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.ends_with(&format!("--join:\n  {}\n", cluster.join_command(1))),
        "{message}"
    );
    message
}

#[test]
fn damage_is_told_with_status_1_and_the_rest_is_shown() {
    let cluster = killed_node();
    let dir = cluster.data_dir(1);

    let file = snapshot_file(&dir);
    let intact = fs::read(&file).unwrap();
    let mut flipped = intact.clone();
    flipped[intact.len() / 2] ^= 1;
    fs::write(&file, &flipped).unwrap();
    let (status, found) = json(&dir, &["--entries"]);
    assert_eq!(
        (status, &found["snapshot"]["ok"]),
        (Some(1), &false.into()),
        "{found}"
    );
    let problem = found["snapshot"]["problem"].as_str().unwrap();
    assert!(problem.contains("checksum"), "{problem}");
    assert_eq!(
        found["entries"].as_array().unwrap().last().unwrap()["key"],
        "last"
    );

    let refusal = refusal_of_the_node(&cluster);
    assert!(
        refusal.contains(&format!("the snapshot file {} cannot be used", file.display())),
        "{refusal}"
    );

    fs::write(&file, &intact[1..]).unwrap();
    let refusal = refusal_of_the_node(&cluster);
    assert!(
        refusal.contains(&format!("{} is damaged", file.display())),
        "{refusal}"
    );

    fs::remove_file(&file).unwrap();
    let refusal = refusal_of_the_node(&cluster);
    assert!(
        refusal.contains(&format!("the snapshot file {} is gone", file.display())),
        "{refusal}"
    );
    let (status, found) = json(&dir, &[]);
    let refusal = found["refusal"].as_str().unwrap();
    assert!(
        status == Some(1) && refusal.contains("the snapshot file"),
        "{refusal}"
    );
    assert!(
        refusal.contains(dir.to_str().unwrap()),
        "names the copy: {refusal}"
    );
    fs::write(&file, &intact).unwrap();

    for part in ["high-water", "raft-storage", "sled/conf"] {
        let kept = fs::read(dir.join(part)).unwrap();
        fs::remove_file(dir.join(part)).unwrap();
        let (status, found) = json(&dir, &["--entries"]);
        assert_eq!((status, &found["whole"]), (Some(1), &false.into()), "{found}");
        let (refusal, of_the_node) = (&found["refusal"], refusal_of_the_node(&cluster));
        assert!(
            of_the_node.contains(refusal.as_str().unwrap()),
            "{refusal} and {of_the_node}"
        );
        assert_eq!(
            found["entries"].as_array().unwrap().last().unwrap()["key"],
            "last"
        );
        fs::write(dir.join(part), kept).unwrap();
    }
    assert_eq!(json(&dir, &[]).0, Some(0));
}

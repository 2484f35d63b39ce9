//! `deploy up` with real processes.

use std::fs::{self, OpenOptions};
use std::io::pipe;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use clerk::Clerk;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::deploy_process::{DEADLINE, Deploy, eventually, is_free, kill};

const NODES: u16 = 3;

/// A base port with free ports above it, below those that connections get.
fn free_base_port() -> u16 {
    eventually("free ports in a row", || {
        let base = rand::random_range(10_000..20_000);
        addresses(base)
            .iter()
            .all(|address| is_free(address))
            .then_some(base)
    })
}

/// All addresses of a cluster with this base port.
fn addresses(base: u16) -> Vec<String> {
    let ports = (0..NODES).flat_map(|index| [base + 10 * index + 1, base + 10 * index + 2]);
    ports.map(|port| format!("127.0.0.1:{port}")).collect()
}

/// A cluster's directory and ports.
struct Place {
    tmp: TempDir,
    base: u16,
}

impl Place {
    fn new() -> Self {
        Self {
            tmp: tempfile::tempdir().unwrap(),
            base: free_base_port(),
        }
    }

    fn dir(&self) -> &Path {
        self.tmp.path()
    }

    fn up(&self, options: &[&str]) -> Deploy {
        let (base, dir) = (self.base.to_string(), self.cluster_dir());
        let mut arguments = vec!["up", "--dir", dir.to_str().unwrap(), "--base-port", &base];
        arguments.extend(options);
        Deploy::start(&arguments, self.dir())
    }

    fn cluster_dir(&self) -> PathBuf {
        self.dir().join("cluster")
    }

    fn pid(&self, id: u64) -> i32 {
        let path = self.dir().join(format!("cluster/node-{id}/pid"));
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }

    fn wait_until_free(&self) {
        let all_free = || {
            addresses(self.base)
                .iter()
                .all(|address| is_free(address))
                .then_some(())
        };
        eventually("all ports are free again", all_free);
    }

    fn clerk(&self) -> Clerk {
        let endpoints = addresses(self.base).into_iter().skip(1).step_by(2);
        Clerk::builder()
            .endpoints(endpoints)
            .timeout(DEADLINE)
            .build()
            .unwrap()
    }
}

#[track_caller]
fn assert_done((status, stderr): (ExitStatus, String)) {
    assert!(status.success(), "{status}: {stderr}");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn a_cluster_serves_loses_a_node_stops_on_ctrl_c_and_comes_back_with_its_data() {
    let place = Place::new();
    let mut up = place.up(&[]);
    let ready = up.wait_for("ready");
    let leader_id = ready["leader_id"].as_u64().unwrap();
    block_on(place.clerk().put("greeting", "hello")).unwrap();
    for id in 1..=3 {
        assert!(place.dir().join(format!("cluster/node-{id}/log")).exists());
    }

    kill(place.pid(leader_id));
    let ended = up.wait_for("node_ended");
    assert_eq!(ended["id"], leader_id);
    assert_eq!(ended["running"], 2);
    block_on(place.clerk().append("greeting", " again")).unwrap();

    up.signal(Signal::INT);
    assert_done(up.wait());
    place.wait_until_free();
    for id in 1..=3 {
        assert!(
            !place.dir().join(format!("cluster/node-{id}/pid")).exists(),
            "node {id} is gone, its pid file is not"
        );
    }

    let mut up = place.up(&[]);
    assert_eq!(up.wait_for("cluster")["is_new"], false);
    up.wait_for("ready");
    let value = block_on(place.clerk().get("greeting")).unwrap();
    assert_eq!(value.as_deref(), Some(&b"hello again"[..]));
    up.signal(Signal::TERM);
    assert_done(up.wait());
}

/// Runs it with its lines going to `stdout`, which takes none, until its nodes are there; how it ended, and what it said
/// on stderr.
fn run_untold(stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let place = Place::new();
    let (base, dir) = (place.base.to_string(), place.cluster_dir());
    let arguments = ["up", "--dir", dir.to_str().unwrap(), "--base-port", &base];
    let mut up = Deploy::start_onto(&arguments, place.dir(), stdout);
    eventually("the nodes run", || dir.join("node-3/pid").exists().then_some(()));
    up.signal(Signal::INT);
    let (status, stderr) = up.wait();
    (status.code(), stderr)
}

#[test]
fn output_that_cannot_be_written_is_told_once_and_in_the_exit_status() {
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
        println!("skipped: there is no /dev/full");
        return;
    };
    let (status, stderr) = run_untold(full);
    assert_eq!(status, Some(3), "{stderr}");
    assert!(
        stderr.starts_with("error: the output could not be written: "),
        "{stderr}"
    );
    assert_eq!(
        stderr.matches("error").count(),
        2,
        "once, with its number: {stderr}"
    );
}

#[test]
fn a_reader_that_went_away_changes_nothing() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    assert_eq!(run_untold(writer), (Some(0), String::new()));
}

#[test]
fn fresh_throws_the_old_data_away() {
    let place = Place::new();
    let mut up = place.up(&["--snapshot-log-bytes", "5000"]);
    up.wait_for("ready");
    block_on(place.clerk().put("k", "old")).unwrap();
    up.signal(Signal::INT);
    assert_done(up.wait());
    let text = fs::read_to_string(place.dir().join("cluster/cluster.toml")).unwrap();
    assert!(text.contains("\nsnapshot_log_bytes = 5000\n"), "{text}");

    let mut up = place.up(&["--fresh"]);
    up.wait_for("ready");
    assert_eq!(block_on(place.clerk().get("k")).unwrap(), None);
    up.signal(Signal::INT);
    assert_done(up.wait());
}

#[test]
fn nodes_do_not_outlive_a_deploy_that_was_killed() {
    let place = Place::new();
    let mut up = place.up(&[]);
    up.wait_for("ready");
    up.signal(Signal::KILL);
    up.wait();
    place.wait_until_free();
}

#[test]
fn a_second_up_in_the_same_directory_is_refused_and_leaves_the_first_alone() {
    let place = Place::new();
    let mut first = place.up(&[]);
    first.wait_for("ready");
    for options in [&[][..], &["--fresh"]] {
        let (status, stderr) = place.up(options).wait();
        assert_eq!(status.code(), Some(3), "{stderr}");
        assert!(stderr.contains("in use by another `deploy up`"), "{stderr}");
    }
    block_on(place.clerk().put("k", "v")).unwrap();
    first.signal(Signal::INT);
    assert_done(first.wait());
}

#[test]
fn a_port_in_use_is_told_with_exit_status_3() {
    let place = Place::new();
    let taken = format!("127.0.0.1:{}", place.base + 12);
    let _listener = TcpListener::bind(&taken).unwrap();
    let (status, stderr) = place.up(&[]).wait();
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains(&format!("cannot listen on {taken} (client port of node 2)")),
        "{stderr}"
    );
    assert!(stderr.contains("--base-port"), "{stderr}");
}

#[test]
fn fresh_keeps_the_data_when_a_port_is_in_use() {
    let place = Place::new();
    let mut up = place.up(&[]);
    up.wait_for("ready");
    up.signal(Signal::INT);
    assert_done(up.wait());
    place.wait_until_free();

    let _listener = TcpListener::bind(format!("127.0.0.1:{}", place.base + 12)).unwrap();
    let (status, stderr) = place.up(&["--fresh"]).wait();
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("cannot listen on"), "{stderr}");
    assert!(place.dir().join("cluster/node-1/data").exists());
    assert!(place.dir().join("cluster/cluster.toml").exists());
}

#[test]
fn fresh_keeps_the_data_when_no_node_may_open_the_files_that_it_needs() {
    let place = Place::new();
    let (base, dir) = (place.base.to_string(), place.cluster_dir());
    let data = dir.join("node-1/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(dir.join("cluster.toml"), "# Written by `deploy`.\n").unwrap();
    let arguments = [
        "up",
        "--dir",
        dir.to_str().unwrap(),
        "--base-port",
        &base,
        "--fresh",
    ];
    let (status, stderr) = Deploy::start_with_files(&arguments, place.dir(), 40).wait();
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains("this process may have 40 files and connections open"),
        "{stderr}"
    );
    assert!(data.exists() && dir.join("cluster.toml").exists());
}

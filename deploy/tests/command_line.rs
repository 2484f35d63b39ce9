//! What the command line says and how it exits when it is not given what it needs. No node runs here.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say so and fail"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn deploy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deploy"))
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs `deploy up` in `dir`, which must be refused with exit status 2; the message.
fn refused_up(dir: &Path, options: &[&str]) -> String {
    let mut arguments = vec!["up", "--dir", dir.to_str().unwrap()];
    arguments.extend(options);
    let output = deploy(&arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.starts_with("error: "), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(stdout(&output), "");
    message
}

#[test]
fn help_shows_examples_and_no_hidden_command() {
    for arguments in [
        &["--help"][..],
        &["demo", "--help"],
        &["up", "--help"],
        &["bench", "--help"],
    ] {
        let output = deploy(arguments);
        assert!(output.status.success());
        assert!(stdout(&output).contains("Examples:"), "{arguments:?}");
    }
    assert!(!stdout(&deploy(&["--help"])).contains("node  "));
}

#[test]
fn a_bad_log_filter_is_refused_before_a_node_starts_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["demo", "bench"] {
        let output = Command::new(env!("CARGO_BIN_EXE_deploy"))
            .arg(command)
            .env("RUST_LOG", "info,=")
            .env("TMPDIR", dir.path())
            .output()
            .unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("RUST_LOG"), "{message}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(
        stdout(&deploy(&["--version"])),
        format!("deploy {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_usage_is_an_error_on_stderr_with_exit_status_2() {
    for arguments in [
        &[][..],
        &["dance"],
        &["up", "--nodes", "0"],
        &["up", "--nodes", "x"],
        &["demo", "--nodes", "3"],
        &["bench", "--against", "nobody"],
        &["bench", "--rounds", "0"],
        &["bench", "--quick", "--full"],
        &["bench", "--pause", "--duration", "3s"],
    ] {
        let output = deploy(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert_ne!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn ports_beyond_the_last_one_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let message = refused_up(dir.path(), &["--base-port", "65530"]);
    assert!(message.contains("--base-port 65530"), "{message}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn fresh_refuses_a_strangers_directory_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let message = refused_up(dir.path(), &["--fresh"]);
    assert!(
        message.contains("thesis.tex") && message.contains("choose another --dir"),
        "{message}"
    );
    assert!(dir.path().join("thesis.tex").exists());
}

#[test]
fn a_cluster_file_that_is_no_toml_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("cluster.toml"),
        "cluster_id = \"x\"\ndata_dir = \n",
    )
    .unwrap();
    let message = refused_up(dir.path(), &[]);
    assert!(
        message.contains("cluster.toml") && message.contains("line 2"),
        "{message}"
    );
}

#[test]
fn a_configuration_that_kv_server_refuses_is_refused_before_any_node_starts() {
    let dir = tempfile::tempdir().unwrap();
    let text = "cluster_id = \"x\"\ndata_dir = \"d-{id}\"\n\
                [raft]\nheartbeat_interval_ms = 900\nelection_timeout_ms = [300, 600]\n\
                [[node]]\nid = 1\nraft_addr = \"127.0.0.1:19171\"\nclient_addr = \"127.0.0.1:19172\"\n";
    fs::write(dir.path().join("cluster.toml"), text).unwrap();
    let message = refused_up(dir.path(), &[]);
    assert!(message.contains("heartbeat"), "{message}");
    assert!(!dir.path().join("node-1").exists());
}

#[test]
fn a_directory_that_cannot_be_made_is_told_with_exit_status_3() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let output = deploy(&["up", "--dir", file.join("below").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).starts_with("error: cannot create "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_a_node_starts_and_nothing_is_left() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, file) = (tmp.path().join("temporary"), tmp.path().join("file"));
    fs::create_dir(&dir).unwrap();
    fs::write(&file, "").unwrap();
    let blocked = tmp.path().join("blocked");
    fs::create_dir_all(blocked.join("history.jsonl")).unwrap();
    for (report, what) in [
        (&file, "file"),
        (&file.join("x"), "x"),
        (&blocked, "history.jsonl"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_deploy"))
            .args(["torture", "--report", report.to_str().unwrap()])
            .env("TMPDIR", &dir)
            .output()
            .unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.starts_with("error: cannot "), "{message}");
        assert!(
            message.contains(what) && message.contains("--report"),
            "{message}"
        );
        assert_eq!(stdout(&output), "", "nothing has begun");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }
    assert_eq!(fs::read_dir(&blocked).unwrap().count(), 1);
}

//! The program from outside: what it prints and how it exits.

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is text")
}

#[test]
fn a_replay_ends_with_a_line_of_json_that_another_process_repeats() {
    let (first, second) = (
        sim(&["--seed", "3", "--output", "json"]),
        sim(&["--seed", "3", "--output", "json"]),
    );
    assert!(first.status.success());
    assert_eq!(first.stdout, second.stdout);
    let text = stdout(&first);
    let last = text.lines().last().expect("there is a last line");
    let verdict: serde_json::Value = serde_json::from_str(last).expect("it is JSON");
    assert_eq!(verdict["seed"], 3);
    assert_eq!(verdict["verdict"], "passed");
    let hash = format!("{:016x}", sim::run(3).trace_hash);
    assert_eq!(verdict["trace_hash"], hash.as_str());
    assert!(
        text.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
}

#[test]
fn many_seeds_end_with_totals() {
    let output = sim(&["--seeds", "2", "--first-seed", "8"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.contains("2 seeds from 8: 2 passed, 0 failed"), "{text}");
    assert!(text.contains("simulated hours"), "{text}");
}

#[test]
fn wrong_usage_is_told_on_stderr_with_status_2() {
    for arguments in [
        &[][..],
        &["--seeds", "0"],
        &["--seed", "1", "--seeds", "2"],
        &["--seed", "1", "--first-seed", "2"],
        &["--seed", "1", "--fail-fast"],
        &["--seed", "x"],
    ] {
        let output = sim(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.starts_with("error: "), "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_has_examples_and_version_a_version() {
    let help = stdout(&sim(&["--help"]));
    assert!(
        help.contains("Examples:") && help.contains("--first-seed"),
        "{help}"
    );
    assert_eq!(
        stdout(&sim(&["--version"])),
        format!("sim {}\n", env!("CARGO_PKG_VERSION"))
    );
}

/// A history file in a directory of its own.
fn history_file(name: &str, lines: &str) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, lines).expect("the file is written");
    path
}

const PUT: &str = r#"{"client":1,"op":"put","key":"k","value":"1","start_us":0,"end_us":10,"outcome":"ok"}"#;
const STALE: &str =
    r#"{"client":2,"op":"get","key":"k","value":null,"start_us":20,"end_us":30,"outcome":"ok"}"#;
const FRESH: &str =
    r#"{"client":2,"op":"get","key":"k","value":"1","start_us":20,"end_us":30,"outcome":"ok"}"#;

#[test]
fn a_good_history_is_linearizable_with_status_0() {
    let file = history_file("good.jsonl", &format!("{PUT}\n{FRESH}\n"));
    let output = sim(&["check", file.to_str().expect("a plain path")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with("linearizable\n2 operations"));
}

#[test]
fn a_bad_history_is_shown_with_status_1() {
    let file = history_file("bad.jsonl", &format!("{PUT}\n{STALE}\n"));
    let (file, page) = (file.to_str().expect("a plain path"), history_file("bad.html", ""));
    let output = sim(&["check", file, "--html", page.to_str().expect("a plain path")]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(
        text.contains("not linearizable") && text.contains(" client 2"),
        "{text}"
    );
    assert!(
        std::fs::read_to_string(page)
            .expect("the page is there")
            .contains("<svg")
    );
    let output = sim(&["check", file, "--output", "json", "--time-limit", "1m"]);
    assert_eq!(output.status.code(), Some(1));
    let verdict: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("it is JSON");
    assert_eq!(verdict["verdict"], "not linearizable");
    assert_eq!(verdict["offending"], 2);
    assert_eq!(verdict["window"][1]["operation"], 2);
}

#[test]
fn a_file_without_operations_is_no_history() {
    for (name, lines) in [
        ("empty.jsonl", ""),
        (
            "initial.jsonl",
            "{\"op\":\"initial\",\"key\":\"k\",\"value\":\"1\"}\n",
        ),
    ] {
        let file = history_file(name, lines);
        let output = sim(&["check", file.to_str().expect("a plain path")]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("no history"), "{error}");
    }
}

#[test]
fn a_page_that_cannot_be_written_is_told_beside_the_verdict() {
    let file = history_file("bad-page.jsonl", &format!("{PUT}\n{STALE}\n"));
    let output = sim(&[
        "check",
        file.to_str().expect("a plain path"),
        "--html",
        "/nowhere/at/all",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("not linearizable"));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("/nowhere/at/all cannot be written"), "{error}");
}

/// The program with its output going where nobody reads any more.
fn into_a_closed_pipe(arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().expect("there is a pipe");
    drop(reader);
    Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(arguments)
        .stdout(writer)
        .output()
        .expect("the program starts")
}

/// The program with its output going to a full disk.
fn onto_a_full_disk(arguments: &[&str]) -> Output {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("Linux has it");
    Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(arguments)
        .stdout(full)
        .output()
        .expect("the program starts")
}

#[test]
fn a_reader_that_went_away_is_no_error_and_the_status_is_that_of_the_checks() {
    let good = history_file("good-piped.jsonl", &format!("{PUT}\n{FRESH}\n"));
    let bad = history_file("bad-piped.jsonl", &format!("{PUT}\n{STALE}\n"));
    for (arguments, status) in [
        (&["check", good.to_str().expect("a plain path")][..], 0),
        (&["check", bad.to_str().expect("a plain path")], 1),
        (&["--seeds", "1", "--first-seed", "8"], 0),
        (&["--seed", "8"], 0),
    ] {
        let output = into_a_closed_pipe(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_told_and_never_success() {
    let good = history_file("good-full.jsonl", &format!("{PUT}\n{FRESH}\n"));
    let bad = history_file("bad-full.jsonl", &format!("{PUT}\n{STALE}\n"));
    for (arguments, status) in [
        (&["check", good.to_str().expect("a plain path")][..], 3),
        (&["check", bad.to_str().expect("a plain path")], 1),
        (&["--seeds", "1", "--first-seed", "8", "--output", "json"], 3),
        (&["--seed", "8"], 3),
    ] {
        let output = onto_a_full_disk(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            error.starts_with("error: the output could not be written: "),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_is_no_history_is_told_with_status_2() {
    let file = history_file("no.jsonl", "{}\n");
    for arguments in [
        &["check", file.to_str().expect("a plain path")][..],
        &["check", "/nowhere/at/all"],
        &["check", "x", "--time-limit", "soon"],
        &["check"],
    ] {
        let output = sim(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.starts_with("error: "), "{error}");
        assert!(output.stdout.is_empty());
    }
}

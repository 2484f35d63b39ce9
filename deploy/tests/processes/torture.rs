//! `deploy torture` with real processes.

use std::fs::{self, File};
use std::io::BufReader;

use serde_json::Value;
use sim::linearizability::{self, History, Limits, Outcome, Verdict};

use crate::deploy_process::Deploy;

fn verdict(history: &History) -> Verdict {
    linearizability::check(history, Limits::default()).verdict
}

/// What is counted is what was told as it happened.
fn assert_counts(summary: &Value, lines: &[String]) {
    let told = |what: &[&str]| {
        let faults = lines.iter().filter(|line| line.contains("\"event\":\"fault\""));
        let of_kind = faults.filter(|line| what.iter().any(|what| line.contains(what)));
        Value::from(of_kind.count())
    };
    assert_eq!(summary["kills"], told(&["killed"]), "{summary}");
    assert_eq!(summary["pauses"], told(&["paused"]), "{summary}");
    let cuts = told(&["silently", "connections closed"]);
    assert_eq!(summary["cuts"], cuts, "{summary}");
    assert!(
        summary["killed_processes"].as_u64() >= summary["kills"].as_u64(),
        "{summary}"
    );
    // The smallest cut takes a node's links to both others, or both links of a pair.
    assert!(
        summary["cut_links"].as_u64() >= cuts.as_u64().map(|cuts| 2 * cuts),
        "{summary}"
    );
}

#[test]
fn what_clients_see_through_faults_is_linearizable_and_the_report_shows_it() {
    let tmp = tempfile::tempdir().unwrap();
    let report = tmp.path().join("report");
    let arguments = [
        "torture",
        "--duration",
        "4s",
        // A pause, a kill and a cut within three seconds.
        "--seed",
        "59943",
        "--report",
        report.to_str().unwrap(),
    ];
    let mut torture = Deploy::start(&arguments, tmp.path());
    let lines = torture.rest();
    let (status, stderr) = torture.wait();
    assert!(status.success(), "{status}: {stderr}\n{}", lines.join("\n"));
    let summary: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(summary["verdict"], "linearizable", "{summary}");
    assert_eq!(
        (&summary["lost"], &summary["duplicated"]),
        (&0.into(), &0.into()),
        "{summary}"
    );
    assert_eq!(summary["nodes_agree"], true, "{summary}");
    assert!(summary["acknowledged"].as_u64().unwrap() > 0, "{summary}");
    assert!(
        lines.iter().any(|line| line.contains("\"event\":\"fault\"")),
        "{}",
        lines.join("\n")
    );

    assert_counts(&summary, &lines);
    let text = fs::read_to_string(report.join("report.txt")).unwrap();
    let faults = text
        .lines()
        .skip_while(|line| !line.starts_with("time line"))
        .skip(2)
        .filter(|row| row.contains(['K', 'P', 'C']));
    assert!(faults.count() > 0, "no fault is on the time line: {text}");
    let page = fs::read_to_string(report.join("report.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("<script"), "{page}");
    let history =
        linearizability::read(BufReader::new(File::open(report.join("history.jsonl")).unwrap())).unwrap();
    assert_eq!(
        history.operations().len() as u64,
        summary["operations"].as_u64().unwrap()
    );
    assert_eq!(verdict(&history), Verdict::Linearizable);

    // The check would have noticed: one read of a value that nobody wrote.
    let mut operations = history.operations().to_vec();
    let last_read = operations
        .iter_mut()
        .rev()
        .find(|operation| matches!(operation.outcome, Outcome::Value(Some(_))));
    last_read.unwrap().outcome = Outcome::Value(Some("from nowhere".into()));
    assert!(matches!(
        verdict(&History::new(operations).unwrap()),
        Verdict::Violation(_)
    ));

    let left: Vec<_> = fs::read_dir(tmp.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left, [report], "it cleans up after itself");
}

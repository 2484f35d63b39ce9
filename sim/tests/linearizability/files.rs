//! Histories in files, and the windows that are shown of bad ones.

use std::time::Duration;

use sim::linearizability::{
    Action, FileError, History, Limits, Outcome, Verdict, Window, check, explain, read, to_html, to_text,
    write,
};

use super::build::{At, WithOutcome as _, history};
use super::generate::{self, Shape};
use rand::SeedableRng as _;
use rand_pcg::Pcg64Mcg;

fn parse(text: &str) -> Result<History, FileError> {
    read(text.as_bytes())
}

#[test]
fn a_history_that_is_written_is_read_the_same() {
    let shape = Shape {
        keys: 5,
        clients: 4,
        operations: 300,
        unknown_per_mille: 50,
        scans_per_mille: 100,
        different_values: 100,
        mix: generate::EVEN,
    };
    let mut operations = generate::history(&mut Pcg64Mcg::seed_from_u64(7), shape);
    let binary = bytes::Bytes::from_static(&[0xff, 0, b'x']);
    let mut odd = At(9, 1, 2).put("k", "v");
    odd.action = Action::Put {
        key: binary.clone(),
        value: binary.clone(),
    };
    operations.push(odd);
    let mut deleted = At(9, 3, 4).delete("k", true);
    deleted.outcome = Outcome::Done;
    operations.push(deleted);
    let history = History::with_initial([(binary.clone(), binary)].into(), operations).unwrap();
    let mut file = Vec::new();
    write(&history, &mut file).unwrap();
    assert_eq!(read(&file[..]).unwrap(), history);
}

#[test]
fn a_wrong_line_is_told_with_its_number_and_what_is_wrong() {
    let good = r#"{"client":1,"op":"get","key":"k","start_us":1,"end_us":2,"outcome":"ok","value":null}"#;
    assert_eq!(parse(&format!("\n{good}\n")).unwrap().operations().len(), 1);
    for (from, to, expected) in [
        (r#""client":1,"#, "", "`client` is missing"),
        (r#","value":null"#, "", "`value` is missing"),
        (r#""op":"get""#, r#""op":"peek""#, "`op` is \"peek\""),
        (r#""ok""#, r#""fine""#, "`outcome` is \"fine\""),
        (
            r#""end_us":2"#,
            r#""end_us":-2"#,
            "`end_us` must be a whole number",
        ),
        (r#""value":null"#, r#""value":1"#, "`value` must be text"),
        (
            r#""value":null"#,
            r#""value_base64":"?""#,
            "`value_base64` is no base64",
        ),
        (
            r#""value":null"#,
            r#""value":null,"colour":1"#,
            "`colour` is not expected",
        ),
        ("}", "", "it is no JSON"),
        (
            r#""value":null"#,
            r#""value":null,"value":"v""#,
            "`value` is there twice",
        ),
        (
            r#""client":1,"#,
            r#""client":{"a":1,"a":[2]},"#,
            "`a` is there twice",
        ),
    ] {
        let error = parse(&format!("{good}\n{}\n", good.replace(from, to)))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("line 2 of the history: ") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn a_second_initial_value_of_a_key_is_refused() {
    let initial = |key: &str| format!(r#"{{"op":"initial","key":"{key}","value":"v"}}"#);
    let (first, other) = (initial("k"), initial("other"));
    assert!(parse(&format!("{first}\n{other}\n")).is_ok());
    let error = parse(&format!("{first}\n{other}\n{first}\n")).unwrap_err();
    let expected = "line 3 of the history: an earlier line says that the key had \"v\" before everything";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn operations_that_make_no_sense_are_refused() {
    for (line, expected) in [
        (
            r#"{"client":1,"op":"put","key":"k","value":"v","start_us":3,"end_us":2,"outcome":"ok"}"#,
            "ended before it started",
        ),
        (
            r#"{"client":1,"op":"scan","from":"a","to":"c","start_us":1,"end_us":2,"outcome":"ok","items":[{"key":"d","value":""}]}"#,
            "not in order or not in the range",
        ),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The window of a history that is not linearizable.
fn window(history: &History) -> Window {
    match check(history, Limits::default()).verdict {
        Verdict::Violation(violation) => explain(history, &violation, Limits::default().time),
        other => panic!("{other:?}"),
    }
}

fn places(window: &Window) -> Vec<usize> {
    window.operations.iter().map(|shown| shown.place).collect()
}

/// As a list of a torture run that has lost something.
fn with_a_lost_append(count: u64) -> History {
    let item = |number: u64| format!("1.{number};");
    let mut operations: Vec<_> = (0..count)
        .map(|number| At(1, 10 * number, 10 * number + 5).append("list", &item(number)))
        .collect();
    let kept = (0..count).filter(|number| *number != count / 2).map(item);
    let value: String = kept.collect();
    operations.push(At(2, 10 * count, 10 * count + 5).get("list", Some(&value)));
    history(operations)
}

#[test]
fn a_lost_append_is_found_also_in_a_list_longer_than_a_search_can_look_at() {
    let window = window(&with_a_lost_append(5_000));
    assert_eq!((window.offending, window.remarks.len()), (5_000, 1));
    let needed = window.operations.iter().filter(|shown| shown.is_needed);
    assert!(needed.map(|shown| shown.place).eq([2_500, 5_000]), "{window:?}");
}

#[test]
fn the_window_of_a_lost_append_to_a_long_list_is_the_append_and_the_read() {
    let window = window(&with_a_lost_append(600));
    let needed = window.operations.iter().filter(|shown| shown.is_needed);
    assert!(needed.map(|shown| shown.place).eq([300, 600]), "{window:?}");
    let remark = r#"in what operation 601 read, "1.300;" is not there (operation 301)"#;
    assert_eq!(window.remarks, [remark]);
    assert!(to_text(&window).ends_with(&format!("> {remark}\n")));
    assert!(to_html(&window).contains("&quot;1.300;&quot; is not there"));
}

#[test]
fn the_window_of_a_doubled_append_to_a_long_list_shows_the_append_and_where_it_is() {
    let item = |number: u64| format!("1.{number:03};");
    let mut operations: Vec<_> = (0..600)
        .map(|number| At(1, 10 * number, 10 * number + 5).append("list", &item(number)))
        .collect();
    let value: String = (0..600)
        .flat_map(|number| vec![item(number); if number == 7 { 2 } else { 1 }])
        .collect();
    operations.push(At(2, 7_000, 7_005).get("list", Some(&value)));
    let window = window(&history(operations));
    assert!(places(&window).contains(&7), "{:?}", places(&window));
    let remark = r#"in what operation 601 read, "1.007;" is there at byte 42 and 48, though it was written once at most (operation 8)"#;
    assert_eq!(window.remarks, [remark]);
}

#[test]
fn the_window_of_a_read_of_a_failed_write_shows_the_write() {
    let operations = vec![
        At(1, 0, 10).put("k", "1").failed(),
        At(2, 20, 30).put("other", "2"),
        At(3, 40, 50).get("k", Some("1")),
    ];
    let window = window(&history(operations));
    assert_eq!(places(&window), [0, 2]);
    assert_eq!(
        window.remarks,
        [r#"in what operation 3 read, "1" is there at byte 0, though its write failed (operation 1)"#]
    );
}

#[test]
fn what_stands_in_the_wrong_order_and_what_nobody_wrote_is_told() {
    let appends = [
        At(1, 0, 10).append("k", "a;"),
        At(2, 20, 30).append("k", "b;"),
        At(1, 40, 50).append("k", "c;"),
    ];
    let with = |read: &str| {
        let mut operations = appends.to_vec();
        operations.push(At(3, 60, 70).get("k", Some(read)));
        window(&history(operations)).remarks
    };
    assert_eq!(
        with("a;c;b;"),
        [
            r#"in what operation 4 read, "b;" stands behind "c;", though its write ended before that began (operation 2, operation 3)"#
        ]
    );
    assert_eq!(
        with("a;b;c;d;"),
        [r#"in what operation 4 read, at byte 6 begins what nobody wrote: "d;""#]
    );
}

#[test]
fn nothing_is_remarked_of_what_can_be_taken_apart_in_two_ways_or_may_be_gone() {
    let ambiguous = vec![
        At(1, 0, 10).append("k", "1"),
        At(1, 20, 30).append("k", "11"),
        At(3, 60, 70).get("k", Some("1111")),
    ];
    assert_eq!(window(&history(ambiguous)).remarks, [""; 0]);
    // The delete took the first one away.
    let gone = vec![
        At(1, 0, 10).append("k", "a;"),
        At(2, 5, 30).delete("k", true),
        At(1, 40, 50).append("k", "b;"),
        At(1, 60, 70).append("k", "c;"),
        At(3, 80, 90).get("k", Some("c;")),
    ];
    let remarks = window(&history(gone)).remarks;
    assert_eq!(
        remarks,
        [r#"in what operation 5 read, "b;" is not there (operation 3)"#]
    );
}

#[test]
fn without_time_to_look_for_a_smaller_one_the_window_is_all_that_led_there() {
    let mut operations: Vec<_> = (0..600)
        .map(|at| At(1, 10 * at, 10 * at + 5).put("k", &at.to_string()))
        .collect();
    operations.push(At(2, 6_000, 6_005).get("k", Some("7")));
    let history = history(operations);
    let Verdict::Violation(violation) = check(&history, Limits::default()).verdict else {
        panic!("the read is stale");
    };
    let window = explain(&history, &violation, Duration::ZERO);
    assert_eq!((window.offending, window.operations.len()), (600, 601));
    let text = to_text(&window);
    assert!(text.contains("\n(501 others are not shown)\n"), "{text}");
    assert_eq!(text.lines().count(), 103);
    assert!(to_html(&window).contains("<p>101 others are not shown.</p>"));
}

#[test]
fn the_window_of_a_stale_read_is_the_read_and_the_two_writes() {
    let mut operations = Vec::new();
    for number in 0..50 {
        let at = number * 100;
        operations.push(At(1, at, at + 10).put("k", &format!("v{number}")));
        operations.push(At(2, at + 20, at + 30).get("k", Some(&format!("v{number}"))));
        operations.push(At(3, at + 40, at + 50).append("other", "x"));
    }
    operations.push(At(4, 6_000, 6_010).get("k", Some("v3")));
    let window = window(&history(operations));
    assert_eq!(window.offending, 150);
    let shown = places(&window);
    assert!(shown.contains(&150) && shown.contains(&9), "{shown:?}");
    assert!(shown.len() <= 4, "{shown:?}");
}

#[test]
fn the_window_of_a_lost_append_has_the_append_and_the_read() {
    let mut operations = Vec::new();
    for number in 0..40 {
        let at = number * 100;
        operations.push(At(number % 3, at, at + 10).append("k", &format!("{number};")));
    }
    let read: String = (0..40)
        .filter(|number| *number != 20)
        .map(|number| format!("{number};"))
        .collect();
    operations.push(At(4, 6_000, 6_010).get("k", Some(&read)));
    let window = window(&history(operations));
    let needed: Vec<usize> = window
        .operations
        .iter()
        .filter(|shown| shown.is_needed)
        .map(|shown| shown.place)
        .collect();
    assert_eq!(needed, [20, 40]);
    assert!(window.operations.len() <= 12);
}

#[test]
fn a_window_tells_what_was_there_before_all() {
    let initial = [("k", "first"), ("other", "x")].map(|(key, value)| (key.into(), value.into()));
    let operations = vec![At(1, 0, 10).get("k", None)];
    let window = window(&History::with_initial(initial.into(), operations).unwrap());
    assert_eq!(window.initial, [("k".into(), "first".into())]);
    assert!(
        to_text(&window).contains(r#""k" = "first""#),
        "{}",
        to_text(&window)
    );
    assert!(to_html(&window).contains("first"), "{}", to_html(&window));
}

#[test]
fn two_keys_that_are_no_text_look_different() {
    let texts = [&b"\xff"[..], b"\xfe", b"\\xff", "\u{fffd}".as_bytes()].map(|key| {
        let mut get = At(1, 0, 10).get("k", Some("1"));
        get.action = Action::Get {
            key: bytes::Bytes::copy_from_slice(key),
        };
        sim::linearizability::describe(&get)
    });
    let different: std::collections::BTreeSet<&String> = texts.iter().collect();
    assert_eq!(different.len(), 4, "{texts:?}");
    assert_eq!(texts[0], r#"get b"\xff" -> "1""#);
}

#[test]
fn a_window_is_told_as_text_and_as_a_page() {
    let mut operations = vec![
        At(1, 0, 10).put("<k>", "1"),
        At(2, 12, 15).put("<k>", "3").unknown(),
        At(1, 20, 30).put("<k>", "2"),
        At(3, 40, 50).get("<k>", Some("1")),
    ];
    let text = to_text(&window(&history(operations.clone())));
    assert!(text.contains("!      4 client 3"), "{text}");
    assert!(text.contains(r#"get "<k>" -> "1""#), "{text}");
    assert!(text.contains("smallest window: 3 of 4"), "{text}");
    operations.push(At(3, 40, 50).get("other", None));
    let page = to_html(&window(&history(operations)));
    assert!(page.contains("class=\"offending\""), "{page}");
    assert!(page.contains("&lt;k&gt;") && !page.contains("<k>"), "{page}");
    assert!(!page.contains("<script") && !page.contains("http"), "{page}");
    assert_eq!(page.matches("<rect").count(), 3);
}

//! Operations and windows in words.

use std::fmt::Write as _;

use bytes::Bytes;

use super::history::{Action, Operation, Outcome};
use super::window::Window;

/// Longer values are cut in the middle.
const MOST_CHARACTERS: usize = 60;
/// Of a window that nobody had the time to make smaller, so many operations are told.
const MOST_LINES: usize = 100;
/// Of a page, so many items are told.
const MOST_ITEMS: usize = 12;

/// An operation and what was answered, without its times.
#[must_use]
pub fn describe(operation: &Operation) -> String {
    let asked = match &operation.action {
        Action::Put { key, value } => format!("put {} {}", show(key), show(value)),
        Action::Append { key, value } => format!("append {} {}", show(key), show(value)),
        Action::Delete { key } => format!("delete {}", show(key)),
        Action::Get { key } => format!("get {}", show(key)),
        Action::Scan { from, to } => {
            let to = to.as_ref().map_or_else(|| "the end".to_owned(), show);
            format!("scan {} to {to}", show(from))
        }
    };
    format!("{asked} -> {}", answer(&operation.outcome))
}

fn answer(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".into(),
        Outcome::Deleted { existed: true } => "deleted".into(),
        Outcome::Deleted { existed: false } => "was not there".into(),
        Outcome::Value(None) => "not there".into(),
        Outcome::Value(Some(value)) => show(value),
        Outcome::Page { items, more } => {
            let shown = items.iter().take(MOST_ITEMS);
            let mut parts: Vec<String> = shown
                .map(|(key, value)| format!("{}={}", show(key), show(value)))
                .collect();
            if items.len() > MOST_ITEMS {
                parts.push(format!("and {} more items", items.len() - MOST_ITEMS));
            }
            let end = if *more { ", ..." } else { "" };
            format!("[{}{end}]", parts.join(", "))
        }
        Outcome::Failed => "failed, no effect".into(),
        Outcome::Unknown => "unknown".into(),
    }
}

/// In quotes, with escapes. What is not UTF-8 has each of its bytes shown, so that it looks like nothing else.
pub(super) fn show(bytes: &Bytes) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return show_binary(bytes);
    };
    let count = text.chars().count();
    if count <= MOST_CHARACTERS {
        return format!("{text:?}");
    }
    let half = MOST_CHARACTERS / 2;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(count - half).collect();
    format!("{head:?}...{tail:?} ({} bytes)", bytes.len())
}

fn show_binary(bytes: &Bytes) -> String {
    if bytes.len() <= MOST_CHARACTERS {
        return format!("b\"{}\"", bytes.escape_ascii());
    }
    let (head, tail) = (
        &bytes[..MOST_CHARACTERS / 2],
        &bytes[bytes.len() - MOST_CHARACTERS / 2..],
    );
    let (head, tail) = (head.escape_ascii(), tail.escape_ascii());
    format!("b\"{head}\"...b\"{tail}\" ({} bytes)", bytes.len())
}

/// The violation in one sentence.
pub(super) fn headline(window: &Window) -> String {
    let offending = window
        .operations
        .iter()
        .find(|shown| shown.place == window.offending);
    let what = offending.map_or_else(String::new, |shown| {
        format!(
            "client {}: {}",
            shown.operation.client,
            describe(&shown.operation)
        )
    });
    format!(
        "not linearizable: nothing explains operation {} of {}, {what}",
        window.offending + 1,
        window.out_of
    )
}

/// A window as text: a line an operation with its place in the history, `!` before the one that cannot be explained, `.` before those that only
/// tell where a value came from, and `>` before what there is to see in the values.
#[must_use]
pub fn to_text(window: &Window) -> String {
    let mut text = headline(window);
    let _ = writeln!(
        text,
        "\nsmallest window: {} of {} operations (times in us)",
        window.operations.len(),
        window.out_of
    );
    for (key, value) in &window.initial {
        let _ = writeln!(
            text,
            ".        before all {:<29}{} = {}",
            "",
            show(key),
            show(value)
        );
    }
    let (cut, left_out) = window.cut(MOST_LINES);
    if left_out > 0 {
        let _ = writeln!(text, "({left_out} others are not shown)");
    }
    for shown in &cut.operations {
        let Operation {
            client,
            start_us,
            end_us,
            outcome,
            ..
        } = &shown.operation;
        let mark = match (shown.place == window.offending, shown.is_needed) {
            (true, _) => '!',
            (_, true) => ' ',
            _ => '.',
        };
        let end = if *outcome == Outcome::Unknown {
            "never known".to_owned()
        } else {
            end_us.to_string()
        };
        let span = format!("{start_us} to {end}");
        let _ = writeln!(
            text,
            "{mark} {:>6} client {client:<4} {span:<24} {}",
            shown.place + 1,
            describe(&shown.operation)
        );
    }
    for remark in &window.remarks {
        let _ = writeln!(text, "> {remark}");
    }
    text
}

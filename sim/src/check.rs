//! `sim check`: is a history of a file linearizable?

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::json;
use sim::linearizability::{self, Limits, Report, Verdict, Window};

use crate::arguments::{CheckArguments, Format};
use crate::output::{self, Out};

/// The exit status when the history is not linearizable, or that was not decided in time.
const NOT_LINEARIZABLE: u8 = 1;
/// The exit status when there is no history to check.
const BAD_FILE: u8 = 2;

/// Checks the file and prints the verdict.
pub(crate) fn run(arguments: &CheckArguments) -> ExitCode {
    match check(arguments) {
        Ok(status) => status,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(BAD_FILE)
        }
    }
}

/// The exit status for a history that could be read.
fn check(arguments: &CheckArguments) -> Result<ExitCode, String> {
    let CheckArguments { file, html, .. } = arguments;
    let open = File::open(file).map_err(|error| format!("{} cannot be opened: {error}", file.display()))?;
    let history = linearizability::read(BufReader::new(open)).map_err(|error| {
        format!(
            "{}: {error}; sim/docs/history.md describes the lines",
            file.display()
        )
    })?;
    if history.operations().is_empty() {
        return Err(format!("{}: no history: it has no operations", file.display()));
    }
    let limits = Limits {
        time: arguments.time_limit,
        ..Limits::default()
    };
    let started = Instant::now();
    let report = linearizability::check(&history, limits);
    let seconds = started.elapsed().as_secs_f64();
    let window = match &report.verdict {
        Verdict::Violation(violation) => Some(linearizability::explain(
            &history,
            violation,
            arguments.time_limit,
        )),
        Verdict::Linearizable | Verdict::Undecided { .. } => None,
    };
    let operations = history.operations().len();
    let mut out = Out::new();
    match arguments.output {
        Format::Text => print_text(&mut out, &report, window.as_ref(), operations, seconds),
        Format::Json => print_json(&mut out, &report, window.as_ref(), operations, seconds),
    }
    // Whether that can be written or not, the verdict is told.
    if let (Some(window), Some(html)) = (&window, html)
        && let Err(error) = write_page(window, html)
    {
        output::complain(&error);
    }
    Ok(out.end(match report.verdict {
        Verdict::Linearizable => 0,
        _ => NOT_LINEARIZABLE,
    }))
}

fn write_page(window: &Window, to: &Path) -> Result<(), String> {
    std::fs::write(to, linearizability::to_html(window))
        .map_err(|error| format!("{} cannot be written: {error}", to.display()))
}

fn print_text(out: &mut Out, report: &Report, window: Option<&Window>, operations: usize, seconds: f64) {
    match (&report.verdict, window) {
        (Verdict::Undecided { why }, _) => out.line(&format_args!("undecided: {why}")),
        (_, Some(window)) => out.line(&linearizability::to_text(window).trim_end()),
        (_, None) => out.line(&"linearizable"),
    }
    out.line(&format_args!(
        "{operations} operations in {} parts, {} configurations, {seconds:.3} s",
        report.parts, report.configurations
    ));
}

fn print_json(out: &mut Out, report: &Report, window: Option<&Window>, operations: usize, seconds: f64) {
    let verdict = match &report.verdict {
        Verdict::Linearizable => "linearizable",
        Verdict::Violation(_) => "not linearizable",
        Verdict::Undecided { .. } => "undecided",
    };
    let mut line = json!({
        "verdict": verdict,
        "operations": operations,
        "parts": report.parts,
        "configurations": report.configurations,
        "seconds": seconds,
    });
    if let Verdict::Undecided { why } = &report.verdict {
        line["why"] = why.as_str().into();
    }
    if let Some(window) = window {
        // As people count, and as editors show the lines of the file.
        line["offending"] = (window.offending + 1).into();
        let operations = window.operations.iter().map(|shown| {
            let mut operation = linearizability::to_json(&shown.operation);
            operation["operation"] = (shown.place + 1).into();
            operation["needed"] = shown.is_needed.into();
            operation
        });
        line["window"] = operations.collect();
        line["remarks"] = window.remarks.clone().into();
        let initial = window.initial.iter();
        line["initial"] = initial
            .map(|(key, value)| linearizability::initial_to_json(key, value))
            .collect();
    }
    out.line(&line);
}

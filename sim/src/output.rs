//! What the program prints: the trace, verdicts and totals on stdout, progress on stderr if it is a terminal.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _, stderr, stdout};
use std::process::ExitCode;

use serde_json::Value;
use serde_json::json;
use sim::{FaultKind, Report, Totals, Verdict};

use crate::arguments::Format;

const MICROS_PER_SECOND: u64 = 1_000_000;
const SECONDS_PER_HOUR: f64 = 3_600.0;

/// The exit status when all is well, and that could not be told.
const NOT_TOLD: u8 = 3;

/// Prints `error: ...` on stderr. Nothing is left to be done if that is closed.
pub(crate) fn complain(what: &impl Display) {
    let _ = writeln!(stderr(), "error: {what}");
}

/// Buffered stdout. Whoever writes need not look at each line: what goes wrong first is told in the end.
#[derive(Debug)]
pub(crate) struct Out {
    to: BufWriter<Stdout>,
    failed: Option<io::Error>,
}

impl Out {
    pub(crate) fn new() -> Self {
        Self {
            to: BufWriter::new(stdout()),
            failed: None,
        }
    }

    /// Prints one line, or several with line ends between them.
    pub(crate) fn line(&mut self, line: &impl Display) {
        if self.failed.is_none() {
            self.failed = writeln!(self.to, "{line}").err();
        }
    }

    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.to.flush().err();
        }
    }

    /// Prints what is left, and gives the exit status: `status`, unless that says that all is well and not everything
    /// could be printed. A reader that has read enough (`| head`) is no error.
    pub(crate) fn end(mut self, status: u8) -> ExitCode {
        self.flush();
        match self.failed {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                complain(&format_args!("the output could not be written: {error}"));
                ExitCode::from(if status == 0 { NOT_TOLD } else { status })
            }
            _ => ExitCode::from(status),
        }
    }
}

/// Prints in one format.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    out: Out,
    shows_progress: bool,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            out: Out::new(),
            shows_progress: stderr().is_terminal(),
        }
    }

    fn print(&mut self, line: &str) {
        self.out.line(&line);
    }

    /// One line of a trace.
    pub(crate) fn line_of_trace(&mut self, now_us: u64, line: &str) {
        match self.format {
            Format::Text => {
                let (seconds, micros) = (now_us / MICROS_PER_SECOND, now_us % MICROS_PER_SECOND);
                self.print(&format!("{seconds:4}.{micros:06} {line}"));
            }
            Format::Json => self.print(&json!({ "at_us": now_us, "what": line }).to_string()),
        }
    }

    /// The end of a replay.
    pub(crate) fn replayed(&mut self, report: &Report) {
        let trace_hash = format!("{:016x}", report.trace_hash);
        match self.format {
            Format::Text => {
                self.print(&summary(&report.totals));
                self.print_window(report);
                let verdict = verdict(report);
                self.print(&format!(
                    "seed {}: {verdict}, trace hash {trace_hash}",
                    report.seed
                ));
            }
            Format::Json => {
                let line = json!({
                    "seed": report.seed, "trace_hash": trace_hash, "verdict": verdict(report),
                    "window": window_of(report),
                });
                self.print(&line.to_string());
            }
        }
    }

    fn print_window(&mut self, report: &Report) {
        if let Some(window) = window_of(report) {
            self.print(window);
        }
    }

    /// A seed failed: what did not hold, and how to see it again.
    pub(crate) fn failed(&mut self, report: &Report) {
        let replay = replay_command(report.seed);
        match self.format {
            Format::Text => {
                self.print(&format!("seed {}: {}", report.seed, verdict(report)));
                self.print_window(report);
                self.print(&format!("  replay it with: {replay}"));
            }
            Format::Json => {
                let trace_hash = format!("{:016x}", report.trace_hash);
                let line = json!({
                    "seed": report.seed, "trace_hash": trace_hash, "verdict": verdict(report), "window": window_of(report),
                    "replay": replay,
                });
                self.print(&line.to_string());
            }
        }
        // A failure should be seen while the rest runs.
        self.out.flush();
    }

    /// All is printed; see [`Out::end`].
    pub(crate) fn end(self, status: u8) -> ExitCode {
        self.out.end(status)
    }

    /// So many seeds have run.
    pub(crate) fn progress(&self, done: u64, of: u64, failed: u64) {
        if self.shows_progress {
            let end = if done == of { "\n" } else { "" };
            let _ = write!(stderr(), "\r{done} of {of} seeds, {failed} failed{end}");
        }
    }

    /// The end of many runs.
    pub(crate) fn totals(&mut self, first_seed: u64, seeds: u64, failed: u64, totals: &Totals) {
        match self.format {
            Format::Text => {
                self.print(&format!(
                    "{seeds} seeds from {first_seed}: {} passed, {failed} failed",
                    seeds - failed
                ));
                self.print(&summary(totals));
            }
            Format::Json => {
                let of_kind = |kind: FaultKind| (kind.as_str().to_owned(), totals.faults.of(kind).into());
                let faults: serde_json::Map<String, Value> =
                    FaultKind::ALL.into_iter().map(of_kind).collect();
                let line = json!({
                    "first_seed": first_seed,
                    "seeds": seeds,
                    "failed": failed,
                    "simulated_hours": hours(totals.simulated_us),
                    "quiet_hours": hours(totals.quiet_us),
                    "messages": totals.messages,
                    "drops": totals.drops,
                    "faults": faults,
                    "refusals": totals.refusals,
                    "turned_away": totals.turned_away,
                    "admitted": totals.admitted,
                    "elections": totals.elections,
                    "snapshots_cut": totals.snapshots_cut,
                    "snapshots_installed": totals.snapshots_installed,
                    "entries_read_back": totals.entries_read_back,
                    "operations": totals.operations,
                    "promises_checked": totals.promises,
                });
                self.print(&line.to_string());
            }
        }
    }
}

fn verdict(report: &Report) -> String {
    match &report.verdict {
        Verdict::Passed => "passed".to_owned(),
        Verdict::Failed(violation) => format!("failed: {violation}"),
    }
}

/// What shows a violation, if one sentence cannot.
fn window_of(report: &Report) -> Option<&str> {
    match &report.verdict {
        Verdict::Passed => None,
        Verdict::Failed(violation) => violation.window.as_deref(),
    }
}

fn replay_command(seed: u64) -> String {
    format!("cargo run --release -p sim -- --seed {seed}")
}

fn hours(simulated_us: u64) -> f64 {
    std::time::Duration::from_micros(simulated_us).as_secs_f64() / SECONDS_PER_HOUR
}

fn summary(totals: &Totals) -> String {
    // Also those that never happened: that is worth to be seen.
    let faults: Vec<String> = FaultKind::ALL
        .into_iter()
        .map(|kind| format!("{} {}", totals.faults.of(kind), kind.as_str()))
        .collect();
    format!(
        "{:.2} simulated hours ({:.2} in quiet runs), {} messages, {} operations, {} elections, {} snapshots cut, {} installed, \
         {} entries read back, {} promises checked\nfaults: {}; {} calls lost, {} nodes refused to start from a damaged disk, \
         {} were turned away, {} joined anew",
        hours(totals.simulated_us),
        hours(totals.quiet_us),
        totals.messages,
        totals.operations,
        totals.elections,
        totals.snapshots_cut,
        totals.snapshots_installed,
        totals.entries_read_back,
        totals.promises,
        faults.join(", "),
        totals.drops,
        totals.refusals,
        totals.turned_away,
        totals.admitted,
    )
}

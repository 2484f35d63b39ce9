//! `bench`: puts a load on the cluster and tells throughput and latencies.

use clerk::load::{self, ClerkTarget, Load, Outcome};
use clerk::{ClerkBuilder, Error};
use serde::Serialize;

use crate::arguments::{Format, LoadOptions};
use crate::failure::{Failure, Status};
use crate::{interrupt, is_json, output};

/// Runs the benchmark and prints its report.
pub(crate) async fn run(
    settings: ClerkBuilder,
    format: Format,
    spread_reads: bool,
    options: LoadOptions,
) -> Result<Status, Failure> {
    options.check(spread_reads)?;
    let load = options.load();
    let connections = load::connections(load.clients, options.connections());
    let consistency = options.consistency();
    let targets: Vec<ClerkTarget> = ClerkTarget::connect(&settings, load.clients, connections)?
        .into_iter()
        .map(|target| target.reading(consistency))
        .collect();
    let mut signalled = interrupt::listen()?;
    tokio::select! {
        prepared = load::prepare(&targets, &load) => prepared?,
        _ = &mut signalled => return Err(interrupted_too_early()),
    }
    let mut was_interrupted = false;
    let outcome = load::run_until(&targets, &load, async {
        // The listener never ends without a signal.
        was_interrupted = signalled.await.is_ok();
    })
    .await;
    if outcome.measured.is_zero() {
        return Err(interrupted_too_early());
    }
    let report = Report::new(&load, was_interrupted, &outcome);
    let printed = if is_json(format) {
        output::print_json(&report)
    } else {
        output::print_line(&report.text(connections))
    };
    match printed.map_err(Failure::from) {
        // Ctrl-C ends a reader, too.
        Err(Failure::OutputClosed) if was_interrupted => {}
        printed => printed?,
    }
    if was_interrupted {
        return Err(Failure::not_done("interrupted"));
    }
    if outcome.begun == 0 && outcome.not_begun > Some(0) {
        return Err(Failure::not_done(
            "no call that was due in the time measured could begin in it: the clients are too few or the rate too high",
        ));
    }
    match outcome.first_error {
        Some(error) if outcome.begun == outcome.errors => {
            Err(Failure::from(error).at("no operation succeeded"))
        }
        _ => Ok(Status::Done),
    }
}

fn interrupted_too_early() -> Failure {
    Failure::not_done("interrupted before anything was measured")
}

/// What is printed in the end. Latencies are of the calls that succeeded, and at a rate of those, too, that could not begin:
/// what they had waited at the end.
#[derive(Debug, Serialize)]
struct Report {
    op: &'static str,
    clients: u32,
    /// How long was measured.
    seconds: f64,
    /// Whether a signal ended it before its time.
    interrupted: bool,
    /// How long was to be measured.
    #[serde(skip)]
    wanted_seconds: f64,
    operations: u64,
    /// How many calls began in the time measured; `operations` are those that succeeded and ended in it.
    begun: u64,
    errors: u64,
    ops_per_second: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    longest_gap_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_begun: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
}

impl Report {
    fn new(load: &Load, interrupted: bool, outcome: &Outcome<Error>) -> Self {
        Self {
            op: load.operation.name(),
            clients: load.clients,
            seconds: outcome.measured.as_secs_f64(),
            interrupted,
            wanted_seconds: load.duration.as_secs_f64(),
            operations: outcome.operations,
            begun: outcome.begun,
            errors: outcome.errors,
            ops_per_second: outcome.per_second(),
            p50_us: outcome.quantile_us(0.5),
            p90_us: outcome.quantile_us(0.9),
            p99_us: outcome.quantile_us(0.99),
            p999_us: outcome.quantile_us(0.999),
            max_us: outcome.max_us(),
            longest_gap_us: outcome.longest_gap_us,
            not_begun: outcome.not_begun,
            first_error: outcome.first_error.as_ref().map(ToString::to_string),
        }
    }

    fn text(&self, connections: u32) -> String {
        let headline = format!(
            "{}: {} operations in {:.2} s, {} on {}",
            self.op,
            self.operations,
            self.seconds,
            counted(self.clients, "client"),
            counted(connections, "connection"),
        );
        let mut rows = Vec::new();
        if self.interrupted {
            let after = format!("after {:.2} s of {:.2} s", self.seconds, self.wanted_seconds);
            rows.push(("interrupted", after));
        }
        rows.push(("throughput", format!("{:.0} ops/s", self.ops_per_second)));
        let times = [
            ("p50", self.p50_us),
            ("p90", self.p90_us),
            ("p99", self.p99_us),
            ("p99.9", self.p999_us),
            ("max", self.max_us),
        ];
        // Whatever is known is above zero.
        let known = self.max_us > 0;
        let time = |us: u64| if known { format!("{us} µs") } else { "-".into() };
        rows.extend(times.map(|(name, us)| (name, time(us))));
        rows.push(("longest gap", format!("{} µs", self.longest_gap_us)));
        rows.extend(self.not_begun.map(|calls| ("not begun", calls.to_string())));
        let first = self.first_error.as_ref();
        let first = first.map_or_else(String::new, |error| format!(", the first: {error}"));
        rows.push(("errors", format!("{}{first}", self.errors)));
        let rows = rows.iter().map(|(name, value)| format!("\n{name:<11} {value}"));
        headline + &rows.collect::<String>()
    }
}

/// `1 client` or `2 clients`.
fn counted(number: u32, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            op: "put",
            clients: 2,
            seconds: 2.0,
            interrupted: false,
            wanted_seconds: 2.0,
            operations: 1_000,
            begun: 1_000,
            errors: 0,
            ops_per_second: 500.0,
            p50_us: 500,
            p90_us: 900,
            p99_us: 990,
            p999_us: 999,
            max_us: 1_000,
            longest_gap_us: 1_100,
            not_begun: None,
            first_error: None,
        }
    }

    #[test]
    fn the_text_tells_what_happened_a_line_each() {
        assert_eq!(
            report().text(1),
            "put: 1000 operations in 2.00 s, 2 clients on 1 connection\n\
             throughput  500 ops/s\n\
             p50         500 µs\n\
             p90         900 µs\n\
             p99         990 µs\n\
             p99.9       999 µs\n\
             max         1000 µs\n\
             longest gap 1100 µs\n\
             errors      0"
        );
    }

    #[test]
    fn a_report_of_a_part_says_so() {
        let report = Report {
            interrupted: true,
            wanted_seconds: 10.0,
            ..report()
        };
        let text = report.text(1);
        assert!(
            text.contains("\ninterrupted after 2.00 s of 10.00 s\nthroughput  500 ops/s\n"),
            "{text}"
        );
    }

    #[test]
    fn one_client_is_not_several() {
        let report = Report {
            clients: 1,
            ..report()
        };
        let text = report.text(1);
        assert!(text.contains(", 1 client on 1 connection\n"), "{text}");
    }

    #[test]
    fn the_first_error_stands_behind_their_number_and_calls_that_did_not_begin_before_it() {
        let report = Report {
            errors: 1,
            not_begun: Some(7),
            first_error: Some(Error::SessionExpired.to_string()),
            ..report()
        };
        assert!(report.text(1).ends_with(
            "not begun   7\nerrors      1, the first: outcome unknown: the session ended before the write was \
             answered, and an attempt may have taken effect"
        ));
    }
}

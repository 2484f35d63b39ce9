//! The `sim` program: runs seeds, replays one, and checks histories.
#![forbid(unsafe_code)]

mod arguments;
mod check;
mod output;

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use clap::Parser as _;

use crate::arguments::{Arguments, Command};
use crate::output::Printer;

/// A run allocates and frees all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit status when a seed fails.
const CHECK_FAILED: u8 = 1;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Check(check)) = &arguments.command {
        return check::run(check);
    }
    let mut printer = Printer::new(arguments.output);
    let passed = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => replay(seed, &mut printer),
        (None, seeds) => run_all(&arguments, seeds.unwrap_or(0), &mut printer),
    };
    printer.end(if passed { 0 } else { CHECK_FAILED })
}

/// Tells one run line by line. Whether it passed.
fn replay(seed: u64, printer: &mut Printer) -> bool {
    let report = sim::run_traced(seed, &mut |now_us, line| printer.line_of_trace(now_us, line));
    printer.replayed(&report);
    report.verdict == sim::Verdict::Passed
}

/// Runs `seeds` seeds, on all processors, and prints totals. Whether all passed.
fn run_all(arguments: &Arguments, seeds: u64, printer: &mut Printer) -> bool {
    let first = arguments.first_seed;
    let mut totals = sim::Totals::default();
    let (mut ran, mut failed) = (0, 0);
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sender, reports) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            let (sender, next, is_over) = (sender.clone(), &next, &is_over);
            scope.spawn(move || {
                // Nobody listens any more only if this process is going down.
                while !is_over.load(Ordering::Relaxed)
                    && let Some(number) = take(next, seeds)
                    && sender.send(sim::run(first.wrapping_add(number))).is_ok()
                {}
            });
        }
        drop(sender);
        for (done, report) in (1..).zip(reports) {
            totals += report.totals;
            ran = done;
            if report.verdict != sim::Verdict::Passed {
                failed += 1;
                is_over.fetch_or(arguments.fail_fast, Ordering::Relaxed);
                printer.failed(&report);
            }
            printer.progress(done, seeds, failed);
        }
    });
    printer.totals(first, ran, failed, &totals);
    failed == 0
}

/// The next of `count` numbers, counted by `next`.
fn take(next: &AtomicU64, count: u64) -> Option<u64> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    (number < count).then_some(number)
}

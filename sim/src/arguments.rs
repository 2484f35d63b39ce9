//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  sim --seeds 1000                      run seeds 0 to 999
  sim --seeds 1000 --first-seed 5000    run seeds 5000 to 5999
  sim --seed 4711                       replay one seed and tell everything that happens
  sim --seed 4711 --output json | tail -1
  sim check history.jsonl               is the history of a file linearizable?

Exit status: 0 every check held, 1 one did not (the command that replays it is printed), 2 wrong usage,
3 every check held, and the output could not be written.";

/// Simulates whole clusters of kv-server, deterministically, with faults, and checks that nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "sim", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(group(ArgGroup::new("what").required(true).args(["seeds", "seed"])))]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Run this many seeds and print totals
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: Option<u64>,
    /// The first of them; the one after the highest is 0
    #[arg(long, value_name = "S", default_value_t = 0, conflicts_with = "seed")]
    pub(crate) first_seed: u64,
    /// Replay one seed with its trace
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Begin no other seed once one has failed; the lowest that fails is then among those told
    #[arg(long, conflicts_with = "seed")]
    pub(crate) fail_fast: bool,
    /// How to print: text, or JSON with one object a line
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check whether the history of a file is linearizable; sim/docs/history.md describes the file
    Check(CheckArguments),
}

const CHECK_EXAMPLES: &str = "\
Examples:
  sim check history.jsonl
  sim check history.jsonl --time-limit 10s --html window.html
  sim check history.jsonl --output json

Exit status: 0 linearizable, 1 not, or not decided within the time limit, 2 no history or a wrong one,
3 linearizable, and the output could not be written.";

/// How to check a history.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct CheckArguments {
    /// The history: JSON lines, one operation a line
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Give up after so long, which counts as a failure; a smaller window is looked for as long again, at most
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) time_limit: Duration,
    /// Write the smallest window that shows a violation to this page
    #[arg(long, value_name = "OUT")]
    pub(crate) html: Option<PathBuf>,
    /// How to print: text, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// `500ms`, `10s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| "a number and a unit, such as 10s, is expected".to_owned())?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err("the unit must be ms, s or m".to_owned()),
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

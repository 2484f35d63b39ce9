//! The command line.

use clap::{ArgGroup, Parser, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  sim --seeds 1000                      run seeds 0 to 999
  sim --seeds 1000 --first-seed 5000    run seeds 5000 to 5999
  sim --seed 4711                       replay one seed and tell everything that happens
  sim --seed 4711 --output json | tail -1

Exit status: 0 every check held, 1 one did not (the command that replays it is printed), 2 wrong usage.";

/// Simulates whole clusters of kv-server, deterministically, with faults, and checks that nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "sim", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(group(ArgGroup::new("what").required(true).args(["seeds", "seed"])))]
pub(crate) struct Arguments {
    /// Run this many seeds and print totals
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: Option<u64>,
    /// The first of them
    #[arg(long, value_name = "S", default_value_t = 0, conflicts_with = "seed")]
    pub(crate) first_seed: u64,
    /// Replay one seed with its trace
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// How to print: text, or JSON with one object a line
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

//! The command line's grammar.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clerk::Consistency;
use clerk::load::{self, Load};

use crate::duration;
use crate::failure::Failure;

/// The client of the replicated key-value store.
///
/// Any one live endpoint is enough to find the rest. Exit status: 0 done, 1 a "no" (the key is not there),
/// 2 wrong usage or an argument past its limit, 3 not done, 4 outcome unknown.
#[derive(Debug, Parser)]
#[command(
    name = "clerk",
    version,
    disable_help_subcommand = false,
    after_help = "Examples:
  clerk put greeting hello
  clerk get greeting
  clerk --endpoints 10.0.0.1:7102,10.0.0.2:7102 status
  CLERK_ENDPOINTS=10.0.0.1:7102 clerk --timeout 500ms --output json get greeting"
)]
pub(crate) struct Arguments {
    /// Servers of the cluster as host:port, separated by commas
    #[arg(
        long,
        global = true,
        env = "CLERK_ENDPOINTS",
        value_delimiter = ',',
        value_name = "HOST:PORT,...",
        default_value = "127.0.0.1:7102,127.0.0.1:7112,127.0.0.1:7122"
    )]
    pub(crate) endpoints: Vec<String>,

    /// Within what time a call ends, retries and all, such as 500ms, 5s or 1m
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,

    /// Spread linearizable reads over all nodes instead of asking the leader alone
    #[arg(long, global = true)]
    pub(crate) spread_reads: bool,

    /// How to print results
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Format,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs: JSON alone on stdout
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set a key
    #[command(after_help = "Examples:
  clerk put greeting hello
  clerk put photo - < photo.jpg
  clerk put -- -key-with-a-dash value")]
    Put {
        /// 1 to 4,096 bytes
        #[arg(allow_negative_numbers = true)]
        key: OsString,
        /// Up to 1 MiB; `-` reads it from stdin, byte for byte
        #[arg(allow_negative_numbers = true)]
        value: OsString,
    },

    /// Append to a key; a missing key counts as empty
    #[command(after_help = "Examples:
  clerk append log 'one more line'
  date | clerk append log -")]
    Append {
        /// 1 to 4,096 bytes
        #[arg(allow_negative_numbers = true)]
        key: OsString,
        /// What to append, so that the value stays within 1 MiB; `-` reads it from stdin, byte for byte
        #[arg(allow_negative_numbers = true)]
        value: OsString,
    },

    /// Print a key's value; exit status 1 if there is none
    #[command(after_help = "Examples:
  clerk get greeting
  clerk get photo --raw > photo.jpg
  clerk get greeting --consistency stale
  clerk --output json get greeting")]
    Get {
        /// 1 to 4,096 bytes
        #[arg(allow_negative_numbers = true)]
        key: OsString,
        /// How fresh the value must be
        #[arg(long, value_name = "HOW", default_value = "linearizable")]
        consistency: Freshness,
        /// Write the value's bytes and no newline
        #[arg(long)]
        raw: bool,
    },

    /// Remove a key; exit status 1 if there was none
    #[command(after_help = "Examples:
  clerk delete greeting")]
    Delete {
        /// 1 to 4,096 bytes
        #[arg(allow_negative_numbers = true)]
        key: OsString,
    },

    /// Print a range of keys and values in order, a line each; each page of 1,000 is one point in time
    #[command(after_help = "Examples:
  clerk scan
  clerk scan --prefix user/ --keys-only
  clerk scan --from 2026-01 --to 2026-02 --limit 10
  clerk --output json scan --prefix user/")]
    Scan(Range),

    /// Ask every node for its state; exit status 3 if none can be reached
    #[command(after_help = "Examples:
  clerk status
  clerk --output json status | jq '.[] | select(.role == \"leader\") | .endpoint'")]
    Status,

    /// Set keys from a file of JSON lines, one {"key": ..., "value": ...} a line
    ///
    /// Bytes that are not UTF-8 stand as key_base64 or value_base64. Lines with one key are done in the order
    /// of the file. A failed import can be run again from the start.
    #[command(after_help = "Examples:
  clerk import backup.jsonl
  clerk export --prefix user/ | clerk --endpoints 10.0.1.1:7102 import -")]
    Import {
        /// The file; `-` is stdin
        file: PathBuf,
    },

    /// Write keys and values as JSON lines, as import reads them; each page of 1,000 is one point in time
    ///
    /// A file is replaced when the export is complete. Until then it is written beside it as clerk-export-*.partial,
    /// which stays behind if the program is interrupted, and can be removed then.
    #[command(after_help = "Examples:
  clerk export > backup.jsonl
  clerk export --prefix user/ users.jsonl")]
    Export {
        /// Only keys that begin so
        #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
        prefix: OsString,
        /// The file to write; `-` is stdout, and the summary goes to stderr
        #[arg(default_value = "-")]
        file: PathBuf,
    },

    /// Load the cluster and print throughput and latencies
    ///
    /// Each client has one call in flight. Writes keys that begin with bench/ and leaves them there. Ctrl-C (or
    /// SIGTERM) ends it with a report of what was measured until then and exit status 3; a second one ends it at
    /// once.
    #[command(after_help = "Examples:
  clerk bench
  clerk bench --op get --clients 64 --duration 30s
  clerk bench --op mixed --reads 95 --keys 100000 --distribution zipf --value-size 1000
  clerk bench --rate 2000")]
    Bench(LoadOptions),

    /// Print the completion script of a shell
    #[command(after_help = "Examples:
  clerk completions bash > ~/.local/share/bash-completion/completions/clerk
  clerk completions zsh > ~/.zfunc/_clerk")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Range {
    /// Only keys that begin so
    #[arg(long, value_name = "P", conflicts_with_all = ["from", "to"])]
    pub(crate) prefix: Option<OsString>,
    /// The first key
    #[arg(long, value_name = "A")]
    pub(crate) from: Option<OsString>,
    /// The first key behind the range
    #[arg(long, value_name = "B")]
    pub(crate) to: Option<OsString>,
    /// At most so many items in all
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Leave the values out
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// How fresh each page must be
    #[arg(long, value_name = "HOW", default_value = "linearizable")]
    pub(crate) consistency: Freshness,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LoadOptions {
    /// What each call does
    #[arg(long, default_value = "put")]
    op: Operation,
    /// How many of a hundred calls read, with --op mixed [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    reads: Option<u8>,
    /// How many clients call at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How many connections the clients share; 0 chooses
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=256))]
    connections: u32,
    /// How long to measure, after a warm-up that is left out
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    duration: Duration,
    /// How many keys
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Which of the keys the calls choose
    #[arg(long, visible_alias = "skew", value_name = "HOW", default_value = "uniform")]
    distribution: KeyDistribution,
    /// How many bytes each value has
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_size: u32,
    /// Calls per second, all clients together, as long as a client is free when one is due; latency
    /// then counts from the moment a call was due, less what the client's own timer was late (2 ms at most), and to the
    /// end for one that can begin no more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// How fresh reads must be [default: linearizable]
    #[arg(long, value_name = "HOW")]
    consistency: Option<Freshness>,
}

impl LoadOptions {
    /// Refuses what the load would not heed.
    pub(crate) fn check(&self, spread_reads: bool) -> Result<(), Failure> {
        let reads = match self.op {
            Operation::Get => true,
            Operation::Mixed => self.reads != Some(0),
            Operation::Put | Operation::Append => false,
        };
        let unheeded = [
            (
                self.reads.is_some() && self.op != Operation::Mixed,
                "--reads is for --op mixed",
            ),
            (
                self.consistency.is_some() && !reads,
                "--consistency is for loads that read: --op get or mixed",
            ),
            (
                spread_reads && !(reads && self.consistency() == Consistency::Linearizable),
                "--spread-reads is for loads with linearizable reads: --op get or mixed, and no other --consistency",
            ),
        ];
        match unheeded.iter().find(|(unheeded, _)| *unheeded) {
            Some((_, problem)) => Err(Failure::usage(*problem)),
            None => Ok(()),
        }
    }

    /// How fresh they ask reads to be.
    pub(crate) fn consistency(&self) -> Consistency {
        self.consistency.unwrap_or(Freshness::Linearizable).into()
    }

    /// The load that they ask for.
    pub(crate) fn load(&self) -> Load {
        Load {
            operation: match self.op {
                Operation::Put => load::Operation::Put,
                Operation::Get => load::Operation::Get,
                Operation::Append => load::Operation::Append,
                Operation::Mixed => load::Operation::Mixed {
                    reads_percent: self.reads.unwrap_or(50),
                },
            },
            clients: self.clients,
            warm_up: load::warm_up_for(self.duration),
            duration: self.duration,
            keys: self.keys,
            distribution: match self.distribution {
                KeyDistribution::Uniform => load::Distribution::Uniform,
                KeyDistribution::Zipf => load::Distribution::Zipf,
            },
            value_bytes: self.value_size,
            rate: self.rate,
            seed: 0,
        }
    }

    /// How many connections they ask for, if they do.
    pub(crate) fn connections(&self) -> Option<u32> {
        (self.connections > 0).then_some(self.connections)
    }
}

/// Which keys a benchmark's calls choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyDistribution {
    /// Each as likely as the other
    Uniform,
    /// Few keys get most of the calls: the n-th in proportion to 1/n^0.99, as in YCSB
    Zipf,
}

/// What a benchmark's calls do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    /// Set a key
    Put,
    /// Read a key
    Get,
    /// Append to a key
    Append,
    /// Read a key or set it; --reads says how often
    Mixed,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Freshness {
    /// Sees every write that finished before it began
    Linearizable,
    /// The same, on the leader's lease where the cluster allows it
    Lease,
    /// The same, by an entry in the log
    Log,
    /// Whatever the asked server has applied, possibly old
    Stale,
}

impl From<Freshness> for Consistency {
    fn from(freshness: Freshness) -> Self {
        match freshness {
            Freshness::Linearizable => Self::Linearizable,
            Freshness::Lease => Self::Lease,
            Freshness::Log => Self::Log,
            Freshness::Stale => Self::Stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_before_and_after_the_command() {
        for line in [
            ["clerk", "--timeout", "2s", "status"],
            ["clerk", "status", "--timeout", "2s"],
        ] {
            let arguments = Arguments::try_parse_from(line).unwrap();
            assert_eq!(arguments.timeout, Duration::from_secs(2));
        }
    }

    #[test]
    fn endpoints_are_separated_by_commas_and_default_to_a_local_cluster() {
        let arguments = Arguments::try_parse_from(["clerk", "--endpoints", "a:1,b:2", "status"]).unwrap();
        assert_eq!(arguments.endpoints, ["a:1", "b:2"]);
        if std::env::var_os("CLERK_ENDPOINTS").is_none() {
            let arguments = Arguments::try_parse_from(["clerk", "status"]).unwrap();
            assert_eq!(
                arguments.endpoints,
                ["127.0.0.1:7102", "127.0.0.1:7112", "127.0.0.1:7122"]
            );
        }
    }

    #[test]
    fn negative_numbers_are_values() {
        let arguments = Arguments::try_parse_from(["clerk", "put", "temperature", "-5"]).unwrap();
        assert!(matches!(arguments.command, Command::Put { value, .. } if value == "-5"));
    }

    #[test]
    fn a_prefix_and_bounds_exclude_each_other() {
        assert!(Arguments::try_parse_from(["clerk", "scan", "--prefix", "a", "--from", "b"]).is_err());
    }
}

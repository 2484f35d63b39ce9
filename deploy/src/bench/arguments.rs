//! The command line of `deploy bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::workload::{Calls, Keys, Workload};
use crate::error::Error;

pub(crate) const BENCH_EXAMPLES: &str = "\
Examples:
  deploy bench --quick
  deploy bench --against etcd --plots plots
  deploy bench --against etcd --workloads put --clients 256 --value-sizes 1024 --rounds 5
  deploy bench --against etcd --workloads get,lease --clients 1
  deploy bench --against echo --workloads lease --clients 1,16,64 --rounds 5
  deploy bench --failover 10 --against etcd
  deploy bench --restart --against etcd
  deploy bench --pause --rounds 3
  deploy bench --endure --plots plots
  deploy bench --growth --plots plots
  deploy --output json bench --quick | jq 'select(.event == \"result\")'

`--against etcd` needs an `etcd` on PATH, and a `deploy` that was built with `--features etcd`. Where either is \
missing it is said, and ours is measured alone.

What was measured is told, too, where a node ends, a measurement fails, or a signal such as Ctrl-C interrupts. It \
ends when nobody reads its output any more, unless it is to draw plots.

Exit status: 0 measured, or nobody reads on; 1 a node ended while it was measured; 2 wrong usage; 3 not done or \
interrupted.";

/// How many keys the workloads have, unless said.
pub(crate) const KEYS: u64 = 10_000;
/// The most that all values together may have.
const MOST_BYTES: u64 = 4 << 30;

const SELECTION: &str = "Which workloads";
const INSTEAD: &str = "Instead of the workloads";

/// What selects workloads, which no other measurement heeds: each refuses it.
const OF_WORKLOADS: [&str; 6] = [
    "quick",
    "full",
    "workloads",
    "clients",
    "value_sizes",
    "distributions",
];

/// Options of `deploy bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArguments {
    /// Measure another store in the same run, turn and turn about
    #[arg(long, value_name = "STORE")]
    pub(crate) against: Option<Peer>,
    /// A few workloads, one short round
    #[arg(long, conflicts_with = "full", help_heading = SELECTION)]
    pub(crate) quick: bool,
    /// Every workload: both value sizes and both choices of keys
    #[arg(long, help_heading = SELECTION)]
    pub(crate) full: bool,
    /// What the calls do [default: all but lease]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = SELECTION)]
    pub(crate) workloads: Vec<Calls>,
    /// How many clients call at once [default: 1,16,64,256]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = SELECTION)]
    pub(crate) clients: Vec<u32>,
    /// Bytes of a value; those of all keys together at most 4 GiB [default: 128]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=1_048_576), help_heading = SELECTION)]
    pub(crate) value_sizes: Vec<u32>,
    /// Which keys the calls choose [default: uniform]
    #[arg(long, visible_alias = "skew", value_name = "HOW,...", value_delimiter = ',', help_heading = SELECTION)]
    pub(crate) distributions: Vec<Keys>,
    /// How many keys there are [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000), help_heading = SELECTION)]
    pub(crate) keys: Option<u64>,
    /// How often each workload is measured, or --pause, --memory or --restart, on a fresh cluster each time; medians
    /// count. The leaders of --failover are spread over the rounds [default: 3, alone 1; --failover: 2, alone 1;
    /// --pause and --memory: 1; --restart: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: Option<u32>,
    /// How long each measurement takes, after a warm-up, such as 500ms, 5s or 1m [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Under which directory the clusters keep their data while they run; it must be on a real disk [default:
    /// the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Write plots of the workloads (SVG) to this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
    /// Kill the leader under 16 writers so many times, and stop it in order as often: how long does nobody write?
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100), conflicts_with_all = OF_WORKLOADS, conflicts_with_all = ["keys", "duration", "plots"], help_heading = INSTEAD)]
    pub(crate) failover: Option<u32>,
    /// The longest pause between two writes while a snapshot of 1,000,000 keys (or --keys) is cut, and while a
    /// follower is brought up from nothing; each takes 12s, or a --duration of at least 4s
    #[arg(long, conflicts_with_all = OF_WORKLOADS, conflicts_with_all = ["failover", "against", "plots"], help_heading = INSTEAD)]
    pub(crate) pause: bool,
    /// The memory of each node after 1,000,000 puts on 100,000 keys, and after 500,000 keys once each; with --keys
    /// after ten puts on each of a fifth of them, and after one on each
    #[arg(long, conflicts_with_all = OF_WORKLOADS, conflicts_with_all = ["failover", "pause", "duration", "plots"], help_heading = INSTEAD)]
    pub(crate) memory: bool,
    /// How long a cluster of 500,000 keys (or --keys) takes to serve again after all its nodes were killed
    #[arg(long, conflicts_with_all = OF_WORKLOADS, conflicts_with_all = ["failover", "pause", "memory", "duration", "plots"], help_heading = INSTEAD)]
    pub(crate) restart: bool,
    /// Overwrite 1,000 keys (or --keys) from 256 clients for ten minutes (or --duration): rate, disk and memory as
    /// it goes
    #[arg(long, conflicts_with_all = OF_WORKLOADS, conflicts_with_all = ["failover", "pause", "memory", "restart", "against", "rounds"], help_heading = INSTEAD)]
    pub(crate) endure: bool,
    /// Puts and gets by the number of nodes, of keys (up to 1,000,000, or --keys), of bytes in a value, and of clients
    #[arg(long, conflicts_with_all = OF_WORKLOADS, conflicts_with_all = ["failover", "pause", "memory", "restart", "endure", "against", "rounds"], help_heading = INSTEAD)]
    pub(crate) growth: bool,
}

/// Another store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// etcd 3, with its default settings
    Etcd,
    /// No store, but one process that answers every call at once: what the transport alone costs. For workloads only
    Echo,
}

impl BenchArguments {
    /// The workloads that are selected, in order.
    pub(crate) fn selection(&self) -> Vec<Workload> {
        let quick = |few: &[u32], usual: &[u32]| if self.quick { few.to_vec() } else { usual.to_vec() };
        let or = |given: &[u32], default: Vec<u32>| if given.is_empty() { default } else { given.to_vec() };
        let all_calls = if self.quick {
            &Calls::QUICK[..]
        } else {
            &Calls::ALL[..]
        };
        let calls = if self.workloads.is_empty() {
            all_calls
        } else {
            &self.workloads
        };
        let clients = or(&self.clients, quick(&[1, 64], &[1, 16, 64, 256]));
        let sizes = or(
            &self.value_sizes,
            if self.full { vec![128, 1_024] } else { vec![128] },
        );
        let keys = match (self.distributions.is_empty(), self.full) {
            (true, true) => &[Keys::Uniform, Keys::Zipf][..],
            (true, false) => &[Keys::Uniform][..],
            (false, _) => &self.distributions,
        };
        let mut selected = Vec::new();
        for &value_bytes in &sizes {
            for &keys in keys {
                for &calls in calls {
                    for &clients in &clients {
                        let workload = Workload {
                            calls,
                            clients,
                            value_bytes,
                            keys,
                        };
                        // What is named twice is measured once.
                        if !selected.contains(&workload) {
                            selected.push(workload);
                        }
                    }
                }
            }
        }
        selected
    }

    /// Refuses an echo where it would show nothing.
    pub(crate) fn check_peer(&self) -> Result<(), Error> {
        let needs_a_store = [
            (self.failover.is_some(), "--failover"),
            (self.memory, "--memory"),
            (self.restart, "--restart"),
        ];
        match needs_a_store.iter().find(|(given, _)| *given) {
            Some((_, option)) if self.against == Some(Peer::Echo) => Err(Error::Usage {
                problem: format!(
                    "{option} cannot be measured against an echo: it keeps nothing and has no leader"
                ),
                remedy: "leave out --against echo, or name another store".into(),
            }),
            _ => Ok(()),
        }
    }

    /// Refuses keys and values that take more room together than a benchmark should.
    pub(crate) fn check_size(&self) -> Result<(), Error> {
        let keys = self.keys_or(KEYS);
        let largest = self.selection().iter().map(|one| one.value_bytes).max();
        let bytes = keys.saturating_mul(largest.unwrap_or(0).into());
        if bytes <= MOST_BYTES {
            return Ok(());
        }
        Err(Error::Usage {
            problem: format!(
                "{keys} keys with values of {} bytes are {} MiB on each node, and at most {} are taken",
                largest.unwrap_or(0),
                bytes.div_ceil(1 << 20),
                MOST_BYTES >> 20
            ),
            remedy: "name fewer --keys or smaller --value-sizes".into(),
        })
    }

    /// How many keys there are.
    pub(crate) fn keys_or(&self, default: u64) -> u64 {
        self.keys.unwrap_or(default)
    }

    /// How often each workload is measured when `systems` take part.
    pub(crate) fn rounds(&self, systems: usize) -> u32 {
        let alone = self.quick || systems < 2;
        self.rounds.unwrap_or(if alone { 1 } else { 3 })
    }

    /// How often all else is measured.
    pub(crate) fn rounds_or(&self, default: u32) -> u32 {
        self.rounds.unwrap_or(default)
    }

    /// How long each measurement takes.
    pub(crate) fn duration(&self) -> Duration {
        let default = if self.quick { 1 } else { 2 };
        self.duration.unwrap_or(Duration::from_secs(default))
    }
}

/// Parses `500ms`, `5s` or `2m`: one millisecond to ten minutes.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err("write a number and a unit (ms, s, m), such as 500ms, 5s or 1m".into()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{number:?} is not a number"))?;
    let seconds = number * scale;
    if !(0.001..=600.0).contains(&seconds) {
        return Err("it must be at least 1ms and at most 10m".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn parse(line: &str) -> BenchArguments {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words)
            .map(|line| line.bench)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_full_selection_is_every_workload_and_the_quick_one_a_few() {
        assert_eq!(parse("--full").selection().len(), 4 * 4 * 2 * 2);
        assert_eq!(parse("").selection().len(), 4 * 4);
        assert_eq!(parse("--quick").selection().len(), 2 * 2);
    }

    #[test]
    fn what_is_given_beats_every_default() {
        let line = "--full --workloads put,mixed95 --clients 256 --value-sizes 16,64 --skew zipf --rounds 2";
        let arguments = parse(line);
        let selected = arguments.selection();
        assert_eq!(selected.len(), 2 * 2);
        assert!(
            selected
                .iter()
                .all(|one| one.clients == 256 && one.keys == Keys::Zipf)
        );
        assert_eq!(
            (arguments.rounds(1), parse("").rounds(1), parse("").rounds(2)),
            (2, 1, 3)
        );
    }

    #[test]
    fn what_is_named_twice_is_measured_once_where_it_stands_first() {
        let named_twice =
            "--workloads put,get,put --clients 4,1,4 --value-sizes 16,16 --skew zipf,uniform,zipf";
        let named_once = "--workloads put,get --clients 4,1 --value-sizes 16 --skew zipf,uniform";
        let selected = parse(named_twice).selection();
        assert_eq!(selected.len(), 2 * 2 * 2);
        assert_eq!(selected, parse(named_once).selection());
    }

    #[test]
    fn what_a_measurement_does_not_heed_it_refuses() {
        let takes = |line: &str| {
            let words = ["bench"].into_iter().chain(line.split_whitespace());
            Line::try_parse_from(words).is_ok()
        };
        let options = [
            ("--against etcd", "--failover 1, --memory, --restart"),
            ("--keys 10", "--pause, --memory, --restart, --endure, --growth"),
            ("--duration 1s", "--pause, --endure, --growth"),
            ("--plots plots", "--endure, --growth"),
            (
                "--dir data",
                "--failover 1, --pause, --memory, --restart, --endure, --growth",
            ),
            ("--quick", ""),
            ("--full", ""),
            ("--workloads put", ""),
            ("--clients 1", ""),
            ("--value-sizes 1", ""),
            ("--skew zipf", ""),
            ("--rounds 1", "--failover 1, --pause, --memory, --restart"),
        ];
        let measurements = [
            "--failover 1",
            "--pause",
            "--memory",
            "--restart",
            "--endure",
            "--growth",
        ];
        for measurement in measurements {
            assert!(takes(measurement));
            for other in measurements.into_iter().filter(|other| *other != measurement) {
                assert!(!takes(&format!("{measurement} {other}")), "{measurement} {other}");
            }
            for (option, heeded_by) in options {
                let heeds = heeded_by.split(", ").any(|one| one == measurement);
                assert_eq!(
                    takes(&format!("{measurement} {option}")),
                    heeds,
                    "{measurement} {option}"
                );
            }
        }
    }

    #[test]
    fn an_echo_is_for_the_workloads_alone() {
        for (line, takes) in [
            ("--against echo", true),
            ("--against echo --workloads lease", true),
            ("--against etcd --restart", true),
            ("--against echo --restart", false),
            ("--against echo --memory", false),
            ("--against echo --failover 1", false),
        ] {
            assert_eq!(parse(line).check_peer().is_ok(), takes, "{line}");
        }
    }

    #[test]
    fn keys_and_values_that_no_machine_has_room_for_are_refused() {
        for (line, takes) in [
            ("--full", true),
            ("--value-sizes 1048576 --keys 4096", true),
            ("--value-sizes 16,1048576 --keys 4097", false),
            ("--value-sizes 1048576", false),
            ("--keys 10000000", true),
            ("--memory --keys 10000000", true),
        ] {
            assert_eq!(parse(line).check_size().is_ok(), takes, "{line}");
        }
    }

    #[test]
    fn durations_have_units_and_bounds() {
        for (text, ms) in [("500ms", 500), ("5s", 5_000), ("1.5s", 1_500), ("1m", 60_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "0s", "0.9ms", "11m", "-1s", "1h", "..s"] {
            assert!(parse_duration(text).is_err(), "{text:?} was taken");
        }
    }
}

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::bench::arguments::{BENCH_EXAMPLES, BenchArguments};
use crate::report::Format;

/// As far as a whole number goes in a TOML file.
const MOST_BYTES: u64 = i64::MAX as u64;
/// As many as kv-server takes.
const MOST_NODES: i64 = kv_server::config::MAX_NODES as i64;

const EXAMPLES: &str = "\
Examples:
  deploy demo                          see a leader die and nothing get lost, in about 20 seconds
  deploy --output json demo | tail -1  the same, for a script
  deploy torture --duration 20s        kill and pause nodes and cut links, and check what clients saw
  deploy up                            three nodes on 127.0.0.1, their data in ./kv-cluster
  deploy up --nodes 5 --dir /var/tmp/five --base-port 9000
  deploy bench --quick                 how fast it is on this machine, in about 10 seconds

Exit status: 0 done, 1 a check did not hold, 2 wrong usage or configuration, 3 not done
(or done, and what came of it could not be written to stdout).";

const DEMO_EXAMPLES: &str = "\
Examples:
  deploy demo
  deploy demo --output json | tail -1

Exit status: 0 every check held, 1 one did not (the directory is kept, and told), 3 not done.";

const UP_EXAMPLES: &str = "\
Examples:
  deploy up
  deploy up --nodes 5 --dir /var/tmp/five --base-port 9000
  deploy up --fresh --snapshot-log-bytes 1000000

DIR/cluster.toml is written once. Edit it and run `deploy up` again to change a setting; or throw the \
cluster away, data and all, with --fresh.

Exit status: 0 stopped by Ctrl-C, 2 wrong usage or configuration, 3 not done.";

const TORTURE_EXAMPLES: &str = "\
Examples:
  deploy torture
  deploy torture --duration 300s --report torture-report
  deploy torture --duration 20s --seed 7 --output json | tail -1

The seed decides which faults come when; what the nodes make of them is up to the machine. A report has \
report.html, report.txt and history.jsonl, which `sim check` reads.

Kills, pauses and cuts are counted as faults: a kill ends one process or all, a pause stops one, a cut takes \
one or more links for a time. Beside them stand the processes killed and the links cut (JSON: killed_processes, \
cut_links); a link leads from one node to another, so a pair of nodes has two.

Exit status: 0 every check held, 1 one did not (the directory is kept, and told), 2 wrong usage, 3 not done.";

/// Runs and demonstrates local clusters of kv-server.
#[derive(Debug, Parser)]
#[command(name = "deploy", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    /// How to print what happens: text, or JSON with one object a line
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start three nodes, write from several clients, kill the leader, and check that nothing was lost
    #[command(after_help = DEMO_EXAMPLES)]
    Demo,
    /// Start a local cluster and keep it running until Ctrl-C
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArguments),
    /// Kill and pause nodes and cut links under load, and check that what clients saw is linearizable
    #[command(after_help = TORTURE_EXAMPLES)]
    Torture(TortureArguments),
    /// Measure a fresh local cluster, alone or side by side with another store
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArguments),
    /// Be a node: what `demo` and `up` start
    #[command(hide = true, disable_help_flag = true)]
    Node(NodeArguments),
    /// Answer every call at once: what `bench --against echo` starts
    #[command(hide = true, disable_help_flag = true)]
    Echo(crate::bench::echo::EchoArguments),
    /// Run another program and end it when stdin ends: what `bench` starts a peer's nodes with
    #[cfg(feature = "etcd")]
    #[command(hide = true, disable_help_flag = true)]
    Guard(crate::bench::guard::GuardArguments),
}

/// Options of `deploy up`. What is not given comes from `DIR/cluster.toml`, or else from the defaults.
#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// How many nodes [default for a new cluster: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_NODES))]
    pub(crate) nodes: Option<u16>,
    /// Where the cluster lives: its cluster.toml and, for each node, its data, log and pid
    #[arg(long, default_value = "kv-cluster")]
    pub(crate) dir: PathBuf,
    /// Node i serves peers on this + 10(i-1) + 1, clients on this + 10(i-1) + 2 [default for a new cluster: 7100]
    #[arg(long, value_name = "PORT")]
    pub(crate) base_port: Option<u16>,
    /// Throw away the cluster in DIR, data and all, and begin a new one
    #[arg(long)]
    pub(crate) fresh: bool,
    /// For a new cluster: cut a snapshot when the log since the last one has grown past this many bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=MOST_BYTES))]
    pub(crate) snapshot_log_bytes: Option<u64>,
}

/// Options of `deploy torture`.
#[derive(Debug, Args)]
pub(crate) struct TortureArguments {
    /// How long faults go on
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Which faults come when [default: a random one, which is told]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Where to write the report and the history
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
}

/// The longest torture: its history has to be held and checked.
const LONGEST_TORTURE: Duration = Duration::from_secs(3_600);

/// `500ms`, `20s`, `5m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| "a whole number and a unit, such as 20s, is expected".to_owned())?;
    let duration = match &text[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err("the unit must be ms, s or m".to_owned()),
    };
    if duration.is_zero() {
        return Err("in no time nothing can be found out".to_owned());
    }
    if duration > LONGEST_TORTURE {
        return Err(format!(
            "more than {LONGEST_TORTURE:?}: run it several times instead"
        ));
    }
    Ok(duration)
}

/// Arguments of the hidden `deploy node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// Stop when stdin ends: a node then never outlives whoever started it and holds the other end
    #[arg(long)]
    pub(crate) until_stdin_closes: bool,
    /// What kv-server's own command line takes
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "KV_SERVER_ARGUMENTS"
    )]
    pub(crate) arguments: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_torture_takes_some_time_and_not_for_ever() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("60m"), Ok(LONGEST_TORTURE));
        for text in ["0s", "0ms", "61m", "5", "1h"] {
            assert!(duration(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_node_takes_every_argument_of_kv_server_untouched() {
        let parsed = Arguments::try_parse_from([
            "deploy",
            "node",
            "--until-stdin-closes",
            "--",
            "--config",
            "c",
            "--id",
            "2",
        ])
        .unwrap();
        let Command::Node(node) = parsed.command else {
            panic!("not a node")
        };
        assert!(node.until_stdin_closes);
        assert_eq!(node.arguments, ["--config", "c", "--id", "2"]);
    }

    #[test]
    fn no_nodes_and_more_than_kv_server_takes_are_refused() {
        for count in ["0", "8"] {
            assert!(Arguments::try_parse_from(["deploy", "up", "--nodes", count]).is_err());
        }
    }
}

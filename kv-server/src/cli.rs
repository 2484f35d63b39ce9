//! The command line of the `kv-server` program.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Args, Command, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  kv-server --config cluster.toml --id 1
  kv-server --config cluster.toml --id 1 --check
  kv-server --config cluster.toml --id 1 --join    # its disk was lost and is empty now
  kv-server inspect --data-dir data/node-1      # looks into a stopped node's data; see inspect --help
  kv-server --config cluster.toml --id 1 --data-dir /var/lib/kv-server --log info,raft_core=debug

A cluster file, the same on every node:
  cluster_id = \"demo\"
  data_dir = \"data/node-{id}\"      # {id} is replaced

  [raft]                           # optional, as is every setting in it
  heartbeat_interval_ms = 50
  election_timeout_ms = [300, 600]
  lease_reads = false              # true trusts clocks: see --lease-reads

  [[node]]                         # one for each node
  id = 1
  raft_addr = \"127.0.0.1:7101\"     # peers
  client_addr = \"127.0.0.1:7102\"   # clients

Flags beat the environment, which beats the file, which beats the defaults.";

/// One node of a replicated, linearizable key-value store.
#[derive(Clone, Debug, Parser)]
#[command(name = "kv-server", version, after_help = EXAMPLES)]
pub struct Cli {
    /// The cluster file (TOML), the same on every node
    #[arg(long, env = "KV_SERVER_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Which node of the cluster file this is
    #[arg(long, env = "KV_SERVER_ID", value_name = "N")]
    pub id: u64,
    /// Take the place of this node's lost data: on an empty data directory, in a running cluster
    #[arg(long)]
    pub join: bool,
    /// Validate the configuration and the limit on open files, and exit
    #[arg(long)]
    pub check: bool,
    /// Settings that beat the cluster file.
    #[command(flatten)]
    pub overrides: Overrides,
    /// What to log, and how.
    #[command(flatten)]
    pub log: LogOptions,
}

impl Cli {
    /// Reads the command line and the environment, and remembers which of them said what.
    ///
    /// # Errors
    ///
    /// What is wrong with them; a value of the environment is told by the name of its variable.
    pub fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command
            .try_get_matches_from_mut(args)
            .map_err(|error| blame(error, &command, args))?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.overrides.from_environment = matches
            .ids()
            .map(|id| id.as_str())
            .filter(|id| matches.value_source(id) == Some(ValueSource::EnvVariable))
            .map(str::to_owned)
            .collect();
        Ok(cli)
    }
}

/// Puts the name of the environment variable in the place of the flag's, where the value came from there: the
/// flag is not among `args`.
fn blame(mut error: clap::Error, command: &Command, args: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(told)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let argument = command
        .get_arguments()
        .find(|argument| argument.to_string() == *told);
    let variable = argument.and_then(|argument| {
        let flag = format!("--{}", argument.get_long()?);
        let is_the_flag = |word: &OsString| {
            let word = word.to_string_lossy();
            word.split('=').next() == Some(flag.as_str())
        };
        let variable = argument.get_env()?.to_str()?;
        (std::env::var_os(variable).is_some() && !args.iter().any(is_the_flag)).then(|| variable.to_owned())
    });
    if let Some(variable) = variable {
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
    }
    error
}

/// The environment variable of a setting, which is named as in the cluster file.
pub(crate) fn variable_of(setting: &str) -> String {
    format!("KV_SERVER_{}", setting.to_ascii_uppercase())
}

/// Settings that beat the cluster file. Each means what its namesake in the file means.
#[derive(Args, Clone, Debug, Default)]
pub struct Overrides {
    /// Which settings, named as in the cluster file (and `id`), the environment gave and not a flag. It is only
    /// used in errors, to say where a bad value came from.
    #[arg(skip)]
    pub from_environment: BTreeSet<String>,
    /// Where the node keeps its data; {id} is replaced
    #[arg(long, env = "KV_SERVER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Time between a leader's heartbeats, in ms [default: 50]
    #[arg(long, env = "KV_SERVER_HEARTBEAT_INTERVAL_MS", value_name = "MS")]
    pub heartbeat_interval_ms: Option<u64>,
    /// Range that election timeouts are drawn from, in ms [default: 300,600]
    #[arg(
        long,
        env = "KV_SERVER_ELECTION_TIMEOUT_MS",
        value_name = "MIN,MAX",
        value_parser = parse_range
    )]
    pub election_timeout_ms: Option<[u64; 2]>,
    /// Cut a snapshot when the log has grown by this [default: 67108864]
    #[arg(long, env = "KV_SERVER_SNAPSHOT_LOG_BYTES", value_name = "BYTES")]
    pub snapshot_log_bytes: Option<u64>,
    /// Refuse writes while a leader holds this much uncommitted [default: 67108864]
    #[arg(long, env = "KV_SERVER_MAX_UNCOMMITTED_BYTES", value_name = "BYTES")]
    pub max_uncommitted_bytes: Option<u64>,
    /// Most bytes of entries on the way to one peer [default: 8388608]
    #[arg(long, env = "KV_SERVER_MAX_INFLIGHT_BYTES", value_name = "BYTES")]
    pub max_inflight_bytes: Option<u64>,
    /// Most messages with entries on the way to one peer [default: 256]
    #[arg(long, env = "KV_SERVER_MAX_INFLIGHT_MESSAGES", value_name = "N")]
    pub max_inflight_messages: Option<u64>,
    /// Answer `--consistency lease` on the leader's lease. Trusts that clocks drift apart by less than 10 % and
    /// that none is frozen, as a suspended virtual machine's is; all nodes need the same election timeouts
    #[arg(
        long,
        env = "KV_SERVER_LEASE_READS",
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub lease_reads: Option<bool>,
    /// Take no new data while less is free on the disk; 0 to never mind [default: 128 to 768 MiB]
    #[arg(long, env = "KV_SERVER_MIN_FREE_BYTES", value_name = "BYTES")]
    pub min_free_bytes: Option<u64>,
    /// Stop when the disk has not finished a write after this long [default: 30000]
    #[arg(long, env = "KV_SERVER_STALL_TIMEOUT_MS", value_name = "MS")]
    pub stall_timeout_ms: Option<u64>,
}

/// What to log, and how.
#[derive(Args, Clone, Debug, Default)]
pub struct LogOptions {
    /// What to log, such as info,raft_core=debug [default: $RUST_LOG, else info]
    #[arg(long, env = "KV_SERVER_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How a log line looks
    #[arg(
        long,
        env = "KV_SERVER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

fn parse_range(text: &str) -> Result<[u64; 2], String> {
    let numbers: Option<Vec<u64>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| "two whole numbers are needed, such as 300,600".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["kv-server"], arguments].concat())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_of_raft_has_a_flag() {
        let cli = parse(&[
            "--config=c.toml",
            "--id=2",
            "--data-dir=d",
            "--heartbeat-interval-ms=1",
            "--election-timeout-ms=2,3",
            "--snapshot-log-bytes=4",
            "--max-uncommitted-bytes=5",
            "--max-inflight-bytes=6",
            "--max-inflight-messages=7",
            "--lease-reads",
            "--min-free-bytes=8",
            "--stall-timeout-ms=9",
            "--log-format=json",
        ])
        .unwrap();
        assert_eq!(
            (cli.id, cli.check, cli.log.log_format),
            (2, false, LogFormat::Json)
        );
        let overrides = cli.overrides;
        assert_eq!(overrides.data_dir.as_deref(), Some("d"));
        assert_eq!(overrides.election_timeout_ms, Some([2, 3]));
        let numbers = [
            overrides.heartbeat_interval_ms,
            overrides.snapshot_log_bytes,
            overrides.max_uncommitted_bytes,
            overrides.max_inflight_bytes,
            overrides.max_inflight_messages,
            overrides.min_free_bytes,
            overrides.stall_timeout_ms,
        ];
        assert_eq!(numbers, [1, 4, 5, 6, 7, 8, 9].map(Some));
        assert_eq!(overrides.lease_reads, Some(true));
        let off = parse(&["--id=1", "--config=c", "--lease-reads=false"]).unwrap();
        assert_eq!(off.overrides.lease_reads, Some(false));
    }

    #[test]
    fn every_value_can_come_from_the_environment() {
        let command = Cli::command();
        let without: Vec<_> = command
            .get_arguments()
            .filter(|argument| argument.get_env().is_none())
            .map(|argument| argument.get_id().as_str())
            .collect();
        assert_eq!(without, ["join", "check"]);
    }

    #[test]
    fn flags_and_variables_are_named_after_their_settings() {
        for argument in Cli::command().get_arguments() {
            let setting = argument.get_id().as_str();
            if let Some(variable) = argument.get_env() {
                assert_eq!(variable.to_str(), Some(variable_of(setting).as_str()));
                assert_eq!(argument.get_long(), Some(setting.replace('_', "-").as_str()));
            }
        }
    }

    #[test]
    fn a_range_is_two_numbers() {
        assert_eq!(parse_range("300, 600"), Ok([300, 600]));
        for wrong in ["", "300", "1,2,3", "a,b", "-1,2"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_usage_exits_with_2_and_help_with_0() {
        assert_eq!(parse(&["--id=1"]).unwrap_err().exit_code(), 2);
        assert_eq!(parse(&["--id=x", "--config=c"]).unwrap_err().exit_code(), 2);
        let help = parse(&["--help"]).unwrap_err();
        assert_eq!((help.exit_code(), help.kind()), (0, ErrorKind::DisplayHelp));
        assert!(
            help.to_string()
                .contains("kv-server --config cluster.toml --id 1 --check")
        );
        assert_eq!(parse(&["--version"]).unwrap_err().exit_code(), 0);
    }
}

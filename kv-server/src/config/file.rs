//! The cluster file as it stands, before it means anything.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::error::{ConfigError, Place, Source};

/// A cluster file takes a few hundred bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The whole file. What must be there is optional all the same: `toml` cannot say where it is missing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sections {
    pub(super) cluster_id: Option<Spanned<String>>,
    pub(super) data_dir: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) raft: RaftSection,
    #[serde(default)]
    pub(super) limits: LimitsSection,
    #[serde(default)]
    pub(super) storage: StorageSection,
    #[serde(default)]
    pub(super) node: Vec<Spanned<NodeSection>>,
}

/// Two numbers and no more: an array alone would take the first two of a longer list.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<u64>")]
pub(super) struct Ends(pub(super) [u64; 2]);

impl TryFrom<Vec<u64>> for Ends {
    type Error = String;

    fn try_from(numbers: Vec<u64>) -> Result<Self, String> {
        let count = numbers.len();
        let ends = numbers.try_into();
        ends.map(Self).map_err(|_| {
            format!("two numbers are expected, the shortest and the longest, and there are {count}")
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RaftSection {
    pub(super) heartbeat_interval_ms: Option<Spanned<u64>>,
    pub(super) election_timeout_ms: Option<Spanned<Ends>>,
    pub(super) snapshot_log_bytes: Option<Spanned<u64>>,
    pub(super) max_uncommitted_bytes: Option<Spanned<u64>>,
    pub(super) max_inflight_bytes: Option<Spanned<u64>>,
    pub(super) max_inflight_messages: Option<Spanned<u64>>,
    pub(super) lease_reads: Option<Spanned<bool>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsSection {
    pub(super) connections: Option<Spanned<u64>>,
    pub(super) connections_per_address: Option<Spanned<u64>>,
    pub(super) requests_in_flight: Option<Spanned<u64>>,
    pub(super) requests_in_flight_per_connection: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StorageSection {
    pub(super) cache_bytes: Option<Spanned<u64>>,
    pub(super) min_free_bytes: Option<Spanned<u64>>,
    pub(super) stall_timeout_ms: Option<Spanned<u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeSection {
    pub(super) id: Option<Spanned<u64>>,
    pub(super) raft_addr: Option<Spanned<String>>,
    pub(super) client_addr: Option<Spanned<String>>,
}

/// The text of the file.
pub(super) fn read(file: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    let read = File::open(file).and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
    let fix = "give the path of the cluster file with --config";
    match read {
        Err(error) => Err(ConfigError::new(
            file.display(),
            format!("cannot be read: {error}"),
            fix,
        )),
        Ok(_) if text.len() as u64 > MAX_FILE_BYTES => Err(ConfigError::new(
            file.display(),
            "is larger than 1 MiB, so it is no cluster file",
            fix,
        )),
        Ok(_) => Ok(text),
    }
}

/// The sections of the file. Unknown keys and values of the wrong kind are refused here.
pub(super) fn parse(source: &Source<'_>) -> Result<Sections, ConfigError> {
    toml::from_str(source.text()).map_err(|error| {
        let place = error
            .span()
            .map_or(Place::File, |span| source.place_at(span.start));
        let problem = error.message().trim().replace('\n', "; ");
        let fix = if problem.starts_with("unknown field") {
            "correct the name or remove the line"
        } else {
            "correct the line; kv-server --help shows an example"
        };
        source.error(place, problem, fix)
    })
}

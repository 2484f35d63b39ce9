//! One setting: what was said about it, where, and what it may be.

use toml::Spanned;

use super::error::{ConfigError, Place, Source};
use crate::cli::Overrides;

/// The longest time that a setting may give, in milliseconds: ten minutes.
const MAX_TIMEOUT_MS: u64 = 600_000;

/// What was said about a setting: by a flag or the environment, else by the file, else nothing.
#[derive(Debug)]
pub(super) struct Setting<'a, T> {
    source: &'a Source<'a>,
    name: &'static str,
    given: Option<(Place, T)>,
}

impl<'a, T: Copy> Setting<'a, T> {
    /// `outside` is what a flag or the environment says, if they do.
    pub(super) fn new(
        source: &'a Source<'a>,
        name: &'static str,
        outside: Option<(&Overrides, Option<T>)>,
        in_file: Option<Spanned<T>>,
    ) -> Self {
        let given = outside.and_then(|(overrides, value)| Some((Place::outside(name, overrides), value?)));
        let given = given.or_else(|| in_file.map(|value| (source.place_of(&value), value.into_inner())));
        Self { source, name, given }
    }

    pub(super) fn value_or(&self, default: T) -> T {
        self.given.map_or(default, |(_, value)| value)
    }

    fn error(&self, problem: String, fix: impl Into<String>) -> ConfigError {
        let place = self.given.map_or(Place::File, |(place, _)| place);
        self.source.error(place, problem, fix)
    }
}

impl Setting<'_, u64> {
    pub(super) fn above_zero(&self, default: u64) -> Result<u64, ConfigError> {
        match self.value_or(default) {
            0 => Err(self.error(
                format!("{} is 0", self.name),
                format!("set it above 0, or leave it out for the default, {default}"),
            )),
            value => Ok(value),
        }
    }

    /// 0 turns it off.
    pub(super) fn zero_or_at_least(&self, least: u64) -> Result<Option<u64>, ConfigError> {
        let value = self.given.map(|(_, value)| value);
        match value {
            Some(value) if value != 0 && value < least => Err(self.error(
                format!(
                    "{} is {value}: a disk would be full before the node stops to write to it",
                    self.name
                ),
                format!(
                    "set it to {least} or more, leave it out for the default, or set it to 0 to never mind"
                ),
            )),
            value => Ok(value),
        }
    }
}

impl Setting<'_, [u64; 2]> {
    /// The lower and the upper end.
    pub(super) fn range(&self, default: [u64; 2]) -> Result<[u64; 2], ConfigError> {
        let [min, max] = self.value_or(default);
        let problem = if min == 0 {
            format!("{} starts at 0", self.name)
        } else if min > max {
            format!("{} goes from {min} to {max}, which is backwards", self.name)
        } else if min == max {
            format!(
                "{} is always {min}: nodes that miss their leader together would all stand for election at \
                 once, and split the votes again and again",
                self.name
            )
        } else if max > MAX_TIMEOUT_MS {
            format!("{} goes up to {max}: the limit is {MAX_TIMEOUT_MS}", self.name)
        } else {
            return Ok([min, max]);
        };
        Err(self.error(
            problem,
            format!("give the shortest and the longest, such as {default:?}"),
        ))
    }
}

/// A follower must hear several heartbeats in the shortest election timeout, or it deposes a live leader.
pub(super) fn check_heartbeat(
    heartbeat: &Setting<'_, u64>,
    heartbeat_ms: u64,
    election: &Setting<'_, [u64; 2]>,
    min_ms: u64,
) -> Result<(), ConfigError> {
    if heartbeat_ms < min_ms {
        return Ok(());
    }
    let problem =
        format!("heartbeat_interval_ms is {heartbeat_ms}, not below the shortest election timeout, {min_ms}");
    let fix = "raise election_timeout_ms or lower heartbeat_interval_ms, so that several heartbeats fit in \
               the shortest election timeout";
    if heartbeat.given.is_some() {
        Err(heartbeat.error(problem, fix))
    } else {
        Err(election.error(problem, fix))
    }
}

//! What is measured.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use clerk::load::{Distribution, Load, Operation, warm_up_for};
use serde::Serialize;

/// What the calls of a workload do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Calls {
    /// Set keys
    Put,
    /// Read keys, each read linearizable
    Get,
    /// Read keys: ours by the leader's lease (`raft.lease_reads`), a peer as with get. Only if named
    Lease,
    /// Half of each
    Mixed50,
    /// 95 reads of a hundred calls
    Mixed95,
}

impl Calls {
    /// What is measured unless something is named.
    pub(crate) const ALL: [Self; 4] = [Self::Put, Self::Get, Self::Mixed50, Self::Mixed95];
    pub(crate) const QUICK: [Self; 2] = [Self::Put, Self::Get];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Lease => "lease",
            Self::Mixed50 => "mixed50",
            Self::Mixed95 => "mixed95",
        }
    }

    fn operation(self) -> Operation {
        match self {
            Self::Put => Operation::Put,
            Self::Get | Self::Lease => Operation::Get,
            Self::Mixed50 => Operation::Mixed { reads_percent: 50 },
            Self::Mixed95 => Operation::Mixed { reads_percent: 95 },
        }
    }
}

/// Which keys they choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Keys {
    /// Each as likely as the other
    Uniform,
    /// Few get most of the calls
    Zipf,
}

impl Keys {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        }
    }
}

/// One workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Workload {
    #[serde(rename = "workload")]
    pub(crate) calls: Calls,
    pub(crate) clients: u32,
    pub(crate) value_bytes: u32,
    #[serde(rename = "distribution")]
    pub(crate) keys: Keys,
}

impl Workload {
    /// The load that it is, on so many keys and for so long.
    pub(crate) fn load(self, keys: u64, duration: Duration) -> Load {
        Load {
            operation: self.calls.operation(),
            clients: self.clients,
            warm_up: warm_up_for(duration),
            duration,
            keys,
            distribution: match self.keys {
                Keys::Uniform => Distribution::Uniform,
                Keys::Zipf => Distribution::Zipf,
            },
            value_bytes: self.value_bytes,
            rate: None,
            // Gets and puts may follow each other on one cluster, and draw other keys then.
            seed: self.calls as u32,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            calls,
            clients,
            value_bytes,
            keys,
        } = self;
        let s = if *clients == 1 { "" } else { "s" };
        write!(
            f,
            "{}, {clients} client{s}, {value_bytes} B, {}",
            calls.name(),
            keys.name()
        )
    }
}

//! How a node behaves: what one may tune, and why one would.

use thiserror::Error;

use crate::types::{Incarnation, NodeId, Ticks};

/// The settings of a [`Node`](crate::Node). Start from [`Config::new`] and change what you need.
#[derive(Clone, Debug)]
pub struct Config {
    /// This server's identity. It must never change for a given storage.
    pub id: NodeId,
    /// The store that the node runs on, drawn at random when that was created. See
    /// [`Standing`](crate::Standing).
    pub incarnation: Incarnation,
    /// Seeds the generators that draw election timeouts and name leaderships. Draw it anew, of all 64 bits, at each
    /// start: what tells two leaderships of one node in one term apart comes of it ([`Leadership`](crate::Leadership)),
    /// so it must not be kept with the data. The same seed and inputs replay the same run.
    pub seed: u64,
    /// The shortest election timeout, in ticks. Also how long a voter trusts a leader it heard from
    /// (thesis §4.2.3), and how often a leader checks that it still reaches a majority (thesis §6.2).
    /// Shorter finds a dead leader sooner; too short and a slow heartbeat deposes a live one.
    pub election_timeout_min: Ticks,
    /// The longest election timeout, in ticks. Each election draws one anew; a wider range makes split
    /// votes rarer (Raft §9.3).
    pub election_timeout_max: Ticks,
    /// Ask whether an election could be won before starting it (thesis §9.6), so that a server which was
    /// cut off does not depose a healthy leader when it comes back. Off only in tests of plain Raft.
    pub pre_vote: bool,
    /// A leader steps down when it no longer hears from a majority, and voters ignore candidates while
    /// they hear from a leader (thesis §4.2.3 and §6.2). Off only in tests of plain Raft.
    pub check_quorum: bool,
    /// After a start, give no vote for `election_timeout_min`: the server may have heard from a leader just
    /// before it stopped, and that leader counts on it (see [`lease`](crate::lease)). All servers of a cluster
    /// whose leaders use leases need it. It costs little: no server stands for election sooner anyway.
    pub silent_start: bool,
    /// A leader may serve reads on a lease ([`Node::read_lease`](crate::Node::read_lease)). This
    /// makes safety depend on clocks: see [`lease`](crate::lease) before you switch it on. It needs
    /// `check_quorum` and, on all servers, `silent_start` and the same `election_timeout_min`.
    pub lease_reads: bool,
    /// The most bytes of entries in one `AppendEntries`. One entry always fits, however large.
    pub max_append_bytes: usize,
    /// The most `AppendEntries` with entries that may be unanswered by one peer.
    pub max_inflight_messages: usize,
    /// The most bytes of entries that may be unanswered by one peer. One message always fits.
    pub max_inflight_bytes: usize,
    /// The most bytes of entries that a leader holds uncommitted before it refuses proposals, so that a
    /// leader without a majority does not fill its memory.
    pub max_uncommitted_bytes: usize,
    /// The most bytes of committed entries that are handed out and not yet applied: so much, or one entry, is applied in
    /// one step, and whoever applies does nothing else meanwhile.
    pub max_unapplied_bytes: usize,
    /// The most bytes of entries kept behind a new snapshot, so that a follower which is a little behind
    /// catches up from the log and needs no snapshot.
    pub retained_log_bytes: usize,
    /// The most bytes of entries that stay in memory as they came once they were handed out. Older ones are
    /// packed: copied together, which takes little more memory than their commands have bytes.
    pub max_unpacked_log_bytes: usize,
    /// The most bytes of packed entries that stay in memory at all. Older ones are read back from storage
    /// ([`Ready::log_reads`](crate::Ready::log_reads)) when a peer needs them, which costs such a peer some time and
    /// the others nothing.
    pub max_packed_log_bytes: usize,
}

impl Config {
    /// The default settings for the server `id`.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            incarnation: Incarnation::ZERO,
            seed: id.get(),
            election_timeout_min: Ticks(30),
            election_timeout_max: Ticks(60),
            pre_vote: true,
            check_quorum: true,
            silent_start: false,
            lease_reads: false,
            max_append_bytes: 1 << 20,
            max_inflight_messages: 256,
            max_inflight_bytes: 8 << 20,
            max_uncommitted_bytes: 64 << 20,
            max_unapplied_bytes: 1 << 20,
            retained_log_bytes: 4 << 20,
            max_unpacked_log_bytes: 256 << 10,
            max_packed_log_bytes: 8 << 20,
        }
    }

    /// Refuses settings that cannot work.
    ///
    /// # Errors
    ///
    /// Names the setting and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.election_timeout_min == Ticks::ZERO {
            return Err(ConfigError::ZeroElectionTimeout);
        }
        if self.election_timeout_min > self.election_timeout_max {
            return Err(ConfigError::ElectionTimeoutRange {
                min: self.election_timeout_min,
                max: self.election_timeout_max,
            });
        }
        if self.lease_reads && !(self.check_quorum && self.silent_start) {
            return Err(ConfigError::LeaseWithoutPromise);
        }
        let limits = [
            ("max_append_bytes", self.max_append_bytes),
            ("max_inflight_messages", self.max_inflight_messages),
            ("max_inflight_bytes", self.max_inflight_bytes),
            ("max_uncommitted_bytes", self.max_uncommitted_bytes),
            ("max_unapplied_bytes", self.max_unapplied_bytes),
        ];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((name, _)) => Err(ConfigError::ZeroLimit { name }),
            None => Ok(()),
        }
    }
}

/// Why a [`Node`](crate::Node) cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The election timeout is zero ticks.
    #[error("election_timeout_min must be at least one tick")]
    ZeroElectionTimeout,
    /// The range of election timeouts is empty.
    #[error("election_timeout_min ({min} ticks) must not be above election_timeout_max ({max} ticks)")]
    ElectionTimeoutRange {
        /// The lower end.
        min: Ticks,
        /// The upper end.
        max: Ticks,
    },
    /// Leases count on what voters promise only with these settings.
    #[error("lease_reads needs check_quorum and silent_start")]
    LeaseWithoutPromise,
    /// A limit of zero would let nothing through.
    #[error("{name} must be above zero")]
    ZeroLimit {
        /// The setting.
        name: &'static str,
    },
    /// The storage holds no members: it was never given its initial configuration.
    #[error("the stored configuration has no voters: the storage was not initialised")]
    NoVoters,
    /// The stored log has a hole or does not meet the snapshot.
    #[error("the stored log is not continuous at index {index}")]
    BrokenLog {
        /// The first index that is wrong.
        index: crate::types::LogIndex,
    },
}

#[cfg(test)]
mod tests {
    use super::{Config, ConfigError};
    use crate::types::{NodeId, Ticks};

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::new(NodeId(1)).validate(), Ok(()));
    }

    #[test]
    fn an_election_timeout_that_is_always_the_same_is_valid() {
        let mut config = Config::new(NodeId(1));
        config.election_timeout_max = config.election_timeout_min;
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let mut config = Config::new(NodeId(1));
        config.election_timeout_max = Ticks(1);
        assert!(matches!(
            config.validate(),
            Err(ConfigError::ElectionTimeoutRange { .. })
        ));
        config.election_timeout_min = Ticks::ZERO;
        assert_eq!(config.validate(), Err(ConfigError::ZeroElectionTimeout));
        let config = Config {
            lease_reads: true,
            ..Config::new(NodeId(1))
        };
        assert_eq!(config.validate(), Err(ConfigError::LeaseWithoutPromise));
        let config = Config {
            max_inflight_bytes: 0,
            ..Config::new(NodeId(1))
        };
        assert_eq!(
            config.validate(),
            Err(ConfigError::ZeroLimit {
                name: "max_inflight_bytes"
            })
        );
    }
}

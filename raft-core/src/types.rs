//! The numbers of Raft as distinct types, so that a term is never passed for an index.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::configuration::Configuration;
use crate::standing::Standing;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Zero: before the first.
            pub const ZERO: Self = Self(0);

            /// The bare number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number after this one.
            ///
            /// # Panics
            ///
            /// When the number is `u64::MAX`, which no cluster lives to count to.
            #[must_use]
            pub const fn next(self) -> Self {
                match self.0.checked_add(1) {
                    Some(next) => Self(next),
                    None => panic!("a counter ran past u64::MAX"),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                Self(number)
            }
        }
    };
}

number! {
    /// A term: the logical clock that numbers leaderships (Raft §5.1). Term 0 is before any election.
    Term
}
number! {
    /// A position in the replicated log (Raft §5.3). The first entry has index 1; 0 is "before the log".
    LogIndex
}
number! {
    /// The identity of a server in the cluster, as the configuration file gives it.
    NodeId
}
number! {
    /// A span of the core's clock, counted in calls of [`Node::tick_election`](crate::Node::tick_election).
    Ticks
}
number! {
    /// Ties a response to the request it answers. Chosen by whoever delivers the request to the core and
    /// handed back unread with the response; [`CallId::ZERO`] on messages that the core starts itself.
    CallId
}
number! {
    /// Numbers the [`Ready`](crate::Ready) batches of one node since it started, from 1.
    ReadyNumber
}
number! {
    /// Names a read that waits for its read index (thesis §6.4). Chosen by the caller.
    ReadId
}

number! {
    /// Names one store: drawn at random when the store is created, and never changed. A node whose data
    /// directory was emptied has another one afterwards. See [`Standing`].
    Incarnation
}

number! {
    /// Names one leadership: drawn at random when it begins. A term has one leadership, unless a vote was forgotten; then
    /// this tells them apart, also when one node leads twice. See the module `standing`, rule 8.
    Leadership
}

impl LogIndex {
    /// The index before this one; zero stays zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// One entry of the replicated log (Raft §5.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The term of the leader that created the entry.
    pub term: Term,
    /// The entry's position in the log.
    pub index: LogIndex,
    /// What the entry carries.
    pub payload: Payload,
}

/// What a log entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing. A new leader appends one to learn what is committed (Raft §8), so that the first entry of a term
    /// names who led it.
    Noop {
        /// The leader that appended it.
        leader_id: NodeId,
        /// By which election it led.
        leadership: Leadership,
    },
    /// The members of the cluster from this entry on (Raft §6).
    Configuration(Configuration),
    /// A command for the replicated state machine; the core does not look inside.
    Command(Bytes),
}

impl Entry {
    /// Bytes that every entry is counted with beside its command: the numbers and the framing around it.
    pub const OVERHEAD_BYTES: usize = 32;

    /// The size that windows and bounds count for this entry, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let payload = match &self.payload {
            Payload::Noop { .. } => 0,
            Payload::Configuration(configuration) => configuration.size_bytes(),
            Payload::Command(command) => command.len(),
        };
        Self::OVERHEAD_BYTES + payload
    }
}

/// What must be on stable storage before a node answers an RPC that depends on it (Raft figure 2), and what
/// this store's word is worth. One record: a term without its vote, or the other way round, would allow a
/// second vote in a term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term that this node has seen.
    pub current_term: Term,
    /// The candidate that received this node's vote in `current_term`, if any.
    pub voted_for: Option<NodeId>,
    /// Whether this store's votes and acknowledgements may count.
    pub standing: Standing,
}

/// Which snapshot this is: where in the log it stands (Raft §7), and exactly which file.
///
/// Two nodes that cut a snapshot at the same index have equal state, though not by promise equal
/// bytes. Size and checksum tell the files apart, so a transfer that resumes never mixes two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last log entry that the snapshot replaces.
    pub last_included_index: LogIndex,
    /// The term of that entry.
    pub last_included_term: Term,
    /// The terms of the entries that the snapshot replaces, oldest first: the latest [`SnapshotMeta::MAX_TERMS`] of them.
    /// They tell a node that is given the snapshot whether it replaces what the node knows to be committed. The core
    /// fills them in when it is told of the snapshot.
    pub terms: Vec<TermStart>,
    /// The members of the cluster as of that entry.
    pub configuration: Configuration,
    /// The length of the snapshot file, in bytes. Zero for the empty snapshot that every log starts from.
    pub size_bytes: u64,
    /// CRC-32 of the snapshot file. Zero for the empty snapshot.
    pub checksum: u32,
}

/// Where the entries of a term begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermStart {
    /// The first entry of the term.
    pub index: LogIndex,
    /// The term.
    pub term: Term,
    /// By which election its leader led, if the node that cut the snapshot knew it.
    pub leadership: Option<Leadership>,
}

impl SnapshotMeta {
    /// The most terms that a snapshot tells of. Who is further behind than so many elections cannot compare what it
    /// knows to be committed with the snapshot.
    pub const MAX_TERMS: usize = 64;

    /// The term of the entry at `index`, if the snapshot replaces it and tells its term.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.last_included_index {
            return Some(self.last_included_term);
        }
        let behind = self.terms.partition_point(|start| start.index <= index);
        let start = self.terms.get(behind.checked_sub(1)?)?;
        (index <= self.last_included_index).then_some(start.term)
    }

    /// The leaderships that the snapshot tells.
    pub(crate) fn leaderships(&self) -> impl Iterator<Item = (Term, Leadership)> {
        let told = |start: &TermStart| Some((start.term, start.leadership?));
        self.terms.iter().filter_map(told)
    }

    /// Whether the terms are in order and no more than may be.
    pub(crate) fn is_well_formed(&self) -> bool {
        let rises = |pair: &[TermStart]| pair[0].index < pair[1].index && pair[0].term < pair[1].term;
        self.terms.len() <= Self::MAX_TERMS
            && self.terms.windows(2).all(rises)
            && self.terms.last().is_none_or(|last| {
                last.index <= self.last_included_index && last.term == self.last_included_term
            })
    }

    /// Whether both are of one file, though perhaps only one of them tells the terms.
    #[must_use]
    pub fn is_of_same_file(&self, other: &Self) -> bool {
        let file = |meta: &Self| {
            let place = (meta.last_included_index, meta.last_included_term);
            (place, meta.size_bytes, meta.checksum)
        };
        file(self) == file(other)
    }
}

/// What a node is at the moment; lost in a crash without harm (Raft §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Passive: answers leaders and candidates.
    Follower,
    /// Asks whether an election could be won, without a new term (thesis §9.6).
    PreCandidate,
    /// Asks for votes in a new term (Raft §5.2).
    Candidate,
    /// Serves clients and replicates its log (Raft §5.3).
    Leader,
}

impl Role {
    /// The role as one lower-case word, the way logs and status tables print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

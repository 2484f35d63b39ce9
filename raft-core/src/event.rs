//! What is worth telling: the turns of a node's life, for its log and for tests.

use std::fmt;

use crate::standing::Refusal;
use crate::types::{Incarnation, LogIndex, NodeId, Term};

/// Something that happened inside a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The node asks whether it could win an election.
    PreVoteStarted {
        /// The term that the election would have.
        term: Term,
    },
    /// The node stands for election.
    ElectionStarted {
        /// The new term.
        term: Term,
        /// Whether the old leader asked for it.
        leadership_transfer: bool,
    },
    /// The node gave its vote.
    VoteGranted {
        /// The candidate.
        candidate: NodeId,
        /// The term.
        term: Term,
    },
    /// The node refused its vote.
    VoteRefused {
        /// The candidate.
        candidate: NodeId,
        /// The term asked about.
        term: Term,
        /// Why.
        reason: VoteRefusal,
    },
    /// The node won an election.
    BecameLeader {
        /// The term.
        term: Term,
    },
    /// The node follows a leader from now on.
    FollowsLeader {
        /// The leader.
        leader: NodeId,
        /// The term.
        term: Term,
    },
    /// The node was the leader and is not any more.
    SteppedDown {
        /// The term in which it led.
        term: Term,
        /// Why.
        reason: StepDownReason,
    },
    /// Entries of an older leader were replaced by the current one's.
    LogTruncated {
        /// The first entry that went.
        from: LogIndex,
    },
    /// A peer needs entries that are compacted away.
    SnapshotNeeded {
        /// The peer.
        peer: NodeId,
        /// The snapshot's last included index.
        last_included_index: LogIndex,
    },
    /// The beginning of the log was replaced by a snapshot of the leader.
    SnapshotInstalled {
        /// The snapshot's last included index.
        last_included_index: LogIndex,
    },
    /// The log was compacted behind a snapshot of this node.
    LogCompacted {
        /// The snapshot's last included index.
        last_included_index: LogIndex,
        /// The first entry that is still in the log.
        first_retained: LogIndex,
    },
    /// Leadership is being handed to a peer.
    TransferStarted {
        /// The peer.
        target: NodeId,
    },
    /// The hand-over did not happen in time and was given up.
    TransferAborted {
        /// The peer.
        target: NodeId,
    },
    /// The leader founds the cluster: its log says by which stores the members take part.
    ClusterFounded {
        /// How many of the members it knows.
        known: usize,
    },
    /// The leader proposes that a peer takes part by this store.
    RegistrationProposed {
        /// The peer.
        peer: NodeId,
        /// Its store.
        incarnation: Incarnation,
    },
    /// The cluster was founded without this node, which does not count until it is registered.
    IsNewcomer,
    /// This node's registration is committed: from now on it counts.
    Admitted {
        /// Its store.
        incarnation: Incarnation,
    },
    /// This node must not take part and does nothing more.
    Refused(Refusal),
}

/// Why a node refused its vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteRefusal {
    /// The candidate's term is not above this node's (Raft §5.1).
    OldTerm,
    /// The vote of this term went to another (Raft §5.2).
    VotedForOther,
    /// The candidate's log lacks entries that this node has (Raft §5.4.1).
    LogBehind,
    /// This node hears from a leader (thesis §4.2.3).
    HasLeader,
    /// This node's votes do not count.
    NoStanding,
}

/// Why a leader stepped down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepDownReason {
    /// It saw a higher term (Raft §5.1).
    HigherTerm,
    /// It did not hear from a majority for an election timeout (thesis §6.2).
    LostQuorum,
    /// Its own storage made no progress for an election timeout.
    StorageStalled,
    /// It must not take part (see [`Refusal`]).
    NoStanding,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreVoteStarted { term } => write!(f, "asks for pre-votes for term {term}"),
            Self::ElectionStarted {
                term,
                leadership_transfer: false,
            } => {
                write!(f, "starts an election in term {term}")
            }
            Self::ElectionStarted {
                term,
                leadership_transfer: true,
            } => {
                write!(f, "starts an election in term {term}, as the old leader asked")
            }
            Self::VoteGranted { candidate, term } => write!(f, "votes for {candidate} in term {term}"),
            Self::VoteRefused {
                candidate,
                term,
                reason,
            } => {
                write!(f, "refuses its vote to {candidate} in term {term}: {reason}")
            }
            Self::BecameLeader { term } => write!(f, "is the leader of term {term}"),
            Self::FollowsLeader { leader, term } => write!(f, "follows {leader} in term {term}"),
            Self::SteppedDown { term, reason } => write!(f, "steps down as leader of term {term}: {reason}"),
            Self::LogTruncated { from } => write!(f, "replaces its log from entry {from} on"),
            Self::SnapshotNeeded {
                peer,
                last_included_index,
            } => {
                write!(f, "sends {peer} the snapshot at {last_included_index}")
            }
            Self::SnapshotInstalled { last_included_index } => {
                write!(f, "installs the leader's snapshot at {last_included_index}")
            }
            Self::LogCompacted {
                last_included_index,
                first_retained,
            } => {
                write!(
                    f,
                    "has a snapshot at {last_included_index} and keeps its log from {first_retained} on"
                )
            }
            Self::TransferStarted { target } => write!(f, "hands leadership to {target}"),
            Self::TransferAborted { target } => write!(f, "gives up handing leadership to {target}"),
            Self::ClusterFounded { known } => write!(f, "founds the cluster with the {known} nodes it knows"),
            Self::RegistrationProposed { peer, incarnation } => {
                write!(f, "registers {peer} by its store {incarnation}")
            }
            Self::IsNewcomer => {
                f.write_str("was not there when the cluster was founded, and waits to be registered")
            }
            Self::Admitted { incarnation } => {
                write!(f, "is registered by its store {incarnation} and counts")
            }
            Self::Refused(refusal) => write!(f, "must not take part: {refusal}"),
        }
    }
}

impl fmt::Display for VoteRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OldTerm => "the term is not new",
            Self::VotedForOther => "the vote went to another",
            Self::LogBehind => "the candidate's log is behind",
            Self::HasLeader => "there is a leader",
            Self::NoStanding => "this node is not registered yet",
        })
    }
}

impl fmt::Display for StepDownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HigherTerm => "there is a higher term",
            Self::LostQuorum => "it does not hear from a majority",
            Self::StorageStalled => "its storage makes no progress",
            Self::NoStanding => "it must not take part",
        })
    }
}

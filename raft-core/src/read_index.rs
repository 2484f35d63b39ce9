//! Linearizable reads without the log (thesis §6.4).
//!
//! A read may be served from the state machine once the leader knows that it was still the leader after
//! the read arrived. One round of heartbeats shows that for every read that waits. The round's number
//! travels in `AppendEntries` and comes back in the answers, so a late answer to an older round confirms
//! nothing newer.

use std::collections::BTreeSet;

use crate::types::{LogIndex, NodeId, ReadId};

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Serve it as soon as the state machine has applied the log up to `index`.
    Confirmed {
        /// The read.
        id: ReadId,
        /// The read index: the commit index when its round began.
        index: LogIndex,
    },
    /// This node is no longer the leader: the reader must ask another.
    Dropped {
        /// The read.
        id: ReadId,
    },
}

/// The reads that wait on a leader.
#[derive(Debug, Default)]
pub(crate) struct ReadQueue {
    /// The latest round that was started; 0 before the first.
    round: u64,
    read_index: LogIndex,
    confirming: Vec<ReadId>,
    waiting: Vec<ReadId>,
    acknowledged_by: BTreeSet<NodeId>,
}

impl ReadQueue {
    pub(crate) fn push(&mut self, id: ReadId) {
        self.waiting.push(id);
    }

    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// Starts a round for all that wait, unless one is under way. Returns whether it did.
    pub(crate) fn start_round(&mut self, commit_index: LogIndex) -> bool {
        if self.waiting.is_empty() || !self.confirming.is_empty() {
            return false;
        }
        self.round += 1;
        self.read_index = commit_index;
        self.confirming = std::mem::take(&mut self.waiting);
        self.acknowledged_by.clear();
        true
    }

    /// Whether a round could start now.
    pub(crate) fn wants_round(&self) -> bool {
        self.confirming.is_empty() && !self.waiting.is_empty()
    }

    /// `peer` answered a message of `round`. Whether that tells something new.
    pub(crate) fn acknowledge(&mut self, peer: NodeId, round: u64) -> bool {
        !self.confirming.is_empty() && round == self.round && self.acknowledged_by.insert(peer)
    }

    pub(crate) fn is_acknowledged_by(&self, peer: NodeId) -> bool {
        self.acknowledged_by.contains(&peer)
    }

    /// The round is confirmed by a quorum: its reads, with their read index.
    pub(crate) fn confirm(&mut self) -> impl Iterator<Item = ReadOutcome> + use<> {
        let index = self.read_index;
        std::mem::take(&mut self.confirming)
            .into_iter()
            .map(move |id| ReadOutcome::Confirmed { id, index })
    }

    /// Leadership is lost: every read that waited.
    pub(crate) fn drop_all(&mut self) -> impl Iterator<Item = ReadOutcome> + use<> {
        let confirming = std::mem::take(&mut self.confirming);
        let waiting = std::mem::take(&mut self.waiting);
        confirming
            .into_iter()
            .chain(waiting)
            .map(|id| ReadOutcome::Dropped { id })
    }
}

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
    /// The round that `confirming` wait for. Later ones confirm them, too.
    confirming_round: u64,
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

    /// The next message begins another round.
    pub(crate) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Starts a round for all that wait, unless one is under way. Returns whether it did.
    pub(crate) fn start_round(&mut self, commit_index: LogIndex) -> bool {
        if self.waiting.is_empty() || !self.confirming.is_empty() {
            return false;
        }
        self.begin_round();
        self.confirming_round = self.round;
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
        let in_time = (self.confirming_round..=self.round).contains(&round);
        !self.confirming.is_empty() && in_time && self.acknowledged_by.insert(peer)
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

#[cfg(test)]
mod tests {
    use super::{ReadOutcome, ReadQueue};
    use crate::types::{LogIndex, NodeId, ReadId};

    fn confirmed(queue: &mut ReadQueue) -> Vec<ReadOutcome> {
        queue.confirm().collect()
    }

    #[test]
    fn a_round_takes_all_that_wait_at_the_commit_index_of_its_beginning() {
        let mut queue = ReadQueue::default();
        assert!(!queue.start_round(LogIndex(5)), "nobody waits");
        queue.push(ReadId(1));
        queue.push(ReadId(2));
        assert!(queue.start_round(LogIndex(5)));
        let index = LogIndex(5);
        let expected = [1, 2].map(|id| ReadOutcome::Confirmed {
            id: ReadId(id),
            index,
        });
        assert_eq!(confirmed(&mut queue), expected);
        assert_eq!(confirmed(&mut queue), [], "once");
    }

    #[test]
    fn there_is_one_round_at_a_time_and_late_comers_wait_for_the_next() {
        let mut queue = ReadQueue::default();
        queue.push(ReadId(1));
        assert!(queue.start_round(LogIndex(1)));
        queue.push(ReadId(2));
        assert!(!queue.wants_round());
        assert!(!queue.start_round(LogIndex(2)));
        assert_eq!(confirmed(&mut queue).len(), 1);
        assert!(queue.wants_round());
        assert!(queue.start_round(LogIndex(2)));
        assert_eq!(queue.round(), 2);
    }

    #[test]
    fn only_the_first_answer_of_each_peer_to_the_present_round_counts() {
        let mut queue = ReadQueue::default();
        assert!(!queue.acknowledge(NodeId(2), 0), "no round is under way");
        queue.push(ReadId(1));
        queue.start_round(LogIndex(1));
        assert!(!queue.acknowledge(NodeId(2), 0));
        assert!(!queue.acknowledge(NodeId(2), 2));
        assert!(queue.acknowledge(NodeId(2), 1));
        assert!(!queue.acknowledge(NodeId(2), 1));
        assert!(queue.is_acknowledged_by(NodeId(2)));
        confirmed(&mut queue);
        queue.push(ReadId(2));
        queue.start_round(LogIndex(1));
        assert!(
            !queue.is_acknowledged_by(NodeId(2)),
            "each round begins with nobody"
        );
        assert!(!queue.acknowledge(NodeId(3), 1));
    }

    #[test]
    fn lost_leadership_drops_those_in_the_round_and_those_that_wait() {
        let mut queue = ReadQueue::default();
        queue.push(ReadId(1));
        queue.start_round(LogIndex(1));
        queue.push(ReadId(2));
        let dropped: Vec<ReadOutcome> = queue.drop_all().collect();
        assert_eq!(dropped, [1, 2].map(|id| ReadOutcome::Dropped { id: ReadId(id) }));
        assert_eq!(queue.drop_all().count(), 0);
    }
}

//! What a leader knows of one peer's log, and how it sends to that peer (Raft §5.3; thesis §10.2.1).
//!
//! ```text
//!              a match is found                    the peer needs entries that are gone
//!     Probe ───────────────────────► Replicate     Probe ───────────────────────► Snapshot
//!       ▲                               │            ▲                               │
//!       └───── conflict, unreachable ───┘            └──── installed, or failed ─────┘
//! ```
//!
//! A peer that turns out to have what it needs before its snapshot has arrived goes from `Snapshot` to
//! `Replicate` at once. No state waits for one message alone: heartbeats go on in all of them, and the answer
//! to any heartbeat moves a peer on whose messages, or whose answers, were lost.

use std::collections::VecDeque;

use crate::types::{Incarnation, LogIndex};

/// How a leader sends to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// Looking for the last entry that both logs share: one message, then wait for its answer.
    Probe {
        /// A message is out and unanswered; only heartbeats follow until it is.
        awaiting_answer: bool,
    },
    /// The logs are known to match: messages follow each other without waiting for answers.
    Replicate,
    /// The peer receives the snapshot that ends at this index; no entries are sent meanwhile.
    Snapshot {
        /// The snapshot's last included index.
        last_included_index: LogIndex,
    },
}

/// One peer, as the leader sees it.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The highest entry known to be equal and durable on the peer.
    pub(crate) match_index: LogIndex,
    /// The next entry to send.
    pub(crate) next_index: LogIndex,
    pub(crate) state: ProgressState,
    /// Whether the peer answered since the last check for a quorum.
    pub(crate) recently_active: bool,
    /// Whether it answered between the last check and the one before.
    pub(crate) active_before: bool,
    /// The store that the peer runs on, once it has answered.
    pub(crate) incarnation: Option<Incarnation>,
    /// Whether that store's word counts. Taken for granted until the first answer, by which nothing is
    /// acknowledged.
    pub(crate) counts: bool,
    /// For a store that is to be registered: an entry that was appended after it was first heard of.
    pub(crate) proof_index: Option<LogIndex>,
    /// Storage was asked for entries from here on, to send them; nothing else is sent until it answers.
    pub(crate) awaits_log_from: Option<LogIndex>,
    /// The latest round of this term that the peer has answered.
    pub(crate) answered_round: u64,
    /// The latest round of this term that it was told of. If there are later ones, too many were unanswered then.
    pub(crate) told_round: u64,
    inflight: VecDeque<Inflight>,
    inflight_bytes: usize,
}

#[derive(Debug)]
struct Inflight {
    last_index: LogIndex,
    bytes: usize,
}

impl Progress {
    pub(crate) fn new(next_index: LogIndex) -> Self {
        Self {
            match_index: LogIndex::ZERO,
            next_index,
            state: ProgressState::Probe {
                awaiting_answer: false,
            },
            recently_active: true,
            active_before: false,
            incarnation: None,
            counts: true,
            proof_index: None,
            awaits_log_from: None,
            answered_round: 0,
            told_round: 0,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    /// The peer has answered from this store, whose word counts or does not. What another store of the same
    /// peer had is forgotten, and where the logs meet is searched anew from `next_index`.
    pub(crate) fn is_of(&mut self, incarnation: Incarnation, counts: bool, next_index: LogIndex) {
        if self.incarnation.is_some_and(|before| before != incarnation) {
            *self = Self::new(next_index);
        }
        self.incarnation = Some(incarnation);
        self.counts = counts;
    }

    pub(crate) fn become_probe(&mut self, awaiting_answer: bool) {
        self.next_index = self.match_index.next();
        self.enter(ProgressState::Probe { awaiting_answer });
    }

    pub(crate) fn become_replicate(&mut self) {
        self.next_index = self.match_index.next();
        self.enter(ProgressState::Replicate);
    }

    pub(crate) fn become_snapshot(&mut self, last_included_index: LogIndex) {
        self.enter(ProgressState::Snapshot { last_included_index });
    }

    fn enter(&mut self, state: ProgressState) {
        self.state = state;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// The peer is durable up to `index`.
    pub(crate) fn matched(&mut self, index: LogIndex) {
        self.match_index = self.match_index.max(index);
        self.next_index = self.next_index.max(self.match_index.next());
        while self
            .inflight
            .front()
            .is_some_and(|message| message.last_index <= self.match_index)
        {
            let answered = self.inflight.pop_front().expect("the front was just looked at");
            self.inflight_bytes -= answered.bytes;
        }
    }

    /// A message with entries up to `last_index` left.
    pub(crate) fn sent(&mut self, last_index: LogIndex, bytes: usize) {
        match &mut self.state {
            ProgressState::Probe { awaiting_answer } => *awaiting_answer = true,
            ProgressState::Replicate => {
                self.next_index = last_index.next();
                self.inflight.push_back(Inflight { last_index, bytes });
                self.inflight_bytes += bytes;
            }
            ProgressState::Snapshot { .. } => unreachable!("no entries are sent while a snapshot is"),
        }
    }

    /// Whether another message with entries may leave now.
    pub(crate) fn may_send(&self, max_messages: usize, max_bytes: usize) -> bool {
        match self.state {
            ProgressState::Probe { awaiting_answer } => !awaiting_answer,
            ProgressState::Replicate => {
                self.awaits_log_from.is_none()
                    && self.inflight.len() < max_messages
                    && self.inflight_bytes < max_bytes
            }
            ProgressState::Snapshot { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Progress, ProgressState};
    use crate::types::LogIndex;

    #[test]
    fn a_probe_waits_for_its_answer() {
        let mut progress = Progress::new(LogIndex(5));
        assert!(progress.may_send(10, 100));
        progress.sent(LogIndex(7), 10);
        assert!(!progress.may_send(10, 100));
        assert_eq!(progress.next_index, LogIndex(5));
    }

    #[test]
    fn the_window_is_bounded_in_messages_and_in_bytes_and_opens_with_each_answer() {
        let mut progress = Progress::new(LogIndex(1));
        progress.become_replicate();
        progress.sent(LogIndex(1), 60);
        assert!(progress.may_send(2, 100));
        progress.sent(LogIndex(2), 40);
        assert!(!progress.may_send(3, 100), "bytes");
        assert!(!progress.may_send(2, 1_000), "messages");
        progress.matched(LogIndex(1));
        assert!(progress.may_send(2, 41));
        assert!(!progress.may_send(2, 40), "the second is not answered");
        assert_eq!(progress.next_index, LogIndex(3));
    }

    #[test]
    fn going_back_to_probe_forgets_the_window_and_starts_behind_the_match() {
        let mut progress = Progress::new(LogIndex(1));
        progress.become_replicate();
        progress.sent(LogIndex(4), 60);
        progress.matched(LogIndex(2));
        progress.become_probe(false);
        assert_eq!(progress.next_index, LogIndex(3));
        assert_eq!(
            progress.state,
            ProgressState::Probe {
                awaiting_answer: false
            }
        );
        assert!(progress.may_send(1, 1));
    }
}

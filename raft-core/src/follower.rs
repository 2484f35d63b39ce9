//! What a follower does with its leader's messages: the log (Raft §5.3), snapshots (Raft §7), hand-over
//! (thesis §3.10).

use crate::event::Event;
use crate::message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, InstallSnapshot, InstallSnapshotResponse, Message,
    SnapshotOutcome, TimeoutNow, TimeoutNowResponse,
};
use crate::node::Node;
use crate::ready::{ReplyTo, SnapshotChunk};
use crate::standing::Refusal;
use crate::storage::Write;
use crate::types::{Entry, Leadership, LogIndex, NodeId, SnapshotMeta, Term, Ticks};

/// A snapshot that arrives in pieces.
#[derive(Debug)]
pub(crate) struct IncomingSnapshot {
    /// The term of the leader that sends it.
    term: Term,
    snapshot: SnapshotMeta,
    next_offset: u64,
    /// All pieces are there and the file is being verified; who waits for the verdict.
    verifying: Option<ReplyTo>,
    /// The file is what its checksum says.
    intact: bool,
}

impl Node {
    /// Recognises the leader of `term` and resets the election timer. `false` if the term is over, or if another leads
    /// or led in it: then this node stops.
    fn recognise_leader(&mut self, term: Term, leader_id: NodeId) -> bool {
        let current_term = self.hard_state.current_term;
        if term < current_term {
            return false;
        }
        if let Some(other) = self.known_leader_of(term).filter(|known| *known != leader_id) {
            self.refuse(Refusal::TwoLeaders {
                by: leader_id,
                term,
                other,
            });
            return false;
        }
        self.observe_term(term);
        self.become_follower(term, Some(leader_id));
        self.leader_silence = Ticks::ZERO;
        true
    }

    /// Who leads or led in `term`, as far as this node knows. There is only one (Raft §5.2: election safety), unless a
    /// vote was forgotten.
    fn known_leader_of(&self, term: Term) -> Option<NodeId> {
        let known = (term == self.hard_state.current_term).then_some(self.leader_id);
        known
            .flatten()
            .or_else(|| self.log.leader_of(term).map(|(leader_id, _)| leader_id))
    }

    /// Whether this node knows no other leadership of a term than the leader `by` tells of it; else it stops. Logs of
    /// which that is true are equal where they agree in index and term (Raft §5.3: log matching).
    fn recognise_leaderships(
        &mut self,
        by: NodeId,
        told: impl IntoIterator<Item = (Term, Leadership)>,
    ) -> bool {
        let is_other =
            |(term, leadership): &(Term, Leadership)| self.knows_other_leadership(*term, *leadership);
        let Some((term, _)) = told.into_iter().find(is_other) else {
            return true;
        };
        self.refuse(Refusal::LedTwice { by, term });
        false
    }

    fn knows_other_leadership(&self, term: Term, leadership: Leadership) -> bool {
        let heard_of = self.leadership.filter(|(of, _)| *of == term);
        let known = [heard_of.map(|(_, known)| known), self.log.leadership_of(term)];
        known.into_iter().flatten().any(|known| known != leadership)
    }

    /// Whether the snapshot of the leader `by` ends the history that is committed here, as far as it tells; else this
    /// node stops. Whoever agrees in the term of an entry, and in its leadership, agrees in all before it (Raft §5.3).
    fn recognise_history(&mut self, by: NodeId, snapshot: &SnapshotMeta) -> bool {
        let index = self.log.commit_index().min(snapshot.last_included_index);
        let terms = self.log.told_term_at(index).zip(snapshot.term_at(index));
        if terms.is_none_or(|(own, told)| own == told) {
            return true;
        }
        self.refuse(Refusal::OtherHistory { by, index });
        false
    }

    pub(crate) fn handle_append_entries(&mut self, reply_to: ReplyTo, request: AppendEntries) {
        let read_round = request.read_round;
        let outcome = if !request.is_well_formed() {
            AppendOutcome::Stale
        } else if self.recognise_leader(request.term, request.leader_id)
            && self.recognise_leaderships(request.leader_id, request.leaderships())
        {
            self.leadership = Some((request.term, request.leadership));
            self.append_entries(request)
        } else {
            AppendOutcome::Stale
        };
        self.update_standing();
        let answer = Message::AppendEntriesResponse(AppendEntriesResponse {
            term: self.hard_state.current_term,
            outcome,
            committed: self.log.commit_index(),
            read_round,
            sender: self.sender_to(reply_to.to),
        });
        // A term that is forgotten after an answer in it binds nobody (Raft figure 2): the leader would take the answer for a
        // promise not to vote (`lease.rs`).
        let is_durable = self.is_hard_state_durable()
            && match outcome {
                AppendOutcome::Matched { match_index } => match_index <= self.log.durable_index(),
                AppendOutcome::Conflict { .. } | AppendOutcome::Stale => true,
            };
        if is_durable {
            self.reply_now(reply_to, answer);
        } else {
            self.reply_after_persist(reply_to, answer);
        }
    }

    /// Merges the leader's entries (Raft §5.3). The outcome of a match tells how far the logs are equal;
    /// for a heartbeat, no further than what is durable, so that its answer waits for no entry.
    fn append_entries(&mut self, request: AppendEntries) -> AppendOutcome {
        let is_heartbeat = request.entries.is_empty();
        let Some(verified) =
            self.merge_entries(request.prev_log_index, request.prev_log_term, request.entries)
        else {
            return self.conflict_at(request.prev_log_index);
        };
        self.log.commit_to(request.leader_commit.min(verified));
        let match_index = if is_heartbeat {
            verified.min(self.log.durable_index())
        } else {
            verified
        };
        AppendOutcome::Matched { match_index }
    }

    /// Returns up to where this log is now known to equal the leader's, or `None` if it does not hold the
    /// entry before.
    fn merge_entries(
        &mut self,
        prev_log_index: LogIndex,
        prev_log_term: Term,
        mut entries: Vec<Entry>,
    ) -> Option<LogIndex> {
        let last_sent = entries.last().map_or(prev_log_index, |entry| entry.index);
        let committed = self.log.commit_index();
        if prev_log_index < committed {
            // What is committed here is equal in every leader's log (Raft §5.4), and may be compacted.
            entries.retain(|entry| entry.index > committed);
        } else if !self.log.matches(prev_log_index, prev_log_term) {
            return None;
        }
        if let Some(from) = self.log.merge(entries) {
            self.persists_vouch_only_before(from);
            self.outbox.events.push(Event::LogTruncated { from });
        }
        // No further, though what is committed here should be equal beyond it, too: a leader that was elected by an older
        // copy of a disk has to send what it has there, for it to be told (`committed_otherwise`).
        Some(last_sent)
    }

    /// The fast backup of Raft §5.3: enough for the leader to skip a whole term at a time.
    fn conflict_at(&self, rejected_index: LogIndex) -> AppendOutcome {
        let last_index = self.log.last_index();
        if rejected_index > last_index {
            return AppendOutcome::Conflict {
                rejected_index,
                conflict_term: None,
                conflict_index: last_index.next(),
            };
        }
        // What is committed here matches every leader's log, so it is no use to look further back.
        let first_of_term = self.log.first_index_of_term_at(rejected_index);
        AppendOutcome::Conflict {
            rejected_index,
            conflict_term: self.log.term_at(rejected_index),
            conflict_index: first_of_term.max(self.log.commit_index().next()),
        }
    }

    pub(crate) fn handle_install_snapshot(&mut self, reply_to: ReplyTo, request: InstallSnapshot) {
        let leader_id = request.leader_id;
        if !request.snapshot.is_well_formed()
            || !self.recognise_leader(request.term, leader_id)
            || !self.recognise_history(leader_id, &request.snapshot)
            || !self.recognise_leaderships(leader_id, request.snapshot.leaderships())
        {
            self.reply_snapshot(
                reply_to,
                request.snapshot.last_included_index,
                SnapshotOutcome::Stale,
            );
            return;
        }
        let index = request.snapshot.last_included_index;
        if index <= self.log.commit_index() {
            self.reply_installed(reply_to, index);
        } else if self.is_superseded(&request) {
            self.reply_snapshot(reply_to, index, SnapshotOutcome::Stale);
        } else {
            self.expect_snapshot(&request);
            self.take_chunk(reply_to, request);
        }
    }

    /// Whether this leader already sends a later snapshot: a message that was overtaken must not throw
    /// away what has arrived of it.
    fn is_superseded(&self, request: &InstallSnapshot) -> bool {
        self.incoming_snapshot.as_ref().is_some_and(|incoming| {
            incoming.term == request.term
                && incoming.snapshot.last_included_index > request.snapshot.last_included_index
        })
    }

    /// Goes on with the snapshot under way if it is this one, and else starts anew.
    fn expect_snapshot(&mut self, request: &InstallSnapshot) {
        if let Some(incoming) = &mut self.incoming_snapshot
            && incoming.snapshot == request.snapshot
        {
            incoming.term = request.term;
            return;
        }
        self.abandon_incoming_snapshot();
        self.incoming_snapshot = Some(IncomingSnapshot {
            term: request.term,
            snapshot: request.snapshot.clone(),
            next_offset: 0,
            verifying: None,
            intact: false,
        });
    }

    /// Forgets the snapshot under way. Whoever waits for its verdict is told to start again.
    fn abandon_incoming_snapshot(&mut self) {
        if let Some(incoming) = self.incoming_snapshot.take()
            && let Some(reply_to) = incoming.verifying
        {
            let outcome = SnapshotOutcome::Continue { next_offset: 0 };
            self.reply_snapshot(reply_to, incoming.snapshot.last_included_index, outcome);
        }
    }

    fn take_chunk(&mut self, reply_to: ReplyTo, request: InstallSnapshot) {
        let InstallSnapshot {
            snapshot,
            offset,
            data,
            done,
            ..
        } = request;
        let incoming = self
            .incoming_snapshot
            .as_mut()
            .expect("the caller has just set it");
        let index = snapshot.last_included_index;
        if incoming.verifying.is_some() || offset != incoming.next_offset {
            let next_offset = incoming.next_offset;
            self.reply_snapshot(reply_to, index, SnapshotOutcome::Continue { next_offset });
            return;
        }
        let next_offset = offset.saturating_add(data.len() as u64);
        if next_offset > snapshot.size_bytes {
            // Longer than it says: no such file can be intact, and it must not fill the disk.
            self.incoming_snapshot = None;
            self.reply_snapshot(reply_to, index, SnapshotOutcome::Damaged);
            return;
        }
        incoming.next_offset = next_offset;
        if done {
            incoming.verifying = Some(reply_to);
        }
        self.outbox.snapshot_chunks.push(SnapshotChunk {
            snapshot,
            offset,
            data,
            done,
        });
        if !done {
            // Behind the write, so that a sender is never faster than the disk.
            let answer = self.snapshot_response(reply_to, index, SnapshotOutcome::Continue { next_offset });
            self.reply_after_persist(reply_to, answer);
        }
    }

    /// All pieces of `snapshot` were staged; `intact` tells whether the file is what its checksum says.
    /// If so it becomes the beginning of the log (Raft §7). Not intact is also one of which a piece could not be
    /// staged, before the others have come: it has to be sent from its beginning again.
    pub fn snapshot_received(&mut self, snapshot: &SnapshotMeta, intact: bool) {
        let Some(incoming) = self
            .incoming_snapshot
            .as_mut()
            .filter(|incoming| incoming.snapshot == *snapshot)
        else {
            return;
        };
        if !intact {
            let verifying = incoming.verifying;
            self.incoming_snapshot = None;
            if let Some(reply_to) = verifying {
                self.reply_snapshot(reply_to, snapshot.last_included_index, SnapshotOutcome::Damaged);
            }
        } else if incoming.verifying.is_some() {
            incoming.intact = true;
            self.install_received_snapshot();
        }
    }

    /// Installs the snapshot that has arrived whole, but not while the state machine has yet to be restored
    /// from the one before: storage may throw that one's file away when this one takes its place.
    pub(crate) fn install_received_snapshot(&mut self) {
        if self.applied_index < self.log.snapshot().last_included_index {
            return;
        }
        let Some(incoming) = self.incoming_snapshot.take_if(|incoming| incoming.intact) else {
            return;
        };
        let index = incoming.snapshot.last_included_index;
        if index > self.log.commit_index() {
            self.install_snapshot(incoming.snapshot);
        }
        if let Some(reply_to) = incoming.verifying {
            self.reply_installed(reply_to, index);
        }
    }

    fn install_snapshot(&mut self, snapshot: SnapshotMeta) {
        let last_included_index = snapshot.last_included_index;
        self.flush_unwritten();
        let committed = self.log.commit_index();
        let keep_suffix = self.log.install(snapshot.clone());
        if !keep_suffix {
            self.persists_vouch_only_before(committed.next());
        }
        self.outbox.writes.push(Write::InstallSnapshot {
            snapshot,
            keep_suffix,
        });
        self.outbox
            .events
            .push(Event::SnapshotInstalled { last_included_index });
        self.update_standing();
    }

    fn reply_snapshot(&mut self, reply_to: ReplyTo, last_included_index: LogIndex, outcome: SnapshotOutcome) {
        let answer = self.snapshot_response(reply_to, last_included_index, outcome);
        self.reply_now(reply_to, answer);
    }

    fn reply_installed(&mut self, reply_to: ReplyTo, last_included_index: LogIndex) {
        let answer = self.snapshot_response(reply_to, last_included_index, SnapshotOutcome::Installed);
        self.reply_after_persist(reply_to, answer);
    }

    fn snapshot_response(
        &self,
        reply_to: ReplyTo,
        last_included_index: LogIndex,
        outcome: SnapshotOutcome,
    ) -> Message {
        let term = self.hard_state.current_term;
        let sender = self.sender_to(reply_to.to);
        Message::InstallSnapshotResponse(InstallSnapshotResponse {
            term,
            last_included_index,
            outcome,
            sender,
        })
    }

    /// The leader hands over: stand for election at once (thesis §3.10).
    pub(crate) fn handle_timeout_now(&mut self, reply_to: ReplyTo, request: TimeoutNow) {
        if self.recognise_leader(request.term, request.leader_id) && self.may_campaign() {
            self.start_election(true);
        }
        let term = self.hard_state.current_term;
        self.reply_after_persist(reply_to, Message::TimeoutNowResponse(TimeoutNowResponse { term }));
    }
}

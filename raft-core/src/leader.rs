//! What only a leader does: replicate, commit, confirm reads, hand over (Raft §5.3, §5.4.2, §8; thesis
//! §3.10, §6.2, §6.4).

use std::collections::BTreeMap;

use crate::event::{Event, StepDownReason};
use crate::lease::Lease;
use crate::message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, InstallSnapshotResponse, Message, SnapshotOutcome,
    TimeoutNow,
};
use crate::node::{Node, ProposeError, RoleState};
use crate::progress::{Progress, ProgressState};
use crate::read_index::ReadQueue;
use crate::ready::SnapshotToSend;
use crate::standing::Refusal;
use crate::storage::LogRead;
use crate::types::{Entry, Leadership, LogIndex, NodeId, Payload, Term, Ticks};

/// How many rounds may be on their way to a peer: begun, and not answered by it, the one that it is told of among them. More
/// would tell it nothing that the latest does not. Heartbeats are not held back.
const MAX_UNANSWERED_ROUNDS: u64 = 16;

/// The volatile state of a leader (Raft figure 2), made anew by each election.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) peers: BTreeMap<NodeId, Progress>,
    pub(crate) reads: ReadQueue,
    pub(crate) lease: Lease,
    pub(crate) uncommitted_bytes: usize,
    transfer: Option<Transfer>,
}

/// A hand-over of leadership under way (thesis §3.10).
#[derive(Debug)]
struct Transfer {
    target: NodeId,
    timeout_now_sent: bool,
}

impl Leader {
    /// Whether leadership is being handed over.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.transfer.is_some()
    }
}

impl Node {
    /// Takes up leadership: appends a no-op, without which entries of earlier terms cannot be known to be
    /// committed (Raft §5.4.2, §8).
    pub(crate) fn become_leader(&mut self) {
        let term = self.hard_state.current_term;
        let next_index = self.log.last_index().next();
        let peers = self
            .peers()
            .into_iter()
            .map(|peer| (peer, Progress::new(next_index)))
            .collect();
        self.state = RoleState::Leader(Leader {
            peers,
            reads: ReadQueue::default(),
            lease: Lease::default(),
            uncommitted_bytes: self.log.bytes_after(self.log.commit_index()),
            transfer: None,
        });
        self.leader_id = Some(self.id());
        self.leadership = Some((term, self.draw_leadership()));
        self.leader_silence = Ticks(u64::MAX);
        self.reset_election_timer();
        self.outbox.events.push(Event::BecameLeader { term });
        self.append_noop();
        self.append_configuration();
    }

    /// The leader's state, if this node is a leader that takes proposals.
    pub(crate) fn accepting_leader(&mut self) -> Result<&mut Leader, ProposeError> {
        let leader_id = self.leader_id;
        match &mut self.state {
            RoleState::Leader(leader) if leader.transfer.is_some() => Err(ProposeError::LeadershipTransfer),
            RoleState::Leader(leader) => Ok(leader),
            _ => Err(ProposeError::NotLeader { leader_id }),
        }
    }

    /// Appends to the leader's own log; replication starts with the next [`Node::ready`].
    pub(crate) fn append_as_leader(&mut self, payload: Payload) -> LogIndex {
        let entry = Entry {
            term: self.hard_state.current_term,
            index: self.log.last_index().next(),
            payload,
        };
        let RoleState::Leader(leader) = &mut self.state else {
            unreachable!("only a leader appends of its own accord (Raft §5.3: leader append-only)")
        };
        leader.uncommitted_bytes += entry.size_bytes();
        let index = entry.index;
        self.log.append(entry);
        index
    }

    /// Appends an entry that carries nothing but whose it is.
    pub(crate) fn append_noop(&mut self) -> LogIndex {
        self.append_as_leader(Payload::Noop {
            leader_id: self.id(),
            leadership: self.own_leadership(),
        })
    }

    fn own_leadership(&self) -> Leadership {
        let (_, leadership) = self.leadership.expect("whoever leads has drawn a number for it");
        leadership
    }

    pub(crate) fn leader(&self) -> Option<&Leader> {
        match &self.state {
            RoleState::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    /// For status pages and tests: how far each peer is known to be (`match_index`) and how the leader
    /// sends to it. Empty unless this node leads.
    #[must_use]
    pub fn peer_progress(&self) -> Vec<(NodeId, LogIndex, ProgressState)> {
        let peers = self.leader().into_iter().flat_map(|leader| &leader.peers);
        peers
            .map(|(peer, progress)| (*peer, progress.match_index, progress.state))
            .collect()
    }

    fn leader_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.state {
            RoleState::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    /// Whether the leader has messages to make up for the next [`Node::ready`].
    pub(crate) fn leader_has_work(&self) -> bool {
        self.leader().is_some_and(|leader| {
            (leader.reads.wants_round() && self.has_committed_in_own_term())
                || leader.peers.values().any(|progress| self.wants_entries(progress))
                || self.transfer_target_caught_up().is_some()
        })
    }

    fn wants_entries(&self, progress: &Progress) -> bool {
        let has_news = progress.next_index <= self.log.last_index()
            || matches!(
                progress.state,
                ProgressState::Probe {
                    awaiting_answer: false
                }
            );
        has_news && progress.may_send(self.config.max_inflight_messages, self.config.max_inflight_bytes)
    }

    /// Makes up this batch's messages: everything that was proposed since the last one goes out together.
    pub(crate) fn leader_prepare_messages(&mut self) {
        if self.leader().is_none() {
            return;
        }
        if self.has_committed_in_own_term() {
            self.start_read_round();
        }
        for peer in self.leader_peers() {
            while self
                .peer(peer)
                .is_some_and(|progress| self.wants_entries(progress))
            {
                self.send_entries(peer);
            }
        }
        self.send_timeout_now_if_caught_up();
    }

    fn leader_peers(&self) -> Vec<NodeId> {
        self.leader()
            .map(|leader| leader.peers.keys().copied().collect())
            .unwrap_or_default()
    }

    pub(crate) fn peer(&self, peer: NodeId) -> Option<&Progress> {
        self.leader().and_then(|leader| leader.peers.get(&peer))
    }

    pub(crate) fn peer_mut(&mut self, peer: NodeId) -> Option<&mut Progress> {
        self.leader_mut().and_then(|leader| leader.peers.get_mut(&peer))
    }

    /// Sends the next entries to `peer`, or starts to send it a snapshot if they are gone.
    fn send_entries(&mut self, peer: NodeId) {
        let Some(next_index) = self.peer(peer).map(|progress| progress.next_index) else {
            return;
        };
        let prev_log_index = next_index.previous();
        let Some(prev_log_term) = self
            .log
            .term_at(prev_log_index)
            .filter(|_| next_index >= self.log.first_index())
        else {
            self.send_snapshot(peer);
            return;
        };
        let entries = match self.log.let_go_from(next_index) {
            None => self.log.entries_from(next_index, self.config.max_append_bytes),
            Some(to) if self.is_replicating(peer) => return self.read_log(peer, next_index, to),
            // Where the logs meet is found out without entries as well.
            Some(_) => Vec::new(),
        };
        self.send_next(peer, prev_log_index, prev_log_term, entries);
    }

    fn send_next(
        &mut self,
        peer: NodeId,
        prev_log_index: LogIndex,
        prev_log_term: Term,
        entries: Vec<Entry>,
    ) {
        let last_index = entries.last().map_or(prev_log_index, |entry| entry.index);
        let bytes = entries.iter().map(Entry::size_bytes).sum();
        if let Some(progress) = self.peer_mut(peer) {
            progress.sent(last_index, bytes);
        }
        self.send_append(peer, prev_log_index, prev_log_term, entries);
    }

    fn is_replicating(&self, peer: NodeId) -> bool {
        self.peer(peer)
            .is_some_and(|progress| progress.state == ProgressState::Replicate)
    }

    /// What `peer` needs next is on stable storage alone.
    fn read_log(&mut self, peer: NodeId, from: LogIndex, to: LogIndex) {
        if let Some(progress) = self.peer_mut(peer) {
            progress.awaits_log_from = Some(from);
        }
        self.outbox.log_reads.push(LogRead {
            peer,
            from,
            to,
            max_bytes: self.config.max_append_bytes,
        });
    }

    /// Storage has read what [`Ready::log_reads`](crate::Ready::log_reads) asked for. Ignored if it is of no use any
    /// more; the peer gets what it needs by then.
    ///
    /// # Panics
    ///
    /// When these are not the entries of this log: storage has lost or mixed up what it acknowledged.
    pub fn log_was_read(&mut self, read: &LogRead, entries: Vec<Entry>) {
        let waits = |progress: &&mut Progress| progress.awaits_log_from == Some(read.from);
        let Some(progress) = self.peer_mut(read.peer).filter(waits) else {
            return;
        };
        progress.awaits_log_from = None;
        let needs_them = progress.state == ProgressState::Replicate && progress.next_index == read.from;
        if !needs_them || read.from < self.log.first_index() {
            return;
        }
        assert!(!entries.is_empty(), "storage has lost entry {}", read.from);
        for (index, entry) in (read.from.get()..).map(LogIndex).zip(&entries) {
            assert!(
                entry.index == index && index <= read.to && self.log.matches(index, entry.term),
                "storage holds entry {} of term {} in the place of entry {index}",
                entry.index,
                entry.term
            );
        }
        let prev_log_index = read.from.previous();
        if let Some(prev_log_term) = self.log.term_at(prev_log_index) {
            self.send_next(read.peer, prev_log_index, prev_log_term, entries);
        }
    }

    fn send_append(
        &mut self,
        peer: NodeId,
        prev_log_index: LogIndex,
        prev_log_term: Term,
        entries: Vec<Entry>,
    ) {
        let read_round = self.latest_round();
        if let Some(progress) = self.peer_mut(peer) {
            progress.told_round = read_round;
        }
        let request = AppendEntries {
            term: self.hard_state.current_term,
            leader_id: self.id(),
            leadership: self.own_leadership(),
            prev_log_index,
            prev_log_term,
            prev_log_leadership: self.log.leadership_of(prev_log_term),
            entries,
            leader_commit: self.log.commit_index(),
            read_round,
            acknowledged: self.acknowledged_by(peer),
            sender: self.sender_to(peer),
        };
        self.send(peer, Message::AppendEntries(request));
    }

    /// How far the registered store of `peer` has acknowledged the log to this leader.
    fn acknowledged_by(&self, peer: NodeId) -> LogIndex {
        let registered = self.log.configuration().incarnation_of(peer);
        self.peer(peer)
            .filter(|progress| progress.incarnation == registered)
            .map_or(LogIndex::ZERO, |progress| progress.match_index)
    }

    /// Whether the word of `peer` counts, as of its last answer and the registry in force.
    pub(crate) fn peer_counts(&self, peer: NodeId) -> bool {
        let registered = self.log.configuration().incarnation_of(peer);
        self.peer(peer).is_some_and(|progress| {
            progress.counts && progress.incarnation.is_none_or(|store| registered == Some(store))
        })
    }

    fn send_snapshot(&mut self, to: NodeId) {
        let snapshot = self.log.snapshot().clone();
        let last_included_index = snapshot.last_included_index;
        if let Some(progress) = self.peer_mut(to) {
            progress.become_snapshot(last_included_index);
        }
        let term = self.hard_state.current_term;
        self.outbox.events.push(Event::SnapshotNeeded {
            peer: to,
            last_included_index,
        });
        self.outbox
            .snapshots_to_send
            .push(SnapshotToSend { to, term, snapshot });
    }

    /// A heartbeat interval passed. With leases, every heartbeat is a round that can renew them.
    pub(crate) fn beat(&mut self) {
        if self.config.lease_reads
            && let Some(leader) = self.leader_mut()
        {
            leader.reads.begin_round();
            self.note_round();
        }
        self.broadcast_heartbeat();
    }

    /// The leader's latest round begins now.
    fn note_round(&mut self) {
        let (now, length) = (self.clock, self.config.lease_length());
        if let Some(leader) = self.leader_mut() {
            leader.lease.round_began(leader.reads.round(), now, length);
        }
    }

    /// The latest round that was begun in this term; 0 of none.
    fn latest_round(&self) -> u64 {
        self.leader().map_or(0, |leader| leader.reads.round())
    }

    /// Tells every peer that this node leads (Raft §5.2).
    pub(crate) fn broadcast_heartbeat(&mut self) {
        for peer in self.leader_peers() {
            self.send_heartbeat(peer);
        }
    }

    /// An empty `AppendEntries` behind everything that was sent. So it also finds out whether messages got
    /// lost: if they did, it meets a conflict and the peer is probed.
    fn send_heartbeat(&mut self, peer: NodeId) {
        let Some(progress) = self.peer(peer) else { return };
        let behind_sent = match progress.state {
            ProgressState::Snapshot { .. } => progress.match_index,
            ProgressState::Probe { .. } | ProgressState::Replicate => progress.next_index.previous(),
        };
        let known = self.log.term_at(behind_sent).map(|term| (behind_sent, term));
        let (prev_log_index, prev_log_term) = match progress.state {
            // What was sent is compacted. The oldest place that is known still tells whether it arrived.
            ProgressState::Replicate => known.unwrap_or(self.log.first_known()),
            // Index 0 is before every log, so it matches everywhere: a plain sign of life, whose answer
            // tells how far the peer is.
            ProgressState::Probe { .. } | ProgressState::Snapshot { .. } => known.unwrap_or_default(),
        };
        self.send_append(peer, prev_log_index, prev_log_term, Vec::new());
    }

    /// `peer` cannot be reached: what is on the way to it may be lost.
    pub fn peer_unreachable(&mut self, peer: NodeId) {
        if let Some(progress) = self.peer_mut(peer)
            && progress.state == ProgressState::Replicate
        {
            progress.become_probe(true);
        }
    }

    /// The transfer of a snapshot to `peer` ended without success. It is tried again when the peer gives a
    /// sign of life.
    pub fn snapshot_failed(&mut self, peer: NodeId) {
        if let Some(progress) = self.peer_mut(peer)
            && matches!(progress.state, ProgressState::Snapshot { .. })
        {
            progress.become_probe(true);
        }
    }

    /// Heeds an answer of this term: no other is admitted.
    pub(crate) fn handle_append_response(&mut self, from: NodeId, response: AppendEntriesResponse) {
        let Some(progress) = self.peer_mut(from) else {
            return;
        };
        progress.recently_active = true;
        match response.outcome {
            AppendOutcome::Matched { match_index } => {
                self.peer_matched(from, match_index, response.committed.max(match_index));
            }
            AppendOutcome::Conflict {
                rejected_index,
                conflict_term,
                conflict_index,
            } => {
                self.peer_conflicted(from, rejected_index, conflict_term, conflict_index);
            }
            // The request was of another leadership, or unreadable. Its round was not this leader's: rounds
            // begin anew with each term.
            AppendOutcome::Stale => return,
        }
        self.round_was_answered(from, response.read_round);
    }

    fn peer_matched(&mut self, from: NodeId, match_index: LogIndex, committed: LogIndex) {
        let last_log_index = self.log.last_index();
        if committed > last_log_index {
            return self.refuse(Refusal::LacksCommitted {
                by: from,
                committed,
                last_log_index,
            });
        }
        let first_index = self.log.first_index();
        let Some(progress) = self.peer_mut(from) else {
            return;
        };
        let advanced = match_index > progress.match_index;
        progress.matched(match_index);
        match progress.state {
            ProgressState::Probe { .. } => progress.become_replicate(),
            // The log still holds what the peer needs next, so the rest of the snapshot need not arrive.
            ProgressState::Snapshot { .. } if advanced && progress.next_index >= first_index => {
                progress.become_replicate();
            }
            ProgressState::Snapshot { .. } | ProgressState::Replicate => {}
        }
        if advanced {
            self.advance_commit_index();
        }
    }

    /// Backs `next_index` up (Raft §5.3): to the leader's last entry of the conflicting term if it has one,
    /// else to the first entry of that term on the follower.
    fn peer_conflicted(
        &mut self,
        from: NodeId,
        rejected_index: LogIndex,
        conflict_term: Option<Term>,
        conflict_index: LogIndex,
    ) {
        let next_index = match conflict_term {
            Some(term) => {
                let last_of_term = self
                    .log
                    .last_index_of_term_at_most(term, rejected_index.previous());
                if self.log.term_at(last_of_term) == Some(term) {
                    last_of_term.next()
                } else {
                    conflict_index
                }
            }
            None => conflict_index,
        };
        let Some(progress) = self.peer_mut(from) else {
            return;
        };
        let is_stale = rejected_index <= progress.match_index;
        match progress.state {
            _ if is_stale => {}
            ProgressState::Replicate => progress.become_probe(false),
            ProgressState::Probe { .. } if rejected_index == progress.next_index.previous() => {
                progress.become_probe(false);
                progress.next_index = next_index.min(rejected_index).max(progress.match_index.next());
            }
            ProgressState::Probe { .. } | ProgressState::Snapshot { .. } => {}
        }
    }

    /// Heeds an answer of this term: no other is admitted.
    pub(crate) fn handle_snapshot_response(&mut self, from: NodeId, response: InstallSnapshotResponse) {
        let Some(progress) = self.peer_mut(from) else {
            return;
        };
        progress.recently_active = true;
        if response.outcome == SnapshotOutcome::Installed {
            progress.matched(response.last_included_index);
            if matches!(progress.state, ProgressState::Snapshot { .. }) {
                progress.become_probe(false);
            }
            self.advance_commit_index();
        }
    }

    /// Commits what a quorum holds durably, if it is of this term (Raft §5.4.2): entries of earlier terms
    /// become committed with it, never by counting.
    pub(crate) fn advance_commit_index(&mut self) {
        let id = self.id();
        let own = self.log.durable_index();
        let Some(leader) = self.leader() else { return };
        let reached = |member| match leader.peers.get(&member) {
            Some(progress) if self.peer_counts(member) => progress.match_index,
            Some(_) => LogIndex::ZERO,
            None if member == id => own,
            None => LogIndex::ZERO,
        };
        let index = self.log.configuration().quorum_index(reached);
        if index > self.log.commit_index() && self.log.term_at(index) == Some(self.hard_state.current_term) {
            self.log.commit_to(index);
            let uncommitted_bytes = self.log.bytes_after(index);
            if let Some(leader) = self.leader_mut() {
                leader.uncommitted_bytes = uncommitted_bytes;
            }
        }
    }

    /// Until the no-op is committed, a new leader does not know what is (Raft §8).
    pub(crate) fn has_committed_in_own_term(&self) -> bool {
        self.log.term_at(self.log.commit_index()) == Some(self.hard_state.current_term)
    }

    /// One round of heartbeats for every read that waits (thesis §6.4).
    fn start_read_round(&mut self) {
        let commit_index = self.log.commit_index();
        let started = self
            .leader_mut()
            .is_some_and(|leader| leader.reads.start_round(commit_index));
        if started {
            self.note_round();
            for peer in self.leader_peers() {
                self.send_round(peer);
            }
            self.confirm_reads();
        }
    }

    /// Tells `peer` of the latest round, unless it owes the answers to many. A majority can do without `peer`, and make rounds
    /// faster than `peer` answers, or than a call to it is given up; each message takes memory until then.
    fn send_round(&mut self, peer: NodeId) {
        let round = self.latest_round();
        let Some(progress) = self.peer(peer) else { return };
        if round.saturating_sub(progress.answered_round) <= MAX_UNANSWERED_ROUNDS {
            self.send_heartbeat(peer);
        }
    }

    fn round_was_answered(&mut self, from: NodeId, round: u64) {
        let latest = self.latest_round();
        let Some(progress) = self.peer_mut(from) else {
            return;
        };
        progress.answered_round = progress.answered_round.max(round);
        // It has answered the last it was told of, so nothing on its way would tell it of the latest. If a message or an answer
        // was lost, the next heartbeat tells it.
        if progress.told_round < latest && progress.answered_round >= progress.told_round {
            self.send_heartbeat(from);
        }
        self.acknowledge_read_round(from, round);
    }

    fn acknowledge_read_round(&mut self, from: NodeId, round: u64) {
        if !self.peer_counts(from) {
            return;
        }
        if let Some(leader) = self.leader_mut() {
            leader.lease.acknowledged(from, round);
        }
        if self
            .leader_mut()
            .is_some_and(|leader| leader.reads.acknowledge(from, round))
        {
            self.confirm_reads();
        }
    }

    fn confirm_reads(&mut self) {
        let id = self.id();
        let Some(leader) = self.leader() else { return };
        let confirmed = self
            .log
            .configuration()
            .has_quorum(|member| member == id || leader.reads.is_acknowledged_by(member));
        if confirmed && let Some(leader) = self.leader_mut() {
            let reads = leader.reads.confirm();
            self.outbox.reads.extend(reads);
        }
    }

    /// An election timeout passed in office: does a majority still answer (thesis §6.2), does this node's
    /// own disk?
    pub(crate) fn leader_election_timeout(&mut self) {
        self.abort_transfer();
        if !self.config.check_quorum {
            return;
        }
        let id = self.id();
        let storage_stalled = self.is_storage_stalled();
        let Some(leader) = self.leader() else { return };
        let active = |member| {
            member == id
                || (self.peer_counts(member)
                    && leader.peers.get(&member).is_some_and(|peer| peer.recently_active))
        };
        let has_quorum = self.log.configuration().has_quorum(active);
        let alone = leader.peers.is_empty();
        if !has_quorum {
            self.step_down(StepDownReason::LostQuorum);
        } else if storage_stalled && !alone {
            self.step_down(StepDownReason::StorageStalled);
        } else if let Some(leader) = self.leader_mut() {
            for peer in leader.peers.values_mut() {
                peer.active_before = std::mem::take(&mut peer.recently_active);
            }
        }
    }

    fn step_down(&mut self, reason: StepDownReason) {
        self.note_step_down(reason);
        self.become_follower(self.hard_state.current_term, None);
    }

    /// Hands leadership to the peer whose log is furthest (thesis §3.10), for an orderly shutdown. No
    /// proposals are taken meanwhile; given up after an election timeout. Returns the peer, or `None` if
    /// this node is not the leader or nobody could take over. A hand-over that is under way goes on: returned is who
    /// takes over.
    pub fn transfer_leadership(&mut self) -> Option<NodeId> {
        self.transfer_leadership_if(|_| true)
    }

    /// The same, to `target` and nobody else: `None`, too, while another one takes over.
    pub fn transfer_leadership_to(&mut self, target: NodeId) -> Option<NodeId> {
        self.transfer_leadership_if(|peer| peer == target)
    }

    fn transfer_leadership_if(&mut self, may_take_over: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let configuration = self.log.configuration().clone();
        let leader = self.leader_mut()?;
        if let Some(transfer) = &leader.transfer {
            return Some(transfer.target).filter(|target| may_take_over(*target));
        }
        let target = leader
            .peers
            .iter()
            .filter(|(peer, _)| configuration.is_voter(**peer) && may_take_over(**peer))
            // Right behind a check nobody has answered yet, and all may be well.
            .filter(|(_, progress)| progress.counts && (progress.recently_active || progress.active_before))
            .max_by_key(|(_, progress)| (progress.recently_active, progress.match_index))
            .map(|(peer, _)| *peer)?;
        leader.transfer = Some(Transfer {
            target,
            timeout_now_sent: false,
        });
        self.election_elapsed = Ticks::ZERO;
        self.outbox.events.push(Event::TransferStarted { target });
        Some(target)
    }

    /// Who is to take over and has everything that this leader has, but was not told yet.
    fn transfer_target_caught_up(&self) -> Option<NodeId> {
        let leader = self.leader()?;
        let transfer = leader.transfer.as_ref()?;
        let progress = leader.peers.get(&transfer.target)?;
        let is_due = !transfer.timeout_now_sent && progress.match_index == self.log.last_index();
        is_due.then_some(transfer.target)
    }

    fn send_timeout_now_if_caught_up(&mut self) {
        let Some(target) = self.transfer_target_caught_up() else {
            return;
        };
        if let Some(leader) = self.leader_mut() {
            leader.lease.give_up();
            if let Some(transfer) = leader.transfer.as_mut() {
                transfer.timeout_now_sent = true;
            }
        }
        let (term, leader_id) = (self.hard_state.current_term, self.id());
        self.send(target, Message::TimeoutNow(TimeoutNow { term, leader_id }));
    }

    fn abort_transfer(&mut self) {
        if let Some(transfer) = self.leader_mut().and_then(|leader| leader.transfer.take()) {
            self.outbox.events.push(Event::TransferAborted {
                target: transfer.target,
            });
        }
    }
}

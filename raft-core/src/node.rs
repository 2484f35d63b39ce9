//! The node: what goes in, what comes out, and the state that all roles share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use thiserror::Error;

use crate::config::{Config, ConfigError};
use crate::configuration::Configuration;
use crate::event::{Event, StepDownReason};
use crate::follower::IncomingSnapshot;
use crate::leader::Leader;
use crate::log::Log;
use crate::message::{Envelope, Message};
use crate::ready::{Outbox, Ready, ReplyTo, SoftState};
use crate::standing::Sender;
use crate::storage::{Restored, Write};
use crate::types::{
    CallId, Entry, HardState, Leadership, LogIndex, NodeId, Payload, ReadId, ReadyNumber, Role, SnapshotMeta,
    Term, Ticks,
};

/// Makes another stream of random numbers from a seed: that of [`Leadership`]s.
const LEADERSHIPS: u64 = 0x6c65_6164_6572_7368;

/// One server of the cluster, as a state machine: inputs go in by its methods, outputs come out of
/// [`Node::ready`]. The same inputs in the same order always give the same outputs.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: Config,
    pub(crate) hard_state: HardState,
    pub(crate) log: Log,
    pub(crate) state: RoleState,
    pub(crate) leader_id: Option<NodeId>,
    /// The last leadership that this node heard of or took up, and its term.
    pub(crate) leadership: Option<(Term, Leadership)>,
    /// Ticks since the election timer was last reset.
    pub(crate) election_elapsed: Ticks,
    /// Ticks since a leader was heard from, whoever it was and whatever term came to be known since.
    pub(crate) leader_silence: Ticks,
    /// What the clock of leases read last.
    pub(crate) clock: Ticks,
    pub(crate) incoming_snapshot: Option<IncomingSnapshot>,
    pub(crate) outbox: Outbox,
    /// The hard state that is on stable storage.
    pub(crate) durable_hard_state: HardState,
    election_timeout: Ticks,
    generator: Pcg64Mcg,
    /// Names leaderships.
    leaderships: Pcg64Mcg,
    /// The hard state that was last yielded as a write.
    written_hard_state: HardState,
    last_soft_state: Option<SoftState>,
    ready_number: ReadyNumber,
    persisting: VecDeque<PersistInFlight>,
    /// When storage last finished something, by the clock of the ticks.
    storage_progressed_at: Ticks,
    /// Ticks since the node was built.
    now: Ticks,
    pub(crate) applied_index: LogIndex,
    /// What the others have last said of the stores that they run on.
    pub(crate) heard: BTreeMap<NodeId, Sender>,
    /// How many more pre-votes that were won a candidate lets pass to found the cluster with all nodes.
    pub(crate) founding_patience: u32,
    pub(crate) founding_deferred: bool,
    /// This node must not take part: it does nothing more.
    pub(crate) is_refused: bool,
    unapplied: VecDeque<(LogIndex, usize)>,
    unapplied_bytes: usize,
}

/// What only one role has.
#[derive(Debug)]
pub(crate) enum RoleState {
    Follower,
    PreCandidate { granted: BTreeSet<NodeId> },
    Candidate { granted: BTreeSet<NodeId> },
    Leader(Leader),
}

/// A batch that was yielded and is not yet reported durable.
#[derive(Debug)]
struct PersistInFlight {
    number: ReadyNumber,
    since: Ticks,
    hard_state: HardState,
    /// The log is durable up to here when the batch is. Falls when the log is cut meanwhile.
    last_index: LogIndex,
    installed: Option<SnapshotMeta>,
}

/// Why a proposal or a read was not taken. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Only the leader takes them.
    #[error("this node is not the leader")]
    NotLeader {
        /// The leader, if this node knows it.
        leader_id: Option<NodeId>,
    },
    /// The bound on uncommitted bytes is reached; commits make room.
    #[error("too many uncommitted bytes")]
    TooManyUncommittedBytes,
    /// Leadership is being handed over.
    #[error("leadership is being handed over")]
    LeadershipTransfer,
}

/// A look inside, for status pages and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Role, term and leader.
    pub soft_state: SoftState,
    /// The highest entry known to be committed.
    pub commit_index: LogIndex,
    /// The last entry of the log.
    pub last_log_index: LogIndex,
    /// The log is on stable storage up to here.
    pub durable_index: LogIndex,
    /// The state machine was reported to be here.
    pub applied_index: LogIndex,
    /// The last entry that the latest snapshot includes.
    pub snapshot_index: LogIndex,
    /// The first entry that is still in the log.
    pub first_log_index: LogIndex,
    /// The members of the cluster.
    pub configuration: Configuration,
}

impl Node {
    /// A node that goes on from what its storage holds. It starts as a follower (Raft §5.2); the state
    /// machine must already be at the snapshot's last included index.
    ///
    /// # Errors
    ///
    /// When the settings make no sense, or the storage holds no members or a broken log.
    pub fn new(config: Config, restored: Restored) -> Result<Self, ConfigError> {
        config.validate()?;
        let hard_state = restored.hard_state;
        let log = Log::restore(
            restored,
            config.max_unpacked_log_bytes,
            config.max_packed_log_bytes,
        )?;
        // Who has never seen a term has heard from no leader.
        let may_have_heard = config.silent_start && hard_state.current_term > Term::ZERO;
        let mut node = Self {
            leader_silence: Ticks(if may_have_heard { 0 } else { u64::MAX }),
            clock: Ticks::ZERO,
            generator: Pcg64Mcg::seed_from_u64(config.seed),
            leaderships: Pcg64Mcg::seed_from_u64(config.seed ^ LEADERSHIPS),
            applied_index: log.handed_out(),
            config,
            hard_state,
            log,
            state: RoleState::Follower,
            leader_id: None,
            leadership: None,
            election_elapsed: Ticks::ZERO,
            incoming_snapshot: None,
            outbox: Outbox::default(),
            durable_hard_state: hard_state,
            election_timeout: Ticks::ZERO,
            written_hard_state: hard_state,
            last_soft_state: None,
            ready_number: ReadyNumber::ZERO,
            persisting: VecDeque::new(),
            storage_progressed_at: Ticks::ZERO,
            now: Ticks::ZERO,
            heard: BTreeMap::new(),
            founding_patience: 0,
            founding_deferred: false,
            is_refused: false,
            unapplied: VecDeque::new(),
            unapplied_bytes: 0,
        };
        node.reset_election_timer();
        Ok(node)
    }

    /// This server.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// The current role.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.state {
            RoleState::Follower => Role::Follower,
            RoleState::PreCandidate { .. } => Role::PreCandidate,
            RoleState::Candidate { .. } => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// Role, term and leader as of now.
    #[must_use]
    pub fn soft_state(&self) -> SoftState {
        SoftState {
            role: self.role(),
            term: self.hard_state.current_term,
            leader_id: self.leader_id,
        }
    }

    /// A look inside.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            soft_state: self.soft_state(),
            commit_index: self.log.commit_index(),
            last_log_index: self.log.last_index(),
            durable_index: self.log.durable_index(),
            applied_index: self.applied_index,
            snapshot_index: self.log.snapshot().last_included_index,
            first_log_index: self.log.first_index(),
            configuration: self.log.configuration().clone(),
        }
    }

    /// The highest entry known to be committed.
    #[must_use]
    pub fn commit_index(&self) -> LogIndex {
        self.log.commit_index()
    }

    /// The latest snapshot: where the log starts.
    #[must_use]
    pub fn snapshot(&self) -> &SnapshotMeta {
        self.log.snapshot()
    }

    /// The members of the cluster as of `index`, for a snapshot that is cut there. `None` if `index` lies
    /// before the latest snapshot.
    #[must_use]
    pub fn configuration_at(&self, index: LogIndex) -> Option<&Configuration> {
        self.log.configuration_at(index)
    }

    /// The term of the entry at `index`, if the log still holds it.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term_at(index)
    }

    /// One tick of the election clock passed (Raft §5.2). Everyone calls this at the same rate.
    pub fn tick_election(&mut self) {
        if self.is_refused {
            return;
        }
        self.now = self.now.next();
        self.election_elapsed = self.election_elapsed.next();
        self.leader_silence = Ticks(self.leader_silence.get().saturating_add(1));
        if matches!(self.state, RoleState::Leader(_)) {
            if self.election_elapsed >= self.config.election_timeout_min {
                self.election_elapsed = Ticks::ZERO;
                self.leader_election_timeout();
            }
        } else if self.election_elapsed >= self.election_timeout && self.may_campaign() {
            self.election_timed_out();
        }
    }

    /// One heartbeat interval passed (Raft §5.2). Only a leader does something.
    pub fn tick_heartbeat(&mut self) {
        if matches!(self.state, RoleState::Leader(_)) {
            self.beat();
        }
    }

    /// A message of another server arrived. A request is answered by exactly one response, which carries
    /// the envelope's `call`.
    ///
    /// # Panics
    ///
    /// When the envelope is for another node: the transport mixed up its connections.
    pub fn step(&mut self, envelope: Envelope) {
        assert_eq!(
            envelope.to,
            self.id(),
            "a message for another node was delivered here"
        );
        let Envelope {
            from, call, message, ..
        } = envelope;
        if !self.admits(from, &message) {
            return;
        }
        let reply_to = ReplyTo { to: from, call };
        match message {
            Message::PreVote(request) => self.handle_pre_vote(reply_to, request),
            Message::RequestVote(request) => self.handle_request_vote(reply_to, request),
            Message::AppendEntries(request) => self.handle_append_entries(reply_to, request),
            Message::InstallSnapshot(request) => self.handle_install_snapshot(reply_to, request),
            Message::TimeoutNow(request) => self.handle_timeout_now(reply_to, request),
            Message::PreVoteResponse(response) => self.handle_pre_vote_response(from, response),
            Message::RequestVoteResponse(response) => self.handle_vote_response(from, response),
            Message::AppendEntriesResponse(response) => self.handle_append_response(from, response),
            Message::InstallSnapshotResponse(response) => self.handle_snapshot_response(from, response),
            Message::TimeoutNowResponse(response) => {
                self.observe_term(response.term);
            }
        }
    }

    /// Appends a command to the log, if this node is the leader (Raft §5.3). Returns the entry's place: it
    /// is committed if an entry of that term is handed out at that index, and lost if one of another term
    /// is.
    ///
    /// # Errors
    ///
    /// When this node takes no proposals now. Nothing was appended.
    pub fn propose(&mut self, command: Bytes) -> Result<(Term, LogIndex), ProposeError> {
        let size = Entry::OVERHEAD_BYTES + command.len();
        let limit = self.config.max_uncommitted_bytes;
        let leader = self.accepting_leader()?;
        if leader.uncommitted_bytes > 0 && leader.uncommitted_bytes + size > limit {
            return Err(ProposeError::TooManyUncommittedBytes);
        }
        let index = self.append_as_leader(Payload::Command(command));
        Ok((self.hard_state.current_term, index))
    }

    /// Asks for a read index (thesis §6.4). The outcome comes in [`Ready::reads`] under `id`.
    ///
    /// # Errors
    ///
    /// When this node is not the leader.
    pub fn read_index(&mut self, id: ReadId) -> Result<(), ProposeError> {
        let leader_id = self.leader_id;
        let RoleState::Leader(leader) = &mut self.state else {
            return Err(ProposeError::NotLeader { leader_id });
        };
        leader.reads.push(id);
        Ok(())
    }

    /// Everything up to the batch `number` is durable.
    ///
    /// # Panics
    ///
    /// When no batch of that number waits to be persisted.
    pub fn persisted(&mut self, number: ReadyNumber) {
        assert!(
            self.persisting.iter().any(|batch| batch.number == number),
            "batch {number} is reported durable and does not wait for it"
        );
        self.storage_progressed();
        while self
            .persisting
            .front()
            .is_some_and(|batch| batch.number <= number)
        {
            let batch = self.persisting.pop_front().expect("the front was just looked at");
            self.durable_hard_state = batch.hard_state;
            self.log.durable_to(batch.last_index);
            if let Some(snapshot) = batch.installed {
                self.outbox.restore = Some(snapshot);
            }
        }
        match self.state {
            RoleState::Candidate { .. } => self.count_votes(),
            RoleState::Leader(_) => self.advance_commit_index(),
            RoleState::Follower | RoleState::PreCandidate { .. } => {}
        }
    }

    /// The state machine has applied everything up to `index`, or was restored to there.
    pub fn applied(&mut self, index: LogIndex) {
        assert!(
            index <= self.log.handed_out(),
            "entry {index} was applied and never handed out"
        );
        self.applied_index = self.applied_index.max(index);
        while self.unapplied.front().is_some_and(|(last, _)| *last <= index) {
            let (_, bytes) = self.unapplied.pop_front().expect("the front was just looked at");
            self.unapplied_bytes -= bytes;
        }
        self.install_received_snapshot();
    }

    /// This node cut a snapshot of its applied state; its file is in place. Compacts the log (Raft §7).
    /// Ignored if a newer snapshot was installed meanwhile. One that was cut before and lost its file may come again.
    pub fn snapshot_cut(&mut self, snapshot: SnapshotMeta) {
        let last_included_index = snapshot.last_included_index;
        let is_older = last_included_index <= self.log.snapshot().last_included_index;
        if is_older && !snapshot.is_of_same_file(self.log.snapshot()) {
            return;
        }
        let snapshot = SnapshotMeta {
            terms: self.log.terms_up_to(last_included_index),
            ..snapshot
        };
        let first_retained = self.log.compact(snapshot.clone(), self.config.retained_log_bytes);
        self.outbox.writes.push(Write::Compact {
            snapshot,
            first_retained,
        });
        self.outbox.events.push(Event::LogCompacted {
            last_included_index,
            first_retained,
        });
    }

    /// Whether [`Node::ready`] would yield anything.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.outbox.is_empty()
            || self.hard_state != self.written_hard_state
            || self.log.has_unwritten()
            || self.may_hand_out()
            || self.last_soft_state != Some(self.soft_state())
            || self.leader_has_work()
    }

    /// Yields everything that is to be done since the last call. See [`Ready`] for how to obey.
    pub fn ready(&mut self) -> Ready {
        self.leader_prepare_messages();
        self.ready_number = self.ready_number.next();
        let mut ready = Ready {
            number: self.ready_number,
            writes: self.take_writes(),
            messages: std::mem::take(&mut self.outbox.messages),
            messages_after_persist: std::mem::take(&mut self.outbox.messages_after_persist),
            snapshot_chunks: std::mem::take(&mut self.outbox.snapshot_chunks),
            snapshots_to_send: std::mem::take(&mut self.outbox.snapshots_to_send),
            log_reads: std::mem::take(&mut self.outbox.log_reads),
            restore: self.outbox.restore.take(),
            reads: std::mem::take(&mut self.outbox.reads),
            events: std::mem::take(&mut self.outbox.events),
            refusal: self.outbox.refusal.take(),
            ..Ready::default()
        };
        ready.committed = self.take_committed(ready.restore.as_ref());
        let soft_state = self.soft_state();
        if self.last_soft_state != Some(soft_state) {
            self.last_soft_state = Some(soft_state);
            ready.soft_state = Some(soft_state);
        }
        if ready.must_persist() {
            self.track_persist(&ready);
        }
        ready
    }

    fn take_writes(&mut self) -> Vec<Write> {
        self.flush_unwritten();
        let mut writes = std::mem::take(&mut self.outbox.writes);
        if self.hard_state != self.written_hard_state {
            self.written_hard_state = self.hard_state;
            writes.insert(0, Write::HardState(self.hard_state));
        }
        writes
    }

    /// Queues the entries that are not yet written, before a write that must come behind them.
    pub(crate) fn flush_unwritten(&mut self) {
        if self.log.has_unwritten() {
            self.outbox.writes.push(Write::Append(self.log.take_unwritten()));
        }
    }

    fn track_persist(&mut self, ready: &Ready) {
        let installed = ready.writes.iter().rev().find_map(|write| match write {
            Write::InstallSnapshot { snapshot, .. } => Some(snapshot.clone()),
            _ => None,
        });
        self.persisting.push_back(PersistInFlight {
            number: ready.number,
            since: self.now,
            hard_state: self.hard_state,
            last_index: self.log.last_index(),
            installed,
        });
    }

    /// Nothing is handed out between the installation of a snapshot and the restore of the state machine.
    fn may_hand_out(&self) -> bool {
        let restore_pending = self.persisting.iter().any(|batch| batch.installed.is_some())
            || self
                .outbox
                .writes
                .iter()
                .any(|write| matches!(write, Write::InstallSnapshot { .. }));
        !restore_pending && self.unapplied_bytes < self.config.max_unapplied_bytes && self.log.has_committed()
    }

    fn take_committed(&mut self, restore: Option<&SnapshotMeta>) -> Vec<Entry> {
        if let Some(snapshot) = restore {
            self.unapplied.clear();
            self.unapplied_bytes = 0;
            assert!(
                snapshot.last_included_index <= self.log.handed_out(),
                "a restore covers what it replaces"
            );
        }
        if !self.may_hand_out() {
            return Vec::new();
        }
        let room = self.config.max_unapplied_bytes - self.unapplied_bytes;
        let entries = self.log.take_committed(room);
        if let Some(last) = entries.last() {
            let bytes = entries.iter().map(Entry::size_bytes).sum();
            self.unapplied.push_back((last.index, bytes));
            self.unapplied_bytes += bytes;
        }
        entries
    }

    // What the roles share.

    pub(crate) fn is_voter(&self) -> bool {
        self.log.configuration().is_voter(self.id())
    }

    pub(crate) fn peers(&self) -> BTreeSet<NodeId> {
        let mut members = self.log.configuration().members();
        members.remove(&self.id());
        members
    }

    /// Whether term and vote, as they are now, are on stable storage.
    pub(crate) fn is_hard_state_durable(&self) -> bool {
        self.durable_hard_state == self.hard_state
    }

    /// Whether storage has owed an answer, and given none, for an election timeout. A batch that waits behind others
    /// that get done is no sign of a stall.
    pub(crate) fn is_storage_stalled(&self) -> bool {
        let limit = self.config.election_timeout_min.get();
        self.persisting
            .front()
            .is_some_and(|batch| self.now.get() - batch.since.max(self.storage_progressed_at).get() >= limit)
    }

    /// Storage is at work: it has finished a step, if not yet a batch. Without it, a batch that takes long, because
    /// it is large or much is to be made up for, would pass for a disk that does not answer.
    pub fn storage_progressed(&mut self) {
        self.storage_progressed_at = self.now;
    }

    /// The log was cut at `from`, or replaced behind it: batches on their way to storage no longer vouch
    /// for what stood there.
    pub(crate) fn persists_vouch_only_before(&mut self, from: LogIndex) {
        for batch in &mut self.persisting {
            batch.last_index = batch.last_index.min(from.previous());
        }
    }

    pub(crate) fn reset_election_timer(&mut self) {
        let range = self.config.election_timeout_min.get()..=self.config.election_timeout_max.get();
        self.election_timeout = Ticks(self.generator.random_range(range));
        self.election_elapsed = Ticks::ZERO;
    }

    /// A number for a leadership that begins.
    pub(crate) fn draw_leadership(&mut self) -> Leadership {
        Leadership(self.leaderships.random())
    }

    /// Follows `leader_id` in `term`, or nobody yet. Never lowers the term, and forgets the vote only
    /// with a new term (Raft §5.1).
    pub(crate) fn become_follower(&mut self, term: Term, leader_id: Option<NodeId>) {
        assert!(term >= self.hard_state.current_term, "a term never falls");
        if let RoleState::Leader(leader) = &mut self.state {
            let dropped = leader.reads.drop_all();
            self.outbox.reads.extend(dropped);
            self.reset_election_timer();
        }
        if term > self.hard_state.current_term {
            self.hard_state = HardState {
                current_term: term,
                voted_for: None,
                ..self.hard_state
            };
        }
        self.state = RoleState::Follower;
        if let Some(leader) = leader_id.filter(|_| leader_id != self.leader_id) {
            self.outbox.events.push(Event::FollowsLeader { leader, term });
        }
        self.leader_id = leader_id;
        // A higher term alone is no reason to wait longer: a candidate that cannot win would hold back
        // those who can (Raft §5.2: only a leader's message or a vote given restarts the timer).
        if leader_id.is_some() {
            self.reset_election_timer();
        }
    }

    /// Steps down if `term` is above ours (Raft §5.1). Returns whether it was.
    pub(crate) fn observe_term(&mut self, term: Term) -> bool {
        let higher = term > self.hard_state.current_term;
        if higher {
            self.note_step_down(StepDownReason::HigherTerm);
            self.become_follower(term, None);
        }
        higher
    }

    pub(crate) fn note_step_down(&mut self, reason: StepDownReason) {
        if matches!(self.state, RoleState::Leader(_)) {
            let term = self.hard_state.current_term;
            self.outbox.events.push(Event::SteppedDown { term, reason });
        }
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        let envelope = Envelope {
            from: self.id(),
            to,
            call: CallId::ZERO,
            message,
        };
        self.outbox.messages.push(envelope);
    }

    pub(crate) fn send_after_persist(&mut self, to: NodeId, message: Message) {
        let envelope = Envelope {
            from: self.id(),
            to,
            call: CallId::ZERO,
            message,
        };
        self.outbox.messages_after_persist.push(envelope);
    }

    /// Answers at once. Only for answers that promise nothing that is not already durable.
    pub(crate) fn reply_now(&mut self, reply_to: ReplyTo, message: Message) {
        let envelope = Envelope {
            from: self.id(),
            to: reply_to.to,
            call: reply_to.call,
            message,
        };
        self.outbox.messages.push(envelope);
    }

    /// Answers when everything decided so far is durable.
    pub(crate) fn reply_after_persist(&mut self, reply_to: ReplyTo, message: Message) {
        let envelope = Envelope {
            from: self.id(),
            to: reply_to.to,
            call: reply_to.call,
            message,
        };
        self.outbox.messages_after_persist.push(envelope);
    }
}

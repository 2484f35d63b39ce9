//! Owns the consensus core: receives its inputs, and sends its outputs where they belong.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult, Recipient};
use bytes::Bytes;
use raft_core::{
    CallId, Envelope, LogIndex, NodeId, ReadId, ReadOutcome, SnapshotMeta, SnapshotToSend, SoftState, Status,
};
use storage::Progress;
use tokio::sync::{oneshot, watch};

use super::FatalOnPanic;
use super::applier::{Apply, ReplaceSnapshot, Restore};
use super::kv_server::EntryWaiter;
use super::kv_server::{LeadershipChanged, ProposalOutcome, Proposed, ReadsDecided};
use super::persister::{LogWasRead, Persist, Persisted, ReadLog};
use super::replicator::{AskReadIndex, Replicator, Send, StreamSnapshot};
use super::tickers::{ElectionTick, HeartbeatTick};
use crate::data_files::DataFiles;
use crate::driver::{Actions, Driver};
use crate::intake::ReadWay;
use crate::not_taken::RefusalReporter;
use crate::shared_lease::SharedLease;

/// Inputs after which a batch of outputs is made even if more wait, so that a flood does not hold the
/// answers back.
const MAX_INPUTS_PER_BATCH: usize = 1_024;

/// After how long another snapshot is cut in the place of one whose file was removed before it was on record: whatever
/// removes files one after the other keeps nobody busy.
const REPLACE_AFTER: Duration = Duration::from_millis(200);

/// Where the outputs go.
#[derive(Debug)]
pub(crate) struct Links {
    /// Makes jobs durable.
    pub(crate) persister: Recipient<Persist>,
    /// Reads entries back.
    pub(crate) log_reader: Recipient<ReadLog>,
    /// Applies committed entries.
    pub(crate) applier: Recipient<Apply>,
    /// Replaces the state machine.
    pub(crate) restorer: Recipient<Restore>,
    /// Cuts another snapshot in the place of a damaged one.
    pub(crate) replacer: Recipient<ReplaceSnapshot>,
    /// Learns what became of proposals.
    pub(crate) proposals: Recipient<Proposed>,
    /// Learns what became of reads.
    pub(crate) reads: Recipient<ReadsDecided>,
    /// Learns who leads.
    pub(crate) leadership: Recipient<LeadershipChanged>,
    /// One replicator a peer.
    pub(crate) replicators: BTreeMap<NodeId, Addr<Replicator>>,
    /// Stops the server when the cluster does not take this node.
    pub(crate) refusals: RefusalReporter,
    /// Nothing goes anywhere once these are lost.
    pub(crate) files: Arc<DataFiles>,
}

/// The actor around the core. Its handlers are synchronous: no transition is ever half done when the next
/// message comes. Everything in the mailbox goes in before one batch of outputs comes out.
#[derive(Debug)]
pub(crate) struct RaftNode {
    driver: Driver,
    links: Links,
    /// Peers' requests that wait for the core's response.
    calls: HashMap<CallId, oneshot::Sender<raft_core::Message>>,
    last_call: CallId,
    soft_state: watch::Sender<SoftState>,
    lease: SharedLease,
    storage: Progress,
    /// How many steps storage had made at the last tick.
    storage_steps: u64,
    inputs_since_flush: usize,
    flush_scheduled: bool,
    _fatal: FatalOnPanic,
}

/// A request of a peer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PeerRequest {
    /// The peer.
    pub(crate) from: NodeId,
    /// The request.
    pub(crate) message: raft_core::Message,
    /// Gets the response; dropped if there will be none.
    pub(crate) reply: oneshot::Sender<raft_core::Message>,
}

/// A peer's response to a request of this node.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PeerResponse {
    /// The peer.
    pub(crate) from: NodeId,
    /// The response.
    pub(crate) message: raft_core::Message,
}

/// A peer cannot be reached.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PeerUnreachable(pub(crate) NodeId);

/// A snapshot did not get through to a peer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct SnapshotFailed(pub(crate) NodeId);

/// The file of this snapshot turned out to be damaged or lost when it was to be sent.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct SnapshotDamaged(pub(crate) SnapshotMeta);

/// Commands for the log, in order. The answer is [`Proposed`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Propose(pub(crate) Vec<Proposal>);

/// One command for the log.
pub(crate) struct Proposal {
    /// The encoded command.
    pub(crate) command: Bytes,
    /// Who waits for it; comes back with the answer.
    pub(crate) waiter: EntryWaiter,
}

/// A read wants its read index. The answer is [`ReadsDecided`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ReadIndex {
    /// Names the read in the answer.
    pub(crate) id: ReadId,
    /// How to find out.
    pub(crate) way: ReadWay,
}

/// The state machine has come to this index.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct AppliedTo(pub(crate) LogIndex);

/// A snapshot of this node's own is in place.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct SnapshotCut(pub(crate) SnapshotMeta);

/// Hand leadership over, if it is here. Answers whom to; role changes show in the soft state.
#[derive(Debug, Message)]
#[rtype(result = "Option<NodeId>")]
pub(crate) struct StepAside;

/// Hand leadership to this peer, if it is here and the peer follows.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct HandOver(pub(crate) NodeId);

/// A look inside.
#[derive(Debug, Message)]
#[rtype(result = "Status")]
pub(crate) struct GetStatus;

/// Stop. What was yielded stays with the persister.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// Emit one batch of outputs. Handled behind everything that is in the mailbox already.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Flush;

impl RaftNode {
    /// Drives `driver`; role changes are published on `soft_state`. `storage` tells a slow disk from a dead one.
    #[must_use]
    pub(crate) fn new(
        driver: Driver,
        links: Links,
        soft_state: watch::Sender<SoftState>,
        lease: SharedLease,
        storage: Progress,
    ) -> Self {
        Self {
            driver,
            links,
            calls: HashMap::new(),
            last_call: CallId::ZERO,
            soft_state,
            lease,
            storage_steps: storage.steps(),
            storage,
            inputs_since_flush: 0,
            flush_scheduled: false,
            _fatal: FatalOnPanic::of("the Raft node"),
        }
    }

    fn after_input(&mut self, ctx: &mut Context<Self>) {
        self.inputs_since_flush += 1;
        if self.inputs_since_flush >= MAX_INPUTS_PER_BATCH {
            self.flush();
        } else if !self.flush_scheduled {
            self.flush_scheduled = true;
            ctx.notify(Flush);
        }
    }

    fn flush(&mut self) {
        self.inputs_since_flush = 0;
        if self.links.files.are_lost() {
            // Neither its promises nor what a leader counts its own copy for may leave any more.
            return self.lease.tell(None);
        }
        self.read_lease_clock();
        loop {
            let actions = self.driver.poll();
            // Before any of it leaves.
            self.lease.tell(self.driver.node().read_lease());
            let Some(actions) = actions else { break };
            self.act(actions);
        }
    }

    fn watch_storage(&mut self) {
        let steps = self.storage.steps();
        if std::mem::replace(&mut self.storage_steps, steps) != steps {
            self.driver.node_mut().storage_progressed();
        }
    }

    fn read_lease_clock(&mut self) {
        self.driver.node_mut().clock_reads(self.lease.now());
    }

    /// The connection to the leader that this node follows.
    fn replicator_to_leader(&self) -> Option<&Addr<Replicator>> {
        let leader = self.driver.node().soft_state().leader_id?;
        self.links.replicators.get(&leader)
    }

    /// Sends the outputs of one batch, in the order that [`Actions`] asks for.
    fn act(&mut self, actions: Actions) {
        actions
            .events
            .iter()
            .for_each(|event| tracing::info!(target: "raft_core", "{event}"));
        if let Some(refusal) = actions.refusal {
            self.links.refusals.report(refusal);
        }
        if let Some(job) = actions.persist {
            self.links.persister.do_send(Persist(job));
        }
        if let Some(soft_state) = actions.soft_state {
            self.soft_state.send_replace(soft_state);
            self.links.leadership.do_send(LeadershipChanged(soft_state));
        }
        self.send(actions.send);
        for SnapshotToSend { to, term, snapshot } in actions.snapshots_to_send {
            if let Some(replicator) = self.links.replicators.get(&to) {
                replicator.do_send(StreamSnapshot { term, snapshot });
            }
        }
        for read in actions.log_reads {
            self.links.log_reader.do_send(ReadLog(read));
        }
        if let Some(snapshot) = actions.restore {
            self.links.restorer.do_send(Restore(snapshot));
        }
        if !actions.apply.is_empty() {
            self.links.applier.do_send(Apply(actions.apply));
        }
        if !actions.reads.is_empty() {
            self.links.reads.do_send(ReadsDecided(actions.reads));
        }
    }

    /// A response goes to the call that waits for it, a request to the peer's replicator.
    fn send(&mut self, envelopes: Vec<Envelope>) {
        for envelope in envelopes {
            if envelope.call != CallId::ZERO {
                if let Some(reply) = self.calls.remove(&envelope.call) {
                    // The caller may have given up; that is its own affair.
                    let _ = reply.send(envelope.message);
                }
            } else if let Some(replicator) = self.links.replicators.get(&envelope.to) {
                replicator.do_send(Send(envelope.message));
            }
        }
    }
}

impl Actor for RaftNode {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(crate::limits::RAFT_NODE_MAILBOX);
        self.after_input(ctx);
    }
}

impl Handler<Flush> for RaftNode {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.flush_scheduled = false;
        self.flush();
    }
}

impl Handler<ElectionTick> for RaftNode {
    type Result = ();

    fn handle(&mut self, ElectionTick(gate): ElectionTick, ctx: &mut Self::Context) {
        gate.leave();
        self.watch_storage();
        self.driver.node_mut().tick_election();
        self.after_input(ctx);
    }
}

impl Handler<HeartbeatTick> for RaftNode {
    type Result = ();

    fn handle(&mut self, HeartbeatTick(gate): HeartbeatTick, ctx: &mut Self::Context) {
        gate.leave();
        self.read_lease_clock();
        self.driver.node_mut().tick_heartbeat();
        self.after_input(ctx);
    }
}

impl Handler<PeerRequest> for RaftNode {
    type Result = ();

    fn handle(&mut self, request: PeerRequest, ctx: &mut Self::Context) {
        self.last_call = self.last_call.next();
        let call = self.last_call;
        self.calls.insert(call, request.reply);
        let to = self.driver.node().id();
        self.driver.node_mut().step(Envelope {
            from: request.from,
            to,
            call,
            message: request.message,
        });
        self.after_input(ctx);
    }
}

impl Handler<PeerResponse> for RaftNode {
    type Result = ();

    fn handle(&mut self, PeerResponse { from, message }: PeerResponse, ctx: &mut Self::Context) {
        let to = self.driver.node().id();
        self.driver.node_mut().step(Envelope {
            from,
            to,
            call: CallId::ZERO,
            message,
        });
        self.after_input(ctx);
    }
}

impl Handler<PeerUnreachable> for RaftNode {
    type Result = ();

    fn handle(&mut self, PeerUnreachable(peer): PeerUnreachable, ctx: &mut Self::Context) {
        self.driver.node_mut().peer_unreachable(peer);
        self.after_input(ctx);
    }
}

impl Handler<SnapshotFailed> for RaftNode {
    type Result = ();

    fn handle(&mut self, SnapshotFailed(peer): SnapshotFailed, ctx: &mut Self::Context) {
        self.driver.node_mut().snapshot_failed(peer);
        self.after_input(ctx);
    }
}

impl Handler<SnapshotDamaged> for RaftNode {
    type Result = ();

    fn handle(&mut self, SnapshotDamaged(snapshot): SnapshotDamaged, _: &mut Self::Context) {
        self.links.replacer.do_send(ReplaceSnapshot(snapshot));
    }
}

impl Handler<Propose> for RaftNode {
    type Result = ();

    fn handle(&mut self, Propose(proposals): Propose, ctx: &mut Self::Context) {
        let node = self.driver.node_mut();
        let outcomes = proposals
            .into_iter()
            .map(|Proposal { command, waiter }| ProposalOutcome {
                outcome: node.propose(command),
                waiter,
            })
            .collect();
        self.links.proposals.do_send(Proposed(outcomes));
        self.after_input(ctx);
    }
}

impl Handler<ReadIndex> for RaftNode {
    type Result = ();

    fn handle(&mut self, ReadIndex { id, way }: ReadIndex, ctx: &mut Self::Context) {
        if way == ReadWay::Lease
            && let Some((_, index)) = self.lease.read_index()
        {
            let confirmed = ReadOutcome::Confirmed { id, index };
            return self.links.reads.do_send(ReadsDecided(vec![confirmed]));
        }
        if self.driver.node_mut().read_index(id).is_ok() {
            return self.after_input(ctx);
        }
        match self.replicator_to_leader() {
            Some(replicator) if way == ReadWay::Anywhere => replicator.do_send(AskReadIndex(id)),
            _ => {
                let dropped = ReadOutcome::Dropped { id };
                self.links.reads.do_send(ReadsDecided(vec![dropped]));
            }
        }
    }
}

impl Handler<Persisted> for RaftNode {
    type Result = ();

    fn handle(&mut self, Persisted(committed): Persisted, ctx: &mut Self::Context) {
        self.driver.persisted(committed.number);
        for (snapshot, intact) in committed.received {
            self.driver.node_mut().snapshot_received(&snapshot, intact);
        }
        for snapshot in committed.lost_cuts {
            ctx.notify_later(SnapshotDamaged(snapshot), REPLACE_AFTER);
        }
        self.after_input(ctx);
    }
}

impl Handler<LogWasRead> for RaftNode {
    type Result = ();

    fn handle(&mut self, LogWasRead(read, entries): LogWasRead, ctx: &mut Self::Context) {
        self.driver.node_mut().log_was_read(&read, entries);
        self.after_input(ctx);
    }
}

impl Handler<AppliedTo> for RaftNode {
    type Result = ();

    fn handle(&mut self, AppliedTo(index): AppliedTo, ctx: &mut Self::Context) {
        self.driver.node_mut().applied(index);
        self.after_input(ctx);
    }
}

impl Handler<SnapshotCut> for RaftNode {
    type Result = ();

    fn handle(&mut self, SnapshotCut(snapshot): SnapshotCut, ctx: &mut Self::Context) {
        self.driver.node_mut().snapshot_cut(snapshot);
        self.after_input(ctx);
    }
}

impl Handler<StepAside> for RaftNode {
    type Result = Option<NodeId>;

    fn handle(&mut self, _: StepAside, ctx: &mut Self::Context) -> Self::Result {
        let target = self.driver.node_mut().transfer_leadership();
        self.after_input(ctx);
        target
    }
}

impl Handler<HandOver> for RaftNode {
    type Result = ();

    fn handle(&mut self, HandOver(target): HandOver, ctx: &mut Self::Context) {
        self.driver.node_mut().transfer_leadership_to(target);
        self.after_input(ctx);
    }
}

impl Handler<GetStatus> for RaftNode {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, _: GetStatus, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.driver.node().status())
    }
}

impl Handler<Stop> for RaftNode {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        use actix::ActorContext;
        self.flush();
        self.lease.tell(None);
        self.calls.clear();
        ctx.stop();
    }
}

//! Owns the requests that wait: admits them, hands them to the node, and answers when they are decided.

use std::collections::BTreeMap;

use actix::{Actor, Addr, Context, Handler, Message, Recipient};
use bytes::Bytes;
use raft_core::{LogIndex, NodeId, ProposeError, ReadId, ReadOutcome, Role, SoftState, Term};
use rpc::client::{BusyReason, KvError, Member};
use rpc::peer::DiskRoom;
use tokio::sync::oneshot;

use super::FatalOnPanic;
use super::raft_node::{HandOver, Propose, RaftNode, ReadIndex};
use crate::disk_room::ClusterRoom;
use crate::pending::{Pending, Waiter};
use crate::state_machine::{Applied, Reply};

/// Between two attempts to hand leadership to a peer with more room: time for the first to end.
const LOOKS_BETWEEN_HAND_OVERS: u32 = 10;

/// The actor around [`Pending`] (the notes' `KvServer` with its `waitApplyCh`). It knows who leads, so that a
/// follower refuses at once and says whom to ask.
#[derive(Debug)]
pub(crate) struct KvServer {
    members: BTreeMap<NodeId, Member>,
    pending: Pending<EntryWaiter, ReadWaiter>,
    soft_state: SoftState,
    last_read: ReadId,
    proposals: Recipient<Propose>,
    reads: Recipient<ReadIndex>,
    room: ClusterRoom,
    hand_over: Recipient<HandOver>,
    /// Looks at a disk with little room that pass before leadership is offered to a peer again.
    looks_until_hand_over: u32,
    _fatal: FatalOnPanic,
}

/// Gets the reply of the entry that a command became.
#[derive(Debug)]
pub(crate) struct EntryWaiter(oneshot::Sender<Result<Reply, KvError>>);

impl Waiter<Reply> for EntryWaiter {
    fn complete(self, result: Result<Reply, KvError>) {
        // The caller may have given up; the command takes its way all the same.
        let _ = self.0.send(result);
    }
}

/// Gets told that a read may be served, in which term.
#[derive(Debug)]
pub(crate) struct ReadWaiter {
    term: Term,
    reply: oneshot::Sender<Result<Term, KvError>>,
}

impl Waiter<LogIndex> for ReadWaiter {
    fn complete(self, result: Result<LogIndex, KvError>) {
        let _ = self.reply.send(result.map(|_| self.term));
    }
}

/// A command for the log, already checked and encoded.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Submit {
    /// The encoded command.
    pub(crate) command: Bytes,
    /// The room that it needs on the disks: a command that stores little or makes room needs little.
    pub(crate) needs: DiskRoom,
    /// Gets the reply. Dropped unanswered only when the server is going down: the outcome is unknown.
    pub(crate) reply: oneshot::Sender<Result<Reply, KvError>>,
}

/// Asks when the state machine is fresh enough for a linearizable read.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ReadBarrier {
    /// Gets the term when it is.
    pub(crate) reply: oneshot::Sender<Result<Term, KvError>>,
}

/// What became of a [`Propose`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Proposed {
    /// Where the entry stands, or why there is none.
    pub(crate) outcome: Result<(Term, LogIndex), ProposeError>,
    /// Who waits for it.
    pub(crate) waiter: EntryWaiter,
}

/// What became of reads.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ReadsDecided(pub(crate) Vec<ReadOutcome>);

/// Role, term or leader changed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct LeadershipChanged(pub(crate) SoftState);

/// Entries were applied, or the state was replaced.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct EntriesApplied {
    /// The replies, in order.
    pub(crate) entries: Vec<Applied>,
    /// The state machine stands here now.
    pub(crate) up_to: LogIndex,
}

/// A peer's disk has this much room.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PeerDiskRoom(pub(crate) NodeId, pub(crate) DiskRoom);

/// This node's disk was looked at and has little room.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct DiskIsLow;

/// End everything that waits and refuse what comes.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ShutDown;

impl KvServer {
    /// Serves the cluster of `members`, whose disks are `room`; at most `capacity` requests wait at once.
    #[must_use]
    pub(crate) fn new(
        members: Vec<Member>,
        room: ClusterRoom,
        capacity: usize,
        last_applied: LogIndex,
        node: &Addr<RaftNode>,
    ) -> Self {
        Self {
            members: members.into_iter().map(|member| (member.id, member)).collect(),
            pending: Pending::new(capacity, last_applied),
            soft_state: SoftState {
                role: Role::Follower,
                term: Term::ZERO,
                leader_id: None,
            },
            last_read: ReadId::ZERO,
            proposals: node.clone().recipient(),
            reads: node.clone().recipient(),
            room,
            hand_over: node.clone().recipient(),
            looks_until_hand_over: 0,
            _fatal: FatalOnPanic::of("the KV server"),
        }
    }

    fn leader(&self) -> Option<Member> {
        self.soft_state
            .leader_id
            .and_then(|leader| self.members.get(&leader))
            .cloned()
    }

    fn admit(&self) -> Result<(), KvError> {
        self.pending.admission()?;
        if self.soft_state.role == Role::Leader {
            Ok(())
        } else {
            Err(KvError::NotLeader {
                leader: self.leader(),
            })
        }
    }

    fn refusal(&self, error: ProposeError) -> KvError {
        match error {
            ProposeError::NotLeader { .. } => KvError::NotLeader {
                leader: self.leader(),
            },
            ProposeError::TooManyUncommittedBytes => KvError::Busy(BusyReason::UncommittedBytes),
            ProposeError::LeadershipTransfer => KvError::Busy(BusyReason::LeadershipTransfer),
        }
    }
}

impl Actor for KvServer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(crate::limits::KV_SERVER_MAILBOX);
    }
}

impl Handler<Submit> for KvServer {
    type Result = ();

    fn handle(&mut self, submit: Submit, _: &mut Self::Context) {
        let Submit {
            command,
            needs,
            reply,
        } = submit;
        let waiter = EntryWaiter(reply);
        if let Err(error) = self.admit() {
            return waiter.complete(Err(error));
        }
        if let Err(full) = self.room.admit(needs, command.len()) {
            return waiter.complete(Err(KvError::Busy(full)));
        }
        if let Err(actix::prelude::SendError::Full(refused) | actix::prelude::SendError::Closed(refused)) =
            self.proposals.try_send(Propose { command, waiter })
        {
            refused
                .waiter
                .complete(Err(KvError::Busy(BusyReason::RequestsInFlight)));
        }
    }
}

impl Handler<ReadBarrier> for KvServer {
    type Result = ();

    fn handle(&mut self, ReadBarrier { reply }: ReadBarrier, _: &mut Self::Context) {
        let waiter = ReadWaiter {
            term: self.soft_state.term,
            reply,
        };
        if let Err(error) = self.admit() {
            return waiter.complete(Err(error));
        }
        self.last_read = self.last_read.next();
        match self.reads.try_send(ReadIndex(self.last_read)) {
            Ok(()) => self.pending.register_read(self.last_read, waiter),
            Err(_) => waiter.complete(Err(KvError::Busy(BusyReason::RequestsInFlight))),
        }
    }
}

impl Handler<Proposed> for KvServer {
    type Result = ();

    fn handle(&mut self, Proposed { outcome, waiter }: Proposed, _: &mut Self::Context) {
        match outcome {
            Ok((term, index)) => self.pending.register(index, term, waiter),
            Err(error) => waiter.complete(Err(self.refusal(error))),
        }
    }
}

impl Handler<ReadsDecided> for KvServer {
    type Result = ();

    fn handle(&mut self, ReadsDecided(outcomes): ReadsDecided, _: &mut Self::Context) {
        for outcome in outcomes {
            match outcome {
                ReadOutcome::Confirmed { id, index } => self.pending.confirmed(id, index),
                ReadOutcome::Dropped { id } => self.pending.dropped(id),
            }
        }
    }
}

impl Handler<LeadershipChanged> for KvServer {
    type Result = ();

    fn handle(&mut self, LeadershipChanged(soft_state): LeadershipChanged, _: &mut Self::Context) {
        let led_in = |state: SoftState| (state.role == Role::Leader).then_some(state.term);
        let before = std::mem::replace(&mut self.soft_state, soft_state);
        self.pending.set_leader(self.leader());
        if led_in(before) != led_in(soft_state) {
            self.room.forget();
            self.looks_until_hand_over = 0;
        }
        if led_in(before).is_some() && led_in(before) != led_in(soft_state) {
            self.pending.leadership_lost();
        }
    }
}

impl Handler<EntriesApplied> for KvServer {
    type Result = ();

    fn handle(&mut self, EntriesApplied { entries, up_to }: EntriesApplied, _: &mut Self::Context) {
        for Applied { index, term, reply } in entries {
            self.pending.applied(index, term, reply);
        }
        self.pending.applied_up_to(up_to);
    }
}

impl Handler<PeerDiskRoom> for KvServer {
    type Result = ();

    fn handle(&mut self, PeerDiskRoom(peer, room): PeerDiskRoom, _: &mut Self::Context) {
        self.room.report(peer, room);
    }
}

impl Handler<DiskIsLow> for KvServer {
    type Result = ();

    /// One full disk must not stop the cluster: whoever has more room leads.
    fn handle(&mut self, _: DiskIsLow, _: &mut Self::Context) {
        self.looks_until_hand_over = self.looks_until_hand_over.saturating_sub(1);
        if self.soft_state.role != Role::Leader || self.looks_until_hand_over > 0 {
            return;
        }
        if let Some(successor) = self.room.successor() {
            self.looks_until_hand_over = LOOKS_BETWEEN_HAND_OVERS;
            self.hand_over.do_send(HandOver(successor));
        }
    }
}

impl Handler<ShutDown> for KvServer {
    type Result = ();

    fn handle(&mut self, _: ShutDown, _: &mut Self::Context) {
        self.pending.shutdown();
    }
}

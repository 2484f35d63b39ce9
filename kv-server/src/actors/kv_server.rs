//! Owns the requests that wait: admits them, hands them to the node, and answers when they are decided.

use std::collections::BTreeMap;

use actix::prelude::SendError;
use actix::{Actor, Addr, Context, Handler, Message, Recipient};
use raft_core::{LogIndex, NodeId, ProposeError, ReadId, ReadOutcome, Role, SoftState, Term};
use rpc::client::{BusyReason, KvError, Member};
use rpc::peer::DiskRoom;
use tokio::sync::oneshot;

use super::FatalOnPanic;
use super::raft_node::{HandOver, Proposal, Propose, RaftNode, ReadIndex};
use crate::disk_room::ClusterRoom;
use crate::intake::{Fresh, Intake, ReadWay, Request};
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
    intake: Intake,
    /// Empty but for its memory, between two looks into the intake.
    taken: Vec<Request>,
    /// Proposals that the node has not answered yet.
    proposing: usize,
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

/// Gets told that a read may be served.
#[derive(Debug)]
pub(crate) struct ReadWaiter {
    term: Term,
    reply: oneshot::Sender<Result<Fresh, KvError>>,
}

impl Waiter<LogIndex> for ReadWaiter {
    fn complete(self, result: Result<LogIndex, KvError>) {
        let term = self.term;
        let _ = self.reply.send(result.map(|index| Fresh { term, index }));
    }
}

/// Reads that came together, by how they find out how fresh is fresh enough.
#[derive(Debug, Default)]
struct Reads {
    round: Vec<ReadWaiter>,
    lease: Vec<ReadWaiter>,
    anywhere: Vec<ReadWaiter>,
}

impl Reads {
    fn len(&self) -> usize {
        self.round.len() + self.lease.len() + self.anywhere.len()
    }

    fn of(&mut self, way: ReadWay) -> &mut Vec<ReadWaiter> {
        match way {
            ReadWay::Round => &mut self.round,
            ReadWay::Lease => &mut self.lease,
            ReadWay::Anywhere => &mut self.anywhere,
        }
    }
}

/// Requests wait in the intake.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Drain;

/// What became of a [`Propose`], proposal by proposal.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Proposed(pub(crate) Vec<ProposalOutcome>);

/// What became of one proposal.
pub(crate) struct ProposalOutcome {
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

/// Refuse what comes. Answers how many requests still wait.
#[derive(Debug, Message)]
#[rtype(result = "usize")]
pub(crate) struct TakeNoMore;

/// End everything that waits and refuse what comes.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ShutDown;

impl KvServer {
    /// Serves the requests in `intake` for the cluster of `members`, whose disks are `room`; at most `capacity`
    /// wait at once.
    #[must_use]
    pub(crate) fn new(
        members: Vec<Member>,
        room: ClusterRoom,
        capacity: usize,
        last_applied: LogIndex,
        intake: Intake,
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
            intake,
            taken: Vec::new(),
            proposing: 0,
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

    /// Whether a request may come in beside `on_the_way` others that are not registered yet. With
    /// `anyone_will_do` it is one that a follower serves, too, as long as it knows a leader.
    fn admit(&self, on_the_way: usize, anyone_will_do: bool) -> Result<(), KvError> {
        self.pending.admission_beside(on_the_way)?;
        let follows = anyone_will_do && self.soft_state.leader_id.is_some();
        if self.soft_state.role == Role::Leader || follows {
            Ok(())
        } else {
            Err(KvError::NotLeader {
                leader: self.leader(),
            })
        }
    }

    /// Whether the disks have room for `command`.
    fn find_room(&self, needs: DiskRoom, command: &[u8]) -> Result<(), KvError> {
        self.room.admit(needs, command.len()).map_err(KvError::Busy)
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
}

impl KvServer {
    /// Hands commands to the node, all in one message.
    fn propose(&mut self, proposals: Vec<Proposal>) {
        if proposals.is_empty() {
            return;
        }
        self.proposing += proposals.len();
        if let Err(SendError::Full(refused) | SendError::Closed(refused)) =
            self.proposals.try_send(Propose(proposals))
        {
            self.proposing -= refused.0.len();
            for Proposal { waiter, .. } in refused.0 {
                waiter.complete(Err(KvError::Busy(BusyReason::RequestsInFlight)));
            }
        }
    }

    /// Asks for one read index for reads that came together.
    fn read(&mut self, waiters: Vec<ReadWaiter>, way: ReadWay) {
        if waiters.is_empty() {
            return;
        }
        self.last_read = self.last_read.next();
        let id = self.last_read;
        if self.reads.try_send(ReadIndex { id, way }).is_ok() {
            self.pending.register_reads(self.last_read, waiters);
        } else {
            for waiter in waiters {
                waiter.complete(Err(KvError::Busy(BusyReason::RequestsInFlight)));
            }
        }
    }
}

impl Handler<Drain> for KvServer {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Self::Context) {
        let mut taken = std::mem::take(&mut self.taken);
        self.intake.take(&mut taken);
        let (mut proposals, mut reads) = (Vec::new(), Reads::default());
        for request in taken.drain(..) {
            let on_the_way = self.proposing + proposals.len() + reads.len();
            let anyone_will_do = matches!(
                request,
                Request::Read {
                    way: ReadWay::Anywhere,
                    ..
                }
            );
            match (request, self.admit(on_the_way, anyone_will_do)) {
                (
                    Request::Submit {
                        command,
                        needs,
                        reply,
                    },
                    admitted,
                ) => {
                    let admitted = admitted.and_then(|()| self.find_room(needs, &command));
                    let waiter = EntryWaiter(reply);
                    match admitted {
                        Ok(()) => proposals.push(Proposal { command, waiter }),
                        Err(error) => waiter.complete(Err(error)),
                    }
                }
                (Request::Read { reply, way }, Ok(())) => {
                    let term = self.soft_state.term;
                    reads.of(way).push(ReadWaiter { term, reply });
                }
                // The caller may have given up.
                (Request::Read { reply, .. }, Err(error)) => drop(reply.send(Err(error))),
            }
        }
        self.taken = taken;
        self.propose(proposals);
        self.read(reads.lease, ReadWay::Lease);
        self.read(reads.round, ReadWay::Round);
        self.read(reads.anywhere, ReadWay::Anywhere);
    }
}

impl Handler<Proposed> for KvServer {
    type Result = ();

    fn handle(&mut self, Proposed(outcomes): Proposed, _: &mut Self::Context) {
        self.proposing -= outcomes.len();
        for ProposalOutcome { outcome, waiter } in outcomes {
            match outcome {
                Ok((term, index)) => self.pending.register(index, term, waiter),
                Err(error) => waiter.complete(Err(self.refusal(error))),
            }
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

impl Handler<TakeNoMore> for KvServer {
    type Result = usize;

    fn handle(&mut self, _: TakeNoMore, _: &mut Self::Context) -> Self::Result {
        self.pending.close();
        self.proposing + self.pending.len()
    }
}

impl Handler<ShutDown> for KvServer {
    type Result = ();

    fn handle(&mut self, _: ShutDown, _: &mut Self::Context) {
        self.pending.shutdown();
    }
}

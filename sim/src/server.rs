//! One node: the plain structs of kv-server, put together as its actors put them together.
//!
//! A server draws nothing at random and knows no time. Every input leaves [`Output`]s behind, and the
//! simulation decides when the next step of the disk, the applier or the network comes.

mod applier;
mod disk;
mod front;
mod log_change;
mod reads;
mod transfers;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use kv_server::driver::{Actions, Driver};
use kv_server::pending::Pending;
use kv_server::state_machine::StateMachine;
use raft_core::{
    CallId, Configuration, Envelope, Event, LogIndex, Message, Node, NodeId, ReadId, ReadLease, Refusal,
    Restored, Role, SnapshotToSend, SoftState, Standing, Status, Storage, Term, Ticks, Write,
};
use storage::{Identity, MemoryDisk, MemoryStorage};

use crate::invariants::state_machine_safety::AppliedBatch;
use crate::machine::Life;
use crate::messages::Loss;
use crate::planted_bug::PlantedBug;
use crate::scenario::Scenario;
use applier::Applier;
use disk::Disk;
use front::WriteWaiter;
pub(crate) use front::{Answer, ClientRequest, Question, RequestId};
#[cfg(test)]
pub(crate) use log_change::Appended;
pub(crate) use log_change::LogChange;
use reads::{IndexAnswers, ReadWaiter};
pub(crate) use reads::{IndexMessage, IndexQuestion};
use transfers::Transfers;
pub(crate) use transfers::{ChunkTag, TransferTag};

/// Each batch holds all that there is to do, so few come of one input.
const MOST_BATCHES: u32 = 10_000;

/// Requests of clients that may wait at once.
const PENDING_CAPACITY: usize = 1_000;

/// Where a request came from, so that its response finds the way back.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) from: NodeId,
    /// Which life of that node asked.
    pub(crate) incarnation: u64,
    /// Over which connection.
    pub(crate) connection: u64,
    pub(crate) request: Rc<Message>,
    pub(crate) chunk: Option<ChunkTag>,
}

impl Origin {
    /// Who waits for the response.
    pub(crate) fn caller(&self) -> Life {
        Life {
            node: self.from,
            incarnation: self.incarnation,
        }
    }
}

/// What a server wants done.
#[derive(Debug)]
pub(crate) enum Output {
    Request {
        to: NodeId,
        message: Message,
        chunk: Option<ChunkTag>,
    },
    Response {
        origin: Box<Origin>,
        message: Message,
    },
    /// Call [`Server::disk_writes`] after a while.
    DiskBusy,
    /// Call [`Server::disk_reports`] after a while.
    DiskWritten,
    /// Call [`Server::apply_next`] after a while.
    ApplySoon,
    /// Call [`Server::log_read`] after a while.
    LogReadBegun,
    /// Call [`Server::snapshot_written`] after a while.
    SnapshotBegun,
    /// Call [`Server::ask_again`] after a pause.
    AskAgain(TransferTag),
    Answer(RequestId, Answer),
    /// Ask the leader for a read index.
    AskIndex {
        leader: NodeId,
        read: ReadId,
    },
    /// The answer to a follower that asked for one.
    IndexAnswer {
        question: IndexQuestion,
        index: Option<LogIndex>,
    },
    Changed(Box<LogChange>),
    Happened(Event),
    Applied(AppliedBatch),
    /// Stop this node: it must not take part. Nothing comes after this.
    Refused(Refusal),
    /// Stop this node: it cannot read the snapshot that it is to restore. Nothing comes after this.
    CannotRestore(String),
}

/// A running node.
pub(crate) struct Server {
    driver: Driver,
    disk: Disk,
    applier: Applier,
    transfers: Transfers,
    pending: Pending<WriteWaiter, ReadWaiter>,
    answers: Rc<RefCell<Vec<(RequestId, Answer)>>>,
    index_answers: IndexAnswers,
    soft_state: SoftState,
    last_read: ReadId,
    /// What the machine's clock read when the node looked last.
    clock: Ticks,
    /// The lease as the node told of it last: what reads look at.
    told_lease: Option<ReadLease>,
    calls: BTreeMap<CallId, Origin>,
    last_call: CallId,
    outputs: Vec<Output>,
    /// The commit index that was told last.
    told_commit: LogIndex,
    bug: Option<PlantedBug>,
}

impl Server {
    /// Starts node `id` from what is on `disk`.
    ///
    /// # Errors
    ///
    /// When the node would refuse to start.
    pub(crate) fn start(
        id: NodeId,
        disk: &MemoryDisk,
        scenario: &Scenario,
        seed: u64,
        bug: Option<PlantedBug>,
    ) -> Result<Self, String> {
        let identity = Identity {
            cluster_id: "sim".to_owned(),
            node_id: id,
        };
        let initial = Configuration::of_voters(scenario.node_ids());
        let mut storage =
            MemoryStorage::open(disk, &identity, &initial).map_err(|error| error.to_string())?;
        let restored: Restored = storage.restore().map_err(|error| error.to_string())?;
        let snapshots = storage.snapshots();
        let state = applier::load(snapshots.as_ref(), &restored.snapshot, scenario.session_cap)
            .map_err(|error| error.to_string())?;
        let config = scenario.core_config(id, disk.incarnation(), seed);
        let node = Node::new(config, restored.clone()).map_err(|error| error.to_string())?;
        let node_commit = node.commit_index();
        let mut server = Self {
            pending: Pending::new(PENDING_CAPACITY, state.last_applied()),
            soft_state: node.soft_state(),
            driver: Driver::new(node),
            told_commit: node_commit,
            applier: Applier::new(state, &restored.snapshot, scenario),
            transfers: Transfers::new(scenario.snapshot_chunk_bytes),
            disk: Disk::new(storage, snapshots, restored),
            answers: Rc::default(),
            index_answers: Rc::default(),
            last_read: ReadId::ZERO,
            clock: Ticks::ZERO,
            told_lease: None,
            calls: BTreeMap::new(),
            last_call: CallId::ZERO,
            outputs: Vec::new(),
            bug,
        };
        server.flush();
        Ok(server)
    }

    pub(crate) fn id(&self) -> NodeId {
        self.driver.node().id()
    }

    pub(crate) fn status(&self) -> Status {
        self.driver.node().status()
    }

    pub(crate) fn role(&self) -> Role {
        self.driver.node().role()
    }

    /// Whether the node counts as a member, as far as it knows.
    pub(crate) fn has_standing(&self) -> bool {
        matches!(
            self.driver.node().standing(),
            Standing::Founder | Standing::Member
        )
    }

    /// The term of the entry at `index`, if it is in the log.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.driver.node().term_at(index)
    }

    /// The last entry that the latest snapshot includes.
    pub(crate) fn snapshot_index(&self) -> LogIndex {
        self.driver.node().snapshot().last_included_index
    }

    /// How many requests of clients wait for an answer.
    pub(crate) fn waiters(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn state(&self) -> &StateMachine {
        self.applier.apply_loop.state()
    }

    /// What is on stable storage.
    pub(crate) fn durable(&self) -> &Restored {
        &self.disk.durable
    }

    /// The power goes out. Who waits for an answer will get none.
    pub(crate) fn into_unanswered(self) -> impl Iterator<Item = Origin> {
        self.calls.into_values()
    }

    /// What the inputs so far led to.
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        let mut answers = self.answers.borrow_mut();
        self.outputs
            .extend(answers.drain(..).map(|(id, answer)| Output::Answer(id, answer)));
        let mut answers = self.index_answers.borrow_mut();
        let output = |(question, index)| Output::IndexAnswer { question, index };
        self.outputs.extend(answers.drain(..).map(output));
        std::mem::take(&mut self.outputs)
    }

    pub(crate) fn tick_election(&mut self) {
        self.driver.node_mut().tick_election();
        self.flush();
    }

    pub(crate) fn tick_heartbeat(&mut self) {
        self.driver.node_mut().tick_heartbeat();
        self.flush();
    }

    /// A peer's request arrives, as a call of its own.
    pub(crate) fn receive_request(&mut self, origin: Origin) {
        self.last_call = self.last_call.next();
        let call = self.last_call;
        let (from, message) = (origin.from, Message::clone(&origin.request));
        self.calls.insert(call, origin);
        self.step(from, call, message);
    }

    /// The response to a request of this node arrives.
    pub(crate) fn receive_response(&mut self, from: NodeId, message: Message, chunk: Option<ChunkTag>) {
        let answer = match &message {
            Message::InstallSnapshotResponse(response) => Some(*response),
            _ => None,
        };
        self.step(from, CallId::ZERO, message);
        if let (Some(answer), Some(chunk)) = (answer, chunk) {
            self.chunk_answered(chunk, answer.last_included_index, answer.outcome);
        }
    }

    /// A request to `peer` or its response got lost.
    pub(crate) fn request_lost(&mut self, peer: NodeId, chunk: Option<ChunkTag>, loss: Loss) {
        match chunk {
            Some(chunk) => self.chunk_lost(chunk, loss),
            None => self.driver.node_mut().peer_unreachable(peer),
        }
        self.flush();
    }

    /// An operator asks the leader to hand over.
    pub(crate) fn step_aside(&mut self) -> Option<NodeId> {
        let target = self.driver.node_mut().transfer_leadership();
        self.flush();
        target
    }

    fn step(&mut self, from: NodeId, call: CallId, message: Message) {
        let to = self.id();
        self.driver.node_mut().step(Envelope {
            from,
            to,
            call,
            message,
        });
        self.flush();
    }

    /// Takes what the core has to say and puts every part of it where it belongs.
    fn flush(&mut self) {
        let mut batches = 0;
        loop {
            let actions = self.driver.poll();
            // Before any of it leaves.
            self.told_lease = self.driver.node().read_lease();
            let Some(actions) = actions else { break };
            batches += 1;
            assert!(
                batches <= MOST_BATCHES,
                "node {} never runs out of things to do",
                self.id()
            );
            self.act(actions);
        }
    }

    /// In the order that [`Actions`] asks for.
    fn act(&mut self, actions: Actions) {
        let events = actions.events.into_iter().map(Output::Happened);
        self.outputs.extend(events);
        let writes = actions.persist.as_ref().map_or(&[][..], |job| &job.writes);
        self.look_at_log(writes);
        if let Some(job) = actions.persist {
            let number = job.number;
            self.persist(job);
            if self.bug == Some(PlantedBug::PromiseBeforePersist) {
                self.driver.persisted(number);
            }
        }
        if let Some(soft_state) = actions.soft_state {
            self.leadership_changed(soft_state);
        }
        for envelope in actions.send {
            self.send(envelope);
        }
        for SnapshotToSend { to, term, snapshot } in actions.snapshots_to_send {
            self.stream_snapshot(to, term, snapshot);
        }
        self.queue_log_reads(actions.log_reads);
        if let Some(snapshot) = actions.restore {
            self.restore(snapshot);
        }
        self.queue_entries(actions.apply);
        self.reads_decided(actions.reads);
        self.outputs.extend(actions.refusal.map(Output::Refused));
    }

    /// Tells what became of the log.
    fn look_at_log(&mut self, writes: &[Write]) {
        let commit_index = self.driver.node().commit_index();
        if writes.is_empty() && commit_index == self.told_commit {
            return;
        }
        let change = LogChange::of(self.driver.node(), self.told_commit, writes);
        self.told_commit = commit_index;
        self.outputs.push(Output::Changed(Box::new(change)));
    }

    /// A response goes to the call that waits for it, a request to its peer.
    fn send(&mut self, envelope: Envelope) {
        let Envelope {
            to, call, message, ..
        } = envelope;
        if call == CallId::ZERO {
            let chunk = None;
            self.outputs.push(Output::Request { to, message, chunk });
        } else if let Some(origin) = self.calls.remove(&call) {
            let origin = Box::new(origin);
            self.outputs.push(Output::Response { origin, message });
        }
    }
}

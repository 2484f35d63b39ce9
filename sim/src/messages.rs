//! Messages between the nodes: how they leave, arrive and get lost.

use std::rc::Rc;

use kv_server::replication::SNAPSHOT_CHUNK_TIMEOUT;
use raft_core::{Message, NodeId};
use rand::RngExt;

use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::invariants::Violation;
use crate::machine::Life;
use crate::server::{ChunkTag, Origin};
use crate::simulation::{Event, Simulation};

/// How long a call waits for its answer if its connection is silent, as in kv-server.
const CALL_TIMEOUT: Micros = 5 * SECOND;
/// The same for a chunk of a snapshot.
const CHUNK_TIMEOUT: Micros = SNAPSHOT_CHUNK_TIMEOUT.as_secs() * SECOND;

/// What the caller learns of a call that gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The connection broke, and both ends know it.
    ConnectionBroke,
    /// Nothing, until it has waited long enough.
    NoAnswer,
}

impl Simulation<'_> {
    pub(crate) fn send_request(
        &mut self,
        from: Life,
        to: NodeId,
        request: Message,
        chunk: Option<ChunkTag>,
    ) -> Result<(), Violation> {
        self.trace.message(self.queue.now(), from.node, to, &request);
        self.traffic.sent(from.node, to, &request);
        self.totals.messages += 1;
        if let Some(machine) = self.machines.get(&from.node)
            && let Some(durable) = machine.durable()
        {
            let store = machine.disk.incarnation();
            self.invariants.one_vote.asks(from.node, store, &request)?;
            self.invariants
                .durable_promises
                .asks(from.node, durable, &request)?;
        }
        let deliveries = self.deliveries();
        if deliveries.is_empty() {
            self.lose(from, to, chunk);
        }
        self.traffic.arrives(&request, deliveries.len());
        let origin = Origin {
            from: from.node,
            incarnation: from.incarnation,
            connection: self.network.connection(from.node, to),
            request: Rc::new(request),
            chunk,
        };
        self.may_break_transfer(from.node, to, &origin.request);
        for delay in deliveries {
            let origin = Box::new(origin.clone());
            self.queue.schedule(delay, Event::Request { to, origin });
        }
        Ok(())
    }

    pub(crate) fn request_arrives(&mut self, to: NodeId, origin: Origin) {
        let life = self.life_of(to);
        if self.network.connection(origin.from, to) != origin.connection {
            return self.lose_at_once(origin.caller(), to, origin.chunk);
        }
        if !self.network.is_open(origin.from, to) || self.server(life).is_none() {
            return self.lose(origin.caller(), to, origin.chunk);
        }
        self.input(life, |server| server.receive_request(origin));
    }

    pub(crate) fn send_response(
        &mut self,
        from: Life,
        origin: &Origin,
        response: Message,
    ) -> Result<(), Violation> {
        let from = from.node;
        self.trace.message(self.queue.now(), from, origin.from, &response);
        self.traffic.sent(from, origin.from, &response);
        self.totals.messages += 1;
        if let Some(machine) = self.machines.get(&from)
            && let Some(durable) = machine.durable()
        {
            let store = machine.disk.incarnation();
            self.invariants
                .one_vote
                .answers(from, store, &origin.request, &response)?;
            self.invariants
                .durable_promises
                .leaves(from, durable, &origin.request, &response)?;
        }
        let deliveries = self.deliveries();
        if deliveries.is_empty() {
            self.lose(origin.caller(), from, origin.chunk);
        }
        let response = Rc::new(response);
        for delay in deliveries {
            let answer = Box::new(PeerAnswer {
                message: Rc::clone(&response),
                connection: origin.connection,
                chunk: origin.chunk,
            });
            let to = origin.caller();
            self.queue.schedule(delay, Event::Response { to, from, answer });
        }
        self.may_break_transfer(from, origin.from, &origin.request);
        Ok(())
    }

    pub(crate) fn response_arrives(&mut self, to: Life, from: NodeId, answer: PeerAnswer) {
        let PeerAnswer {
            message,
            connection,
            chunk,
        } = answer;
        if self.network.connection(from, to.node) != connection {
            return self.lose_at_once(to, from, chunk);
        }
        if !self.network.is_open(from, to.node) {
            return self.lose(to, from, chunk);
        }
        self.input(to, |server| {
            server.receive_response(from, Rc::unwrap_or_clone(message), chunk);
        });
    }

    pub(crate) fn deliveries(&mut self) -> Vec<Micros> {
        self.network
            .deliveries(&mut self.generator, &mut self.totals.faults)
    }

    /// The caller learns at once, when the connection breaks, or only by its timeout.
    pub(crate) fn lose(&mut self, caller: Life, peer: NodeId, chunk: Option<ChunkTag>) {
        if self.generator.random_ratio(3, 4) {
            return self.lose_at_once(caller, peer, chunk);
        }
        let timeout = if chunk.is_some() {
            CHUNK_TIMEOUT
        } else {
            CALL_TIMEOUT
        };
        self.lose_after(timeout, caller, peer, chunk, Loss::NoAnswer);
    }

    fn lose_at_once(&mut self, caller: Life, peer: NodeId, chunk: Option<ChunkTag>) {
        let delay = self.generator.random_range(100..=50 * MILLISECOND);
        self.lose_after(delay, caller, peer, chunk, Loss::ConnectionBroke);
    }

    fn lose_after(&mut self, delay: Micros, caller: Life, peer: NodeId, chunk: Option<ChunkTag>, loss: Loss) {
        self.totals.drops += 1;
        let life = caller;
        let lost = Event::Lost {
            life,
            peer,
            chunk,
            loss,
        };
        self.queue.schedule(delay, lost);
    }
}

/// A response on its way.
#[derive(Clone, Debug)]
pub(crate) struct PeerAnswer {
    message: Rc<Message>,
    connection: u64,
    chunk: Option<ChunkTag>,
}

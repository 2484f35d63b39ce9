//! Messages between the nodes: how they leave, arrive and get lost.

use raft_core::{Message, NodeId};
use rand::RngExt;

use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::describe::Described;
use crate::invariants::Violation;
use crate::server::{ChunkTag, Origin};
use crate::simulation::{Event, Life, Simulation};

/// How long a call waits for its answer if its connection is silent, as in kv-server.
const CALL_TIMEOUT: Micros = 5 * SECOND;
/// The same for a chunk of a snapshot.
const CHUNK_TIMEOUT: Micros = 20 * SECOND;

impl Simulation<'_> {
    pub(crate) fn send_request(
        &mut self,
        from: Life,
        to: NodeId,
        message: &Message,
        chunk: Option<ChunkTag>,
    ) {
        self.tell(format_args!("{} -> {to} {}", from.node, Described(message)));
        self.totals.messages += 1;
        let deliveries = self.network.deliveries(&mut self.generator);
        if deliveries.is_empty() {
            self.lose(from, to, chunk);
        }
        for delay in deliveries {
            let message = message.clone();
            self.queue.schedule(
                delay,
                Event::Request {
                    from,
                    to,
                    message,
                    chunk,
                },
            );
        }
    }

    pub(crate) fn request_arrives(
        &mut self,
        from: Life,
        to: NodeId,
        message: Message,
        chunk: Option<ChunkTag>,
    ) {
        let life = self.life_of(to);
        if !self.network.is_open(from.node, to) || self.server(life).is_none() {
            return self.lose(from, to, chunk);
        }
        let origin = Origin {
            from: from.node,
            incarnation: from.incarnation,
            request: message,
            chunk,
        };
        self.input(life, |server| server.receive_request(origin));
    }

    pub(crate) fn send_response(
        &mut self,
        from: Life,
        origin: &Origin,
        message: &Message,
    ) -> Result<(), Violation> {
        self.tell(format_args!(
            "{} -> {} {}",
            from.node,
            origin.from,
            Described(message)
        ));
        self.totals.messages += 1;
        if let Some(server) = self
            .machines
            .get(&from.node)
            .and_then(|machine| machine.server.as_ref())
        {
            self.invariants
                .durable_promises
                .leaves(from.node, server.durable(), &origin.request, message)?;
        }
        let to = Life {
            node: origin.from,
            incarnation: origin.incarnation,
        };
        let (from, chunk) = (from.node, origin.chunk);
        let deliveries = self.network.deliveries(&mut self.generator);
        if deliveries.is_empty() {
            self.lose(to, from, chunk);
        }
        for delay in deliveries {
            let message = message.clone();
            self.queue.schedule(
                delay,
                Event::Response {
                    to,
                    from,
                    message,
                    chunk,
                },
            );
        }
        Ok(())
    }

    pub(crate) fn response_arrives(
        &mut self,
        to: Life,
        from: NodeId,
        message: Message,
        chunk: Option<ChunkTag>,
    ) {
        if !self.network.is_open(from, to.node) {
            return self.lose(to, from, chunk);
        }
        self.input(to, |server| server.receive_response(from, message, chunk));
    }

    /// The caller learns at once, when the connection breaks, or only by its timeout.
    pub(crate) fn lose(&mut self, caller: Life, peer: NodeId, chunk: Option<ChunkTag>) {
        self.totals.drops += 1;
        let delay = if self.generator.random_ratio(3, 4) {
            self.generator.random_range(100..=50 * MILLISECOND)
        } else if chunk.is_some() {
            CHUNK_TIMEOUT
        } else {
            CALL_TIMEOUT
        };
        let life = caller;
        self.queue.schedule(delay, Event::Lost { life, peer, chunk });
    }
}

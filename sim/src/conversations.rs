//! What the clients and the nodes say to each other.

use raft_core::NodeId;
use rand::RngExt;

use crate::client::Progress;
use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::invariants::Violation;
use crate::server::{Answer, RequestId};
use crate::simulation::{Event, Simulation};

impl Simulation<'_> {
    pub(crate) fn wake_after(&mut self, client: usize, min: Micros, max: Micros) {
        self.wakes[client] += 1;
        let wake = self.wakes[client];
        let delay = self.generator.random_range(min..=max);
        self.queue.schedule(delay, Event::ClientWakes { client, wake });
    }

    pub(crate) fn client_wakes(&mut self, client: usize, wake: u64) {
        if self.wakes[client] != wake {
            return;
        }
        let Self {
            generator,
            invariants,
            may_begin,
            scenario,
            ..
        } = self;
        let asking = &mut self.clients[client];
        let Some(request) = asking.next_request(generator, invariants, *may_begin) else {
            return;
        };
        let target = asking.target;
        // If no answer comes, somebody else is asked next time.
        asking.target = NodeId(generator.random_range(1..=scenario.nodes));
        let id = request.id;
        self.trace.tell(
            self.queue.now(),
            format_args!("client {} asks {target}: operation {}", id.client, id.operation),
        );
        for delay in self.network.deliveries(&mut self.generator) {
            self.queue
                .schedule(delay, Event::ClientAsks(target, request.clone()));
        }
        self.wake_after(client, 100 * MILLISECOND, SECOND);
    }

    pub(crate) fn send_answer(&mut self, from: NodeId, id: RequestId, answer: &Answer) {
        for delay in self.network.deliveries(&mut self.generator) {
            self.queue
                .schedule(delay, Event::ClientHears(from, id, answer.clone()));
        }
    }

    pub(crate) fn client_hears(
        &mut self,
        from: NodeId,
        id: RequestId,
        answer: Answer,
    ) -> Result<(), Violation> {
        self.tell(format_args!(
            "client {} hears of {}: {answer:?}",
            id.client, id.operation
        ));
        let client = usize::try_from(id.client - 1).unwrap_or(usize::MAX);
        let Some(hearing) = self.clients.get_mut(client) else {
            return Ok(());
        };
        match hearing.answered(id, answer, &mut self.invariants)? {
            Progress::Ignored => {}
            Progress::Done => {
                self.totals.operations += 1;
                hearing.target = from;
                self.wake_after(client, 0, 60 * MILLISECOND);
            }
            Progress::Retry => self.wake_after(client, MILLISECOND, 100 * MILLISECOND),
        }
        Ok(())
    }
}

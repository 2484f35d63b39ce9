//! What the clients and the nodes say to each other.

use rand::RngExt;

use raft_core::NodeId;

use crate::client::Step;
use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::invariants::Violation;
use crate::server::{Answer, RequestId};
use crate::simulation::{Event, Simulation};

/// How soon a client knows that a node refuses it.
const REFUSED_WITHIN: Micros = 5 * MILLISECOND;

impl Simulation<'_> {
    pub(crate) fn wake_after(&mut self, client: usize, min: Micros, max: Micros) {
        let delay = self.generator.random_range(min..=max);
        self.wake_in(client, delay);
    }

    fn wake_in(&mut self, client: usize, delay: Micros) {
        self.wakes[client] += 1;
        let wake = self.wakes[client];
        self.queue.schedule(delay, Event::ClientWakes { client, wake });
    }

    pub(crate) fn client_wakes(&mut self, client: usize, wake: u64) -> Result<(), Violation> {
        if self.wakes[client] != wake {
            return Ok(());
        }
        let now = self.queue.now();
        let Self {
            generator,
            invariants,
            history,
            ..
        } = self;
        let waking = &mut self.clients[client];
        let step = waking.wake(now, self.may_begin, generator, invariants, history)?;
        self.client_does(client, step);
        Ok(())
    }

    fn client_does(&mut self, client: usize, step: Step) {
        match step {
            Step::Ignore => {}
            Step::Ask {
                node,
                request,
                patience,
            } => {
                let (id, attempt) = (request.id.client, request.id.attempt);
                self.tell(format_args!(
                    "client {id} asks {node}, attempt {attempt}: {}",
                    request.question
                ));
                if self.network.refuses(id, node) {
                    self.clients[client].connection_refused();
                    return self.wake_after(client, MILLISECOND, REFUSED_WITHIN);
                }
                if self.network.serves(id, node) {
                    for delay in self.deliveries() {
                        self.queue
                            .schedule(delay, Event::ClientAsks(node, request.clone()));
                    }
                }
                self.wake_in(client, patience);
            }
            Step::Pause(pause) => self.wake_in(client, pause),
            Step::Ended { is_done } => {
                self.totals.operations += u64::from(is_done);
                self.wake_after(client, 0, self.scenario.think_time_max);
            }
            Step::Rest if self.may_begin => self.wake_in(client, SECOND),
            Step::Rest => {}
        }
    }

    pub(crate) fn send_answer(&mut self, from: NodeId, id: RequestId, answer: &Answer) {
        if self.network.serves(id.client, from) {
            for delay in self.deliveries() {
                self.queue
                    .schedule(delay, Event::ClientHears(from, id, answer.clone()));
            }
        }
    }

    pub(crate) fn client_hears(
        &mut self,
        from: NodeId,
        id: RequestId,
        answer: Answer,
    ) -> Result<(), Violation> {
        self.tell(format_args!(
            "client {} hears of attempt {}: {answer}",
            id.client, id.attempt
        ));
        let client = usize::try_from(id.client - 1).unwrap_or(usize::MAX);
        let now = self.queue.now();
        let Some(hearing) = self.clients.get_mut(client) else {
            return Ok(());
        };
        let step = hearing.hear(now, from, id, answer, &mut self.invariants, &mut self.history)?;
        self.client_does(client, step);
        Ok(())
    }
}

//! Followers that ask their leader for a read index.

use raft_core::{LogIndex, NodeId, ReadId};

use crate::clock::{Micros, SECOND};
use crate::machine::Life;
use crate::server::{IndexMessage, IndexQuestion};
use crate::simulation::{Event, Simulation};

/// How long a follower waits for a read index.
const READ_INDEX_TIMEOUT: Micros = 2 * SECOND;

impl Simulation<'_> {
    pub(crate) fn ask_index(&mut self, from: Life, leader: NodeId, read: ReadId) {
        let question = IndexQuestion { from, read };
        self.tell(format_args!("{} -> {leader} asks for a read index", from.node));
        for delay in self.deliveries() {
            let message = IndexMessage::Question { to: leader, question };
            self.queue.schedule(delay, Event::ReadIndex(message));
        }
        let timeout = IndexMessage::Timeout(question);
        self.queue.schedule(READ_INDEX_TIMEOUT, Event::ReadIndex(timeout));
    }

    pub(crate) fn answer_index(&mut self, from: NodeId, question: IndexQuestion, index: Option<LogIndex>) {
        self.tell(format_args!(
            "{from} -> {} read index {index:?}",
            question.from.node
        ));
        for delay in self.deliveries() {
            let message = IndexMessage::Answer {
                from,
                question,
                index,
            };
            self.queue.schedule(delay, Event::ReadIndex(message));
        }
    }

    pub(crate) fn read_index_arrives(&mut self, message: IndexMessage) {
        match message {
            IndexMessage::Question { to, question } if self.network.is_open(question.from.node, to) => {
                let life = self.life_of(to);
                self.input(life, |server| server.receive_index_question(question));
            }
            IndexMessage::Answer {
                from,
                question,
                index,
            } if self.network.is_open(from, question.from.node) => {
                self.input(question.from, |server| server.receive_index(question.read, index));
            }
            IndexMessage::Timeout(question) => {
                self.input(question.from, |server| server.receive_index(question.read, None));
            }
            // Lost at a link that is cut.
            IndexMessage::Question { .. } | IndexMessage::Answer { .. } => {}
        }
    }
}

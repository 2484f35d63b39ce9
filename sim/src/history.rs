//! What the clients saw: every operation with its beginning, its end and its outcome.

use bytes::Bytes;

use crate::clock::Micros;
use crate::linearizability::Outcome;

/// How a get is served. All ways are linearizable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadWay {
    /// By the leader after a round of heartbeats (thesis §6.4).
    Round,
    /// By the leader on its lease, if it has one (thesis §6.4.1).
    Lease,
    /// By any node, which asks its leader for a read index.
    Anywhere,
    /// Through the log.
    Log,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Put {
        key: Bytes,
        value: Bytes,
    },
    Append {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    Get {
        key: Bytes,
        way: ReadWay,
    },
    /// All keys from `from` on and before `to`, as of one point in time.
    Scan {
        from: Bytes,
        to: Bytes,
    },
}

impl Request {
    /// Whether it changes something.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Self::Get { .. } | Self::Scan { .. })
    }
}

/// One operation. `start` and `end` number the moments of the run, so that no two are equal.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) client: u64,
    pub(crate) request: Request,
    pub(crate) start: u64,
    pub(crate) end: Option<u64>,
    /// Unknown also as long as it has not ended.
    pub(crate) outcome: Outcome,
    /// When it began, in virtual time.
    pub(crate) began_at: Micros,
    /// When it ended, in virtual time.
    pub(crate) ended_at: Option<Micros>,
}

/// Names an operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OperationId(usize);

/// All operations of a run, in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct History {
    operations: Vec<Operation>,
    moment: u64,
}

impl History {
    /// `client` begins.
    pub(crate) fn begin(&mut self, client: u64, request: Request, now: Micros) -> OperationId {
        let start = self.next_moment();
        self.operations.push(Operation {
            client,
            request,
            start,
            end: None,
            outcome: Outcome::Unknown,
            began_at: now,
            ended_at: None,
        });
        OperationId(self.operations.len() - 1)
    }

    /// A read is asked for again: every attempt is a read of its own, and only the last one counts.
    pub(crate) fn begin_again(&mut self, id: OperationId, now: Micros) {
        let start = self.next_moment();
        let operation = &mut self.operations[id.0];
        operation.start = start;
        operation.began_at = now;
    }

    /// The operation ended.
    pub(crate) fn end(&mut self, id: OperationId, now: Micros, outcome: Outcome) {
        let end = self.next_moment();
        let operation = &mut self.operations[id.0];
        // What nobody knows of may take effect at any later time.
        operation.end = (outcome != Outcome::Unknown).then_some(end);
        operation.outcome = outcome;
        operation.ended_at = Some(now);
    }

    pub(crate) fn get(&self, id: OperationId) -> &Operation {
        &self.operations[id.0]
    }

    pub(crate) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }
}

//! What a replicator knows: when to dial again, and how far a snapshot is.

use std::time::Duration;

use raft_core::{InstallSnapshot, LogIndex, NodeId, SnapshotMeta, SnapshotOutcome, Term};
use rand::{Rng, RngExt};

/// The bytes of a snapshot file that travel in one `InstallSnapshot`. One frame holds it with room to spare.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 * 1024;

/// How long to wait for the answer to a chunk, which comes behind the peer's write of it, before asking the peer how
/// far it is.
pub const SNAPSHOT_CHUNK_TIMEOUT: Duration = Duration::from_secs(2);

/// How many such questions in a row may stay unanswered before a transfer is given up until the next sign of life.
const MAX_UNANSWERED: u32 = 10;

/// How often a damaged or refused transfer starts anew before it is given up until the next sign of life.
const MAX_RESTARTS: u32 = 3;

/// Waits between attempts to connect: exponential, with jitter, so that a cluster that comes back does not
/// come back in step.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Starts at `first` and doubles up to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            first,
            longest,
        }
    }

    /// The next wait: between half of the current step and all of it.
    pub fn next_wait(&mut self, generator: &mut impl Rng) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        step.mul_f64(generator.random_range(0.5..=1.0))
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// One snapshot on its way to one peer (Raft §7): what to send next, and when it is over. Whoever resumes
/// gets told the offset by the peer's answer.
#[derive(Debug)]
pub struct SnapshotTransfer {
    term: Term,
    leader_id: NodeId,
    snapshot: SnapshotMeta,
    offset: u64,
    restarts: u32,
    unanswered: u32,
}

/// What a transfer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferStep {
    /// Send the chunk at [`SnapshotTransfer::offset`].
    Send,
    /// No answer came: ask with an empty chunk where to go on. It costs a slow link nothing, and whatever got
    /// lost, the chunk or its answer, the peer tells what it needs.
    AskWhere,
    /// The peer has all of it and is verifying; ask again with an empty last chunk after a pause.
    AskAgain,
    /// The peer has installed it.
    Installed,
    /// The transfer is over without success.
    Failed,
}

impl SnapshotTransfer {
    /// A transfer of `snapshot` by the leader of `term`, from the start of the file.
    #[must_use]
    pub fn new(term: Term, leader_id: NodeId, snapshot: SnapshotMeta) -> Self {
        Self {
            term,
            leader_id,
            snapshot,
            offset: 0,
            restarts: 0,
            unanswered: 0,
        }
    }

    /// Which snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &SnapshotMeta {
        &self.snapshot
    }

    /// Where the next chunk starts, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The request that carries `data`, the bytes of the file at [`SnapshotTransfer::offset`].
    #[must_use]
    pub fn request(&self, data: bytes::Bytes) -> InstallSnapshot {
        let end = self.offset + data.len() as u64;
        InstallSnapshot {
            term: self.term,
            leader_id: self.leader_id,
            snapshot: self.snapshot.clone(),
            offset: self.offset,
            done: end >= self.snapshot.size_bytes,
            data,
        }
    }

    /// Takes the peer's answer into account.
    pub fn answered(&mut self, last_included_index: LogIndex, outcome: SnapshotOutcome) -> TransferStep {
        self.unanswered = 0;
        if last_included_index != self.snapshot.last_included_index {
            return TransferStep::Failed;
        }
        match outcome {
            SnapshotOutcome::Installed => TransferStep::Installed,
            SnapshotOutcome::Stale => TransferStep::Failed,
            SnapshotOutcome::Continue { next_offset } if next_offset > self.snapshot.size_bytes => {
                TransferStep::Failed
            }
            SnapshotOutcome::Continue { next_offset } => self.go_on_at(next_offset),
            SnapshotOutcome::Damaged => self.go_on_at(0),
        }
    }

    /// No answer came within [`SNAPSHOT_CHUNK_TIMEOUT`], on a connection that stands.
    pub fn not_answered(&mut self) -> TransferStep {
        self.unanswered += 1;
        if self.unanswered > MAX_UNANSWERED {
            TransferStep::Failed
        } else {
            TransferStep::AskWhere
        }
    }

    fn go_on_at(&mut self, next_offset: u64) -> TransferStep {
        if next_offset < self.offset {
            self.restarts += 1;
            if self.restarts > MAX_RESTARTS {
                return TransferStep::Failed;
            }
        }
        self.offset = next_offset;
        if next_offset == self.snapshot.size_bytes {
            TransferStep::AskAgain
        } else {
            TransferStep::Send
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use raft_core::{LogIndex, NodeId, SnapshotMeta, SnapshotOutcome, Term};
    use rand::SeedableRng;

    use super::{Backoff, MAX_UNANSWERED, SnapshotTransfer, TransferStep};

    fn transfer_of(size_bytes: u64) -> SnapshotTransfer {
        let snapshot = SnapshotMeta {
            last_included_index: LogIndex(9),
            size_bytes,
            ..SnapshotMeta::default()
        };
        SnapshotTransfer::new(Term(2), NodeId(1), snapshot)
    }

    #[test]
    fn a_transfer_goes_on_where_the_peer_says() {
        let mut transfer = transfer_of(10);
        assert!(!transfer.request(Bytes::from_static(b"abcd")).done);
        assert_eq!(
            transfer.answered(LogIndex(9), SnapshotOutcome::Continue { next_offset: 4 }),
            TransferStep::Send
        );
        let last = transfer.request(Bytes::from_static(b"efghij"));
        assert_eq!((last.offset, last.done), (4, true));
        assert_eq!(
            transfer.answered(LogIndex(9), SnapshotOutcome::Installed),
            TransferStep::Installed
        );
    }

    #[test]
    fn a_peer_that_verifies_is_asked_again_with_an_empty_last_chunk() {
        let mut transfer = transfer_of(10);
        let step = transfer.answered(LogIndex(9), SnapshotOutcome::Continue { next_offset: 10 });
        assert_eq!(step, TransferStep::AskAgain);
        assert!(transfer.request(Bytes::new()).done);
    }

    #[test]
    fn a_transfer_that_starts_over_again_and_again_is_given_up() {
        let mut transfer = transfer_of(10);
        let mut steps = Vec::new();
        for _ in 0..4 {
            transfer.answered(LogIndex(9), SnapshotOutcome::Continue { next_offset: 5 });
            steps.push(transfer.answered(LogIndex(9), SnapshotOutcome::Damaged));
        }
        assert_eq!(
            steps,
            [
                TransferStep::Send,
                TransferStep::Send,
                TransferStep::Send,
                TransferStep::Failed
            ]
        );
    }

    #[test]
    fn a_chunk_without_an_answer_is_asked_about_and_a_peer_that_stays_silent_is_given_up() {
        let mut transfer = transfer_of(10);
        assert_eq!(transfer.not_answered(), TransferStep::AskWhere);
        let question = transfer.request(Bytes::new());
        assert_eq!((question.offset, question.done), (0, false));
        transfer.answered(LogIndex(9), SnapshotOutcome::Continue { next_offset: 4 });
        for _ in 0..MAX_UNANSWERED {
            assert_eq!(transfer.not_answered(), TransferStep::AskWhere);
        }
        assert_eq!(transfer.not_answered(), TransferStep::Failed);
    }

    #[test]
    fn an_answer_past_the_end_or_about_another_snapshot_ends_the_transfer() {
        let past = transfer_of(10).answered(LogIndex(9), SnapshotOutcome::Continue { next_offset: 11 });
        let other = transfer_of(10).answered(LogIndex(8), SnapshotOutcome::Continue { next_offset: 1 });
        assert_eq!((past, other), (TransferStep::Failed, TransferStep::Failed));
    }

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_a_success() {
        let mut generator = rand::rngs::StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for step in [100, 200, 400, 400] {
            let wait = backoff.next_wait(&mut generator).as_millis();
            assert!((step / 2..=step).contains(&wait), "{wait} ms in step {step}");
        }
        backoff.reset();
        assert!(backoff.next_wait(&mut generator) <= Duration::from_millis(100));
    }
}

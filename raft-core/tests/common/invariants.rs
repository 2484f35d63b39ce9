//! What must hold after every step of every run (Raft figure 3; thesis §6.4), whatever the test does.

use std::collections::BTreeMap;

use raft_core::{
    AppendOutcome, Configuration, Entry, Envelope, Event, Incarnation, LogIndex, Message, NodeId, Payload,
    ReadId, ReadOutcome, Role, SnapshotOutcome, Term, Write,
};

use super::disk::Disk;
use super::server::{Happening, Server};

/// Watches a cluster and panics when it breaks a promise.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(Term, NodeId, Incarnation), NodeId>,
    /// Every entry that was ever written: what it carries, and the term of the one before.
    written: BTreeMap<(LogIndex, Term), (Payload, Option<Term>)>,
    committed: BTreeMap<LogIndex, Term>,
    applied: BTreeMap<LogIndex, Entry>,
    /// How far the cluster was committed when each read began, and by whom it was taken.
    reads: BTreeMap<ReadId, (NodeId, LogIndex)>,
}

impl Invariants {
    /// The highest entry that any server has ever known to be committed.
    pub(crate) fn committed_index(&self) -> LogIndex {
        self.committed.keys().next_back().copied().unwrap_or_default()
    }

    /// The command that was committed at `index`, if any server has applied it.
    pub(crate) fn applied_entry(&self, index: LogIndex) -> Option<&Entry> {
        self.applied.get(&index)
    }

    pub(crate) fn read_begins(&mut self, server: NodeId, read: ReadId) {
        let committed = self.committed_index();
        assert!(
            self.reads.insert(read, (server, committed)).is_none(),
            "the test numbers its reads"
        );
    }

    /// Reads that were neither confirmed nor dropped.
    pub(crate) fn open_reads(&self) -> usize {
        self.reads.len()
    }

    /// By which stores the members take part, as of the last entry that was applied anywhere.
    pub(crate) fn registry(&self) -> Option<&Configuration> {
        self.applied
            .values()
            .rev()
            .find_map(|entry| match &entry.payload {
                Payload::Configuration(configuration) => Some(configuration),
                _ => None,
            })
    }

    /// A crash takes the reads of its server with it.
    pub(crate) fn crashed(&mut self, server: NodeId) {
        self.reads.retain(|_, (by, _)| *by != server);
    }

    /// `server` did this. `disks` are all disks, also of servers that are down, and those that
    /// were lost.
    pub(crate) fn check(
        &mut self,
        server: &Server,
        happening: &Happening,
        disks: &BTreeMap<NodeId, Vec<&Disk>>,
    ) {
        match happening {
            Happening::Event(Event::BecameLeader { term }) => self.check_leader(server, *term, disks),
            Happening::Sends(envelope) => self.check_message(server, envelope),
            Happening::Persists(writes) => self.check_writes(server, writes),
            Happening::Commits(index) => self.check_commit(server, *index, disks),
            Happening::Applies(entry) => self.check_applied(server, entry),
            Happening::Read(outcome) => self.check_read(server.id(), *outcome),
            Happening::Event(_) | Happening::Restores(_) => {}
        }
    }

    /// Election safety: at most one leader a term. Leader completeness: it holds all that is committed. And
    /// it was elected by votes that are on disks.
    fn check_leader(&mut self, server: &Server, term: Term, disks: &BTreeMap<NodeId, Vec<&Disk>>) {
        let leader = server.id();
        let elected = *self.leaders.entry(term).or_insert(leader);
        assert_eq!(elected, leader, "election safety: two leaders in term {term}");
        let first_log_index = server.node.status().first_log_index;
        for (index, committed) in self.committed.range(first_log_index..) {
            assert_eq!(
                server.node.term_at(*index),
                Some(*committed),
                "leader completeness: leader {leader} of term {term} lacks entry {index}@{committed}"
            );
        }
        let has_voted = |id: NodeId| {
            disks[&id].iter().any(|disk| {
                let state = disk.hard_state();
                state.current_term > term || (state.current_term == term && state.voted_for == Some(leader))
            })
        };
        assert!(
            server.node.status().configuration.has_quorum(has_voted),
            "leader {leader} of term {term} was elected by votes that are not durable"
        );
    }

    fn check_message(&mut self, server: &Server, envelope: &Envelope) {
        let id = server.id();
        match &envelope.message {
            Message::RequestVoteResponse(answer) if answer.vote_granted => {
                self.check_vote(server, answer.term, envelope.to);
            }
            Message::RequestVote(request) => self.check_vote(server, request.term, id),
            Message::AppendEntriesResponse(answer) => {
                if let AppendOutcome::Matched { match_index } = answer.outcome {
                    check_acknowledged(server, answer.term, match_index);
                }
            }
            Message::InstallSnapshotResponse(answer) if answer.outcome == SnapshotOutcome::Installed => {
                check_acknowledged(server, answer.term, answer.last_included_index);
            }
            Message::AppendEntries(request) => assert_eq!(
                self.leaders.get(&request.term),
                Some(&id),
                "only the leader of term {} replicates in it",
                request.term
            ),
            _ => {}
        }
    }

    /// One vote a term (Raft §5.2), also across crashes, and on disk before anyone hears of it.
    fn check_vote(&mut self, server: &Server, term: Term, candidate: NodeId) {
        let id = server.id();
        let voted_for = *self
            .votes
            .entry((term, id, server.node.incarnation()))
            .or_insert(candidate);
        assert_eq!(voted_for, candidate, "server {id} votes twice in term {term}");
        let durable = server.disk.hard_state();
        assert!(
            durable.current_term > term
                || (durable.current_term == term && durable.voted_for == Some(candidate)),
            "server {id} tells of a vote in term {term} that is not durable"
        );
    }

    /// Log matching: index and term name one entry, and one entry before it, on every server.
    fn check_writes(&mut self, server: &Server, writes: &[Write]) {
        for entries in writes.iter().filter_map(|write| match write {
            Write::Append(entries) => Some(entries),
            _ => None,
        }) {
            let mut before = None;
            for entry in entries {
                self.check_written(server.id(), entry, before);
                before = Some(entry.term);
            }
        }
    }

    fn check_written(&mut self, id: NodeId, entry: &Entry, before: Option<Term>) {
        let place = (entry.index, entry.term);
        let known = self
            .written
            .entry(place)
            .or_insert_with(|| (entry.payload.clone(), before));
        assert_eq!(
            known.0, entry.payload,
            "log matching: server {id} writes another {place:?}"
        );
        known.1 = known.1.or(before);
        assert!(
            before.is_none() || known.1 == before,
            "log matching: server {id} writes {place:?} behind another entry"
        );
    }

    /// What is committed is on the disks of a quorum, and stays what it is.
    fn check_commit(&mut self, server: &Server, index: LogIndex, disks: &BTreeMap<NodeId, Vec<&Disk>>) {
        let node = &server.node;
        let first = LogIndex(self.committed_index().get() + 1).max(node.status().first_log_index);
        for index in (first.get()..=index.get()).map(LogIndex) {
            let term = node.term_at(index).expect("the log holds what it commits");
            assert!(
                node.status()
                    .configuration
                    .has_quorum(|id| disks[&id].iter().any(|disk| disk.holds(index, term))),
                "server {} commits {index}@{term}, which no quorum has on disk",
                server.id()
            );
            self.committed.insert(index, term);
        }
        if let (Some(term), Some(known)) = (node.term_at(index), self.committed.get(&index)) {
            assert_eq!(
                term, *known,
                "state machine safety: two entries committed at {index}"
            );
        }
        if node.role() == Role::Leader {
            assert_eq!(
                node.term_at(index),
                Some(node.soft_state().term),
                "a leader commits by counting only entries of its own term (Raft §5.4.2)"
            );
        }
    }

    /// State machine safety: no two servers apply different entries at one index.
    fn check_applied(&mut self, server: &Server, entry: &Entry) {
        assert!(
            server.disk.holds(entry.index, entry.term),
            "server {} applies {}, which it could forget in a crash",
            server.id(),
            entry.index
        );
        assert_eq!(
            self.committed.get(&entry.index),
            Some(&entry.term),
            "state machine safety: {}@{} was applied and is not what was committed",
            entry.index,
            entry.term
        );
        let known = self.applied.entry(entry.index).or_insert_with(|| entry.clone());
        assert_eq!(known, entry, "state machine safety at {}", entry.index);
    }

    /// A read sees everything that was committed before it began, and is answered once.
    fn check_read(&mut self, id: NodeId, outcome: ReadOutcome) {
        let (ReadOutcome::Confirmed { id: read, .. } | ReadOutcome::Dropped { id: read }) = outcome;
        let (by, committed) = self
            .reads
            .remove(&read)
            .unwrap_or_else(|| panic!("read {read} is answered twice, or was never asked"));
        assert_eq!(by, id);
        if let ReadOutcome::Confirmed { index, .. } = outcome {
            assert!(
                index >= committed,
                "read {read} is confirmed at {index}, and {committed} was committed before it began"
            );
        }
    }
}

/// What is acknowledged is on disk, unless a leader of a later term has replaced it there meanwhile: then it
/// is not committed, and no acknowledgement makes it so.
fn check_acknowledged(server: &Server, term: Term, index: LogIndex) {
    let disk = &server.disk;
    assert!(
        disk.last_index() >= index || disk.hard_state().current_term > term,
        "server {} acknowledges {index} and has only {} on disk",
        server.id(),
        disk.last_index()
    );
}

//! One node with its driver. It obeys `Ready` in the order that the core asks for, one queue a duty:
//! what may leave has left, disk writes wait for [`Server::persist`], the state machine for [`Server::apply`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft_core::{
    CallId, Config, Entry, Envelope, Event, InstallSnapshot, LogIndex, LogRead, Message, Node, NodeId,
    Payload, ReadId, ReadOutcome, Ready, Refusal, SnapshotMeta, SnapshotOutcome, SnapshotToSend, Storage,
    Term, Write,
};

use super::disk::{Disk, checksum};

/// What a server did, in order.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Event(Event),
    Sends(Envelope),
    Persists(Vec<Write>),
    Commits(LogIndex),
    Applies(Entry),
    Restores(SnapshotMeta),
    Read(ReadOutcome),
}

/// How many bytes of a snapshot go into one message.
pub(crate) const CHUNK_BYTES: usize = 16;
/// How long a snapshot's sender waits for an answer, in ticks.
const TRANSFER_PATIENCE: u64 = 5;
/// More batches in a row than this, and the node is spinning.
const MAX_READY_IN_A_ROW: u32 = 1_000;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) node: Node,
    pub(crate) disk: Disk,
    pub(crate) machine: Machine,
    to_persist: VecDeque<Ready>,
    to_apply: VecDeque<Work>,
    to_read: VecDeque<LogRead>,
    /// Entries that were read back from the disk, ever.
    pub(crate) read_back: usize,
    transfers: BTreeMap<NodeId, Transfer>,
    unanswered: BTreeSet<CallId>,
    calls: u64,
    happenings: Vec<Happening>,
    commit_index: LogIndex,
    /// The node must not take part.
    pub(crate) refusal: Option<Refusal>,
}

/// The state machine: a list of the commands it was given, one a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) lines: Vec<u8>,
    pub(crate) applied: LogIndex,
    applied_term: Term,
}

#[derive(Debug)]
enum Work {
    Restore(SnapshotMeta),
    Apply(Vec<Entry>),
}

/// A snapshot on its way to a peer.
#[derive(Debug)]
struct Transfer {
    job: SnapshotToSend,
    file: Vec<u8>,
    /// Where the chunk that is on its way starts.
    offset: u64,
    patience: u64,
}

impl Server {
    /// Starts a server from what its disk holds.
    pub(crate) fn start(mut config: Config, mut disk: Disk) -> Self {
        config.incarnation = disk.incarnation();
        let restored = disk.restore().unwrap();
        let mut machine = Machine::default();
        machine.restore(&restored.snapshot, disk.file(&restored.snapshot));
        let node = Node::new(config, restored).unwrap();
        let commit_index = node.status().commit_index;
        let mut server = Self {
            node,
            disk,
            machine,
            to_persist: VecDeque::new(),
            to_apply: VecDeque::new(),
            to_read: VecDeque::new(),
            read_back: 0,
            transfers: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            calls: 0,
            happenings: Vec::new(),
            commit_index,
            refusal: None,
        };
        server.work();
        server
    }

    /// The power goes out: only the disk is left.
    pub(crate) fn crash(self) -> Disk {
        self.disk
    }

    pub(crate) fn id(&self) -> NodeId {
        self.node.id()
    }

    pub(crate) fn take_happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happenings)
    }

    /// The messages that left since this was last asked.
    pub(crate) fn sent(&mut self) -> Vec<Message> {
        let sent = |happening| match happening {
            Happening::Sends(envelope) => Some(envelope.message),
            _ => None,
        };
        self.take_happenings().into_iter().filter_map(sent).collect()
    }

    /// Requests that are not answered yet.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    pub(crate) fn tick_election(&mut self) {
        self.node.tick_election();
        self.work();
        self.lose_patience();
    }

    pub(crate) fn tick_heartbeat(&mut self) {
        self.node.tick_heartbeat();
        self.work();
    }

    pub(crate) fn propose(&mut self, command: &str) -> Option<(Term, LogIndex)> {
        let place = self.node.propose(Bytes::copy_from_slice(command.as_bytes())).ok();
        self.work();
        place
    }

    pub(crate) fn read(&mut self, id: u64) -> bool {
        let taken = self.node.read_index(ReadId(id)).is_ok();
        self.work();
        taken
    }

    pub(crate) fn transfer_leadership(&mut self) -> Option<NodeId> {
        let target = self.node.transfer_leadership();
        self.work();
        target
    }

    /// A message arrives. A request gets a call of its own, even if it is a duplicate.
    pub(crate) fn receive(&mut self, mut envelope: Envelope) {
        if is_request(&envelope.message) {
            self.calls += 1;
            envelope.call = CallId(self.calls);
            self.unanswered.insert(envelope.call);
        }
        let from = envelope.from;
        let answer = match envelope.message {
            Message::InstallSnapshotResponse(response) => Some(response),
            _ => None,
        };
        self.node.step(envelope);
        self.work();
        if let Some(answer) = answer {
            self.go_on_with_transfer(from, answer.last_included_index, answer.outcome);
        }
    }

    /// As [`Self::receive`], for a test that plays the other servers itself.
    pub(crate) fn receive_from(&mut self, from: u64, message: Message) {
        self.receive(Envelope {
            from: NodeId(from),
            to: self.id(),
            call: CallId::ZERO,
            message,
        });
    }

    /// Whether disk writes wait.
    pub(crate) fn has_to_persist(&self) -> bool {
        !self.to_persist.is_empty()
    }

    /// Makes the oldest `batches` durable in one go; reports only the last of them, as a driver does that
    /// gathers what queued up while it was syncing.
    pub(crate) fn persist(&mut self, batches: usize) {
        let mut reported = None;
        let mut verdicts = Vec::new();
        let mut released = Vec::new();
        for _ in 0..batches {
            let Some(ready) = self.to_persist.pop_front() else {
                break;
            };
            for chunk in &ready.snapshot_chunks {
                if let Some(intact) = self.disk.stage(chunk) {
                    verdicts.push((chunk.snapshot.clone(), intact));
                }
            }
            self.disk.write(&ready.writes).unwrap();
            if ready.must_persist() {
                reported = Some(ready.number);
                self.happenings.push(Happening::Persists(ready.writes));
            }
            released.extend(ready.messages_after_persist);
        }
        for envelope in released {
            self.send(envelope);
        }
        if let Some(number) = reported {
            self.node.persisted(number);
        }
        for (snapshot, intact) in verdicts {
            self.node.snapshot_received(&snapshot, intact);
        }
        self.work();
    }

    pub(crate) fn persist_all(&mut self) {
        while self.has_to_persist() {
            self.persist(usize::MAX);
        }
    }

    pub(crate) fn has_to_read(&self) -> bool {
        !self.to_read.is_empty()
    }

    /// Reads from the disk what the node asked for first.
    pub(crate) fn read_log(&mut self) {
        let Some(read) = self.to_read.pop_front() else {
            return;
        };
        let (sender, answer) = std::sync::mpsc::channel();
        self.disk.read(
            &read,
            Box::new(move |entries| sender.send(entries.unwrap()).unwrap()),
        );
        let entries = answer.recv().unwrap();
        self.read_back += entries.len();
        self.node.log_was_read(&read, entries);
        self.work();
    }

    pub(crate) fn has_to_apply(&self) -> bool {
        !self.to_apply.is_empty()
    }

    /// Gives the state machine its next piece of work.
    pub(crate) fn apply(&mut self) {
        match self.to_apply.pop_front() {
            None => return,
            Some(Work::Restore(snapshot)) => {
                self.machine.restore(&snapshot, self.disk.file(&snapshot));
                self.happenings.push(Happening::Restores(snapshot));
            }
            Some(Work::Apply(entries)) => {
                for entry in entries {
                    self.machine.apply(&entry);
                    self.happenings.push(Happening::Applies(entry));
                }
            }
        }
        self.node.applied(self.machine.applied);
        self.work();
    }

    /// Cuts a snapshot of what is applied.
    pub(crate) fn cut_snapshot(&mut self) {
        let index = self.machine.applied;
        if index <= self.node.snapshot().last_included_index {
            return;
        }
        let file = self.machine.lines.clone();
        let snapshot = SnapshotMeta {
            last_included_index: index,
            last_included_term: self.machine.applied_term,
            terms: Vec::new(),
            configuration: self.node.configuration_at(index).unwrap().clone(),
            size_bytes: file.len() as u64,
            checksum: checksum(&file),
        };
        self.disk.put_file(&snapshot, file);
        self.node.snapshot_cut(snapshot);
        self.work();
    }

    pub(crate) fn peer_unreachable(&mut self, peer: u64) {
        self.node.peer_unreachable(NodeId(peer));
        self.work();
    }

    fn send(&mut self, envelope: Envelope) {
        if is_request(&envelope.message) {
            assert_eq!(envelope.call, CallId::ZERO, "the core numbers no calls itself");
        } else {
            assert!(
                self.unanswered.remove(&envelope.call),
                "answered twice, or never asked: {envelope:?}"
            );
        }
        self.happenings.push(Happening::Sends(envelope));
    }

    /// Takes what the node has to say and puts every part of it where it belongs.
    fn work(&mut self) {
        let mut in_a_row = 0;
        while self.node.has_ready() {
            in_a_row += 1;
            assert!(
                in_a_row < MAX_READY_IN_A_ROW,
                "the node always has one more thing"
            );
            let ready = self.node.ready();
            self.obey(ready);
        }
        let more = self.node.ready();
        let nothing = Ready {
            number: more.number,
            ..Ready::default()
        };
        assert_eq!(more, nothing, "`has_ready` told of nothing more");
        let commit_index = self.node.commit_index();
        if commit_index > self.commit_index {
            self.commit_index = commit_index;
            self.happenings.push(Happening::Commits(commit_index));
        }
    }

    fn obey(&mut self, mut ready: Ready) {
        for event in std::mem::take(&mut ready.events) {
            self.happenings.push(Happening::Event(event));
        }
        self.refusal = self.refusal.or(ready.refusal);
        for envelope in std::mem::take(&mut ready.messages) {
            self.send(envelope);
        }
        for read in std::mem::take(&mut ready.reads) {
            self.happenings.push(Happening::Read(read));
        }
        for job in std::mem::take(&mut ready.snapshots_to_send) {
            self.start_transfer(job);
        }
        self.to_read.extend(std::mem::take(&mut ready.log_reads));
        if let Some(snapshot) = ready.restore.take() {
            self.to_apply.push_back(Work::Restore(snapshot));
        }
        let committed = std::mem::take(&mut ready.committed);
        if !committed.is_empty() {
            self.to_apply.push_back(Work::Apply(committed));
        }
        if ready.must_persist() || !ready.messages_after_persist.is_empty() {
            self.to_persist.push_back(ready);
        }
    }

    fn start_transfer(&mut self, job: SnapshotToSend) {
        let file = self.disk.file(&job.snapshot).to_vec();
        let to = job.to;
        self.transfers.insert(
            to,
            Transfer {
                job,
                file,
                offset: 0,
                patience: TRANSFER_PATIENCE,
            },
        );
        self.send_chunk(to, 0);
    }

    fn send_chunk(&mut self, to: NodeId, offset: u64) {
        let transfer = self.transfers.get_mut(&to).expect("a transfer is under way");
        transfer.offset = offset;
        transfer.patience = TRANSFER_PATIENCE;
        let start = usize::try_from(offset).unwrap().min(transfer.file.len());
        let end = (start + CHUNK_BYTES).min(transfer.file.len());
        let chunk = InstallSnapshot {
            term: transfer.job.term,
            leader_id: self.node.id(),
            snapshot: transfer.job.snapshot.clone(),
            offset,
            data: Bytes::copy_from_slice(&transfer.file[start..end]),
            done: end == transfer.file.len(),
        };
        self.send(Envelope {
            from: self.node.id(),
            to,
            call: CallId::ZERO,
            message: Message::InstallSnapshot(chunk),
        });
    }

    fn go_on_with_transfer(&mut self, to: NodeId, index: LogIndex, outcome: SnapshotOutcome) {
        let Some(transfer) = self.transfers.get(&to) else {
            return;
        };
        if transfer.job.snapshot.last_included_index != index {
            return;
        }
        match outcome {
            // The answer to a duplicate, or the file is being verified: the chunk under way will do.
            SnapshotOutcome::Continue { next_offset }
                if next_offset == transfer.offset || next_offset == transfer.job.snapshot.size_bytes => {}
            SnapshotOutcome::Continue { next_offset } => self.send_chunk(to, next_offset),
            SnapshotOutcome::Damaged => self.send_chunk(to, 0),
            SnapshotOutcome::Installed => {
                self.transfers.remove(&to);
            }
            SnapshotOutcome::Stale => self.give_transfer_up(to),
        }
    }

    fn give_transfer_up(&mut self, to: NodeId) {
        self.transfers.remove(&to);
        self.node.snapshot_failed(to);
        self.work();
    }

    fn lose_patience(&mut self) {
        for transfer in self.transfers.values_mut() {
            transfer.patience = transfer.patience.saturating_sub(1);
        }
        let given_up: Vec<NodeId> = self
            .transfers
            .iter()
            .filter(|(_, transfer)| transfer.patience == 0)
            .map(|(to, _)| *to)
            .collect();
        for to in given_up {
            self.give_transfer_up(to);
        }
    }
}

impl Machine {
    fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.applied.next(), "entries are applied in order");
        if let Payload::Command(command) = &entry.payload {
            self.lines.extend_from_slice(command);
            self.lines.push(b'\n');
        }
        self.applied = entry.index;
        self.applied_term = entry.term;
    }

    fn restore(&mut self, snapshot: &SnapshotMeta, file: &[u8]) {
        assert!(
            snapshot.last_included_index >= self.applied,
            "a restore never goes back"
        );
        self.lines = file.to_vec();
        self.applied = snapshot.last_included_index;
        self.applied_term = snapshot.last_included_term;
    }
}

pub(crate) fn is_request(message: &Message) -> bool {
    matches!(
        message,
        Message::PreVote(_)
            | Message::RequestVote(_)
            | Message::AppendEntries(_)
            | Message::InstallSnapshot(_)
            | Message::TimeoutNow(_)
    )
}

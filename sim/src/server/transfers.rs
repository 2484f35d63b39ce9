//! Snapshots on their way to peers, one a peer, chunk by chunk.

use std::collections::BTreeMap;

use bytes::Bytes;
use kv_server::replication::{SnapshotTransfer, TransferStep};
use raft_core::{LogIndex, Message, NodeId, SnapshotMeta, SnapshotOutcome, Term};
use storage::{SnapshotReader, StorageError};

use super::{Output, Server};
use crate::messages::Loss;

/// Names a transfer: a later one to the same peer has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransferTag {
    pub(crate) peer: NodeId,
    number: u64,
}

/// Names one call of a transfer. Only the first answer to the call under way moves the transfer on: a
/// connection hands over one answer a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkTag {
    transfer: TransferTag,
    call: u64,
}

/// All transfers of a node.
pub(super) struct Transfers {
    chunk_bytes: usize,
    under_way: BTreeMap<NodeId, Transfer>,
    last_number: u64,
}

struct Transfer {
    tag: TransferTag,
    /// The call that waits for its answer.
    call: u64,
    transfer: SnapshotTransfer,
    file: Box<dyn SnapshotReader>,
}

impl Transfers {
    pub(super) fn new(chunk_bytes: usize) -> Self {
        Self {
            chunk_bytes,
            under_way: BTreeMap::new(),
            last_number: 0,
        }
    }

    fn find(&mut self, tag: TransferTag) -> Option<&mut Transfer> {
        self.under_way
            .get_mut(&tag.peer)
            .filter(|transfer| transfer.tag == tag)
    }
}

impl Server {
    /// A transfer under way to the same peer is given up for this one.
    pub(super) fn stream_snapshot(&mut self, peer: NodeId, term: Term, snapshot: SnapshotMeta) {
        self.transfers.under_way.remove(&peer);
        let file = match self.disk.snapshots.open(&snapshot) {
            Ok(file) => file,
            Err(error) => {
                self.cannot_be_read(&snapshot, &error);
                return self.driver.node_mut().snapshot_failed(peer);
            }
        };
        self.transfers.last_number += 1;
        let tag = TransferTag {
            peer,
            number: self.transfers.last_number,
        };
        let transfer = Transfer {
            tag,
            call: 0,
            transfer: SnapshotTransfer::new(term, self.id(), snapshot),
            file,
        };
        self.transfers.under_way.insert(peer, transfer);
        self.send_chunk(tag);
    }

    fn send_chunk(&mut self, tag: TransferTag) {
        let chunk_bytes = self.transfers.chunk_bytes;
        let Some(transfer) = self.transfers.find(tag) else {
            return;
        };
        let offset = transfer.transfer.offset();
        match transfer.file.read_chunk(offset, chunk_bytes) {
            Ok(data) => self.call_peer(tag, data),
            Err(error) => {
                let snapshot = transfer.transfer.snapshot().clone();
                self.cannot_be_read(&snapshot, &error);
                self.transfer_failed(tag);
            }
        }
    }

    fn call_peer(&mut self, tag: TransferTag, data: Bytes) {
        let Some(transfer) = self.transfers.find(tag) else {
            return;
        };
        transfer.call += 1;
        let chunk = ChunkTag {
            transfer: tag,
            call: transfer.call,
        };
        let message = Message::InstallSnapshot(transfer.transfer.request(data));
        self.outputs.push(Output::Request {
            to: tag.peer,
            message,
            chunk: Some(chunk),
        });
    }

    pub(super) fn chunk_answered(&mut self, chunk: ChunkTag, index: LogIndex, outcome: SnapshotOutcome) {
        let tag = chunk.transfer;
        let Some(transfer) = self.transfers.find(tag).filter(|found| found.call == chunk.call) else {
            return;
        };
        // The answer is taken: a repeated one finds another call.
        transfer.call += 1;
        let step = transfer.transfer.answered(index, outcome);
        self.go_on(tag, step);
        self.flush();
    }

    fn go_on(&mut self, tag: TransferTag, step: TransferStep) {
        match step {
            TransferStep::Send => self.send_chunk(tag),
            TransferStep::AskWhere => self.call_peer(tag, Bytes::new()),
            TransferStep::AskAgain => self.outputs.push(Output::AskAgain(tag)),
            TransferStep::Installed => drop(self.transfers.under_way.remove(&tag.peer)),
            TransferStep::Failed => self.transfer_failed(tag),
        }
    }

    /// The pause is over in which the peer verified the file.
    pub(crate) fn ask_again(&mut self, tag: TransferTag) {
        self.send_chunk(tag);
        self.flush();
    }

    /// No answer to this call will come.
    pub(super) fn chunk_lost(&mut self, chunk: ChunkTag, loss: Loss) {
        let tag = chunk.transfer;
        let Some(transfer) = self.transfers.find(tag).filter(|found| found.call == chunk.call) else {
            return;
        };
        let step = match loss {
            Loss::ConnectionBroke => TransferStep::Failed,
            Loss::NoAnswer => transfer.transfer.not_answered(),
        };
        self.go_on(tag, step);
    }

    /// A damaged or lost file is replaced, or who needs it would wait until the log has grown.
    fn cannot_be_read(&mut self, snapshot: &SnapshotMeta, error: &StorageError) {
        if error.calls_for_another_snapshot() {
            self.replace_snapshot(snapshot);
        }
    }

    fn transfer_failed(&mut self, tag: TransferTag) {
        self.transfers.under_way.remove(&tag.peer);
        self.driver.node_mut().snapshot_failed(tag.peer);
    }
}

//! What the nodes send each other, in numbers.

use std::collections::BTreeMap;

use raft_core::{Entry, Message, NodeId};

/// What went from one node to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) messages: u64,
    /// Bytes of entries and of snapshots.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// All of it, by sender and receiver.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    by_link: BTreeMap<(NodeId, NodeId), Sent>,
    /// Chunks of snapshots that come twice.
    repeated_chunks: u64,
}

impl Traffic {
    pub(crate) fn sent(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let sent = self.by_link.entry((from, to)).or_default();
        sent.messages += 1;
        match message {
            Message::AppendEntries(request) => {
                sent.entries += request.entries.len() as u64;
                sent.bytes += request.entries.iter().map(Entry::size_bytes).sum::<usize>() as u64;
            }
            Message::InstallSnapshot(request) => sent.bytes += request.data.len() as u64,
            _ => {}
        }
    }

    /// So many copies of `message` are on their way.
    pub(crate) fn arrives(&mut self, message: &Message, copies: usize) {
        if copies > 1 && matches!(message, Message::InstallSnapshot(_)) {
            self.repeated_chunks += 1;
        }
    }

    /// How many chunks of snapshots were sent twice by the network.
    pub(crate) fn repeated_chunks(&self) -> u64 {
        self.repeated_chunks
    }

    pub(crate) fn between(&self, from: NodeId, to: NodeId) -> Sent {
        self.by_link.get(&(from, to)).copied().unwrap_or_default()
    }

    /// All messages.
    pub(crate) fn messages(&self) -> u64 {
        self.by_link.values().map(|sent| sent.messages).sum()
    }
}

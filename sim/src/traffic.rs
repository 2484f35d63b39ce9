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
pub(crate) struct Traffic(BTreeMap<(NodeId, NodeId), Sent>);

impl Traffic {
    pub(crate) fn sent(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let sent = self.0.entry((from, to)).or_default();
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

    pub(crate) fn between(&self, from: NodeId, to: NodeId) -> Sent {
        self.0.get(&(from, to)).copied().unwrap_or_default()
    }

    /// All messages.
    pub(crate) fn messages(&self) -> u64 {
        self.0.values().map(|sent| sent.messages).sum()
    }
}

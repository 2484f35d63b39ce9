//! Stable storage in memory. It checks that the core keeps its side of the `Storage` contract.

use std::collections::BTreeMap;
use std::convert::Infallible;

use raft_core::{
    Configuration, Entry, HardState, Incarnation, LogIndex, LogRead, LogReadReply, NodeId, Payload, Restored,
    SnapshotChunk, SnapshotMeta, Standing, Storage, Term, Write,
};

/// One server's disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    incarnation: Incarnation,
    hard_state: HardState,
    snapshot: SnapshotMeta,
    entries: Vec<Entry>,
    /// Snapshot files that are in place, by index and checksum.
    files: BTreeMap<(LogIndex, u32), Vec<u8>>,
    staged: Vec<u8>,
}

impl Disk {
    pub(crate) fn new(configuration: Configuration) -> Self {
        Self {
            incarnation: Incarnation::ZERO,
            hard_state: HardState::default(),
            snapshot: SnapshotMeta {
                configuration,
                ..SnapshotMeta::default()
            },
            entries: Vec::new(),
            files: BTreeMap::from([((LogIndex::ZERO, 0), Vec::new())]),
            staged: Vec::new(),
        }
    }

    /// A store that nothing was ever written to.
    pub(crate) fn fresh(servers: u64, incarnation: u64, standing: Standing) -> Self {
        let mut disk = Self::new(Configuration::of_voters((1..=servers).map(NodeId)));
        disk.incarnation = Incarnation(incarnation);
        disk.hard_state.standing = standing;
        disk
    }

    /// Whether it holds the registry: what was founded cannot be founded again while this is there.
    pub(crate) fn is_founded(&self) -> bool {
        self.snapshot.configuration.is_founded()
            || self
                .entries
                .iter()
                .any(|entry| matches!(entry.payload, Payload::Configuration(_)))
    }

    pub(crate) fn with_hard_state(mut self, term: u64, voted_for: Option<u64>) -> Self {
        self.hard_state = HardState {
            current_term: Term(term),
            voted_for: voted_for.map(NodeId),
            standing: Standing::default(),
        };
        self
    }

    pub(crate) fn with_entries(mut self, entries: Vec<Entry>) -> Self {
        self.entries = entries;
        self
    }

    pub(crate) fn with_snapshot(mut self, snapshot: SnapshotMeta, file: Vec<u8>) -> Self {
        self.put_file(&snapshot, file);
        self.snapshot = snapshot;
        self
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub(crate) fn snapshot(&self) -> &SnapshotMeta {
        &self.snapshot
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        self.entries
            .last()
            .map_or(self.snapshot.last_included_index, |entry| entry.index)
    }

    /// The term of the entry at `index`, or of the snapshot's last one.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.snapshot.last_included_index {
            return Some(self.snapshot.last_included_term);
        }
        let first = self.entries.first()?.index;
        let position = usize::try_from(index.get().checked_sub(first.get())?).ok()?;
        self.entries.get(position).map(|entry| entry.term)
    }

    /// Whether the disk holds this very entry, in the log or inside the snapshot.
    pub(crate) fn holds(&self, index: LogIndex, term: Term) -> bool {
        index <= self.snapshot.last_included_index || self.term_at(index) == Some(term)
    }

    pub(crate) fn file(&self, snapshot: &SnapshotMeta) -> &[u8] {
        &self.files[&(snapshot.last_included_index, snapshot.checksum)]
    }

    pub(crate) fn put_file(&mut self, snapshot: &SnapshotMeta, file: Vec<u8>) {
        self.files
            .insert((snapshot.last_included_index, snapshot.checksum), file);
    }

    /// Puts a piece of a snapshot aside. When it was the last: whether the whole file is intact, in which
    /// case it is in place from now on.
    pub(crate) fn stage(&mut self, chunk: &SnapshotChunk) -> Option<bool> {
        if chunk.offset == 0 {
            self.staged.clear();
        }
        assert_eq!(
            chunk.offset,
            self.staged.len() as u64,
            "pieces come without a gap"
        );
        self.staged.extend_from_slice(&chunk.data);
        if !chunk.done {
            return None;
        }
        let file = std::mem::take(&mut self.staged);
        let intact =
            file.len() as u64 == chunk.snapshot.size_bytes && checksum(&file) == chunk.snapshot.checksum;
        if intact {
            self.put_file(&chunk.snapshot, file);
        }
        Some(intact)
    }

    fn append(&mut self, entries: &[Entry]) {
        let first = entries.first().expect("an append is never empty").index;
        assert!(
            first <= self.last_index().next(),
            "the append follows the log or lies in it"
        );
        self.entries.retain(|entry| entry.index < first);
        self.entries.extend_from_slice(entries);
    }

    fn install(&mut self, snapshot: &SnapshotMeta, keep_suffix: bool) {
        let index = snapshot.last_included_index;
        assert!(
            index > self.snapshot.last_included_index,
            "snapshots only move forward"
        );
        if keep_suffix {
            assert_eq!(
                self.term_at(index),
                Some(snapshot.last_included_term),
                "a suffix stays only behind the very entry that the snapshot ends with"
            );
            self.entries.retain(|entry| entry.index > index);
        } else {
            self.entries.clear();
        }
        self.set_snapshot(snapshot);
    }

    fn compact(&mut self, snapshot: &SnapshotMeta, first_retained: LogIndex) {
        assert!(first_retained <= snapshot.last_included_index.next());
        assert!(snapshot.last_included_index <= self.last_index());
        self.entries.retain(|entry| entry.index >= first_retained);
        self.set_snapshot(snapshot);
    }

    fn set_snapshot(&mut self, snapshot: &SnapshotMeta) {
        self.snapshot = snapshot.clone();
        let _ = self.file(snapshot); // panics unless the file is in place
        let index = snapshot.last_included_index;
        self.files.retain(|(other, _), _| *other >= index);
    }
}

impl Storage for Disk {
    type Error = Infallible;

    fn restore(&mut self) -> Result<Restored, Infallible> {
        self.staged.clear();
        Ok(Restored {
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            entries: self.entries.clone(),
        })
    }

    fn write(&mut self, writes: &[Write]) -> Result<(), Infallible> {
        for write in writes {
            match write {
                Write::HardState(hard_state) => self.hard_state = *hard_state,
                Write::Append(entries) => self.append(entries),
                Write::InstallSnapshot {
                    snapshot,
                    keep_suffix,
                } => self.install(snapshot, *keep_suffix),
                Write::Compact {
                    snapshot,
                    first_retained,
                } => self.compact(snapshot, *first_retained),
            }
        }
        Ok(())
    }

    fn read(&mut self, read: &LogRead, reply: LogReadReply<Infallible>) {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.size_bytes();
            entry.index == read.from || bytes <= read.max_bytes
        };
        let wanted = self
            .entries
            .iter()
            .filter(|entry| (read.from..=read.to).contains(&entry.index));
        let entries: Vec<Entry> = wanted.take_while(fits).cloned().collect();
        let is_whole = entries.first().is_none_or(|first| first.index == read.from);
        reply(Ok(if is_whole { entries } else { Vec::new() }));
    }
}

/// FNV-1a, folded to 32 bits: good enough to tell test files apart.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

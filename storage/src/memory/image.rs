//! The records of a store as bytes, laid out as on a real disk: to damage them, and to see that it is noticed.

use std::collections::BTreeMap;
use std::path::Path;

use raft_core::Write;

use super::Contents;
use crate::changes::{Changes, Records, State};
use crate::error::StorageError;
use crate::hard_state::{IDENTITY_KEY, Owner, Root};
use crate::record::RecordKey;
use crate::restore::{self, Fault, Loaded, Stored, Visit};

/// Keys and sealed records.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Image {
    /// What a store would have written that holds `contents`.
    pub(super) fn of(owner: &Owner, contents: &Contents) -> Result<Self, StorageError> {
        let root = Root {
            first_index: contents.first_index,
            last_index: contents.first_index.previous(),
            ..Root::default()
        };
        let mut state = State {
            root,
            ..State::default()
        };
        let empty = Self::default();
        let mut changes = Changes::new(&empty, &mut state);
        changes.put_small(IDENTITY_KEY, owner)?;
        changes.set_hard_state(contents.hard_state)?;
        if !contents.entries.is_empty() {
            changes.apply(&Write::Append(contents.entries.clone()))?;
        }
        changes.set_snapshot(&contents.snapshot)?;
        let changes = changes.finish()?.changes;
        let records = changes
            .into_iter()
            .filter_map(|(key, change)| Some((key, change.value?.to_vec())));
        Ok(Self {
            records: records.collect(),
        })
    }

    /// Flips a bit of the records, modulo their length; yields the name of the record.
    pub(super) fn flip_bit(&mut self, bit: u64) -> Option<String> {
        let bits: usize = self.records.values().map(|record| record.len() * 8).sum();
        let mut left = usize::try_from(bit % u64::try_from(bits.max(1)).ok()?).ok()?;
        for (key, record) in &mut self.records {
            match record.get_mut(left / 8) {
                Some(byte) => {
                    *byte ^= 1 << (left % 8);
                    return Some(name_of(key));
                }
                None => left -= record.len() * 8,
            }
        }
        None
    }

    /// Reads everything back as a store does that is opened.
    pub(super) fn load(&self, owner: &Owner) -> Result<Loaded, StorageError> {
        restore::load(self, owner)
    }
}

fn name_of(key: &[u8]) -> String {
    match RecordKey::from_bytes(key) {
        Some(key) => format!("log record at index {}", key.first_index),
        None => key.escape_ascii().to_string(),
    }
}

impl Stored for Image {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(self.records.get(key).cloned())
    }

    fn for_each(&self, visit: &mut Visit<'_>) -> Result<(), Fault> {
        self.records
            .iter()
            .try_for_each(|(key, record)| visit(key, record))
    }

    fn path(&self) -> &Path {
        Path::new("memory")
    }
}

impl Records for Image {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.records.get(key).cloned())
    }

    fn path(&self) -> &Path {
        Path::new("memory")
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{
        Configuration, HardState, Incarnation, LogIndex, NodeId, Standing, Storage as _, Term, Write,
    };

    use crate::conformance::command;
    use crate::error::StorageError;
    use crate::hard_state::Identity;
    use crate::memory::{MemoryDisk, MemoryStorage};

    fn open(disk: &MemoryDisk) -> Result<MemoryStorage, StorageError> {
        let identity = Identity {
            cluster_id: "c".to_owned(),
            node_id: NodeId(1),
        };
        MemoryStorage::open(disk, &identity, &Configuration::of_voters([NodeId(1)]))
    }

    /// A store that holds a vote, three entries, and a snapshot of the first two, of which one is kept.
    fn used_disk() -> MemoryDisk {
        let disk = MemoryDisk::of_store(Incarnation(7), Standing::Joining);
        let mut store = open(&disk).unwrap();
        let entries = [command(1, 1, 9), command(1, 2, 9), command(2, 3, 9)];
        store
            .write(&[
                Write::HardState(HardState {
                    current_term: Term(2),
                    voted_for: Some(NodeId(3)),
                    standing: Standing::Joining,
                }),
                Write::Append(entries.to_vec()),
            ])
            .unwrap();
        let configuration = Configuration::of_voters([NodeId(1)]);
        let mut file = store
            .snapshots()
            .create(LogIndex(2), Term(1), &configuration)
            .unwrap();
        std::io::Write::write_all(&mut file, b"state").unwrap();
        let snapshot = file.finish().unwrap();
        let first_retained = LogIndex(2);
        store
            .write(&[Write::Compact {
                snapshot,
                first_retained,
            }])
            .unwrap();
        disk
    }

    #[test]
    fn the_image_of_a_store_reads_back_as_the_store() {
        let disk = used_disk();
        let before = disk.peek().unwrap();
        // The same bit twice is as it was.
        assert!(disk.flip_record_bit(5).is_some() && disk.flip_record_bit(5).is_some());
        assert_eq!(open(&disk).unwrap().restore().unwrap(), before);
    }

    #[test]
    fn every_flipped_bit_is_refused_and_stays_so() {
        let disk = used_disk();
        let mut names = std::collections::BTreeSet::new();
        for bit in 0..2_500 {
            let flipped = disk.copy();
            names.insert(flipped.flip_record_bit(bit).unwrap());
            for _ in 0..2 {
                let refusal = open(&flipped).unwrap_err();
                assert!(
                    matches!(refusal, StorageError::Damaged { .. }),
                    "bit {bit}: {refusal}"
                );
            }
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "a/hard-state",
                "a/identity",
                "a/root",
                "a/snapshot",
                "log record at index 2"
            ]
        );
    }

    #[test]
    fn a_disk_in_use_or_never_used_cannot_be_damaged() {
        assert_eq!(MemoryDisk::new().flip_record_bit(0), None);
        let disk = used_disk();
        let store = open(&disk).unwrap();
        assert_eq!(disk.flip_record_bit(0), None);
        drop(store);
        assert!(disk.flip_record_bit(0).is_some());
    }

    #[test]
    fn a_copy_keeps_what_was_there() {
        let disk = used_disk();
        let copy = disk.copy();
        let mut store = open(&disk).unwrap();
        store.write(&[Write::Append(vec![command(2, 4, 9)])]).unwrap();
        assert_eq!(copy.incarnation(), Incarnation(7));
        let restored = open(&copy).unwrap().restore().unwrap();
        assert_eq!(restored.entries.last().unwrap().index, LogIndex(3));
    }
}

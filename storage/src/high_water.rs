//! A small file beside the database that says how far this node has acknowledged.
//!
//! Checksums and chains tell a damaged store; they cannot tell one that is whole and old: sled can open with
//! the end of its log gone and say nothing, and a directory can be copied back. So the number of the last
//! acknowledged batch is also kept here. A store that holds less than this says is refused.
//!
//! # Order and lag
//!
//! The number is written after its batch is durable and before the batch is acknowledged, so it is never
//! ahead of the store. It is synced with every batch that changes the hard state or the snapshot, and with
//! every [`SYNC_EVERY_BATCHES`]th one; in between it is only handed to the operating system. Hence:
//!
//! - after the process was killed, it covers everything acknowledged;
//! - after a power loss it covers every vote and term, and all but the last 63 appended batches.
//!
//! That lag does not lengthen what a damaged journal can lose unseen by as much. Batches are written one after
//! the other, each once the one before is synced, so a valid record behind a bad one tells that the bad one
//! had been acknowledged (see [`journal`](crate::journal)). What can go unseen is this alone: a power loss,
//! and with it the *end* of the journal, up to 63 batches and every trace of them, although the disk had
//! confirmed each sync. A disk that does this can lose the sync of this file just as well, so a sync a batch
//! would double the cost of a write and buy little. The lag never leads to a false refusal.
//!
//! # Format
//!
//! Two slots, in disk sectors of their own, written in turn, so that a torn write leaves the other.
//! A slot is one byte with the length of a sealed number, then that number.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::durability;
use crate::error::StorageError;
use crate::sealed;

/// The name of the file in the data directory.
pub(crate) const HIGH_WATER_FILE: &str = "high-water";

/// Every how many batches the file is synced when nothing else asks for it.
pub(crate) const SYNC_EVERY_BATCHES: u64 = 64;

const SLOT_BYTES: usize = 4096;
pub(crate) const SLOT_PLACES: [&[u8]; 2] = [b"high-water/0", b"high-water/1"];
const NUMBER_LIMIT_BYTES: usize = 16;

/// The open high-water file.
#[derive(Debug)]
pub(crate) struct HighWater {
    file: File,
    path: PathBuf,
}

impl HighWater {
    /// Creates the file, durably, with `batch` in both slots.
    pub(crate) fn create(dir: &Path, batch: u64) -> Result<(), StorageError> {
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        for (slot, place) in bytes.chunks_mut(SLOT_BYTES).zip(SLOT_PLACES) {
            let encoded = encode_slot(place, batch);
            slot[..encoded.len()].copy_from_slice(&encoded);
        }
        durability::replace_file(dir, HIGH_WATER_FILE, &bytes)
    }

    /// Opens the file and reads the highest batch in it.
    pub(crate) fn open(dir: &Path) -> Result<(Self, u64), StorageError> {
        let path = dir.join(HIGH_WATER_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(StorageError::while_trying("open", &path))?;
        let mut bytes = Vec::with_capacity(2 * SLOT_BYTES);
        Read::by_ref(&mut file)
            .take(2 * SLOT_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(StorageError::while_trying("read", &path))?;
        let slots = bytes.chunks(SLOT_BYTES).zip(SLOT_PLACES);
        match slots.filter_map(|(slot, place)| decode_slot(place, slot)).max() {
            Some(batch) => Ok((Self { file, path }, batch)),
            None => Err(StorageError::Damaged {
                path,
                what: "neither of its two slots can be read".to_owned(),
                index: None,
            }),
        }
    }

    /// Records that `batch` is about to be acknowledged. With `sync`, for certain.
    pub(crate) fn record(&mut self, batch: u64, sync: bool) -> Result<(), StorageError> {
        self.try_record(batch, sync || batch.is_multiple_of(SYNC_EVERY_BATCHES))
            .map_err(StorageError::while_trying("write", &self.path))
    }

    fn try_record(&mut self, batch: u64, sync: bool) -> io::Result<()> {
        let slot = usize::from(batch % 2 == 1);
        let encoded = encode_slot(SLOT_PLACES[slot], batch);
        self.file.write_all_at(&encoded, (slot * SLOT_BYTES) as u64)?;
        if sync { self.file.sync_data() } else { Ok(()) }
    }
}

pub(crate) fn encode_slot(place: &[u8], batch: u64) -> Vec<u8> {
    let sealed = sealed::seal(place, &batch, NUMBER_LIMIT_BYTES)
        .expect("a number takes at most 9 bytes, which is below the limit");
    let length = u8::try_from(sealed.len()).expect("a sealed number takes at most 14 bytes");
    [&[length], sealed.as_slice()].concat()
}

pub(crate) fn decode_slot(place: &[u8], slot: &[u8]) -> Option<u64> {
    let (length, rest) = slot.split_first()?;
    sealed::unseal(place, rest.get(..usize::from(*length))?, NUMBER_LIMIT_BYTES).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use faulty_disk::{Disk, Survival};

    use super::{HIGH_WATER_FILE, HighWater, SLOT_BYTES};

    #[test]
    fn the_last_recorded_batch_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        HighWater::create(dir.path(), 1).unwrap();
        for batch in 2..10 {
            let (mut file, before) = HighWater::open(dir.path()).unwrap();
            assert_eq!(before, batch - 1);
            file.record(batch, batch % 3 == 0).unwrap();
        }
        assert_eq!(HighWater::open(dir.path()).unwrap().1, 9);
    }

    #[test]
    fn a_torn_slot_leaves_the_other_and_two_torn_slots_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        HighWater::create(dir.path(), 7).unwrap();
        HighWater::open(dir.path()).unwrap().0.record(8, true).unwrap();
        let path = dir.path().join(HIGH_WATER_FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(HighWater::open(dir.path()).unwrap().1, 7);
        bytes[SLOT_BYTES + 3] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let refusal = HighWater::open(dir.path()).unwrap_err().to_string();
        assert!(refusal.contains(HIGH_WATER_FILE), "{refusal}");
    }

    #[test]
    fn whichever_write_is_torn_the_batch_before_is_left() {
        let dir = tempfile::tempdir().unwrap();
        HighWater::create(dir.path(), 7).unwrap();
        let path = dir.path().join(HIGH_WATER_FILE);
        for batch in 8..12 {
            HighWater::open(dir.path())
                .unwrap()
                .0
                .record(batch, true)
                .unwrap();
            let whole = fs::read(&path).unwrap();
            let mut left = [0, SLOT_BYTES].map(|slot| {
                let mut torn = whole.clone();
                torn[slot + 3] ^= 1;
                fs::write(&path, &torn).unwrap();
                HighWater::open(dir.path()).unwrap().1
            });
            left.sort_unstable();
            assert_eq!(left, [batch - 1, batch]);
            fs::write(&path, &whole).unwrap();
        }
    }

    #[test]
    fn a_batch_survives_a_power_loss_when_that_is_asked_for_and_each_sixty_fourth_does_anyway() {
        let disk = Disk::new();
        let mount = match disk.mount() {
            Ok(mount) => mount,
            Err(unavailable) => return println!("{unavailable}"),
        };
        HighWater::create(mount.path(), 1).unwrap();
        let mut file = HighWater::open(mount.path()).unwrap().0;
        for (batch, sync, left) in [
            (2, false, 1),
            (3, true, 3),
            (4, false, 3),
            (64, false, 64),
            (65, false, 64),
        ] {
            file.record(batch, sync).unwrap();
            let after = tempfile::tempdir().unwrap();
            disk.after_power_loss(Survival::Nothing)
                .write_to(after.path())
                .unwrap();
            assert_eq!(HighWater::open(after.path()).unwrap().1, left, "batch {batch}");
        }
    }
}

//! What sled 0.34.7 would leave undone: to keep its cache to the size that was asked for, and to use the segments of its
//! file again in which hardly anything is still needed.
//!
//! # The cache
//!
//! sled has 256 caches, one for the pages of each number modulo 256, and looks at the size of one only after 64
//! accesses to its pages. Our log is written once from front to back, a leaf of the tree takes some 300 kB and gets few
//! accesses, and then none. So without more, all of the log since the last snapshot would stay in memory, whatever
//! `cache_bytes` says.
//!
//! What helps is to use pages of all numbers 64 times: those of a tree whose leaves are tiny. Each of the caches
//! then lets go of what is over its share, the least recently used pages first. The tree holds nothing that matters.
//! It costs some 15 ms of the thread that checkpoints, and comes after every [`SWEEP_BYTES`] that go into sled.
//!
//! # The segments
//!
//! When half of a segment or less is still needed, sled notes its pages to be written anew elsewhere, so that the
//! segment becomes free. It takes one page from these notes whenever it replaces a page for a reason of its own
//! (`PageCache::replace`; its flusher would do so, too, and we have none), always from the segment that is
//! nearest to the beginning of the file. A log that comes and goes makes notes faster than sled takes them. So the
//! segments far behind never get their turn: each keeps 4 MiB for the few kB that are left in it, and the file grows,
//! slowly and without end (by some 12 MiB for each GiB of log: `storage/docs/growth.md`).
//!
//! And sled merges an empty leaf of its tree with the one before it only when it is on the way to a key that would be
//! in there. A log never goes back, so of each log that was removed a few empty leaves stay for ever.
//!
//! What helps is to have sled replace pages until nothing is left of the notes, again those of the tiny leaves, which it
//! does after every tenth change to one. That happens whenever as much has gone into sled as its file is long, and takes
//! changes in proportion to the length: so the work for each byte is the same on all disks. It happens, too, when the file
//! has become four segments longer since the last time, because none was free: where a snapshot soon replaces what
//! was appended, little goes into sled, but to remove it again takes room all the same. And then to look for the first
//! record of the log from the left, through all empty leaves.

use std::fs::File;

use crate::progress::Progress;
use crate::quiet::Quiet;
use crate::record::{LOG_PREFIX, SLED_SEGMENT_BYTES};

/// So many bytes go into sled between two sweeps of its cache. They may come on top of the bound.
const SWEEP_BYTES: usize = 16 * 1024 * 1024;

const TREE_NAME: &str = "cache-bound";

/// Enough for at least one leaf of each number modulo 256: a leaf holds 8 to 16 records.
const RECORDS: u16 = 4_096;

/// With eight records in each leaf or more, every leaf is used 64 times.
const USES_OF_EACH: usize = 8;

/// In one batch, so that sled writes some 50 pages anew from one sync to the next, and not the pages of many segments.
const RECORDS_IN_A_BATCH: u16 = 512;

/// For each segment of the file: enough changes for some 100 pages, about three times as many as are noted.
const BATCHES_FOR_A_SEGMENT: u64 = 2;

/// By how many bytes the file may become longer without a drain.
const GROWTH_BYTES: u64 = 4 * SLED_SEGMENT_BYTES as u64;

/// See the module.
pub(crate) struct Upkeep {
    db: Quiet<sled::Db>,
    tree: Option<Quiet<sled::Tree>>,
    progress: Progress,
    unswept_bytes: usize,
    undrained_bytes: usize,
    /// The shortest that the file was since the last drain.
    shortest_length: u64,
    /// What the records of the tree were last set to, all of them or those up to one.
    round: u64,
}

impl Upkeep {
    /// Counts in `progress` what it makes durable.
    pub(crate) fn new(db: sled::Db, progress: Progress) -> Self {
        Self {
            db: Quiet::new(db),
            tree: None,
            progress,
            unswept_bytes: 0,
            // The first sweep is followed by a drain: who knows how long ago the last one was.
            undrained_bytes: usize::MAX,
            shortest_length: 0,
            round: 0,
        }
    }

    /// So many bytes went into sled, whose file is `data_file`. Does what is due; what that writes is durable when it
    /// returns.
    pub(crate) fn after(&mut self, bytes: usize, data_file: &File) -> sled::Result<()> {
        self.unswept_bytes += bytes;
        self.undrained_bytes = self.undrained_bytes.saturating_add(bytes);
        let length = data_file.metadata()?.len();
        self.shortest_length = self.shortest_length.min(length);
        let has_grown = length > self.shortest_length + GROWTH_BYTES;
        if self.unswept_bytes < SWEEP_BYTES && !has_grown {
            return Ok(());
        }
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None => self.open(data_file)?,
        };
        self.sweep(&tree, data_file)?;
        self.unswept_bytes = 0;
        if has_grown || self.undrained_bytes as u64 >= length {
            let segments = length.div_ceil(SLED_SEGMENT_BYTES as u64);
            self.drain(&tree, segments * BATCHES_FOR_A_SEGMENT, data_file)?;
            self.undrained_bytes = 0;
            self.shortest_length = data_file.metadata()?.len();
        }
        self.tree = Some(tree);
        Ok(())
    }

    /// Has sled bring its cache within its bound.
    fn sweep(&self, tree: &sled::Tree, data_file: &File) -> sled::Result<()> {
        for _ in 0..USES_OF_EACH {
            for record in 0..RECORDS {
                tree.get(record.to_be_bytes())?;
            }
        }
        // A split that sled had put off may have come with one of these.
        self.sync(data_file)
    }

    /// Has sled move what is left in segments that are almost empty.
    fn drain(&mut self, tree: &sled::Tree, batches: u64, data_file: &File) -> sled::Result<()> {
        let mut records = (0..RECORDS).cycle();
        for _ in 0..batches {
            // Only a change counts: what a record already holds is not written.
            self.round += 1;
            let mut batch = sled::Batch::default();
            for record in records.by_ref().take(usize::from(RECORDS_IN_A_BATCH)) {
                batch.insert(&record.to_be_bytes(), &self.round.to_be_bytes());
            }
            tree.apply_batch(batch)?;
            self.sync(data_file)?;
        }
        // On the way to the first record of the log lie the leaves that it has left, see the module.
        self.db.range([LOG_PREFIX]..).next().transpose()?;
        self.sync(data_file)
    }

    /// Created when it is first needed, so that small stores and readers have none.
    fn open(&self, data_file: &File) -> sled::Result<Quiet<sled::Tree>> {
        let tree = Quiet::new(self.db.open_tree(TREE_NAME)?);
        if !tree.contains_key((RECORDS - 1).to_be_bytes())? {
            self.sync(data_file)?;
            let mut records = sled::Batch::default();
            (0..RECORDS).for_each(|record| records.insert(&record.to_be_bytes(), &[]));
            tree.apply_batch(records)?;
            self.sync(data_file)?;
        }
        Ok(tree)
    }

    /// Comes between all that is written to sled, see [`checkpoint`](crate::checkpoint).
    fn sync(&self, data_file: &File) -> sled::Result<()> {
        self.db.flush()?;
        data_file.sync_data()?;
        self.progress.step();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::{GROWTH_BYTES, Upkeep};
    use crate::progress::Progress;

    #[test]
    fn a_file_that_becomes_longer_is_drained_however_little_was_written_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path().join("sled")).unwrap();
        let mut upkeep = Upkeep::new(db, Progress::default());
        // Its length is all that is looked at.
        let file = File::create(dir.path().join("file")).unwrap();
        let mut is_drained_at = |length| {
            file.set_len(length).unwrap();
            let before = upkeep.round;
            upkeep.after(1, &file).unwrap();
            upkeep.round > before
        };
        let start = 1 << 20;
        for (length, drains) in [
            (start, false),
            (GROWTH_BYTES + 1, true),
            (GROWTH_BYTES + 1, false),
            (2 * GROWTH_BYTES + 1, false),
            (2 * GROWTH_BYTES + 2, true),
            (start, false),
            (GROWTH_BYTES, false),
            (GROWTH_BYTES + start + 1, true),
        ] {
            assert_eq!(is_drained_at(length), drains, "{length} bytes long");
        }
    }
}

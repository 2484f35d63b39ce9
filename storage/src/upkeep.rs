//! What sled 0.34.7 would leave undone: to keep its cache to the size that was asked for, and to use the segments of its
//! file again in which hardly anything is still needed.
//!
//! # The cache
//!
//! sled has 256 caches, one for the pages of each number modulo 256, and looks at the size of one only after 64
//! accesses to its pages. Our log is written once from front to back, a leaf of the tree takes up to 128 kB and gets few
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
//! segments far behind never get their turn: each keeps 8 MiB for the few kB that are left in it, and the file grows,
//! slowly and without end (by some 12 MiB for each GiB of log: `storage/docs/growth.md`).
//!
//! And sled merges an empty leaf of its tree with the one before it only when it is on the way to a key that would be
//! in there. A log never goes back, so of each log that was removed a few empty leaves stay for ever.
//!
//! What helps is to have sled replace pages for no other reason, again those of the tiny leaves, which it does after every
//! tenth change to one: a batch of such changes for each segment that was filled, and for each that was emptied. And then
//! to look for the first record of the log from the left, through all empty leaves. Each batch comes with a sync, so they
//! are spread: a few after each piece of a journal file that is carried over. Most of a file of 100 MiB at once takes so
//! long that the journal is full before.

use std::fs::File;

use crate::progress::Progress;
use crate::quiet::Quiet;
use crate::record::{LOG_PREFIX, SLED_SEGMENT_BYTES};

/// So many bytes are put, removed or read between two sweeps of its cache. They may come on top of the bound.
const SWEEP_BYTES: u64 = 16 * 1024 * 1024;

const TREE_NAME: &str = "cache-bound";

/// Enough for at least one leaf of each number modulo 256: a leaf holds 8 to 16 records.
const RECORDS: u64 = 4_096;

/// With eight records in each leaf or more, every leaf is used 64 times.
const USES_OF_EACH: usize = 8;

/// In one batch: sled writes some 50 pages anew for them, and so takes up as many of its notes.
const CHANGES_IN_A_BATCH: u64 = 512;

/// What is due beyond that waits until the next piece was carried over.
const MOST_BATCHES_AT_ONCE: u64 = 8;

const SEGMENT_BYTES: u64 = SLED_SEGMENT_BYTES as u64;

/// How much of sled was used.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Traffic {
    /// The keys and values of records that were put or removed.
    pub(crate) changed_bytes: u64,
    /// The values that were read.
    pub(crate) read_bytes: u64,
}

/// See the module.
pub(crate) struct Upkeep {
    db: Quiet<sled::Db>,
    /// Created when it is first needed, so that small stores and readers have none.
    tree: Option<Quiet<sled::Tree>>,
    progress: Progress,
    unswept_bytes: u64,
    /// Changed, and not yet followed by batches.
    undrained_bytes: u64,
    next_batch: u64,
}

impl Upkeep {
    /// Counts in `progress` what it makes durable.
    pub(crate) fn new(db: sled::Db, progress: Progress) -> Self {
        Self {
            db: Quiet::new(db),
            tree: None,
            progress,
            unswept_bytes: 0,
            undrained_bytes: 0,
            next_batch: 0,
        }
    }

    /// Does what is due after `traffic` with sled, whose file is `data_file`. What that writes is durable when it
    /// returns.
    pub(crate) fn after(&mut self, traffic: Traffic, data_file: &File) -> sled::Result<()> {
        self.unswept_bytes += traffic.changed_bytes + traffic.read_bytes;
        self.undrained_bytes += traffic.changed_bytes;
        let is_sweep_due = self.unswept_bytes >= SWEEP_BYTES;
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None if is_sweep_due => {
                // Who knows what was due when sled was last closed.
                self.undrained_bytes += data_file.metadata()?.len();
                let tree = self.open(data_file)?;
                self.next_batch = next_batch(&tree)?;
                tree
            }
            None => return Ok(()),
        };
        if is_sweep_due {
            self.sweep(&tree, data_file)?;
            self.unswept_bytes = 0;
        }
        // Reads free no segment, and others may wait behind them.
        let batches = if traffic.changed_bytes > 0 {
            self.batches_due()
        } else {
            0
        };
        if batches > 0 {
            self.drain(&tree, batches, data_file)?;
            self.undrained_bytes -= batches * SEGMENT_BYTES;
        }
        self.tree = Some(tree);
        Ok(())
    }

    fn batches_due(&self) -> u64 {
        (self.undrained_bytes / SEGMENT_BYTES).min(MOST_BATCHES_AT_ONCE)
    }

    /// Has sled bring its cache within its bound.
    fn sweep(&self, tree: &sled::Tree, data_file: &File) -> sled::Result<()> {
        for _ in 0..USES_OF_EACH {
            for record in 0..RECORDS {
                tree.get(record_key(record))?;
            }
        }
        // A split that sled had put off may have come with one of these.
        self.sync(data_file)
    }

    /// Has sled move what is left in segments that are almost empty.
    fn drain(&mut self, tree: &sled::Tree, batches: u64, data_file: &File) -> sled::Result<()> {
        for _ in 0..batches {
            let first = self.next_batch * CHANGES_IN_A_BATCH;
            let mut batch = sled::Batch::default();
            for change in first..first + CHANGES_IN_A_BATCH {
                batch.insert(&record_key(change % RECORDS), &change.to_be_bytes());
            }
            tree.apply_batch(batch)?;
            self.next_batch += 1;
            self.sync(data_file)?;
        }
        // On the way to the first record of the log lie the leaves that it has left, see the module.
        self.db.range([LOG_PREFIX]..).next().transpose()?;
        self.sync(data_file)
    }

    fn open(&self, data_file: &File) -> sled::Result<Quiet<sled::Tree>> {
        let tree = Quiet::new(self.db.open_tree(TREE_NAME)?);
        if !tree.contains_key(record_key(RECORDS - 1))? {
            self.sync(data_file)?;
            let mut records = sled::Batch::default();
            (0..RECORDS).for_each(|record| records.insert(&record_key(record), &[]));
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

/// The record of each change holds its number. Those of a new batch are higher than all before, also those that were made
/// before sled was last opened: only so do they change something.
fn next_batch(tree: &sled::Tree) -> sled::Result<u64> {
    let in_last_round = tree.get(record_key(0))?;
    let in_last_round = in_last_round.and_then(|change| change.as_ref().try_into().ok());
    Ok(in_last_round.map_or(0, |change| {
        (u64::from_be_bytes(change) + RECORDS) / CHANGES_IN_A_BATCH
    }))
}

fn record_key(record: u64) -> [u8; 2] {
    let [.., high, low] = record.to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::{
        CHANGES_IN_A_BATCH, MOST_BATCHES_AT_ONCE, RECORDS, SEGMENT_BYTES, SWEEP_BYTES, Traffic, Upkeep,
        next_batch, record_key,
    };
    use crate::progress::Progress;

    fn changed(changed_bytes: u64) -> Traffic {
        Traffic {
            changed_bytes,
            read_bytes: 0,
        }
    }

    fn read(read_bytes: u64) -> Traffic {
        Traffic {
            changed_bytes: 0,
            read_bytes,
        }
    }

    /// How many batches of changes come after each of `traffics`, where sled's file is `file_bytes` long.
    fn batches_after<const N: usize>(file_bytes: u64, traffics: [Traffic; N]) -> [u64; N] {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path().join("sled")).unwrap();
        let mut upkeep = Upkeep::new(db, Progress::default());
        // Its length is all that is looked at.
        let file = File::create(dir.path().join("file")).unwrap();
        file.set_len(file_bytes).unwrap();
        traffics.map(|traffic| {
            let before = upkeep.next_batch;
            upkeep.after(traffic, &file).unwrap();
            upkeep.next_batch - before
        })
    }

    #[test]
    fn every_segment_that_was_changed_is_followed_by_a_batch() {
        let segment = SEGMENT_BYTES;
        let traffics = [
            changed(SWEEP_BYTES),
            changed(2 * segment),
            read(segment),
            changed(segment - 1),
            changed(1),
        ];
        assert_eq!(batches_after(0, traffics), [SWEEP_BYTES / segment, 2, 0, 0, 1]);
    }

    #[test]
    fn what_was_changed_before_is_changed_again_when_sled_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("file")).unwrap();
        let db = sled::open(dir.path().join("sled")).unwrap();
        let mut last = Vec::new();
        for _ in 0..3 {
            let mut upkeep = Upkeep::new(db.clone(), Progress::default());
            upkeep.after(changed(SWEEP_BYTES), &file).unwrap();
            let tree = upkeep.tree.unwrap();
            let record = tree.get(record_key(0)).unwrap().unwrap().to_vec();
            assert!(record > last, "{record:?} after {last:?}");
            last = record;
        }
    }

    #[test]
    fn there_is_a_sync_for_each_batch_and_for_each_look_that_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path().join("sled")).unwrap();
        let file = File::create(dir.path().join("file")).unwrap();
        let progress = Progress::default();
        let mut upkeep = Upkeep::new(db.clone(), progress.clone());
        let mut syncs_after = |traffic| {
            let before = progress.steps();
            upkeep.after(traffic, &file).unwrap();
            progress.steps() - before
        };
        let batches = SWEEP_BYTES / SEGMENT_BYTES;
        assert_eq!(syncs_after(read(SWEEP_BYTES - 1)), 0);
        assert_eq!(syncs_after(read(1)), 2 + 1, "the tree, and all of it used");
        assert_eq!(
            syncs_after(changed(SWEEP_BYTES)),
            1 + batches + 1,
            "and the way to the log"
        );
        let mut opened_anew = Upkeep::new(db, progress.clone());
        let before = progress.steps();
        opened_anew.after(read(SWEEP_BYTES), &file).unwrap();
        assert_eq!(progress.steps() - before, 1, "the tree is there");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_sync_that_fails_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path().join("sled")).unwrap();
        let file = File::create(dir.path().join("file")).unwrap();
        // What has no disk behind it cannot be synced, and says so.
        let no_disk = File::options().write(true).open("/dev/null").unwrap();
        let upkeep = || Upkeep::new(db.clone(), Progress::default());
        upkeep().after(read(SWEEP_BYTES), &no_disk).unwrap_err();
        let mut opened = upkeep();
        opened.after(read(SWEEP_BYTES), &file).unwrap();
        opened.after(read(SWEEP_BYTES), &no_disk).unwrap_err();
        let mut swept = upkeep();
        swept.after(read(SWEEP_BYTES), &file).unwrap();
        swept.after(changed(SEGMENT_BYTES), &no_disk).unwrap_err();
    }

    #[test]
    fn what_is_due_at_once_is_spread() {
        let most = MOST_BATCHES_AT_ONCE;
        let much = changed((2 * most + 3) * SEGMENT_BYTES);
        let traffics = [
            read(SWEEP_BYTES),
            much,
            read(1),
            changed(1),
            changed(1),
            changed(1),
        ];
        assert_eq!(batches_after(0, traffics), [0, most, 0, most, 3, 0]);
    }

    #[test]
    fn a_small_store_makes_no_work_and_the_file_that_was_found_is_due_once() {
        let most = MOST_BATCHES_AT_ONCE;
        let found = (most + 1) * SEGMENT_BYTES;
        let traffics = [changed(SWEEP_BYTES - 1), changed(1), changed(1), changed(1)];
        assert_eq!(
            batches_after(found, traffics),
            [0, most, SWEEP_BYTES / SEGMENT_BYTES + 1, 0]
        );
    }

    #[test]
    fn the_batches_of_a_tree_that_is_opened_anew_are_those_of_the_next_round() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path().join("sled")).unwrap();
        let tree = db.open_tree("tree").unwrap();
        assert_eq!(next_batch(&tree).unwrap(), 0);
        let round = RECORDS / CHANGES_IN_A_BATCH;
        for rounds in [0, 1, 5] {
            tree.insert(record_key(0), &(rounds * RECORDS).to_be_bytes())
                .unwrap();
            assert_eq!(next_batch(&tree).unwrap(), (rounds + 1) * round);
        }
    }
}

//! Keeps sled's page cache to the size that was asked for.
//!
//! sled 0.34 has 256 caches, one for the pages of each number modulo 256, and looks at the size of one only after 64
//! accesses to its pages. Our log is written once from front to back, a leaf of the tree takes some 300 kB and gets few
//! accesses, and then none. So without more, all of the log since the last snapshot would stay in memory, whatever
//! `cache_bytes` says.
//!
//! What helps is to use pages of all numbers 64 times: those of a tree whose leaves are tiny. Each of the caches
//! then lets go of what is over its share, the least recently used pages first. The tree holds nothing that matters.
//! It costs some 15 ms of the thread that checkpoints, and comes after every [`SWEEP_BYTES`] that go into sled.

use std::fs::File;

use crate::quiet::Quiet;

/// So many bytes go into sled between two sweeps. They may come on top of the bound.
const SWEEP_BYTES: usize = 16 * 1024 * 1024;

const TREE_NAME: &str = "cache-bound";

/// Enough for at least one leaf of each number modulo 256: a leaf holds 8 to 16 records.
const RECORDS: u16 = 4_096;

/// With eight records in each leaf or more, every leaf is used 64 times.
const USES_OF_EACH: usize = 8;

/// See the module.
pub(crate) struct CacheBound {
    db: Quiet<sled::Db>,
    tree: Option<Quiet<sled::Tree>>,
    written_bytes: usize,
}

impl CacheBound {
    pub(crate) fn new(db: sled::Db) -> Self {
        Self {
            db: Quiet::new(db),
            tree: None,
            written_bytes: 0,
        }
    }

    /// So many bytes went into sled. Whether it is time to [sweep](Self::sweep).
    pub(crate) fn is_due(&mut self, bytes: usize) -> bool {
        self.written_bytes += bytes;
        let due = self.written_bytes >= SWEEP_BYTES;
        if due {
            self.written_bytes = 0;
        }
        due
    }

    /// Has sled bring its cache within its bound. What that writes to sled, whose file is `data_file`, is durable
    /// when it returns.
    pub(crate) fn sweep(&mut self, data_file: &File) -> sled::Result<()> {
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None => self.open(data_file)?,
        };
        for _ in 0..USES_OF_EACH {
            for record in 0..RECORDS {
                tree.get(record.to_be_bytes())?;
            }
        }
        // A split that sled had put off may have come with one of these.
        self.sync(data_file)?;
        self.tree = Some(tree);
        Ok(())
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
        Ok(data_file.sync_data()?)
    }
}

//! Reads every record of a store, also behind damage.

use std::path::Path;
use std::sync::Arc;

use raft_core::LogIndex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Inspection, RecordReport, SnapshotReport};
use crate::database::open_tree;
use crate::directory::DataDir;
use crate::error::StorageError;
use crate::hard_state::{
    HARD_STATE_KEY, HardStateRecord, IDENTITY_KEY, Owner, ROOT_KEY, Root, SMALL_RECORD_LIMIT_BYTES,
    SNAPSHOT_KEY, SnapshotRecord,
};
use crate::journal::Journal;
use crate::overlay::{Layer, View};
use crate::record::{Content, LOG_PREFIX, LogRecord, RecordKey};
use crate::restore::LogReader;
use crate::rules::MAX_INDEX;
use crate::sealed;
use crate::sled_storage::Options;

/// Reads the database in the copy `dir` into `found`; yields its last batch, without the journal.
pub(super) fn read(found: &mut Inspection, dir: &Path) -> Result<Option<u64>, StorageError> {
    let dir = DataDir::of_copy(dir)?;
    let tree = open_tree(&dir, Options::default().cache_bytes)?;
    let database = View::new(&tree, &[]);
    // The database knows whose it is even if the marker is gone.
    let marked = found.identity.clone().zip(found.incarnation);
    let owner = match marked {
        Some((identity, incarnation)) => Some(Owner {
            identity,
            incarnation,
        }),
        None => read_small(&database, IDENTITY_KEY),
    };
    let in_sled: Option<Root> = read_small(&database, ROOT_KEY);
    let layers = read_journal(found, &dir, owner, in_sled.map(|root| root.batch));
    let view = View::new(&tree, &layers);
    let root: Option<Root> = read_small(&view, ROOT_KEY);
    if let Some(root) = root {
        found.last_batch = Some(root.batch);
        found.log = Some((root.first_index, root.last_index));
    }
    let mut records = Records {
        root,
        log: LogReader::new(root.unwrap_or(ANY_ROOT)),
        found,
    };
    let whole: Result<(), String> = view.for_each(|key, value| {
        records.visit(key, value);
        Ok(())
    });
    if let Err(problem) = whole {
        records
            .found
            .problems
            .push(format!("the records behind that cannot be read: {problem}"));
    }
    records.finish();
    Ok(in_sled.map(|root| root.batch))
}

fn read_small<T: DeserializeOwned + Serialize>(view: &View<'_>, key: &[u8]) -> Option<T> {
    let value = view.get(key).ok().flatten()?;
    unseal(key, &value).ok()
}

/// What the journal holds behind the batch `in_sled`; as far as it can be read, if something is wrong.
fn read_journal(
    found: &mut Inspection,
    dir: &DataDir,
    owner: Option<Owner>,
    in_sled: Option<u64>,
) -> Vec<Arc<Layer>> {
    let (Some(owner), Some(in_sled)) = (owner, in_sled) else {
        let problem = "the journal is not read: it is unknown whose it is, or where it goes on";
        found.problems.push(problem.to_owned());
        found.journal_is_cut_short = true;
        return Vec::new();
    };
    for acknowledged in [found.high_water.unwrap_or(0), 0] {
        match Journal::read(&dir.journal_dir(), &owner, in_sled, acknowledged) {
            Ok(opened) => {
                let layers = opened.full.into_iter().chain([opened.active]);
                return layers.map(Arc::new).collect();
            }
            Err(error) => found.problems.push(error.to_string()),
        }
        found.journal_is_cut_short = true;
    }
    found.problems.dedup();
    Vec::new()
}

/// With which any log record fits, when the real one cannot be read.
const ANY_ROOT: Root = Root {
    batch: 0,
    last_serial: u64::MAX,
    hard_state_serial: 0,
    snapshot_serial: 0,
    first_index: MAX_INDEX,
    last_index: MAX_INDEX,
    last_record_serial: 0,
};

struct Records<'a> {
    root: Option<Root>,
    log: LogReader,
    found: &'a mut Inspection,
}

impl Records<'_> {
    fn visit(&mut self, key: &[u8], value: &[u8]) {
        let mut report = RecordReport {
            key: key.escape_ascii().to_string(),
            indexes: None,
            serial: None,
            bytes: value.len(),
            problem: None,
        };
        if key.first() == Some(&LOG_PREFIX) {
            self.visit_log_record(key, value, &mut report);
        } else if let Err(problem) = self.visit_small_record(key, value, &mut report) {
            report.problem = Some(problem);
        }
        self.found.records.push(report);
    }

    fn visit_log_record(&mut self, key: &[u8], value: &[u8], report: &mut RecordReport) {
        let fault = self.log.visit(key, value).err();
        if let Some(key) = RecordKey::from_bytes(key) {
            let fragment = if key.fragment == 0 {
                String::new()
            } else {
                format!(".{}", key.fragment)
            };
            report.key = format!("log {}{fragment}", key.first_index);
            let record = LogRecord::unseal(key, value).ok();
            report.serial = record.as_ref().map(|record| record.serial);
            report.indexes = record
                .as_ref()
                .map(|record| (key.first_index, last_index_of(key, record)));
            if fault.is_some() {
                self.log.go_on_behind(key, record.as_ref());
            }
        }
        report.problem = fault.map(|fault| fault.to_string());
    }

    fn visit_small_record(
        &mut self,
        key: &[u8],
        value: &[u8],
        report: &mut RecordReport,
    ) -> Result<(), String> {
        if key == HARD_STATE_KEY {
            let record: HardStateRecord = unseal(key, value)?;
            report.serial = Some(record.serial);
            self.found.hard_state = Some(record.hard_state);
            self.check_serial(record.serial, |root| root.hard_state_serial)
        } else if key == SNAPSHOT_KEY {
            let record: SnapshotRecord = unseal(key, value)?;
            report.serial = Some(record.serial);
            self.found.snapshot = Some(SnapshotReport {
                meta: record.snapshot,
                problem: None,
            });
            self.check_serial(record.serial, |root| root.snapshot_serial)
        } else if key == IDENTITY_KEY {
            let Owner { identity, .. } = unseal(key, value)?;
            match &self.found.identity {
                Some(owner) if *owner != identity => Err(format!(
                    "it belongs to node {} of cluster {:?} and the directory does not",
                    identity.node_id, identity.cluster_id
                )),
                _ => Ok(()),
            }
        } else if key == ROOT_KEY {
            unseal::<Root>(key, value).map(drop)
        } else {
            Err("it is not ours".to_owned())
        }
    }

    fn check_serial(&self, serial: u64, expected: impl Fn(&Root) -> u64) -> Result<(), String> {
        match self.root.as_ref().map(expected) {
            Some(expected) if expected != serial => Err(format!(
                "it has serial {serial} and should have {expected}: it is outdated"
            )),
            _ => Ok(()),
        }
    }

    /// Tells of the small records that are not there, and whether the log ends where it should.
    fn finish(self) {
        for key in [HARD_STATE_KEY, IDENTITY_KEY, ROOT_KEY, SNAPSHOT_KEY] {
            let name = key.escape_ascii().to_string();
            if self.found.records.iter().all(|record| record.key != name) {
                self.found.problems.push(format!("the record {name} is missing"));
            }
        }
        let (entries, end) = self.log.finish_as_it_is();
        self.found.entries = entries;
        if let (Some(_), Err(fault)) = (self.root, end) {
            self.found.problems.push(fault.to_string());
        }
    }
}

fn unseal<T: DeserializeOwned + Serialize>(key: &[u8], value: &[u8]) -> Result<T, String> {
    sealed::unseal(key, value, SMALL_RECORD_LIMIT_BYTES).map_err(|flaw| flaw.to_string())
}

fn last_index_of(key: RecordKey, record: &LogRecord) -> LogIndex {
    match &record.content {
        Content::Entries(entries) => entries.last().map_or(key.first_index, |entry| entry.index),
        Content::Fragment { .. } => key.first_index,
    }
}

//! The thread that owns sled once a store is open.
//!
//! sled can be slow, and after a failed write of its own (0.34.7) it can wait for ever. So nobody else calls
//! it, and whoever needs something of it waits no longer than a bound: a store on a dead disk fails, with an
//! error that says so, and never hangs.
//!
//! # A checkpoint, and what a crash after each step leaves
//!
//! 1. All changes of a full journal file but the root, in pieces ([`carrying`](crate::carrying)): of each the places of the
//!    new records ([`spacers`]), and then the changes, in sled batches of about [`SLED_BATCH_BYTES`], each flushed and
//!    `fdatasync`ed. *Some of them are in sled, some empty. The root is the old one, so the file is replayed from the
//!    start.* A sync comes after each batch, and not only after all of them: see below. (Of the tiny batches of places
//!    it comes after several.)
//! 2. The root, flushed and `fdatasync`ed. *Before the sync as after 1, or as after 3.*
//! 3. The file gets the length for its next use. *Nothing in it is needed: sled has all of it.*
//! 4. Spacers go, and sled is [kept within its bounds](crate::upkeep). *Spacers that a crash leaves go after
//!    the first checkpoint of the next start, as far as they stand before the log.*
//!
//! # Why a sync after each batch is enough, and how long a batch may be
//!
//! sled's file consists of segments. One whose pages were all replaced is free: sled writes it anew, or cuts it off if
//! it is the last one. That loses nothing only if what replaced those pages is on the disk, and sled believes that
//! too early: it takes for stable what it has handed to the system. What sled 0.34.7 does (`pagecache/segment.rs`
//! and `iobuf.rs` there):
//!
//! - A segment is freed only once the segment with the last replacement in it is no longer *active*.
//! - A segment stops being active when the header of a later one has been written that says that sled is stable a
//!   whole segment beyond it. The header says what was so when that later segment was begun.
//! - A batch begins with a record that is written last, once all of the batch is there. Until then sled is stable
//!   only up to that record, so a header that is written during the batch speaks of batches before it.
//! - A header begun when a batch is complete is written with the first record behind it: with the next batch.
//!
//! So what a batch replaces is freed, used again or cut off during the next batch at the earliest, however many segments
//! the batch runs through; and before the next one comes our sync. Without a sync in between it might be lost.
//!
//! For the same reason a batch takes new room for all that sled writes for it, and gives back none. To remove
//! records means to write what stands beside them in their pages anew, about as much as is removed: so a removal
//! counts for as many bytes as the record had. Else one batch would remove a whole log and need as much room for
//! that as the log had taken, on a disk that may be almost full.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use raft_core::{Entry, LogReadReply};

use crate::carrying::{Piece, PieceChange};
use crate::directory::DataDir;
use crate::durability::DurableTree;
use crate::error::StorageError;
use crate::hard_state::Owner;
use crate::journal::NextUse;
use crate::overlay::{Layer, View};
use crate::panics;
use crate::read_back::ReadBack;
use crate::restore::{self, Loaded};
use crate::spacers;
use crate::upkeep::Traffic;

/// About how much goes into one batch of sled.
const SLED_BATCH_BYTES: u64 = 1024 * 1024;

/// How long to wait for the whole store to be read again.
const LOAD_WAIT: Duration = Duration::from_secs(600);

/// How long a closing store waits for a thread that did not answer in time before.
const CLOSE_WAIT_WHEN_STUCK: Duration = Duration::from_secs(1);

type Reply<T> = Sender<Result<T, StorageError>>;

enum Job {
    /// Carry a piece of a journal file into sled; if it is the last one, make the file ready for its next use.
    Carry(Piece, Option<NextUse>, Reply<Carried>),
    Get(Vec<u8>, Reply<Option<Vec<u8>>>),
    ReadLog(ReadBack, LogReadReply<StorageError>),
    Load(Vec<Arc<Layer>>, Owner, Reply<Loaded>),
}

/// A piece of a journal file is in sled.
#[derive(Debug)]
pub(crate) struct Carried {
    /// If it was the last one: how long the file is now.
    pub(crate) file_bytes: Option<u64>,
}

/// A handle on the thread.
pub(crate) struct Checkpointer {
    /// `None` once the store is being closed.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Where the answer comes for what was [begun](Self::begin) last.
    running: Option<Receiver<Result<Carried, StorageError>>>,
    path: PathBuf,
    wait: Duration,
    close_wait: Duration,
}

impl fmt::Debug for Checkpointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointer")
            .field("path", &self.path)
            .field("running", &self.running.is_some())
            .finish_non_exhaustive()
    }
}

impl Checkpointer {
    /// Starts the thread, which keeps `dir` locked until it has closed sled. No record in sled has more than
    /// `largest_record` bytes. No wait for a checkpoint or a record takes longer than `wait`.
    pub(crate) fn start(
        tree: DurableTree,
        largest_record: usize,
        dir: Arc<DataDir>,
        wait: Duration,
    ) -> Result<Self, StorageError> {
        let path = tree.path().to_path_buf();
        let (jobs, queue) = mpsc::channel();
        let worker = Worker {
            tree,
            has_tidied: false,
            largest_record,
            failure: None,
            _dir: dir,
        };
        let thread = thread::Builder::new()
            .name("storage-checkpoint".to_owned())
            .spawn(move || worker.run(&queue))
            .map_err(StorageError::while_trying("start a thread for", &path))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            running: None,
            path,
            wait,
            close_wait: wait,
        })
    }

    /// sled's data file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins to carry `piece` into sled. The one before must have been carried, see [`is_busy`](Self::is_busy). With
    /// `last` it is the root alone, and after it that file is made ready for its next use.
    pub(crate) fn begin(&mut self, piece: Piece, last: Option<NextUse>) -> Result<(), StorageError> {
        let (reply, answer) = mpsc::channel();
        self.send(Job::Carry(piece, last, reply))?;
        self.running = Some(answer);
        Ok(())
    }

    /// Whether something was begun and its end not [noticed](Self::poll) yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// Whether what was begun has ended, without waiting for it.
    pub(crate) fn poll(&mut self) -> Result<Option<Carried>, StorageError> {
        let Some(running) = &self.running else {
            return Ok(None);
        };
        let ended = match running.try_recv() {
            Err(TryRecvError::Empty) => return Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.gone()),
            Ok(ended) => ended,
        };
        self.running = None;
        ended.map(Some)
    }

    /// Waits until the piece has been carried, if there is one.
    pub(crate) fn wait(&mut self) -> Result<Option<Carried>, StorageError> {
        let Some(running) = self.running.take() else {
            return Ok(None);
        };
        self.receive(&running, self.wait).map(Some).inspect_err(|error| {
            if matches!(error, StorageError::NoAnswer { .. }) {
                self.close_wait = self.close_wait.min(CLOSE_WAIT_WHEN_STUCK);
            }
        })
    }

    /// Reads one record of sled.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let (reply, answer) = mpsc::channel();
        self.send(Job::Get(key.to_vec(), reply))?;
        self.receive(&answer, self.wait)
    }

    /// Reads entries of the log, behind everything that the thread was given before.
    pub(crate) fn read_log(&self, read: ReadBack, reply: LogReadReply<StorageError>) {
        let unsent = match &self.jobs {
            Some(jobs) => jobs.send(Job::ReadLog(read, reply)).map_err(|unsent| unsent.0),
            None => Err(Job::ReadLog(read, reply)),
        };
        if let Err(Job::ReadLog(_, reply)) = unsent {
            reply(Err(self.gone()));
        }
    }

    /// Reads and verifies sled under `layers`, the oldest first.
    pub(crate) fn load(&self, layers: Vec<Arc<Layer>>, store: &Owner) -> Result<Loaded, StorageError> {
        let (reply, answer) = mpsc::channel();
        self.send(Job::Load(layers, store.clone(), reply))?;
        self.receive(&answer, LOAD_WAIT)
    }

    fn send(&self, job: Job) -> Result<(), StorageError> {
        match &self.jobs {
            Some(jobs) if jobs.send(job).is_ok() => Ok(()),
            _ => Err(self.gone()),
        }
    }

    fn receive<T>(
        &self,
        answer: &Receiver<Result<T, StorageError>>,
        wait: Duration,
    ) -> Result<T, StorageError> {
        match answer.recv_timeout(wait) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(self.gone()),
            Err(RecvTimeoutError::Timeout) => Err(StorageError::NoAnswer {
                path: self.path.clone(),
                waited: wait,
            }),
        }
    }

    fn gone(&self) -> StorageError {
        StorageError::WriteFailed {
            path: self.path.clone(),
            cause: "the thread that writes the database has ended".to_owned(),
        }
    }
}

impl Drop for Checkpointer {
    /// Waits for the thread to close sled, but not for ever: a thread that hangs in sled is left behind, with
    /// the lock on the directory.
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        let (reply, answer) = mpsc::channel();
        let joined = thread::Builder::new().spawn(move || {
            // A panic of the thread was told as the failure of its job.
            let _ = thread.join();
            let _ = reply.send(());
        });
        if joined.is_err() || answer.recv_timeout(self.close_wait) == Err(RecvTimeoutError::Timeout) {
            tracing::error!(path = %self.path.display(), "the database does not answer and was not closed");
        }
    }
}

/// What runs on the thread.
struct Worker {
    tree: DurableTree,
    /// The first time, the spacers are removed that a crash may have left.
    has_tidied: bool,
    /// No record in sled has more bytes.
    largest_record: usize,
    /// Nothing more is written to sled after a failure.
    failure: Option<StorageError>,
    /// Dropped last: the directory is locked as long as sled is open.
    _dir: Arc<DataDir>,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Job>) {
        // The queue ends when the store is closed. Who no longer waits for an answer misses nothing.
        for job in queue {
            match job {
                Job::Carry(piece, last, reply) => {
                    let is_last = last.is_some();
                    let mut traffic = Traffic::default();
                    let done = self.carry(&piece, last, &mut traffic);
                    self.failure = done.as_ref().err().cloned();
                    let _ = reply.send(done);
                    self.tidy(&piece, is_last);
                    self.keep_up(traffic);
                }
                Job::Get(key, reply) => {
                    let value = self.tree.get(&key).map_err(|cause| self.failed(cause));
                    let _ = reply.send(value.map(|value| value.map(|value| value.to_vec())));
                }
                Job::ReadLog(read, reply) => {
                    let mut traffic = Traffic::default();
                    reply(self.caught(|| self.read_log(read, &mut traffic)));
                    // What is read stays in the cache as what is written does.
                    self.keep_up(traffic);
                }
                Job::Load(layers, store, reply) => {
                    let view = View::new(&self.tree, &layers);
                    let _ = reply.send(self.caught(|| restore::load(&view, &store)));
                }
            }
        }
    }

    fn caught<T>(&self, work: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
        panics::catch(work).unwrap_or_else(|panic| Err(self.failed(panic)))
    }

    /// Counts what it reads of sled.
    fn read_log(&self, read: ReadBack, traffic: &mut Traffic) -> Result<Vec<Entry>, StorageError> {
        read.entries(self.tree.path(), |key| {
            let value = self.tree.get(key).map_err(|cause| self.failed(cause))?;
            traffic.read_bytes += value.as_ref().map_or(0, |value| value.len()) as u64;
            Ok(value.map(|value| value.to_vec()))
        })
    }

    /// Counts in `traffic` what it changes.
    fn carry(
        &mut self,
        piece: &Piece,
        last: Option<NextUse>,
        traffic: &mut Traffic,
    ) -> Result<Carried, StorageError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let changes = self.caught(|| self.prepare(piece))?;
        let lengths = changes.iter().filter_map(|change| change.value.as_ref());
        let largest_record = lengths.map(Vec::len).max().unwrap_or_default();
        self.largest_record = self.largest_record.max(largest_record);
        self.caught(|| self.write(&changes, traffic))?;
        let file_bytes = last.map(|file| file.prepare()).transpose()?;
        Ok(Carried { file_bytes })
    }

    /// What there is to do for `piece`, with values that are verified: sled keeps them for long.
    fn prepare<'a>(&self, piece: &'a Piece) -> Result<Vec<SledChange<'a>>, StorageError> {
        let mut changes = Vec::with_capacity(piece.changes.len());
        for (key, change) in &piece.changes {
            let read = |location| piece.values.read_verified(key, location).map(Some);
            let in_sled = || self.tree.get(key).map_err(|cause| self.failed(cause));
            let (value, replaced) = match change {
                PieceChange::Add(location) => (read(*location)?, None),
                PieceChange::Replace(location) => (read(*location)?, in_sled()?),
                PieceChange::Remove => (None, in_sled()?),
            };
            // The record never came here, or it went before a restart.
            if value.is_none() && replaced.is_none() {
                continue;
            }
            changes.push(SledChange {
                key,
                is_new: replaced.is_none(),
                // A removal makes sled write about as much as the record had.
                bytes: value
                    .as_ref()
                    .map_or_else(|| replaced.as_ref().map_or(0, |record| record.len()), Vec::len)
                    as u64,
                value,
            });
        }
        Ok(changes)
    }

    fn write(&self, changes: &[SledChange<'_>], traffic: &mut Traffic) -> Result<(), StorageError> {
        if changes.is_empty() {
            return Ok(());
        }
        let new: Vec<&[u8]> = changes
            .iter()
            .filter(|change| change.is_new)
            .map(|change| change.key)
            .collect();
        let first = new.first().copied().unwrap_or_default();
        let at_the_end = self.tree.ends_before(first).map_err(|cause| self.failed(cause))?;
        // Reads since the last sync may have made sled split, merge or move pages.
        self.tree.make_durable()?;
        spacers::make_places(&self.tree, &new, at_the_end, self.largest_record)?;
        let mut batch = sled::Batch::default();
        let mut batch_bytes = 0;
        for change in changes {
            if batch_bytes >= SLED_BATCH_BYTES {
                self.tree.commit(std::mem::take(&mut batch))?;
                batch_bytes = 0;
            }
            match &change.value {
                Some(value) => batch.insert(change.key, value.as_slice()),
                None => batch.remove(change.key),
            }
            batch_bytes += change.bytes;
            traffic.changed_bytes += change.key.len() as u64 + change.bytes;
        }
        self.tree.commit(batch)
    }

    /// Does what can wait until the piece has been answered for.
    fn tidy(&mut self, piece: &Piece, is_last: bool) {
        self.unless_failed(|worker| {
            if is_last && !std::mem::replace(&mut worker.has_tidied, true) {
                spacers::remove_forgotten(&worker.tree)?;
            }
            let removed = piece
                .changes
                .iter()
                .filter(|(_, change)| *change == PieceChange::Remove);
            spacers::remove_behind(&worker.tree, removed.map(|(key, _)| key.as_slice()))
        });
    }

    fn keep_up(&mut self, traffic: Traffic) {
        self.unless_failed(|worker| worker.tree.keep_up(traffic));
    }

    /// Does what nobody waits for. If it fails, so does the next checkpoint.
    fn unless_failed(&mut self, work: impl FnOnce(&mut Self) -> Result<(), StorageError>) {
        if self.failure.is_none() {
            self.failure = work(self).err();
        }
    }

    fn failed(&self, cause: String) -> StorageError {
        StorageError::WriteFailed {
            path: self.tree.path().to_path_buf(),
            cause,
        }
    }
}

/// One change that sled is about to see.
struct SledChange<'a> {
    key: &'a [u8],
    /// `None` removes the record.
    value: Option<Vec<u8>>,
    /// sled has no record under this key.
    is_new: bool,
    /// How much it makes sled write, about.
    bytes: u64,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use raft_core::{LogIndex, LogRead, NodeId};

    use super::{SledChange, Worker};
    use crate::carrying::Piece;
    use crate::changes::{Span, State};
    use crate::conformance::command;
    use crate::directory::DataDir;
    use crate::durability::DurableTree;
    use crate::hard_state::Root;
    use crate::journal::Values;
    use crate::read_back::ReadBack;
    use crate::record::{Content, LogRecord, RecordKey};
    use crate::upkeep::Traffic;

    /// A worker with an empty database in a directory of its own.
    struct AtWork {
        worker: Worker,
        database: sled::Db,
        /// How many batches went into the database.
        batches: Arc<AtomicUsize>,
        dir: tempfile::TempDir,
    }

    impl AtWork {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let claimed = Arc::new(DataDir::claim(dir.path()).unwrap());
            let sled_dir = dir.path().join("sled");
            let database = sled::Config::new().path(&sled_dir).flush_every_ms(None).open();
            let database = database.unwrap();
            let mut tree = DurableTree::new(&database, &sled_dir).unwrap();
            assert!(tree.is_empty());
            let batches = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&batches);
            tree.set_hook(Arc::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }));
            let worker = Worker {
                tree,
                has_tidied: false,
                largest_record: 0,
                failure: None,
                _dir: claimed,
            };
            Self {
                worker,
                database,
                batches,
                dir,
            }
        }

        /// A piece without changes.
        fn no_changes(&self) -> Piece {
            let file = self.dir.path().join("values");
            std::fs::write(&file, b"").unwrap();
            Piece {
                values: Values::open(&file).unwrap(),
                changes: Vec::new(),
            }
        }
    }

    fn key(index: u64) -> [u8; 13] {
        RecordKey::new(LogIndex(index), 0).to_bytes()
    }

    #[test]
    fn changes_go_into_the_database_about_a_mebibyte_at_a_time_and_every_byte_is_counted() {
        let at_work = AtWork::new();
        let keys: Vec<_> = (1..=100).map(key).collect();
        let changes = keys.iter().map(|key| SledChange {
            key,
            value: Some(vec![7; 30_000]),
            is_new: false,
            bytes: 30_000,
        });
        let mut traffic = Traffic::default();
        let changes: Vec<_> = changes.collect();
        at_work.worker.write(&changes, &mut traffic).unwrap();
        // 35 records are the first that have as much.
        assert_eq!(at_work.batches.load(Ordering::Relaxed), 3);
        assert_eq!(traffic.changed_bytes, 100 * (13 + 30_000));
        assert_eq!(at_work.database.len(), 100);
    }

    #[test]
    fn what_is_read_back_from_the_database_is_counted() {
        let at_work = AtWork::new();
        let state = State {
            root: Root {
                first_index: LogIndex(1),
                last_index: LogIndex(2),
                last_serial: 2,
                ..Root::default()
            },
            spans: (1..=2)
                .map(|index| Span {
                    first_index: LogIndex(index),
                    last_index: LogIndex(index),
                    records: 1,
                    serial: index,
                })
                .collect(),
            ..State::default()
        };
        let mut bytes = 0;
        for serial in 1..=2 {
            let record = LogRecord {
                serial,
                previous_serial: serial - 1,
                content: Content::Entries(vec![command(1, serial, 500)]),
            };
            let mut sealed = Vec::new();
            let key = RecordKey::new(LogIndex(serial), 0);
            record.seal_into(key, &mut sealed).unwrap();
            bytes += sealed.len() as u64;
            at_work.database.insert(key.to_bytes(), sealed).unwrap();
        }
        let read = LogRead {
            peer: NodeId(1),
            from: LogIndex(1),
            to: LogIndex(2),
            max_bytes: usize::MAX,
        };
        let prepared = ReadBack::prepare(&read, &state, |_| Ok(None)).unwrap();
        let mut traffic = Traffic::default();
        let entries = at_work.worker.read_log(prepared, &mut traffic).unwrap();
        assert_eq!(entries, [command(1, 1, 500), command(1, 2, 500)]);
        assert_eq!(traffic.read_bytes, bytes);
    }

    #[test]
    fn spacers_that_a_crash_left_go_after_the_first_whole_file_and_are_not_looked_for_again() {
        let mut at_work = AtWork::new();
        let piece = at_work.no_changes();
        let spacer = [&key(1)[..], &[0]].concat();
        let is_left = |at_work: &AtWork| at_work.database.contains_key(&spacer).unwrap();
        at_work.database.insert(&spacer, b"").unwrap();
        at_work.worker.tidy(&piece, false);
        assert!(is_left(&at_work), "the file is not carried over yet");
        at_work.worker.tidy(&piece, true);
        assert!(!is_left(&at_work));
        at_work.database.insert(&spacer, b"").unwrap();
        at_work.worker.tidy(&piece, true);
        assert!(is_left(&at_work), "only a crash leaves any");
        assert!(at_work.worker.failure.is_none());
    }

    #[test]
    fn the_database_is_kept_within_its_bounds_when_much_went_through_it() {
        let mut at_work = AtWork::new();
        let has_bounded = |at_work: &AtWork| at_work.database.tree_names().contains(&"cache-bound".into());
        let changed = |changed_bytes| Traffic {
            changed_bytes,
            read_bytes: 0,
        };
        at_work.worker.keep_up(changed(1));
        assert!(!has_bounded(&at_work));
        at_work.worker.keep_up(changed(16 * 1024 * 1024));
        assert!(has_bounded(&at_work));
        assert!(at_work.worker.failure.is_none());
    }
}

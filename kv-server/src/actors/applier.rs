//! Owns the state machine: applies committed entries, and cuts snapshots while it goes on.

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, Recipient};
use raft_core::{Configuration, Entry, LogIndex, Payload, SnapshotMeta};
use storage::{SnapshotStore, StorageError};

use super::FatalOnPanic;
use super::kv_server::EntriesApplied;
use super::raft_node::{AppliedTo, SnapshotCut};
use crate::disk_room::DiskSpace;
use crate::shutdown::StopSender;
use crate::state_machine::{StateError, StateMachine};
use crate::state_snapshot::StateSnapshot;

/// Less room than this is not worth a snapshot that is cut to make it.
const WORTHWHILE_BYTES: u64 = 1 << 20;

/// How long a snapshot is put off that could not be written.
const PUT_OFF_FOR: Duration = Duration::from_secs(5);
/// The same once the node stops, which has a second and a half for it.
const PUT_OFF_FOR_WHILE_IT_STOPS: Duration = Duration::from_millis(100);

/// When to cut snapshots, and where from.
#[derive(Debug)]
pub(crate) struct ApplierSettings {
    /// Cut a snapshot when this many bytes of the log were applied since the last one.
    pub(crate) snapshot_log_bytes: u64,
    /// The snapshot that the state machine was loaded from.
    pub(crate) snapshot: SnapshotMeta,
    /// Where the snapshots go.
    pub(crate) disk: Arc<DiskSpace>,
    /// How long a snapshot is put off that could not be written.
    pub(crate) put_off_for: Duration,
}

impl ApplierSettings {
    /// The usual ones for a state machine that was loaded from `snapshot`.
    pub(crate) fn new(snapshot_log_bytes: u64, snapshot: SnapshotMeta, disk: Arc<DiskSpace>) -> Self {
        Self {
            snapshot_log_bytes,
            snapshot,
            disk,
            put_off_for: PUT_OFF_FOR,
        }
    }
}

/// Who hears of what the applier does.
#[derive(Clone)]
pub(crate) struct Listeners {
    /// How far it has come, for the core.
    pub(crate) applied: Recipient<AppliedTo>,
    /// A snapshot is in place, for the core.
    pub(crate) cut: Recipient<SnapshotCut>,
    /// What came of the entries, for the callers.
    pub(crate) outcomes: Recipient<EntriesApplied>,
}

/// The actor around the state machine (the notes' `applierTicker`, woken by work instead of a clock).
pub(crate) struct Applier {
    state: StateMachine,
    snapshots: Arc<dyn SnapshotStore>,
    settings: ApplierSettings,
    /// The members as of the last applied entry; goes into the next snapshot.
    configuration: Configuration,
    /// Bytes of the log applied since the last snapshot.
    log_bytes: u64,
    /// While a snapshot is written: the bytes of the log that it covers.
    cutting: Option<u64>,
    /// One could not be written just now.
    put_off: bool,
    /// It was told that it is put off, and none was written since.
    told_put_off: bool,
    disk: Arc<DiskSpace>,
    /// While a snapshot is being loaded, what comes behind it.
    restoring: Option<VecDeque<Vec<Entry>>>,
    listeners: Listeners,
    stop: StopSender,
    _fatal: FatalOnPanic,
}

/// Committed entries, in order, without gap.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Apply(pub(crate) Vec<Entry>);

/// Replace the state by this snapshot, before anything that comes behind.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Restore(pub(crate) SnapshotMeta);

/// Room on the disk is low: cut a snapshot if that makes the log much shorter, or the snapshot smaller.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct MakeRoom;

/// The file of this snapshot is damaged or lost: cut another one, or who needs it would wait until the log has grown.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ReplaceSnapshot(pub(crate) SnapshotMeta);

/// The node stops soon: a snapshot that is needed is tried again at once, and not after a rest.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PutNothingOff;

/// A snapshot was loaded, away from this thread.
#[derive(Message)]
#[rtype(result = "()")]
struct Restored(SnapshotMeta, Result<StateMachine, SnapshotError>);

/// A snapshot was written, away from this thread.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct CutFinished(Result<SnapshotMeta, SnapshotError>);

/// Why a snapshot could not be loaded, or cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// The file cannot be opened or is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file does not hold a state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file cannot be written.
    #[error("the snapshot at {index} could not be written: {source}. {}", advice(source))]
    Write {
        /// The last entry that it was to cover.
        index: LogIndex,
        /// What the operating system said.
        source: io::Error,
    },
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "The disk is full: make room on it",
        io::ErrorKind::FileTooLarge => {
            "A limit on the size of files stops it: raise it (ulimit -f in a shell, LimitFSIZE= in a unit file)"
        }
        _ => "Check the disk: is it full, or failing?",
    }
}

impl SnapshotError {
    /// Whether the next one may well be written: only room was lacking, on the disk or in a quota, or somebody removed
    /// the file that was being written.
    fn may_pass(&self) -> bool {
        use io::ErrorKind::{NotFound, QuotaExceeded, StorageFull};
        let kind = match self {
            Self::Write { source, .. } => source.kind(),
            Self::Storage(StorageError::Io { source, .. }) => source.kind(),
            Self::Storage(_) | Self::State(_) => return false,
        };
        matches!(kind, StorageFull | QuotaExceeded | NotFound)
    }
}

/// Loads the state that `snapshot` holds.
///
/// # Errors
///
/// When the file is missing, damaged, or of another format.
pub(crate) fn load(
    snapshots: &dyn SnapshotStore,
    snapshot: &SnapshotMeta,
) -> Result<StateMachine, SnapshotError> {
    if snapshot.last_included_index == LogIndex::ZERO {
        return Ok(StateMachine::new());
    }
    let content = snapshots.open(snapshot)?.content();
    Ok(StateMachine::read_from(&mut BufReader::new(content))?)
}

fn write(
    snapshots: &dyn SnapshotStore,
    state: &StateSnapshot,
    configuration: &Configuration,
) -> Result<SnapshotMeta, SnapshotError> {
    let index = state.last_applied();
    let mut file = snapshots.create(index, state.last_applied_term(), configuration)?;
    let mut out = io::BufWriter::with_capacity(64 * 1024, &mut file);
    let written = state.write_to(&mut out).and_then(|()| io::Write::flush(&mut out));
    drop(out);
    written.map_err(|source| SnapshotError::Write { index, source })?;
    Ok(file.finish()?)
}

impl Applier {
    /// Applies to `state`; reports to `listeners`.
    #[must_use]
    pub(crate) fn new(
        state: StateMachine,
        snapshots: Arc<dyn SnapshotStore>,
        settings: ApplierSettings,
        listeners: Listeners,
        stop: StopSender,
    ) -> Self {
        let applier = Self {
            configuration: settings.snapshot.configuration.clone(),
            state,
            snapshots,
            disk: Arc::clone(&settings.disk),
            settings,
            log_bytes: 0,
            cutting: None,
            put_off: false,
            told_put_off: false,
            restoring: None,
            listeners,
            stop,
            _fatal: FatalOnPanic::of("the applier"),
        };
        applier.tell_needs();
        applier
    }

    fn apply(&mut self, entries: &[Entry], ctx: &mut Context<Self>) {
        let applied = match self.state.apply_batch(entries) {
            Ok(applied) => applied,
            Err(error) => return self.stop.state_failed(error),
        };
        for entry in entries {
            self.log_bytes += entry.size_bytes() as u64;
            if let Payload::Configuration(configuration) = &entry.payload {
                self.configuration = configuration.clone();
            }
        }
        let up_to = self.state.last_applied();
        self.listeners.outcomes.do_send(EntriesApplied {
            entries: applied,
            up_to,
        });
        self.listeners.applied.do_send(AppliedTo(up_to));
        self.tell_needs();
        self.cut_snapshot_if_due(ctx);
    }

    fn cut_snapshot_if_due(&mut self, ctx: &mut Context<Self>) {
        if self.log_bytes >= self.settings.snapshot_log_bytes && self.restoring.is_none() {
            self.cut_snapshot_if_it_fits(ctx);
        }
    }

    fn tell_needs(&self) {
        let snapshot_bytes = storage::snapshot_file_bytes(self.state.snapshot_bytes());
        self.disk.set_needs(snapshot_bytes, self.log_bytes);
    }

    /// Whether a snapshot gives back enough room for what it costs: by the log that it replaces, or because much
    /// that is in the last one was deleted since. At least half of what it takes for a moment, so that the disk is
    /// not kept busy by a state that fills it.
    fn makes_room(&self) -> bool {
        let next = self.disk.next_snapshot_bytes();
        let smaller = self.settings.snapshot.size_bytes.saturating_sub(next);
        self.log_bytes.saturating_add(smaller) >= WORTHWHILE_BYTES.max(next / 2)
    }

    /// A snapshot that might fill the disk is put off: writes are refused by then, and the log stays.
    fn cut_snapshot_if_it_fits(&mut self, ctx: &mut Context<Self>) {
        let may_begin = self.cutting.is_none() && !self.put_off;
        if may_begin && self.disk.fits(self.disk.next_snapshot_bytes()) {
            self.cut_snapshot(ctx);
        }
    }

    /// Nothing depends on a snapshot that was not written: the log is still there, and another is written later.
    fn put_snapshot_off(&mut self, error: &SnapshotError, ctx: &mut Context<Self>) {
        if !self.told_put_off {
            tracing::warn!(
                "a snapshot is put off, and the log grows meanwhile: {error}. It is tried again every {:?}",
                self.settings.put_off_for
            );
            self.told_put_off = true;
        }
        self.rest(ctx);
    }

    fn rest(&mut self, ctx: &mut Context<Self>) {
        self.put_off = true;
        ctx.run_later(self.settings.put_off_for, |applier, ctx| {
            applier.put_off = false;
            applier.cut_snapshot_if_due(ctx);
        });
    }

    /// Freezes the state, which is cheap, and writes it out on another thread.
    fn cut_snapshot(&mut self, ctx: &mut Context<Self>) {
        self.cutting = Some(std::mem::take(&mut self.log_bytes));
        let state = self.state.snapshot();
        let configuration = self.configuration.clone();
        let snapshots = Arc::clone(&self.snapshots);
        let applier = ctx.address();
        tracing::info!("cuts a snapshot at {}", state.last_applied());
        self.run_aside("snapshot-writer", move || {
            applier.do_send(CutFinished(write(snapshots.as_ref(), &state, &configuration)));
        });
    }

    /// Runs long work away from this thread. Its panic ends the process like one here.
    fn run_aside(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _fatal = FatalOnPanic::of("a snapshot thread");
            work();
        });
        if let Err(error) = spawned {
            self.stop.thread_failed(error);
        }
    }
}

impl Actor for Applier {
    type Context = Context<Self>;
}

impl Handler<Apply> for Applier {
    type Result = ();

    fn handle(&mut self, Apply(entries): Apply, ctx: &mut Self::Context) {
        match &mut self.restoring {
            Some(waiting) => waiting.push_back(entries),
            None => self.apply(&entries, ctx),
        }
    }
}

impl Handler<Restore> for Applier {
    type Result = ();

    fn handle(&mut self, Restore(snapshot): Restore, ctx: &mut Self::Context) {
        // A newer snapshot replaces one that is still being loaded, and what was to come behind it.
        self.restoring = Some(VecDeque::new());
        self.settings.snapshot = snapshot.clone();
        let snapshots = Arc::clone(&self.snapshots);
        let applier = ctx.address();
        self.run_aside("snapshot-loader", move || {
            let state = load(snapshots.as_ref(), &snapshot);
            applier.do_send(Restored(snapshot, state));
        });
    }
}

impl Handler<Restored> for Applier {
    type Result = ();

    fn handle(&mut self, Restored(snapshot, state): Restored, ctx: &mut Self::Context) {
        if snapshot != self.settings.snapshot {
            return;
        }
        match state {
            Ok(state) => self.state.install(state),
            Err(error) => return self.stop.snapshot_failed(error),
        }
        tracing::info!("restored the state as of entry {}", snapshot.last_included_index);
        self.configuration = snapshot.configuration;
        self.log_bytes = 0;
        self.tell_needs();
        let up_to = self.state.last_applied();
        self.listeners.outcomes.do_send(EntriesApplied {
            entries: Vec::new(),
            up_to,
        });
        self.listeners.applied.do_send(AppliedTo(up_to));
        for entries in self.restoring.take().into_iter().flatten() {
            self.apply(&entries, ctx);
        }
    }
}

impl Handler<CutFinished> for Applier {
    type Result = ();

    fn handle(&mut self, CutFinished(result): CutFinished, ctx: &mut Self::Context) {
        let covered = self.cutting.take().unwrap_or_default();
        match result {
            Ok(snapshot) => {
                self.told_put_off = false;
                // One that was restored meanwhile is newer and stays.
                if snapshot.last_included_index > self.settings.snapshot.last_included_index {
                    self.settings.snapshot = snapshot.clone();
                    self.tell_needs();
                } else if !snapshot.is_of_same_file(&self.settings.snapshot) {
                    // Another version wrote the one on record: this one takes its place when there is a newer state.
                    self.rest(ctx);
                }
                self.listeners.cut.do_send(SnapshotCut(snapshot));
            }
            Err(error) if error.may_pass() => {
                self.log_bytes += covered;
                self.tell_needs();
                self.put_snapshot_off(&error, ctx);
            }
            Err(error) => self.stop.snapshot_failed(error),
        }
    }
}

impl Handler<ReplaceSnapshot> for Applier {
    type Result = ();

    fn handle(&mut self, ReplaceSnapshot(damaged): ReplaceSnapshot, ctx: &mut Self::Context) {
        let is_replaced = damaged.last_included_index > self.settings.snapshot.last_included_index;
        if !is_replaced && self.restoring.is_none() {
            self.cut_snapshot_if_it_fits(ctx);
        }
    }
}

impl Handler<MakeRoom> for Applier {
    type Result = ();

    fn handle(&mut self, _: MakeRoom, ctx: &mut Self::Context) {
        if self.restoring.is_none() && self.makes_room() {
            self.cut_snapshot_if_it_fits(ctx);
        }
    }
}

impl Handler<PutNothingOff> for Applier {
    type Result = ();

    fn handle(&mut self, _: PutNothingOff, _: &mut Self::Context) {
        self.put_off = false;
        self.settings.put_off_for = PUT_OFF_FOR_WHILE_IT_STOPS;
    }
}

#[cfg(test)]
#[path = "applier_tests.rs"]
mod tests;

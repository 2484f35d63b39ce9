//! Runs the [apply loop](crate::apply_loop): what takes long on threads of its own, what is put off by a clock.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, Recipient};
use raft_core::{Entry, SnapshotMeta};
use storage::SnapshotStore;

use super::FatalOnPanic;
use super::kv_server::EntriesApplied;
use super::raft_node::{AppliedTo, SnapshotCut};
use crate::apply_loop::{self, ApplyLoop, CutEnd, Progress, SnapshotError};
use crate::disk_room::DiskSpace;
use crate::shutdown::StopSender;
use crate::state_machine::StateMachine;

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
    apply_loop: ApplyLoop,
    snapshots: Arc<dyn SnapshotStore>,
    put_off_for: Duration,
    /// It was told that a snapshot is put off, and none was written since.
    told_put_off: bool,
    disk: Arc<DiskSpace>,
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
            apply_loop: ApplyLoop::new(state, settings.snapshot, settings.snapshot_log_bytes),
            snapshots,
            put_off_for: settings.put_off_for,
            told_put_off: false,
            disk: settings.disk,
            listeners,
            stop,
            _fatal: FatalOnPanic::of("the applier"),
        };
        applier.tell_needs();
        applier
    }

    fn apply(&mut self, entries: Vec<Entry>, ctx: &mut Context<Self>) {
        match self.apply_loop.apply(entries) {
            Ok(Some(progress)) => {
                self.report(progress);
                self.cut_snapshot_if_due(ctx);
            }
            Ok(None) => {}
            Err(error) => self.stop.state_failed(error),
        }
    }

    fn report(&self, Progress { applied, up_to, .. }: Progress) {
        self.listeners.outcomes.do_send(EntriesApplied {
            entries: applied,
            up_to,
        });
        self.listeners.applied.do_send(AppliedTo(up_to));
        self.tell_needs();
    }

    fn tell_needs(&self) {
        let snapshot_bytes = storage::snapshot_file_bytes(self.apply_loop.state().snapshot_bytes());
        self.disk.set_needs(snapshot_bytes, self.apply_loop.log_bytes());
    }

    fn cut_snapshot_if_due(&mut self, ctx: &mut Context<Self>) {
        if self.apply_loop.is_cut_due() {
            self.cut_snapshot_if_it_fits(ctx);
        }
    }

    /// A snapshot that might fill the disk is put off: writes are refused by then, and the log stays.
    fn cut_snapshot_if_it_fits(&mut self, ctx: &mut Context<Self>) {
        if self.apply_loop.may_cut() && self.disk.fits(self.disk.next_snapshot_bytes()) {
            self.cut_snapshot(ctx);
        }
    }

    /// Writes a snapshot out on another thread.
    fn cut_snapshot(&mut self, ctx: &mut Context<Self>) {
        let Some(cut) = self.apply_loop.begin_cut() else {
            return;
        };
        tracing::info!("cuts a snapshot at {}", cut.index());
        let snapshots = Arc::clone(&self.snapshots);
        let applier = ctx.address();
        self.run_aside("snapshot-writer", move || {
            applier.do_send(CutFinished(cut.write(snapshots.as_ref())));
        });
    }

    fn tell_put_off(&mut self, error: &SnapshotError) {
        if !self.told_put_off {
            tracing::warn!(
                "a snapshot is put off, and the log grows meanwhile: {error}. It is tried again every {:?}",
                self.put_off_for
            );
            self.told_put_off = true;
        }
    }

    fn rest_if_put_off(&self, ctx: &mut Context<Self>) {
        if self.apply_loop.is_put_off() {
            ctx.run_later(self.put_off_for, |applier, ctx| {
                applier.apply_loop.resume_cuts();
                applier.cut_snapshot_if_due(ctx);
            });
        }
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
        self.apply(entries, ctx);
    }
}

impl Handler<Restore> for Applier {
    type Result = ();

    fn handle(&mut self, Restore(snapshot): Restore, ctx: &mut Self::Context) {
        self.apply_loop.begin_restore(snapshot.clone());
        let snapshots = Arc::clone(&self.snapshots);
        let applier = ctx.address();
        self.run_aside("snapshot-loader", move || {
            let state = apply_loop::load(snapshots.as_ref(), &snapshot, StateMachine::new);
            applier.do_send(Restored(snapshot, state));
        });
    }
}

impl Handler<Restored> for Applier {
    type Result = ();

    fn handle(&mut self, Restored(snapshot, loaded): Restored, ctx: &mut Self::Context) {
        let restored = match self.apply_loop.restored(&snapshot, loaded) {
            Ok(Some(restored)) => restored,
            Ok(None) => return,
            Err(error) => return self.stop.snapshot_failed(error),
        };
        tracing::info!("restored the state as of entry {}", snapshot.last_included_index);
        self.report(restored.progress);
        let replaced = restored.replaced;
        // Without a thread it is dropped here.
        let _ = thread::Builder::new()
            .name("old-state".to_owned())
            .spawn(move || drop(replaced));
        for entries in restored.waiting {
            self.apply(entries, ctx);
        }
    }
}

impl Handler<CutFinished> for Applier {
    type Result = ();

    fn handle(&mut self, CutFinished(outcome): CutFinished, ctx: &mut Self::Context) {
        match self.apply_loop.cut_finished(outcome) {
            Ok(CutEnd::Written(snapshot)) => {
                self.told_put_off = false;
                self.listeners.cut.do_send(SnapshotCut(snapshot));
            }
            Ok(CutEnd::PutOff(error)) => self.tell_put_off(&error),
            Err(error) => return self.stop.snapshot_failed(error),
        }
        self.tell_needs();
        self.rest_if_put_off(ctx);
        // What was applied meanwhile may be enough for the next one, and nothing more may come.
        self.cut_snapshot_if_due(ctx);
    }
}

impl Handler<ReplaceSnapshot> for Applier {
    type Result = ();

    fn handle(&mut self, ReplaceSnapshot(damaged): ReplaceSnapshot, ctx: &mut Self::Context) {
        if self.apply_loop.is_to_replace(&damaged) {
            self.cut_snapshot_if_it_fits(ctx);
        }
    }
}

impl Handler<MakeRoom> for Applier {
    type Result = ();

    fn handle(&mut self, _: MakeRoom, ctx: &mut Self::Context) {
        if self.apply_loop.makes_room(self.disk.next_snapshot_bytes()) {
            self.cut_snapshot_if_it_fits(ctx);
        }
    }
}

impl Handler<PutNothingOff> for Applier {
    type Result = ();

    fn handle(&mut self, _: PutNothingOff, _: &mut Self::Context) {
        self.apply_loop.resume_cuts();
        self.put_off_for = PUT_OFF_FOR_WHILE_IT_STOPS;
    }
}

#[cfg(test)]
#[path = "applier_tests.rs"]
mod tests;

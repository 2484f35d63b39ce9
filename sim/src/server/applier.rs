//! Runs the apply loop, in virtual time: when a piece of its work is done is for the simulation to say.

use std::collections::VecDeque;

use kv_server::apply_loop::{self, ApplyLoop, Cut, CutEnd, Progress, SnapshotError};
use kv_server::state_machine::{Applied, StateMachine};
use raft_core::{Entry, LogIndex, SnapshotMeta};
use storage::SnapshotStore;

use super::{Output, Server};
use crate::invariants::Violation;
use crate::invariants::state_machine_safety::AppliedBatch;
use crate::scenario::Scenario;

/// What the applier owns.
pub(super) struct Applier {
    pub(super) apply_loop: ApplyLoop,
    session_cap: u32,
    /// See [`Scenario::states_compared_every`].
    hashed_every: u64,
    /// The snapshot that is being written.
    cut: Option<Cut>,
    queue: VecDeque<Work>,
    is_busy: bool,
}

/// The messages of the actor.
enum Work {
    Apply(Vec<Entry>),
    Restore(Box<SnapshotMeta>),
    /// The loader has come to the file.
    Restored(Box<SnapshotMeta>),
}

impl Applier {
    pub(super) fn new(state: StateMachine, snapshot: &SnapshotMeta, scenario: &Scenario) -> Self {
        Self {
            apply_loop: ApplyLoop::new(state, snapshot.clone(), scenario.snapshot_log_bytes),
            session_cap: scenario.session_cap,
            hashed_every: scenario.states_compared_every,
            cut: None,
            queue: VecDeque::new(),
            is_busy: false,
        }
    }
}

/// Loads the state that `snapshot` holds.
pub(super) fn load(
    snapshots: &dyn SnapshotStore,
    snapshot: &SnapshotMeta,
    session_cap: u32,
) -> Result<StateMachine, SnapshotError> {
    let empty = || StateMachine::with_session_cap(session_cap);
    apply_loop::load(snapshots, snapshot, empty)
}

impl Server {
    pub(super) fn queue_entries(&mut self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.queue_work(Work::Apply(entries));
        }
    }

    pub(super) fn restore(&mut self, snapshot: SnapshotMeta) {
        self.queue_work(Work::Restore(Box::new(snapshot)));
    }

    fn queue_work(&mut self, work: Work) {
        self.applier.queue.push_back(work);
        self.start_applier();
    }

    fn start_applier(&mut self) {
        if !self.applier.is_busy && !self.applier.queue.is_empty() {
            self.applier.is_busy = true;
            self.outputs.push(Output::ApplySoon);
        }
    }

    /// The applier takes its next piece of work.
    ///
    /// # Errors
    ///
    /// When the node would have to stop.
    pub(crate) fn apply_next(&mut self) -> Result<(), Violation> {
        self.applier.is_busy = false;
        match self.applier.queue.pop_front() {
            Some(Work::Apply(entries)) => self.apply(entries)?,
            Some(Work::Restore(snapshot)) => {
                self.applier.apply_loop.begin_restore((*snapshot).clone());
                self.applier.queue.push_back(Work::Restored(snapshot));
            }
            Some(Work::Restored(snapshot)) => {
                let snapshots = self.disk.snapshots.as_ref();
                let loaded = load(snapshots, &snapshot, self.applier.session_cap);
                match self.applier.apply_loop.restored(&snapshot, loaded) {
                    Ok(Some(restored)) => {
                        self.report(restored.progress, true);
                        restored
                            .waiting
                            .into_iter()
                            .try_for_each(|entries| self.apply(entries))?;
                    }
                    Ok(None) => {}
                    Err(error) => {
                        self.outputs.push(Output::CannotRestore(error.to_string()));
                        return Ok(());
                    }
                }
            }
            None => {}
        }
        self.flush();
        self.start_applier();
        Ok(())
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), Violation> {
        // No state is passed over, if all are compared.
        if self.applier.hashed_every == 1 {
            let mut each = entries.into_iter();
            each.try_for_each(|entry| self.apply_batch(vec![entry]))
        } else {
            self.apply_batch(entries)
        }
    }

    fn apply_batch(&mut self, entries: Vec<Entry>) -> Result<(), Violation> {
        let applied = self.applier.apply_loop.apply(entries);
        let Some(progress) = applied.map_err(|error| self.must_stop(&error.to_string()))? else {
            return Ok(());
        };
        let apply_loop = &self.applier.apply_loop;
        let cuts_snapshot = apply_loop.is_cut_due() && apply_loop.may_cut();
        self.report(progress, cuts_snapshot);
        if cuts_snapshot {
            self.cut_snapshot();
        }
        Ok(())
    }

    fn cut_snapshot(&mut self) {
        if let Some(cut) = self.applier.apply_loop.begin_cut() {
            self.applier.cut = Some(cut);
            self.outputs.push(Output::SnapshotBegun);
        }
    }

    /// The file of `damaged` cannot be sent: another one is cut, unless that is under way.
    pub(super) fn replace_snapshot(&mut self, damaged: &SnapshotMeta) {
        if self.applier.apply_loop.is_to_replace(damaged) {
            self.cut_snapshot();
        }
    }

    fn report(&mut self, progress: Progress, with_hash: bool) {
        let Progress {
            entries,
            applied,
            up_to,
        } = progress;
        let with_hash = with_hash || up_to.get().is_multiple_of(self.applier.hashed_every);
        self.outputs.push(Output::Applied(AppliedBatch {
            entries,
            up_to,
            state_hash: with_hash.then(|| self.applier.apply_loop.state().state_hash()),
        }));
        for Applied { index, term, reply } in applied {
            self.pending.applied(index, term, reply);
        }
        self.pending.applied_up_to(up_to);
        self.driver.node_mut().applied(up_to);
    }

    /// The snapshot that was begun is in place. Returns its index.
    ///
    /// # Errors
    ///
    /// When the node would have to stop.
    pub(crate) fn snapshot_written(&mut self) -> Result<LogIndex, Violation> {
        let Some(cut) = self.applier.cut.take() else {
            return Ok(LogIndex::ZERO);
        };
        let outcome = cut.write(self.disk.snapshots.as_ref());
        match self.applier.apply_loop.cut_finished(outcome) {
            Ok(CutEnd::Written(snapshot)) => self.driver.node_mut().snapshot_cut(snapshot),
            // No disk lacks room here.
            Ok(CutEnd::PutOff(error)) | Err(error) => return Err(self.must_stop(&error.to_string())),
        }
        // A rest only spares the disk: here it ends at once.
        self.applier.apply_loop.resume_cuts();
        if self.applier.apply_loop.is_cut_due() {
            self.cut_snapshot();
        }
        self.flush();
        Ok(cut.index())
    }

    pub(super) fn must_stop(&self, reason: &str) -> Violation {
        Violation::new("applier", format!("node {} has to stop: {reason}", self.id()))
    }
}

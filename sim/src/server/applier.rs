//! The applier: applies committed entries in order, cuts snapshots and installs them.

use std::collections::VecDeque;
use std::io::{self, BufReader};

use kv_server::state_machine::{Applied, StateMachine};
use kv_server::state_snapshot::StateSnapshot;
use raft_core::{Configuration, Entry, LogIndex, Payload, SnapshotMeta};
use storage::SnapshotStore;

use super::{Output, Server};
use crate::invariants::Violation;
use crate::invariants::state_machine_safety::AppliedBatch;
use crate::scenario::Scenario;

/// What the applier owns.
pub(super) struct Applier {
    pub(super) state: StateMachine,
    configuration: Configuration,
    snapshot_log_bytes: u64,
    session_cap: u32,
    /// See [`Scenario::states_compared_every`].
    hashed_every: u64,
    /// Bytes of the log applied since the last snapshot.
    log_bytes: u64,
    /// The snapshot that is being written.
    cutting: Option<(StateSnapshot, Configuration)>,
    queue: VecDeque<Work>,
    is_busy: bool,
}

enum Work {
    /// The state is loaded when the order comes: the file may be gone later.
    Restore(Box<SnapshotMeta>, Result<StateMachine, String>),
    Apply(Vec<Entry>),
}

impl Applier {
    pub(super) fn new(state: StateMachine, snapshot: &SnapshotMeta, scenario: &Scenario) -> Self {
        Self {
            state,
            configuration: snapshot.configuration.clone(),
            snapshot_log_bytes: scenario.snapshot_log_bytes,
            session_cap: scenario.session_cap,
            hashed_every: scenario.states_compared_every,
            log_bytes: 0,
            cutting: None,
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
) -> Result<StateMachine, String> {
    if snapshot.last_included_index == LogIndex::ZERO {
        return Ok(StateMachine::with_session_cap(session_cap));
    }
    let file = snapshots.open(snapshot).map_err(|error| error.to_string())?;
    StateMachine::read_from(&mut BufReader::new(file.content())).map_err(|error| error.to_string())
}

fn write(
    snapshots: &dyn SnapshotStore,
    state: &StateSnapshot,
    configuration: &Configuration,
) -> Result<SnapshotMeta, String> {
    let mut file = snapshots
        .create(state.last_applied(), state.last_applied_term(), configuration)
        .map_err(|error| error.to_string())?;
    state
        .write_to(&mut file)
        .and_then(|()| io::Write::flush(&mut file))
        .map_err(|error| error.to_string())?;
    file.finish().map_err(|error| error.to_string())
}

impl Server {
    pub(super) fn queue_entries(&mut self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.applier.queue.push_back(Work::Apply(entries));
            self.start_applier();
        }
    }

    /// A newer snapshot replaces what is still to be loaded or applied.
    pub(super) fn restore(&mut self, snapshot: SnapshotMeta) {
        let state = load(self.disk.snapshots.as_ref(), &snapshot, self.applier.session_cap);
        self.applier.queue.clear();
        self.applier
            .queue
            .push_back(Work::Restore(Box::new(snapshot), state));
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
            // No state is passed over, if all are compared.
            Some(Work::Apply(entries)) if self.applier.hashed_every == 1 => {
                entries
                    .into_iter()
                    .try_for_each(|entry| self.apply(vec![entry]))?;
            }
            Some(Work::Apply(entries)) => self.apply(entries)?,
            Some(Work::Restore(snapshot, Ok(state))) => self.install(*snapshot, state),
            Some(Work::Restore(_, Err(reason))) => {
                self.outputs.push(Output::CannotRestore(reason));
                return Ok(());
            }
            None => {}
        }
        self.flush();
        self.start_applier();
        Ok(())
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), Violation> {
        let applied = self
            .applier
            .state
            .apply_batch(&entries)
            .map_err(|error| self.must_stop(&error.to_string()))?;
        for entry in &entries {
            self.applier.log_bytes += entry.size_bytes() as u64;
            if let Payload::Configuration(configuration) = &entry.payload {
                self.applier.configuration = configuration.clone();
            }
        }
        let cuts_snapshot =
            self.applier.log_bytes >= self.applier.snapshot_log_bytes && self.applier.cutting.is_none();
        self.report_applied(entries, applied, cuts_snapshot);
        if cuts_snapshot {
            self.cut_snapshot();
        }
        Ok(())
    }

    fn cut_snapshot(&mut self) {
        self.applier.log_bytes = 0;
        self.applier.cutting = Some((self.applier.state.snapshot(), self.applier.configuration.clone()));
        self.outputs.push(Output::SnapshotBegun);
    }

    /// The file of `damaged` cannot be sent: another one is cut, unless that is under way.
    pub(super) fn replace_snapshot(&mut self, damaged: &SnapshotMeta) {
        let is_restoring = |work: &Work| matches!(work, Work::Restore(..));
        let is_current = damaged == self.driver.node().snapshot();
        if is_current && self.applier.cutting.is_none() && !self.applier.queue.iter().any(is_restoring) {
            self.cut_snapshot();
        }
    }

    fn install(&mut self, snapshot: SnapshotMeta, state: StateMachine) {
        self.applier.state.install(state);
        self.applier.configuration = snapshot.configuration;
        self.applier.log_bytes = 0;
        self.report_applied(Vec::new(), Vec::new(), true);
    }

    fn report_applied(&mut self, entries: Vec<Entry>, applied: Vec<Applied>, with_hash: bool) {
        let up_to = self.applier.state.last_applied();
        let with_hash = with_hash || up_to.get().is_multiple_of(self.applier.hashed_every);
        self.outputs.push(Output::Applied(AppliedBatch {
            entries,
            up_to,
            state_hash: with_hash.then(|| self.applier.state.state_hash()),
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
        let Some((state, configuration)) = self.applier.cutting.take() else {
            return Ok(LogIndex::ZERO);
        };
        let snapshot = write(self.disk.snapshots.as_ref(), &state, &configuration)
            .map_err(|reason| self.must_stop(&reason))?;
        let index = snapshot.last_included_index;
        self.driver.node_mut().snapshot_cut(snapshot);
        self.flush();
        Ok(index)
    }

    pub(super) fn must_stop(&self, reason: &str) -> Violation {
        Violation::new("applier", format!("node {} has to stop: {reason}", self.id()))
    }
}

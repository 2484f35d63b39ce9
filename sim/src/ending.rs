//! The end of a run: a healed cluster goes on, agrees, and has lost nothing.

use crate::client::Client;
use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::invariants::{Violation, linearizable};
use crate::linearizability::Outcome;
use crate::server::Server;
use crate::simulation::{Event, Simulation};

/// After healing, all nodes must have the same state within this time.
const AGREEMENT_WITHIN: Micros = 90 * SECOND;

impl Simulation<'_> {
    pub(crate) fn check_progress(&mut self) -> Result<(), Violation> {
        self.may_begin = false;
        // An answer to one that began earlier may have been on its way when the faults ended.
        let begun_since = &self.history.operations()[self.operations_at_heal..];
        if begun_since.iter().any(|operation| {
            operation.ended_at.is_some() && !matches!(operation.outcome, Outcome::Unknown | Outcome::Failed)
        }) {
            return Ok(());
        }
        let what = "no operation was begun and done within ten election timeouts after all faults had ended";
        Err(Violation::new("liveness", what))
    }

    /// The run ends when all nodes agree and no client waits.
    pub(crate) fn check_agreement(&mut self) -> Result<(), Violation> {
        if self.is_agreed() {
            self.is_over = true;
            self.tell(format_args!("all nodes have applied everything"));
            self.check_waiters()?;
            return self.check_final_states();
        }
        if self.queue.now() > self.healed_at.unwrap_or(0) + AGREEMENT_WITHIN {
            let what = format!(
                "the nodes do not agree long after all faults had ended: {}",
                self.standing()
            );
            return Err(Violation::new("liveness", what));
        }
        self.queue.schedule(100 * MILLISECOND, Event::CheckAgreement);
        Ok(())
    }

    /// Whether all nodes that can run have applied everything that anybody applied, and no client waits. Where there
    /// is an operator, every node runs and counts in the end.
    pub(crate) fn is_agreed(&self) -> bool {
        let target = self.invariants.state_machine_safety.last_applied();
        let all_run = self.scenario.has_operator;
        let has_all =
            |server: &Server| server.state().last_applied() == target && (server.has_standing() || !all_run);
        self.clients.iter().all(Client::is_idle)
            && self
                .machines
                .values()
                .filter(|machine| all_run || machine.refused.is_none())
                .all(|machine| machine.server.as_ref().is_some_and(has_all))
    }

    /// Nobody asks any more, and whoever asked a node has got an answer from it.
    fn check_waiters(&self) -> Result<(), Violation> {
        for server in self
            .machines
            .values()
            .filter_map(|machine| machine.server.as_ref())
        {
            if server.waiters() > 0 {
                let what = format!("node {} still owes {} answers", server.id(), server.waiters());
                return Err(Violation::new("liveness", what));
            }
        }
        Ok(())
    }

    /// Where every node is, in short.
    fn standing(&self) -> String {
        let of = |server: &Server| {
            let status = server.status();
            let (role, term) = (status.soft_state.role, status.soft_state.term);
            let (applied, last) = (status.applied_index, status.last_log_index);
            format!(
                "{} is {role} of term {term}, applied {applied} of {last}",
                server.id()
            )
        };
        let standing: Vec<String> = self
            .machines
            .values()
            .filter_map(|machine| machine.server.as_ref().map(of))
            .collect();
        standing.join("; ")
    }

    pub(crate) fn check_final_states(&mut self) -> Result<(), Violation> {
        for server in self
            .machines
            .values()
            .filter_map(|machine| machine.server.as_ref())
        {
            let (state, reader) = (server.state(), server.state().reader());
            let safety = &mut self.invariants.state_machine_safety;
            safety.has_state(server.id(), state.last_applied(), state.state_hash())?;
            self.invariants.exactly_once.check_all(|key| {
                let found = reader.get(key, raft_core::Term::ZERO).found;
                found.map(|found| found.value).unwrap_or_default()
            })?;
        }
        self.totals.promises = self.invariants.durable_promises.checked;
        linearizable::check(&self.history)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_pcg::Pcg64Mcg;

    use crate::history::{OperationId, Request};
    use crate::linearizability::Outcome;
    use crate::scenario::Scenario;
    use crate::simulation::Simulation;
    use crate::trace::Trace;

    fn begin(run: &mut Simulation<'_>) -> OperationId {
        run.history.begin(1, Request::Delete { key: "k".into() }, 0)
    }

    #[test]
    fn only_what_was_begun_and_done_since_the_faults_ended_is_progress() {
        let mut run = Simulation::of(
            Scenario::calm(3),
            Pcg64Mcg::seed_from_u64(1),
            None,
            Trace::new(None),
        );
        let earlier = begin(&mut run);
        run.heal().unwrap();
        run.history.end(earlier, 1, Outcome::Done);
        assert!(run.check_progress().is_err(), "begun before");
        for outcome in [Outcome::Unknown, Outcome::Failed] {
            let since = begin(&mut run);
            assert!(run.check_progress().is_err(), "not ended");
            run.history.end(since, 2, outcome);
            assert!(run.check_progress().is_err(), "not done");
        }
        let since = begin(&mut run);
        run.history.end(since, 3, Outcome::Done);
        run.check_progress().unwrap();
    }
}

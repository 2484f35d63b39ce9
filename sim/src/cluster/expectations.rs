//! What a test expects of its cluster.

use bytes::Bytes;
use kv_server::command::Command;
use raft_core::{LogIndex, NodeId, Role, Term};

use super::{Cluster, PATIENCE};
use crate::clock::SECOND;
use crate::invariants::linearizable;
use crate::server::Server;

/// All nodes have applied everything, and no client waits, within this time.
const AGREEMENT_WITHIN: u64 = 60 * SECOND;

impl Cluster {
    fn server(&self, node: NodeId) -> Option<&Server> {
        let machine = self.simulation.machines.get(&node)?;
        machine.server.as_ref().filter(|_| machine.paused.is_none())
    }

    /// The leader that a majority follows, if there is one.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let nodes = self.nodes();
        let follows = |node: NodeId, leader: NodeId, term: Term| {
            let network = &self.simulation.network;
            let is_linked = network.is_open(node, leader) && network.is_open(leader, node);
            let state = self.server(node).map(|server| server.status().soft_state);
            is_linked && state.is_some_and(|state| state.term == term && state.leader_id == Some(leader))
        };
        nodes.iter().copied().find(|leader| {
            let Some(server) = self.server(*leader) else {
                return false;
            };
            let term = server.status().soft_state.term;
            let followers = nodes.iter().filter(|node| follows(**node, *leader, term)).count();
            server.role() == Role::Leader && followers * 2 > nodes.len()
        })
    }

    /// Nodes that believe that they lead, followed or not.
    #[must_use]
    pub fn leaders(&self) -> Vec<NodeId> {
        self.simulation.leaders()
    }

    /// Lets time pass until `holds`, event by event.
    ///
    /// # Panics
    ///
    /// When it does not within ten election timeouts. `what` says what was expected.
    pub fn await_that(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> &mut Self {
        if !self.wait(PATIENCE, |cluster| holds(cluster)) {
            self.fail(what);
        }
        self
    }

    /// Within ten election timeouts there is a leader that a majority follows.
    ///
    /// # Panics
    ///
    /// When there is not.
    pub fn expect_leader(&mut self) -> NodeId {
        self.expect_leader_that(|_| true)
    }

    /// The same, and it is another one than `old`.
    ///
    /// # Panics
    ///
    /// When there is not.
    pub fn expect_new_leader(&mut self, old: NodeId) -> NodeId {
        self.expect_leader_that(|leader| leader != old)
    }

    fn expect_leader_that(&mut self, fits: impl Fn(NodeId) -> bool) -> NodeId {
        let found = |cluster: &Self| cluster.leader().filter(|leader| fits(*leader));
        self.wait(PATIENCE, |cluster| found(cluster).is_some());
        match found(self) {
            Some(leader) => leader,
            None => self.fail("no leader within ten election timeouts"),
        }
    }

    /// Leadership is handed over until it is `node` that leads.
    ///
    /// # Panics
    ///
    /// When it does not come to lead within a hundred election timeouts.
    pub fn await_leadership_of(&mut self, node: NodeId) -> &mut Self {
        for _ in 0..10 {
            let leader = self.expect_leader();
            if leader == node {
                return self;
            }
            self.hand_over(leader).run_ms(600);
        }
        self.fail(&format!("node {node} does not come to lead"))
    }

    /// For ten election timeouts no majority follows anybody, and in the end nobody believes that it leads.
    ///
    /// # Panics
    ///
    /// When there is a leader.
    pub fn expect_no_leader(&mut self) -> &mut Self {
        if self.wait(PATIENCE, |cluster| cluster.leader().is_some()) {
            self.fail("there is a leader, and no majority could have elected it");
        }
        if !self.leaders().is_empty() {
            self.fail("a node still believes that it leads");
        }
        self
    }

    /// For this time `leader` leads, and nobody starts a new term.
    ///
    /// # Panics
    ///
    /// When something else happens.
    pub fn expect_stable_leader_for_ms(&mut self, leader: NodeId, time_ms: u64) -> &mut Self {
        let term = self.term();
        self.run_ms(time_ms);
        if self.leader() != Some(leader) || self.term() != term {
            self.fail(&format!("node {leader} should still lead term {term}"));
        }
        self
    }

    /// Gives `node` a command of `size` bytes, as one that leads gets from a client. `None` if it takes none.
    pub fn propose(&mut self, node: NodeId, size: usize) -> Option<(Term, LogIndex)> {
        self.commands += 1;
        let name = format!("{:0>size$}", self.commands);
        let command = Command::Get {
            key: Bytes::from(name),
        }
        .encode();
        let life = self.simulation.life_of(node);
        let taken = self
            .simulation
            .server(life)
            .and_then(|server| server.propose(command));
        self.simulation.after_input.push(life);
        taken
    }

    /// A command is proposed, again if need be, until so many nodes have applied it. Returns its place.
    ///
    /// # Panics
    ///
    /// When that takes more than ten election timeouts.
    pub fn agree(&mut self, nodes: usize) -> LogIndex {
        let mut proposed: Option<(Term, LogIndex)> = None;
        let mut done = None;
        self.wait(PATIENCE, |cluster| {
            if let Some((term, index)) = proposed {
                match cluster.simulation.invariants.committed.at(index) {
                    Some(commit) if commit.term == term => {
                        done = (cluster.applied_by(index) >= nodes).then_some(index);
                        return done.is_some();
                    }
                    Some(_) => proposed = None,
                    // An entry of a leader that lost its office may never be committed.
                    None if cluster.term() > term => proposed = None,
                    None => {}
                }
            }
            if proposed.is_none()
                && let Some(leader) = cluster.leader()
            {
                proposed = cluster.propose(leader, 8);
                let settled = cluster.simulation.settle();
                cluster.must(settled);
            }
            false
        });
        done.unwrap_or_else(|| {
            self.fail(&format!(
                "{nodes} nodes did not agree within ten election timeouts"
            ))
        })
    }

    /// How many nodes have applied the entry at `index`.
    #[must_use]
    pub fn applied_by(&self, index: LogIndex) -> usize {
        self.nodes()
            .into_iter()
            .filter(|node| self.applied(*node) >= index)
            .count()
    }

    /// Whether an entry at `index` is committed, and of which term.
    #[must_use]
    pub fn committed(&self, index: LogIndex) -> Option<Term> {
        self.simulation
            .invariants
            .committed
            .at(index)
            .map(|commit| commit.term)
    }

    /// So many nodes apply what is at `index`, within ten election timeouts.
    ///
    /// # Panics
    ///
    /// When they do not.
    pub fn expect_applied(&mut self, index: LogIndex, nodes: usize) -> &mut Self {
        if !self.wait(PATIENCE, |cluster| cluster.applied_by(index) >= nodes) {
            self.fail(&format!("entry {index} was not applied by {nodes} nodes"));
        }
        self
    }

    /// In the next ten election timeouts nobody commits anything at `index`.
    ///
    /// # Panics
    ///
    /// When somebody does.
    pub fn expect_not_committed(&mut self, index: LogIndex) -> &mut Self {
        if self.wait(PATIENCE, |cluster| cluster.committed(index).is_some()) {
            self.fail(&format!("entry {index} was committed without a majority"));
        }
        self
    }

    /// Within ten election timeouts `node` stops, because the cluster knows it by other data.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn expect_turned_away(&mut self, node: NodeId) -> &mut Self {
        let is_turned_away = |cluster: &mut Self| cluster.simulation.is_refused(node);
        if !self.wait(PATIENCE, is_turned_away) {
            self.fail(&format!("node {node} was not turned away"));
        }
        self
    }

    /// Within ten election timeouts `node` runs and counts.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn expect_member(&mut self, node: NodeId) -> &mut Self {
        let counts = |cluster: &mut Self| cluster.server(node).is_some_and(Server::has_standing);
        if !self.wait(PATIENCE, counts) {
            self.fail(&format!("node {node} does not count"));
        }
        self
    }

    /// The random clients stop, everybody who waits gets an answer, all nodes that run apply the same and come to
    /// the same state.
    ///
    /// # Panics
    ///
    /// When one of that does not come to pass.
    pub fn expect_agreement(&mut self) -> &mut Self {
        self.stop_clients();
        let agreed = self.wait(AGREEMENT_WITHIN, |cluster| cluster.simulation.is_agreed());
        if !agreed {
            self.fail("the nodes do not agree, or a client still waits");
        }
        let checked = self.simulation.check_final_states();
        self.must(checked);
        self
    }

    /// What all clients saw could have come from one copy of the data.
    ///
    /// # Panics
    ///
    /// When it could not.
    pub fn expect_linearizable(&mut self) -> &mut Self {
        let checked = linearizable::check(&self.simulation.history);
        self.must(checked);
        self
    }
}

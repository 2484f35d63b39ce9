//! Disks that are lost, damaged, or put back from a copy; and how their nodes come back.
//!
//! More than the rules of `raft_core::Standing` bear does not happen: a majority always counts whose disks hold all
//! that they ever held.

use raft_core::{Configuration, NodeId, Payload, Refusal, Restored, Standing};
use rand::RngExt;
use storage::MemoryDisk;

use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::invariants::Violation;
use crate::planted_bug::PlantedBug;
use crate::simulation::{Event, Simulation};

/// How long it takes at most until somebody looks after a node that does not run.
const OPERATOR_AWAY_MAX: Micros = 4 * SECOND;
/// The same when all faults have ended.
const OPERATOR_READY_MAX: Micros = 200 * MILLISECOND;

impl Simulation<'_> {
    /// A node loses its disk. It is started again as if it were new, or made to join at once.
    pub(super) fn lose_some_disk(&mut self) -> bool {
        let node = self.some_node();
        if !self.bears_the_loss_of(node) {
            return false;
        }
        let standing = if self.generator.random_ratio(1, 2) {
            Standing::Founder
        } else {
            Standing::Joining
        };
        self.lose_disk(node, standing);
        self.restart_later(node);
        true
    }

    /// `node` crashes, and its disk is replaced by an empty one.
    pub(crate) fn lose_disk(&mut self, node: NodeId, standing: Standing) {
        self.crash(node);
        let counts_as_before = self.bug == Some(PlantedBug::LostDiskCounts);
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        let is_intact = !machine.is_damaged;
        let lost = machine.empty_disk(standing);
        machine.is_foreign = standing != Standing::Joining || counts_as_before;
        machine.refused = None;
        if counts_as_before {
            machine.disk = MemoryDisk::of_store(lost.incarnation(), Standing::Founder);
            let nothing = Restored::default();
            self.invariants
                .committed
                .is_put_back(node, lost.incarnation(), &nothing);
        }
        machine.old_copy = Some(lost).filter(|_| is_intact);
        let store = machine.disk.incarnation();
        self.tell(format_args!(
            "node {node} has lost its disk: store {store}, {standing}"
        ));
    }

    /// A node crashes, and in its records a bit flips.
    pub(super) fn flip_some_record_bit(&mut self) -> bool {
        let node = self.some_node();
        let bit = self.generator.random();
        if !self.bears_the_loss_of(node) || self.is_refused(node) {
            return false;
        }
        self.crash(node);
        self.restart_later(node);
        self.flip_record_bit(node, bit)
    }

    /// Flips a bit in the records of `node`, which is down. `bit` is taken modulo their length.
    pub(crate) fn flip_record_bit(&mut self, node: NodeId, bit: u64) -> bool {
        let Some(machine) = self.machines.get_mut(&node) else {
            return false;
        };
        let Some(record) = machine.disk.flip_record_bit(bit) else {
            return false;
        };
        machine.is_damaged = true;
        self.tell(format_args!("a bit flips on the disk of node {node}: {record}"));
        true
    }

    /// Somebody puts back an older copy of a disk, where that harms nobody, or takes copies of all.
    pub(super) fn put_back_some_copy(&mut self) -> bool {
        let mut nodes = self.all_nodes();
        nodes.retain(|node| self.bears_the_copy_of(*node) && self.bears_the_loss_of(*node));
        if nodes.is_empty() {
            self.all_nodes().into_iter().for_each(|node| self.take_copy(node));
            return false;
        }
        let node = nodes[self.generator.random_range(0..nodes.len())];
        self.restart_later(node);
        self.put_back_copy(node)
    }

    /// A copy of the disk of `node` is put aside.
    pub(crate) fn take_copy(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node);
        if let Some(machine) = machine.filter(|machine| !machine.is_damaged) {
            machine.old_copy = Some(machine.disk.copy());
            self.tell(format_args!("the disk of node {node} is copied"));
        }
    }

    /// Whether it harms nobody if the copy of `node` is put back: the cluster knows that it does not count, or what
    /// it has forgotten is of no consequence. Otherwise it does harm, see `raft_core::Standing`.
    fn bears_the_copy_of(&self, node: NodeId) -> bool {
        let machine = self.machines.get(&node);
        let Some(copy) = machine.and_then(|machine| machine.old_copy.as_ref()) else {
            return false;
        };
        let (Some(registry), Some(held)) = (self.invariants.registry(), copy.peek()) else {
            return false;
        };
        let (store, committed) = (copy.incarnation(), &self.invariants.committed);
        registry.incarnation_of(node) != Some(store) || committed.bears_copy(node, store, &held, registry)
    }

    /// `node` crashes and gets the copy of its disk that was put aside. Whether there was one.
    pub(crate) fn put_back_copy(&mut self, node: NodeId) -> bool {
        self.crash(node);
        let Some(machine) = self.machines.get_mut(&node) else {
            return false;
        };
        let Some(copy) = machine.old_copy.take() else {
            return false;
        };
        let store = copy.incarnation();
        let held = copy.peek().unwrap_or_default();
        self.invariants.committed.is_put_back(node, store, &held);
        machine.disk = copy;
        machine.is_foreign = true;
        machine.is_damaged = false;
        machine.refused = None;
        self.tell(format_args!(
            "node {node} gets a copy of its disk back: store {store}"
        ));
        true
    }

    /// Whether a majority that counts is left without `node`, on disks that hold all that they ever held.
    pub(super) fn bears_the_loss_of(&self, node: NodeId) -> bool {
        let counts = |registry| move |other| other != node && self.counts(other, registry);
        self.invariants
            .registry()
            .is_some_and(|registry| registry.has_quorum(counts(registry)))
    }

    fn counts(&self, node: NodeId, registry: &Configuration) -> bool {
        let machine = self.machines.get(&node);
        let Some(machine) = machine.filter(|machine| !machine.is_damaged) else {
            return false;
        };
        let Some(held) = machine.disk.peek() else {
            return false;
        };
        let store = machine.disk.incarnation();
        registry.incarnation_of(node) == Some(store)
            && matches!(held.hard_state.standing, Standing::Founder | Standing::Member)
            && is_founded(&held)
            && !self.invariants.configuration_lineage.is_given_up(node, store)
            && self.invariants.committed.is_complete(node, store, &held)
    }

    /// A node refused to start. That is right if its disk is damaged, and wrong if not.
    pub(super) fn refused(&mut self, node: NodeId, reason: String) -> Result<(), Violation> {
        let machine = self.machines.get_mut(&node);
        let Some(machine) = machine.filter(|machine| machine.is_damaged) else {
            return Err(Violation::new(
                "recovery",
                format!("node {node} does not start: {reason}"),
            ));
        };
        self.totals.refusals += 1;
        let what = format!("node {node} refuses to start: {reason}");
        machine.refused = Some(reason);
        self.tell(format_args!("{what}"));
        self.join_later(node);
        Ok(())
    }

    /// A running node cannot read the snapshot that it was sent and stops. That is right if a bit of it flipped
    /// after it had been verified, and wrong if not. Started again, it refuses that disk.
    pub(crate) fn cannot_restore(&mut self, node: NodeId, reason: &str) -> Result<(), Violation> {
        let is_damaged = self.machines.get(&node).is_some_and(|machine| machine.is_damaged);
        if !is_damaged {
            let what = format!("node {node} cannot restore its state: {reason}");
            return Err(Violation::new("applier", what));
        }
        self.disk_failed(node, reason);
        Ok(())
    }

    /// The cluster does not take `node`, which stops. That is right only if its disk is not what it was.
    pub(crate) fn turned_away(&mut self, node: NodeId, refusal: Refusal) -> Result<(), Violation> {
        let what = format!("node {node} stops: {refusal}");
        let machine = self.machines.get_mut(&node);
        let Some(machine) = machine.filter(|machine| machine.is_foreign) else {
            return Err(Violation::new("standing", what));
        };
        machine.refused = Some(refusal.to_string());
        self.totals.turned_away += 1;
        self.tell(format_args!("{what}"));
        self.crash(node);
        self.join_later(node);
        Ok(())
    }

    /// The operator sees that `node` does not run and why, and does what it says.
    fn join_later(&mut self, node: NodeId) {
        if self.scenario.has_operator {
            let longest = self.healed_at.map_or(OPERATOR_AWAY_MAX, |_| OPERATOR_READY_MAX);
            let delay = self.generator.random_range(10 * MILLISECOND..=longest);
            self.queue.schedule(delay, Event::Join(node));
        }
    }

    /// Whether `node` is not started any more.
    pub(crate) fn is_refused(&self, node: NodeId) -> bool {
        let machine = self.machines.get(&node);
        machine.is_some_and(|machine| machine.refused.is_some())
    }

    /// `node`, which does not run any more as it is, is started on an empty disk, to join (`kv-server --join`).
    pub(crate) fn join(&mut self, node: NodeId) -> Result<(), Violation> {
        let machine = self.machines.get_mut(&node);
        let Some(machine) = machine.filter(|machine| machine.refused.is_some()) else {
            return Ok(());
        };
        machine.refused = None;
        machine.is_foreign = false;
        drop(machine.empty_disk(Standing::Joining));
        let store = machine.disk.incarnation();
        self.tell(format_args!("node {node} is to join by store {store}"));
        self.restart(node)
    }
}

/// Whether the log says by which stores the members take part.
fn is_founded(held: &Restored) -> bool {
    let says_so =
        |payload: &Payload| matches!(payload, Payload::Configuration(members) if members.is_founded());
    held.snapshot.configuration.is_founded() || held.entries.iter().any(|entry| says_so(&entry.payload))
}

//! Disks that are slow, stall, fail and forget; and appliers that are slow.

use raft_core::{LogIndex, NodeId};
use rand::RngExt;
use storage::WriteFault;

use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::faults::FaultKind;
use crate::simulation::Simulation;

/// How long a disk stalls at most.
const STALL_MAX: Micros = 4 * SECOND;

impl Simulation<'_> {
    pub(super) fn slow_disks(&mut self) -> bool {
        let mut slow = Vec::new();
        for (node, machine) in &mut self.machines {
            machine.has_slow_disk = self.generator.random_ratio(1, 3);
            if machine.has_slow_disk {
                slow.push(node.get());
            }
        }
        self.tell(format_args!("slow disks: {slow:?}"));
        !slow.is_empty()
    }

    pub(super) fn slow_appliers(&mut self) -> bool {
        let mut slow = Vec::new();
        for (node, machine) in &mut self.machines {
            machine.applies_slowly = self.generator.random_ratio(1, 3);
            if machine.applies_slowly {
                slow.push(node.get());
            }
        }
        self.tell(format_args!("slow appliers: {slow:?}"));
        !slow.is_empty()
    }

    pub(super) fn stall_some_disk(&mut self) -> bool {
        let node = self.some_node();
        let stall = self.generator.random_range(200 * MILLISECOND..=STALL_MAX);
        self.stall_disk(node, stall);
        true
    }

    /// What `node`'s disk begins from now on is done `stall` later at the earliest.
    pub(crate) fn stall_disk(&mut self, node: NodeId, stall: Micros) {
        let until = self.queue.now() + stall;
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.disk_stalls_until = until;
        }
        self.tell(format_args!(
            "the disk of node {node} stalls for {} ms",
            stall / MILLISECOND
        ));
    }

    /// It is counted when there is a write to fail.
    pub(super) fn fail_some_disk(&mut self) {
        let node = self.some_node();
        let fault = if self.generator.random_ratio(1, 2) {
            WriteFault::LostBatch
        } else {
            WriteFault::KeptBatch
        };
        self.fail_next_write(node, fault);
    }

    pub(crate) fn fail_next_write(&mut self, node: NodeId, fault: WriteFault) {
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.write_fault = Some(fault);
        }
        self.tell(format_args!("the next write of node {node} will fail: {fault:?}"));
    }

    /// The disk failed under a running node: it stops, says why, and is started again later.
    pub(crate) fn disk_failed(&mut self, node: NodeId, reason: &str) {
        self.tell(format_args!("node {node} stops: {reason}"));
        self.crash(node);
        self.restart_later(node);
    }

    /// `node` will crash in the middle of its next write. Most disks are idle most of the time, so that a crash that did
    /// not wait for one would hardly ever find any.
    pub(super) fn crash_in_next_write(&mut self, node: NodeId) {
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.crashes_in_write = true;
        }
        self.tell(format_args!("node {node} will crash in its next write"));
    }

    /// The first part of what `node` is writing becomes durable, it does not learn of it, and crashes.
    pub(crate) fn crash_in_write(&mut self, node: NodeId) {
        let part = self.generator.random_range(0..1_000);
        let life = self.life_of(node);
        let written = self.server(life).map_or(0, |server| server.write_in_part(part));
        self.tell(format_args!("node {node} has written {written} of its batches"));
        if self.crash(node) {
            self.totals.faults.count(FaultKind::CrashInWrite);
        }
        self.restart_later(node);
    }

    /// A bit of a snapshot file flips.
    pub(super) fn flip_some_bit(&mut self) -> bool {
        let node = self.some_node();
        let bit = self.generator.random();
        self.bears_the_loss_of(node) && self.flip_bit(node, bit)
    }

    /// Flips a bit in the snapshot file of `node`, if it has one. `bit` is taken modulo the file's length.
    pub(crate) fn flip_bit(&mut self, node: NodeId, bit: u64) -> bool {
        let Some(machine) = self.machines.get_mut(&node) else {
            return false;
        };
        let Some(snapshot) = machine.durable().map(|durable| durable.snapshot.clone()) else {
            return false;
        };
        if snapshot.last_included_index == LogIndex::ZERO {
            return false;
        }
        let flipped = machine
            .disk
            .snapshots()
            .flip_bit(&snapshot, bit % (snapshot.size_bytes * 8));
        if flipped {
            machine.is_damaged = true;
            self.tell(format_args!(
                "a bit flips in the snapshot of node {node} at {}",
                snapshot.last_included_index
            ));
        }
        flipped
    }
}

//! Leader leases (thesis §6.4.1): linearizable reads without a round, for as long as nobody else can have been
//! elected.
//!
//! Whoever answers a leader's round gives no vote for an election timeout from then on (thesis §4.2.3). So from
//! the *beginning* of a round that a quorum has answered, the leader knows for nearly that long that it is the
//! only one. That is as true as the clocks are: this is the one place where safety depends on time.
//!
//! What is assumed, and what is done about the rest:
//!
//! - Over one election timeout, no two clocks of the cluster drift apart by more than
//!   [`MAX_CLOCK_DRIFT_PERCENT`]; the lease is shorter by that.
//! - A voter's clock is a count of ticks, which may be ahead of the time by [`SLACK_TICKS`]; the lease is shorter
//!   by that, too. Its ticks may be late without harm: it then keeps its promise for longer.
//! - The leader's clock must not be late: a leader that was stopped for a while has missed its ticks. So it is
//!   read off a real clock, by whoever runs the node, after a read has arrived: [`ReadLease::read_index`]. A clock
//!   that stands still while others go on (a virtual machine that is frozen and goes on later) breaks the
//!   assumption.
//! - All servers have the same `election_timeout_min`: it is what voters promise.
//! - A voter that restarts has forgotten whom it heard from. It gives no vote for an election timeout
//!   ([`Config::silent_start`](crate::Config::silent_start)).
//! - A leadership transfer makes voters vote at once, so the lease is given up before it begins, and for good
//!   once the request is out: nobody knows when it arrives.

use std::collections::{BTreeMap, VecDeque};

use crate::config::Config;
use crate::node::Node;
use crate::types::{LogIndex, NodeId, Term, Ticks};

/// How far two clocks may drift apart, in percent of the time that passes.
pub const MAX_CLOCK_DRIFT_PERCENT: u64 = 10;
/// How many ticks a voter may count too many: one that waited in its mailbox when the leader was heard, one that
/// came late and just before the next, and one that is not whole.
pub const SLACK_TICKS: u64 = 3;

/// What a leader knows of its lease.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// The first round that began at each reading of the clock, for as long as that can matter. In order.
    rounds: VecDeque<(u64, Ticks)>,
    /// When the latest round that each peer has answered began.
    renewed: BTreeMap<NodeId, Ticks>,
    given_up: bool,
}

impl Lease {
    /// A round begins, and the clock reads `now`.
    pub(crate) fn round_began(&mut self, round: u64, now: Ticks, length: Ticks) {
        if self.rounds.back().is_none_or(|(_, began)| *began < now) {
            self.rounds.push_back((round, now));
        }
        while self
            .rounds
            .front()
            .is_some_and(|(_, began)| !is_within(*began, now, length))
        {
            self.rounds.pop_front();
        }
    }

    /// `peer` answered a message of `round`.
    pub(crate) fn acknowledged(&mut self, peer: NodeId, round: u64) {
        let later = self.rounds.partition_point(|(first, _)| *first <= round);
        let Some((_, began)) = later.checked_sub(1).and_then(|at| self.rounds.get(at)) else {
            return;
        };
        let renewed = self.renewed.entry(peer).or_default();
        *renewed = (*renewed).max(*began);
    }

    /// From now on there is no lease any more.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
    }

    /// The first reading of the clock at which `peer` may vote for somebody else.
    fn bound_until(&self, peer: NodeId, length: Ticks) -> Ticks {
        let renewed = self.renewed.get(&peer).filter(|_| !self.given_up);
        renewed.map_or(Ticks::ZERO, |began| Ticks(began.get() + length.get()))
    }
}

fn is_within(began: Ticks, now: Ticks, length: Ticks) -> bool {
    now.get() - began.get() < length.get()
}

impl Config {
    /// How long a lease lasts from the beginning of its round.
    pub(crate) fn lease_length(&self) -> Ticks {
        let counted = self.election_timeout_min.get().saturating_sub(SLACK_TICKS);
        Ticks(counted * 100 / (100 + MAX_CLOCK_DRIFT_PERCENT))
    }
}

impl Node {
    /// A clock that never goes back and that passes reads `now`, in whole ticks since any fixed moment. Only
    /// leases look at it. To be called before [`Node::tick_heartbeat`] and [`Node::ready`]: rounds begin in both.
    pub fn clock_reads(&mut self, now: Ticks) {
        self.clock = self.clock.max(now);
    }

    /// The lease of this leader. `None` if it has none, or leases are switched off: ask for [`Node::read_index`] then.
    ///
    /// It can be kept and looked at until its time is over, as long as it is asked for again after each
    /// [`Node::ready`] *before* anything of that leaves: what ends a lease early (votes for others, a hand-over, other
    /// members) has an effect through messages alone.
    #[must_use]
    pub fn read_lease(&self) -> Option<ReadLease> {
        let leader = self.leader().filter(|_| self.config.lease_reads)?;
        if leader.is_handing_over() || !self.has_committed_in_own_term() {
            return None;
        }
        let length = self.config.lease_length();
        let bound_until = |member| match member {
            // It votes for nobody while it leads.
            _ if member == self.id() => Ticks(u64::MAX),
            _ if self.peer_counts(member) => leader.lease.bound_until(member, length),
            _ => Ticks::ZERO,
        };
        // The members of now: those of a later leader's election overlap with them, not with older ones.
        let until = self.log.configuration().reached_by_quorum(bound_until);
        (until > self.clock).then(|| ReadLease {
            term: self.hard_state.current_term,
            index: self.log.commit_index(),
            until,
        })
    }
}

/// A leader's lease: reads need no round until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLease {
    term: Term,
    index: LogIndex,
    until: Ticks,
}

impl ReadLease {
    /// The leader's term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The read index of a read that has arrived: it may be served once the state machine has applied that. `None` if the
    /// lease has ended.
    ///
    /// `now` is a reading of the clock of [`Node::clock_reads`], taken after the read has arrived: an older one could
    /// serve from a lease that has ended.
    #[must_use]
    pub fn read_index(&self, now: Ticks) -> Option<LogIndex> {
        (now < self.until).then_some(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::Lease;
    use crate::types::{NodeId, Ticks};

    const PEER: NodeId = NodeId(2);
    const LENGTH: Ticks = Ticks(10);

    fn is_bound(lease: &Lease, now: u64) -> bool {
        Ticks(now) < lease.bound_until(PEER, LENGTH)
    }

    #[test]
    fn an_answer_binds_from_the_beginning_of_its_round() {
        let mut lease = Lease::default();
        lease.round_began(1, Ticks(5), LENGTH);
        lease.round_began(2, Ticks(8), LENGTH);
        lease.acknowledged(PEER, 1);
        assert!(is_bound(&lease, 14));
        assert!(!is_bound(&lease, 15));
        lease.acknowledged(PEER, 2);
        assert!(is_bound(&lease, 17));
        lease.acknowledged(PEER, 1);
        assert!(is_bound(&lease, 17), "an older answer takes nothing back");
        assert!(!is_bound(&lease, 18));
    }

    #[test]
    fn rounds_that_began_at_one_reading_are_one() {
        let mut lease = Lease::default();
        for round in 1..=1_000 {
            lease.round_began(round, Ticks(5), LENGTH);
        }
        lease.round_began(1_001, Ticks(7), LENGTH);
        assert_eq!(lease.rounds.len(), 2);
        lease.acknowledged(PEER, 1_000);
        assert!(is_bound(&lease, 14) && !is_bound(&lease, 15));
    }

    #[test]
    fn rounds_that_can_matter_no_more_are_forgotten() {
        let mut lease = Lease::default();
        for tick in 0..100 {
            lease.round_began(tick + 1, Ticks(tick), LENGTH);
        }
        assert_eq!(lease.rounds.len(), 10);
        lease.acknowledged(PEER, 80);
        assert!(lease.renewed.is_empty());
    }

    #[test]
    fn what_was_given_up_is_not_taken_up_again() {
        let mut lease = Lease::default();
        lease.round_began(1, Ticks(5), LENGTH);
        lease.give_up();
        lease.acknowledged(PEER, 1);
        assert!(!is_bound(&lease, 5));
    }
}

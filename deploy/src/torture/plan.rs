//! Which faults come when, drawn from the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::links::Condition;

/// What is done to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One node is killed, and started again afterwards.
    Kill(Target),
    /// All nodes are killed, and started again afterwards.
    KillAll,
    /// One node is stopped, and goes on afterwards.
    Pause(Target),
    /// All links of one node are cut, from it and to it.
    Isolate(Target, Condition),
    /// The links from one node are cut: it is heard of no more, but hears.
    CutFrom(Target, Condition),
    /// One pair of nodes loses both its links: the one at hand and its neighbour.
    CutPair(Target, Condition),
}

/// Which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Whoever leads when it comes to it.
    Leader,
    /// The one at this place.
    Node(usize),
}

/// A fault and its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// How long nothing is wrong before it.
    pub(crate) calm: Duration,
    /// What.
    pub(crate) fault: Fault,
    /// How long it lasts.
    pub(crate) lasts: Duration,
}

/// The faults of one seed, without end. The same seed always plans the same.
#[derive(Debug)]
pub(crate) struct Plan {
    random: StdRng,
    nodes: usize,
    /// What is left of the deck that faults are drawn from, so that each kind gets its share soon.
    deck: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    KillOne,
    KillLeader,
    KillAll,
    Pause,
    PauseLeader,
    Isolate,
    IsolateLeader,
    CutFrom,
    CutPair,
}

const DECK: [Kind; 10] = [
    Kind::KillOne,
    Kind::KillOne,
    Kind::KillLeader,
    Kind::KillAll,
    Kind::Pause,
    Kind::PauseLeader,
    Kind::Isolate,
    Kind::IsolateLeader,
    Kind::CutFrom,
    Kind::CutPair,
];

impl Plan {
    /// The plan of `seed` for a cluster of so many nodes.
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            nodes,
            deck: Vec::new(),
        }
    }

    fn draw(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.deck = DECK.to_vec();
            self.deck.shuffle(&mut self.random);
        }
        self.deck.pop().unwrap_or(Kind::KillOne)
    }

    fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from..to))
    }
}

impl Iterator for Plan {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        let kind = self.draw();
        let node = Target::Node(self.random.random_range(0..self.nodes));
        let condition = if self.random.random_bool(0.5) {
            Condition::Silent
        } else {
            Condition::Closed
        };
        let fault = match kind {
            Kind::KillOne => Fault::Kill(node),
            Kind::KillLeader => Fault::Kill(Target::Leader),
            Kind::KillAll => Fault::KillAll,
            Kind::Pause => Fault::Pause(node),
            Kind::PauseLeader => Fault::Pause(Target::Leader),
            Kind::Isolate => Fault::Isolate(node, condition),
            Kind::IsolateLeader => Fault::Isolate(Target::Leader, condition),
            Kind::CutFrom => Fault::CutFrom(node, condition),
            Kind::CutPair => Fault::CutPair(node, condition),
        };
        let lasts = match fault {
            // Nobody serves: what matters is that they come back.
            Fault::KillAll => self.milliseconds(50, 500),
            _ => self.milliseconds(300, 2_500),
        };
        Some(Planned {
            calm: self.milliseconds(300, 2_000),
            fault,
            lasts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_plans_the_same_and_another_seed_something_else() {
        let of = |seed| Plan::new(seed, 3).take(50).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn five_minutes_have_thirty_kills_ten_pauses_and_twenty_cuts_whatever_the_seed() {
        for seed in 0..200 {
            let (mut at, mut kills, mut pauses, mut cuts) = (Duration::ZERO, 0, 0, 0);
            // What is left is for the faults themselves: a process has to be started, a leader found.
            for planned in Plan::new(seed, 3) {
                at += planned.calm + planned.lasts + Duration::from_millis(500);
                if at > Duration::from_secs(300) {
                    break;
                }
                // Each fault counts once, however many processes or links it befalls.
                match planned.fault {
                    Fault::Kill(_) | Fault::KillAll => kills += 1,
                    Fault::Pause(_) => pauses += 1,
                    Fault::Isolate(..) | Fault::CutFrom(..) | Fault::CutPair(..) => cuts += 1,
                }
            }
            assert!(
                kills >= 30 && pauses >= 10 && cuts >= 20,
                "seed {seed}: {kills} {pauses} {cuts}"
            );
        }
    }
}

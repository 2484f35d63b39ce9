//! Virtual time: a queue of events in order of their time, and of their arrival where times are equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A point in virtual time or a span of it, in microseconds.
pub(crate) type Micros = u64;

/// A millisecond.
pub(crate) const MILLISECOND: Micros = 1_000;
/// A second.
pub(crate) const SECOND: Micros = 1_000 * MILLISECOND;

/// The events to come. Nothing else moves time.
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    now: Micros,
    last_sequence: u64,
    /// When each is due, its number, and its place. The heap moves its items again and again, and events are large.
    due: BinaryHeap<Reverse<(u128, usize)>>,
    events: Vec<Option<E>>,
    free_places: Vec<usize>,
}

impl<E> EventQueue<E> {
    /// An empty queue at time zero.
    pub(crate) fn new() -> Self {
        Self {
            now: 0,
            last_sequence: 0,
            due: BinaryHeap::new(),
            events: Vec::new(),
            free_places: Vec::new(),
        }
    }

    /// The time of the event that was taken last.
    pub(crate) fn now(&self) -> Micros {
        self.now
    }

    /// Puts `event` `delay` after now, behind everything that is due at that time already.
    pub(crate) fn schedule(&mut self, delay: Micros, event: E) {
        self.last_sequence += 1;
        let place = self.free_places.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        let turn = turn(self.now + delay, self.last_sequence);
        self.due.push(Reverse((turn, place)));
    }

    /// When the next event is due.
    pub(crate) fn next_time(&self) -> Option<Micros> {
        self.due
            .peek()
            .map(|Reverse((turn, _))| time_and_sequence(*turn).0)
    }

    /// Moves time on to `time`, before which nothing is due.
    pub(crate) fn wait_until(&mut self, time: Micros) {
        self.now = self.now.max(time);
    }

    /// Takes the next event and moves time to it. The number tells which event it was.
    pub(crate) fn next(&mut self) -> Option<(u64, E)> {
        let Reverse((turn, place)) = self.due.pop()?;
        let (time, sequence) = time_and_sequence(turn);
        let event = self.events[place].take()?;
        self.free_places.push(place);
        self.now = time;
        Some((sequence, event))
    }
}

/// In order of time, and of sequence where times are equal: one comparison.
fn turn(time: Micros, sequence: u64) -> u128 {
    u128::from(time) << u64::BITS | u128::from(sequence)
}

#[allow(clippy::cast_possible_truncation, reason = "both halves of 128 bits have 64")]
fn time_and_sequence(turn: u128) -> (Micros, u64) {
    ((turn >> u64::BITS) as u64, turn as u64)
}

#[cfg(test)]
mod tests {
    use super::EventQueue;

    #[test]
    fn events_come_in_order_of_time_and_equal_ones_in_order_of_arrival() {
        let mut queue = EventQueue::new();
        for (delay, name) in [(5, "c"), (1, "a"), (5, "d"), (1, "b")] {
            queue.schedule(delay, name);
        }
        let mut order = Vec::new();
        while let Some((_, name)) = queue.next() {
            order.push((queue.now(), name));
        }
        assert_eq!(order, [(1, "a"), (1, "b"), (5, "c"), (5, "d")]);
    }
}

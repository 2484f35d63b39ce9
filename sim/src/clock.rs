//! Virtual time: a queue of events in order of their time, and of their arrival where times are equal.

use std::collections::BTreeMap;

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
    events: BTreeMap<(Micros, u64), E>,
}

impl<E> EventQueue<E> {
    /// An empty queue at time zero.
    pub(crate) fn new() -> Self {
        Self {
            now: 0,
            last_sequence: 0,
            events: BTreeMap::new(),
        }
    }

    /// The time of the event that was taken last.
    pub(crate) fn now(&self) -> Micros {
        self.now
    }

    /// Puts `event` `delay` after now, behind everything that is due at that time already.
    pub(crate) fn schedule(&mut self, delay: Micros, event: E) {
        self.last_sequence += 1;
        self.events.insert((self.now + delay, self.last_sequence), event);
    }

    /// When the next event is due.
    pub(crate) fn next_time(&self) -> Option<Micros> {
        self.events.first_key_value().map(|((time, _), _)| *time)
    }

    /// Moves time on to `time`, before which nothing is due.
    pub(crate) fn wait_until(&mut self, time: Micros) {
        self.now = self.now.max(time);
    }

    /// Takes the next event and moves time to it. The number tells which event it was.
    pub(crate) fn next(&mut self) -> Option<(u64, E)> {
        let ((time, sequence), event) = self.events.pop_first()?;
        self.now = time;
        Some((sequence, event))
    }
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

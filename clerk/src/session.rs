//! Bookkeeping of one session: which sequence numbers are taken and which answers are still awaited.
//!
//! This is the client's half of exactly-once (thesis §6.3). A write keeps its sequence number through all
//! its retries; the servers remember the answers from the lowest number that is still awaited upwards.
//!
//! When a caller stops waiting (the answer came, time ran out, the future was dropped), its number is
//! *finished*: never used again, and no longer in the way of the lowest outstanding one. A late attempt of a
//! finished write is not a danger: once a later write has carried a higher `lowest_outstanding` into the
//! log, the servers refuse what lies below (`SequenceForgotten`). So an abandoned write takes effect before a
//! write of its session is acknowledged that was sent when nothing older than the abandoned one was outstanding, or
//! never.

use std::collections::BTreeSet;

use rpc::client::{Sequence, SessionId, WriteId};

/// How far a sequence number may be ahead of the lowest outstanding one: the servers' window.
pub const SESSION_WINDOW: u64 = 1_024;

/// The state of one session on the client's side. Pure: no clock, no socket.
///
/// ```
/// use clerk::session::SessionBook;
/// use rpc::client::{Sequence, SessionId};
///
/// let mut book = SessionBook::new(SessionId { opened_at: 7.into(), secret: 42 });
/// let first = book.begin().unwrap();
/// let second = book.begin().unwrap();
/// assert_eq!((first, second), (Sequence(1), Sequence(2)));
///
/// book.finish(first);
/// assert_eq!(book.write_id(second).lowest_outstanding, second);
/// ```
#[derive(Debug)]
pub struct SessionBook {
    session: SessionId,
    next: u64,
    outstanding: BTreeSet<u64>,
}

impl SessionBook {
    /// An empty book for a session that was just opened.
    #[must_use]
    pub fn new(session: SessionId) -> Self {
        Self {
            session,
            next: 1,
            outstanding: BTreeSet::new(),
        }
    }

    /// The session's id.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether the servers' window has room for another write.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.next - self.lowest_outstanding().0 < SESSION_WINDOW
    }

    /// Takes the next sequence number, or `None` while the servers' window has no room for it: the lowest
    /// outstanding write must finish first, however few are in flight.
    pub fn begin(&mut self) -> Option<Sequence> {
        if !self.has_room() {
            return None;
        }
        let sequence = self.next;
        self.next += 1;
        self.outstanding.insert(sequence);
        Some(Sequence(sequence))
    }

    /// How an attempt of the write `sequence` names itself now. Two attempts of one write differ at most in
    /// `lowest_outstanding`, which only grows.
    ///
    /// # Panics
    ///
    /// When `sequence` is not outstanding: a finished write must not be sent again.
    #[must_use]
    pub fn write_id(&self, sequence: Sequence) -> WriteId {
        assert!(
            self.outstanding.contains(&sequence.0),
            "a finished write must not be sent again"
        );
        WriteId {
            session: self.session,
            sequence,
            lowest_outstanding: self.lowest_outstanding(),
        }
    }

    /// Nobody waits for the answer to `sequence` any more, whatever became of the write. Returns whether
    /// that made room in the window.
    pub fn finish(&mut self, sequence: Sequence) -> bool {
        let before = self.lowest_outstanding();
        self.outstanding.remove(&sequence.0);
        self.lowest_outstanding() > before
    }

    /// The lowest number whose answer is still awaited; the next number if none is.
    #[must_use]
    pub fn lowest_outstanding(&self) -> Sequence {
        Sequence(self.outstanding.first().copied().unwrap_or(self.next))
    }

    /// How many writes wait for their answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.outstanding.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn book() -> SessionBook {
        SessionBook::new(SessionId {
            opened_at: 3.into(),
            secret: 9,
        })
    }

    #[test]
    fn sequence_numbers_start_at_one_and_are_never_used_twice() {
        let mut book = book();
        let first = book.begin().unwrap();
        book.finish(first);
        assert_eq!(first, Sequence(1));
        assert_eq!(book.begin(), Some(Sequence(2)));
    }

    #[test]
    fn one_write_that_does_not_finish_stops_the_window_even_if_all_others_do() {
        let mut book = book();
        let stuck = book.begin().unwrap();
        for _ in 1..SESSION_WINDOW {
            let sequence = book.begin().unwrap();
            book.finish(sequence);
        }
        assert_eq!(book.in_flight(), 1);
        assert!(!book.has_room());
        assert_eq!(book.begin(), None);
        assert!(book.finish(stuck));
        assert_eq!(book.begin(), Some(Sequence(SESSION_WINDOW + 1)));
    }

    #[test]
    fn finishing_a_write_above_the_lowest_makes_no_room() {
        let mut book = book();
        book.begin().unwrap();
        let second = book.begin().unwrap();
        assert!(!book.finish(second));
    }

    #[test]
    fn finishing_twice_changes_nothing() {
        let mut book = book();
        let first = book.begin().unwrap();
        assert!(book.finish(first));
        assert!(!book.finish(first));
        assert_eq!(book.lowest_outstanding(), Sequence(2));
    }

    proptest! {
        /// The model: a plain list of what was begun and what was finished.
        #[test]
        fn the_lowest_outstanding_number_is_the_lowest_unfinished_one(
            choices in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..3_000),
        ) {
            let mut book = book();
            let mut unfinished: Vec<u64> = Vec::new();
            let mut begun = 0;
            for (begin, which) in choices {
                if begin || unfinished.is_empty() {
                    let lowest = unfinished.iter().min().copied().unwrap_or(begun + 1);
                    match book.begin() {
                        Some(sequence) => {
                            begun += 1;
                            prop_assert_eq!(sequence.0, begun);
                            prop_assert!(begun - lowest < SESSION_WINDOW);
                            unfinished.push(begun);
                        }
                        None => prop_assert!(begun + 1 - lowest >= SESSION_WINDOW),
                    }
                } else {
                    let done = unfinished.swap_remove(which.index(unfinished.len()));
                    book.finish(Sequence(done));
                }
                let lowest = unfinished.iter().min().copied().unwrap_or(begun + 1);
                prop_assert_eq!(book.lowest_outstanding().0, lowest);
                prop_assert_eq!(book.in_flight(), unfinished.len());
                for sequence in &unfinished {
                    let id = book.write_id(Sequence(*sequence));
                    prop_assert!(id.lowest_outstanding <= id.sequence);
                    prop_assert!(id.sequence.0 - id.lowest_outstanding.0 < SESSION_WINDOW);
                }
            }
        }
    }
}

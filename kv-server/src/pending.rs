//! Requests that wait for their answer.
//!
//! A write waits for the entry that it became, named by log index *and* term: if another leader's entry
//! is applied at that index, the write was not done. A read waits until its read index is confirmed
//! (thesis §6.4) and then until the state machine has applied the log that far.
//!
//! Every waiter is completed exactly once, whatever happens, also when [`Pending`] is dropped.

use std::collections::BTreeMap;

use raft_core::{LogIndex, ReadId, Term};
use rpc::client::{BusyReason, KvError, Member};

use crate::state_machine::Reply;

/// Somebody who waits for an answer of type `A`, or for the reason why there is none.
///
/// Every `FnOnce(Result<A, KvError>)` is one.
pub trait Waiter<A> {
    /// Delivers. Called once. Must not block.
    fn complete(self, result: Result<A, KvError>);
}

impl<A, F: FnOnce(Result<A, KvError>)> Waiter<A> for F {
    fn complete(self, result: Result<A, KvError>) {
        self(result);
    }
}

/// All requests of one server that wait. `W` waits for the reply of an entry; `R` waits until a read may
/// be served, and gets an index that the state has reached and that is fresh enough for it.
#[derive(Debug)]
pub struct Pending<W: Waiter<Reply>, R: Waiter<LogIndex>> {
    capacity: usize,
    is_closed: bool,
    is_shut_down: bool,
    /// Where to send clients whose request was not done.
    leader: Option<Member>,
    last_applied: LogIndex,
    writes: BTreeMap<LogIndex, (Term, W)>,
    unconfirmed_reads: BTreeMap<ReadId, Vec<R>>,
    /// Confirmed reads by the index that must be applied first.
    confirmed_reads: BTreeMap<(LogIndex, ReadId), Vec<R>>,
    /// How many wait in the two maps of reads.
    reads: usize,
}

impl<W: Waiter<Reply>, R: Waiter<LogIndex>> Pending<W, R> {
    /// Nobody waits yet. No more are admitted while `capacity` wait. The state machine has applied the log
    /// up to `last_applied`.
    #[must_use]
    pub fn new(capacity: usize, last_applied: LogIndex) -> Self {
        Self {
            capacity,
            is_closed: false,
            is_shut_down: false,
            leader: None,
            last_applied,
            writes: BTreeMap::new(),
            unconfirmed_reads: BTreeMap::new(),
            confirmed_reads: BTreeMap::new(),
            reads: 0,
        }
    }

    /// How many requests wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len() + self.reads
    }

    /// Whether no request waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a new request may come in. Ask before proposing: once an entry is in the log, it is too
    /// late to say that the request was not done.
    ///
    /// # Errors
    ///
    /// [`KvError::Busy`] or [`KvError::ShuttingDown`].
    pub fn admission(&self) -> Result<(), KvError> {
        self.admission_beside(0)
    }

    /// The same while `on_the_way` requests that were admitted are not registered yet: they count, too.
    ///
    /// # Errors
    ///
    /// As [`admission`](Self::admission).
    pub fn admission_beside(&self, on_the_way: usize) -> Result<(), KvError> {
        if self.is_closed {
            return Err(KvError::ShuttingDown);
        }
        if self.len() + on_the_way >= self.capacity {
            return Err(KvError::Busy(BusyReason::RequestsInFlight));
        }
        Ok(())
    }

    /// Tells who leads, for requests that end with [`KvError::NotLeader`] from now on.
    pub fn set_leader(&mut self, leader: Option<Member>) {
        self.leader = leader;
    }

    /// Waits for the entry that was proposed at `index` in `term`. Call it before the entry can be
    /// applied.
    ///
    /// The capacity is not looked at again: the entry is in the log, so it is too late to refuse. Requests
    /// that were admitted before others were registered may pass it, so whoever proposes must bound how
    /// many those can be.
    ///
    /// The waiter ends at once with [`KvError::OutcomeUnknown`] after [`shutdown`](Self::shutdown) or when
    /// `index` is applied already. So does an earlier waiter at the same index, whose term has ended.
    pub fn register(&mut self, index: LogIndex, term: Term, waiter: W) {
        if self.is_shut_down || index <= self.last_applied {
            return waiter.complete(Err(KvError::OutcomeUnknown));
        }
        if let Some((_, earlier)) = self.writes.insert(index, (term, waiter)) {
            earlier.complete(Err(KvError::OutcomeUnknown));
        }
    }

    /// An entry was applied: completes its waiter, or tells a waiter for another term at this index that
    /// its request was not done.
    pub fn applied(&mut self, index: LogIndex, term: Term, reply: Reply) {
        let Some((awaited_term, waiter)) = self.writes.remove(&index) else {
            return;
        };
        if awaited_term == term {
            waiter.complete(Ok(reply));
        } else {
            // The log matching property (Raft §5.3): the entry that was waited for can never be
            // committed, here or elsewhere.
            let error = self.not_leader();
            waiter.complete(Err(error));
        }
    }

    /// The state machine has applied everything up to `index`, entry by entry or by a snapshot. Reads
    /// that waited for that may be served. Call it after [`applied`](Self::applied) for each entry.
    ///
    /// Writes at or before `index` whose entry was not reported, because a snapshot replaced it, end with
    /// [`KvError::OutcomeUnknown`].
    pub fn applied_up_to(&mut self, index: LogIndex) {
        self.last_applied = self.last_applied.max(index);
        while let Some(entry) = self.writes.first_entry().filter(|entry| *entry.key() <= index) {
            entry.remove().1.complete(Err(KvError::OutcomeUnknown));
        }
        while let Some(entry) = self
            .confirmed_reads
            .first_entry()
            .filter(|entry| entry.key().0 <= index)
        {
            let waiters = entry.remove();
            self.end_reads(waiters, &Ok(self.last_applied));
        }
    }

    /// Waits for the read index of `read`. A read without [admission](Self::admission) ends at once with
    /// its error, and an earlier read of the same id with [`KvError::NotLeader`].
    pub fn register_read(&mut self, read: ReadId, waiter: R) {
        self.register_reads(read, vec![waiter]);
    }

    /// The same for reads that share one read index, because they came together.
    pub fn register_reads(&mut self, read: ReadId, mut waiters: Vec<R>) {
        let room = match self.admission() {
            Ok(()) => self.capacity - self.len(),
            Err(_) => 0,
        };
        for refused in waiters.drain(room.min(waiters.len())..) {
            let error = self.admission().err();
            refused.complete(Err(error.unwrap_or(KvError::Busy(BusyReason::RequestsInFlight))));
        }
        if waiters.is_empty() {
            return;
        }
        self.reads += waiters.len();
        if let Some(earlier) = self.unconfirmed_reads.insert(read, waiters) {
            self.end_reads(earlier, &Err(self.not_leader()));
        }
    }

    /// The core confirmed leadership: `read` may be served once `read_index` is applied.
    pub fn confirmed(&mut self, read: ReadId, read_index: LogIndex) {
        let Some(waiters) = self.unconfirmed_reads.remove(&read) else {
            return;
        };
        if read_index <= self.last_applied {
            self.end_reads(waiters, &Ok(self.last_applied));
        } else if let Some(earlier) = self.confirmed_reads.insert((read_index, read), waiters) {
            self.end_reads(earlier, &Err(self.not_leader()));
        }
    }

    /// The core gave `read` up: its client asks the leader.
    pub fn dropped(&mut self, read: ReadId) {
        if let Some(waiters) = self.unconfirmed_reads.remove(&read) {
            self.end_reads(waiters, &Err(self.not_leader()));
        }
    }

    fn end_reads(&mut self, waiters: Vec<R>, result: &Result<LogIndex, KvError>) {
        self.reads -= waiters.len();
        for waiter in waiters {
            waiter.complete(result.clone());
        }
    }

    /// This server leads no more. What became of the writes is for the next leader to decide:
    /// [`KvError::OutcomeUnknown`]. The reads were not done: [`KvError::NotLeader`].
    pub fn leadership_lost(&mut self) {
        let error = self.not_leader();
        self.end_all(&error);
    }

    /// Admits nothing more. What was admitted goes on.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Ends everything, and refuses what comes later. Writes end with [`KvError::OutcomeUnknown`], since
    /// their entries are in the log; reads with [`KvError::ShuttingDown`].
    pub fn shutdown(&mut self) {
        self.close();
        self.is_shut_down = true;
        self.end_all(&KvError::ShuttingDown);
    }

    fn end_all(&mut self, read_error: &KvError) {
        for (_, waiter) in std::mem::take(&mut self.writes).into_values() {
            waiter.complete(Err(KvError::OutcomeUnknown));
        }
        let unconfirmed = std::mem::take(&mut self.unconfirmed_reads).into_values();
        let confirmed = std::mem::take(&mut self.confirmed_reads).into_values();
        for waiters in unconfirmed.chain(confirmed) {
            self.end_reads(waiters, &Err(read_error.clone()));
        }
    }

    fn not_leader(&self) -> KvError {
        KvError::NotLeader {
            leader: self.leader.clone(),
        }
    }
}

impl<W: Waiter<Reply>, R: Waiter<LogIndex>> Drop for Pending<W, R> {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use proptest::prelude::*;
    use raft_core::NodeId;

    use super::*;

    /// Every completion, in order: who, and with what.
    type Record<A> = Rc<RefCell<Vec<(u64, Result<A, KvError>)>>>;

    #[derive(Debug)]
    struct Recorder<A> {
        name: u64,
        record: Record<A>,
    }

    impl<A> Waiter<A> for Recorder<A> {
        fn complete(self, result: Result<A, KvError>) {
            self.record.borrow_mut().push((self.name, result));
        }
    }

    struct Fixture {
        pending: Pending<Recorder<Reply>, Recorder<LogIndex>>,
        writes: Record<Reply>,
        reads: Record<LogIndex>,
    }

    impl Fixture {
        fn new(capacity: usize) -> Self {
            Self {
                pending: Pending::new(capacity, LogIndex::ZERO),
                writes: Rc::default(),
                reads: Rc::default(),
            }
        }

        fn register(&mut self, name: u64, index: u64, term: u64) {
            let waiter = Recorder {
                name,
                record: Rc::clone(&self.writes),
            };
            self.pending.register(LogIndex(index), Term(term), waiter);
        }

        fn register_read(&mut self, name: u64) {
            let waiter = Recorder {
                name,
                record: Rc::clone(&self.reads),
            };
            self.pending.register_read(ReadId(name), waiter);
        }

        fn writes(&self) -> Vec<(u64, Result<Reply, KvError>)> {
            self.writes.borrow_mut().drain(..).collect()
        }

        fn reads(&self) -> Vec<(u64, Result<LogIndex, KvError>)> {
            self.reads.borrow_mut().drain(..).collect()
        }
    }

    const NO_LEADER: KvError = KvError::NotLeader { leader: None };

    #[test]
    fn a_write_gets_the_reply_of_its_entry() {
        let mut fixture = Fixture::new(10);
        fixture.register(1, 5, 2);
        fixture.pending.applied(LogIndex(4), Term(2), Reply::Nothing);
        assert_eq!(fixture.writes(), []);
        fixture.pending.applied(LogIndex(5), Term(2), Reply::Nothing);
        assert_eq!(fixture.writes(), [(1, Ok(Reply::Nothing))]);
        assert!(fixture.pending.is_empty());
    }

    #[test]
    fn a_write_whose_index_went_to_another_term_was_not_done() {
        let mut fixture = Fixture::new(10);
        let leader = Member {
            id: NodeId(3),
            client_addr: "c:1".into(),
        };
        fixture.register(1, 5, 2);
        fixture.pending.set_leader(Some(leader.clone()));
        fixture.pending.applied(LogIndex(5), Term(3), Reply::Nothing);
        assert_eq!(
            fixture.writes(),
            [(1, Err(KvError::NotLeader { leader: Some(leader) }))]
        );
    }

    #[test]
    fn lost_leadership_leaves_writes_unknown_and_reads_not_done() {
        let mut fixture = Fixture::new(10);
        fixture.register(1, 5, 2);
        fixture.register_read(2);
        fixture.register_read(3);
        fixture.pending.confirmed(ReadId(3), LogIndex(9));
        fixture.pending.leadership_lost();
        assert_eq!(fixture.writes(), [(1, Err(KvError::OutcomeUnknown))]);
        assert_eq!(fixture.reads(), [(2, Err(NO_LEADER)), (3, Err(NO_LEADER))]);
        fixture.register(4, 6, 4);
        assert_eq!(fixture.pending.len(), 1);
    }

    #[test]
    fn a_read_waits_for_its_index_to_be_confirmed_and_applied() {
        let mut fixture = Fixture::new(10);
        fixture.register_read(1);
        fixture.pending.applied_up_to(LogIndex(3));
        fixture.pending.confirmed(ReadId(1), LogIndex(5));
        fixture.pending.applied_up_to(LogIndex(4));
        assert_eq!(fixture.reads(), []);
        fixture.register_read(2);
        fixture.pending.confirmed(ReadId(2), LogIndex(6));
        fixture.pending.applied_up_to(LogIndex(5));
        assert_eq!(fixture.reads(), [(1, Ok(LogIndex(5)))]);
        fixture.pending.applied_up_to(LogIndex(7));
        assert_eq!(fixture.reads(), [(2, Ok(LogIndex(7)))]);
    }

    #[test]
    fn a_read_of_what_is_applied_already_is_served_when_confirmed() {
        let mut fixture = Fixture::new(10);
        fixture.pending.applied_up_to(LogIndex(5));
        fixture.register_read(1);
        fixture.pending.confirmed(ReadId(1), LogIndex(5));
        assert_eq!(fixture.reads(), [(1, Ok(LogIndex(5)))]);
    }

    #[test]
    fn a_dropped_read_was_not_done() {
        let mut fixture = Fixture::new(10);
        fixture.register_read(1);
        fixture.pending.dropped(ReadId(1));
        fixture.pending.confirmed(ReadId(1), LogIndex(5));
        assert_eq!(fixture.reads(), [(1, Err(NO_LEADER))]);
    }

    #[test]
    fn a_write_that_a_snapshot_skipped_is_unknown() {
        let mut fixture = Fixture::new(10);
        fixture.register(1, 5, 2);
        fixture.register(2, 9, 2);
        fixture.pending.applied_up_to(LogIndex(8));
        assert_eq!(fixture.writes(), [(1, Err(KvError::OutcomeUnknown))]);
        fixture.register(3, 7, 2);
        assert_eq!(fixture.writes(), [(3, Err(KvError::OutcomeUnknown))]);
    }

    #[test]
    fn past_the_capacity_requests_are_refused_before_they_are_proposed() {
        let mut fixture = Fixture::new(2);
        fixture.register(1, 1, 1);
        assert_eq!(fixture.pending.admission(), Ok(()));
        fixture.register_read(2);
        let busy = KvError::Busy(BusyReason::RequestsInFlight);
        assert_eq!(fixture.pending.admission(), Err(busy.clone()));
        fixture.register_read(3);
        assert_eq!(fixture.reads(), [(3, Err(busy))]);
        fixture.pending.applied(LogIndex(1), Term(1), Reply::Nothing);
        assert_eq!(fixture.pending.admission(), Ok(()));
    }

    #[test]
    fn reads_that_came_together_are_answered_together_as_far_as_there_is_room() {
        let mut fixture = Fixture::new(3);
        fixture.register(1, 1, 1);
        assert_eq!(fixture.pending.admission_beside(1), Ok(()));
        let busy = KvError::Busy(BusyReason::RequestsInFlight);
        assert_eq!(fixture.pending.admission_beside(2), Err(busy.clone()));
        let waiters = [10, 11, 12].map(|name| Recorder {
            name,
            record: Rc::clone(&fixture.reads),
        });
        fixture.pending.register_reads(ReadId(1), waiters.into());
        assert_eq!(fixture.reads(), [(12, Err(busy))]);
        assert_eq!(fixture.pending.len(), 3);
        fixture.pending.confirmed(ReadId(1), LogIndex(0));
        let served = Ok(LogIndex::ZERO);
        assert_eq!(fixture.reads(), [(10, served.clone()), (11, served)]);
        assert_eq!(fixture.pending.len(), 1);
    }

    #[test]
    fn requests_admitted_together_are_all_answered() {
        let mut fixture = Fixture::new(1);
        assert_eq!(fixture.pending.admission(), Ok(()));
        fixture.register(1, 1, 1);
        fixture.register(2, 2, 1);
        fixture.pending.applied(LogIndex(1), Term(1), Reply::Nothing);
        fixture.pending.applied(LogIndex(2), Term(1), Reply::Nothing);
        assert_eq!(
            fixture.writes(),
            [(1, Ok(Reply::Nothing)), (2, Ok(Reply::Nothing))]
        );
    }

    #[test]
    fn what_was_admitted_before_it_was_closed_goes_on() {
        let mut fixture = Fixture::new(10);
        fixture.register(1, 1, 1);
        fixture.pending.close();
        assert_eq!(fixture.pending.admission(), Err(KvError::ShuttingDown));
        // On its way to the log when it was closed.
        fixture.register(2, 2, 1);
        assert_eq!(fixture.pending.len(), 2);
        fixture.pending.applied(LogIndex(1), Term(1), Reply::Nothing);
        fixture.pending.applied(LogIndex(2), Term(1), Reply::Nothing);
        assert_eq!(
            fixture.writes(),
            [(1, Ok(Reply::Nothing)), (2, Ok(Reply::Nothing))]
        );
    }

    #[test]
    fn after_shutdown_nothing_waits() {
        let mut fixture = Fixture::new(10);
        fixture.register(1, 1, 1);
        fixture.register_read(2);
        fixture.pending.shutdown();
        fixture.register(3, 2, 1);
        fixture.register_read(4);
        let unknown = || Err(KvError::OutcomeUnknown);
        assert_eq!(fixture.writes(), [(1, unknown()), (3, unknown())]);
        assert_eq!(
            fixture.reads(),
            [(2, Err(KvError::ShuttingDown)), (4, Err(KvError::ShuttingDown))]
        );
        assert_eq!(fixture.pending.admission(), Err(KvError::ShuttingDown));
    }

    #[test]
    fn a_closure_can_wait() {
        let got = RefCell::new(None);
        let read = |result: Result<LogIndex, KvError>| *got.borrow_mut() = Some(result);
        let mut pending: Pending<fn(Result<Reply, KvError>), _> = Pending::new(1, LogIndex(4));
        pending.register_read(ReadId(1), read);
        pending.confirmed(ReadId(1), LogIndex(4));
        drop(pending);
        assert_eq!(got.into_inner(), Some(Ok(LogIndex(4))));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Register { index: u64, term: u64 },
        Applied { index: u64, term: u64 },
        AppliedUpTo { index: u64 },
        RegisterRead,
        Confirmed { back: u64, index: u64 },
        Dropped { back: u64 },
        LeadershipLost,
        Shutdown,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            8 => (1_u64..30, 1_u64..4).prop_map(|(index, term)| Event::Register { index, term }),
            6 => (1_u64..30, 1_u64..4).prop_map(|(index, term)| Event::Applied { index, term }),
            2 => (1_u64..30).prop_map(|index| Event::AppliedUpTo { index }),
            6 => Just(Event::RegisterRead),
            4 => (0_u64..6, 1_u64..30).prop_map(|(back, index)| Event::Confirmed { back, index }),
            2 => (0_u64..6).prop_map(|back| Event::Dropped { back }),
            1 => Just(Event::LeadershipLost),
            1 => Just(Event::Shutdown),
        ]
    }

    impl Fixture {
        fn handle(&mut self, event: &Event, name: u64) {
            match *event {
                Event::Register { index, term } => self.register(name, index, term),
                Event::Applied { index, term } => {
                    self.pending.applied(LogIndex(index), Term(term), Reply::Nothing);
                }
                Event::AppliedUpTo { index } => self.pending.applied_up_to(LogIndex(index)),
                Event::RegisterRead => self.register_read(name),
                Event::Confirmed { back, index } => {
                    self.pending
                        .confirmed(ReadId(name.saturating_sub(back)), LogIndex(index));
                }
                Event::Dropped { back } => self.pending.dropped(ReadId(name.saturating_sub(back))),
                Event::LeadershipLost => self.pending.leadership_lost(),
                Event::Shutdown => self.pending.shutdown(),
            }
        }
    }

    fn names<A>(record: &Record<A>) -> Vec<u64> {
        let mut names: Vec<_> = record.borrow().iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names
    }

    proptest! {
        #[test]
        fn every_waiter_is_completed_exactly_once(events in proptest::collection::vec(event(), 0..100)) {
            let mut fixture = Fixture::new(8);
            let (mut writes, mut reads) = (Vec::new(), Vec::new());
            for (event, name) in events.iter().zip(1..) {
                match event {
                    Event::Register { .. } if matches!(fixture.pending.admission(), Err(KvError::Busy(_))) => continue,
                    Event::Register { .. } => writes.push(name),
                    Event::RegisterRead => reads.push(name),
                    _ => {}
                }
                fixture.handle(event, name);
                prop_assert!(fixture.pending.len() <= 8);
                let ended = fixture.writes.borrow().len() + fixture.reads.borrow().len();
                prop_assert_eq!(ended + fixture.pending.len(), writes.len() + reads.len());
            }
            drop(fixture.pending);
            prop_assert_eq!(names(&fixture.writes), writes);
            prop_assert_eq!(names(&fixture.reads), reads);
        }
    }
}

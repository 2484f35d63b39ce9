//! The session table: what makes a retried write take effect once (thesis §6.3).
//!
//! The table is part of the replicated state: only log entries change it, every replica computes the same
//! table, and snapshots carry it. Its limits are therefore replicated too, never a setting of one server:
//! the cap on sessions is a part of the state, and [`MAX_SESSION_WINDOW`] is a part of the command format.
//!
//! What a client may rely on, for a write `(session, sequence)`:
//!
//! | the table finds | the write |
//! |---|---|
//! | no such session, or another secret | is not executed: `SessionExpired` |
//! | a sequence below the session's lowest outstanding one | is not executed: `SequenceForgotten` |
//! | a remembered answer | is not executed again; the same answer is given |
//! | a sequence [`MAX_SESSION_WINDOW`] or more above the lowest outstanding one | is not executed, and that is not remembered: `Busy` |
//! | none of these | is executed, and its answer is remembered |
//!
//! Memory: about 200 bytes for a session with one write in flight. Time: O(log n) a write.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use raft_core::LogIndex;
use rpc::client::{BusyReason, InvalidArgument, KvError, Sequence, SessionId, WriteId};

use crate::command::validate_write_id;

/// How many sessions a cluster keeps, unless its state says otherwise.
pub const DEFAULT_SESSION_CAP: u32 = 100_000;

/// How many sequences of one session, counted from its lowest outstanding one, can have an answer.
pub const MAX_SESSION_WINDOW: u64 = 1_024;

/// How many parts the table is cut into; see [`SessionTable::freeze`].
const SHARDS: usize = 1_024;

/// What a write did, as its client learns it. Remembered for retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A `put` or an `append` made this version.
    Stored {
        /// The log index of the entry that was executed: the key's new version.
        version: LogIndex,
    },
    /// A `delete` was executed.
    Deleted {
        /// Whether the key was there.
        existed: bool,
    },
}

/// The answer to a write that reached its turn: what it did, or why every replica refused it alike.
pub type Answer = Result<Outcome, InvalidArgument>;

/// One client's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) secret: u64,
    /// The last log entry that opened the session or wrote in it.
    pub(crate) last_used: LogIndex,
    /// Answers below are forgotten. At least 1.
    pub(crate) lowest_outstanding: Sequence,
    /// In order of their sequences. Nearly always one or two, so a sorted queue beats a tree: it costs
    /// one small allocation a session and none a write.
    pub(crate) answers: VecDeque<(Sequence, Answer)>,
}

type Shard = BTreeMap<LogIndex, Session>;

/// Every open session. See the [module](self).
#[derive(Clone, Debug)]
pub struct SessionTable {
    cap: u32,
    /// Sessions by the index that opened them, spread over shards. Shared with the frozen tables that
    /// snapshots hold; a shard is copied when it is written to while one of those holds it.
    shards: Vec<Arc<Shard>>,
    /// `last_used` to `opened_at`, for all sessions. An entry touches one session, so keys are unique.
    by_last_use: BTreeMap<LogIndex, LogIndex>,
    /// How many answers are remembered in all sessions together.
    answers: usize,
}

/// A session table at one point of the log, unchanged by writes that follow.
#[derive(Clone, Debug)]
pub struct FrozenSessions {
    cap: u32,
    /// Those in which there are sessions.
    shards: Vec<Arc<Shard>>,
}

impl SessionTable {
    /// An empty table that keeps up to `cap` sessions. Every replica must be given the same cap.
    ///
    /// # Panics
    ///
    /// When `cap` is 0: no client could ever write.
    #[must_use]
    pub fn new(cap: u32) -> Self {
        assert!(cap > 0, "a session table needs room for a session");
        Self {
            cap,
            shards: vec![Arc::default(); SHARDS],
            by_last_use: BTreeMap::new(),
            answers: 0,
        }
    }

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_last_use.len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_last_use.is_empty()
    }

    /// How many sessions the table keeps.
    #[must_use]
    pub fn cap(&self) -> u32 {
        self.cap
    }

    /// How many answers are remembered in all sessions together.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.answers
    }

    /// Opens the session of the log entry at `index`. When that passes the cap, the session that was not
    /// used for the longest stretch of the log ends.
    ///
    /// # Panics
    ///
    /// When an entry at `index` or behind it was applied before.
    pub fn open(&mut self, index: LogIndex, secret: u64) -> SessionId {
        let session = Session {
            secret,
            last_used: index,
            lowest_outstanding: Sequence(1),
            answers: VecDeque::new(),
        };
        self.insert(index, session);
        if self.by_last_use.len() > self.cap as usize {
            self.evict_least_recently_used();
        }
        SessionId {
            opened_at: index,
            secret,
        }
    }

    /// Calls `execute` if the write `id` in the log entry at `index` has never been executed and may be
    /// now; remembers its answer. Otherwise gives the remembered answer or the reason.
    ///
    /// Whatever the result, the session counts as used at `index` if it is there and the numbers of the
    /// write make sense.
    ///
    /// # Errors
    ///
    /// What the client is to be told; see the table in the [module](self).
    pub fn execute_once(
        &mut self,
        index: LogIndex,
        id: &WriteId,
        execute: impl FnOnce() -> Answer,
    ) -> Result<Outcome, KvError> {
        validate_write_id(id).map_err(KvError::InvalidArgument)?;
        let opened_at = id.session.opened_at;
        let session = Arc::make_mut(&mut self.shards[shard_of(opened_at)])
            .get_mut(&opened_at)
            .filter(|session| session.secret == id.session.secret)
            .ok_or(KvError::SessionExpired)?;
        self.by_last_use.remove(&session.last_used);
        self.by_last_use.insert(index, opened_at);
        session.last_used = index;
        let before = session.answers.len();
        let answer = session.execute_once(id, execute);
        self.answers = self.answers - before + session.answers.len();
        answer
    }

    /// The table as it is now, for a snapshot. Copies one pointer for each shard that is not empty, a few
    /// microseconds in all.
    ///
    /// While the frozen table lives, the first write to each shard copies that shard: with 100,000
    /// sessions a hundred of them, well under a tenth of a millisecond. All shards together take at most
    /// the memory of one more table.
    #[must_use]
    pub fn freeze(&self) -> FrozenSessions {
        let shards = self.shards.iter().filter(|shard| !shard.is_empty());
        FrozenSessions {
            cap: self.cap,
            shards: shards.cloned().collect(),
        }
    }

    /// Adds a session that a snapshot holds. False, and no change, if a session with its `opened_at` or
    /// its `last_used` is there already or the table is full.
    pub(crate) fn restore(&mut self, opened_at: LogIndex, session: Session) -> bool {
        let is_new = self.by_last_use.len() < self.cap as usize
            && !self.by_last_use.contains_key(&session.last_used)
            && !self.shards[shard_of(opened_at)].contains_key(&opened_at);
        if is_new {
            self.insert(opened_at, session);
        }
        is_new
    }

    fn insert(&mut self, opened_at: LogIndex, session: Session) {
        self.answers += session.answers.len();
        let earlier_use = self.by_last_use.insert(session.last_used, opened_at);
        let earlier_session = Arc::make_mut(&mut self.shards[shard_of(opened_at)]).insert(opened_at, session);
        assert!(
            earlier_use.is_none() && earlier_session.is_none(),
            "entry {opened_at} was applied twice"
        );
    }

    fn evict_least_recently_used(&mut self) {
        if let Some((_, opened_at)) = self.by_last_use.pop_first() {
            let ended = Arc::make_mut(&mut self.shards[shard_of(opened_at)]).remove(&opened_at);
            self.answers -= ended.map_or(0, |session| session.answers.len());
        }
    }
}

impl FrozenSessions {
    pub(crate) fn cap(&self) -> u32 {
        self.cap
    }

    /// Every session, in order of the index that opened it.
    pub(crate) fn in_order(&self) -> Vec<(LogIndex, &Session)> {
        let mut sessions: Vec<_> = self
            .shards
            .iter()
            .flat_map(|shard| shard.iter())
            .map(|(opened_at, session)| (*opened_at, session))
            .collect();
        sessions.sort_unstable_by_key(|(opened_at, _)| *opened_at);
        sessions
    }
}

impl Session {
    fn execute_once(&mut self, id: &WriteId, execute: impl FnOnce() -> Answer) -> Result<Outcome, KvError> {
        self.forget_below(id.lowest_outstanding);
        if id.sequence < self.lowest_outstanding {
            return Err(KvError::SequenceForgotten);
        }
        let answer = match self
            .answers
            .binary_search_by_key(&id.sequence, |(sequence, _)| *sequence)
        {
            Ok(found) => self.answers[found].1,
            Err(_) if id.sequence.0 - self.lowest_outstanding.0 >= MAX_SESSION_WINDOW => {
                return Err(KvError::Busy(BusyReason::SessionWindow));
            }
            Err(place) => {
                let answer = execute();
                self.answers.insert(place, (id.sequence, answer));
                answer
            }
        };
        answer.map_err(KvError::InvalidArgument)
    }

    fn forget_below(&mut self, lowest_outstanding: Sequence) {
        if lowest_outstanding <= self.lowest_outstanding {
            return;
        }
        self.lowest_outstanding = lowest_outstanding;
        while self
            .answers
            .front()
            .is_some_and(|(sequence, _)| *sequence < lowest_outstanding)
        {
            self.answers.pop_front();
        }
        // A burst of writes must not hold its memory for the life of the session.
        if self.answers.capacity() > 16 && self.answers.len() < self.answers.capacity() / 4 {
            self.answers.shrink_to(self.answers.len() * 2);
        }
    }
}

/// Spreads consecutive and evenly spaced indexes alike (Fibonacci hashing).
fn shard_of(opened_at: LogIndex) -> usize {
    const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;
    const SHIFT: u32 = u64::BITS - SHARDS.ilog2();
    // The shift leaves a number below SHARDS.
    usize::try_from(opened_at.0.wrapping_mul(GOLDEN_RATIO) >> SHIFT).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    fn id(session: SessionId, sequence: u64, lowest_outstanding: u64) -> WriteId {
        WriteId {
            session,
            sequence: Sequence(sequence),
            lowest_outstanding: Sequence(lowest_outstanding),
        }
    }

    /// Runs a write and says whether it was executed, too.
    fn write(table: &mut SessionTable, index: u64, id: WriteId) -> (bool, Result<Outcome, KvError>) {
        let executed = Cell::new(false);
        let result = table.execute_once(LogIndex(index), &id, || {
            executed.set(true);
            Ok(Outcome::Stored {
                version: LogIndex(index),
            })
        });
        (executed.get(), result)
    }

    fn stored(version: u64) -> Result<Outcome, KvError> {
        Ok(Outcome::Stored {
            version: LogIndex(version),
        })
    }

    #[test]
    fn a_repeated_write_is_executed_once_and_answered_alike() {
        let mut table = SessionTable::new(10);
        assert!(table.is_empty());
        let session = table.open(LogIndex(1), 42);
        assert!(!table.is_empty());
        assert_eq!(write(&mut table, 2, id(session, 1, 1)), (true, stored(2)));
        assert_eq!(write(&mut table, 3, id(session, 1, 1)), (false, stored(2)));
        assert_eq!(write(&mut table, 4, id(session, 2, 1)), (true, stored(4)));
        assert_eq!(write(&mut table, 5, id(session, 1, 1)), (false, stored(2)));
    }

    #[test]
    fn a_refused_argument_is_remembered() {
        let mut table = SessionTable::new(10);
        let session = table.open(LogIndex(1), 42);
        let refusal = InvalidArgument::ValueTooLong { len: 9 };
        let first = table.execute_once(LogIndex(2), &id(session, 1, 1), || Err(refusal));
        assert_eq!(first, Err(KvError::InvalidArgument(refusal)));
        let (executed, second) = write(&mut table, 3, id(session, 1, 1));
        assert_eq!(
            (executed, second),
            (false, Err(KvError::InvalidArgument(refusal)))
        );
    }

    #[test]
    fn a_forgotten_sequence_is_never_executed_again() {
        let mut table = SessionTable::new(10);
        let session = table.open(LogIndex(1), 42);
        let _ = write(&mut table, 2, id(session, 1, 1));
        let _ = write(&mut table, 3, id(session, 5, 3));
        for sequence in [1, 2] {
            let late = write(&mut table, 4 + sequence, id(session, sequence, 1));
            assert_eq!(late, (false, Err(KvError::SequenceForgotten)));
        }
        assert_eq!(write(&mut table, 8, id(session, 3, 1)), (true, stored(8)));
        assert_eq!(write(&mut table, 9, id(session, 5, 3)), (false, stored(3)));
    }

    #[test]
    fn writes_beyond_the_window_are_busy_until_the_client_moves_it() {
        let mut table = SessionTable::new(10);
        let session = table.open(LogIndex(1), 42);
        let busy = (false, Err(KvError::Busy(BusyReason::SessionWindow)));
        assert_eq!(
            write(&mut table, 2, id(session, MAX_SESSION_WINDOW, 1)),
            (true, stored(2))
        );
        assert_eq!(write(&mut table, 3, id(session, MAX_SESSION_WINDOW + 1, 1)), busy);
        assert_eq!(write(&mut table, 4, id(session, u64::MAX, 0)), busy);
        assert_eq!(
            write(&mut table, 5, id(session, MAX_SESSION_WINDOW + 1, 2)),
            (true, stored(5))
        );
        assert_eq!(
            write(&mut table, 6, id(session, u64::MAX, u64::MAX)),
            (true, stored(6))
        );
    }

    #[test]
    fn a_wrong_secret_is_no_session() {
        let mut table = SessionTable::new(10);
        let session = table.open(LogIndex(1), 42);
        let guessed = SessionId {
            secret: 43,
            ..session
        };
        assert_eq!(
            write(&mut table, 2, id(guessed, 1, 1)),
            (false, Err(KvError::SessionExpired))
        );
        let unknown = SessionId {
            opened_at: LogIndex(9),
            ..session
        };
        assert_eq!(
            write(&mut table, 3, id(unknown, 1, 1)),
            (false, Err(KvError::SessionExpired))
        );
        assert_eq!(table.by_last_use, BTreeMap::from([(LogIndex(1), LogIndex(1))]));
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let mut table = SessionTable::new(10);
        let session = table.open(LogIndex(1), 42);
        let refused = (false, Err(KvError::InvalidArgument(InvalidArgument::Sequence)));
        assert_eq!(write(&mut table, 2, id(session, 0, 0)), refused);
        assert_eq!(write(&mut table, 3, id(session, 1, 2)), refused);
    }

    #[test]
    fn past_the_cap_the_session_least_recently_used_in_log_order_ends() {
        let mut table = SessionTable::new(2);
        let first = table.open(LogIndex(1), 0);
        let second = table.open(LogIndex(2), 0);
        let _ = write(&mut table, 3, id(first, 1, 1));
        let third = table.open(LogIndex(4), 0);
        assert_eq!(table.len(), 2);
        assert_eq!(
            write(&mut table, 5, id(second, 1, 1)),
            (false, Err(KvError::SessionExpired))
        );
        assert_eq!(write(&mut table, 6, id(first, 2, 2)), (true, stored(6)));
        // A repeated write is a use as well: now the third is the oldest.
        assert_eq!(write(&mut table, 7, id(third, 1, 1)), (true, stored(7)));
        assert_eq!(write(&mut table, 8, id(first, 2, 2)), (false, stored(6)));
        table.open(LogIndex(9), 0);
        assert_eq!(
            write(&mut table, 10, id(third, 1, 1)),
            (false, Err(KvError::SessionExpired))
        );
    }

    #[test]
    fn a_session_comes_back_from_a_snapshot_where_it_is_new_and_there_is_room() {
        let session = |last_used| Session {
            secret: 42,
            last_used: LogIndex(last_used),
            lowest_outstanding: Sequence(1),
            answers: VecDeque::new(),
        };
        let mut table = SessionTable::new(2);
        assert!(table.restore(LogIndex(1), session(5)));
        assert!(!table.restore(LogIndex(1), session(6)), "it is there");
        assert!(!table.restore(LogIndex(2), session(5)), "that entry used another");
        assert!(table.restore(LogIndex(2), session(6)));
        assert!(!table.restore(LogIndex(3), session(7)), "the table is full");
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_frozen_table_does_not_see_later_writes() {
        let mut table = SessionTable::new(10);
        let session = table.open(LogIndex(1), 42);
        let _ = write(&mut table, 2, id(session, 1, 1));
        let frozen = table.freeze();
        let _ = write(&mut table, 3, id(session, 2, 2));
        table.open(LogIndex(4), 0);
        let [(opened_at, held)] = frozen.in_order()[..] else {
            panic!("one session")
        };
        assert_eq!((opened_at, held.last_used), (LogIndex(1), LogIndex(2)));
        assert_eq!(
            held.answers,
            [(Sequence(1), Ok(Outcome::Stored { version: LogIndex(2) }))]
        );
    }

    #[test]
    fn a_burst_gives_its_memory_back() {
        let mut table = SessionTable::new(10);
        let session = table.open(LogIndex(1), 42);
        for sequence in 1..=MAX_SESSION_WINDOW {
            let _ = write(&mut table, 1 + sequence, id(session, sequence, 1));
        }
        let _ = write(&mut table, 3_000, id(session, 1_025, 1_025));
        let frozen = table.freeze();
        assert!(frozen.in_order()[0].1.answers.capacity() <= 16);
    }

    #[test]
    fn room_is_given_back_where_it_is_much_and_three_quarters_are_empty() {
        let room = |capacity, left: u64| {
            let mut answers = VecDeque::with_capacity(capacity);
            let answer = Ok(Outcome::Deleted { existed: true });
            answers.extend((1..=left + 1).map(|sequence| (Sequence(sequence), answer)));
            let mut session = Session {
                secret: 42,
                last_used: LogIndex(1),
                lowest_outstanding: Sequence(1),
                answers,
            };
            session.forget_below(Sequence(2));
            session.answers.capacity()
        };
        assert_eq!(room(64, 15), 30);
        assert_eq!(room(64, 16), 64, "a quarter is in use");
        assert_eq!(room(16, 1), 16, "it is little");
    }

    #[test]
    fn sessions_spread_over_the_shards() {
        for step in [1, 2, 3, 255, 256, 1_000, 1_024, 4_096] {
            let mut counts = vec![0_u32; SHARDS];
            for opened in 1..=100_000_u64 {
                counts[shard_of(LogIndex(opened * step))] += 1;
            }
            let fullest = counts.iter().max().copied().unwrap();
            assert!(
                fullest <= 300,
                "a shard holds {fullest} sessions when each {step}th entry opens one"
            );
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open,
        Write {
            session: usize,
            sequence: u64,
            lowest: u64,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Open),
            6 => (0_usize..8, 0_u64..12, 0_u64..8)
                .prop_map(|(session, sequence, lowest)| Step::Write { session, sequence, lowest }),
        ]
    }

    /// The table told in the plainest way: every write that was ever executed, and a list in order of use.
    #[derive(Default)]
    struct Model {
        order: Vec<SessionId>,
        lowest: BTreeMap<SessionId, u64>,
        executed: BTreeMap<(SessionId, u64), u64>,
    }

    impl Model {
        fn open(&mut self, cap: usize, session: SessionId) {
            self.order.push(session);
            if self.order.len() > cap {
                self.order.remove(0);
            }
        }

        fn write(
            &mut self,
            index: u64,
            session: SessionId,
            sequence: u64,
            lowest: u64,
        ) -> Result<u64, KvError> {
            if sequence == 0 || lowest > sequence {
                return Err(KvError::InvalidArgument(InvalidArgument::Sequence));
            }
            let place = self
                .order
                .iter()
                .position(|open| *open == session)
                .ok_or(KvError::SessionExpired)?;
            self.order.remove(place);
            self.order.push(session);
            let forgotten = self.lowest.entry(session).or_default();
            *forgotten = lowest.max(*forgotten);
            if sequence < *forgotten {
                return Err(KvError::SequenceForgotten);
            }
            Ok(*self.executed.entry((session, sequence)).or_insert(index))
        }
    }

    proptest! {
        #[test]
        fn the_table_does_what_the_model_does(steps in proptest::collection::vec(step(), 0..200)) {
            let mut table = SessionTable::new(3);
            let mut model = Model::default();
            let mut sessions = Vec::new();
            for (step, index) in steps.into_iter().zip(1..) {
                match step {
                    Step::Open => {
                        let session = table.open(LogIndex(index), index * 31);
                        model.open(3, session);
                        sessions.push(session);
                    }
                    Step::Write { session, sequence, lowest } => {
                        let Some(session) = sessions.iter().rev().nth(session).copied() else { continue };
                        let (executed, result) = write(&mut table, index, id(session, sequence, lowest));
                        let expected = model.write(index, session, sequence, lowest);
                        prop_assert_eq!(executed, expected == Ok(index));
                        prop_assert_eq!(result, expected.and_then(stored));
                    }
                }
                let in_use_order: Vec<_> = table.by_last_use.values().copied().collect();
                let expected: Vec<_> = model.order.iter().map(|session| session.opened_at).collect();
                prop_assert_eq!(in_use_order, expected);
                prop_assert_eq!(table.freeze().in_order().len(), table.len());
            }
        }
    }
}

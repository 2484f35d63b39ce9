//! What a call does next, given what became of its last attempt.
//!
//! A call asks one server after another in *rounds*: within a round it tries each server at most once and
//! without waiting; when a round has found no server that did it, the call pauses (exponential backoff with
//! full jitter) and starts the next round. It ends with an answer, with an error that no retry can mend, or
//! when its time is up. All this is plain data and arithmetic: time is handed in, jitter comes from a seed.

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rpc::client::{InvalidArgument, KvError};

use crate::outcome::{Error, Reason};

/// The waits of a call.
///
/// ```
/// use clerk::retry::RetryPolicy;
/// use std::time::Duration;
///
/// let patient = RetryPolicy { try_timeout: Duration::from_secs(10), ..RetryPolicy::default() };
/// assert!(patient.longest_pause > patient.first_pause);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How long the first attempt waits for its answer. Each attempt that met silence doubles it, so that
    /// a cluster that is merely slow is not asked in vain for ever.
    pub try_timeout: Duration,
    /// The longest first pause between rounds. Each further pause may be twice as long.
    pub first_pause: Duration,
    /// The longest pause of all.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            try_timeout: Duration::from_secs(1),
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_millis(500),
        }
    }
}

/// Whether an attempt whose answer was lost can have changed anything.
///
/// ```
/// use clerk::retry::Effect;
/// assert_ne!(Effect::Read, Effect::Write);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It cannot (or, as with opening a session, the change concerns nobody).
    Read,
    /// It can: its outcome is in doubt until a definite answer comes.
    Write,
}

/// What became of one attempt, if not an answer that ends the call well.
///
/// ```
/// use clerk::{retry::Failure, Reason};
/// let failure = Failure::NotSent(Reason::NoTime);
/// assert!(matches!(failure, Failure::NotSent(_)));
/// ```
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nothing left this process.
    NotSent(Reason),
    /// The request was sent, or may have been, and no answer came.
    NoAnswer(Reason),
    /// A server answered with an error.
    Refused {
        /// Who answered.
        endpoint: String,
        /// Its answer.
        error: KvError,
    },
}

/// What to do next.
///
/// ```
/// use clerk::retry::Next;
/// use std::time::Duration;
/// assert_ne!(Next::TryAnother, Next::Pause(Duration::ZERO));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask a server not yet asked in this round, at once.
    TryAnother,
    /// Wait this long, then begin a new round.
    Pause(Duration),
    /// Open another session and begin anew with a new sequence number: no attempt can have taken effect.
    /// Wait this long before.
    NewSession(Duration),
    /// End the call.
    GiveUp(Error),
}

/// The state of one call from its first attempt to its end.
///
/// ```
/// use clerk::retry::{Call, Effect, Failure, Next, RetryPolicy};
/// use rpc::client::KvError;
/// use std::time::Duration;
///
/// let mut call = Call::new(Effect::Write, Duration::from_secs(5), RetryPolicy::default(), 1);
/// let moved = Failure::Refused { endpoint: "a:1".into(), error: KvError::NotLeader { leader: None } };
///
/// // Another server is left in this round: ask it. Else pause.
/// assert_eq!(call.after(Duration::ZERO, moved.clone(), true), Next::TryAnother);
/// assert!(matches!(call.after(Duration::ZERO, moved, false), Next::Pause(_)));
/// assert!(!call.in_doubt());
/// ```
#[derive(Debug)]
pub struct Call {
    effect: Effect,
    timeout: Duration,
    policy: RetryPolicy,
    seed: u64,
    in_doubt: bool,
    pauses: u32,
    silences: u32,
    last: Reason,
}

impl Call {
    /// A call that began just now and must end within `timeout`.
    #[must_use]
    pub fn new(effect: Effect, timeout: Duration, policy: RetryPolicy, seed: u64) -> Self {
        Self {
            effect,
            timeout,
            policy,
            seed,
            in_doubt: false,
            pauses: 0,
            silences: 0,
            last: Reason::NoTime,
        }
    }

    /// Whether an earlier attempt may have taken effect.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// How long the call may still take; zero when its time is up.
    #[must_use]
    pub fn remaining(&self, elapsed: Duration) -> Duration {
        self.timeout.saturating_sub(elapsed)
    }

    /// How long an attempt that begins now may wait for its answer; zero when the time is up.
    #[must_use]
    pub fn try_timeout(&self, elapsed: Duration) -> Duration {
        let patience = self.policy.try_timeout.saturating_mul(1 << self.silences.min(16));
        patience.min(self.remaining(elapsed))
    }

    /// Decides, `elapsed` after the call began, what follows a failed attempt. `another_left`: whether this
    /// round has a server that was not asked yet.
    pub fn after(&mut self, elapsed: Duration, failure: Failure, another_left: bool) -> Next {
        match failure {
            Failure::NotSent(reason) => self.go_on(elapsed, reason, another_left),
            Failure::NoAnswer(reason) => {
                self.silences += u32::from(matches!(reason, Reason::Silent { .. }));
                self.in_doubt |= self.effect == Effect::Write;
                self.go_on(elapsed, reason, another_left)
            }
            Failure::Refused { endpoint, error } => {
                self.after_refusal(elapsed, endpoint, error, another_left)
            }
        }
    }

    /// How the call ends when its time is up, or when it cannot go on for `reason`.
    #[must_use]
    pub fn give_up(&self, elapsed: Duration, reason: Reason) -> Error {
        let after = whole_milliseconds(elapsed.min(self.timeout));
        if self.in_doubt {
            Error::OutcomeUnknown { after, reason }
        } else {
            Error::NotDone { after, reason }
        }
    }

    /// How the call ends when its time is up.
    #[must_use]
    pub fn time_is_up(&self, elapsed: Duration) -> Error {
        self.give_up(elapsed, self.last.clone())
    }

    fn after_refusal(&mut self, elapsed: Duration, endpoint: String, error: KvError, another: bool) -> Next {
        let verdict = Verdict::of(&error);
        let reason = Reason::Refused { endpoint, error };
        match verdict {
            Verdict::AskAnother => self.go_on(elapsed, reason, another),
            Verdict::Doubtful => {
                self.in_doubt |= self.effect == Effect::Write;
                self.go_on(elapsed, reason, another)
            }
            Verdict::Pause => self.go_on(elapsed, reason, false),
            Verdict::Nonsense => Next::GiveUp(self.give_up(elapsed, reason)),
            Verdict::Never(argument) => Next::GiveUp(argument.into()),
            Verdict::SessionEnded if self.in_doubt => Next::GiveUp(Error::SessionExpired),
            Verdict::SessionEnded => self.new_session(elapsed, reason),
        }
    }

    /// The first new session is opened at once. More of them show a cluster that ends sessions as fast as they
    /// are opened, which haste makes worse.
    fn new_session(&mut self, elapsed: Duration, reason: Reason) -> Next {
        match self.go_on(elapsed, reason, false) {
            Next::Pause(_) if self.pauses <= 1 => Next::NewSession(Duration::ZERO),
            Next::Pause(pause) => Next::NewSession(pause),
            other => other,
        }
    }

    fn go_on(&mut self, elapsed: Duration, reason: Reason, another_left: bool) -> Next {
        // A server that answered says more of why nothing was done than one that is away.
        if reason.replaces(&self.last) {
            self.last = reason;
        }
        if self.remaining(elapsed).is_zero() {
            return Next::GiveUp(self.time_is_up(elapsed));
        }
        if another_left {
            return Next::TryAnother;
        }
        let pause = self.next_pause();
        if pause >= self.remaining(elapsed) {
            return Next::GiveUp(self.time_is_up(elapsed));
        }
        Next::Pause(pause)
    }

    /// Full jitter: anything from nothing to the exponential bound, so that many clients that were refused
    /// together do not come back together.
    fn next_pause(&mut self) -> Duration {
        let bound = self.policy.first_pause.saturating_mul(1 << self.pauses.min(16));
        let bound = bound.min(self.policy.longest_pause);
        // One generator a pause keeps a call that never fails free of random numbers.
        let mut jitter =
            Xoshiro256PlusPlus::seed_from_u64(self.seed ^ u64::from(self.pauses).rotate_left(32));
        self.pauses += 1;
        bound.mul_f64(jitter.random_range(0.0..=1.0))
    }
}

/// Finer than milliseconds is nothing that a reader of the message can use.
pub(crate) fn whole_milliseconds(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// What a server's error means for the call.
enum Verdict {
    /// Not done here; perhaps elsewhere.
    AskAnother,
    /// Done or not.
    Doubtful,
    /// Not done; perhaps later.
    Pause,
    /// Not done and never will be. This holds for earlier attempts too: one that took effect would have left
    /// its answer, and this attempt would have got that instead.
    Never(InvalidArgument),
    /// Not done by this attempt; nothing is said of earlier ones.
    SessionEnded,
    /// Not done by this attempt, for a reason that the clerk never gives.
    Nonsense,
}

impl Verdict {
    fn of(error: &KvError) -> Self {
        match error {
            KvError::NotLeader { .. } | KvError::ShuttingDown => Self::AskAnother,
            KvError::Busy(_) => Self::Pause,
            KvError::InvalidArgument(InvalidArgument::Sequence) | KvError::SequenceForgotten => {
                Self::Nonsense
            }
            KvError::InvalidArgument(argument) => Self::Never(*argument),
            KvError::SessionExpired => Self::SessionEnded,
            KvError::OutcomeUnknown => Self::Doubtful,
        }
    }
}

#[cfg(test)]
mod tests {
    use rpc::client::BusyReason;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn call(effect: Effect) -> Call {
        Call::new(effect, 5 * SECOND, RetryPolicy::default(), 7)
    }

    fn refused(error: KvError) -> Failure {
        Failure::Refused {
            endpoint: "n1:1".into(),
            error,
        }
    }

    fn silence() -> Failure {
        Failure::NoAnswer(Reason::Silent {
            endpoint: "n1:1".into(),
            waited: SECOND,
        })
    }

    fn unreachable() -> Failure {
        Failure::NotSent(Reason::Unreachable {
            endpoint: "n1:1".into(),
            problem: "n1:1 refused".into(),
        })
    }

    #[test]
    fn answers_that_say_not_executed_leave_no_doubt() {
        for error in [
            KvError::NotLeader { leader: None },
            KvError::ShuttingDown,
            KvError::Busy(BusyReason::RequestsInFlight),
        ] {
            let mut call = call(Effect::Write);
            call.after(Duration::ZERO, refused(error), false);
            assert!(matches!(call.time_is_up(5 * SECOND), Error::NotDone { .. }));
        }
    }

    #[test]
    fn silence_lost_connections_and_lost_leadership_leave_a_write_in_doubt() {
        let lost = Failure::NoAnswer(Reason::ConnectionLost {
            endpoint: "n1:1".into(),
            problem: "reset".into(),
        });
        for failure in [silence(), lost, refused(KvError::OutcomeUnknown)] {
            let mut call = call(Effect::Write);
            assert_eq!(call.after(Duration::ZERO, failure, true), Next::TryAnother);
            assert!(matches!(
                call.time_is_up(5 * SECOND),
                Error::OutcomeUnknown { .. }
            ));
        }
    }

    #[test]
    fn a_doubt_is_not_lifted_by_a_later_refusal() {
        let mut call = call(Effect::Write);
        call.after(Duration::ZERO, silence(), true);
        call.after(SECOND, refused(KvError::NotLeader { leader: None }), true);
        call.after(SECOND, unreachable(), true);
        assert!(matches!(
            call.time_is_up(5 * SECOND),
            Error::OutcomeUnknown { .. }
        ));
    }

    #[test]
    fn a_read_is_never_in_doubt() {
        let mut call = call(Effect::Read);
        call.after(Duration::ZERO, silence(), true);
        call.after(SECOND, refused(KvError::OutcomeUnknown), true);
        assert!(matches!(call.time_is_up(5 * SECOND), Error::NotDone { .. }));
    }

    #[test]
    fn a_busy_server_is_given_a_pause_even_if_others_are_left() {
        let mut call = call(Effect::Write);
        let next = call.after(
            Duration::ZERO,
            refused(KvError::Busy(BusyReason::NewLeader)),
            true,
        );
        assert!(matches!(next, Next::Pause(_)));
    }

    #[test]
    fn an_expired_session_is_replaced_only_while_no_attempt_can_have_taken_effect() {
        let mut certain = call(Effect::Write);
        certain.after(Duration::ZERO, refused(KvError::NotLeader { leader: None }), true);
        let next = certain.after(Duration::ZERO, refused(KvError::SessionExpired), true);
        assert_eq!(next, Next::NewSession(Duration::ZERO));

        let mut doubtful = call(Effect::Write);
        doubtful.after(Duration::ZERO, silence(), true);
        let next = doubtful.after(SECOND, refused(KvError::SessionExpired), true);
        assert_eq!(next, Next::GiveUp(Error::SessionExpired));
    }

    #[test]
    fn sessions_that_expire_again_and_again_are_opened_at_the_pace_of_the_backoff() {
        let mut call = call(Effect::Write);
        let mut waited = Duration::ZERO;
        for _ in 0..8 {
            match call.after(Duration::ZERO, refused(KvError::SessionExpired), true) {
                Next::NewSession(delay) => waited += delay,
                other => panic!("expected a new session, got {other:?}"),
            }
        }
        assert!(waited > Duration::ZERO);
    }

    #[test]
    fn a_refused_argument_ends_the_call_at_once() {
        let too_long = InvalidArgument::ValueTooLong { len: 2_000_000 };
        let next = call(Effect::Write).after(SECOND, refused(KvError::InvalidArgument(too_long)), true);
        assert_eq!(next, Next::GiveUp(too_long.into()));
    }

    #[test]
    fn a_forgotten_sequence_number_is_unknown_after_a_doubt_and_not_done_without() {
        let mut certain = call(Effect::Write);
        let next = certain.after(SECOND, refused(KvError::SequenceForgotten), true);
        assert!(matches!(next, Next::GiveUp(Error::NotDone { .. })));

        let mut doubtful = call(Effect::Write);
        doubtful.after(SECOND, silence(), true);
        let next = doubtful.after(SECOND, refused(KvError::SequenceForgotten), true);
        assert!(matches!(next, Next::GiveUp(Error::OutcomeUnknown { .. })));
    }

    #[test]
    fn pauses_grow_stay_within_their_bound_and_never_pass_the_deadline() {
        let mut call = call(Effect::Read);
        let policy = RetryPolicy::default();
        for round in 0..40_u32 {
            let bound = policy
                .first_pause
                .saturating_mul(1 << round.min(16))
                .min(policy.longest_pause);
            match call.after(Duration::ZERO, unreachable(), false) {
                Next::Pause(pause) => assert!(pause <= bound, "round {round}: {pause:?} > {bound:?}"),
                other => panic!("expected a pause, got {other:?}"),
            }
        }
        let next = call.after(5 * SECOND, unreachable(), true);
        assert!(matches!(next, Next::GiveUp(Error::NotDone { .. })));
    }

    #[test]
    fn the_same_seed_pauses_alike_and_another_seed_differs() {
        let pauses = |seed| {
            let mut call = Call::new(Effect::Read, 5 * SECOND, RetryPolicy::default(), seed);
            (0..10)
                .map(|_| call.after(Duration::ZERO, unreachable(), false))
                .collect::<Vec<_>>()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }

    #[test]
    fn silence_doubles_the_patience_of_the_next_attempt_within_the_deadline() {
        let mut call = call(Effect::Write);
        assert_eq!(call.try_timeout(Duration::ZERO), SECOND);
        call.after(SECOND, silence(), true);
        assert_eq!(call.try_timeout(SECOND), 2 * SECOND);
        call.after(3 * SECOND, silence(), true);
        assert_eq!(call.try_timeout(3 * SECOND), 2 * SECOND);
        assert_eq!(call.try_timeout(9 * SECOND), Duration::ZERO);
    }

    #[test]
    fn that_the_leader_takes_no_more_connections_is_told_and_not_that_others_do_not_lead() {
        let not_leader = |leader: Option<&str>| {
            let leader = leader.map(|client_addr| rpc::client::Member {
                id: raft_core::NodeId(2),
                client_addr: client_addr.into(),
            });
            refused(KvError::NotLeader { leader })
        };
        let full = || {
            Failure::NotSent(Reason::TooManyConnections {
                endpoint: "n2:1".into(),
                problem: "n2:1 has too many connections".into(),
            })
        };
        let told = |failures: [Failure; 3]| {
            let mut call = call(Effect::Read);
            for failure in failures {
                call.after(Duration::ZERO, failure, true);
            }
            call.time_is_up(SECOND).to_string()
        };
        let told_full = "not done within 1s: n2:1 has too many connections";
        let names = || not_leader(Some("n2:1"));
        assert_eq!(told([names(), full(), names()]), told_full);
        assert_eq!(told([not_leader(None), unreachable(), full()]), told_full);
        let without_leader = told([full(), names(), not_leader(None)]);
        assert!(without_leader.contains("not the leader"), "{without_leader}");
        let silent = told([full(), names(), silence()]);
        assert!(silent.contains("gave no answer"), "{silent}");
    }

    #[test]
    fn the_error_tells_what_the_last_attempt_met() {
        let mut call = call(Effect::Read);
        call.after(Duration::ZERO, unreachable(), true);
        let message = call.time_is_up(6 * SECOND).to_string();
        assert_eq!(message, "not done within 5s: n1:1 refused");
        let at_once = call.time_is_up(Duration::from_micros(300)).to_string();
        assert_eq!(at_once, "not done: n1:1 refused");
    }
}

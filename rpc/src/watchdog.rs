//! Notices connections that hold resources and do nothing with them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::ServerLimits;

/// Watches one connection, with one timer that is set again only when it must ring earlier or has rung.
#[derive(Debug)]
pub(crate) struct Watchdog {
    idle_timeout: Option<Duration>,
    frame_timeout: Duration,
    write_stall_timeout: Duration,
    last_request: Instant,
    last_sent: Instant,
    sent_bytes: u64,
    timer: Pin<Box<Sleep>>,
}

/// What a connection looks like at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation {
    /// Whether a request is in flight, or one arrived or was answered since the last observation.
    pub(crate) requests: bool,
    /// When the frame that is here in part began to arrive.
    pub(crate) frame_began: Option<Instant>,
    /// Whether bytes wait for the caller to take them.
    pub(crate) has_unsent: bool,
    /// How many bytes the caller has taken.
    pub(crate) sent_bytes: u64,
}

/// What a caller did not do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Neglect {
    /// Send a request.
    Request,
    /// Finish a frame that it began.
    Frame,
    /// Take its answers.
    Answers,
}

impl Neglect {
    /// For the log.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Request => "the connection was idle for too long",
            Self::Frame => "a frame was begun and not finished in time",
            Self::Answers => "the caller does not take its answers",
        }
    }
}

impl Watchdog {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        let now = Instant::now();
        Self {
            idle_timeout: limits.idle_timeout,
            frame_timeout: limits.frame_timeout,
            write_stall_timeout: limits.write_stall_timeout,
            last_request: now,
            last_sent: now,
            sent_bytes: 0,
            // Rings at once and is then set to what is needed.
            timer: Box::pin(sleep_until(now)),
        }
    }

    /// Ready when the caller has run out of time; otherwise arranges to be polled in time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, seen: Observation) -> Poll<Neglect> {
        let now = Instant::now();
        if seen.requests {
            self.last_request = now;
        }
        if !seen.has_unsent || seen.sent_bytes != self.sent_bytes {
            self.sent_bytes = seen.sent_bytes;
            self.last_sent = now;
        }
        match self.next_deadline(seen) {
            Some((deadline, neglect)) if deadline <= now => Poll::Ready(neglect),
            Some((deadline, _)) => {
                self.wake_by(cx, deadline);
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }

    fn next_deadline(&self, seen: Observation) -> Option<(Instant, Neglect)> {
        // A timeout too long for the clock is none.
        let idle = self
            .idle_timeout
            .and_then(|timeout| self.last_request.checked_add(timeout));
        let frame = seen
            .frame_began
            .and_then(|began| began.checked_add(self.frame_timeout));
        let answers = seen
            .has_unsent
            .then(|| self.last_sent.checked_add(self.write_stall_timeout))
            .flatten();
        [
            (idle, Neglect::Request),
            (frame, Neglect::Frame),
            (answers, Neglect::Answers),
        ]
        .into_iter()
        .filter_map(|(deadline, neglect)| Some((deadline?, neglect)))
        .min_by_key(|(deadline, _)| *deadline)
    }

    /// Sees to it that the task is woken at `deadline`, or earlier: then the next poll sets the timer anew.
    fn wake_by(&mut self, cx: &mut Context<'_>, deadline: Instant) {
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            self.timer.as_mut().reset(deadline);
        }
    }
}

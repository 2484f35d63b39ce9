//! The open session of a clerk and the tickets under which its writes run.

use std::sync::{Arc, Mutex};

use rpc::client::{Sequence, SessionId, WriteId};
use tokio::sync::Notify;

use crate::lock::lock;
use crate::session::SessionBook;

/// A session that its writes share.
#[derive(Debug)]
pub(crate) struct Session {
    book: Mutex<SessionBook>,
    /// Told when the window has moved.
    room: Notify,
}

impl Session {
    pub(crate) fn new(id: SessionId) -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::new(SessionBook::new(id)),
            room: Notify::new(),
        })
    }

    /// Takes a sequence number, if the servers' window has room for it now.
    pub(crate) fn try_ticket(self: &Arc<Self>) -> Option<Ticket> {
        let sequence = lock(&self.book).begin()?;
        Some(Ticket {
            session: Arc::clone(self),
            sequence,
        })
    }

    /// Takes a sequence number, waiting while the servers' window has no room for it.
    pub(crate) async fn ticket(self: Arc<Self>) -> Ticket {
        loop {
            // Created before the look at the book, so that no notice falls in between.
            let room = self.room.notified();
            if let Some(ticket) = self.try_ticket() {
                return ticket;
            }
            room.await;
        }
    }
}

/// The right to send one write. While it lives, the servers keep the write's answer; however the call ends
/// (an answer, an error, its future dropped), it is given back.
#[derive(Debug)]
pub(crate) struct Ticket {
    session: Arc<Session>,
    sequence: Sequence,
}

impl Ticket {
    /// How the next attempt names the write.
    pub(crate) fn write_id(&self) -> WriteId {
        lock(&self.session.book).write_id(self.sequence)
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if lock(&self.session.book).finish(self.sequence) {
            self.session.room.notify_waiters();
        }
    }
}

/// The clerk's current session, opened when the first write needs it.
#[derive(Debug, Default)]
pub(crate) struct CurrentSession {
    session: Mutex<Option<Arc<Session>>>,
    /// Held while one call opens a session for all.
    pub(crate) opening: tokio::sync::Mutex<()>,
}

impl CurrentSession {
    pub(crate) fn get(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone()
    }

    pub(crate) fn set(&self, session: Arc<Session>) {
        *lock(&self.session) = Some(session);
    }

    /// Forgets `ended`, unless another call has replaced it already.
    pub(crate) fn forget(&self, ended: &Arc<Session>) {
        let mut current = lock(&self.session);
        if current
            .as_ref()
            .is_some_and(|session| Arc::ptr_eq(session, ended))
        {
            *current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::SESSION_WINDOW;

    fn session() -> Arc<Session> {
        Session::new(SessionId {
            opened_at: 1.into(),
            secret: 2,
        })
    }

    /// What must come, and would hang the test if it did not.
    async fn soon<T>(future: impl Future<Output = T>) -> T {
        let outcome = tokio::time::timeout(Duration::from_secs(20), future).await;
        outcome.expect("it came to nothing within 20 s")
    }

    #[tokio::test]
    async fn a_dropped_ticket_is_not_outstanding_any_more() {
        let session = session();
        let first = Arc::clone(&session).ticket().await;
        let second = Arc::clone(&session).ticket().await;
        assert_eq!(second.write_id().lowest_outstanding, first.write_id().sequence);
        drop(first);
        assert_eq!(second.write_id().lowest_outstanding, second.write_id().sequence);
    }

    #[tokio::test]
    async fn a_full_window_makes_writes_wait_and_not_fail() {
        let session = session();
        let stuck = Arc::clone(&session).ticket().await;
        for _ in 1..SESSION_WINDOW {
            drop(soon(Arc::clone(&session).ticket()).await);
        }
        let mut waiting = tokio::spawn(Arc::clone(&session).ticket());
        let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
        assert!(early.is_err(), "a ticket beyond the window was given");
        drop(stuck);
        assert_eq!(
            soon(waiting).await.unwrap().write_id().sequence,
            Sequence(SESSION_WINDOW + 1)
        );
    }

    #[test]
    fn forgetting_a_session_leaves_its_successor_alone() {
        let current = CurrentSession::default();
        let (old, new) = (session(), session());
        current.set(Arc::clone(&new));
        current.forget(&old);
        assert!(current.get().is_some_and(|session| Arc::ptr_eq(&session, &new)));
        current.forget(&new);
        assert!(current.get().is_none());
    }
}

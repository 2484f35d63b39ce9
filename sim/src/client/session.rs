//! The session of a program, which its clients use at the same time, and who of them is at which write.

use std::cell::RefCell;
use std::rc::Rc;

use clerk::session::SessionBook;
use rpc::client::{Sequence, SessionId, WriteId};

type Session = Rc<RefCell<SessionBook>>;

/// What the clients of a program have in common: the session that is open, if one is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    session: Rc<RefCell<Option<Session>>>,
}

impl Program {
    /// Whether no older write of another client is in the way of one more.
    pub(super) fn has_room(&self) -> bool {
        self.session
            .borrow()
            .as_ref()
            .is_none_or(|session| session.borrow().has_room())
    }

    /// A number for a write; none if a session has to be opened first.
    ///
    /// # Panics
    ///
    /// Without [room](Self::has_room).
    pub(super) fn begin_write(&self) -> Option<NumberedWrite> {
        let session = self.session.borrow().clone()?;
        let begun = session.borrow_mut().begin();
        let sequence = begun.expect("who finds no room begins no write");
        Some(NumberedWrite { session, sequence })
    }

    /// A session was opened. If another client of the program was quicker, its session is as good.
    pub(super) fn opened(&self, session: SessionId) {
        let mut own = self.session.borrow_mut();
        own.get_or_insert_with(|| Rc::new(RefCell::new(SessionBook::new(session))));
    }

    /// The session of `write` is over. Nothing new begins in it.
    pub(super) fn ended(&self, write: &NumberedWrite) {
        let mut own = self.session.borrow_mut();
        if own.as_ref().is_some_and(|own| Rc::ptr_eq(own, &write.session)) {
            *own = None;
        }
    }
}

/// A write that awaits its answer. It stays one of the session in which it began.
#[derive(Debug)]
pub(super) struct NumberedWrite {
    session: Session,
    sequence: Sequence,
}

impl NumberedWrite {
    /// How an attempt names itself now.
    pub(super) fn id(&self) -> WriteId {
        self.session.borrow().write_id(self.sequence)
    }

    /// A name that no attempt of it must have: that of another write.
    pub(super) fn id_of_another(&self) -> WriteId {
        let mut book = self.session.borrow_mut();
        let other = book.begin().unwrap_or(self.sequence);
        let id = book.write_id(other);
        if other != self.sequence {
            book.finish(other);
        }
        id
    }

    /// Whether an attempt that is still under way could take effect behind what is sent now: not once all older writes
    /// have ended, as the servers refuse it from then on.
    pub(super) fn may_come_late(&self) -> bool {
        self.session.borrow().lowest_outstanding() <= self.sequence
    }

    /// Nobody waits for its answer any more.
    pub(super) fn finish(&self) {
        self.session.borrow_mut().finish(self.sequence);
    }
}

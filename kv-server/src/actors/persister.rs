//! Owns the storage, on a thread of its own: the only place that waits for a disk.

use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, Message, Recipient};
use raft_core::Storage;
use storage::{SnapshotStore, StorageError};

use super::FatalOnPanic;
use crate::driver::PersistJob;
use crate::group_commit::{Committed, GroupCommit};
use crate::shutdown::StopSender;

/// Makes jobs durable, all that wait at once (the notes' `persist()`).
pub(crate) struct Persister<S> {
    storage: Option<S>,
    snapshots: Arc<dyn SnapshotStore>,
    queue: GroupCommit,
    node: Recipient<Persisted>,
    stop: StopSender,
    commit_scheduled: bool,
    _fatal: FatalOnPanic,
}

/// A job from the node.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Persist(pub(crate) PersistJob);

/// Jobs are durable.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Persisted(pub(crate) Committed);

/// Commit what waits. Handled behind everything that is in the mailbox already: that is the group.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct CommitQueued;

/// Commit what waits, close the storage, and answer when that is done.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

impl<S: Storage<Error = StorageError> + Send + Unpin + 'static> Persister<S> {
    /// A persister of `storage` that reports to `node`.
    #[must_use]
    pub(crate) fn new(
        storage: S,
        snapshots: Arc<dyn SnapshotStore>,
        node: Recipient<Persisted>,
        stop: StopSender,
    ) -> Self {
        Self {
            storage: Some(storage),
            snapshots,
            queue: GroupCommit::default(),
            node,
            stop,
            commit_scheduled: false,
            _fatal: FatalOnPanic::of("the persister"),
        }
    }

    fn commit(&mut self) {
        let Some(storage) = self.storage.as_mut() else {
            return;
        };
        match self.queue.commit(storage, self.snapshots.as_ref()) {
            Ok(Some(committed)) => self.node.do_send(Persisted(committed)),
            Ok(None) => {}
            Err(error) => {
                // Nothing is acknowledged any more: the store is given up and the node stops.
                self.storage = None;
                self.stop.storage_failed(error);
            }
        }
    }
}

impl<S: Unpin + 'static> Actor for Persister<S> {
    type Context = Context<Self>;
}

impl<S: Storage<Error = StorageError> + Send + Unpin + 'static> Handler<Persist> for Persister<S> {
    type Result = ();

    fn handle(&mut self, Persist(job): Persist, ctx: &mut Self::Context) {
        self.queue.push(job);
        if !self.commit_scheduled {
            self.commit_scheduled = true;
            ctx.notify(CommitQueued);
        }
    }
}

impl<S: Storage<Error = StorageError> + Send + Unpin + 'static> Handler<CommitQueued> for Persister<S> {
    type Result = ();

    fn handle(&mut self, _: CommitQueued, _: &mut Self::Context) {
        self.commit_scheduled = false;
        self.commit();
    }
}

impl<S: Storage<Error = StorageError> + Send + Unpin + 'static> Handler<Stop> for Persister<S> {
    type Result = ();

    fn handle(&mut self, _: Stop, _: &mut Self::Context) {
        self.commit();
        self.storage = None;
    }
}

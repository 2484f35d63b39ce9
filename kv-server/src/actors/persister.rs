//! Owns the storage, on a thread of its own: the only place that waits for a disk.

use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, Message, Recipient};
use raft_core::{Entry, LogRead, Storage};
use storage::{SnapshotStore, StorageError};

use super::FatalOnPanic;
use crate::data_files::DataFiles;
use crate::disk_room::DiskSpace;
use crate::disk_watch::CommitClock;
use crate::driver::PersistJob;
use crate::group_commit::{Committed, GroupCommit};
use crate::shutdown::StopSender;

/// Makes jobs durable, all that wait at once (the notes' `persist()`).
pub(crate) struct Persister<S> {
    storage: Option<S>,
    snapshots: Arc<dyn SnapshotStore>,
    queue: GroupCommit,
    node: Recipient<Persisted>,
    readers: Recipient<LogWasRead>,
    stop: StopSender,
    disk: WatchedDisk,
    commit_scheduled: bool,
    _fatal: FatalOnPanic,
}

/// What is known of the disk, and shared with those who watch it.
#[derive(Debug)]
pub(crate) struct WatchedDisk {
    /// Runs while the disk is at work.
    pub(crate) clock: Arc<CommitClock>,
    /// What the storage works on.
    pub(crate) files: Arc<DataFiles>,
    /// How much room it has.
    pub(crate) space: Arc<DiskSpace>,
}

/// A job from the node.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Persist(pub(crate) PersistJob);

/// Jobs are durable.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Persisted(pub(crate) Committed);

/// Entries that the node wants back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ReadLog(pub(crate) LogRead);

/// They were read.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct LogWasRead(pub(crate) LogRead, pub(crate) Vec<Entry>);

/// Entries cannot be read.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct ReadFailed(StorageError);

/// Commit what waits. Handled behind everything that is in the mailbox already: that is the group.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct CommitQueued;

/// Commit what waits, close the storage, and answer when that is done.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

impl<S: Storage<Error = StorageError> + Send + Unpin + 'static> Persister<S> {
    /// A persister of `storage` on `disk` that reports to `node`, and to `readers` what was read.
    #[must_use]
    pub(crate) fn new(
        storage: S,
        snapshots: Arc<dyn SnapshotStore>,
        node: Recipient<Persisted>,
        readers: Recipient<LogWasRead>,
        stop: StopSender,
        disk: WatchedDisk,
    ) -> Self {
        Self {
            storage: Some(storage),
            snapshots,
            queue: GroupCommit::default(),
            node,
            readers,
            stop,
            disk,
            commit_scheduled: false,
            _fatal: FatalOnPanic::of("the persister"),
        }
    }

    fn commit(&mut self) {
        while !self.queue.is_empty()
            && let Some(storage) = self.storage.as_mut()
        {
            let working = self.disk.clock.start();
            let committed = self.queue.commit(storage, self.snapshots.as_ref());
            let in_place = self.disk.files.are_still_in_place();
            drop(working);
            match committed {
                // It went into files without a name, or failed because they are gone. The watch tells and stops the
                // node.
                _ if !in_place => self.storage = None,
                Ok(Some(committed)) => {
                    if committed.lacked_room {
                        // Before the node lets the sender go on.
                        self.disk.space.snapshot_lacked_room();
                    }
                    self.node.do_send(Persisted(committed));
                }
                Ok(None) => {}
                Err(error) => self.give_up(error),
            }
        }
    }

    /// Nothing is acknowledged any more: the node stops.
    fn give_up(&mut self, error: StorageError) {
        self.storage = None;
        self.stop.storage_failed(error);
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

/// Waits for no disk: nothing else is held up.
impl<S: Storage<Error = StorageError> + Send + Unpin + 'static> Handler<ReadLog> for Persister<S> {
    type Result = ();

    fn handle(&mut self, ReadLog(read): ReadLog, ctx: &mut Self::Context) {
        let Some(storage) = self.storage.as_mut() else {
            return;
        };
        let (readers, persister) = (self.readers.clone(), ctx.address());
        let reply = move |entries| match entries {
            Ok(entries) => readers.do_send(LogWasRead(read, entries)),
            Err(error) => persister.do_send(ReadFailed(error)),
        };
        storage.read(&read, Box::new(reply));
    }
}

impl<S: Storage<Error = StorageError> + Send + Unpin + 'static> Handler<ReadFailed> for Persister<S> {
    type Result = ();

    fn handle(&mut self, ReadFailed(error): ReadFailed, _: &mut Self::Context) {
        self.give_up(error);
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::mpsc::{self, Receiver};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use actix::{Actor, Arbiter, Context, Handler};
    use raft_core::{HardState, LogRead, LogReadReply, NodeId, ReadyNumber, Restored, Storage, Term, Write};
    use storage::{MemorySnapshots, StorageError};

    use super::{LogWasRead, Persist, Persisted, Persister, WatchedDisk};
    use crate::disk_room::DiskSpace;
    use crate::disk_watch::{CommitClock, watch_stalls};
    use crate::driver::PersistJob;
    use crate::shutdown::{Fatal, stop_channel};

    /// A disk whose writes come back when it is told to let go.
    struct StuckDisk(Mutex<Receiver<()>>);

    impl Storage for StuckDisk {
        type Error = StorageError;

        fn restore(&mut self) -> Result<Restored, StorageError> {
            Ok(Restored::default())
        }

        fn write(&mut self, _: &[Write]) -> Result<(), StorageError> {
            let _ = self.0.lock().unwrap().recv();
            Ok(())
        }

        fn read(&mut self, _: &LogRead, reply: LogReadReply<StorageError>) {
            reply(Ok(Vec::new()));
        }
    }

    struct Deaf;

    impl Actor for Deaf {
        type Context = Context<Self>;
    }

    impl Handler<Persisted> for Deaf {
        type Result = ();

        fn handle(&mut self, _: Persisted, _: &mut Self::Context) {}
    }

    impl Handler<LogWasRead> for Deaf {
        type Result = ();

        fn handle(&mut self, _: LogWasRead, _: &mut Self::Context) {}
    }

    #[test]
    fn a_disk_that_does_not_come_back_stops_the_node_with_its_path_and_the_time() {
        actix_rt::System::new().block_on(async {
            let (let_go, held) = mpsc::channel();
            let (stop, mut reasons) = stop_channel();
            let clock = Arc::new(CommitClock::default());
            let node = Deaf.start();
            let persister = Persister::new(
                StuckDisk(Mutex::new(held)),
                Arc::new(MemorySnapshots::default()),
                node.clone().recipient(),
                node.recipient(),
                stop.clone(),
                WatchedDisk {
                    clock: Arc::clone(&clock),
                    files: Arc::default(),
                    space: Arc::new(DiskSpace::new(0)),
                },
            );
            let thread = Arbiter::new();
            let persister = Persister::start_in_arbiter(&thread.handle(), |_| persister);
            let (dir, timeout) = (PathBuf::from("data/node-1"), Duration::from_millis(50));
            let watch = watch_stalls(dir, clock, timeout, stop).unwrap();
            persister.do_send(Persist(PersistJob {
                number: ReadyNumber::default(),
                chunks: Vec::new(),
                writes: vec![Write::HardState(HardState {
                    current_term: Term(1),
                    voted_for: Some(NodeId(1)),
                    ..HardState::default()
                })],
            }));
            let reason = reasons.reason().await;
            let Fatal::Stalled { path, waited } = &reason else {
                panic!("stopped for another reason: {reason}")
            };
            assert_eq!(path, &PathBuf::from("data/node-1"));
            assert!(*waited >= timeout, "{waited:?}");
            assert!(reason.to_string().contains("data/node-1"), "{reason}");
            // The disk comes back: the watch goes before it would end the process.
            drop(watch);
            let_go.send(()).unwrap();
            thread.stop();
            thread.join().unwrap();
        });
    }
}

//! Why a server stops, and how the reason reaches the place that stops it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use storage::StorageError;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::apply_loop::SnapshotError;
use crate::data_files::FilesLost;
use crate::not_taken::NotTaken;
use crate::state_machine::StateError;

/// What a server cannot go on after. It stops in order; what it acknowledged is on disk.
#[derive(Debug, Error)]
pub(crate) enum Fatal {
    /// The disk failed. Nothing was acknowledged after that.
    #[error("the storage failed, so the node stops: {0}")]
    Storage(StorageError),
    /// The disk does not come back.
    #[error(
        "the disk of {} has not finished a write after {} s, so the node stops: a node that cannot write cannot \
         acknowledge anything. Check the disk and start the node again, or raise storage.stall_timeout_ms if \
         the disk is merely slow",
        path.display(),
        waited.as_secs()
    )]
    Stalled {
        /// The data directory.
        path: PathBuf,
        /// How long the write has taken so far.
        waited: Duration,
    },
    /// Files of the data directory are not there any more. Nothing was acknowledged after that was noticed.
    #[error(transparent)]
    FilesLost(FilesLost),
    /// The state machine cannot go on.
    #[error("the state machine cannot go on, so the node stops: {0}")]
    State(StateError),
    /// A snapshot cannot be written or read.
    #[error("a snapshot failed, so the node stops: {0}")]
    Snapshot(SnapshotError),
    /// The file of the snapshot was removed while the node ran, and no other was in its place when it was told to stop.
    #[error(
        "the snapshot file {} was removed while the node ran, and there was no time to write another one before it was \
         to stop, or no room. The log that it replaced is gone, and with it what this node knows. Put the file back, \
         or empty the data directory and start the node with --join",
        .0.display()
    )]
    SnapshotRemoved(PathBuf),
    /// The cluster does not take this node. It has acknowledged nothing that counts.
    #[error(transparent)]
    Refused(NotTaken),
    /// The operating system gave no thread.
    #[error("a thread could not be started, so the node stops: {0}")]
    Thread(io::Error),
}

/// Tells the server to stop. Only the first reason counts.
#[derive(Clone, Debug)]
pub(crate) struct StopSender(mpsc::Sender<Fatal>);

/// Where the reason arrives.
#[derive(Debug)]
pub(crate) struct StopReceiver(mpsc::Receiver<Fatal>);

/// A sender and its receiver.
#[must_use]
pub(crate) fn stop_channel() -> (StopSender, StopReceiver) {
    let (sender, receiver) = mpsc::channel(1);
    (StopSender(sender), StopReceiver(receiver))
}

impl StopSender {
    /// The disk failed.
    pub(crate) fn storage_failed(&self, error: StorageError) {
        self.send(Fatal::Storage(error));
    }

    /// The disk has not finished a write for this long.
    pub(crate) fn storage_stalled(&self, path: PathBuf, waited: Duration) {
        self.send(Fatal::Stalled { path, waited });
    }

    /// Files of the data directory are not there any more.
    pub(crate) fn files_lost(&self, lost: FilesLost) {
        self.send(Fatal::FilesLost(lost));
    }

    /// The state machine cannot go on.
    pub(crate) fn state_failed(&self, error: StateError) {
        self.send(Fatal::State(error));
    }

    /// A snapshot could not be written or read.
    pub(crate) fn snapshot_failed(&self, error: SnapshotError) {
        self.send(Fatal::Snapshot(error));
    }

    /// The cluster does not take this node.
    pub(crate) fn refused(&self, reason: NotTaken) {
        self.send(Fatal::Refused(reason));
    }

    /// No thread could be started.
    pub(crate) fn thread_failed(&self, error: io::Error) {
        self.send(Fatal::Thread(error));
    }

    fn send(&self, reason: Fatal) {
        if let Err(mpsc::error::TrySendError::Full(later)) = self.0.try_send(reason) {
            tracing::error!("another failure while the node stops: {later}");
        }
    }
}

impl StopReceiver {
    /// Waits for the first reason.
    pub(crate) async fn reason(&mut self) -> Fatal {
        match self.0.recv().await {
            Some(reason) => reason,
            // Every sender is gone only when the server has already stopped: there is nothing to wait for.
            None => std::future::pending().await,
        }
    }
}

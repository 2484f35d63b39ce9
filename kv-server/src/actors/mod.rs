//! The actors: thin shells that receive, call a plain struct, and send.
//!
//! ```text
//!                     ElectionTicker  HeartbeatTicker          (thread "tickers")
//!                               │        │
//!   peer connections ───────►   ▼        ▼
//!   Replicator (one a peer) ◄─► RaftNode ◄──────► Persister    (thread "persister")
//!                              │   ▲   ▲
//!                              ▼   │   │
//!   client connections ─► KvServer │   │
//!                              ▲   ▼   ▼
//!                              └── Applier                     (all others: the main thread)
//! ```
//!
//! The hot path stays on one thread, where a message costs a queue operation and no wake-up. What blocks,
//! the disk, has a thread of its own; so have the clocks, so that a busy node still hears them.

mod applier;
mod kv_server;
mod persister;
mod raft_node;
mod replicator;
mod tickers;

pub(crate) use applier::{Applier, ApplierSettings, Listeners, MakeRoom, PutNothingOff, ReplaceSnapshot};
pub(crate) use kv_server::{DiskIsLow, Drain, KvServer, ShutDown, TakeNoMore};
pub(crate) use persister::{Persister, Stop as StopPersister, WatchedDisk};
pub(crate) use raft_node::{GetStatus, Links, PeerRequest, RaftNode, StepAside, Stop as StopRaftNode};
pub(crate) use replicator::{PeerAddress, Replicator};
pub(crate) use tickers::{ElectionTicker, HeartbeatTicker};

/// Ends the process when its owner is dropped by a panic. Consensus, storage and apply must not go on with
/// half a transition behind them; a restart recovers from disk.
#[derive(Debug)]
pub(crate) struct FatalOnPanic(&'static str);

impl FatalOnPanic {
    pub(crate) fn of(owner: &'static str) -> Self {
        Self(owner)
    }
}

impl Drop for FatalOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "{} panicked: the node ends here and recovers from disk when it is restarted",
                self.0
            );
            std::process::exit(crate::exit::PANICKED);
        }
    }
}

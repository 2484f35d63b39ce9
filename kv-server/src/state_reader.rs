//! Reading the state while entries are applied, past the mailbox of whoever applies them.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use raft_core::{LogIndex, Term};
use rpc::client::{GetReply, ScanItem, ScanReply, ScanRequest};
use rpc::limits::{MAX_SCAN_BYTES, MAX_SCAN_ITEMS};

use crate::map::{List, SharedMap, Versioned};

/// Reads the state of one replica as of some point of the log, from any thread.
///
/// A reply's `applied_index` is exactly the entry whose state was read. What reads see never goes back.
#[derive(Clone, Debug)]
pub struct StateReader {
    /// Changed only when a snapshot replaces the whole state.
    current: Arc<RwLock<View>>,
}

#[derive(Clone, Debug)]
struct View {
    map: SharedMap,
    progress: Arc<Progress>,
}

/// How far the map that it belongs to has applied the log.
///
/// Written under the map's write lock and read under its read lock, which makes it one with the data. The
/// numbers are atomic only because that lock does not own them.
#[derive(Debug)]
pub(crate) struct Progress {
    applied_index: AtomicU64,
    sessions: AtomicU64,
}

impl StateReader {
    pub(crate) fn new(map: SharedMap, progress: Arc<Progress>) -> Self {
        Self {
            current: Arc::new(RwLock::new(View { map, progress })),
        }
    }

    /// From now on all clones of this reader read what `other` reads.
    pub(crate) fn switch_to(&self, other: &Self) {
        let view = other.with_view(View::clone);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Reads `key`. `term` is the server's current term, for the reply.
    #[must_use]
    pub fn get(&self, key: &[u8], term: Term) -> GetReply {
        self.read(|list, applied_index| GetReply {
            found: list.get(key).map(Versioned::to_found),
            applied_index,
            term,
        })
    }

    /// Reads one page of a range, as of one point of the log. `term` is the server's current term, for
    /// the reply.
    ///
    /// The page ends before the item that would pass [`MAX_SCAN_ITEMS`], [`MAX_SCAN_BYTES`] or the
    /// request's own limit, but always holds at least one item if the range has one.
    #[must_use]
    pub fn scan(&self, request: &ScanRequest, term: Term) -> ScanReply {
        self.read(|list, applied_index| {
            let (items, more) = page(list, request);
            ScanReply {
                items,
                more,
                applied_index,
                term,
            }
        })
    }

    /// The last entry whose effects reads see.
    #[must_use]
    pub fn applied_index(&self) -> LogIndex {
        self.read(|_, applied_index| applied_index)
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.read(|list, _| list.len() as u64)
    }

    /// How many sessions are open.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.with_view(|view| view.progress.sessions.load(Ordering::Acquire))
    }

    fn read<R>(&self, read: impl FnOnce(&List, LogIndex) -> R) -> R {
        self.with_view(|view| {
            view.map.read(|list| {
                read(
                    list,
                    LogIndex(view.progress.applied_index.load(Ordering::Acquire)),
                )
            })
        })
    }

    fn with_view<R>(&self, use_view: impl FnOnce(&View) -> R) -> R {
        // The lock guards one assignment, which cannot fail halfway.
        use_view(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Progress {
    pub(crate) fn new(applied_index: LogIndex, sessions: usize) -> Self {
        Self {
            applied_index: AtomicU64::new(applied_index.0),
            sessions: AtomicU64::new(sessions as u64),
        }
    }

    /// Must be called under the map's write lock.
    pub(crate) fn publish(&self, applied_index: LogIndex, sessions: usize) {
        self.applied_index.store(applied_index.0, Ordering::Release);
        self.sessions.store(sessions as u64, Ordering::Release);
    }
}

/// The items of one page, and whether the range goes on behind them.
fn page(list: &List, request: &ScanRequest) -> (Vec<ScanItem>, bool) {
    let to = request
        .to
        .as_ref()
        .map_or(Bound::Unbounded, |to| Bound::Excluded(to.as_ref()));
    let limit = usize::try_from(request.limit)
        .unwrap_or(usize::MAX)
        .clamp(1, MAX_SCAN_ITEMS);
    let mut items: Vec<ScanItem> = Vec::new();
    let mut bytes = 0;
    for (key, held) in list.range::<[u8], _>((Bound::Included(request.from.as_ref()), to)) {
        let value = if request.keys_only {
            Bytes::new()
        } else {
            held.value.to_bytes()
        };
        bytes += key.len() + value.len();
        if !items.is_empty() && (items.len() == limit || bytes > MAX_SCAN_BYTES) {
            return (items, true);
        }
        items.push(ScanItem {
            key: Bytes::copy_from_slice(key),
            value,
            version: held.version,
        });
    }
    (items, false)
}

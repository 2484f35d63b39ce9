//! The key-value map that the state machine changes and readers share.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use raft_core::LogIndex;

/// A value and the log index of the write that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versioned {
    pub(crate) value: Bytes,
    pub(crate) version: LogIndex,
}

pub(crate) type List = BTreeMap<Bytes, Versioned>;

#[derive(Clone, Debug, Default)]
pub(crate) struct SharedMap(Arc<RwLock<List>>);

#[derive(Clone, Debug)]
pub(crate) struct MapSnapshot(List);

impl SharedMap {
    pub(crate) fn read<R>(&self, read: impl FnOnce(&List) -> R) -> R {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn write<R>(&self, write: impl FnOnce(&mut List) -> R) -> R {
        write(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn snapshot(&self) -> MapSnapshot {
        MapSnapshot(self.read(Clone::clone))
    }
}

impl MapSnapshot {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Versioned)> {
        self.0.iter()
    }
}

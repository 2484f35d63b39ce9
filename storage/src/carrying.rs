//! How a full journal file goes into sled: piece by piece, as the other file fills.
//!
//! The longer a piece waits, the less of it is left to carry: what a snapshot has replaced meanwhile is not carried at all.
//! So the pieces keep step with the other file, and each record waits until about as much was written after it as a
//! file holds. And as no piece is long, nobody who wants something of sled waits for long.

use std::sync::Arc;

use crate::hard_state::ROOT_KEY;
use crate::overlay::{Layer, Location, Overlay};

/// About how much goes into sled at a time.
const PIECE_BYTES: u64 = 2 * 1024 * 1024;

/// What a change counts for beside its value.
const CHANGE_BYTES: u64 = 64;

/// Some of the changes of a journal file.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Where their values are.
    pub(crate) layer: Arc<Layer>,
    /// In the order of their keys.
    pub(crate) changes: Vec<(Vec<u8>, PieceChange)>,
    /// The records that the file adds come behind all others, see [`Overlay::only_appends`].
    pub(crate) only_appends: bool,
}

/// One change in a [`Piece`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceChange {
    /// Of a record that sled does not have.
    Add(Location),
    /// Of a record that sled has, unless it was not carried for being removed meanwhile.
    Replace(Location),
    Remove,
}

/// How far a full file is in sled.
#[derive(Debug)]
pub(crate) struct Carrying {
    layer: Arc<Layer>,
    only_appends: bool,
    /// The last key that was passed.
    passed: Option<Vec<u8>>,
    passed_bytes: u64,
    total_bytes: u64,
}

impl Carrying {
    /// Nothing of `layer` is known to be in sled.
    pub(crate) fn new(layer: Layer) -> Self {
        let changes = layer.changes.iter_behind(None);
        Self {
            only_appends: layer.changes.only_appends(),
            passed: None,
            passed_bytes: 0,
            total_bytes: changes.map(|(_, change)| weight(change.value)).sum(),
            layer: Arc::new(layer),
        }
    }

    pub(crate) fn layer(&self) -> &Arc<Layer> {
        &self.layer
    }

    /// Whether nothing is left but the [root](Self::root).
    pub(crate) fn is_passed(&self) -> bool {
        self.passed_bytes == self.total_bytes
    }

    /// How much there is to carry in all, in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What to carry next, when `due` of all bytes should be in sled by now and the changes of the other file are `newer`.
    /// `None` when that is nothing for now.
    pub(crate) fn next_in_step(&mut self, newer: &Overlay, due: u64) -> Option<Piece> {
        let step = (PIECE_BYTES / 2).min(self.total_bytes / 8);
        if due < self.total_bytes && due < self.passed_bytes + step {
            return None;
        }
        self.next_until(newer, due)
    }

    /// What to carry next, at once.
    pub(crate) fn next(&mut self, newer: &Overlay) -> Option<Piece> {
        self.next_until(newer, self.total_bytes)
    }

    /// The next piece of what comes before `due`, without what `newer` removes.
    fn next_until(&mut self, newer: &Overlay, due: u64) -> Option<Piece> {
        let mut changes = Vec::new();
        let mut bytes = 0;
        let mut passed = None;
        for (key, change) in self.layer.changes.iter_behind(self.passed.as_deref()) {
            if self.passed_bytes >= due || bytes >= PIECE_BYTES {
                break;
            }
            self.passed_bytes += weight(change.value);
            passed = Some(key);
            if key == ROOT_KEY || newer.removes(key) {
                continue;
            }
            bytes += weight(change.value);
            let change = match change.value {
                Some(value) if change.existed => PieceChange::Replace(value),
                Some(value) => PieceChange::Add(value),
                None => PieceChange::Remove,
            };
            changes.push((key.to_vec(), change));
        }
        if let Some(passed) = passed.map(<[u8]>::to_vec) {
            self.passed = Some(passed);
        }
        (!changes.is_empty()).then(|| self.piece(changes))
    }

    /// What comes last, once all the rest is durable: it says that sled has all of the file.
    pub(crate) fn root(&self) -> Piece {
        let root = self.layer.changes.get(ROOT_KEY).flatten();
        let root = root.map(|root| (ROOT_KEY.to_vec(), PieceChange::Replace(root)));
        self.piece(root.into_iter().collect())
    }

    fn piece(&self, changes: Vec<(Vec<u8>, PieceChange)>) -> Piece {
        Piece {
            layer: Arc::clone(&self.layer),
            changes,
            only_appends: self.only_appends,
        }
    }
}

fn weight(value: Option<Location>) -> u64 {
    CHANGE_BYTES + value.map_or(0, |value| u64::from(value.length))
}

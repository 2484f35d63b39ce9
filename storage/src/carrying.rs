//! How a full journal file goes into sled: piece by piece, as the other file fills.
//!
//! The longer a piece waits, the less of it is left to carry: what a snapshot has replaced meanwhile is not carried at all.
//! So the pieces keep step with the other file, and each record waits until four fifths of what a file holds were
//! written after it, or more. And as no piece is long, nobody who wants something of sled waits for long.

use std::sync::Arc;

use crate::hard_state::ROOT_KEY;
use crate::journal::{Values, Written};
use crate::overlay::{Layer, Location, Overlay};
use crate::record::LOG_PREFIX;

/// About how much goes into sled at a time.
const PIECE_BYTES: u64 = 2 * 1024 * 1024;

/// The least while writes wait for pieces, as after a start, when the full file is carried from its beginning however full
/// the other one is. Many short waits are better than a few long ones.
const WAITED_FOR_BYTES: u64 = 256 * 1024;

/// What a change counts for beside its value.
const CHANGE_BYTES: u64 = 64;

/// A removal makes sled write as much as the record has that is removed.
const MOST_REMOVALS: u64 = 1_024;

/// A piece is as long as this part of a file at least, where that is less than half of [`PIECE_BYTES`]: each costs two
/// syncs or more.
const PIECES_OF_A_SHORT_FILE: u64 = 8;

/// Some of the changes of a journal file.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The file that their values are in.
    pub(crate) values: Values,
    /// Removals in the order of their keys, and then values in the order of theirs.
    pub(crate) changes: Vec<(Vec<u8>, PieceChange)>,
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
///
/// Values come when the other file is four fifths as full as this one was when they were written, but for small records, of
/// which there are few; removals evenly. So each has a cursor of its own.
#[derive(Debug)]
pub(crate) struct Carrying {
    layer: Arc<Layer>,
    /// Where the last value ends in the file.
    total_bytes: u64,
    /// Up to where the last piece went.
    due_before: u64,
    /// The last record that was passed of those that have a value, and whether there are no more.
    last_value: Option<Vec<u8>>,
    values_are_passed: bool,
    last_removal: Option<Vec<u8>>,
    removals_passed: u64,
    removals: u64,
}

impl Carrying {
    /// Nothing of `layer` is known to be in sled.
    pub(crate) fn new(layer: Arc<Layer>) -> Self {
        let changes = || layer.changes.iter_behind(None);
        let ends = changes().filter_map(|(_, change)| change.value.map(Location::end));
        Self {
            total_bytes: ends.max().unwrap_or_default(),
            due_before: 0,
            last_value: None,
            values_are_passed: false,
            last_removal: None,
            removals_passed: 0,
            removals: changes().filter(|(_, change)| change.value.is_none()).count() as u64,
            layer,
        }
    }

    pub(crate) fn layer(&self) -> &Arc<Layer> {
        &self.layer
    }

    /// Whether nothing is left but the [root](Self::root).
    pub(crate) fn is_passed(&self) -> bool {
        self.values_are_passed && self.removals_passed == self.removals
    }

    /// Where the last value ends in the file, in bytes from its start.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What to carry next, when what is in the first `due` bytes of the file should be in sled by now and the changes of the
    /// other file are `newer`; `written` tells that file's room, and what was written to it last. `None` when that is
    /// nothing for now.
    pub(crate) fn next_in_step(&mut self, newer: &Overlay, due: u64, written: Written) -> Option<Piece> {
        let step = (PIECE_BYTES / 2).min(self.total_bytes / PIECES_OF_A_SHORT_FILE);
        if due < self.total_bytes && due < self.due_before + step {
            return None;
        }
        let most_bytes = if self.is_far_behind(written.room) {
            // As much of what is left as the write took of the room, and a quarter more, or the rest would come at once when
            // the other file is full. No more than any piece has, so beside very large writes it still does.
            let share =
                self.left() * u128::from(written.last_bytes) * 5 / 4 / u128::from(written.room.max(1));
            let share = u64::try_from(share).unwrap_or(u64::MAX);
            share
                .max(2 * written.last_bytes)
                .clamp(WAITED_FOR_BYTES, PIECE_BYTES)
        } else {
            PIECE_BYTES
        };
        self.next_until(newer, due, most_bytes)
    }

    /// Whether more is left than the `room` in the other file, and two pieces.
    pub(crate) fn is_far_behind(&self, room: u64) -> bool {
        self.left() > u128::from(room + 2 * PIECE_BYTES)
    }

    /// How many bytes of the file no piece has had yet.
    fn left(&self) -> u128 {
        u128::from(self.total_bytes - self.due_before.min(self.total_bytes))
    }

    /// What to carry next, at once. `None` also when only some that need not be carried were passed.
    pub(crate) fn next(&mut self, newer: &Overlay) -> Option<Piece> {
        self.next_until(newer, self.total_bytes, PIECE_BYTES)
    }

    /// The next piece of what comes before `due`, without what `newer` removes, of about so many bytes at most.
    fn next_until(&mut self, newer: &Overlay, due: u64, most_bytes: u64) -> Option<Piece> {
        let mut changes = Vec::new();
        let most_removals = (MOST_REMOVALS * most_bytes / PIECE_BYTES).max(1);
        self.add_removals(&mut changes, due, most_removals);
        self.due_before = self.add_values(&mut changes, newer, due, most_bytes);
        (!changes.is_empty()).then(|| self.piece(changes))
    }

    fn add_removals(&mut self, changes: &mut Vec<(Vec<u8>, PieceChange)>, due: u64, most: u64) {
        // All of them at the end, also of a file without a value.
        let due = if due < self.total_bytes {
            self.removals.saturating_mul(due) / self.total_bytes
        } else {
            self.removals
        };
        let left = due.saturating_sub(self.removals_passed);
        let left = left.min(most);
        let removals = self.layer.changes.iter_behind(self.last_removal.as_deref());
        let removals = removals.filter(|(_, change)| change.value.is_none());
        // As an index, it is below what fits into memory.
        let removals = removals.take(usize::try_from(left).unwrap_or(usize::MAX));
        changes.extend(removals.map(|(key, _)| (key.to_vec(), PieceChange::Remove)));
        if let Some((last, _)) = changes.last() {
            self.last_removal = Some(last.clone());
        }
        self.removals_passed += left;
    }

    /// Yields up to where it went.
    fn add_values(
        &mut self,
        changes: &mut Vec<(Vec<u8>, PieceChange)>,
        newer: &Overlay,
        due: u64,
        most_bytes: u64,
    ) -> u64 {
        let mut bytes = 0;
        let mut up_to = due;
        let mut last = None;
        self.values_are_passed = true;
        for (key, change) in self.layer.changes.iter_behind(self.last_value.as_deref()) {
            let Some(value) = change.value else { continue };
            let is_due = value.end() <= due || key.first() != Some(&LOG_PREFIX);
            if !is_due || bytes >= most_bytes {
                self.values_are_passed = false;
                if is_due {
                    up_to = value.offset.min(due);
                }
                break;
            }
            last = Some(key);
            // What is passed over takes time, too.
            bytes += CHANGE_BYTES;
            if key == ROOT_KEY || newer.removes(key) {
                continue;
            }
            bytes += u64::from(value.length);
            let change = if change.existed {
                PieceChange::Replace(value)
            } else {
                PieceChange::Add(value)
            };
            changes.push((key.to_vec(), change));
        }
        if let Some(last) = last.map(<[u8]>::to_vec) {
            self.last_value = Some(last);
        }
        up_to
    }

    /// What comes last, once all the rest is durable: it says that sled has all of the file.
    pub(crate) fn root(&self) -> Piece {
        let root = self.layer.changes.get(ROOT_KEY).flatten();
        let root = root.map(|root| (ROOT_KEY.to_vec(), PieceChange::Replace(root)));
        self.piece(root.into_iter().collect())
    }

    fn piece(&self, changes: Vec<(Vec<u8>, PieceChange)>) -> Piece {
        Piece {
            values: self.layer.values.clone(),
            changes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Carrying, MOST_REMOVALS, PIECE_BYTES, PieceChange, WAITED_FOR_BYTES};
    use crate::hard_state::ROOT_KEY;
    use crate::journal::{Values, Written};
    use crate::overlay::{Journaled, Layer, Location, Overlay};
    use crate::record::LOG_PREFIX;

    const VALUE_BYTES: u64 = 1_000;
    /// So much room in the other file that nobody is far behind.
    const AMPLE: Written = Written {
        last_bytes: 0,
        room: u64::MAX / 2,
    };

    /// The place of the value of this number.
    fn at(number: u64) -> Location {
        Location {
            offset: number * VALUE_BYTES,
            length: u32::try_from(VALUE_BYTES).unwrap(),
        }
    }

    fn put(number: u64, existed: bool) -> Journaled {
        Journaled {
            value: Some(at(number)),
            existed,
        }
    }

    const REMOVAL: Journaled = Journaled {
        value: None,
        existed: true,
    };

    fn key(number: u64) -> Vec<u8> {
        [&[LOG_PREFIX][..], &number.to_be_bytes()].concat()
    }

    fn carrying(changes: impl IntoIterator<Item = (Vec<u8>, Journaled)>) -> Carrying {
        let mut overlay = Overlay::default();
        overlay.absorb(changes);
        let file = tempfile::NamedTempFile::new().unwrap();
        Carrying::new(Arc::new(Layer {
            changes: overlay,
            values: Values::open(file.path()).unwrap(),
        }))
    }

    /// Records 101 to 200 of the log, the root, and the removal of records 1 to 50.
    fn hundred() -> Carrying {
        let records = (101..=200).map(|number| (key(number), put(number - 101, false)));
        let removals = (1..=50).map(|number| (key(number), REMOVAL));
        carrying(
            records
                .chain(removals)
                .chain([(ROOT_KEY.to_vec(), put(99, true))]),
        )
    }

    #[test]
    fn a_file_of_removals_alone_is_carried_to_its_end() {
        let mut carrying = carrying((1..=50).map(|number| (key(number), REMOVAL)));
        let piece = carrying.next(&Overlay::default()).unwrap();
        assert_eq!(piece.changes.len(), 50);
        assert!(carrying.next(&Overlay::default()).is_none());
        assert!(carrying.is_passed());
    }

    #[test]
    fn every_change_but_the_root_is_carried_once_removals_first_and_the_root_last() {
        let changes = [
            (key(1), REMOVAL),
            (ROOT_KEY.to_vec(), put(9, true)),
            (key(3), put(3, false)),
            (b"a/small".to_vec(), put(5, true)),
        ];
        let mut carrying = carrying(changes);
        let piece = carrying.next(&Overlay::default()).unwrap();
        let expected = [
            (key(1), PieceChange::Remove),
            (b"a/small".to_vec(), PieceChange::Replace(at(5))),
            (key(3), PieceChange::Add(at(3))),
        ];
        assert_eq!(piece.changes, expected);
        assert!(carrying.is_passed());
        assert!(carrying.next(&Overlay::default()).is_none());
        let root = [(ROOT_KEY.to_vec(), PieceChange::Replace(at(9)))];
        assert_eq!(carrying.root().changes, root);
    }

    #[test]
    fn what_the_other_file_removes_meanwhile_is_passed_over() {
        let mut carrying = hundred();
        let mut newer = Overlay::default();
        newer.absorb((101..=190).map(|number| (key(number), REMOVAL)));
        newer.absorb([(key(195), put(7, true))]);
        let piece = carrying.next(&newer).unwrap();
        let keys: Vec<_> = piece.changes.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, (1..=50).chain(191..=200).map(key).collect::<Vec<_>>());
        assert!(carrying.is_passed());
    }

    #[test]
    fn each_value_comes_when_it_is_due_removals_evenly_and_neither_a_little_at_a_time() {
        let mut carrying = hundred();
        let total = carrying.total_bytes();
        assert_eq!(total, 100 * VALUE_BYTES);
        let none = Overlay::default();
        assert!(carrying.next_in_step(&none, 0, AMPLE).is_none());
        assert!(carrying.next_in_step(&none, total / 8 - 1, AMPLE).is_none());
        let (mut values, mut removals, mut pieces) = (0, 0, 0);
        for due in 0..=total {
            let Some(piece) = carrying.next_in_step(&none, due, AMPLE) else {
                continue;
            };
            pieces += 1;
            let of_piece = piece.changes.len() as u64;
            let is_removal = |(_, change): &&(_, PieceChange)| *change == PieceChange::Remove;
            removals += piece.changes.iter().filter(is_removal).count() as u64;
            values += of_piece - piece.changes.iter().filter(is_removal).count() as u64;
            assert_eq!((values, removals), (due / VALUE_BYTES, due * 50 / total), "{due}");
        }
        assert_eq!((values, removals, pieces), (100, 50, 8));
        assert!(carrying.is_passed());
    }

    #[test]
    fn who_has_more_left_than_there_is_room_is_far_behind() {
        let values = 5 * PIECE_BYTES / VALUE_BYTES;
        let mut carrying = carrying((0..values).map(|number| (key(number), put(number, false))));
        let total = carrying.total_bytes();
        let room = |left: u64| left - 2 * PIECE_BYTES;
        assert!(carrying.is_far_behind(room(total) - 1) && !carrying.is_far_behind(room(total)));
        let piece = carrying.next(&Overlay::default()).unwrap();
        let left = total - piece.changes.len() as u64 * VALUE_BYTES;
        assert!(carrying.is_far_behind(room(left) - 1) && !carrying.is_far_behind(room(left)));
        while carrying.next(&Overlay::default()).is_some() {}
        assert!(!carrying.is_far_behind(0));
    }

    #[test]
    fn small_records_are_not_waited_for() {
        let changes = [
            (b"a/small".to_vec(), put(99, true)),
            (key(1), put(0, false)),
            (key(2), put(98, false)),
        ];
        let mut carrying = carrying(changes);
        let piece = carrying
            .next_in_step(&Overlay::default(), 20 * VALUE_BYTES, AMPLE)
            .unwrap();
        let expected = [
            (b"a/small".to_vec(), PieceChange::Replace(at(99))),
            (key(1), PieceChange::Add(at(0))),
        ];
        assert_eq!(piece.changes, expected);
        assert!(!carrying.is_passed());
    }

    #[test]
    fn a_piece_is_not_long_however_much_is_due() {
        let values = 3 * PIECE_BYTES / VALUE_BYTES;
        let removals = 3 * MOST_REMOVALS;
        let removed = (0..removals).map(|number| (key(number), REMOVAL));
        let put = (0..values).map(|number| (key(removals + number), put(number, false)));
        let mut carrying = carrying(removed.chain(put));
        let mut carried = 0;
        while let Some(piece) = carrying.next(&Overlay::default()) {
            let is_removal = |(_, change): &&(_, PieceChange)| *change == PieceChange::Remove;
            let removals = piece.changes.iter().filter(is_removal).count() as u64;
            let values = piece.changes.len() as u64 - removals;
            assert!(removals <= MOST_REMOVALS, "{removals}");
            assert!(values * VALUE_BYTES < PIECE_BYTES + VALUE_BYTES, "{values}");
            carried += piece.changes.len() as u64;
        }
        assert_eq!(carried, values + removals);
        assert!(carrying.is_passed());
    }

    /// How long the pieces are of a file of six long ones, while the other file has room for one.
    fn pieces_beside_records_of(last_bytes: u64) -> Vec<u64> {
        let values = 6 * PIECE_BYTES / VALUE_BYTES;
        let mut carrying = carrying((0..values).map(|number| (key(number), put(number, false))));
        let (none, total) = (Overlay::default(), carrying.total_bytes());
        let written = Written {
            last_bytes,
            room: PIECE_BYTES,
        };
        std::iter::from_fn(|| carrying.next_in_step(&none, total, written))
            .map(|piece| piece.changes.len() as u64 * VALUE_BYTES)
            .collect()
    }

    #[test]
    fn a_piece_that_small_writes_wait_for_is_short_and_the_last_that_none_waits_for_are_not() {
        let pieces = pieces_beside_records_of(1_000);
        let short = pieces
            .iter()
            .take_while(|bytes| **bytes <= WAITED_FOR_BYTES)
            .count();
        assert!(short >= 16, "{pieces:?}");
        let [long @ .., _rest] = &pieces[short..] else {
            panic!("{pieces:?}")
        };
        assert!((2..=3).contains(&long.len()), "{pieces:?}");
        assert!(long.iter().all(|bytes| *bytes > PIECE_BYTES / 2), "{pieces:?}");
    }

    #[test]
    fn a_piece_that_large_writes_wait_for_is_longer_than_they_are_if_any_may_be() {
        for last_bytes in [400_000, 900_000, PIECE_BYTES] {
            let pieces = pieces_beside_records_of(last_bytes);
            let least = (2 * last_bytes).min(PIECE_BYTES) * 9 / 10 - 2 * VALUE_BYTES;
            let (_rest, whole) = pieces.split_last().unwrap();
            assert!(
                whole.iter().all(|bytes| *bytes >= least),
                "{last_bytes}: {pieces:?}"
            );
        }
    }

    #[test]
    fn what_is_far_behind_is_made_up_for_before_the_other_file_is_full() {
        for last_bytes in [1_000, 60_000, 100_000, 200_000] {
            let values = 32 * PIECE_BYTES / VALUE_BYTES;
            let mut carrying = carrying((0..values).map(|number| (key(number), put(number, false))));
            let (none, total) = (Overlay::default(), carrying.total_bytes());
            let mut room = total / 5;
            while room >= last_bytes && carrying.is_far_behind(room) {
                room -= last_bytes;
                carrying.next_in_step(&none, total, Written { last_bytes, room });
            }
            assert!(!carrying.is_far_behind(room), "{last_bytes}: {room}");
        }
    }

    #[test]
    fn a_piece_of_a_long_file_waits_for_half_of_what_one_may_have_and_the_last_one_for_nothing() {
        let last = 64 * PIECE_BYTES / VALUE_BYTES;
        let mut carrying = carrying([0, last].map(|number| (key(number), put(number, false))));
        let (none, total) = (Overlay::default(), carrying.total_bytes());
        assert!(carrying.next_in_step(&none, PIECE_BYTES / 2 - 1, AMPLE).is_none());
        let mut keys_of_next = |due| {
            let piece = carrying.next_in_step(&none, due, AMPLE);
            piece.map(|piece| piece.changes.into_iter().map(|(key, _)| key).collect())
        };
        assert_eq!(keys_of_next(PIECE_BYTES / 2), Some(vec![key(0)]));
        assert_eq!(keys_of_next(total - 1), None);
        assert_eq!(keys_of_next(total), Some(vec![key(last)]));
    }
}

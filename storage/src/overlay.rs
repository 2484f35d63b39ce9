//! What the journal holds and sled does not yet: one layer for each journal file, and the view of sled through
//! the layers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::durability::DurableTree;

/// The bytes of a record, as sled keeps them: they are written once, and shared by the layer that holds them, the batch
/// that carries them into sled, and sled's cache.
pub(crate) type Value = sled::IVec;

/// What a batch does to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The new value; `None` removes the record.
    pub(crate) value: Option<Value>,
    /// Whether there was a record under this key before the batch.
    pub(crate) existed: bool,
}

/// All that one `write` changes, under its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) number: u64,
    pub(crate) changes: BTreeMap<Vec<u8>, Change>,
}

/// The changes of one journal file, the last one of each key.
///
/// A record that was both written and removed within the file leaves nothing here, so that it never reaches
/// sled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overlay {
    changes: BTreeMap<Vec<u8>, Change>,
}

impl Overlay {
    /// Lays the changes of `batch` over what is here. [`Change::existed`] of what is here says whether the
    /// layers below hold the key.
    pub(crate) fn absorb(&mut self, batch: Batch) {
        for (key, change) in batch.changes {
            match self.changes.get_mut(&key) {
                Some(present) if change.value.is_some() || present.existed => present.value = change.value,
                Some(_) => drop(self.changes.remove(&key)),
                None => drop(self.changes.insert(key, change)),
            }
        }
    }

    /// What this layer says of `key`: `None` nothing, `Some(None)` that it is removed.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.changes.get(key).map(|change| change.value.as_deref())
    }

    /// The keys of the records that the layers below do not hold, in order.
    pub(crate) fn added(&self) -> impl Iterator<Item = &[u8]> {
        let is_added = |change: &Change| change.value.is_some() && !change.existed;
        self.changes
            .iter()
            .filter(move |(_, change)| is_added(change))
            .map(|(key, _)| key.as_slice())
    }

    /// How long the longest of the values is, in bytes.
    pub(crate) fn largest_value(&self) -> usize {
        let values = self.changes.values().filter_map(|change| change.value.as_ref());
        values.map(|value| value.len()).max().unwrap_or_default()
    }

    /// Whether every record that is added comes behind all others that this layer changes, as there are none behind
    /// those: not so where a leader has replaced the end of the log (§5.3).
    pub(crate) fn only_appends(&self) -> bool {
        let mut from_first_added = self.changes.values().skip_while(|change| change.existed);
        from_first_added.all(|change| !change.existed)
    }

    /// The keys of the records that are removed, in order.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &[u8]> {
        let removed = self.changes.iter().filter(|(_, change)| change.value.is_none());
        removed.map(|(key, _)| key.as_slice())
    }

    /// Every change, in the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&Value>)> {
        self.changes
            .iter()
            .map(|(key, change)| (key.as_slice(), change.value.as_ref()))
    }
}

/// sled as it will be when all layers are carried into it.
#[derive(Debug)]
pub(crate) struct View<'a> {
    tree: &'a DurableTree,
    /// The oldest first.
    layers: &'a [Arc<Overlay>],
    largest_visited: Cell<usize>,
}

impl<'a> View<'a> {
    pub(crate) fn new(tree: &'a DurableTree, layers: &'a [Arc<Overlay>]) -> Self {
        Self {
            tree,
            layers,
            largest_visited: Cell::new(0),
        }
    }

    /// sled's data file.
    pub(crate) fn path(&self) -> &Path {
        self.tree.path()
    }

    /// How long the longest value in sled was that [`for_each`](Self::for_each) came by, in bytes, whatever the layers
    /// have in its place.
    pub(crate) fn largest_visited(&self) -> usize {
        self.largest_visited.get()
    }

    /// The value under `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        match self.layers.iter().rev().find_map(|layer| layer.get(key)) {
            Some(value) => Ok(value.map(<[u8]>::to_vec)),
            None => Ok(self.tree.get(key)?.map(|value| value.to_vec())),
        }
    }

    /// Hands every record to `visit`, in the order of the keys, until one is refused.
    pub(crate) fn for_each<E: From<String>>(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let merged: BTreeMap<&[u8], Option<&Value>> =
            self.layers.iter().flat_map(|layer| layer.iter()).collect();
        let mut above = merged.into_iter().peekable();
        self.tree.for_each(|key, value| {
            self.largest_visited
                .set(self.largest_visited.get().max(value.len()));
            while let Some((above_key, above_value)) = above.next_if(|(above_key, _)| *above_key < key) {
                above_value.map_or(Ok(()), |above_value| visit(above_key, above_value))?;
            }
            match above.next_if(|(above_key, _)| *above_key == key) {
                Some((_, Some(newer))) => visit(key, newer),
                Some((_, None)) => Ok(()),
                None => visit(key, value),
            }
        })?;
        above.try_for_each(|(key, value)| value.map_or(Ok(()), |value| visit(key, value)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Batch, Change, Overlay, Value, View};
    use crate::durability::DurableTree;

    fn batch(key: &[u8], value: Option<&[u8]>, existed: bool) -> Batch {
        let change = Change {
            value: value.map(Value::from),
            existed,
        };
        Batch {
            number: 1,
            changes: [(key.to_vec(), change)].into(),
        }
    }

    #[test]
    fn a_record_written_and_removed_in_one_layer_leaves_nothing() {
        let mut overlay = Overlay::default();
        overlay.absorb(batch(b"new", Some(b"1"), false));
        assert_eq!(overlay.get(b"new"), Some(Some(b"1".as_slice())));
        overlay.absorb(batch(b"new", None, true));
        assert_eq!(overlay, Overlay::default());
    }

    #[test]
    fn only_what_the_layers_below_do_not_hold_was_added_and_only_what_is_gone_was_removed() {
        let mut overlay = Overlay::default();
        overlay.absorb(batch(b"new", Some(b"1"), false));
        overlay.absorb(batch(b"new", Some(b"2"), true));
        overlay.absorb(batch(b"old", Some(b"3"), true));
        overlay.absorb(batch(b"removed", None, true));
        assert!(overlay.added().eq([b"new".as_slice()]));
        assert!(overlay.removed().eq([b"removed".as_slice()]));
        overlay.absorb(batch(b"removed", Some(b"longest"), true));
        assert_eq!(overlay.largest_value(), b"longest".len());
    }

    #[test]
    fn a_layer_only_appends_unless_it_changes_what_is_behind_a_new_record() {
        let appended = || {
            let mut overlay = Overlay::default();
            overlay.absorb(batch(b"a", Some(b"1"), true));
            overlay.absorb(batch(b"l1", None, true));
            overlay.absorb(batch(b"l4", Some(b"1"), false));
            overlay.absorb(batch(b"l5", Some(b"1"), false));
            overlay
        };
        assert!(Overlay::default().only_appends());
        assert!(appended().only_appends());
        for last in [None, Some(&b"1"[..])] {
            let mut overlay = appended();
            overlay.absorb(batch(b"l6", last, true));
            assert!(!overlay.only_appends(), "{last:?}");
        }
    }

    #[test]
    fn the_removal_of_a_record_from_below_stays_however_often_it_is_written_again() {
        let mut overlay = Overlay::default();
        overlay.absorb(batch(b"old", None, true));
        overlay.absorb(batch(b"old", Some(b"2"), false));
        assert_eq!(overlay.get(b"old"), Some(Some(b"2".as_slice())));
        overlay.absorb(batch(b"old", None, true));
        assert_eq!(overlay.get(b"old"), Some(None));
        overlay.absorb(batch(b"older", Some(b"3"), true));
        overlay.absorb(batch(b"older", None, true));
        assert_eq!(overlay.get(b"older"), Some(None));
    }

    #[test]
    fn a_view_shows_each_record_once_as_the_newest_layer_has_it_in_the_order_of_the_keys() {
        let dir = tempfile::tempdir().unwrap();
        let database = sled::Config::new().path(dir.path()).flush_every_ms(None).open();
        let tree = DurableTree::new(&database.unwrap(), dir.path()).unwrap();
        let mut below = sled::Batch::default();
        for key in [b"b", b"d", b"e", b"f"] {
            below.insert(key, b"below");
        }
        tree.commit(below).unwrap();
        let layer = |batches: [Batch; 3]| {
            let mut overlay = Overlay::default();
            batches.into_iter().for_each(|batch| overlay.absorb(batch));
            Arc::new(overlay)
        };
        let layers = [
            layer([
                batch(b"a", Some(b"older"), false),
                batch(b"d", Some(b"older"), true),
                batch(b"e", None, true),
            ]),
            layer([
                batch(b"a", Some(b"newer"), true),
                batch(b"c", Some(b"newer"), false),
                batch(b"g", Some(b"newer"), false),
            ]),
        ];
        let view = View::new(&tree, &layers);
        let expected = [
            ("a", "newer"),
            ("b", "below"),
            ("c", "newer"),
            ("d", "older"),
            ("f", "below"),
            ("g", "newer"),
        ];
        let mut shown = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        view.for_each(|key, value| {
            shown.push((text(key), text(value)));
            Ok::<_, String>(())
        })
        .unwrap();
        assert_eq!(
            shown,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        for (key, value) in expected {
            assert_eq!(
                view.get(key.as_bytes()).unwrap().as_deref(),
                Some(value.as_bytes())
            );
        }
        assert_eq!(view.get(b"e"), Ok(None));
        assert_eq!(view.get(b"h"), Ok(None));
    }
}

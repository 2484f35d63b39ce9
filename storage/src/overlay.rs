//! What the journal holds and sled does not yet: one layer for each journal file, and the view of sled through
//! the layers.
//!
//! A layer knows which records were changed, and where in its file their values are. The values themselves stay there:
//! nearly all are of the log, whose end the core has in memory, and most of them are forgotten before anybody asks.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use crate::durability::DurableTree;
use crate::error::StorageError;
use crate::journal::Values;

/// The bytes of a record, as sled keeps them: they are written once, and shared by the batch that carries them into sled
/// and sled's cache.
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

/// Where a value is in a file of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// Bytes from the start of the file.
    pub(crate) offset: u64,
    /// Its length, in bytes.
    pub(crate) length: u32,
}

impl Location {
    /// Where it ends, in bytes from the start of the file.
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }
}

/// A [`Change`] that is in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Journaled {
    /// Where the new value is; `None` removes the record.
    pub(crate) value: Option<Location>,
    /// Whether there was a record under this key before.
    pub(crate) existed: bool,
}

/// The changes of one journal file, the last one of each key.
///
/// A record that was both written and removed within the file leaves nothing here, so that it never reaches
/// sled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overlay {
    changes: BTreeMap<Vec<u8>, Journaled>,
}

impl Overlay {
    /// Lays the changes of a batch over what is here. [`Journaled::existed`] of what is here says whether the
    /// layers below hold the key.
    pub(crate) fn absorb(&mut self, batch: impl IntoIterator<Item = (Vec<u8>, Journaled)>) {
        for (key, change) in batch {
            match self.changes.get_mut(&key) {
                Some(present) if change.value.is_some() || present.existed => present.value = change.value,
                Some(_) => drop(self.changes.remove(&key)),
                None => drop(self.changes.insert(key, change)),
            }
        }
    }

    /// What this layer says of `key`: `None` nothing, `Some(None)` that it is removed.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Location>> {
        self.changes.get(key).map(|change| change.value)
    }

    /// Whether this layer removes the record under `key`.
    pub(crate) fn removes(&self, key: &[u8]) -> bool {
        self.get(key) == Some(None)
    }

    /// Every change behind the key `passed`, or from the first on, in the order of the keys.
    pub(crate) fn iter_behind(&self, passed: Option<&[u8]>) -> impl Iterator<Item = (&[u8], Journaled)> {
        let start = passed.map_or(Bound::Unbounded, Bound::Excluded);
        self.changes
            .range::<[u8], _>((start, Bound::Unbounded))
            .map(|(key, change)| (key.as_slice(), *change))
    }
}

/// A file of the journal, as the changes in it.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) changes: Overlay,
    pub(crate) values: Values,
}

impl Layer {
    /// What this layer says of `key`: `None` nothing, `Some(None)` that it is removed.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Option<Vec<u8>>>, StorageError> {
        let value = self.changes.get(key);
        let read = value.map(|value| value.map(|location| self.values.read(location)).transpose());
        read.transpose()
    }

    /// The same, with the value verified: the disk may give others than it was given.
    pub(crate) fn get_verified(&self, key: &[u8]) -> Result<Option<Option<Vec<u8>>>, StorageError> {
        let value = self.changes.get(key);
        let read = value.map(|value| {
            let read = value.map(|location| self.values.read_verified(key, location));
            read.transpose()
        });
        read.transpose()
    }
}

/// sled as it will be when all layers are carried into it.
#[derive(Debug)]
pub(crate) struct View<'a> {
    tree: &'a DurableTree,
    /// The oldest first.
    layers: &'a [Arc<Layer>],
    largest_visited: Cell<usize>,
}

impl<'a> View<'a> {
    pub(crate) fn new(tree: &'a DurableTree, layers: &'a [Arc<Layer>]) -> Self {
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
        for layer in self.layers.iter().rev() {
            if let Some(value) = layer.get(key).map_err(|error| error.to_string())? {
                return Ok(value);
            }
        }
        Ok(self.tree.get(key)?.map(|value| value.to_vec()))
    }

    /// Hands every record to `visit`, in the order of the keys, until one is refused.
    pub(crate) fn for_each<E: From<String>>(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let changes = self.layers.iter().flat_map(|layer| {
            let changes = layer.changes.iter_behind(None);
            changes.map(|(key, change)| (key, change.value.map(|value| (&layer.values, value))))
        });
        let merged: BTreeMap<&[u8], Option<(&Values, Location)>> = changes.collect();
        let mut above = merged.into_iter().peekable();
        let read = |newer: Option<(&Values, Location)>| {
            let read = newer.map(|(values, location)| values.read(location)).transpose();
            read.map_err(|error| E::from(error.to_string()))
        };
        self.tree.for_each(|key, value| {
            self.largest_visited
                .set(self.largest_visited.get().max(value.len()));
            while let Some((above_key, newer)) = above.next_if(|(above_key, _)| *above_key < key) {
                read(newer)?.map_or(Ok(()), |newer| visit(above_key, &newer))?;
            }
            match above.next_if(|(above_key, _)| *above_key == key) {
                Some((_, newer)) => read(newer)?.map_or(Ok(()), |newer| visit(key, &newer)),
                None => visit(key, value),
            }
        })?;
        above.try_for_each(|(key, newer)| read(newer)?.map_or(Ok(()), |newer| visit(key, &newer)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::{Journaled, Layer, Location, Overlay, View};
    use crate::durability::DurableTree;
    use crate::journal::Values;

    /// A batch of one change, whose value is somewhere in the journal.
    fn batch(key: &[u8], offset: Option<u64>, existed: bool) -> [(Vec<u8>, Journaled); 1] {
        let value = offset.map(|offset| Location { offset, length: 1 });
        [(key.to_vec(), Journaled { value, existed })]
    }

    /// Where the value of `key` is, as far as `batch` says.
    fn offset_of(overlay: &Overlay, key: &[u8]) -> Option<Option<u64>> {
        overlay.get(key).map(|value| value.map(|value| value.offset))
    }

    #[test]
    fn a_record_written_and_removed_in_one_layer_leaves_nothing() {
        let mut overlay = Overlay::default();
        overlay.absorb(batch(b"new", Some(1), false));
        assert_eq!(offset_of(&overlay, b"new"), Some(Some(1)));
        overlay.absorb(batch(b"new", None, true));
        assert_eq!(overlay, Overlay::default());
    }

    #[test]
    fn only_what_is_gone_was_removed_and_changes_come_in_the_order_of_the_keys() {
        let mut overlay = Overlay::default();
        overlay.absorb(batch(b"removed", None, true));
        overlay.absorb(batch(b"old", Some(3), true));
        overlay.absorb(batch(b"new", Some(1), false));
        overlay.absorb(batch(b"new", Some(2), true));
        let changes = |passed: Option<&[u8]>| -> Vec<_> {
            let changes = overlay.iter_behind(passed);
            changes.map(|(key, change)| (key.to_vec(), change)).collect()
        };
        let all = [
            batch(b"new", Some(2), false),
            batch(b"old", Some(3), true),
            batch(b"removed", None, true),
        ]
        .concat();
        assert_eq!(changes(None), all);
        assert_eq!(changes(Some(b"new")), all[1..]);
        assert_eq!(changes(Some(b"removed")), []);
        let removed = [&b"new"[..], b"none", b"removed"].map(|key| overlay.removes(key));
        assert_eq!(removed, [false, false, true]);
    }

    #[test]
    fn the_removal_of_a_record_from_below_stays_however_often_it_is_written_again() {
        let mut overlay = Overlay::default();
        overlay.absorb(batch(b"old", None, true));
        overlay.absorb(batch(b"old", Some(2), false));
        assert_eq!(offset_of(&overlay, b"old"), Some(Some(2)));
        overlay.absorb(batch(b"old", None, true));
        assert_eq!(offset_of(&overlay, b"old"), Some(None));
        overlay.absorb(batch(b"older", Some(3), true));
        overlay.absorb(batch(b"older", None, true));
        assert_eq!(offset_of(&overlay, b"older"), Some(None));
    }

    /// A key, its value, and whether it existed.
    type Written<'a> = (&'a [u8], Option<&'a [u8]>, bool);

    /// A layer with these changes, whose values go into the file `path`.
    fn layer(path: &Path, changes: &[Written<'_>]) -> Arc<Layer> {
        let mut written = Vec::new();
        let mut overlay = Overlay::default();
        for (key, value, existed) in changes {
            let location = value.map(|value| Location {
                offset: written.len() as u64,
                length: u32::try_from(value.len()).unwrap(),
            });
            written.extend_from_slice(value.unwrap_or_default());
            let (value, existed) = (location, *existed);
            overlay.absorb([(key.to_vec(), Journaled { value, existed })]);
        }
        std::fs::write(path, written).unwrap();
        let values = Values::open(path).unwrap();
        Arc::new(Layer {
            changes: overlay,
            values,
        })
    }

    #[test]
    fn a_view_shows_each_record_once_as_the_newest_layer_has_it_in_the_order_of_the_keys() {
        let dir = tempfile::tempdir().unwrap();
        let sled_dir = dir.path().join("sled");
        let database = sled::Config::new().path(&sled_dir).flush_every_ms(None).open();
        let tree = DurableTree::new(&database.unwrap(), &sled_dir).unwrap();
        let mut below = sled::Batch::default();
        for key in [b"b", b"d", b"e", b"f"] {
            below.insert(key, b"below");
        }
        tree.commit(below).unwrap();
        let layers = [
            layer(
                &dir.path().join("0"),
                &[
                    (b"a", Some(b"older"), false),
                    (b"d", Some(b"older"), true),
                    (b"e", None, true),
                ],
            ),
            layer(
                &dir.path().join("1"),
                &[
                    (b"a", Some(b"newer"), true),
                    (b"c", Some(b"newer"), false),
                    (b"g", Some(b"newer"), false),
                ],
            ),
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

    #[test]
    fn a_view_tells_the_longest_value_of_the_database_also_of_one_that_the_layers_replace() {
        let dir = tempfile::tempdir().unwrap();
        let sled_dir = dir.path().join("sled");
        let database = sled::Config::new().path(&sled_dir).flush_every_ms(None).open();
        let tree = DurableTree::new(&database.unwrap(), &sled_dir).unwrap();
        let mut below = sled::Batch::default();
        below.insert(b"a", b"long");
        below.insert(b"b", b"the longest");
        below.insert(b"c", b"short");
        tree.commit(below).unwrap();
        let above: [Written<'_>; 2] = [
            (b"b", None, true),
            (b"d", Some(b"longer than the longest"), false),
        ];
        let layers = [layer(&dir.path().join("0"), &above)];
        let view = View::new(&tree, &layers);
        assert_eq!(view.largest_visited(), 0);
        view.for_each(|_, _| Ok::<_, String>(())).unwrap();
        assert_eq!(view.largest_visited(), b"the longest".len());
    }
}

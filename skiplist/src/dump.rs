//! Lists and snapshots through serde.
//!
//! There are two forms. [`Dump`] is a plain struct of keys and values, for whoever wants to see or build one. A list
//! or a snapshot itself serializes as one sequence of `(key, value)` pairs, without a copy of everything in between.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::list::SkipList;
use crate::load::{Appender, LoadError};
use crate::snapshot::Snapshot;

/// All entries of a list, apart from any list: keys in strictly ascending order, and each key's value at the same
/// position.
///
/// # Examples
///
/// ```
/// use skiplist::{Dump, SkipList};
///
/// let list = SkipList::from([("a", 1), ("b", 2)]);
/// let dump = list.dump();
/// assert_eq!(dump, Dump { keys: vec!["a", "b"], values: vec![1, 2] });
/// assert_eq!(SkipList::load(dump)?, list);
/// # Ok::<(), skiplist::LoadError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump<K, V> {
    /// The keys.
    pub keys: Vec<K>,
    /// The values.
    pub values: Vec<V>,
}

impl<K, V> Default for Dump<K, V> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<K, V> FromIterator<(K, V)> for Dump<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let (keys, values) = entries.into_iter().unzip();
        Self { keys, values }
    }
}

impl<K: Ord + Clone, V> SkipList<K, V> {
    /// A copy of all entries.
    #[must_use]
    pub fn dump(&self) -> Dump<K, V>
    where
        V: Clone,
    {
        self.iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// The list that a dump was taken of, built in O(n).
    ///
    /// # Errors
    ///
    /// [`LoadError::Uneven`] if the dump has not as many keys as values, [`LoadError::NotAscending`] if its keys are
    /// not in strictly ascending order.
    pub fn load(dump: Dump<K, V>) -> Result<Self, LoadError> {
        let Dump { keys, values } = dump;
        if keys.len() != values.len() {
            return Err(LoadError::Uneven {
                keys: keys.len(),
                values: values.len(),
            });
        }
        Self::from_sorted(keys.into_iter().zip(values))
    }
}

impl<K: Serialize, V: Serialize> Serialize for SkipList<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

/// Reads the sequence that a [`SkipList`] reads. The lock is held for a few entries at a time only, so a slow
/// receiver does not hold writers up.
impl<K, V> Serialize for Snapshot<K, V>
where
    K: Ord + Clone + Serialize,
    V: Clone + Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut pairs = serializer.serialize_seq(Some(self.len()))?;
        for pair in self {
            pairs.serialize_element(&pair)?;
        }
        pairs.end()
    }
}

/// Refuses pairs that are not in strictly ascending order. Memory grows with the pairs that really arrive, never with
/// the length that the input claims to have; how much may arrive is for the caller to limit.
impl<'de, K, V> Deserialize<'de> for SkipList<K, V>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for PairsVisitor<K, V>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Deserialize<'de>,
{
    type Value = SkipList<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of (key, value) pairs in strictly ascending order of their keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
        let mut appender = Appender::new(SkipList::new());
        while let Some((key, value)) = pairs.next_element()? {
            appender.push(key, value).map_err(A::Error::custom)?;
        }
        Ok(appender.finish())
    }
}

//! The key-value map that the state machine changes and readers share.

use std::ops::Deref;

use bytes::{Bytes, BytesMut};
use raft_core::LogIndex;
use rpc::client::Found;
use skiplist::{SharedSkipList, SkipList, Snapshot, WriteBatch};

/// A longer value is shared by whoever reads it; one of this length or less is copied.
pub(crate) const LONGEST_COPIED_BYTES: usize = 512;

/// A value that was appended to gets room for a quarter more, but for no more than this.
const MOST_ROOM_BYTES: usize = 64 * 1024;

/// A key as the map keeps it: its bytes, in as little memory as that takes.
pub(crate) type Key = Box<[u8]>;

/// A value as the map keeps it.
///
/// Half the size of [`Bytes`], and its bytes stand in memory alone while they are few: once shared, a `Bytes` has
/// another 32 bytes beside them for good. That is a quarter of a value of 128 bytes, and one snapshot would share
/// them all. To copy a short value costs no more than to share it, since either allocates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value(Held);

/// Which one depends on the length alone, so that equal values are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Short(Box<[u8]>),
    Long(Box<Bytes>),
}

/// A value and the log index of the write that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versioned {
    pub(crate) value: Value,
    pub(crate) version: LogIndex,
}

pub(crate) type SharedMap = SharedSkipList<Key, Versioned>;
pub(crate) type List = SkipList<Key, Versioned>;
pub(crate) type Batch<'a> = WriteBatch<'a, Key, Versioned>;
pub(crate) type MapSnapshot = Snapshot<Key, Versioned>;

/// The key as the map keeps it. Copies nothing if `bytes` are nobody else's.
pub(crate) fn key_of(bytes: Bytes) -> Key {
    Vec::from(bytes).into_boxed_slice()
}

impl Value {
    /// The value with `suffix` behind it.
    ///
    /// A long one grows where it stands, unless a reader or a snapshot holds it, too: else a log of little appends to it
    /// would take a copy of all of it for each.
    pub(crate) fn appended(self, suffix: Bytes) -> Self {
        if self.is_empty() {
            return Self::from(suffix);
        }
        let grown = match self.0 {
            Held::Short(bytes) => [&bytes[..], &suffix].concat().into(),
            Held::Long(bytes) => match bytes.try_into_mut() {
                Ok(mut bytes) if bytes.capacity() - bytes.len() >= suffix.len() => {
                    bytes.extend_from_slice(&suffix);
                    bytes.freeze()
                }
                Ok(bytes) => joined_with_room(&bytes, &suffix),
                Err(bytes) => joined_with_room(&bytes, &suffix),
            },
        };
        Self::from(grown)
    }

    /// The value for a reply.
    pub(crate) fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Held::Short(bytes) => Bytes::copy_from_slice(bytes),
            Held::Long(bytes) => Bytes::clone(bytes),
        }
    }
}

/// Both in one, and room for more.
fn joined_with_room(held: &[u8], suffix: &[u8]) -> Bytes {
    let len = held.len() + suffix.len();
    let mut joined = BytesMut::with_capacity(len + (len / 4).min(MOST_ROOM_BYTES));
    joined.extend_from_slice(held);
    joined.extend_from_slice(suffix);
    joined.freeze()
}

/// Copies nothing if the bytes are nobody else's.
impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        if bytes.len() <= LONGEST_COPIED_BYTES {
            Self(Held::Short(Vec::from(bytes).into_boxed_slice()))
        } else {
            Self(Held::Long(Box::new(bytes)))
        }
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Short(bytes) => bytes,
            Held::Long(bytes) => bytes,
        }
    }
}

impl Versioned {
    pub(crate) fn to_found(&self) -> Found {
        Found {
            value: self.value.to_bytes(),
            version: self.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Key, LONGEST_COPIED_BYTES, Value, Versioned, key_of};

    #[test]
    fn an_entry_takes_forty_bytes_in_its_block() {
        assert_eq!(size_of::<Key>() + size_of::<Versioned>(), 40);
    }

    #[test]
    fn a_value_comes_back_as_it_was_and_only_a_long_one_is_shared() {
        for (length, shared) in [
            (1, false),
            (LONGEST_COPIED_BYTES, false),
            (LONGEST_COPIED_BYTES + 1, true),
        ] {
            let bytes = Bytes::from(vec![7; length]);
            let value = Value::from(bytes.clone());
            assert_eq!(value[..], bytes[..]);
            assert_eq!(value.to_bytes(), bytes);
            assert_eq!(value.to_bytes().as_ptr() == value.as_ptr(), shared, "{length}");
        }
    }

    #[test]
    fn what_is_appended_stands_behind_what_was_there() {
        let (mut value, mut expected) = (Value::from(Bytes::new()), Vec::new());
        for length in [0, 1, 511, 1, 1, 300, 1, 0, 100_000, 3, 70_000, 5] {
            let suffix = vec![u8::try_from(expected.len() % 251).unwrap(); length];
            expected.extend_from_slice(&suffix);
            value = value.appended(suffix.into());
            assert_eq!(value[..], expected[..]);
            assert_eq!(value, Value::from(Bytes::from(expected.clone())));
        }
    }

    #[test]
    fn a_long_value_grows_where_it_stands_unless_somebody_holds_it() {
        let suffix = || Bytes::from_static(b"more");
        let value = Value::from(Bytes::from(vec![7; 1_000_000])).appended(suffix());
        let at = value.as_ptr();
        let value = value.appended(suffix());
        assert_eq!(value.as_ptr(), at);
        let held = value.to_bytes();
        let value = value.appended(suffix());
        assert_ne!(value.as_ptr(), at);
        assert_eq!((held.len(), value.len()), (1_000_008, 1_000_012));
        drop(held);
        let (mut value, mut copies) = (value, 0);
        for _ in 0..100_000 {
            let before = value.as_ptr();
            value = value.appended(Bytes::from_static(b"x"));
            copies += u32::from(value.as_ptr() != before);
        }
        // There is room for 64 KiB each time.
        assert!((1..=2).contains(&copies), "{copies}");
    }

    #[test]
    fn what_is_nobody_elses_is_not_copied() {
        for length in [1, LONGEST_COPIED_BYTES, LONGEST_COPIED_BYTES + 1] {
            let bytes = Bytes::from(vec![7; length]);
            let at = bytes.as_ptr();
            assert_eq!(Value::from(bytes).as_ptr(), at, "{length}");
        }
        let bytes = Bytes::from(vec![7; 3]);
        let at = bytes.as_ptr();
        let key = key_of(bytes);
        assert_eq!(key.as_ptr(), at);
    }
}

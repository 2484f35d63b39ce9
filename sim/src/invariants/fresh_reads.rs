//! A read sees every write that was acknowledged, and everything that another read returned, before it began.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Violation;
use super::exactly_once::Token;

const NAME: &str = "fresh reads";

/// What a read must see at least.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    /// How many acknowledged appends, of those of the key.
    pub(crate) acknowledged_appends: usize,
    value: Bytes,
}

/// The freshest value of each key that anybody knows of.
///
/// Keys that are appended to only grow, so a fresh value starts with every earlier one. Keys that are put to
/// have one writer, whose values are rising numbers.
#[derive(Debug, Default)]
pub(crate) struct FreshReads {
    seen: BTreeMap<Bytes, Bytes>,
}

impl FreshReads {
    /// What a read of `key` that begins now must see.
    pub(crate) fn begin(&self, key: &Bytes, acknowledged_appends: usize) -> Floor {
        Floor {
            acknowledged_appends,
            value: self.seen.get(key).cloned().unwrap_or_default(),
        }
    }

    /// The only writer of `key` was told that `value` is there.
    pub(crate) fn put_acknowledged(&mut self, key: &Bytes, value: &Bytes) {
        self.saw(key, value, |old| number(old) < number(value));
    }

    /// A read of a key that is put to returned `value`.
    pub(crate) fn put_key_read(
        &mut self,
        key: &Bytes,
        floor: &Floor,
        value: &Bytes,
    ) -> Result<(), Violation> {
        if number(value) < number(&floor.value) {
            return Err(stale(key, floor, value));
        }
        self.saw(key, value, |old| number(old) < number(value));
        Ok(())
    }

    /// A read of a key that is appended to returned `value`, which lacks the append `lacking` that was
    /// acknowledged before the read began.
    pub(crate) fn append_key_read(
        &mut self,
        key: &Bytes,
        floor: &Floor,
        value: &Bytes,
        lacking: Option<Token>,
    ) -> Result<(), Violation> {
        if lacking.is_some() || !value.starts_with(&floor.value) {
            let mut violation = stale(key, floor, value);
            if let Some(token) = lacking {
                violation.what += &format!("; it lacks {token} which was acknowledged");
            }
            return Err(violation);
        }
        self.saw(key, value, |old| old.len() < value.len());
        Ok(())
    }

    fn saw(&mut self, key: &Bytes, value: &Bytes, is_newer_than: impl FnOnce(&Bytes) -> bool) {
        let seen = self.seen.entry(key.clone()).or_default();
        if is_newer_than(seen) {
            *seen = value.clone();
        }
    }
}

/// A missing value is older than any.
fn number(value: &Bytes) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn stale(key: &Bytes, floor: &Floor, value: &Bytes) -> Violation {
    let text = String::from_utf8_lossy;
    Violation::new(
        NAME,
        format!(
            "a read of {} returned {:?}, although {:?} was known before it began",
            text(key),
            text(value),
            text(&floor.value)
        ),
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::FreshReads;

    #[test]
    fn a_read_that_goes_back_is_caught_unless_it_began_before() {
        let key = Bytes::from("k");
        let mut invariant = FreshReads::default();
        let early = invariant.begin(&key, 0);
        invariant.put_acknowledged(&key, &Bytes::from("10"));
        let late = invariant.begin(&key, 0);
        assert!(invariant.put_key_read(&key, &early, &Bytes::from("9")).is_ok());
        assert!(invariant.put_key_read(&key, &late, &Bytes::from("10")).is_ok());
        assert!(invariant.put_key_read(&key, &late, &Bytes::from("9")).is_err());
    }

    #[test]
    fn a_value_that_is_appended_to_must_go_on_from_what_was_seen() {
        let key = Bytes::from("k");
        let mut invariant = FreshReads::default();
        let floor = invariant.begin(&key, 0);
        assert!(
            invariant
                .append_key_read(&key, &floor, &Bytes::from("1.1;1.2;"), None)
                .is_ok()
        );
        let floor = invariant.begin(&key, 0);
        assert!(
            invariant
                .append_key_read(&key, &floor, &Bytes::from("1.1;"), None)
                .is_err()
        );
    }
}

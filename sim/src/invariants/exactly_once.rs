//! Every append takes effect at most once, an acknowledged one exactly once, and each client's in the order
//! in which it sent them.
//!
//! An append adds a token `client.number;`, so a value tells its whole history.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use super::Violation;

const NAME: &str = "exactly once";

/// One append: the client and its number among that client's appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) client: u64,
    pub(crate) number: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{};", self.client, self.number)
    }
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let (client, number) = text.split_once('.')?;
        Some(Self {
            client: client.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// Tokens by client, in rising order.
#[derive(Debug, Default)]
struct Tokens {
    by_client: BTreeMap<u64, Vec<u64>>,
}

impl Tokens {
    /// Adds `token`, unless it does not come behind what there is of its client. Whether it was added.
    fn add(&mut self, token: Token) -> bool {
        let numbers = self.by_client.entry(token.client).or_default();
        let is_next = numbers.last().is_none_or(|last| *last < token.number);
        if is_next {
            numbers.push(token.number);
        }
        is_next
    }

    fn has(&self, token: Token) -> bool {
        let numbers = self.by_client.get(&token.client);
        numbers.is_some_and(|numbers| numbers.binary_search(&token.number).is_ok())
    }
}

/// The appends that were sent, and those that were acknowledged, by key and in order.
#[derive(Debug, Default)]
pub(crate) struct ExactlyOnce {
    sent: BTreeMap<Bytes, BTreeSet<Token>>,
    acknowledged: BTreeMap<Bytes, Vec<Token>>,
    /// The value of each key that was looked at last, and was in order: the next one most often goes on from it.
    last_seen: BTreeMap<Bytes, Seen>,
}

/// A value, and what it holds.
#[derive(Debug, Default)]
struct Seen {
    value: Bytes,
    held: Tokens,
}

impl ExactlyOnce {
    /// A client begins to append `token` to `key`.
    pub(crate) fn sent(&mut self, key: Bytes, token: Token) {
        self.sent.entry(key).or_default().insert(token);
    }

    /// The client was told that it is done.
    pub(crate) fn acknowledged(&mut self, key: Bytes, token: Token) {
        self.acknowledged.entry(key).or_default().push(token);
    }

    /// How many appends to `key` are acknowledged so far.
    pub(crate) fn acknowledged_count(&self, key: &Bytes) -> usize {
        self.acknowledged.get(key).map_or(0, Vec::len)
    }

    /// The value of `key`, somewhere, at some time: nothing twice, nothing foreign, nothing out of order. Returns an
    /// append among the first `count` acknowledged ones that it lacks.
    pub(crate) fn check(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        count: usize,
    ) -> Result<Option<Token>, Violation> {
        let last = self.last_seen.remove(key);
        let last = last.filter(|last| value.starts_with(&last.value));
        let Seen {
            value: from,
            mut held,
        } = last.unwrap_or_default();
        self.take_up(key, &value[from.len()..], &mut held)?;
        let mut acknowledged = self.acknowledged.get(key).into_iter().flatten().take(count);
        let lacking = acknowledged.find(|token| !held.has(**token)).copied();
        // Where a token is not ended, another value may go on with another token.
        if value.ends_with(b";") {
            let value = value.clone();
            self.last_seen.insert(key.clone(), Seen { value, held });
        }
        Ok(lacking)
    }

    /// At the end, every acknowledged append must show in `value_of` its key.
    pub(crate) fn check_all(&mut self, mut value_of: impl FnMut(&Bytes) -> Bytes) -> Result<(), Violation> {
        for key in self.sent.keys().cloned().collect::<Vec<_>>() {
            if let Some(token) = self.check(&key, &value_of(&key), usize::MAX)? {
                return Err(self.violation(&key, &format!("lacks the acknowledged append {token}")));
            }
        }
        Ok(())
    }

    /// Adds what stands in `text` to what the value of `key` holds before it.
    fn take_up(&self, key: &Bytes, text: &[u8], held: &mut Tokens) -> Result<(), Violation> {
        let sent = self.sent.get(key);
        let text = String::from_utf8_lossy(text);
        for part in text.split_terminator(';') {
            let token = Token::parse(part).filter(|token| sent.is_some_and(|sent| sent.contains(token)));
            let Some(token) = token else {
                return Err(self.violation(key, &format!("holds {part:?}, which nobody sent")));
            };
            if held.add(token) {
                continue;
            }
            let what = if held.has(token) {
                format!("holds {token} twice")
            } else {
                format!("holds {token} behind a later one of its client")
            };
            return Err(self.violation(key, &what));
        }
        Ok(())
    }

    fn violation(&self, key: &Bytes, what: &str) -> Violation {
        let sent = self.sent.get(key).map_or(0, BTreeSet::len);
        Violation::new(
            NAME,
            format!(
                "{} {what} ({sent} appends were sent)",
                String::from_utf8_lossy(key)
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{ExactlyOnce, Token};

    #[test]
    fn repeated_lost_foreign_and_reordered_appends_are_caught() {
        let key = Bytes::from("k");
        let mut invariant = ExactlyOnce::default();
        for number in 1..=3 {
            invariant.sent(key.clone(), Token { client: 1, number });
        }
        invariant.acknowledged(key, Token { client: 1, number: 1 });
        let mut check = |value: &'static str| invariant.check_all(|_| Bytes::from(value));
        assert!(check("1.1;1.3;").is_ok());
        assert!(check("1.1;1.1;").unwrap_err().what.contains("twice"));
        assert!(check("1.2;").unwrap_err().what.contains("lacks"));
        assert!(check("1.1;2.1;").unwrap_err().what.contains("nobody"));
        assert!(check("1.1;1.3;1.2;").unwrap_err().what.contains("behind"));
    }

    #[test]
    fn what_is_behind_a_value_that_was_in_order_is_looked_at_with_it() {
        let key = Bytes::from("k");
        let mut invariant = ExactlyOnce::default();
        for number in [1, 2, 3, 23] {
            invariant.sent(key.clone(), Token { client: 1, number });
        }
        for number in [1, 2, 3] {
            invariant.acknowledged(key.clone(), Token { client: 1, number });
        }
        let after_first = |invariant: &mut ExactlyOnce, value: &'static str| {
            invariant.check(&key, &Bytes::from("1.1;1.2;"), 2).unwrap();
            invariant.check(&key, &Bytes::from(value), 3)
        };
        let third = Token { client: 1, number: 3 };
        assert_eq!(after_first(&mut invariant, "1.1;1.2;1.3;"), Ok(None));
        assert_eq!(after_first(&mut invariant, "1.1;1.2;"), Ok(Some(third)));
        assert_eq!(after_first(&mut invariant, "1.1;1.2;1.23;"), Ok(Some(third)));
        assert_eq!(
            after_first(&mut invariant, "1.1;1.3;"),
            Ok(Some(Token { number: 2, ..third }))
        );
        let violation = |invariant: &mut ExactlyOnce, value| after_first(invariant, value).unwrap_err().what;
        assert!(violation(&mut invariant, "1.1;1.2;1.1;").contains("twice"));
        assert!(violation(&mut invariant, "1.1;1.2;4.1;").contains("nobody"));
        assert!(violation(&mut invariant, "1.1;1.1;1.2;").contains("twice"));
        // The token goes on, and is another one.
        assert_eq!(invariant.check(&key, &Bytes::from("1.1;1.2"), 1), Ok(None));
        assert_eq!(invariant.check(&key, &Bytes::from("1.1;1.23;"), 1), Ok(None));
    }
}

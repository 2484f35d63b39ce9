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

/// The appends that were sent, and those that were acknowledged, by key and in order.
#[derive(Debug, Default)]
pub(crate) struct ExactlyOnce {
    sent: BTreeMap<Bytes, BTreeSet<Token>>,
    acknowledged: BTreeMap<Bytes, Vec<Token>>,
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

    /// The value of `key`, somewhere, at some time: nothing twice, nothing foreign, nothing out of order.
    pub(crate) fn check(&self, key: &Bytes, value: &Bytes) -> Result<(), Violation> {
        self.tokens_of(key, value).map(drop)
    }

    /// An append among the first `count` acknowledged ones that the value of `key` lacks.
    pub(crate) fn lacking(&self, key: &Bytes, value: &Bytes, count: usize) -> Option<Token> {
        let tokens = self.tokens_of(key, value).unwrap_or_default();
        let mut acknowledged = self.acknowledged.get(key)?.iter().take(count);
        acknowledged.find(|token| !tokens.contains(token)).copied()
    }

    /// At the end, every acknowledged append must show in `value_of` its key.
    pub(crate) fn check_all(&self, mut value_of: impl FnMut(&Bytes) -> Bytes) -> Result<(), Violation> {
        for key in self.sent.keys() {
            let value = value_of(key);
            self.check(key, &value)?;
            if let Some(token) = self.lacking(key, &value, usize::MAX) {
                return Err(self.violation(key, &format!("lacks the acknowledged append {token}")));
            }
        }
        Ok(())
    }

    fn tokens_of(&self, key: &Bytes, value: &Bytes) -> Result<BTreeSet<Token>, Violation> {
        let sent = self.sent.get(key);
        let mut tokens = BTreeSet::new();
        let mut last_of = BTreeMap::new();
        let text = String::from_utf8_lossy(value);
        for part in text.split_terminator(';') {
            let token = Token::parse(part).filter(|token| sent.is_some_and(|sent| sent.contains(token)));
            let Some(token) = token else {
                return Err(self.violation(key, &format!("holds {part:?}, which nobody sent")));
            };
            if !tokens.insert(token) {
                return Err(self.violation(key, &format!("holds {token} twice")));
            }
            if last_of
                .insert(token.client, token.number)
                .is_some_and(|last| last > token.number)
            {
                return Err(self.violation(key, &format!("holds {token} behind a later one of its client")));
            }
        }
        Ok(tokens)
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
        let check = |value: &'static str| invariant.check_all(|_| Bytes::from(value));
        assert!(check("1.1;1.3;").is_ok());
        assert!(check("1.1;1.1;").unwrap_err().what.contains("twice"));
        assert!(check("1.2;").unwrap_err().what.contains("lacks"));
        assert!(check("1.1;2.1;").unwrap_err().what.contains("nobody"));
        assert!(check("1.1;1.3;1.2;").unwrap_err().what.contains("behind"));
    }
}

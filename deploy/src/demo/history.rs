//! What the clients of the demo did, and whether what the cluster holds can be the outcome of it.
//!
//! Every write carries a [`Token`] that no other write has. A `put` makes its token the key's value; an `append`
//! adds `token;` to it. One client's writes follow each other, and each put key has one writer. So from
//! the values alone it can be seen what took effect, how often, and in which order:
//!
//! - an acknowledged append is there exactly once, and after every acknowledged append that its client made
//!   before it;
//! - an append whose outcome is unknown is there once or not at all;
//! - a put key holds the last acknowledged put, or one of unknown outcome that came after it;
//! - a write that is known not to be done is not there, and neither is anything that nobody wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// What separates the tokens of a list.
const SEPARATOR: char = ';';

/// The contents of the cluster: the value of each key.
pub(crate) type Values = BTreeMap<String, String>;

/// Names one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    /// Who wrote.
    pub(crate) client: u32,
    /// The how-manieth write of the client it was, from 0.
    pub(crate) number: usize,
}

impl Token {
    /// What an append of this token adds to a list.
    pub(crate) fn list_item(self) -> String {
        format!("{self}{SEPARATOR}")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.client, self.number)
    }
}

impl FromStr for Token {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (client, number) = text.split_once('.').ok_or(())?;
        Ok(Self {
            client: client.parse().map_err(|_| ())?,
            number: number.parse().map_err(|_| ())?,
        })
    }
}

/// What a client knows of its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered: it is there.
    Acknowledged,
    /// It may have taken effect once, or not at all.
    Unknown,
    /// It had no effect.
    NotDone,
}

/// Which kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sets the value to the token.
    Put,
    /// Adds the token to a list.
    Append,
}

#[derive(Clone, Debug)]
struct Write {
    kind: Kind,
    key: String,
    outcome: Outcome,
}

/// Something that cannot be if every promise was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// An acknowledged append is not there.
    Lost { key: String, token: Token },
    /// A put key holds something else than its last put.
    WrongValue {
        key: String,
        found: Option<String>,
        expected: Option<Token>,
    },
    /// An append is there more than once.
    Duplicated { key: String, token: Token, times: usize },
    /// Two acknowledged appends of one client stand in the wrong order.
    Disordered {
        key: String,
        earlier: Token,
        later: Token,
    },
    /// Something is there that was never written, or that was reported not done.
    Unexplained { key: String, found: String },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { key, token } => write!(f, "{key}: the acknowledged append of {token} is lost"),
            Self::WrongValue { key, found, expected } => {
                let show = |value: Option<String>| value.unwrap_or_else(|| "nothing".into());
                let expected = show(expected.map(|token| token.to_string()));
                write!(
                    f,
                    "{key}: holds {}, but the last put was {expected}",
                    show(found.clone())
                )
            }
            Self::Duplicated { key, token, times } => {
                write!(f, "{key}: the append of {token} is there {times} times")
            }
            Self::Disordered { key, earlier, later } => {
                write!(
                    f,
                    "{key}: {later} stands before {earlier}, which was written first"
                )
            }
            Self::Unexplained { key, found } => {
                write!(f, "{key}: holds {found:?}, which was not written or not done")
            }
        }
    }
}

/// The writes of one client, in the order in which it made them.
#[derive(Clone, Debug)]
pub(crate) struct History {
    client: u32,
    writes: Vec<Write>,
}

impl History {
    /// No writes yet.
    pub(crate) fn new(client: u32) -> Self {
        Self {
            client,
            writes: Vec::new(),
        }
    }

    /// The token of the write that is recorded next.
    pub(crate) fn next_token(&self) -> Token {
        Token {
            client: self.client,
            number: self.writes.len(),
        }
    }

    /// Records what came of the write of [`History::next_token`].
    pub(crate) fn record(&mut self, kind: Kind, key: &str, outcome: Outcome) {
        self.writes.push(Write {
            kind,
            key: key.into(),
            outcome,
        });
    }

    /// How many writes had this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.writes
            .iter()
            .filter(|write| write.outcome == outcome)
            .count()
    }

    /// What is wrong with `value` as what `key`, which this client alone puts to, holds now.
    pub(crate) fn judge_put(&self, key: &str, value: Option<&str>) -> Option<Flaw> {
        let mut expected = None;
        let mut possible = vec![None];
        for (token, outcome) in self.writes_to(Kind::Put, key) {
            match outcome {
                Outcome::Acknowledged => (expected, possible) = (Some(token), vec![Some(token.to_string())]),
                Outcome::Unknown => possible.push(Some(token.to_string())),
                Outcome::NotDone => {}
            }
        }
        let found = value.map(str::to_owned);
        (!possible.contains(&found)).then(|| Flaw::WrongValue {
            key: key.into(),
            found,
            expected,
        })
    }

    /// What is wrong with `list` as what `key` holds now, as far as this client's appends go.
    pub(crate) fn judge_list(&self, key: &str, list: &str) -> Vec<Flaw> {
        let (tokens, mut flaws) = parse_list(key, list);
        let places = self.places_of_own(&tokens);
        let mut last: Option<(usize, Token)> = None;
        let expected: BTreeMap<_, _> = self.writes_to(Kind::Append, key).collect();
        for (&token, &outcome) in &expected {
            let found = places.get(&token).map_or(&[][..], Vec::as_slice);
            flaws.extend(flaw_in_count(key, token, outcome, found.len()));
            if let (Outcome::Acknowledged, Some(&place)) = (outcome, found.first()) {
                match last {
                    Some((before, earlier)) if before > place => {
                        flaws.push(Flaw::Disordered {
                            key: key.into(),
                            earlier,
                            later: token,
                        });
                    }
                    _ => last = Some((place, token)),
                }
            }
        }
        let unexplained = places.keys().filter(|token| !expected.contains_key(token));
        flaws.extend(unexplained.map(|token| Flaw::Unexplained {
            key: key.into(),
            found: token.to_string(),
        }));
        flaws
    }

    /// Where each token of this client stands in a list.
    fn places_of_own(&self, tokens: &[Token]) -> BTreeMap<Token, Vec<usize>> {
        let mut places: BTreeMap<Token, Vec<usize>> = BTreeMap::new();
        for (place, token) in tokens
            .iter()
            .enumerate()
            .filter(|(_, token)| token.client == self.client)
        {
            places.entry(*token).or_default().push(place);
        }
        places
    }

    fn writes_to(&self, kind: Kind, key: &str) -> impl Iterator<Item = (Token, Outcome)> {
        let numbered = self.writes.iter().enumerate();
        numbered
            .filter(move |(_, write)| write.kind == kind && write.key == key)
            .map(|(number, write)| {
                (
                    Token {
                        client: self.client,
                        number,
                    },
                    write.outcome,
                )
            })
    }

    fn keys(&self, kind: Kind) -> BTreeSet<&str> {
        self.writes
            .iter()
            .filter(|write| write.kind == kind)
            .map(|write| write.key.as_str())
            .collect()
    }
}

fn flaw_in_count(key: &str, token: Token, outcome: Outcome, times: usize) -> Option<Flaw> {
    let key = key.to_owned();
    match (outcome, times) {
        (Outcome::Acknowledged, 0) => Some(Flaw::Lost { key, token }),
        (Outcome::NotDone, 1) => Some(Flaw::Unexplained {
            key,
            found: token.to_string(),
        }),
        (_, 0 | 1) => None,
        (_, times) => Some(Flaw::Duplicated { key, token, times }),
    }
}

/// The tokens of a list, and a flaw for each piece that is none.
fn parse_list(key: &str, list: &str) -> (Vec<Token>, Vec<Flaw>) {
    let (mut tokens, mut flaws) = (Vec::new(), Vec::new());
    for piece in list.split_terminator(SEPARATOR) {
        match piece.parse() {
            Ok(token) => tokens.push(token),
            Err(()) => flaws.push(Flaw::Unexplained {
                key: key.into(),
                found: piece.into(),
            }),
        }
    }
    (tokens, flaws)
}

/// What is wrong with `values` as the outcome of all that the clients did.
pub(crate) fn judge(histories: &[History], values: &Values) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for history in histories {
        for key in history.keys(Kind::Put) {
            flaws.extend(history.judge_put(key, values.get(key).map(String::as_str)));
        }
    }
    let lists: BTreeSet<&str> = histories
        .iter()
        .flat_map(|history| history.keys(Kind::Append))
        .collect();
    for key in &lists {
        let list = values.get(*key).map_or("", String::as_str);
        flaws.extend(histories.iter().flat_map(|history| history.judge_list(key, list)));
        flaws.extend(strangers(histories, key, list));
    }
    let known: BTreeSet<&str> = histories
        .iter()
        .flat_map(|history| history.keys(Kind::Put))
        .chain(lists)
        .collect();
    let unknown = values.keys().filter(|key| !known.contains(key.as_str()));
    flaws.extend(unknown.map(|key| Flaw::Unexplained {
        key: key.clone(),
        found: values[key].clone(),
    }));
    // A piece that is no token is seen once by each history.
    flaws.dedup_by(|a, b| a == b && matches!(a, Flaw::Unexplained { .. }));
    flaws
}

/// Tokens of clients that there are not.
fn strangers(histories: &[History], key: &str, list: &str) -> Vec<Flaw> {
    let (tokens, _) = parse_list(key, list);
    let strange = tokens
        .into_iter()
        .filter(|token| histories.iter().all(|history| history.client != token.client));
    strange
        .map(|token| Flaw::Unexplained {
            key: key.into(),
            found: token.to_string(),
        })
        .collect()
}

/// How many acknowledged writes are not there.
pub(crate) fn count_lost(flaws: &[Flaw]) -> usize {
    flaws
        .iter()
        .filter(|flaw| matches!(flaw, Flaw::Lost { .. } | Flaw::WrongValue { .. }))
        .count()
}

/// How many writes are there more than once.
pub(crate) fn count_duplicated(flaws: &[Flaw]) -> usize {
    flaws
        .iter()
        .filter(|flaw| matches!(flaw, Flaw::Duplicated { .. }))
        .count()
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;

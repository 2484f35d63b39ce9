//! The trace of a run: a hash over everything that happened, and, when somebody listens, the story.

use std::collections::VecDeque;
use std::fmt::{self, Write};

use raft_core::{Message, NodeId};

use crate::clock::Micros;
use crate::describe::Described;

/// Gets every line of the trace with its time in microseconds.
pub type Listener<'a> = &'a mut dyn FnMut(u64, &str);

/// What happened so far.
pub(crate) struct Trace<'a> {
    hash: Fingerprint,
    /// The line that is told. Kept, so that most of them need no memory of their own.
    line: String,
    listener: Option<Listener<'a>>,
    /// The last lines, and how many of them are kept.
    kept: VecDeque<String>,
    keep: usize,
}

impl<'a> Trace<'a> {
    pub(crate) fn new(listener: Option<Listener<'a>>) -> Self {
        Self {
            hash: Fingerprint(0),
            line: String::new(),
            listener,
            kept: VecDeque::new(),
            keep: 0,
        }
    }

    /// Nobody listens, and the last lines are kept.
    pub(crate) fn keeping(keep: usize) -> Self {
        Self {
            keep,
            ..Self::new(None)
        }
    }

    /// The last lines, if any are kept.
    pub(crate) fn last_lines(&self) -> impl Iterator<Item = &String> {
        self.kept.iter()
    }

    fn keep(&mut self, now: Micros) {
        if self.kept.len() == self.keep {
            self.kept.pop_front();
        }
        self.kept.push_back(format!("{now:>10} {}", self.line));
    }

    /// An event of the queue took its turn. Not told: most are ticks.
    pub(crate) fn event(&mut self, now: Micros, sequence: u64) {
        self.hash.mix(now);
        self.hash.mix(sequence);
    }

    /// Something worth telling happened.
    pub(crate) fn tell(&mut self, now: Micros, what: fmt::Arguments<'_>) {
        self.put_in_words(what);
        self.hash.mix(now);
        self.hash.mix_text(&self.line);
        self.pass_on(now);
    }

    /// `message` leaves. Most lines are of this kind: if nobody hears them, they are not put in words.
    pub(crate) fn message(&mut self, now: Micros, from: NodeId, to: NodeId, message: &Message) {
        let described = Described(message);
        let Some(numbers) = described.numbers() else {
            return self.tell(now, format_args!("{from} -> {to} {described}"));
        };
        let who_and_when = [now, from.get(), to.get()];
        for number in who_and_when.into_iter().chain(numbers) {
            self.hash.mix(number);
        }
        if self.listener.is_some() || self.keep > 0 {
            self.put_in_words(format_args!("{from} -> {to} {described}"));
            self.pass_on(now);
        }
    }

    fn put_in_words(&mut self, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to memory cannot fail.
        let _ = self.line.write_fmt(what);
    }

    fn pass_on(&mut self, now: Micros) {
        match &mut self.listener {
            Some(listener) => listener(now, &self.line),
            None if self.keep > 0 => self.keep(now),
            None => {}
        }
    }

    /// The hash so far: the same for the same run in any process.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.0
    }
}

/// 64 bits of all that was mixed in: unlike the hashers of the standard library, the same in every process and
/// release. Eight bytes at a time, since every event and every line goes through it.
struct Fingerprint(u64);

impl Fingerprint {
    fn mix(&mut self, number: u64) {
        const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;
        // The product carries low bits up, the rotation brings high bits down again.
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(GOLDEN_RATIO);
    }

    fn mix_text(&mut self, text: &str) {
        self.mix(text.len() as u64);
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last));
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn every_byte_of_a_line_counts() {
        let hash = |line: &str| {
            let mut trace = Trace::new(None);
            trace.tell(3, format_args!("{line}"));
            trace.hash()
        };
        let line = "node 2 applied up to 17";
        for place in 0..line.len() {
            let mut other = line.as_bytes().to_vec();
            other[place] ^= 1;
            let other = String::from_utf8(other).unwrap();
            assert_ne!(hash(line), hash(&other), "{other}");
        }
        assert_ne!(hash("12345678"), hash("12345678\0"));
    }

    #[test]
    fn listening_does_not_change_the_hash() {
        let mut lines = Vec::new();
        let mut listener = |now: u64, line: &str| lines.push((now, line.to_owned()));
        let mut told = Trace::new(Some(&mut listener));
        let mut silent = Trace::new(None);
        for trace in [&mut told, &mut silent] {
            trace.event(3, 1);
            trace.tell(3, format_args!("node {} crashes", 2));
        }
        let hash = silent.hash();
        assert_eq!(told.hash(), hash);
        silent.tell(3, format_args!("node {} crashes", 3));
        assert_ne!(silent.hash(), hash);
        assert_eq!(lines, [(3, "node 2 crashes".to_owned())]);
    }
}

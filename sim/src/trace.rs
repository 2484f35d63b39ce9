//! The trace of a run: a hash over everything that happened, and, when somebody listens, the story.

use std::collections::VecDeque;
use std::fmt::{self, Write};

use crate::clock::Micros;

/// Gets every line of the trace with its time in microseconds.
pub type Listener<'a> = &'a mut dyn FnMut(u64, &str);

/// What happened so far.
pub(crate) struct Trace<'a> {
    hash: Fnv1a,
    listener: Option<Listener<'a>>,
    /// The last lines, and how many of them are kept.
    kept: VecDeque<String>,
    keep: usize,
}

impl<'a> Trace<'a> {
    pub(crate) fn new(listener: Option<Listener<'a>>) -> Self {
        Self {
            hash: Fnv1a::default(),
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

    fn keep(&mut self, now: Micros, what: fmt::Arguments<'_>) {
        if self.kept.len() == self.keep {
            self.kept.pop_front();
        }
        self.kept.push_back(format!("{now:>10} {what}"));
    }

    /// An event of the queue took its turn. Not told: most are ticks.
    pub(crate) fn event(&mut self, now: Micros, sequence: u64) {
        self.hash.mix(&now.to_le_bytes());
        self.hash.mix(&sequence.to_le_bytes());
    }

    /// Something worth telling happened.
    pub(crate) fn tell(&mut self, now: Micros, what: fmt::Arguments<'_>) {
        self.hash.mix(&now.to_le_bytes());
        match &mut self.listener {
            Some(listener) => {
                let line = what.to_string();
                self.hash.mix(line.as_bytes());
                listener(now, &line);
            }
            None if self.keep > 0 => self.keep(now, what),
            None => {
                // Hashing writes to memory and cannot fail.
                let _ = self.hash.write_fmt(what);
            }
        }
    }

    /// The hash so far: the same for the same run in any process.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.0
    }
}

/// FNV-1a, 64 bits: unlike the hashers of the standard library, the same in every process and release.
struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Fnv1a {
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

impl Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.mix(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

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
        assert_eq!(told.hash(), silent.hash());
        assert_eq!(lines, [(3, "node 2 crashes".to_owned())]);
    }
}

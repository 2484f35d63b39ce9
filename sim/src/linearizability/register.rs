//! One key: the operations on it that are open, and what each would make of its value.

use std::collections::HashMap;

use bytes::Bytes;

use super::bits::Bits;
use super::values::{State, Values};

/// What an operation does to one key, and what it was told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Sets it.
    Put(State),
    /// Adds to it the literal of this number.
    Append(u32),
    /// Removes it. It may have been told that the key was there.
    Delete { was_there: bool },
    /// Found it in this state, and leaves it there.
    Read(State),
}

/// An operation on one key.
#[derive(Clone, Debug)]
pub(super) struct KeyOperation {
    /// Its place in the history.
    pub(super) operation: usize,
    pub(super) effect: Effect,
    /// Whether it must take effect before it ends.
    pub(super) is_certain: bool,
}

/// A key while it is searched. Each open operation has a slot, a number that is used again when it has ended.
#[derive(Debug)]
pub(super) struct Register<const W: usize> {
    values: Values,
    literals: Vec<Bytes>,
    /// What appending a literal in a state leads to, once it is known.
    appended: HashMap<(State, u32), State>,
    slots: Vec<Option<Effect>>,
    reads: Bits<W>,
    certain_writes: Bits<W>,
    unknown_writes: Bits<W>,
}

impl<const W: usize> Register<W> {
    pub(super) fn new(values: Values, literals: Vec<Bytes>) -> Self {
        Self {
            values,
            literals,
            appended: HashMap::new(),
            slots: Vec::new(),
            reads: Bits::empty(),
            certain_writes: Bits::empty(),
            unknown_writes: Bits::empty(),
        }
    }

    /// Gives an operation a slot. There must be room for it.
    pub(super) fn open(&mut self, operation: &KeyOperation) -> usize {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let class = match (&operation.effect, operation.is_certain) {
            (Effect::Read(_), _) => &mut self.reads,
            (_, true) => &mut self.certain_writes,
            (_, false) => &mut self.unknown_writes,
        };
        *class = class.with(slot);
        self.slots[slot] = Some(operation.effect.clone());
        slot
    }

    /// Takes the slot back.
    pub(super) fn close(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.reads = self.reads.without(slot);
        self.certain_writes = self.certain_writes.without(slot);
        self.unknown_writes = self.unknown_writes.without(slot);
    }

    pub(super) fn reads(&self) -> Bits<W> {
        self.reads
    }

    pub(super) fn certain_writes(&self) -> Bits<W> {
        self.certain_writes
    }

    pub(super) fn unknown_writes(&self) -> Bits<W> {
        self.unknown_writes
    }

    /// What is known of the open operation in a slot.
    pub(super) fn effect(&self, slot: usize) -> &Effect {
        self.slots[slot]
            .as_ref()
            .expect("only slots of open operations are asked for")
    }

    /// The state after the open operation took effect in `state`, unless its answer would have been another.
    pub(super) fn apply(&mut self, slot: usize, state: State) -> Option<State> {
        match *self.effect(slot) {
            Effect::Put(next) => Some(next),
            Effect::Append(literal) => Some(self.append(state, literal)),
            Effect::Delete { was_there } => (state.is_present() || !was_there).then_some(State::ABSENT),
            Effect::Read(seen) => (seen == state).then_some(state),
        }
    }

    fn append(&mut self, state: State, literal: u32) -> State {
        if state == State::UNSEEN {
            return State::UNSEEN;
        }
        let (values, literals) = (&mut self.values, &self.literals);
        *self
            .appended
            .entry((state, literal))
            .or_insert_with(|| values.appended(state, &literals[literal as usize]))
    }
}

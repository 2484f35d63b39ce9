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

/// An open operation.
#[derive(Clone, Debug)]
struct Open<const W: usize> {
    effect: Effect,
    needs: Needs<W>,
    /// Of a write of unknown outcome: those that do the same, and were open before it.
    before: Bits<W>,
}

/// What an open read waits for: whether it can still come to see what it saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs<const W: usize> {
    /// Open writes that can complete the value.
    pub(super) open_last: Bits<W>,
    /// There will be others, or it is not known.
    pub(super) later_last: bool,
    /// Open writes that can begin the value.
    pub(super) open_first: Bits<W>,
    /// There will be others, or it is not known.
    pub(super) later_first: bool,
}

impl<const W: usize> Needs<W> {
    /// Nothing is known, so anything may come.
    pub(super) const UNKNOWN: Self = Self {
        open_last: Bits::empty(),
        later_last: true,
        open_first: Bits::empty(),
        later_first: true,
    };
}

/// A key while it is searched. Each open operation has a slot, a number that is used again when it has ended.
#[derive(Debug)]
pub(super) struct Register<const W: usize> {
    values: Values,
    literals: Vec<Bytes>,
    /// What appending a literal in a state leads to, once it is known.
    appended: HashMap<(State, u32), State>,
    /// The same for whether appending can lead from one state to another.
    begins: HashMap<(State, State), bool>,
    slots: Vec<Option<Open<W>>>,
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
            begins: HashMap::new(),
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
        let is_unknown = self.unknown_writes.has(slot);
        let alike = self.unknown_writes.iter().filter(|&other| {
            let open = self.slots[other].as_ref();
            is_unknown && open.is_some_and(|open| self.are_alike(&open.effect, &operation.effect))
        });
        let before = alike.fold(Bits::empty(), Bits::with);
        self.slots[slot] = Some(Open {
            effect: operation.effect.clone(),
            needs: Needs::UNKNOWN,
            before,
        });
        slot
    }

    /// Whether two writes of unknown outcome do the same.
    fn are_alike(&self, one: &Effect, other: &Effect) -> bool {
        match (one, other) {
            (Effect::Append(one), Effect::Append(other)) => {
                self.literals[*one as usize] == self.literals[*other as usize]
            }
            _ => one == other,
        }
    }

    /// Whether it is the turn of the open write of a slot, of all that do the same. If their outcomes are unknown, they
    /// also lapse at the same time, so that one explains as much as another, and only how many took effect matters.
    pub(super) fn has_its_turn(&self, slot: usize, used: &Bits<W>) -> bool {
        let open = self.slots[slot].as_ref();
        open.is_none_or(|open| open.before.is_subset_of(used))
    }

    /// Says what the open read of a slot waits for.
    pub(super) fn set_needs(&mut self, slot: usize, needs: Needs<W>) {
        if let Some(open) = &mut self.slots[slot] {
            open.needs = needs;
        }
    }

    /// Whether some open read that has not happened yet cannot happen any more.
    pub(super) fn is_hopeless(&mut self, used: &Bits<W>, state: State) -> bool {
        let waiting = self.reads.and_not(used);
        waiting.iter().any(|slot| {
            let Some(Open {
                effect: Effect::Read(seen),
                needs,
                ..
            }) = &self.slots[slot]
            else {
                return false;
            };
            let (seen, needs) = (*seen, *needs);
            let can = |later: bool, open: &Bits<W>| later || !open.is_subset_of(used);
            seen != state
                && !(can(needs.later_last, &needs.open_last)
                    && (can(needs.later_first, &needs.open_first) || self.begins(state, seen)))
        })
    }

    /// Whether appending to what is there can lead to `value`.
    fn begins(&mut self, state: State, value: State) -> bool {
        let values = &self.values;
        *self
            .begins
            .entry((state, value))
            .or_insert_with(|| values.begins(state, value))
    }

    /// Takes the slot back.
    pub(super) fn close(&mut self, slot: usize) {
        self.slots[slot] = None;
        for open in self.slots.iter_mut().flatten() {
            open.before = open.before.without(slot);
        }
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
        let open = self.slots[slot].as_ref();
        &open.expect("only slots of open operations are asked for").effect
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

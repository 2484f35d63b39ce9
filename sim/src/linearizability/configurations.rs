//! What one key may be now, and how it is led on from event to event.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::bits::Bits;
use super::limits::{Budget, Exhausted};
use super::register::{Effect, Register};
use super::values::State;

/// One way in which the key may have got to where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Configuration<const W: usize> {
    /// The slots of the open operations that have taken effect.
    pub(super) used: Bits<W>,
    /// What the key holds.
    pub(super) state: State,
}

/// All ways that differ, in order.
pub(super) type Configurations<const W: usize> = Vec<Configuration<W>>;

/// Where configurations are to be led.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// The operation of this slot has taken effect.
    Effect(usize),
    /// The key is in this state.
    State(State),
}

impl Goal {
    fn is_reached<const W: usize>(self, configuration: &Configuration<W>) -> bool {
        match self {
            Self::Effect(slot) => configuration.used.has(slot),
            Self::State(state) => configuration.state == state,
        }
    }

    /// Whether it is reached everywhere.
    pub(super) fn is_reached_by_all<const W: usize>(self, configurations: &[Configuration<W>]) -> bool {
        configurations
            .iter()
            .all(|configuration| self.is_reached(configuration))
    }
}

/// A configuration on the way to a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Step<const W: usize> {
    configuration: Configuration<W>,
    /// What took effect last was a write of unknown outcome, and nothing has read it yet.
    is_idle: bool,
}

/// Lets the open reads take effect that read what is there: a read that can be over has no reason to wait.
pub(super) fn let_reads_happen<const W: usize>(
    register: &Register<W>,
    configuration: Configuration<W>,
) -> Configuration<W> {
    let mut used = configuration.used;
    for slot in register.reads().iter() {
        if *register.effect(slot) == Effect::Read(configuration.state) {
            used = used.with(slot);
        }
    }
    Configuration {
        used,
        ..configuration
    }
}

/// Leads every configuration on until it reaches the goal, by all ways that differ. Those that cannot are left
/// out.
pub(super) fn lead_on<const W: usize>(
    register: &mut Register<W>,
    from: &[Configuration<W>],
    goal: Goal,
    budget: &mut Budget,
) -> Result<Configurations<W>, Exhausted> {
    let (mut reached, mut waiting, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for &configuration in from {
        if goal.is_reached(&configuration) {
            reached.push(configuration);
        } else {
            waiting.push(Step {
                configuration,
                is_idle: false,
            });
        }
    }
    budget.pay(from.len() as u64, 0)?;
    while let Some(step) = waiting.pop() {
        let mut tried = 0;
        let open = register
            .certain_writes()
            .iter()
            .chain(register.unknown_writes().iter());
        for slot in open.filter(|&slot| !step.configuration.used.has(slot)) {
            if !register.has_its_turn(slot, &step.configuration.used) {
                continue;
            }
            tried += 1;
            let Some(next) = take(register, step, slot) else {
                continue;
            };
            if goal.is_reached(&next.configuration) {
                reached.push(next.configuration);
            } else if seen.insert(next) {
                waiting.push(next);
            }
        }
        budget.pay(tried, seen.len() + reached.len())?;
    }
    drop_needless(register, reached, budget)
}

/// The step after the open write of `slot` took effect, unless it cannot or there is no point in it.
fn take<const W: usize>(register: &mut Register<W>, step: Step<W>, slot: usize) -> Option<Step<W>> {
    let state = step.configuration.state;
    let overwrites = matches!(
        register.effect(slot),
        Effect::Put(_) | Effect::Delete { was_there: false }
    );
    // What nobody read could as well never have happened.
    if step.is_idle && overwrites {
        return None;
    }
    let next = register.apply(slot, state)?;
    let is_unknown = register.unknown_writes().has(slot);
    // The same holds for what nobody will read.
    if is_unknown && (next == state || next == State::UNSEEN && state.is_present()) {
        return None;
    }
    let taken = Configuration {
        used: step.configuration.used.with(slot),
        state: next,
    };
    let configuration = let_reads_happen(register, taken);
    if register.is_hopeless(&configuration.used, configuration.state) {
        return None;
    }
    Some(Step {
        configuration,
        is_idle: is_unknown && configuration == taken,
    })
}

/// Frees the slot of an operation that has ended.
pub(super) fn forget<const W: usize>(
    register: &Register<W>,
    configurations: &[Configuration<W>],
    slot: usize,
    budget: &mut Budget,
) -> Result<Configurations<W>, Exhausted> {
    let without = configurations.iter().map(|configuration| Configuration {
        used: configuration.used.without(slot),
        ..*configuration
    });
    drop_needless(register, without.collect(), budget)
}

/// Leaves out the configurations that can do nothing that another cannot do as well.
fn drop_needless<const W: usize>(
    register: &Register<W>,
    mut configurations: Configurations<W>,
    budget: &mut Budget,
) -> Result<Configurations<W>, Exhausted> {
    if configurations.len() <= 1 {
        return Ok(configurations);
    }
    let (reads, certain, unknown) = (
        register.reads(),
        register.certain_writes(),
        register.unknown_writes(),
    );
    // Whoever makes another needless stands before it.
    configurations.sort_by_cached_key(|configuration| {
        let Configuration { used, state } = *configuration;
        let is_unseen = state == State::UNSEEN;
        let (writes, waste) = (used.and(&certain), used.and(&unknown).count());
        (
            writes,
            is_unseen,
            state,
            waste,
            Reverse(used.and(&reads).count()),
            used,
        )
    });
    configurations.dedup();
    let mut kept: Configurations<W> = Vec::with_capacity(configurations.len());
    // Where those begin that have made the same certain writes, and those in the same state as well.
    let (mut same_writes, mut same_state) = (0, 0);
    for next in configurations {
        if let Some(last) = kept.last() {
            let new_writes = last.used.and(&certain) != next.used.and(&certain);
            if new_writes {
                same_writes = kept.len();
            }
            if new_writes || last.state != next.state {
                same_state = kept.len();
            }
        }
        let rivals = if next.state == State::UNSEEN {
            same_writes
        } else {
            same_state
        };
        budget.pay_comparisons(kept.len() - rivals)?;
        let is_needless = kept[rivals..].iter().any(|other| {
            (other.state == next.state || other.state.is_present())
                && other.used.and(&unknown).is_subset_of(&next.used)
                && next.used.and(&reads).is_subset_of(&other.used)
        });
        if !is_needless {
            kept.push(next);
        }
    }
    kept.sort_unstable();
    Ok(kept)
}

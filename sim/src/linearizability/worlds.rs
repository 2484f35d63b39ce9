//! The search through one part of a history.

use std::rc::Rc;

use super::bits::Bits;
use super::configurations::{Configuration, Configurations, Goal, forget, lead_on, let_reads_happen};
use super::limits::{Budget, Exhausted};
use super::partition::{Event, Happening, Part, Scan, Subject};
use super::register::{Effect, Needs, Register};

/// A state of affairs that the answers so far allow: which open scans have taken effect, and what each key may
/// be. The keys have nothing to do with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct World<const W: usize> {
    /// In order.
    scans: Vec<usize>,
    keys: Vec<Rc<Configurations<W>>>,
}

impl<const W: usize> World<W> {
    /// Whether everything that `other` can still do can be done from here.
    fn covers(&self, other: &Self) -> bool {
        let includes = |own: &Rc<Configurations<W>>, other: &Rc<Configurations<W>>| {
            Rc::ptr_eq(own, other) || other.iter().all(|one| own.binary_search(one).is_ok())
        };
        other.scans.iter().all(|scan| self.scans.contains(scan))
            && self
                .keys
                .iter()
                .zip(&other.keys)
                .all(|(own, other)| includes(own, other))
    }
}

/// Where an operation of a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    NotYet,
    Open(usize),
    Closed,
}

impl Slot {
    fn open(self) -> Option<usize> {
        match self {
            Self::Open(slot) => Some(slot),
            Self::NotYet | Self::Closed => None,
        }
    }
}

/// The registers of a part and all worlds.
#[derive(Debug)]
struct Search<'a, const W: usize> {
    part: &'a Part,
    registers: Vec<Register<W>>,
    /// By key and operation: its slot, while it is open.
    slots: Vec<Vec<Slot>>,
    /// Whether hopeless configurations are dropped at once. Without it the search is slow, and sees a violation
    /// only when the operation ends that cannot be explained.
    looks_ahead: bool,
    open_scans: Vec<usize>,
    worlds: Vec<World<W>>,
}

impl Part {
    /// The operation of this part that cannot be explained, by its place in the history.
    pub(super) fn search(&self, budget: &mut Budget) -> Result<Option<usize>, Exhausted> {
        match self.most_open() {
            0..=64 => self.search_with::<1>(budget),
            65..=256 => self.search_with::<4>(budget),
            257..=2048 => self.search_with::<32>(budget),
            _ => Err(Exhausted::OpenOperations(Bits::<32>::CAPACITY)),
        }
    }

    fn search_with<const W: usize>(&self, budget: &mut Budget) -> Result<Option<usize>, Exhausted> {
        let found = Search::<W>::new(self, true).run(budget)?;
        if found.is_none() {
            return Ok(None);
        }
        // Who looks ahead sees it before the operation ends that is to blame.
        let blamed = Search::<W>::new(self, false).run(budget);
        Ok(blamed.unwrap_or(None).or(found))
    }

    /// How many operations of one key are open at once, at most.
    fn most_open(&self) -> usize {
        let (mut open, mut most) = (vec![0_usize; self.keys.len()], 0);
        for event in &self.events {
            if let Subject::Key { key, .. } = event.subject {
                match event.happening {
                    Happening::Start => open[key] += 1,
                    Happening::End | Happening::Lapse => open[key] -= 1,
                }
                most = most.max(open[key]);
            }
        }
        most
    }
}

impl<'a, const W: usize> Search<'a, W> {
    fn new(part: &'a Part, looks_ahead: bool) -> Self {
        let keys = part.keys.iter();
        let initial = keys.clone().map(|key| {
            let configuration = Configuration {
                used: Bits::empty(),
                state: key.initial,
            };
            Rc::new(vec![configuration])
        });
        let registers = keys
            .clone()
            .map(|key| Register::new(key.values.clone(), key.literals.clone()));
        Self {
            part,
            registers: registers.collect(),
            slots: keys
                .clone()
                .map(|key| vec![Slot::NotYet; key.operations.len()])
                .collect(),
            looks_ahead,
            open_scans: Vec::new(),
            worlds: vec![World {
                scans: Vec::new(),
                keys: initial.collect(),
            }],
        }
    }

    fn run(mut self, budget: &mut Budget) -> Result<Option<usize>, Exhausted> {
        for event in &self.part.events {
            self.handle(*event, budget)?;
            if self.worlds.is_empty() {
                return Ok(Some(self.part.operation_of(event.subject)));
            }
        }
        Ok(None)
    }

    fn handle(&mut self, event: Event, budget: &mut Budget) -> Result<(), Exhausted> {
        match (event.subject, event.happening) {
            (Subject::Key { key, operation }, Happening::Start) => self.start(key, operation)?,
            (Subject::Key { key, operation }, Happening::End) => self.end(key, operation, budget)?,
            (Subject::Key { key, operation }, Happening::Lapse) => self.free(key, operation, budget)?,
            (Subject::Scan(scan), Happening::Start) => {
                self.open_scans.push(scan);
                self.let_scans_happen();
            }
            (Subject::Scan(scan), _) => self.end_scan(scan, budget)?,
        }
        Ok(())
    }

    fn start(&mut self, key: usize, operation: usize) -> Result<(), Exhausted> {
        let part = self.part;
        let started = &part.keys[key].operations[operation];
        self.slots[key][operation] = Slot::Open(self.registers[key].open(started));
        if matches!(started.effect, Effect::Read(_)) {
            self.update_needs(key, operation);
            self.change(key, |register, from| {
                let mut after: Configurations<W> =
                    from.iter().map(|&one| let_reads_happen(register, one)).collect();
                after.retain(|one| !register.is_hopeless(&one.used, one.state));
                after.sort_unstable();
                after.dedup();
                Ok(after)
            })?;
            self.worlds.retain(|world| !world.keys[key].is_empty());
        } else {
            for &read in &part.keys[key].consequences[operation] {
                self.update_needs(key, read);
            }
        }
        Ok(())
    }

    /// Tells an open read which of the writes that can have led to what it saw are open, or still to come.
    fn update_needs(&mut self, key: usize, read: usize) {
        let slots = &self.slots[key];
        let (Slot::Open(slot), Some(causes), true) =
            (slots[read], &self.part.keys[key].causes[read], self.looks_ahead)
        else {
            return;
        };
        let open = |causes: &[usize]| {
            let open = causes.iter().filter_map(|&write| slots[write].open());
            open.fold(Bits::empty(), Bits::with)
        };
        let later = |causes: &[usize]| causes.iter().any(|&write| slots[write] == Slot::NotYet);
        let needs = Needs {
            open_last: open(&causes.last),
            later_last: later(&causes.last),
            open_first: open(&causes.first),
            later_first: later(&causes.first),
        };
        self.registers[key].set_needs(slot, needs);
    }

    fn end(&mut self, key: usize, operation: usize, budget: &mut Budget) -> Result<(), Exhausted> {
        let part = self.part;
        let concerned = |scan: &usize| part.scans[*scan].covers(key);
        let scans: Vec<usize> = self.open_scans.iter().copied().filter(concerned).collect();
        if !scans.is_empty() {
            self.branch(&scans, budget)?;
        }
        let Slot::Open(slot) = self.slots[key][operation] else {
            unreachable!("what ends has begun")
        };
        let goal = Goal::Effect(slot);
        let mut done: Vec<(Rc<Configurations<W>>, Rc<Configurations<W>>)> = Vec::new();
        for world in &mut self.worlds {
            let from = Rc::clone(&world.keys[key]);
            let known = done
                .iter()
                .find(|(known, _)| Rc::ptr_eq(known, &from) || *known == from);
            world.keys[key] = if let Some((_, to)) = known {
                Rc::clone(to)
            } else {
                let to = Rc::new(lead_on(&mut self.registers[key], &from, goal, budget)?);
                done.push((from, Rc::clone(&to)));
                to
            };
        }
        self.worlds.retain(|world| !world.keys[key].is_empty());
        self.free(key, operation, budget)
    }

    /// Ends an operation that has taken effect everywhere, or may never.
    fn free(&mut self, key: usize, operation: usize, budget: &mut Budget) -> Result<(), Exhausted> {
        let Slot::Open(slot) = self.slots[key][operation] else {
            return Ok(());
        };
        self.slots[key][operation] = Slot::Closed;
        self.registers[key].close(slot);
        for &read in &self.part.keys[key].consequences[operation] {
            self.update_needs(key, read);
        }
        self.change(key, |register, from| forget(register, from, slot, budget))?;
        if !self.open_scans.is_empty() {
            self.let_scans_happen();
        }
        self.drop_needless();
        Ok(())
    }

    /// Changes what a key may be, in every world.
    fn change(
        &mut self,
        key: usize,
        mut change: impl FnMut(&mut Register<W>, &[Configuration<W>]) -> Result<Configurations<W>, Exhausted>,
    ) -> Result<(), Exhausted> {
        let mut done: Vec<(Rc<Configurations<W>>, Rc<Configurations<W>>)> = Vec::new();
        for world in &mut self.worlds {
            let from = &world.keys[key];
            let to = match done.iter().find(|(known, _)| Rc::ptr_eq(known, from)) {
                Some((_, to)) => Rc::clone(to),
                None => {
                    let to = Rc::new(change(&mut self.registers[key], from)?);
                    done.push((Rc::clone(from), Rc::clone(&to)));
                    to
                }
            };
            world.keys[key] = to;
        }
        Ok(())
    }

    fn end_scan(&mut self, scan: usize, budget: &mut Budget) -> Result<(), Exhausted> {
        let scans = self.open_scans.clone();
        self.branch(&scans, budget)?;
        self.worlds.retain(|world| world.scans.contains(&scan));
        for world in &mut self.worlds {
            world.scans.retain(|other| *other != scan);
        }
        self.open_scans.retain(|other| *other != scan);
        self.drop_needless();
        Ok(())
    }

    /// Adds the worlds in which some of `scans` take effect now, in any order.
    fn branch(&mut self, scans: &[usize], budget: &mut Budget) -> Result<(), Exhausted> {
        let mut next = 0;
        while next < self.worlds.len() {
            for &scan in scans {
                if self.worlds[next].scans.contains(&scan) {
                    continue;
                }
                if let Some(world) = self.after_scan(next, scan, budget)?
                    && !self.worlds.iter().any(|other| other.covers(&world))
                {
                    self.worlds.push(world);
                }
            }
            next += 1;
        }
        Ok(())
    }

    /// The world after a scan took effect in another, if it can.
    fn after_scan(
        &mut self,
        world: usize,
        scan: usize,
        budget: &mut Budget,
    ) -> Result<Option<World<W>>, Exhausted> {
        let mut after = self.worlds[world].clone();
        for &(key, state) in &self.part.scans[scan].read {
            let (goal, from) = (Goal::State(state), &mut after.keys[key]);
            budget.pay(1, self.worlds.len())?;
            if goal.is_reached_by_all(from) {
                continue;
            }
            *from = Rc::new(lead_on(&mut self.registers[key], from, goal, budget)?);
            if from.is_empty() {
                return Ok(None);
            }
        }
        after.scans.push(scan);
        after.scans.sort_unstable();
        Ok(Some(after))
    }

    /// Lets the open scans take effect that read what is there in every case: they have no reason to wait.
    fn let_scans_happen(&mut self) {
        for world in &mut self.worlds {
            for &scan in &self.open_scans {
                let read = &self.part.scans[scan].read;
                let fits =
                    |&(key, state): &(usize, _)| Goal::State(state).is_reached_by_all(&world.keys[key]);
                if !world.scans.contains(&scan) && read.iter().all(fits) {
                    world.scans.push(scan);
                }
            }
            world.scans.sort_unstable();
        }
    }

    /// Leaves out the worlds that can do nothing that another cannot do as well.
    fn drop_needless(&mut self) {
        if self.worlds.len() <= 1 {
            return;
        }
        let mut kept: Vec<World<W>> = Vec::with_capacity(self.worlds.len());
        for world in std::mem::take(&mut self.worlds) {
            if !kept.iter().any(|other| other.covers(&world)) {
                kept.retain(|other| !world.covers(other));
                kept.push(world);
            }
        }
        self.worlds = kept;
    }
}

impl Part {
    fn operation_of(&self, subject: Subject) -> usize {
        match subject {
            Subject::Key { key, operation } => self.keys[key].operations[operation].operation,
            Subject::Scan(scan) => self.scans[scan].operation,
        }
    }
}

impl Scan {
    fn covers(&self, key: usize) -> bool {
        // The keys are in order, as a page is.
        self.read.binary_search_by_key(&key, |&(key, _)| key).is_ok()
    }
}

//! The power fails after every write and every sync of a workload, and unsynced data is lost whole, in part and
//! out of order: each time the store opens with the state before or after the step under way, and with all
//! that was acknowledged.
//!
//! `STORAGE_CRASH_SEEDS=20 cargo test -p storage --test it crash_points -- --nocapture` tries more.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use crate::scripted::{Session, Step, append, everything, read_all, turnover, vote};
use faulty_disk::{Disk, Event, Image, Inode, Survival};
use raft_core::{Restored, Storage as _};
use storage::StorageError;

/// How many seeds each way to lose data in part is tried with, at each point.
fn seeds() -> u64 {
    let asked = std::env::var("STORAGE_CRASH_SEEDS").ok();
    asked.map_or(1, |text| text.parse().expect("STORAGE_CRASH_SEEDS is a number"))
}

/// A number that is the same for the same image, in this process.
#[derive(Debug, Default)]
struct Seen {
    hasher: RandomState,
    images: HashSet<u64>,
}

impl Seen {
    fn is_new(&mut self, context: usize, image: &Image) -> bool {
        self.images.insert(self.hasher.hash_one((context, image)))
    }
}

/// Every way to lose power at `position`: whole, in part, out of order, and not at all.
fn survivals(position: usize) -> Vec<Survival> {
    let mut all = vec![Survival::Nothing, Survival::Everything];
    for number in 0..seeds() {
        let seed = number << 32 | position as u64;
        all.extend([
            Survival::Torn { seed },
            Survival::Scattered { seed },
            Survival::ScatteredPages { seed },
        ]);
    }
    all
}

/// What a store may hold if the disk stops at `position`: exactly what was acknowledged there, or else the state
/// before or after the step under way. With the step's number.
fn allowed(steps: &[Step], position: usize) -> (usize, Vec<&Restored>) {
    let number = steps.iter().position(|step| step.end >= position).unwrap();
    let before = number.saturating_sub(1);
    let states = if steps[number].end == position {
        // Several steps may have ended here without an event of their own.
        let last = steps.iter().rposition(|step| step.end == position).unwrap();
        vec![&steps[last].state]
    } else {
        vec![&steps[before].state, &steps[number].state]
    };
    (number, states)
}

/// Opens what the disk holds, compares, and has the store do one more thing.
fn check(image: &Image, allowed: &[&Restored], what: &str) {
    let dir = tempfile::tempdir().unwrap();
    image.write_to(dir.path()).unwrap();
    let node = dir.path().join("node");
    let (mut store, restored) =
        read_all(&node).unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
    assert!(
        allowed.iter().any(|state| **state == restored),
        "{what}: a state that never was: {:?} {:?} and {} entries",
        restored.hard_state,
        restored.snapshot,
        restored.entries.len(),
    );
    store
        .write(&[vote(99)])
        .unwrap_or_else(|error| panic!("{what}: does not go on: {error}"));
}

/// The workload on a recorded disk; `None` where there is no FUSE.
fn record(workload: impl FnOnce(&mut Session) -> Result<(), StorageError>) -> Option<(Disk, Vec<Step>)> {
    let disk = Disk::new().recording();
    let mount = disk
        .mount()
        .map_err(|unavailable| println!("{unavailable}"))
        .ok()?;
    let clock = disk.clone();
    let mut session = Session::new(&mount.path().join("node"), Box::new(move || clock.recorded()));
    workload(&mut session).unwrap();
    let steps = session.steps().to_vec();
    Some((disk, steps))
}

#[test]
fn every_crash_point_reopens_to_before_or_after_with_all_that_was_acknowledged() {
    let Some((disk, steps)) = record(everything) else {
        return;
    };
    let mut replay = disk.replay();
    let mut seen = Seen::default();
    let (mut points, mut losses, mut opened) = (0, 0, 0);
    let last = steps.last().unwrap().end;
    loop {
        points += 1;
        let position = replay.position();
        let (step, allowed) = allowed(&steps, position);
        for survival in survivals(position) {
            losses += 1;
            let image = replay.after_power_loss(survival);
            if seen.is_new(allowed.len() * 1000 + step, &image) {
                opened += 1;
                let what = format!(
                    "event {position} in step {step} ({}), {survival:?}",
                    steps[step].name
                );
                check(&image, &allowed, &what);
            }
        }
        if position == last || replay.step().is_none() {
            break;
        }
    }
    assert!(points > 100, "the workload makes many events, not {points}");
    println!(
        "{points} crash points in {} steps, {losses} power losses, {opened} different disks opened",
        steps.len()
    );
}

/// The program is killed, started again on what the operating system still holds, acknowledges a vote and an
/// append, and then the power fails: whatever it built upon must have become durable with them.
#[test]
fn what_a_restarted_store_builds_upon_survives_a_power_loss_after_it() {
    let Some((disk, steps)) = record(everything) else {
        return;
    };
    let mut replay = disk.replay();
    let stride = usize::try_from(40 / seeds().min(40)).unwrap();
    let (mut kills, mut losses) = (0, 0);
    let last = steps.last().unwrap().end;
    while let Some(event) = replay.step() {
        // A name that was not synced is what a restart takes for granted most easily.
        let is_about_names = matches!(
            event,
            Event::Create { .. } | Event::Rename { .. } | Event::Remove { .. }
        );
        let position = replay.position();
        if position > last || !(is_about_names || position % stride == 0) {
            continue;
        }
        let (step, allowed) = allowed(&steps, position);
        let what = format!("killed at event {position} in step {step} ({})", steps[step].name);
        losses += kill_restart_and_lose_power(&replay.disk(), &allowed, &what);
        kills += 1;
    }
    println!("{kills} kills and restarts, {losses} power losses after them");
}

fn kill_restart_and_lose_power(killed: &Disk, allowed: &[&Restored], what: &str) -> usize {
    let disk = killed.clone().recording();
    let mount = disk.mount().unwrap();
    let node = mount.path().join("node");
    let (store, found) = read_all(&node).unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
    assert!(allowed.contains(&&found), "{what}: a state that never was");
    drop(store);
    let clock = disk.clone();
    let mut session = Session::continuing(&node, Box::new(move || clock.recorded()), &found);
    session.open("restart").unwrap();
    let next = found
        .entries
        .last()
        .map_or(found.snapshot.last_included_index, |entry| entry.index)
        .get()
        + 1;
    session.write("vote", &[vote(50)]).unwrap();
    session
        .write("append", &[append(50, next, next + 2, 900)])
        .unwrap();
    let [opened, voted, appended] = session.steps() else {
        unreachable!("three steps were made")
    };
    let mut losses = 0;
    let mut replay = disk.replay();
    for (position, states) in [
        (opened.end / 2, allowed.to_vec()),
        (opened.end, allowed.to_vec()),
        ((opened.end + voted.end) / 2, vec![&found, &voted.state]),
        (voted.end, vec![&voted.state]),
        (appended.end, vec![&appended.state]),
    ] {
        // Between the end of the opening and the vote there may be nothing: then it is as before.
        let states = if position <= opened.end {
            allowed.to_vec()
        } else {
            states
        };
        replay.step_to(position);
        for survival in [
            Survival::Nothing,
            Survival::Scattered {
                seed: position as u64,
            },
        ] {
            check(
                &replay.after_power_loss(survival),
                &states,
                &format!("{what}, then {survival:?}"),
            );
            losses += 1;
        }
    }
    losses
}

/// How long a segment of sled's file is.
const SEGMENT_BYTES: u64 = 8 << 20;

/// What was written to sled's file between two syncs of it, by the positions after each write and after the sync.
#[derive(Debug, Default)]
struct Unsynced {
    positions: Vec<usize>,
    bytes: u64,
    in_place_bytes: u64,
}

/// How sled's file was written, from sync to sync, and how long it was at most.
fn writes_of_sled(disk: &Disk) -> (Vec<Unsynced>, u64) {
    let mut replay = disk.replay();
    let mut file: Option<Inode> = None;
    let (mut all, mut length) = (Vec::new(), 0);
    let mut current = Unsynced::default();
    while let Some(event) = replay.step().cloned() {
        match event {
            Event::Create { name, inode, .. } if name == "db" => file = Some(inode),
            Event::Write { inode, offset, data } if Some(inode) == file => {
                let end = offset + data.len() as u64;
                current.bytes += end - offset;
                current.in_place_bytes += end.min(length).saturating_sub(offset);
                length = length.max(end);
                current.positions.push(replay.position());
            }
            Event::Sync { inode } if Some(inode) == file => {
                current.positions.push(replay.position());
                all.push(std::mem::take(&mut current));
            }
            _ => {}
        }
    }
    all.push(current);
    (all, length)
}

/// Points in and right after checkpoints that write more than a root, where sled uses segments anew.
fn sample(writes: &[Unsynced], count: u64) -> BTreeSet<usize> {
    let large: Vec<_> = writes
        .iter()
        .filter(|unsynced| unsynced.in_place_bytes > 64 * 1024)
        .collect();
    let draw = |seed: u64, bound: usize| {
        let mixed = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(mixed).unwrap() % bound
    };
    let points = (0..count).map(|seed| {
        let positions = &large[draw(seed, large.len())].positions;
        // Right after the sync, right before it, or anywhere.
        let from_the_end = match seed % 4 {
            0 => 0,
            1 | 2 => 1,
            _ => draw(seed ^ 0x5eed, positions.len()),
        };
        positions[positions.len() - 1 - from_the_end.min(positions.len() - 1)]
    });
    points.collect()
}

/// A segment that is free is soon written over. What made it free, pages that went elsewhere, must be durable then.
#[test]
fn sled_uses_no_segment_anew_before_what_replaces_it_is_durable() {
    let Some((disk, steps)) = record(turnover) else {
        return;
    };
    let (writes, length) = writes_of_sled(&disk);
    let written: u64 = writes.iter().map(|unsynced| unsynced.bytes).sum();
    let anew = written.saturating_sub(length) / SEGMENT_BYTES;
    assert!(
        anew >= 10,
        "{written} bytes written to a file of {length}: {anew} segments"
    );
    let last = steps.last().unwrap().end;
    let mut replay = disk.replay();
    let mut losses = 0;
    for position in sample(&writes, 4 * seeds()) {
        let position = position.min(last);
        replay.step_to(position);
        let (step, allowed) = allowed(&steps, position);
        let seed = position as u64;
        for survival in [
            Survival::Nothing,
            Survival::Scattered { seed },
            Survival::InPlace,
            Survival::Growth,
        ] {
            let what = format!(
                "event {position} in step {step} ({}), {survival:?}",
                steps[step].name
            );
            check(&replay.after_power_loss(survival), &allowed, &what);
            losses += 1;
        }
    }
    println!("{anew} segments used anew, {losses} power losses");
}

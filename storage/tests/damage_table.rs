//! Every kind of damage to every file of a real data directory: the store refuses, or has lost nothing.
//!
//! ```text
//! STORAGE_DAMAGE_STRIDE=512 cargo test --release -p storage --test it damage_table -- --nocapture
//! ```
//!
//! damages every 512th byte of the large files and every 8th of the small ones, and prints the table that stands
//! in `docs/damage.md`; without it some twenty places in each file are damaged.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::identity;
use crate::scripted::{Session, append, everything, read_all, vote, within_deadline};
use faulty_disk::{Content, Image};
use raft_core::{NodeId, Restored, Storage as _};
use storage::conformance::initial_configuration;
use storage::{Identity, Options, SledStorage};

/// Files shorter than this are damaged in more places.
const SMALL_BYTES: u64 = 64 * 1024;

fn stride() -> Option<u64> {
    let asked = std::env::var("STORAGE_DAMAGE_STRIDE").ok();
    asked.map(|text| text.parse().expect("STORAGE_DAMAGE_STRIDE is a number"))
}

/// A data directory, what it was before, and what it holds.
struct Origin {
    image: Image,
    /// After each step of its history.
    earlier: Vec<Image>,
    states: Vec<Restored>,
    intact: Restored,
}

fn make_origin() -> Origin {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node");
    let images = Rc::new(RefCell::new(Vec::new()));
    let clock = {
        let (images, node) = (Rc::clone(&images), node.clone());
        Box::new(move || {
            images.borrow_mut().push(Image::read_from(&node).unwrap());
            images.borrow().len()
        })
    };
    let mut session = Session::new(&node, clock);
    everything(&mut session).unwrap();
    session.close();
    let states: Vec<Restored> = session.steps().iter().map(|step| step.state.clone()).collect();
    let earlier = images.borrow().clone();
    Origin {
        image: Image::read_from(&node).unwrap(),
        earlier,
        intact: states.last().unwrap().clone(),
        states,
    }
}

/// A directory with something wrong.
struct Damaged {
    kind: &'static str,
    what: String,
    image: Image,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Refused,
    Harmless,
    Wrong(String),
}

/// Spreads the places over a file: the same ones in every run.
fn places(length: u64) -> impl Iterator<Item = u64> {
    let step = match stride() {
        Some(stride) if length >= SMALL_BYTES => stride,
        Some(stride) => (stride / 64).max(1),
        None => (length / 20).max(1),
    };
    // Not always the same place in a record or a sector.
    (0..length)
        .step_by(usize::try_from(step).unwrap())
        .enumerate()
        .map(move |(number, at)| {
            let shift = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            (at + shift % step).min(length - 1)
        })
}

fn with_file(image: &Image, path: &Path, content: Content) -> Image {
    let mut image = image.clone();
    image.put(path, content);
    image
}

type Cases<'a> = Box<dyn Iterator<Item = Damaged> + 'a>;

/// One bit in one byte.
fn flips<'a>(image: &'a Image, path: &'a Path, content: &'a Content) -> Cases<'a> {
    Box::new(places(content.length()).map(move |at| {
        let mut flipped = content.clone();
        let byte = content.read(at, 1)[0] ^ (1 << (at * 5 % 8));
        flipped.write(at, &[byte]);
        let what = format!("{} at {at}", path.display());
        Damaged {
            kind: "a flipped bit",
            what,
            image: with_file(image, path, flipped),
        }
    }))
}

fn cuts<'a>(image: &'a Image, path: &'a Path, content: &'a Content) -> Cases<'a> {
    Box::new(places(content.length()).map(move |length| {
        let mut cut = content.clone();
        cut.resize(length);
        let what = format!("{} to {length}", path.display());
        Damaged {
            kind: "a file cut short",
            what,
            image: with_file(image, path, cut),
        }
    }))
}

fn zeros<'a>(image: &'a Image, path: &'a Path, content: &'a Content) -> Cases<'a> {
    let ranges = places(content.length()).flat_map(|at| [(at / 512 * 512, 512), (at / 4096 * 4096, 4096)]);
    let distinct: std::collections::BTreeSet<(u64, usize)> = ranges.collect();
    Box::new(distinct.into_iter().filter_map(move |(at, length)| {
        let mut zeroed = content.clone();
        zeroed.write(at, &vec![0; length]);
        zeroed.resize(content.length());
        let what = format!("{} {length} bytes at {at}", path.display());
        let image = with_file(image, path, zeroed.clone());
        (zeroed != *content).then_some(Damaged {
            kind: "a range of zeros",
            what,
            image,
        })
    }))
}

fn extensions<'a>(image: &'a Image, path: &'a Path, content: &'a Content) -> Cases<'a> {
    let tails = [1_usize, 100, 512, 4096, 100_000].into_iter().flat_map(|length| {
        [
            vec![0; length],
            vec![0xa5; length],
            content.read(0, length as u64),
        ]
    });
    Box::new(tails.map(move |tail| {
        let mut longer = content.clone();
        longer.write(content.length(), &tail);
        let what = format!("{} by {}", path.display(), tail.len());
        Damaged {
            kind: "a file made longer",
            what,
            image: with_file(image, path, longer),
        }
    }))
}

fn removals(image: &Image) -> Cases<'_> {
    let paths: Vec<PathBuf> = image
        .files()
        .map(|(path, _)| path)
        .chain(image.directories())
        .map(Path::to_path_buf)
        .collect();
    Box::new(paths.into_iter().map(move |path| {
        let mut without = image.clone();
        without.remove(&path);
        let what = path.display().to_string();
        Damaged {
            kind: "a file or directory removed",
            what,
            image: without,
        }
    }))
}

/// Each file as it is in `other`.
fn replacements<'a>(kind: &'static str, image: &'a Image, other: &'a Image, from: String) -> Cases<'a> {
    Box::new(other.files().filter_map(move |(path, content)| {
        let what = format!("{} from {from}", path.display());
        let changed = image.file(path) != Some(content);
        changed.then(|| Damaged {
            kind,
            what,
            image: with_file(image, path, content.clone()),
        })
    }))
}

/// Each top directory or file, with all in it, as it is in `other`.
fn part_replacements<'a>(kind: &'static str, image: &'a Image, other: &'a Image, from: String) -> Cases<'a> {
    let tops: Vec<PathBuf> = image
        .directories()
        .filter(|path| path.components().count() == 1)
        .map(Path::to_path_buf)
        .collect();
    Box::new(tops.into_iter().filter_map(move |top| {
        let mut mixed = image.clone();
        mixed.remove(&top);
        mixed.put_all(other, &top);
        let what = format!("{} from {from}", top.display());
        (mixed != *image).then_some(Damaged {
            kind,
            what,
            image: mixed,
        })
    }))
}

fn all_cases<'a>(origin: &'a Origin, other_node: &'a Image) -> Cases<'a> {
    let image = &origin.image;
    let in_files = image.files().flat_map(move |(path, content)| {
        flips(image, path, content)
            .chain(cuts(image, path, content))
            .chain(zeros(image, path, content))
            .chain(extensions(image, path, content))
    });
    let step = if stride().is_some() { 1 } else { 6 };
    let earlier = origin.earlier.iter().enumerate().step_by(step);
    let old = earlier.flat_map(move |(number, old)| {
        replacements("an old copy of one file", image, old, format!("step {number}")).chain(
            part_replacements(
                "an old copy of one directory in it",
                image,
                old,
                format!("step {number}"),
            ),
        )
    });
    let foreign =
        replacements("a file of another node", image, other_node, "node 2".into()).chain(part_replacements(
            "a directory in it of another node",
            image,
            other_node,
            "node 2".into(),
        ));
    let swapped = std::iter::once_with(move || Damaged {
        kind: "two nodes' directories swapped",
        what: "node 2".into(),
        image: other_node.clone(),
    });
    Box::new(
        in_files
            .chain(removals(image))
            .chain(old)
            .chain(foreign)
            .chain(swapped),
    )
}

/// Opens the directory and compares; every fourth time, goes on writing too.
fn judge(image: Image, intact: Restored, number: usize) -> Verdict {
    let judged = within_deadline(move || {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("node");
        image.write_to(&node).unwrap();
        let (mut store, found) = match read_all(&node) {
            Err(_) => return Verdict::Refused,
            Ok(opened) => opened,
        };
        if found != intact {
            return Verdict::Wrong(format!(
                "it holds {:?} and {} entries",
                found.hard_state,
                found.entries.len()
            ));
        }
        if number.is_multiple_of(4) {
            let written = store.write(&[vote(99)]).and_then(|()| store.restore());
            drop(store);
            match (written, read_all(&node)) {
                (Ok(written), Ok((_, found))) if written == found => {}
                (written, read) => {
                    return Verdict::Wrong(format!("it does not go on: {written:?}, {:?}", read.err()));
                }
            }
        }
        Verdict::Harmless
    });
    judged.unwrap_or_else(Verdict::Wrong)
}

#[derive(Debug, Default)]
struct Row {
    cases: usize,
    refused: usize,
    harmless: usize,
    wrong: Vec<String>,
}

/// Judges all cases, on as many threads as there are processors.
fn judge_all(origin: &Origin, cases: Cases<'_>) -> BTreeMap<&'static str, Row> {
    let queue = Mutex::new(
        cases
            .map(|Damaged { kind, what, image }| (kind, what, image))
            .collect::<Vec<_>>(),
    );
    let rows = Mutex::new(BTreeMap::<&'static str, Row>::new());
    let number = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some((kind, what, image)) = queue.lock().unwrap().pop() else {
                        return;
                    };
                    let verdict = judge(
                        image,
                        origin.intact.clone(),
                        number.fetch_add(1, Ordering::Relaxed),
                    );
                    let mut rows = rows.lock().unwrap();
                    let row = rows.entry(kind).or_default();
                    row.cases += 1;
                    match verdict {
                        Verdict::Refused => row.refused += 1,
                        Verdict::Harmless => row.harmless += 1,
                        Verdict::Wrong(why) => row.wrong.push(format!("{what}: {why}")),
                    }
                }
            });
        }
    });
    rows.into_inner().unwrap()
}

fn print_table(rows: &BTreeMap<&'static str, Row>) {
    println!("| damage | cases | refused | harmless | wrong |");
    println!("|---|---:|---:|---:|---:|");
    for (
        kind,
        Row {
            cases,
            refused,
            harmless,
            wrong,
        },
    ) in rows
    {
        println!("| {kind} | {cases} | {refused} | {harmless} | {} |", wrong.len());
    }
    let sum = |number: fn(&Row) -> usize| rows.values().map(number).sum::<usize>();
    println!(
        "| all | {} | {} | {} | {} |",
        sum(|row| row.cases),
        sum(|row| row.refused),
        sum(|row| row.harmless),
        sum(|row| row.wrong.len())
    );
}

/// The directory of node 2 of the same cluster, with a history of its own.
fn make_other_node() -> Image {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity {
        node_id: NodeId(2),
        ..identity()
    };
    let mut store = SledStorage::open(
        dir.path(),
        &identity,
        &initial_configuration(),
        &Options::default(),
    )
    .unwrap();
    store.write(&[vote(2), append(2, 1, 30, 500)]).unwrap();
    drop(store);
    Image::read_from(dir.path()).unwrap()
}

#[test]
fn damage_is_refused_or_harmless_and_never_loses_anything_silently() {
    let origin = make_origin();
    let other_node = make_other_node();
    let rows = judge_all(&origin, all_cases(&origin, &other_node));
    print_table(&rows);
    for (kind, row) in &rows {
        assert!(row.wrong.is_empty(), "{kind}: {:#?}", row.wrong);
    }
    let refused: usize = rows.values().map(|row| row.refused).sum();
    assert!(refused > 50, "some of the damage must have hit something");
}

/// What no store can tell by itself. The cluster can.
#[test]
fn an_emptied_directory_and_an_old_copy_of_all_of_it_look_new_and_whole() {
    let origin = make_origin();
    let opened = |image: &Image| {
        let dir = tempfile::tempdir().unwrap();
        image.write_to(dir.path()).unwrap();
        read_all(dir.path()).unwrap().1
    };
    let new = opened(&Image::default());
    assert_eq!(new.entries, []);
    let mut old_copies = 0;
    for (old, state) in origin.earlier.iter().zip(&origin.states).step_by(4) {
        assert_eq!(opened(old), *state);
        old_copies += 1;
    }
    println!(
        "cannot be told by a store alone: all of the directory removed (1 case), an old copy of all of it ({old_copies} cases)"
    );
}

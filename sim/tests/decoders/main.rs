//! Decoders of bytes from outside and from disk, given good bytes with a few things wrong, the same ones each time.
//!
//! `sim/fuzz` looks for more with libFuzzer.

mod targets;

use std::alloc::System;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cap::Cap;
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use targets::{Kinds, TARGETS, Target};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// So many inputs for each decoder.
const INPUTS: u64 = 3_000;
/// No decoder may allocate more in all for one input. The inputs have a few kilobytes; a decoder may set room aside for
/// the largest value there can be, 1 MiB, before it sees that the bytes are not there, and a few buffers.
const MOST_BYTES: usize = 8 << 20;

/// Numbers that are lengths, tags and limits.
const INTERESTING: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xfb,
    0xff,
    0xffff,
    0x0010_0001,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 60,
    u64::MAX,
];

/// So many of the first bytes of each seed are damaged one by one: there stand lengths, tags and numbers.
const FIRST_BYTES: usize = 64;
/// What they are set to.
const INTERESTING_BYTES: [u8; 9] = [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];

/// One test alone, as what is allocated is counted for the whole process.
#[test]
fn no_bytes_make_a_decoder_panic_or_allocate_what_they_only_claim() {
    for target in &TARGETS {
        let seeds = (target.seeds)();
        check_seeds(target, &seeds);
        for damaged in seeds.iter().flat_map(|seed| damaged_one_by_one(seed)) {
            check(target, &damaged);
        }
        let inputs = (0..INPUTS).map(|number| input(&seeds, number));
        let refused = inputs.filter(|input| check(target, input).is_empty());
        assert!(
            refused.count() > 0,
            "{} is given nothing that is damaged",
            target.name
        );
    }
}

/// Each seed decodes, and together they are of all kinds.
fn check_seeds(target: &Target, seeds: &[Vec<u8>]) {
    let name = target.name;
    let mut kinds = BTreeSet::new();
    for seed in seeds {
        let found = check(target, seed);
        assert!(
            !found.is_empty(),
            "{name} has a seed that does not decode: {seed:?}"
        );
        kinds.extend(found);
    }
    let all = target.kinds.iter().copied().map(str::to_owned).collect();
    assert_eq!(
        kinds, all,
        "{name} has no valid seed for some kind, or one for a kind that is not named"
    );
}

/// What `input` was taken for.
fn check(target: &Target, input: &[u8]) -> Kinds {
    let before = ALLOCATOR.total_allocated();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let allocated = ALLOCATOR.total_allocated() - before;
    assert!(outcome.is_ok(), "{} panics at {input:?}", target.name);
    assert!(
        allocated <= MOST_BYTES,
        "{} allocates {allocated} bytes at {input:?}",
        target.name
    );
    outcome.unwrap_or_default()
}

/// The seed cut at, and with another value for, each of its first bytes.
fn damaged_one_by_one(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..seed.len().min(FIRST_BYTES)).flat_map(move |at| {
        let set = INTERESTING_BYTES.map(|byte| {
            let mut damaged = seed.to_vec();
            damaged[at] = byte;
            damaged
        });
        set.into_iter().chain([seed[..at].to_vec()])
    })
}

/// A seed with a few changes; the same number always gives the same.
fn input(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = Pcg64Mcg::seed_from_u64(number);
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..5) {
        change(&mut random, seeds, &mut bytes);
    }
    bytes
}

fn change(random: &mut Pcg64Mcg, seeds: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => {
            let number = INTERESTING[random.random_range(0..INTERESTING.len())];
            let width = [1, 2, 4, 8][random.random_range(0..4)];
            let little = random.random_bool(0.5);
            let number = if little {
                number.to_le_bytes()
            } else {
                number.to_be_bytes()
            };
            let number = if little {
                &number[..width]
            } else {
                &number[8 - width..]
            };
            let end = (at + width).min(bytes.len());
            bytes.splice(at..end, number.iter().copied());
        }
        4 => {
            let end = random.random_range(at..=bytes.len());
            let repeated = bytes[at..end].to_vec();
            bytes.splice(at..at, repeated);
        }
        5 => {
            let other = &seeds[random.random_range(0..seeds.len())];
            let from = random.random_range(0..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => bytes.insert(at, random.random()),
    }
}

#[test]
fn the_same_number_is_the_same_input() {
    let seeds = vec![vec![1, 2, 3, 4], vec![5; 20]];
    assert_eq!(input(&seeds, 9), input(&seeds, 9));
    assert!((0..20).any(|number| input(&seeds, number) != input(&seeds, number + 1)));
}

#[test]
fn each_decoder_has_a_fuzz_target_of_its_name_and_the_other_way_round() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");
    let manifest = fs::read_to_string(format!("{dir}/Cargo.toml")).unwrap();
    let mut files: Vec<String> = fs::read_dir(format!("{dir}/fuzz_targets"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut expected: Vec<String> = TARGETS
        .iter()
        .map(|target| format!("{}.rs", target.name))
        .collect();
    expected.sort();
    assert_eq!(files, expected);
    for Target { name, .. } in &TARGETS {
        let text = fs::read_to_string(format!("{dir}/fuzz_targets/{name}.rs")).unwrap();
        assert!(
            text.contains(&format!("targets::run(\"{name}\", bytes)")),
            "{name}"
        );
        assert!(
            manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
    }
}

//! What is left of unsynced changes after a power loss.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

use crate::content::{Content, PAGE_BYTES, SECTOR_BYTES};
use crate::tree::{Directory, File, FileChange, Inode, Names, Pending, Tree};

/// Which unsynced changes survive. What was synced always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// None: all that was not synced is lost whole.
    Nothing,
    /// All: the program was killed, and the machine ran on.
    Everything,
    /// Those up to a point that `seed` chooses, over the whole disk; of the change at that point, some
    /// sectors.
    Torn {
        /// Chooses the point and the sectors.
        seed: u64,
    },
    /// Of each sector of each file and of each directory, any: a later change may survive an earlier one.
    Scattered {
        /// Chooses them.
        seed: u64,
    },
    /// As [`Scattered`](Self::Scattered), by pages instead of sectors.
    ScatteredPages {
        /// Chooses them.
        seed: u64,
    },
    /// Those in the sectors that a file had already; how files grew, were cut or made longer is lost, and so are
    /// the changes to directories. A disk's cache was written out, and the file system's journal was not.
    InPlace,
    /// The other way round: how files grew, with what was written there, and the changes to directories; the
    /// sectors that a file had already are as they were.
    Growth,
}

/// Pseudo-random numbers by place, so that a draw does not depend on the draws before it.
#[derive(Clone, Copy, Debug)]
struct Draws {
    seed: u64,
}

impl Draws {
    /// A number below `bound`, the same for the same place (which has to be above 0).
    fn below(self, bound: u64, inode: Inode, place: u64) -> u64 {
        let mixed = mix(mix(mix(self.seed) ^ inode) ^ place);
        mixed % bound.max(1)
    }
}

/// The finaliser of SplitMix64.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A [`Survival`] applied to one tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chooser {
    rule: Rule,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Events with a lower number survive, and of the one with this number some sectors.
    Before { number: u64, torn: Option<Draws> },
    /// Each part of so many sectors by itself.
    Each { draws: Draws, unit_sectors: u64 },
    /// Those in sectors that a file had already, or else all others.
    Either { in_place: bool },
}

/// The place of draws that are about a whole file or directory.
const WHOLE: u64 = u64::MAX;

impl Chooser {
    pub(crate) fn new(survival: Survival, tree: &Tree) -> Self {
        let rule = match survival {
            Survival::Nothing => Rule::Before {
                number: 0,
                torn: None,
            },
            Survival::Everything => Rule::Before {
                number: u64::MAX,
                torn: None,
            },
            Survival::Torn { seed } => torn_point(seed, tree),
            Survival::Scattered { seed } => Rule::Each {
                draws: Draws { seed },
                unit_sectors: 1,
            },
            Survival::ScatteredPages { seed } => Rule::Each {
                draws: Draws { seed },
                unit_sectors: PAGE_BYTES / SECTOR_BYTES,
            },
            Survival::InPlace => Rule::Either { in_place: true },
            Survival::Growth => Rule::Either { in_place: false },
        };
        Self { rule }
    }

    /// What a file holds after the power loss.
    pub(crate) fn content(&self, inode: Inode, file: &File) -> Content {
        if matches!(self.rule, Rule::Before { number: u64::MAX, .. }) {
            return file.now.clone();
        }
        let mut content = file.durable.clone();
        if file.pending.is_empty() {
            return content;
        }
        let survivors = self.survivors(inode, file);
        let mut length = content.length();
        for (position, Pending { change, .. }) in file.pending.iter().enumerate() {
            match change {
                FileChange::Write { offset, data } => {
                    for (sector, at, piece) in sectors_of(*offset, data) {
                        if position < survivors.of(sector) {
                            content.put(at, piece);
                        }
                    }
                    if position < survivors.length {
                        length = length.max(offset + data.len() as u64);
                    }
                }
                FileChange::Resize { length: new } => {
                    clear_sectors(&mut content, *new, |sector| position < survivors.of(sector));
                    if position < survivors.length {
                        length = *new;
                    }
                }
            }
        }
        content.resize(length);
        content
    }

    /// How many of the file's pending changes survive, for each part of it that survives as one.
    fn survivors(&self, inode: Inode, file: &File) -> Survivors {
        let unit_sectors = match self.rule {
            Rule::Before { .. } | Rule::Either { .. } => 1,
            Rule::Each { unit_sectors, .. } => unit_sectors,
        };
        let mut touching: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (position, Pending { change, .. }) in file.pending.iter().enumerate() {
            if let FileChange::Write { offset, data } = change {
                for (sector, _, _) in sectors_of(*offset, data) {
                    let positions = touching.entry(sector / unit_sectors).or_default();
                    if positions.last() != Some(&position) {
                        positions.push(position);
                    }
                }
            }
        }
        let all: Vec<usize> = (0..file.pending.len()).collect();
        let choose = |(unit, positions): (u64, &[usize])| {
            let count = self.count(inode, file, unit, positions);
            positions[..count].last().map_or(0, |last| last + 1)
        };
        let units = touching
            .iter()
            .map(|(unit, positions)| (*unit, positions.as_slice()));
        Survivors {
            unit_sectors,
            units: units.map(|pair| (pair.0, choose(pair))).collect(),
            length: choose((WHOLE, &all)),
        }
    }

    /// How many of the changes at `positions`, which all touch `unit`, survive in it.
    fn count(&self, inode: Inode, file: &File, unit: u64, positions: &[usize]) -> usize {
        match self.rule {
            Rule::Before { number, torn } => {
                let survives = |position: &&usize| {
                    let event = file.pending[**position].number;
                    let in_part = || torn.is_some_and(|draws| draws.below(2, inode, unit) == 1);
                    event < number || (event == number && in_part())
                };
                positions.iter().take_while(survives).count()
            }
            Rule::Each { draws, .. } => draw_count(draws, inode, unit, positions.len()),
            Rule::Either { in_place } => {
                let was_there = unit != WHOLE && unit * SECTOR_BYTES < file.untouched_length();
                if was_there == in_place { positions.len() } else { 0 }
            }
        }
    }

    /// What a directory holds after the power loss.
    pub(crate) fn names(&self, inode: Inode, directory: &Directory) -> Names {
        if matches!(self.rule, Rule::Before { number: u64::MAX, .. }) {
            return directory.now.clone();
        }
        let mut names = directory.durable.clone();
        // What touches a name that misses a change would be applied to something else: it is lost too.
        let mut stale: BTreeSet<&OsStr> = BTreeSet::new();
        for Pending { number, change } in &directory.pending {
            let survives = match self.rule {
                Rule::Before { number: point, torn } => {
                    let at_point = || torn.is_some_and(|draws| draws.below(2, inode, *number) == 1);
                    *number < point || (*number == point && at_point())
                }
                Rule::Each { draws, .. } => draw_count(draws, inode, *number, 1) == 1,
                Rule::Either { in_place } => !in_place,
            };
            if survives && change.names().all(|name| !stale.contains(name)) {
                change.apply(&mut names);
            } else {
                stale.extend(change.names());
            }
        }
        names
    }
}

fn torn_point(seed: u64, tree: &Tree) -> Rule {
    let mut numbers: Vec<u64> = tree.pending_numbers().collect();
    numbers.sort_unstable();
    let draws = Draws { seed };
    let position = draws.below(numbers.len() as u64, 0, 0);
    let position = usize::try_from(position).expect("below the number of changes in memory");
    Rule::Before {
        number: numbers.get(position).copied().unwrap_or(0),
        torn: Some(draws),
    }
}

/// How many of `count` changes to one unit survive. Some files lose almost everything, some almost nothing:
/// one sector alone missing is what a reader overlooks most easily.
fn draw_count(draws: Draws, inode: Inode, unit: u64, count: usize) -> usize {
    let mood = draws.below(4, inode, WHOLE - 1);
    let extreme = draws.below(8, inode, mix(unit) ^ 1) != 0;
    match mood {
        0 if extreme => 0,
        1 if extreme => count,
        _ => {
            let drawn = draws.below(count as u64 + 1, inode, unit);
            usize::try_from(drawn).expect("at most the number of changes in memory")
        }
    }
}

/// How many changes of a file survive, by place in it.
#[derive(Debug)]
struct Survivors {
    unit_sectors: u64,
    units: BTreeMap<u64, usize>,
    /// For the length, and for the sectors that no write touched.
    length: usize,
}

impl Survivors {
    fn of(&self, sector: u64) -> usize {
        let unit = sector / self.unit_sectors;
        self.units.get(&unit).copied().unwrap_or(self.length)
    }
}

/// The parts of a write by sector: the sector, where the part starts, and its bytes.
fn sectors_of(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, u64, &[u8])> {
    let mut at = offset;
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let left_in_sector = SECTOR_BYTES - at % SECTOR_BYTES;
        let count = rest
            .len()
            .min(usize::try_from(left_in_sector).expect("at most a sector"));
        let (piece, later) = rest.split_at(count);
        let found = (at / SECTOR_BYTES, at, piece);
        rest = later;
        at += count as u64;
        Some(found)
    })
}

/// Writes zeros from `length` on, in the sectors where `wanted`.
fn clear_sectors(content: &mut Content, length: u64, wanted: impl Fn(u64) -> bool) {
    let pages: Vec<u64> = content
        .pages()
        .map(|(start, _)| start)
        .filter(|start| start + PAGE_BYTES > length)
        .collect();
    for page in pages {
        for at in (page..page + PAGE_BYTES).step_by(512) {
            let start = at.max(length);
            if start < at + SECTOR_BYTES && wanted(at / SECTOR_BYTES) {
                let count = usize::try_from(at + SECTOR_BYTES - start).expect("at most a sector");
                content.put(start, &vec![0; count]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::image::Image;
    use crate::tree::{Event, ROOT};

    const FILE: Inode = 2;

    fn create(name: &str, inode: Inode) -> Event {
        Event::Create {
            parent: ROOT,
            name: name.into(),
            inode,
            is_directory: false,
        }
    }

    fn write(offset: u64, data: &[u8]) -> Event {
        let data = Arc::from(data);
        Event::Write {
            inode: FILE,
            offset,
            data,
        }
    }

    fn sync(inode: Inode) -> Event {
        Event::Sync { inode }
    }

    fn tree_after(events: impl IntoIterator<Item = Event>) -> Tree {
        let mut tree = Tree::new();
        events.into_iter().for_each(|event| tree.apply(&event));
        tree
    }

    fn image(tree: &Tree, survival: Survival) -> Image {
        Image::of(tree, &Chooser::new(survival, tree))
    }

    fn bytes(tree: &Tree, survival: Survival) -> Option<Vec<u8>> {
        Some(image(tree, survival).file(Path::new("f"))?.bytes())
    }

    #[test]
    fn bytes_need_a_sync_of_the_file_and_names_one_of_the_directory() {
        let unsynced = [create("f", FILE), write(0, b"one")];
        let cases = [
            (vec![], None),
            (vec![sync(FILE)], None),
            (vec![sync(ROOT)], Some(b"".to_vec())),
            (vec![sync(FILE), sync(ROOT)], Some(b"one".to_vec())),
        ];
        for (syncs, left) in cases {
            let tree = tree_after(unsynced.iter().cloned().chain(syncs));
            assert_eq!(bytes(&tree, Survival::Nothing), left);
            assert_eq!(bytes(&tree, Survival::Everything), Some(b"one".to_vec()));
        }
    }

    #[test]
    fn a_write_over_many_sectors_is_torn_at_their_borders_only() {
        let old = [create("f", FILE), write(0, &[1; 4096]), sync(FILE), sync(ROOT)];
        let tree = tree_after(old.into_iter().chain([write(100, &[2; 3000])]));
        let mut in_part = 0;
        for seed in 0..50 {
            for survival in [Survival::Torn { seed }, Survival::Scattered { seed }] {
                let found = bytes(&tree, survival).unwrap();
                assert_eq!(found.len(), 4096);
                for (number, sector) in found.chunks(512).enumerate() {
                    let inside =
                        &sector[if number == 0 { 100 } else { 0 }..if number == 6 { 28 } else { 512 }];
                    assert!(inside.iter().all(|byte| *byte == inside[0]), "{seed} {number}");
                }
                in_part += usize::from(found.contains(&2) && found[512..3072].contains(&1));
            }
        }
        assert!(in_part > 20, "{in_part} of 100 were torn");
    }

    #[test]
    fn a_later_change_may_survive_an_earlier_one_when_scattered_and_never_when_torn() {
        let events = [
            create("f", FILE),
            sync(ROOT),
            write(0, &[1; 512]),
            write(512, &[2; 512]),
        ];
        let tree = tree_after(events);
        let reordered = |survival| {
            bytes(&tree, survival).is_some_and(|found| found.starts_with(&[0; 512]) && found.contains(&2))
        };
        assert!((0..50).any(|seed| reordered(Survival::Scattered { seed })));
        assert!(!(0..50).any(|seed| reordered(Survival::Torn { seed })));
        let whole_pages = (0..50).all(|seed| {
            let found = bytes(&tree, Survival::ScatteredPages { seed }).unwrap();
            found.len() <= 512 || found[0] != 0 || !found.contains(&2)
        });
        assert!(whole_pages);
    }

    #[test]
    fn what_was_written_in_place_survives_without_the_growth_or_the_growth_without_it() {
        let old = [create("f", FILE), write(0, &[1; 1024]), sync(FILE), sync(ROOT)];
        let new = [write(0, &[2; 512]), write(1024, &[3; 700]), create("g", 3)];
        let tree = tree_after(old.into_iter().chain(new));
        let mut in_place = vec![2; 512];
        in_place.extend([1; 512]);
        assert_eq!(bytes(&tree, Survival::InPlace), Some(in_place));
        assert_eq!(image(&tree, Survival::InPlace).len(), 1);
        let mut growth = vec![1; 1024];
        growth.extend([3; 700]);
        assert_eq!(bytes(&tree, Survival::Growth), Some(growth));
        assert_eq!(image(&tree, Survival::Growth).len(), 2);
    }

    #[test]
    fn what_is_written_where_a_file_was_cut_is_growth() {
        let old = [create("f", FILE), write(0, &[1; 1024]), sync(FILE), sync(ROOT)];
        let cut = Event::Resize {
            inode: FILE,
            length: 512,
        };
        let tree = tree_after(old.into_iter().chain([cut, write(512, &[2; 100])]));
        assert_eq!(bytes(&tree, Survival::InPlace), Some(vec![1; 1024]));
        let mut growth = vec![1; 512];
        growth.extend([2; 100]);
        assert_eq!(bytes(&tree, Survival::Growth), Some(growth));
    }

    #[test]
    fn a_rename_happens_whole_or_not_at_all() {
        let rename = Event::Rename {
            parent: ROOT,
            from: "f.tmp".into(),
            to: "f".into(),
        };
        let old = [create("f", FILE), write(0, b"old"), sync(FILE), sync(ROOT)];
        let new = Event::Write {
            inode: 3,
            offset: 0,
            data: Arc::from(&b"new"[..]),
        };
        let tree = tree_after(old.into_iter().chain([create("f.tmp", 3), new, sync(3), rename]));
        let mut seen = BTreeSet::new();
        for seed in 0..50 {
            let found = image(&tree, Survival::Scattered { seed });
            let is_new = bytes(&tree, Survival::Scattered { seed }) == Some(b"new".to_vec());
            assert!(is_new || bytes(&tree, Survival::Scattered { seed }) == Some(b"old".to_vec()));
            assert!(
                !(is_new && found.len() > 1),
                "the old name is gone with the rename"
            );
            seen.insert((is_new, found.len()));
        }
        assert_eq!(seen.len(), 3, "old, old beside the temporary file, new: {seen:?}");
    }

    #[test]
    fn what_a_failed_sync_dropped_is_not_saved_by_the_next() {
        let failed = Event::SyncFailed { inode: FILE };
        let events = [
            create("f", FILE),
            sync(ROOT),
            write(0, b"lost"),
            failed,
            write(9000, b"kept"),
            sync(FILE),
        ];
        let tree = tree_after(events);
        let after = bytes(&tree, Survival::Nothing).unwrap();
        assert!(after[..9000].iter().all(|byte| *byte == 0));
        assert_eq!(&after[9000..], b"kept");
        assert!(bytes(&tree, Survival::Everything).unwrap().starts_with(b"lost"));
    }

    #[test]
    fn the_same_seed_leaves_the_same() {
        let events = [
            create("f", FILE),
            write(0, &[1; 9000]),
            create("g", 3),
            write(100, &[2; 9000]),
        ];
        let tree = tree_after(events);
        for seed in 0..10 {
            let survival = Survival::Scattered { seed };
            assert_eq!(image(&tree, survival), image(&tree, survival));
        }
    }
}

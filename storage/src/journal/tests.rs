use std::fs;
use std::path::{Path, PathBuf};

use faulty_disk::{Disk, Failure, Fault, Operation};
use raft_core::{Incarnation, NodeId};

use super::{Header, Journal, Opened, file};
use crate::error::StorageError;
use crate::hard_state::{Identity, Owner};
use crate::overlay::{Batch, Change};

/// The batch that was in sled from the start, as in a fresh store.
const IN_SLED: u64 = 1;

fn identity(node: u64) -> Owner {
    let identity = Identity {
        cluster_id: "test".to_owned(),
        node_id: NodeId(node),
    };
    let incarnation = Incarnation(7);
    Owner {
        identity,
        incarnation,
    }
}

/// A batch that sets the key `number` to a value of `length` bytes.
fn batch(number: u64, length: usize) -> Batch {
    let change = Change {
        value: Some(vec![number.to_le_bytes()[0] | 1; length].into()),
        existed: false,
    };
    Batch {
        number,
        changes: [(number.to_be_bytes().to_vec(), change)].into(),
    }
}

fn append(journal: &mut Journal, number: u64, length: usize) {
    assert!(
        journal.encode(&batch(number, length)).unwrap(),
        "{number} does not fit"
    );
    journal.append().unwrap();
}

/// A journal in a directory of its own, as closed files.
struct Closed {
    dir: tempfile::TempDir,
}

impl Closed {
    /// With batches 2 to `last` of `length` bytes each, in one file.
    fn with(last: u64, length: usize) -> Self {
        let closed = Self::fresh();
        let mut journal = closed.open(IN_SLED, 1).unwrap().journal;
        for number in 2..=last {
            append(&mut journal, number, length);
        }
        closed
    }

    /// With batches 2 to 5 in a full file and 6 to 8 in the active one.
    fn rotated() -> Self {
        let closed = Self::with(5, 200);
        let mut journal = closed.open(IN_SLED, 5).unwrap().journal;
        assert!(journal.encode(&batch(6, 10)).unwrap());
        journal.rotate().unwrap();
        journal.append().unwrap();
        append(&mut journal, 7, 600);
        append(&mut journal, 8, 100);
        closed
    }

    fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Journal::create(dir.path(), &identity(1), IN_SLED + 1, 64 * 1024).unwrap();
        Self { dir }
    }

    fn open(&self, in_sled: u64, acknowledged: u64) -> Result<Opened, StorageError> {
        Journal::open(self.dir.path(), &identity(1), in_sled, acknowledged)
    }

    /// The verdict alone.
    fn read_all(&self, in_sled: u64, acknowledged: u64) -> Result<Opened, StorageError> {
        Journal::read(self.dir.path(), &identity(1), in_sled, acknowledged)
    }

    fn path(&self, file: usize) -> PathBuf {
        self.dir.path().join(super::JOURNAL_FILES[file])
    }

    fn read(&self, file: usize) -> Vec<u8> {
        fs::read(self.path(file)).unwrap()
    }

    fn write_byte(&self, file: usize, position: usize, byte: u8) {
        use std::os::unix::fs::FileExt as _;
        let file = fs::File::options().write(true).open(self.path(file)).unwrap();
        file.write_all_at(&[byte], position as u64).unwrap();
    }

    fn write(&self, file: usize, bytes: &[u8]) {
        fs::write(self.path(file), bytes).unwrap();
    }
}

fn records_start() -> usize {
    usize::try_from(super::RECORDS_START).unwrap()
}

fn used(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

/// What both layers hold together.
fn contents(opened: &Opened) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut merged = std::collections::BTreeMap::new();
    for layer in opened.full.iter().chain([&opened.active]) {
        for (key, _) in layer.changes.iter_behind(None) {
            merged.insert(key.to_vec(), layer.get(key).unwrap().unwrap());
        }
    }
    merged.into_iter().collect()
}

fn assert_refused(outcome: Result<Opened, StorageError>, case: &str) {
    let message = outcome.map(|opened| contents(&opened)).unwrap_err().to_string();
    assert!(message.contains("must not vote"), "{case}: {message}");
}

#[test]
fn what_was_appended_is_found_again() {
    let closed = Closed::rotated();
    let opened = closed.open(IN_SLED, 8).unwrap();
    assert_eq!(contents(&opened).len(), 7);
    assert_eq!(opened.journal.last_batch, 8);
    // The full file is not needed once sled has it, not even intact.
    let mut bytes = closed.read(0);
    let end = used(&bytes);
    bytes[end - 1] ^= 1;
    closed.write(0, &bytes);
    assert_eq!(contents(&closed.open(5, 8).unwrap()).len(), 3);
    assert_refused(closed.open(IN_SLED, 8), "a damaged full file");
}

#[test]
fn a_torn_last_record_is_dropped_whatever_its_length() {
    let closed = Closed::with(4, 600);
    let before = closed.read(0);
    append(&mut closed.open(IN_SLED, 4).unwrap().journal, 5, 1500);
    let after = closed.read(0);
    let range = used(&before).next_multiple_of(512)..used(&after);
    assert!(range.len() > 1500);
    for length in 0..=range.len() {
        let mut torn = before.clone();
        let end = range.start + length;
        torn[range.start..end].copy_from_slice(&after[range.start..end]);
        closed.write(0, &torn);
        let opened = closed.read_all(IN_SLED, 4).unwrap();
        let whole = torn == after;
        assert_eq!(
            opened.journal.last_batch,
            if whole { 5 } else { 4 },
            "{length} bytes"
        );
        // If it was acknowledged, it was not torn, but cut off by damage.
        if !whole {
            assert_refused(closed.read_all(IN_SLED, 5), &format!("{length} bytes"));
        }
        // What is written next takes its place, and what is left of it does no harm.
        if !whole && length % 64 == 0 {
            let mut opened = closed.open(IN_SLED, 4).unwrap();
            append(&mut opened.journal, 5, 10);
            append(&mut opened.journal, 6, 10);
            assert_eq!(closed.open(IN_SLED, 6).unwrap().journal.last_batch, 6);
        }
    }
}

#[test]
fn a_record_of_which_any_sectors_are_lost_is_dropped() {
    let closed = Closed::with(4, 600);
    let before = closed.read(0);
    append(&mut closed.open(IN_SLED, 4).unwrap().journal, 5, 3000);
    let after = closed.read(0);
    let start = used(&before).next_multiple_of(512);
    for lost in 1..1_usize << 6 {
        let mut torn = after.clone();
        for sector in (0..6).filter(|sector| lost >> sector & 1 == 1) {
            torn[start + sector * 512..][..512].fill(0);
        }
        closed.write(0, &torn);
        assert_eq!(
            closed.read_all(IN_SLED, 4).unwrap().journal.last_batch,
            4,
            "{lost:b}"
        );
    }
}

#[test]
fn every_flipped_bit_is_refused_or_harmless() {
    let closed = Closed::rotated();
    let intact = contents(&closed.open(IN_SLED, 8).unwrap());
    for file in 0..2 {
        let bytes = closed.read(file);
        let mut refused = 0;
        // The pages of the headers are zeroes but for their beginning.
        let in_headers = (0..2 * 4096).filter(|position| position % 4096 < 80 || position % 64 == 0);
        for position in in_headers.chain(records_start()..used(&bytes) + 600) {
            closed.write_byte(file, position, bytes[position] ^ 1 << (position % 8));
            match closed.read_all(IN_SLED, 8) {
                Ok(opened) => assert_eq!(contents(&opened), intact, "file {file}, byte {position}"),
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains("must not vote"), "{message}");
                    refused += 1;
                }
            }
            closed.write_byte(file, position, bytes[position]);
        }
        // Everything but the second page of each header and the zeroes behind the end.
        assert!(refused >= used(&bytes) - records_start(), "{refused}");
    }
}

#[test]
fn a_bad_record_before_a_valid_one_is_refused_even_if_nothing_says_that_it_was_acknowledged() {
    let closed = Closed::with(9, 600);
    let bytes = closed.read(0);
    let last_start = used(&bytes) / 512 * 512 - 512;
    for position in (records_start()..last_start).step_by(100) {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        closed.write(0, &damaged);
        let error = closed
            .open(IN_SLED, 1)
            .map(|opened| contents(&opened))
            .unwrap_err();
        let message = error.to_string();
        assert!(message.contains("journal") || message.contains(&*closed.path(0).to_string_lossy()));
        assert!(
            message.contains("the record of batch"),
            "byte {position}: {message}"
        );
        assert!(message.contains("at byte"), "{message}");
    }
}

#[test]
fn a_file_cut_short_is_refused() {
    let closed = Closed::rotated();
    for file in 0..2 {
        let bytes = closed.read(file);
        for length in (0..bytes.len()).step_by(997) {
            closed.write(file, &bytes[..length]);
            assert_refused(
                closed.read_all(IN_SLED, 8),
                &format!("file {file}, {length} bytes"),
            );
        }
        closed.write(file, &bytes);
    }
    fs::remove_file(closed.path(0)).unwrap();
    assert_refused(closed.open(IN_SLED, 8), "a missing file");
}

#[test]
fn an_older_copy_of_a_file_is_refused() {
    let closed = Closed::with(3, 600);
    let early = [closed.read(0), closed.read(1)];
    let mut journal = closed.open(IN_SLED, 3).unwrap().journal;
    append(&mut journal, 4, 600);
    let later = closed.read(0);
    let mut last = 4;
    for _ in 0..4 {
        journal.rotate().unwrap();
        last += 1;
        append(&mut journal, last, 600);
    }
    let current = [closed.read(0), closed.read(1)];
    assert!(closed.open(last - 2, last).is_ok());
    for (file, old) in [(0, &early[0]), (1, &early[1]), (0, &later)] {
        closed.write(file, old);
        assert_refused(closed.open(last - 2, last), &format!("an old file {file}"));
        closed.write(file, &current[file]);
    }
    for (file, old) in early.iter().enumerate() {
        closed.write(file, old);
    }
    assert_refused(closed.open(last - 2, last), "two old files");
    assert_refused(closed.open(1, last), "two old files, sled as old as they");
    // The other way round: sled is the old one.
    for (file, bytes) in current.iter().enumerate() {
        closed.write(file, bytes);
    }
    assert_refused(closed.open(1, last), "an old sled");
}

#[test]
fn what_an_earlier_use_of_a_file_left_is_never_taken_for_a_record() {
    let closed = Closed::with(40, 600);
    let mut journal = closed.open(IN_SLED, 40).unwrap().journal;
    for number in 41..60 {
        // Records of the same length as the old ones, so that they end where old ones begin.
        assert!(journal.encode(&batch(number, 600)).unwrap());
        journal.rotate().unwrap();
        journal.append().unwrap();
        let opened = closed.open(number - 2, number).unwrap();
        let (active, other) = (&opened.journal.active.header, &opened.journal.other.header);
        assert_ne!(active.salt, other.salt, "a client could know it");
        assert_eq!(opened.journal.last_batch, number);
        assert_eq!(contents(&opened).len(), 2);
    }
}

#[test]
fn files_of_another_store_are_refused_and_swapped_names_are_harmless() {
    let closed = Closed::rotated();
    let files = [closed.read(0), closed.read(1)];
    closed.write(0, &files[1]);
    closed.write(1, &files[0]);
    assert_eq!(contents(&closed.open(IN_SLED, 8).unwrap()).len(), 7);
    let error = Journal::open(closed.dir.path(), &identity(2), IN_SLED, 8).map(|opened| contents(&opened));
    let message = error.unwrap_err().to_string();
    assert!(message.contains("another store"), "{message}");
    closed.write(0, &files[0]);
    assert_refused(closed.open(IN_SLED, 8), "the same file twice");
}

#[test]
fn a_crash_while_the_next_file_gets_its_header_leaves_the_full_one() {
    let closed = Closed::with(5, 600);
    let before = closed.read(1);
    let mut journal = closed.open(IN_SLED, 5).unwrap().journal;
    assert!(journal.encode(&batch(6, 10)).unwrap());
    journal.rotate().unwrap();
    let after = closed.read(1);
    let end = used(&after);
    for length in (0..=end + 20).filter(|length| length % 4096 < 80 || length % 64 == 0) {
        let mut torn = after[..length].to_vec();
        torn.extend_from_slice(&before[length..]);
        closed.write(1, &torn);
        let opened = closed.open(IN_SLED, 5).unwrap();
        assert_eq!(
            (opened.journal.last_batch, contents(&opened).len()),
            (5, 4),
            "{length}"
        );
    }
}

#[test]
fn a_batch_larger_than_a_file_gets_a_larger_file_until_the_use_after() {
    let closed = Closed::with(3, 600);
    let mut journal = closed.open(IN_SLED, 3).unwrap().journal;
    assert!(!journal.encode(&batch(4, 300_000)).unwrap());
    journal.rotate().unwrap();
    // Whatever happens before the record is there: the file has its space.
    assert_eq!(closed.read_all(IN_SLED, 3).unwrap().journal.last_batch, 3);
    journal.append().unwrap();
    assert_eq!(contents(&closed.open(IN_SLED, 4).unwrap()).len(), 3);
    assert!(length_of(&closed.path(1)) > 300_000);
    for number in [5, 6] {
        journal.encode(&batch(number, 10)).unwrap();
        journal.set_other_bytes(journal.next_use(64 * 1024).prepare().unwrap());
        journal.rotate().unwrap();
        journal.append().unwrap();
    }
    assert_eq!(length_of(&closed.path(1)), 64 * 1024);
    assert_eq!(contents(&closed.open(4, 6).unwrap()).len(), 2);
}

#[test]
fn a_file_is_four_times_as_long_as_the_one_before_and_from_four_mib_on_as_long_as_it_may_be() {
    const KIB: u64 = 1024;
    let dir = tempfile::tempdir().unwrap();
    // More than four times as much.
    let most = 17_000 * KIB;
    Journal::create(dir.path(), &identity(1), IN_SLED + 1, most).unwrap();
    let mut journal = Journal::open(dir.path(), &identity(1), IN_SLED, 1)
        .unwrap()
        .journal;
    let mut lengths = Vec::new();
    for number in 2..9 {
        append(&mut journal, number, 10);
        journal.set_other_bytes(journal.next_use(most).prepare().unwrap());
        journal.rotate().unwrap();
        lengths.push(length_of(journal.active.path()) / KIB);
    }
    assert_eq!(lengths, [1024, 4096, 17_000, 17_000, 17_000, 17_000, 17_000]);
    let mut opened = Journal::open(dir.path(), &identity(1), 7, 8).unwrap();
    assert_eq!(opened.journal.last_batch, 8);
    append(&mut opened.journal, 9, 8_000_000);
}

#[test]
fn all_of_something_is_due_when_four_fifths_of_the_active_file_are_used() {
    let closed = Closed::with(3, 600);
    let mut journal = closed.open(IN_SLED, 3).unwrap().journal;
    let space = journal.active.header.bytes;
    let mut last = 3;
    while journal.position < space / 5 * 4 {
        let used = journal.position;
        assert_eq!(journal.written().room, space - used);
        // Of as much as the file has, and a quarter more.
        let due = journal.share_due(space * 5 / 4);
        assert!(due.abs_diff(used * 25 / 16) <= 2, "{due} of {used}");
        last += 1;
        append(&mut journal, last, 600);
    }
    assert_eq!(journal.share_due(1_000_000), 1_000_000);
    assert_eq!(journal.share_due(u64::MAX), u64::MAX);
    assert_eq!(journal.share_due(0), 0);
}

#[test]
fn a_file_that_cannot_become_longer_stays_as_long_as_it_is() {
    let disk = Disk::new();
    let mount = match disk.mount() {
        Ok(mount) => mount,
        Err(unavailable) => return println!("{unavailable}"),
    };
    let dir = mount.path().join("journal");
    Journal::create(&dir, &identity(1), IN_SLED + 1, 64 * 1024).unwrap();
    let mut journal = Journal::open(&dir, &identity(1), IN_SLED, 1).unwrap().journal;
    append(&mut journal, 2, 600);
    journal.set_other_bytes(journal.next_use(1 << 30).prepare().unwrap());
    journal.rotate().unwrap();
    append(&mut journal, 3, 600);
    // What is missing is written in several pieces.
    disk.arm(Fault {
        operation: Some(Operation::Write),
        after: 1,
        failure: Failure::NoSpace,
        lasting: true,
    });
    let length = journal.next_use(1 << 30).prepare();
    assert_eq!(length.unwrap(), 64 * 1024, "what it got was given back");
    // Any other failure is one of the disk.
    disk.arm(Fault {
        operation: Some(Operation::Write),
        after: 1,
        failure: Failure::Io,
        lasting: true,
    });
    let error = journal.next_use(1 << 30).prepare().unwrap_err();
    assert!(error.to_string().contains("reserve space in"), "{error}");
    disk.disarm();
    journal.set_other_bytes(64 * 1024);
    journal.rotate().unwrap();
    append(&mut journal, 4, 600);
    assert_eq!(journal.next_use(1 << 30).prepare().unwrap(), 1024 * 1024);
    let opened = Journal::open(&dir, &identity(1), 3, 4).unwrap();
    assert_eq!(opened.journal.last_batch, 4);
}

#[test]
fn no_file_is_shorter_than_the_least_however_little_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    Journal::create(dir.path(), &identity(1), IN_SLED + 1, 0).unwrap();
    for name in super::JOURNAL_FILES {
        assert_eq!(length_of(&dir.path().join(name)), 64 * 1024);
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_not_called_gone() {
    let closed = Closed::fresh();
    fs::remove_file(closed.path(1)).unwrap();
    let error = closed.open(IN_SLED, 1).unwrap_err();
    assert!(matches!(error, StorageError::ContentsLost { .. }), "{error:?}");
    // A link to itself leads nowhere, but it is there.
    std::os::unix::fs::symlink("1", closed.path(1)).unwrap();
    let error = closed.open(IN_SLED, 1).unwrap_err();
    assert!(
        matches!(error, StorageError::Io { action: "open", .. }),
        "{error:?}"
    );
}

#[test]
fn a_header_counts_from_one_and_no_number_in_it_is_so_large_that_it_could_overflow() {
    let header = |generation, first_batch| Header {
        owner: 0,
        generation,
        first_batch,
        previous: 0,
        bytes: 64 * 1024,
        salt: 0,
    };
    let is_possible = |header: Header| {
        let pages = file::header_pages(&header);
        let read = file::newest_copy(Path::new("journal/0"), pages.as_flattened());
        read.is_ok_and(|read| read == header)
    };
    let too_large = u64::MAX / 2;
    for possible in [header(0, 1), header(too_large - 1, too_large - 1)] {
        assert!(is_possible(possible), "{possible:?}");
    }
    for impossible in [
        header(0, 0),
        header(1, 0),
        header(too_large, 1),
        header(1, too_large),
    ] {
        assert!(!is_possible(impossible), "{impossible:?}");
    }
}

#[test]
fn a_record_is_refused_that_follows_another_batch_than_the_one_before_it() {
    let closed = Closed::with(4, 600);
    let before = closed.read(0);
    let mut journal = closed.open(IN_SLED, 4).unwrap().journal;
    append(&mut journal, 5, 600);
    append(&mut journal, 6, 600);
    let one = closed.read(0);
    closed.write(0, &before);
    let mut other = batch(5, 600);
    for change in other.changes.values_mut() {
        change.value = Some(vec![0xff; 600].into());
    }
    let mut journal = closed.open(IN_SLED, 4).unwrap().journal;
    assert!(journal.encode(&other).unwrap());
    journal.append().unwrap();
    let another = closed.read(0);
    let start = used(&another).next_multiple_of(512);
    closed.write(0, &[&another[..start], &one[start..]].concat());
    let error = closed.open(IN_SLED, 5).unwrap_err().to_string();
    assert!(
        error.contains("batch 6") && error.contains("does not follow batch 5"),
        "{error}"
    );
}

#[test]
fn the_full_file_is_spent_once_the_database_has_its_last_batch_and_the_other_one_never() {
    let closed = Closed::rotated();
    let spent = |in_sled| super::JOURNAL_FILES.map(|name| super::is_spent(closed.dir.path(), name, in_sled));
    assert_eq!(spent(4), [false, false]);
    assert_eq!(spent(5), [true, false]);
    assert_eq!(spent(8), [true, false]);
}

#[test]
fn only_the_older_file_and_only_if_it_was_made_shorter_may_be_spent_for_all_that_it_says() {
    let closed = Closed::rotated();
    let (older, newer) = (closed.read(0), closed.read(1));
    let may_be_spent = || super::JOURNAL_FILES.map(|name| super::may_be_spent(closed.dir.path(), name));
    assert_eq!(may_be_spent(), [false, false]);
    closed.write(0, &older[..20_000]);
    assert_eq!(may_be_spent(), [true, false]);
    closed.write(1, &older);
    assert_eq!(may_be_spent(), [false, false], "it is there twice");
    closed.write(0, &older);
    closed.write(1, &newer[..20_000]);
    assert_eq!(may_be_spent(), [false, false]);
}

#[test]
fn a_look_at_a_file_names_the_record_that_is_damaged_and_the_next_one_that_is_not() {
    let closed = Closed::with(9, 600);
    let look = || super::look(closed.dir.path(), super::JOURNAL_FILES[0], Some(IN_SLED));
    let found = look().unwrap();
    assert_eq!((found.first_batch, found.last_batch), (2, 9));
    // The third of eight records, of two sectors each.
    let position = records_start() + 2 * 1024 + 100;
    closed.write_byte(0, position, !closed.read(0)[position]);
    let error = look().unwrap_err().to_string();
    assert!(
        error.contains("the record of batch 4 at byte") && error.contains("that of batch 5 is there"),
        "{error}"
    );
}

#[test]
fn where_the_file_system_can_reserve_no_space_a_file_gets_it_as_zeroes() {
    let disk = Disk::new();
    let mount = match disk.mount() {
        Ok(mount) => mount,
        Err(unavailable) => return println!("{unavailable}"),
    };
    let path = mount.path().join("file");
    fs::write(&path, b"content").unwrap();
    disk.arm(Fault {
        operation: Some(Operation::Resize),
        after: 0,
        failure: Failure::Unsupported,
        lasting: true,
    });
    let length = file::ZEROED_BYTES + 100_000;
    file::fill(&path, length).unwrap();
    let filled = fs::read(&path).unwrap();
    assert_eq!(filled.len() as u64, length);
    assert!(filled.starts_with(b"content\0") && used(&filled) == b"content".len());
}

fn length_of(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

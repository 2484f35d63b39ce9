//! The journal: a redo log in front of sled, which makes a batch durable with one write and one sync.
//!
//! ```text
//! journal/0, journal/1   written alternately; see journal/file.rs and journal/frame.rs for their format
//! ```
//!
//! A batch becomes one record in the *active* file. When the next batch does not fit any more, the other file
//! becomes the active one, and what the full file holds is carried into sled, piece by piece, as the active one
//! fills (a *checkpoint*, see [`carrying`](crate::carrying) and [`checkpoint`](crate::checkpoint)). Only after that is the
//! full file used again.
//!
//! The space of a file is reserved once, so that a disk that is full says so before anything depends on it: a file that
//! cannot be made larger stays as large as it is. The first MiB are reserved by writing zeroes. So `fdatasync` after a
//! record there has no metadata to write; behind them it has some, in the first use. A new store begins with
//! small files, and the next may be four times as long; from 4 MiB on it is as long as `Options::journal_bytes` says. Only
//! a batch that is larger than the file gets a larger one, until the use after.
//!
//! # The order of writes, and what a crash after each step leaves
//!
//! Append:
//!
//! 1. The record is written behind the last one. *A part of it may be on the disk: a torn record, which was
//!    never acknowledged and is dropped. All of it may be: then the batch counts.*
//! 2. `fdatasync`. *The batch is durable.*
//! 3. The high-water file, see [`high_water`](crate::high_water). *As after 2.*
//!
//! Rotation, when a batch does not fit:
//!
//! 1. The checkpoint of the other file has ended, or commit waits for it, no longer than `Options::checkpoint_wait` for
//!    each of its pieces. *Nothing has changed.*
//! 2. The other file gets its new header, one generation up, and is synced. *An empty file follows a full one;
//!    before that the new header is not there, and the full file is still the active one.*
//! 3. The checkpoint of the full file may begin. *The full file is replayed over whatever part of it is in sled:
//!    its changes are absolute, so doing them twice is doing them once.*
//! 4. The batch is appended to the new file.
//!
//! That step 2 comes before step 3 is what makes it sound that a record which was both written and removed
//! within a file never reaches sled: a file whose checkpoint has begun is never appended to again. A record of the full file
//! that the active one removes need not reach sled either: the removal is durable before it is known here, and as long as
//! sled has not all of the full file, both are replayed, the active one last.
//!
//! # What is verified on opening
//!
//! Each record names the checksum of the one before it, and each header the checksum that ended the file
//! before, so the batches from sled's on must be there without a gap. Then:
//!
//! | what is found | what it means |
//! |---|---|
//! | the beginning of a record that does not verify, or none, where the last one ends | the end; a torn record is dropped |
//! | the same, but the high-water file names a later batch | an acknowledged batch is damaged or gone: refused |
//! | the same, but a valid record comes later | writes are one after the other, so the bad one had been acknowledged: refused |
//! | the full file ends before the other one begins | refused |
//! | sled holds a later batch than the journal, or the journal begins behind sled | one of them is an older copy: refused |
//! | a file is missing, shorter than its header says, of another store, or has no readable header | refused |

mod file;
mod frame;
pub(crate) mod fuzzing;

pub(crate) use self::file::Values;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use self::file::{Header, JournalFile, RECORDS_START, damaged};
use crate::codec;
use crate::durability;
use crate::error::StorageError;
use crate::hard_state::{Owner, SMALL_RECORD_LIMIT_BYTES};
use crate::overlay::{Batch, Journaled, Layer, Location, Overlay};

/// The names of the files in the journal's directory.
pub(crate) const JOURNAL_FILES: [&str; 2] = ["0", "1"];

/// The least that `Options::journal_bytes` can ask for.
pub(crate) const MIN_JOURNAL_BYTES: u64 = 64 * 1024;

/// The length of both files of a new store, if they may be so long.
const FIRST_JOURNAL_BYTES: u64 = 256 * 1024;

/// How much longer the next file may be than the one before, while that has less than [`file::ZEROED_BYTES`].
const GROWTH: u64 = 4;

/// The two files, one of which is written.
#[derive(Debug)]
pub(crate) struct Journal {
    active: JournalFile,
    other: JournalFile,
    /// Where the next record goes in the active file.
    position: u64,
    last_batch: u64,
    /// The checksum of the last record.
    checksum: u32,
    /// The length of the other file.
    other_bytes: u64,
    /// The record that is being written. Kept for its memory.
    record: Vec<u8>,
}

/// A journal as it was found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    /// The full file, if its changes are not all in sled.
    pub(crate) full: Option<Layer>,
    /// The active file.
    pub(crate) active: Layer,
}

/// The file that is not written at present, and the length that it should have for its next use.
#[derive(Debug)]
pub(crate) struct NextUse {
    path: PathBuf,
    bytes: u64,
}

impl NextUse {
    /// Gives the file its length, if the disk has as much; yields the one that it has then. Only once nothing in it is
    /// needed any more.
    pub(crate) fn prepare(&self) -> Result<u64, StorageError> {
        match file::fill(&self.path, self.bytes) {
            Ok(()) => Ok(self.bytes),
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                tracing::warn!(%error, path = %self.path.display(), "the journal file stays small");
                let length = std::fs::metadata(&self.path).map(|metadata| metadata.len());
                length.map_err(StorageError::while_trying("read the length of", &self.path))
            }
            Err(error) => Err(StorageError::io("reserve space in", &self.path, error)),
        }
    }
}

/// Where the active file stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// How long the last record is.
    pub(crate) last_bytes: u64,
    /// What is free behind it.
    pub(crate) room: u64,
}

impl Journal {
    /// Creates both files, durably but for the directory's own name; the first batch will be `first_batch`.
    pub(crate) fn create(
        dir: &Path,
        store: &Owner,
        first_batch: u64,
        journal_bytes: u64,
    ) -> Result<(), StorageError> {
        durability::create_dir_durably(dir)?;
        let owner = owner(store)?;
        for (name, generation) in JOURNAL_FILES.iter().zip([2, 1]) {
            let header = Header {
                owner,
                generation,
                first_batch,
                previous: 0,
                bytes: journal_bytes.clamp(MIN_JOURNAL_BYTES, FIRST_JOURNAL_BYTES),
                salt: file::draw_salt(),
            };
            JournalFile::create(&dir.join(name), header)?;
        }
        durability::sync_dir(dir)
    }

    /// [Reads](Self::read) the journal and makes sure that all of it is on the disk, so that it can be written
    /// on.
    pub(crate) fn open(
        dir: &Path,
        store: &Owner,
        in_sled: u64,
        acknowledged: u64,
    ) -> Result<Opened, StorageError> {
        let mut opened = Self::read(dir, store, in_sled, acknowledged)?;
        opened.journal.settle()?;
        Ok(opened)
    }

    /// Reads and verifies what comes after `in_sled`, the last batch in sled, and changes nothing.
    /// `acknowledged` is the last batch known to have been acknowledged.
    pub(crate) fn read(
        dir: &Path,
        store: &Owner,
        in_sled: u64,
        acknowledged: u64,
    ) -> Result<Opened, StorageError> {
        let mut active = JournalFile::open(&dir.join(JOURNAL_FILES[0]))?;
        let mut other = JournalFile::open(&dir.join(JOURNAL_FILES[1]))?;
        if other.header.generation > active.header.generation {
            std::mem::swap(&mut active, &mut other);
        }
        check_headers(&active, &other, owner(store)?)?;
        let before_active = active.header.first_batch - 1;
        if in_sled > before_active {
            return Err(StorageError::RolledBack {
                path: active.path().to_path_buf(),
                acknowledged: in_sled,
                found: before_active,
            });
        }
        let full = (in_sled < before_active)
            .then(|| read_full(&mut other, &active.header, in_sled))
            .transpose()?;
        let bytes = active.read_all()?;
        let mut changes = Overlay::default();
        let scanned = file::scan(active.path(), &active.header, &bytes, |batch, start| {
            changes.absorb(journaled(batch, start));
        })?;
        check_end(&active, &bytes, &scanned, acknowledged)?;
        let last = usize::try_from(scanned.last_start)
            .ok()
            .zip(usize::try_from(scanned.position).ok());
        let record = last.and_then(|(start, end)| bytes.get(start..end));
        let values = active.values();
        let journal = Self {
            other_bytes: other.length()?,
            active,
            other,
            position: scanned.position,
            last_batch: scanned.last_batch,
            checksum: scanned.checksum,
            record: record.unwrap_or_default().to_vec(),
        };
        Ok(Opened {
            journal,
            full,
            active: Layer { changes, values },
        })
    }

    /// Writes the header and the last record once more, as they are, and syncs. They are all that can be in
    /// the system's memory and not on the disk: the process may have ended before their sync, or the sync may
    /// have failed, after which the system takes pages for written that are not.
    fn settle(&mut self) -> Result<(), StorageError> {
        self.active.seek(self.position - self.record.len() as u64)?;
        self.active.write(&self.record)?;
        self.active.begin(self.active.header)?;
        self.active.seek(self.position)
    }

    /// Makes the record for `batch`, to be [written](Self::append). Whether it fits into the active file.
    pub(crate) fn encode(&mut self, batch: &Batch) -> Result<bool, StorageError> {
        frame::encode(batch, &mut self.record).map_err(|_| {
            StorageError::invalid_write(format!(
                "batch {} is larger than a journal can hold",
                batch.number
            ))
        })?;
        Ok(self.position + self.record.len() as u64 <= self.active.header.bytes)
    }

    /// Makes the encoded record durable; yields its place in the active file.
    pub(crate) fn append(&mut self) -> Result<u64, StorageError> {
        self.checksum = frame::seal(&mut self.record, self.active.header.place(), self.checksum);
        self.active.write(&self.record)?;
        self.active.sync()?;
        let start = self.position;
        self.position += self.record.len() as u64;
        self.last_batch += 1;
        Ok(start)
    }

    /// The file that is written.
    pub(crate) fn active_path(&self) -> &Path {
        self.active.path()
    }

    /// Tells the length that the file has which is not written at present.
    pub(crate) fn set_other_bytes(&mut self, bytes: u64) {
        self.other_bytes = bytes;
    }

    /// Turns to the other file, of which nothing may be needed any more. One that is too small for the encoded
    /// record is made larger.
    pub(crate) fn rotate(&mut self) -> Result<(), StorageError> {
        let needed = RECORDS_START + self.record.len() as u64;
        let bytes = self.other_bytes.max(needed);
        if bytes > self.other_bytes {
            file::fill(self.other.path(), bytes)
                .map_err(StorageError::while_trying("reserve space in", self.other.path()))?;
        }
        self.other.begin(Header {
            owner: self.active.header.owner,
            generation: self.active.header.generation + 1,
            first_batch: self.last_batch + 1,
            previous: self.checksum,
            bytes,
            salt: file::draw_salt(),
        })?;
        self.other.seek(RECORDS_START)?;
        std::mem::swap(&mut self.active, &mut self.other);
        self.position = RECORDS_START;
        self.other_bytes = self.other.header.bytes;
        Ok(())
    }

    /// The values in the file that is written.
    pub(crate) fn active_values(&self) -> Values {
        self.active.values()
    }

    /// The file that is not written at present, with the length for its next use.
    pub(crate) fn next_use(&self, journal_bytes: u64) -> NextUse {
        let longer = self.active.header.bytes.max(self.other_bytes);
        let longest = if longer < file::ZEROED_BYTES {
            longer * GROWTH
        } else {
            u64::MAX
        };
        NextUse {
            path: self.other.path().to_path_buf(),
            bytes: longest.min(journal_bytes.max(MIN_JOURNAL_BYTES)),
        }
    }

    /// How far the active file is written.
    pub(crate) fn written(&self) -> Written {
        Written {
            last_bytes: self.record.len() as u64,
            room: self.active.header.bytes.saturating_sub(self.position),
        }
    }

    /// How much of `whole` should be done by now, if all of it is to be done a little before the active file is full.
    pub(crate) fn share_due(&self, whole: u64) -> u64 {
        let space = self.active.header.bytes;
        // The last fifth is for the root, and for what is late.
        let end = u128::from((space - space / 5).max(1));
        let share = u128::from(whole) * u128::from(self.position) / end;
        u64::try_from(share).unwrap_or(whole).min(whole)
    }

    /// Whether the active file holds no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.position == RECORDS_START
    }

    /// Forgets the record that was encoded, so that a rotation makes room for none.
    pub(crate) fn forget_encoded(&mut self) {
        self.record.clear();
    }

    /// Makes every later sync fail, as a dying disk would.
    #[cfg(test)]
    pub(crate) fn break_sync(&mut self, broken: bool) {
        self.active.broken = broken;
    }
}

/// The changes of `batch`, whose record is at the place `start` of its file.
pub(crate) fn journaled(batch: Batch, start: u64) -> impl Iterator<Item = (Vec<u8>, Journaled)> {
    let offsets: Vec<usize> = frame::value_offsets(&batch).collect();
    batch
        .changes
        .into_iter()
        .zip(offsets)
        .map(move |((key, change), offset)| {
            let value = change.value.map(|value| Location {
                offset: start + offset as u64,
                length: u32::try_from(value.len()).unwrap_or(u32::MAX),
            });
            let existed = change.existed;
            (key, Journaled { value, existed })
        })
}

/// One file of the journal by itself.
#[derive(Debug)]
pub(crate) struct FileLook {
    pub(crate) generation: u64,
    pub(crate) first_batch: u64,
    /// One below the first if there is none.
    pub(crate) last_batch: u64,
    /// Up to where it is used, in bytes.
    pub(crate) used_bytes: u64,
    pub(crate) size_bytes: u64,
    /// The last record is torn, as a crash leaves it: it was never acknowledged.
    pub(crate) torn: bool,
    /// sled has all that it held, so nothing in it is needed any more.
    pub(crate) spent: bool,
}

/// Whether this file is spent, given the last batch in sled: a damaged one can be, if its header is not.
pub(crate) fn is_spent(dir: &Path, name: &str, in_sled: u64) -> bool {
    spent_file(dir, in_sled) == Some(dir.join(name))
}

/// Which of the two files is spent, given the last batch in sled; `None` if neither is, or the headers do not say.
fn spent_file(dir: &Path, in_sled: u64) -> Option<PathBuf> {
    let [one, other] = JOURNAL_FILES.map(|name| JournalFile::open(&dir.join(name)).ok());
    let (one, other) = (one?, other?);
    let (active, full) = match one.header.generation > other.header.generation {
        true => (one, other),
        false => (other, one),
    };
    (active.header.first_batch <= in_sled + 1).then(|| full.path().to_path_buf())
}

/// Whether this file is spent for all that can be told without sled: the older one, and shorter than its header says,
/// as only a spent file is made.
pub(crate) fn may_be_spent(dir: &Path, name: &str) -> bool {
    let header_and_length = |name: &&str| {
        let file = JournalFile::open(&dir.join(name)).ok()?;
        let length = file.length().ok()?;
        Some((file.header.generation, length < file.header.bytes))
    };
    let other = JOURNAL_FILES.into_iter().find(|other| *other != name);
    match (
        header_and_length(&name),
        other.as_ref().and_then(header_and_length),
    ) {
        (Some((generation, is_short)), Some((newer, _))) => is_short && generation < newer,
        _ => false,
    }
}

/// Reads one file of the journal as it is, and changes nothing. `in_sled` is the last batch in sled, if that is
/// known. Whether the two files fit together is for [`Journal::read`] to say.
pub(crate) fn look(dir: &Path, name: &str, in_sled: Option<u64>) -> Result<FileLook, StorageError> {
    let path = &dir.join(name);
    let mut file = JournalFile::open(path)?;
    let spent = in_sled.and_then(|in_sled| spent_file(dir, in_sled)).as_ref() == Some(path);
    let length = file.length()?;
    if spent && (RECORDS_START..file.header.bytes).contains(&length) {
        return look_at_shrunk(file, length);
    }
    let bytes = file.read_all()?;
    let scanned = file::scan(path, &file.header, &bytes, |_, _| ())?;
    let (at, missing) = (scanned.position, scanned.last_batch + 1);
    if let Some(later) = file::next_record(&file.header, &bytes, at) {
        let flaw = scanned.flaw.unwrap_or("is missing");
        let what =
            format!("the record of batch {missing} at byte {at} {flaw}, but that of batch {later} is there");
        return Err(damaged(path, what));
    }
    Ok(FileLook {
        generation: file.header.generation,
        first_batch: file.header.first_batch,
        last_batch: scanned.last_batch,
        used_bytes: at,
        size_bytes: length,
        torn: scanned.flaw.is_some(),
        spent,
    })
}

/// A spent file has the length for its next use already, under the header of its last: what is beyond was cut
/// off on purpose, wherever that was in a record.
fn look_at_shrunk(mut file: JournalFile, length: u64) -> Result<FileLook, StorageError> {
    file.header.bytes = length;
    let bytes = file.read_all()?;
    let scanned = file::scan(file.path(), &file.header, &bytes, |_, _| ())?;
    Ok(FileLook {
        generation: file.header.generation,
        first_batch: file.header.first_batch,
        last_batch: scanned.last_batch,
        used_bytes: scanned.position,
        size_bytes: length,
        torn: false,
        spent: true,
    })
}

fn owner(store: &Owner) -> Result<u32, StorageError> {
    let encoded = codec::encode(store, SMALL_RECORD_LIMIT_BYTES)
        .map_err(|error| StorageError::invalid_write(format!("the cluster id is too long: {error}")))?;
    Ok(crc32fast::hash(&encoded))
}

fn check_headers(active: &JournalFile, other: &JournalFile, owner: u32) -> Result<(), StorageError> {
    for file in [active, other] {
        if file.header.owner != owner {
            return Err(damaged(file.path(), "it belongs to another store".to_owned()));
        }
    }
    let (newer, older) = (active.header.generation, other.header.generation);
    if newer == older + 1 {
        return Ok(());
    }
    let what = format!("it is from use {older} of the journal, and the other file from use {newer}");
    Err(damaged(other.path(), what))
}

/// The changes of a full file, which must reach from sled's last batch to where `next` begins.
fn read_full(full: &mut JournalFile, next: &Header, in_sled: u64) -> Result<Layer, StorageError> {
    if full.header.first_batch > in_sled + 1 {
        return Err(StorageError::RolledBack {
            path: full
                .path()
                .ancestors()
                .nth(2)
                .unwrap_or(full.path())
                .to_path_buf(),
            acknowledged: full.header.first_batch - 1,
            found: in_sled,
        });
    }
    let bytes = full.read_all()?;
    let mut changes = Overlay::default();
    let scanned = file::scan(full.path(), &full.header, &bytes, |batch, start| {
        if batch.number > in_sled {
            changes.absorb(journaled(batch, start));
        }
    })?;
    if (scanned.last_batch + 1, scanned.checksum) == (next.first_batch, next.previous) {
        let values = full.values();
        return Ok(Layer { changes, values });
    }
    let what = format!(
        "the record of batch {} at byte {} {}, and the other file goes on with batch {}",
        scanned.last_batch + 1,
        scanned.position,
        scanned.flaw.unwrap_or("is missing"),
        next.first_batch
    );
    Err(damaged(full.path(), what))
}

/// Whether nothing acknowledged is behind the place where the records end.
fn check_end(
    active: &JournalFile,
    bytes: &[u8],
    scanned: &file::Scanned,
    acknowledged: u64,
) -> Result<(), StorageError> {
    let missing = scanned.last_batch + 1;
    let later = file::next_record(&active.header, bytes, scanned.position);
    if missing > acknowledged && later.is_none() {
        return Ok(());
    }
    let why = match later {
        Some(later) => format!("that of batch {later} is there"),
        None => format!("batch {acknowledged} was acknowledged"),
    };
    if scanned.flaw.is_none() && later.is_none() {
        return Err(StorageError::RolledBack {
            path: active.path().to_path_buf(),
            acknowledged,
            found: scanned.last_batch,
        });
    }
    let flaw = scanned.flaw.unwrap_or("is missing");
    let at = scanned.position;
    Err(damaged(
        active.path(),
        format!("the record of batch {missing} at byte {at} {flaw}, but {why}"),
    ))
}

#[cfg(test)]
mod tests;

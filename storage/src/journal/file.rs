//! One of the two files of the journal: its header, its space, and what a read of it finds.
//!
//! ```text
//! page 0 and page 1 (4096 bytes each)   two copies of the header: length (1) | sealed header | zeroes
//! from byte 8192 on                     records, see [`frame`](super::frame), each right behind the other
//! ```
//!
//! The header is written when a use of the file begins, and never again during it. One write makes both
//! copies, so one torn write leaves at least one of them, of this use or of the one before.
//!
//! The *salt* is a random number that goes into the checksum of each record. It is drawn anew for each use, so
//! that a record of an earlier use never verifies, nor does anything that a client has put into a value.

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::frame::{self, Found, Place, RECORD_VERSION};
use crate::error::StorageError;
use crate::overlay::{Batch, Location};
use crate::record::RecordKey;
use crate::restore;
use crate::sealed::{self, FORMAT_VERSION, Flaw};

const PAGE_BYTES: usize = 4096;
pub(super) const HEADER_LIMIT_BYTES: usize = 128;
const HEADER_COPIES: [&str; 2] = ["header/0", "header/1"];

/// Both copies of the header, each on a page of its own.
pub(super) type HeaderPages = [[u8; PAGE_BYTES]; HEADER_COPIES.len()];

/// Where the records begin.
pub(super) const RECORDS_START: u64 = (HEADER_COPIES.len() * PAGE_BYTES) as u64;

/// So much of a file is reserved by writing zeroes, the rest by asking the file system for it: the former makes each sync
/// of the first use faster, but costs as much writing as the use itself.
pub(super) const ZEROED_BYTES: u64 = 4 * 1024 * 1024;

/// How much is written at a time when a file gets its zeroes.
const ZEROES: &[u8] = &[0; 256 * 1024];

/// One use of a journal file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// A checksum of the identity of the store.
    pub(super) owner: u32,
    /// Counts the uses of the two files.
    pub(super) generation: u64,
    /// The number of the batch that comes first.
    pub(super) first_batch: u64,
    /// The checksum of the last record of the use before.
    pub(super) previous: u32,
    /// The length of the file that is in use.
    pub(super) bytes: u64,
    pub(super) salt: u64,
}

impl Header {
    pub(super) fn place(&self) -> Place {
        Place {
            generation: self.generation,
            salt: self.salt,
        }
    }
}

/// A number that cannot be guessed, from the seed that the standard library draws for its hash maps.
pub(super) fn draw_salt() -> u64 {
    RandomState::new().hash_one(())
}

/// An open journal file.
#[derive(Debug)]
pub(super) struct JournalFile {
    file: Arc<File>,
    path: PathBuf,
    pub(super) header: Header,
    /// Makes every sync fail, as a dying disk would.
    #[cfg(test)]
    pub(super) broken: bool,
}

impl JournalFile {
    /// Creates the file with its header and its space, durably but for its name in the directory.
    pub(super) fn create(path: &Path, header: Header) -> Result<(), StorageError> {
        let file = File::create_new(path).map_err(StorageError::while_trying("create", path))?;
        drop(file);
        fill(path, header.bytes).map_err(StorageError::while_trying("reserve space in", path))?;
        Self::at(path, header)?.begin(header)
    }

    /// Opens the file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        let missing = || StorageError::ContentsLost {
            path: path.parent().unwrap_or(path).to_path_buf(),
            missing: format!("the journal file {}", path.display()),
        };
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            opened => opened.map_err(StorageError::while_trying("open", path))?,
        };
        let mut pages = Vec::with_capacity(HEADER_COPIES.len() * PAGE_BYTES);
        Read::by_ref(&mut file)
            .take(RECORDS_START)
            .read_to_end(&mut pages)
            .map_err(StorageError::while_trying("read", path))?;
        let header = newest_copy(path, &pages)?;
        Self::at(path, header)
    }

    fn at(path: &Path, header: Header) -> Result<Self, StorageError> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        Ok(Self {
            file: Arc::new(opened.map_err(StorageError::while_trying("open", path))?),
            path: path.to_path_buf(),
            header,
            #[cfg(test)]
            broken: false,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The values in its records.
    pub(super) fn values(&self) -> Values {
        Values {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
        }
    }

    /// The length of the file, which may be more or less than what the header says.
    pub(super) fn length(&self) -> Result<u64, StorageError> {
        let metadata = self.file.metadata();
        metadata
            .map(|metadata| metadata.len())
            .map_err(StorageError::while_trying("read the length of", &self.path))
    }

    /// Begins another use of the file, durably. What follows is written behind the header.
    pub(super) fn begin(&mut self, header: Header) -> Result<(), StorageError> {
        self.seek(0)?;
        self.write(header_pages(&header).as_flattened())?;
        self.header = header;
        self.sync()
    }

    /// Moves to `position`, where the next record goes.
    pub(super) fn seek(&mut self, position: u64) -> Result<(), StorageError> {
        (&*self.file)
            .seek(SeekFrom::Start(position))
            .map(drop)
            .map_err(StorageError::while_trying("seek in", &self.path))
    }

    /// Writes on from where the last write or seek ended.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        (&*self.file)
            .write_all(bytes)
            .map_err(StorageError::while_trying("write", &self.path))
    }

    /// Waits until everything written so far is on the disk.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        #[cfg(test)]
        if self.broken {
            let error = io::Error::other("the test asked for it");
            return Err(StorageError::io("sync", &self.path, error));
        }
        self.file
            .sync_data()
            .map_err(StorageError::while_trying("sync", &self.path))
    }

    /// Reads all of the file that is in use.
    pub(super) fn read_all(&mut self) -> Result<Vec<u8>, StorageError> {
        self.seek(0)?;
        // As long as the file is, if it is shorter than its header says.
        let length = self.length()?.min(self.header.bytes);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        Read::by_ref(&mut &*self.file)
            .take(self.header.bytes)
            .read_to_end(&mut bytes)
            .map_err(StorageError::while_trying("read", &self.path))?;
        if (bytes.len() as u64) < self.header.bytes {
            let what = format!(
                "it is cut short to {} of {} bytes",
                bytes.len(),
                self.header.bytes
            );
            return Err(damaged(&self.path, what));
        }
        Ok(bytes)
    }
}

/// The values in the records of a journal file, to be read one by one while it may be written on.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    file: Arc<File>,
    path: PathBuf,
}

impl Values {
    /// Reads one value.
    pub(crate) fn read(&self, location: Location) -> Result<Vec<u8>, StorageError> {
        let mut value = vec![0; usize::try_from(location.length).unwrap_or(usize::MAX)];
        self.file
            .read_exact_at(&mut value, location.offset)
            .map_err(StorageError::while_trying("read", &self.path))?;
        Ok(value)
    }

    /// Reads the value of the record `key`, and verifies it: the disk may give others than it was given.
    pub(crate) fn read_verified(&self, key: &[u8], location: Location) -> Result<Vec<u8>, StorageError> {
        let value = self.read(location)?;
        match sealed::verify(key, &value) {
            Ok(_) => Ok(value),
            Err(flaw) => {
                let index = RecordKey::from_bytes(key).map(|key| key.first_index);
                let name = match index {
                    Some(index) => format!("the log record at index {index}"),
                    None => restore::name_of(key),
                };
                Err(StorageError::Damaged {
                    path: self.path.clone(),
                    what: format!("{name}: {flaw}"),
                    index,
                })
            }
        }
    }

    /// Those of any file, to be read at any place.
    #[cfg(test)]
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(File::open(path)?),
            path: path.to_path_buf(),
        })
    }
}

/// Gives the file at `path` `bytes` of space: what is beyond is cut off, what is missing is reserved, and reads as
/// zeroes. Durable when it returns. When it fails, the file is as long as before, and what it held is untouched.
pub(super) fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    if length > bytes {
        file.set_len(bytes)?;
    }
    let filled = append_space(&mut file, length..bytes);
    if filled.is_err() {
        // What there was of it may be all that the disk had left.
        file.set_len(length)?;
    }
    file.sync_all()?;
    filled
}

/// Adds space for `range`, which begins at the end of `file`, where it stands.
fn append_space(file: &mut File, range: Range<u64>) -> io::Result<()> {
    let zeroed = range.end.min(ZEROED_BYTES).max(range.start);
    write_zeroes(file, range.start..zeroed)?;
    if zeroed < range.end && !reserve(file, zeroed..range.end)? {
        write_zeroes(file, zeroed..range.end)?;
    }
    Ok(())
}

/// Writes zeroes to `range` of `file`, which stands at its start.
fn write_zeroes(file: &mut File, range: Range<u64>) -> io::Result<()> {
    let mut left = range.end.saturating_sub(range.start);
    while left > 0 {
        let some = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROES.len());
        file.write_all(&ZEROES[..some])?;
        left -= some as u64;
    }
    Ok(())
}

/// Has the file system keep space for `range` of `file`, behind its end. Not so, and nothing happens, where the file
/// system cannot do that.
fn reserve(file: &File, range: Range<u64>) -> io::Result<bool> {
    let bytes = range.end.saturating_sub(range.start);
    let reserve = || rustix::fs::fallocate(file, FallocateFlags::empty(), range.start, bytes);
    match rustix::io::retry_on_intr(reserve) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What a file holds, up to the first place where there is no record.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Where the next record goes.
    pub(super) position: u64,
    /// Where the last record begins; `position` if there is none.
    pub(super) last_start: u64,
    /// The last batch; the one before the file's first if there is none.
    pub(super) last_batch: u64,
    /// The checksum of the last record.
    pub(super) checksum: u32,
    /// What is wrong with the record there, if there is the beginning of one.
    pub(super) flaw: Option<&'static str>,
}

/// Reads the records in `bytes`, which are the whole file, and hands their batches to `visit` in order, each with the
/// place of its record in the file.
pub(super) fn scan(
    path: &Path,
    header: &Header,
    bytes: &[u8],
    mut visit: impl FnMut(Batch, u64),
) -> Result<Scanned, StorageError> {
    let mut scanned = Scanned {
        position: RECORDS_START,
        last_start: RECORDS_START,
        last_batch: header.first_batch - 1,
        checksum: header.previous,
        flaw: None,
    };
    loop {
        let position = usize::try_from(scanned.position).unwrap_or(usize::MAX);
        let frame = match frame::find(bytes.get(position..).unwrap_or_default(), header.place()) {
            Found::Record(frame) => frame,
            Found::Bad(flaw) => {
                scanned.flaw = Some(flaw);
                return Ok(scanned);
            }
            Found::Nothing => return Ok(scanned),
        };
        let at = format!("the record of batch {} at byte {position}", frame.batch);
        if frame.version != RECORD_VERSION {
            return Err(StorageError::UnsupportedVersion {
                path: path.to_path_buf(),
                found: frame.version.into(),
                supported: RECORD_VERSION.into(),
            });
        }
        if frame.batch != scanned.last_batch + 1 || frame.previous != scanned.checksum {
            let last = scanned.last_batch;
            return Err(damaged(path, format!("{at} does not follow batch {last}")));
        }
        scanned.last_start = scanned.position;
        scanned.position += frame.length as u64;
        scanned.last_batch = frame.batch;
        scanned.checksum = frame.checksum;
        visit(
            frame
                .decode()
                .ok_or_else(|| damaged(path, format!("{at} cannot be read")))?,
            scanned.last_start,
        );
    }
}

/// The batch of the first record behind `position`, at any place where one could be.
pub(super) fn next_record(header: &Header, bytes: &[u8], position: u64) -> Option<u64> {
    let start = usize::try_from(position).ok()? + frame::SECTOR_BYTES;
    (start..bytes.len())
        .step_by(frame::SECTOR_BYTES)
        .find_map(|start| match frame::find(&bytes[start..], header.place()) {
            Found::Record(frame) => Some(frame.batch),
            Found::Bad(_) | Found::Nothing => None,
        })
}

pub(super) fn damaged(path: &Path, what: String) -> StorageError {
    StorageError::Damaged {
        path: path.to_path_buf(),
        what,
        index: None,
    }
}

/// The pages in front of the records.
pub(super) fn header_pages(header: &Header) -> HeaderPages {
    let mut pages = [[0; PAGE_BYTES]; HEADER_COPIES.len()];
    for (page, place) in pages.iter_mut().zip(HEADER_COPIES) {
        let encoded = encode_copy(place, header);
        page[..encoded.len()].copy_from_slice(&encoded);
    }
    pages
}

fn encode_copy(place: &str, header: &Header) -> Vec<u8> {
    let sealed = sealed::seal(place.as_bytes(), header, HEADER_LIMIT_BYTES)
        .expect("six numbers take at most 54 bytes, which is below the limit");
    let length = u8::try_from(sealed.len()).expect("a sealed header takes at most 59 bytes");
    [&[length], sealed.as_slice()].concat()
}

fn decode_copy(place: &str, page: &[u8]) -> Result<Header, Flaw> {
    let short = || Flaw::Short(page.len());
    let (length, rest) = page.split_first().ok_or_else(short)?;
    let sealed = rest.get(..usize::from(*length)).ok_or_else(short)?;
    sealed::unseal(place.as_bytes(), sealed, HEADER_LIMIT_BYTES)
}

pub(super) fn newest_copy(path: &Path, pages: &[u8]) -> Result<Header, StorageError> {
    let copies: Vec<Result<Header, Flaw>> = HEADER_COPIES
        .iter()
        .zip(pages.chunks(PAGE_BYTES))
        .map(|(place, page)| decode_copy(place, page))
        .collect();
    let readable = copies.iter().filter_map(|copy| copy.as_ref().ok());
    if let Some(newest) = readable.max_by_key(|header| header.generation) {
        let numbers = [newest.generation, newest.first_batch];
        if newest.first_batch > 0 && numbers.iter().all(|number| *number < u64::MAX / 2) {
            return Ok(*newest);
        }
        return Err(damaged(path, "its header holds impossible numbers".to_owned()));
    }
    for copy in copies {
        if let Err(Flaw::Version(found)) = copy {
            return Err(StorageError::UnsupportedVersion {
                path: path.to_path_buf(),
                found: found.into(),
                supported: FORMAT_VERSION.into(),
            });
        }
    }
    Err(damaged(path, "neither copy of its header can be read".to_owned()))
}

//! Reads and verifies the bytes of a snapshot file, from any source.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;
use raft_core::{LogIndex, SnapshotMeta};

use super::SnapshotReader;
use super::format::{
    self, FRAME_BYTES, FRAME_HEADER_BYTES, HeaderMeta, PREAMBLE_BYTES, TRAILER_BYTES, Trailer,
};
use crate::error::StorageError;

/// A snapshot file whose header, trailer and size have been verified.
#[derive(Debug)]
pub(super) struct Reader<S> {
    source: S,
    path: PathBuf,
    index: LogIndex,
    header: Bytes,
    trailer: Trailer,
    size_bytes: u64,
    /// The chunk that was verified last, with its header: reads that go on in the middle of it need no
    /// second look at the file.
    latest: Option<(u64, Bytes)>,
}

impl<S: Read + Seek> Reader<S> {
    /// Verifies that `source` is the file that `snapshot` names. It is called `path` when it is damaged.
    pub(super) fn open(mut source: S, path: &Path, snapshot: &SnapshotMeta) -> Result<Self, StorageError> {
        let index = snapshot.last_included_index;
        let damaged = |what: String| damage(path, index, what);
        let size_bytes = source
            .seek(SeekFrom::End(0))
            .map_err(|error| damaged(error.to_string()))?;
        if size_bytes != snapshot.size_bytes {
            return Err(damaged(format!(
                "it has {size_bytes} bytes instead of {}",
                snapshot.size_bytes
            )));
        }
        let header = read_header(&mut source).map_err(damaged)?;
        if HeaderMeta::from_header(&header).map_err(damaged)? != HeaderMeta::of(snapshot) {
            return Err(damaged("its header belongs to another snapshot".to_owned()));
        }
        let trailer = read_trailer(&mut source, size_bytes, header.len()).map_err(damaged)?;
        if trailer.file_checksum() != snapshot.checksum {
            return Err(damaged("it is another file than the one on record".to_owned()));
        }
        Ok(Self {
            source,
            path: path.to_path_buf(),
            index,
            header,
            trailer,
            size_bytes,
            latest: None,
        })
    }

    /// Reads everything; an error names the first damage.
    pub(super) fn verify_all(self) -> io::Result<()> {
        io::copy(&mut Content::new(self), &mut io::sink()).map(drop)
    }

    fn frames_start(&self) -> u64 {
        self.header.len() as u64
    }

    fn trailer_start(&self) -> u64 {
        self.size_bytes - TRAILER_BYTES as u64
    }

    /// The whole chunk with this number, which must be below `trailer.chunks`; verified.
    fn frame(&mut self, number: u64) -> Result<Bytes, String> {
        if let Some((latest, frame)) = &self.latest
            && *latest == number
        {
            return Ok(frame.clone());
        }
        let start = self.frames_start() + number * FRAME_BYTES as u64;
        let length = (self.trailer_start() - start).min(FRAME_BYTES as u64);
        let length = usize::try_from(length).map_err(|error| error.to_string())?;
        let frame = read_at(&mut self.source, start, length)?;
        format::open_frame(number, &frame)?;
        self.latest = Some((number, frame.clone()));
        Ok(frame)
    }

    /// The verified piece of the file that holds `offset`, from there on; empty at the end.
    fn piece_from(&mut self, offset: u64) -> Result<Bytes, String> {
        let (piece, start) = if offset < self.frames_start() {
            (self.header.clone(), 0)
        } else if offset < self.trailer_start() {
            let number = (offset - self.frames_start()) / FRAME_BYTES as u64;
            (
                self.frame(number)?,
                self.frames_start() + number * FRAME_BYTES as u64,
            )
        } else if offset < self.size_bytes {
            (
                Bytes::copy_from_slice(&self.trailer.to_bytes()),
                self.trailer_start(),
            )
        } else {
            return Ok(Bytes::new());
        };
        let skip = usize::try_from(offset - start).map_err(|error| error.to_string())?;
        Ok(piece.slice(skip..))
    }
}

fn read_header(source: &mut (impl Read + Seek)) -> Result<Bytes, String> {
    let preamble = read_at(source, 0, PREAMBLE_BYTES)?;
    let preamble = preamble
        .as_ref()
        .try_into()
        .map_err(|_| "its header is cut short".to_owned())?;
    read_at(source, 0, format::header_bytes(preamble)?)
}

fn read_trailer(
    source: &mut (impl Read + Seek),
    size_bytes: u64,
    header_bytes: usize,
) -> Result<Trailer, String> {
    let cut_short = || "it is cut short".to_owned();
    let start = size_bytes
        .checked_sub(TRAILER_BYTES as u64)
        .ok_or_else(cut_short)?;
    let frames_bytes = start.checked_sub(header_bytes as u64).ok_or_else(cut_short)?;
    let bytes = read_at(source, start, TRAILER_BYTES)?;
    let trailer = Trailer::from_bytes(bytes.as_ref().try_into().map_err(|_| cut_short())?)?;
    if trailer.fits(frames_bytes) {
        Ok(trailer)
    } else {
        Err("its size does not fit its trailer".to_owned())
    }
}

fn read_at(source: &mut (impl Read + Seek), offset: u64, length: usize) -> Result<Bytes, String> {
    let mut bytes = BytesMut::zeroed(length);
    source
        .seek(SeekFrom::Start(offset))
        .and_then(|_| source.read_exact(&mut bytes))
        .map_err(|error| format!("it cannot be read at byte {offset} ({error})"))?;
    Ok(bytes.freeze())
}

fn damage(path: &Path, index: LogIndex, what: String) -> StorageError {
    StorageError::SnapshotDamaged {
        path: path.to_path_buf(),
        index,
        what,
    }
}

impl<S: Read + Seek + Send + 'static> SnapshotReader for Reader<S> {
    fn read_chunk(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes, StorageError> {
        let mut chunk = BytesMut::new();
        while chunk.len() < max_bytes {
            let piece = self
                .piece_from(offset.saturating_add(chunk.len() as u64))
                .map_err(|what| damage(&self.path, self.index, what))?;
            if piece.is_empty() {
                break;
            }
            chunk.extend_from_slice(&piece[..piece.len().min(max_bytes - chunk.len())]);
        }
        Ok(chunk.freeze())
    }

    fn content(self: Box<Self>) -> Box<dyn Read + Send> {
        Box::new(Content::new(*self))
    }
}

/// The payload of a snapshot, verified as it is read.
#[derive(Debug)]
struct Content<S> {
    reader: Reader<S>,
    next_chunk: u64,
    /// What is left of the present chunk.
    rest: Bytes,
    /// Of everything up to the present chunk.
    checksum: Hasher,
}

impl<S: Read + Seek> Content<S> {
    fn new(reader: Reader<S>) -> Self {
        let mut checksum = Hasher::new();
        checksum.update(&reader.header);
        Self {
            reader,
            next_chunk: 0,
            rest: Bytes::new(),
            checksum,
        }
    }

    /// Fills `rest`; leaves it empty at the end, which must agree with the trailer.
    fn advance(&mut self) -> Result<(), String> {
        if self.next_chunk < self.reader.trailer.chunks {
            let frame = self.reader.frame(self.next_chunk)?;
            self.checksum.update(&frame);
            self.rest = frame.slice(FRAME_HEADER_BYTES..);
            self.next_chunk += 1;
            return Ok(());
        }
        if self.checksum.clone().finalize() == self.reader.trailer.body_checksum {
            Ok(())
        } else {
            Err("its checksum does not match its content".to_owned())
        }
    }
}

impl<S: Read + Seek> Read for Content<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && !buffer.is_empty() {
            self.advance().map_err(|what| {
                let damage = damage(&self.reader.path, self.reader.index, what);
                io::Error::new(io::ErrorKind::InvalidData, damage)
            })?;
        }
        let taken = buffer.len().min(self.rest.len());
        buffer[..taken].copy_from_slice(&self.rest.split_to(taken));
        Ok(taken)
    }
}

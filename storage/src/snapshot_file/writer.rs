//! Writes the bytes of a snapshot file, to any destination.

use std::io::{self, Write};

use crc32fast::Hasher;
use raft_core::SnapshotMeta;

use super::format::{self, CHUNK_BYTES, HeaderMeta, Trailer};

/// Cuts a payload into chunks and counts what the meta needs.
#[derive(Debug)]
pub(super) struct Encoder<W> {
    destination: W,
    meta: HeaderMeta,
    chunk: Vec<u8>,
    chunks: u64,
    payload_bytes: u64,
    file_bytes: u64,
    checksum: Hasher,
    failed: bool,
}

impl<W: Write> Encoder<W> {
    /// Writes the header.
    pub(super) fn start(destination: W, meta: HeaderMeta) -> io::Result<Self> {
        let header = meta
            .to_header()
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let mut encoder = Self {
            destination,
            meta,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            chunks: 0,
            payload_bytes: 0,
            file_bytes: 0,
            checksum: Hasher::new(),
            failed: false,
        };
        encoder.emit(&header)?;
        Ok(encoder)
    }

    /// Writes the last chunk and the trailer.
    pub(super) fn finish(mut self) -> io::Result<(W, SnapshotMeta)> {
        if self.failed {
            return Err(io::Error::other("an earlier write to this snapshot failed"));
        }
        if !self.chunk.is_empty() {
            self.emit_chunk()?;
        }
        let trailer = Trailer {
            chunks: self.chunks,
            payload_bytes: self.payload_bytes,
            body_checksum: self.checksum.clone().finalize(),
        };
        self.emit(&trailer.to_bytes())?;
        self.destination.flush()?;
        let snapshot = SnapshotMeta {
            last_included_index: self.meta.last_included_index,
            last_included_term: self.meta.last_included_term,
            terms: Vec::new(),
            configuration: self.meta.configuration,
            size_bytes: self.file_bytes,
            checksum: self.checksum.finalize(),
        };
        Ok((self.destination, snapshot))
    }

    fn emit_chunk(&mut self) -> io::Result<()> {
        let data = std::mem::take(&mut self.chunk);
        self.emit(&format::frame_header(self.chunks, &data))?;
        self.emit(&data)?;
        self.chunks += 1;
        self.payload_bytes += data.len() as u64;
        self.chunk = data;
        self.chunk.clear();
        Ok(())
    }

    fn emit(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.destination
            .write_all(bytes)
            .inspect_err(|_| self.failed = true)?;
        self.checksum.update(bytes);
        self.file_bytes += bytes.len() as u64;
        Ok(())
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, payload: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::other("an earlier write to this snapshot failed"));
        }
        if self.chunk.len() == CHUNK_BYTES {
            self.emit_chunk()?;
        }
        let taken = payload.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&payload[..taken]);
        Ok(taken)
    }

    /// Does nothing: a chunk is written when it is full, and durability comes with `finish`.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

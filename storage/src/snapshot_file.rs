//! Snapshot files (Raft §7): format, writing, reading, and the store that holds them.
//!
//! # Format
//!
//! All numbers big endian.
//!
//! ```text
//! header    magic "RAFTSNAP" (8) | format version (4) | length of meta (4) | meta | CRC-32 of all before (4)
//! chunk 0   length n (4) | CRC-32 of (chunk number as 8 bytes, length, data) (4) | data (n)
//! chunk 1   ...
//! trailer   magic "SNAPTAIL" (8) | chunks (8) | payload bytes (8) | CRC-32 of all before the trailer (4)
//!           | CRC-32 of the trailer so far (4)
//! ```
//!
//! *Meta* is last included index, last included term and configuration. Every chunk but the last holds
//! exactly [`CHUNK_BYTES`] of payload, and the last at least one byte, so where each chunk starts follows
//! from the length of the file. The chunk's number is in its checksum, so chunks cannot change places.
//!
//! The checksum in [`SnapshotMeta`](raft_core::SnapshotMeta) is the CRC-32 of the whole file. Because the
//! trailer holds the CRC-32 of everything before it, opening a file can verify from the trailer alone that
//! it is the very file that the meta names; the content is verified chunk by chunk as it is read.
//!
//! # Names
//!
//! `<index>-<term>-<checksum>.snapshot`, made here from numbers. Nothing that the network says becomes a
//! path. The checksum keeps apart two snapshots of the same index, cut by different nodes, so a received file
//! never replaces the one that the store has on record. Files that end in `.tmp` are unfinished, or on
//! their way out; opening the directory removes them.
//!
//! # Order of writing, and what a crash after each step leaves
//!
//! 1. The file is written under a temporary name, and synced piece by piece so that the syncs of the journal do not
//!    wait for all of it. *A leftover, removed at the next open.*
//! 2. It is synced. *As after 1.*
//! 3. It is renamed. *As after 1, or a file that no record names, removed at the next open.*
//! 4. The directory is synced. *A file that no record names, removed at the next open.*
//! 5. The caller has it recorded by `Storage::write`, which then renames the older files and has them shortened and
//!    removed. *A leftover, whole or in part, removed at the next open.*

mod files;
mod format;
pub(crate) mod fuzzing;
mod memory;
mod pace;
mod reader;
mod remover;
mod writer;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use raft_core::{Configuration, LogIndex, SnapshotMeta, Term};

use crate::error::StorageError;

pub use files::FileSnapshots;
pub use format::{CHUNK_BYTES, snapshot_file_bytes};
pub use memory::MemorySnapshots;

/// Whether a file received from another node is what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a damaged snapshot must be fetched again"]
pub enum StagedVerdict {
    /// The file is whole, durable and in place: it can be recorded with `Write::InstallSnapshot`.
    Good,
    /// The file is not the one that was announced, or damaged. It was thrown away.
    Damaged,
}

/// The snapshot files of one node.
///
/// At most one snapshot is being received (staged) at a time. Snapshots may be cut, sent and received
/// at the same time from different threads.
pub trait SnapshotStore: Send + Sync {
    /// Starts a new snapshot of the state as of `last_included_index`, whose payload is what is then written.
    ///
    /// # Errors
    ///
    /// When the file cannot be created, or the configuration is too large for a header.
    fn create(
        &self,
        last_included_index: LogIndex,
        last_included_term: Term,
        configuration: &Configuration,
    ) -> Result<Box<dyn SnapshotWriter>, StorageError>;

    /// Opens a snapshot to send or to load it. The reader goes on working when the file is removed meanwhile.
    ///
    /// # Errors
    ///
    /// [`StorageError::SnapshotMissing`] when the file was removed because there is a newer snapshot;
    /// [`StorageError::SnapshotLost`] when it is not there for any other reason;
    /// [`StorageError::SnapshotDamaged`] when its header, trailer or size is not what `snapshot` says.
    fn open(&self, snapshot: &SnapshotMeta) -> Result<Box<dyn SnapshotReader>, StorageError>;

    /// Stores a received chunk: `data` are the bytes of the file from `offset` on. Offset 0 starts
    /// anew, whatever was staged before; any other offset must be where the last chunk ended.
    ///
    /// # Errors
    ///
    /// [`StorageError::ChunkRefused`] when the chunk does not continue what is staged, or runs past
    /// `snapshot.size_bytes`; what is staged stays as it was. Other errors when it cannot be written; nothing is
    /// staged then.
    fn stage(&self, snapshot: &SnapshotMeta, offset: u64, data: &[u8]) -> Result<(), StorageError>;

    /// Verifies all of the staged file and puts it in place, durably.
    ///
    /// # Errors
    ///
    /// [`StorageError::ChunkRefused`] when nothing of `snapshot` is staged; other errors when the file cannot
    /// be read, synced or renamed.
    fn finish_staged(&self, snapshot: &SnapshotMeta) -> Result<StagedVerdict, StorageError>;

    /// Removes the files of snapshots older than `keep`, once `keep` is on record. A file of a newer
    /// snapshot stays: it may have been finished and not yet recorded.
    ///
    /// # Errors
    ///
    /// When a file cannot be removed.
    fn remove_except(&self, keep: &SnapshotMeta) -> Result<(), StorageError>;

    /// The snapshot on record and where its file should be, if something else than this program removed it. A node
    /// without it cannot be started again. Never the file that is just being replaced by a newer one. Takes a few
    /// microseconds.
    fn lost(&self) -> Option<(SnapshotMeta, PathBuf)>;
}

/// Receives the payload of a new snapshot. Dropping it unfinished leaves nothing behind.
pub trait SnapshotWriter: io::Write + Send {
    /// Completes the file and makes it durable under its final name.
    ///
    /// # Errors
    ///
    /// When any of that fails, or an earlier write had failed. There is then no snapshot.
    fn finish(self: Box<Self>) -> Result<SnapshotMeta, StorageError>;
}

/// Reads one snapshot file.
pub trait SnapshotReader: Send {
    /// Up to `max_bytes` of the raw file from `offset` on, to be sent to another node. Empty at the end of
    /// the file, and only there (if `max_bytes` is not 0). Every byte returned was verified.
    ///
    /// # Errors
    ///
    /// [`StorageError::SnapshotDamaged`] when a checksum does not match.
    fn read_chunk(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes, StorageError>;

    /// The payload, as it was written. Reading fails with [`io::ErrorKind::InvalidData`] at the first chunk
    /// that is damaged, before any byte of it is handed out; the end is only reported once the whole file
    /// has been verified.
    fn content(self: Box<Self>) -> Box<dyn io::Read + Send>;
}

/// Whether a chunk continues what is staged: shared by the two stores.
fn check_chunk(
    staged: &SnapshotMeta,
    snapshot: &SnapshotMeta,
    staged_bytes: u64,
    offset: u64,
    data: &[u8],
) -> Result<(), StorageError> {
    let refused = |what: String| Err(StorageError::ChunkRefused { offset, what });
    if staged != snapshot {
        return refused("another snapshot is being received; start at offset 0".to_owned());
    }
    if offset != staged_bytes {
        return refused(format!("the next byte needed is at offset {staged_bytes}"));
    }
    match offset.checked_add(data.len() as u64) {
        Some(end) if end <= snapshot.size_bytes => Ok(()),
        _ => refused(format!(
            "it runs past the {} bytes of the file",
            snapshot.size_bytes
        )),
    }
}

fn nothing_staged(offset: u64) -> StorageError {
    StorageError::ChunkRefused {
        offset,
        what: "nothing of this snapshot is staged; start at offset 0".to_owned(),
    }
}

#[cfg(test)]
mod tests;

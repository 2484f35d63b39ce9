//! Everything that can go wrong, and what the operator or the caller can do about each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raft_core::{LogIndex, NodeId};

/// Why the storage refused. A node that meets any of these on opening or writing must not go on.
///
/// The error is `Clone` because a store whose write failed answers every later call with the very same one.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The path exists and is not a directory.
    #[error("{} is not a directory: name a directory for the data, or move the file away", path.display())]
    NotADirectory {
        /// The path that was given.
        path: PathBuf,
    },
    /// The operating system denied access.
    #[error(
        "no permission to use {}: make it readable and writable for the user that runs the node",
        path.display()
    )]
    PermissionDenied {
        /// What could not be used.
        path: PathBuf,
        /// The refusal of the operating system.
        source: Arc<io::Error>,
    },
    /// The directory holds something, and it is not a store.
    #[error(
        "{} holds files but no {found_nothing_of}: if it is not a data directory, name an empty one; if it \
         was one, its contents were lost: empty it and start the node with --join",
        path.display()
    )]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// The file by which a store is known.
        found_nothing_of: &'static str,
    },
    /// The directory belongs to another cluster.
    #[error(
        "{} belongs to cluster {found:?}, not to {expected:?}: correct cluster_id or data_dir in the \
         configuration",
        path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster that was asked for.
        expected: String,
        /// The cluster that the directory belongs to.
        found: String,
    },
    /// The directory belongs to another node of the cluster.
    #[error(
        "{} belongs to node {found}, not to node {expected}: correct --id or data_dir",
        path.display()
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// The node that was asked for.
        expected: NodeId,
        /// The node that the directory belongs to.
        found: NodeId,
    },
    /// Another process, or another store in this one, has the directory open.
    #[error(
        "{} is in use by another process: stop that process, or give this node its own data_dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The store was written by a version with another format.
    #[error(
        "{} has format version {found}, and this program reads version {supported}: start it with the \
         program that wrote it",
        path.display()
    )]
    UnsupportedVersion {
        /// What has the version.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version that this program reads and writes.
        supported: u32,
    },
    /// A store was to be made to join a cluster, and there is one already that holds something.
    #[error(
        "{} already holds the data of this node, and joining is for a node that has lost it. To go on with this \
         data, start without --join. To give it up, empty the directory first",
        path.display()
    )]
    JoinsWithData {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was a store once, and parts of it are gone.
    #[error(
        "{} was initialised before, but {missing} is gone: what this node promised is lost, so it must not \
         vote. Put the lost files back, or empty the directory and start the node with --join",
        path.display()
    )]
    ContentsLost {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// The store is whole but older than what it has acknowledged.
    #[error(
        "{} holds batch {found}, but batch {acknowledged} was acknowledged: the files were rolled back or \
         lost their end, so this node must not vote. Put the newer files back, or empty the \
         directory and start the node with --join",
        path.display()
    )]
    RolledBack {
        /// The directory.
        path: PathBuf,
        /// The last batch known to have been acknowledged.
        acknowledged: u64,
        /// The last batch that the store holds.
        found: u64,
    },
    /// Something in the store is not what was written.
    #[error(
        "{} is damaged: {what}. What this node promised may be lost, so it must not vote. Check the disk; \
         put an intact and current copy of the files back, or empty the directory and start the node \
         with --join",
        path.display()
    )]
    Damaged {
        /// The directory or file.
        path: PathBuf,
        /// Which record or part, and what is wrong with it.
        what: String,
        /// The log index where the damage was met, if it is in the log.
        index: Option<LogIndex>,
    },
    /// The operating system failed a request.
    #[error("could not {action} {}: {source}. {}", path.display(), advice(source))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// A write failed inside the database. Nothing of it was acknowledged.
    #[error(
        "could not write to {}: {cause}. Nothing of this write was acknowledged; the node must stop. Check \
         the disk (is it full, or failing?) and start the node again",
        path.display()
    )]
    WriteFailed {
        /// The database.
        path: PathBuf,
        /// What the database said.
        cause: String,
    },
    /// The database has not answered within a bound. Nothing of this write was acknowledged.
    #[error(
        "{} has not answered for {} s: the disk does not answer, or a write to it has failed. Nothing of this \
         write was acknowledged; the node must stop. Check the disk (is it full, or failing?) and start the \
         node again",
        path.display(),
        waited.as_secs_f64()
    )]
    NoAnswer {
        /// The database.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// The caller asked for a change that no correct Raft log makes. Nothing was written.
    #[error("refused a write that breaks the log: {what}. This is a defect in the program, please report it")]
    InvalidWrite {
        /// Which rule the write breaks.
        what: String,
    },
    /// The store was crashed or closed under its user. Only [`MemoryDisk`](crate::MemoryDisk) says so.
    #[error("the disk is gone: it crashed after this store was opened. Open a new store")]
    Crashed,
    /// The snapshot file was removed, as it should be, because there is a newer snapshot.
    #[error("there is no snapshot file for index {index}: a newer snapshot has replaced it")]
    SnapshotMissing {
        /// The last log index that the snapshot covers.
        index: LogIndex,
    },
    /// The snapshot file is not there, and no newer snapshot has replaced it.
    #[error("the snapshot file {} is gone: something else than this program removed it", path.display())]
    SnapshotLost {
        /// Where it should be.
        path: PathBuf,
    },
    /// A snapshot file is not what was written.
    #[error("the snapshot file {} is damaged: {what}", path.display())]
    SnapshotDamaged {
        /// The file.
        path: PathBuf,
        /// The last log index that the snapshot covers.
        index: LogIndex,
        /// What is wrong.
        what: String,
    },
    /// A chunk of a snapshot does not continue what is staged.
    #[error("a snapshot chunk at offset {offset} does not continue what is staged: {what}")]
    ChunkRefused {
        /// The offset of the chunk, in bytes.
        offset: u64,
        /// Why it does not fit.
        what: String,
    },
}

/// What to do when the operating system says this.
fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind::{
        FileTooLarge, IsADirectory, NotADirectory, NotFound, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match error.kind() {
        StorageFull | QuotaExceeded => "The disk is full: make room on it",
        FileTooLarge => {
            "A limit on the size of files stops it, or that of the file system: raise the limit (ulimit -f in a shell, \
             LimitFSIZE= in a unit file)"
        }
        ReadOnlyFilesystem => {
            "The file system is read-only: a disk that fails is made so, or it was mounted so. Check the disk"
        }
        IsADirectory | NotADirectory => {
            "Something else stands in the place of one of the node's files: move it away, and put the file back"
        }
        NotFound => "It, or a directory on the way to it, is not there: if something removed it, put it back",
        _ => "Check the disk: is it full, or failing?",
    }
}

impl StorageError {
    /// Whether the directory is of no use as it is, and the remedy, if nothing can be put back, is to empty it and
    /// to start the node with `--join`.
    #[must_use]
    pub fn leaves_joining(&self) -> bool {
        matches!(
            self,
            Self::NotAStore { .. }
                | Self::ContentsLost { .. }
                | Self::RolledBack { .. }
                | Self::Damaged { .. }
        )
    }

    /// Whether the disk failed, or is full: the directory may be as it should be.
    #[must_use]
    pub fn is_of_the_disk(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() != io::ErrorKind::IsADirectory,
            Self::WriteFailed { .. } | Self::NoAnswer { .. } => true,
            _ => false,
        }
    }

    /// Whether a snapshot file is lost or damaged, so that another snapshot has to take its place.
    #[must_use]
    pub fn calls_for_another_snapshot(&self) -> bool {
        matches!(self, Self::SnapshotLost { .. } | Self::SnapshotDamaged { .. })
    }

    /// Whether only room was lacking, on the disk or in a quota.
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Whether something that was being written is not there any more.
    #[must_use]
    pub fn is_for_want_of_the_file(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// What the operating system refused to read, write or use.
    #[must_use]
    pub fn refused_path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. } | Self::PermissionDenied { path, .. } => Some(path),
            _ => None,
        }
    }

    /// An operating-system error, with permission trouble told apart.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::PermissionDenied {
                path,
                source: Arc::new(source),
            },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            _ => Self::Io {
                action,
                path,
                source: Arc::new(source),
            },
        }
    }

    /// For `map_err`: names what was tried on which path.
    pub(crate) fn while_trying(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::io(action, path, source)
    }

    pub(crate) fn invalid_write(what: impl Into<String>) -> Self {
        Self::InvalidWrite { what: what.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{
        self, FileTooLarge, IsADirectory, NotADirectory, NotFound, Other, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    use std::path::Path;
    use std::time::Duration;

    use super::StorageError;

    fn io(kind: ErrorKind) -> StorageError {
        StorageError::io("write", Path::new("file"), kind.into())
    }

    #[test]
    fn what_the_system_says_is_told_apart() {
        assert!(matches!(
            io(PermissionDenied),
            StorageError::PermissionDenied { .. }
        ));
        assert!(matches!(io(NotADirectory), StorageError::NotADirectory { .. }));
        for (kind, wants_room, wants_file, is_of_the_disk) in [
            (StorageFull, true, false, true),
            (QuotaExceeded, true, false, true),
            (NotFound, false, true, true),
            (IsADirectory, false, false, false),
            (Other, false, false, true),
        ] {
            let error = io(kind);
            assert_eq!(error.is_for_want_of_room(), wants_room, "{kind}");
            assert_eq!(error.is_for_want_of_the_file(), wants_file, "{kind}");
            assert_eq!(error.is_of_the_disk(), is_of_the_disk, "{kind}");
            assert_eq!(error.refused_path(), Some(Path::new("file")), "{kind}");
        }
        for (kind, remedy) in [
            (StorageFull, "make room"),
            (FileTooLarge, "raise the limit"),
            (ReadOnlyFilesystem, "it was mounted so"),
            (IsADirectory, "move it away"),
            (NotFound, "put it back"),
            (Other, "failing?"),
        ] {
            assert!(io(kind).to_string().contains(remedy), "{}", io(kind));
        }
    }

    #[test]
    fn a_database_that_fails_or_does_not_answer_is_of_the_disk() {
        let path = || "file".into();
        let failed = StorageError::WriteFailed {
            path: path(),
            cause: String::new(),
        };
        let silent = StorageError::NoAnswer {
            path: path(),
            waited: Duration::ZERO,
        };
        for error in [failed, silent] {
            assert!(error.is_of_the_disk());
            assert!(!error.is_for_want_of_room());
            assert!(!error.is_for_want_of_the_file());
        }
        assert!(!StorageError::invalid_write("odd").is_of_the_disk());
    }

    #[test]
    fn joining_is_left_where_the_contents_of_a_directory_are_of_no_use() {
        let damaged = StorageError::Damaged {
            path: "file".into(),
            what: "odd".to_owned(),
            index: None,
        };
        assert!(damaged.leaves_joining());
        assert!(!io(StorageFull).leaves_joining());
    }
}

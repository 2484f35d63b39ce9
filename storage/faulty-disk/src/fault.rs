//! Operations that fail on purpose.

/// What a program asks of a disk that changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Create a file or a directory.
    Create,
    /// Write bytes.
    Write,
    /// Change a file's length, or reserve room for it.
    Resize,
    /// Sync a file.
    Sync,
    /// Sync a directory.
    SyncDirectory,
    /// Rename a file.
    Rename,
    /// Remove a file or a directory.
    Remove,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Create,
        Self::Write,
        Self::Resize,
        Self::Sync,
        Self::SyncDirectory,
        Self::Rename,
        Self::Remove,
    ];

    /// Whether it needs room on the disk: those fail when the disk is full.
    #[must_use]
    pub fn takes_space(self) -> bool {
        matches!(self, Self::Create | Self::Write | Self::Resize)
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With EIO. Nothing of it is done; a failed sync drops what it should have synced.
    Io,
    /// With ENOSPC. Nothing of it is done.
    NoSpace,
    /// A write takes the first half of the bytes and says so. Other operations are not affected.
    ShortWrite,
    /// With EOPNOTSUPP, as a file system that has no such operation. Nothing of it is done.
    Unsupported,
}

/// Which operations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind that fails; `None` for every kind, or with [`Failure::NoSpace`] every kind that takes space.
    pub operation: Option<Operation>,
    /// How many of them succeed before.
    pub after: u64,
    /// How they fail.
    pub failure: Failure,
    /// Whether all later ones fail too. Otherwise only one does.
    pub lasting: bool,
}

/// A [`Fault`] at work.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Option<Fault>,
    seen: u64,
    /// How many operations failed since the fault was armed.
    pub(crate) failed: u64,
}

impl Faults {
    pub(crate) fn arm(&mut self, fault: Fault) {
        *self = Self {
            armed: Some(fault),
            ..Self::default()
        };
    }

    pub(crate) fn disarm(&mut self) {
        self.armed = None;
    }

    /// How this operation fails, if it does.
    pub(crate) fn strike(&mut self, operation: Operation) -> Option<Failure> {
        let fault = self.armed?;
        let concerned = match (fault.operation, fault.failure) {
            (_, Failure::ShortWrite) => operation == Operation::Write,
            (Some(wanted), _) => operation == wanted,
            (None, Failure::NoSpace) => operation.takes_space(),
            (None, Failure::Io | Failure::Unsupported) => true,
        };
        if !concerned {
            return None;
        }
        self.seen += 1;
        let strikes = self.seen == fault.after + 1 || (fault.lasting && self.seen > fault.after);
        self.failed += u64::from(strikes);
        strikes.then_some(fault.failure)
    }
}

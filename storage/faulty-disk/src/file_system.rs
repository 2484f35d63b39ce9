//! A [`Disk`] as the operating system wants to be served.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::disk::{Disk, State};
use crate::fault::{Failure, Operation};
use crate::tree::{Event, Inode, Node};

/// Nothing is cached by the operating system: every question comes here.
const NO_TIME: Duration = Duration::ZERO;

/// Each read and write comes here as the program made it, and a close does not.
const AS_IT_COMES: FopenFlags = FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_NOFLUSH);

const GENERATION: Generation = Generation(0);

const BLOCK_BYTES: u32 = 4096;

/// What the disk says that it has free, in blocks: 1 TiB.
const FREE_BLOCKS: u64 = 1 << 28;

/// `O_SYNC` holds both bits of it, `O_DSYNC` the first. The numbers are those of Linux on all common machines.
const O_DSYNC: i32 = 0o10000;

/// `FALLOC_FL_KEEP_SIZE` of Linux.
const KEEP_SIZE: i32 = 1;

/// Serves one mount.
#[derive(Debug)]
pub(crate) struct FileSystem {
    disk: Disk,
}

impl FileSystem {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { disk }
    }

    /// Carries out what `prepare` yields, unless a fault strikes first.
    fn change<T>(
        &self,
        operation: Operation,
        prepare: impl FnOnce(&mut State) -> Result<(Event, T), Errno>,
    ) -> Result<T, Errno> {
        let mut state = self.disk.state();
        if let Some(failure) = state.begin(operation) {
            errno_of(failure)?;
        }
        let (event, answer) = prepare(&mut state)?;
        state.apply(event);
        Ok(answer)
    }

    fn create_node(&self, parent: INodeNo, name: &OsStr, is_directory: bool) -> Result<FileAttr, Errno> {
        let inode = self.change(Operation::Create, |state| {
            state.tree.directory(parent.0).ok_or(Errno::ENOENT)?;
            if state.tree.child(parent.0, name).is_some() {
                return Err(Errno::EEXIST);
            }
            let inode = state.tree.next_inode();
            let event = Event::Create {
                parent: parent.0,
                name: name.to_owned(),
                inode,
                is_directory,
            };
            Ok((event, inode))
        })?;
        self.attributes(inode)
    }

    fn attributes(&self, inode: Inode) -> Result<FileAttr, Errno> {
        let state = self.disk.state();
        let (kind, size, perm) = match state.tree.node(inode).ok_or(Errno::ENOENT)? {
            Node::File(file) => (FileType::RegularFile, file.now.length(), 0o644),
            Node::Directory(_) => (FileType::Directory, 0, 0o755),
        };
        Ok(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    fn look_up(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let inode = self.disk.state().tree.child(parent.0, name);
        self.attributes(inode.ok_or(Errno::ENOENT)?)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, is_directory: bool) -> Result<(), Errno> {
        self.change(Operation::Remove, |state| {
            let inode = state.tree.child(parent.0, name).ok_or(Errno::ENOENT)?;
            match (state.tree.directory(inode), is_directory) {
                (Some(directory), true) if !directory.now.is_empty() => return Err(Errno::ENOTEMPTY),
                (Some(_), false) => return Err(Errno::EISDIR),
                (None, true) => return Err(Errno::ENOTDIR),
                _ => {}
            }
            let (parent, name) = (parent.0, name.to_owned());
            Ok((Event::Remove { parent, name }, ()))
        })
    }

    fn resize_to(&self, inode: INodeNo, length: u64, only_longer: bool) -> Result<(), Errno> {
        self.change(Operation::Resize, |state| {
            let file = state.tree.file(inode.0).ok_or(Errno::EISDIR)?;
            let length = if only_longer {
                length.max(file.now.length())
            } else {
                length
            };
            Ok((
                Event::Resize {
                    inode: inode.0,
                    length,
                },
                (),
            ))
        })
    }

    fn write_bytes(&self, inode: INodeNo, offset: u64, data: &[u8], synced: bool) -> Result<u32, Errno> {
        let mut state = self.disk.state();
        state.tree.file(inode.0).ok_or(Errno::EISDIR)?;
        let data = match state.begin(Operation::Write) {
            Some(Failure::ShortWrite) if data.len() > 1 => &data[..data.len() / 2],
            None | Some(Failure::ShortWrite) => data,
            Some(failure) => return errno_of(failure).map(|()| 0),
        };
        state.apply(Event::Write {
            inode: inode.0,
            offset,
            data: Arc::from(data),
        });
        drop(state);
        if synced {
            self.sync(inode, Operation::Sync)?;
        }
        u32::try_from(data.len()).map_err(|_| Errno::EINVAL)
    }

    fn sync(&self, inode: INodeNo, operation: Operation) -> Result<(), Errno> {
        let mut state = self.disk.state();
        let failed = state.begin(operation).map_or(Ok(()), errno_of);
        state.apply(match failed {
            Ok(()) => Event::Sync { inode: inode.0 },
            Err(_) => Event::SyncFailed { inode: inode.0 },
        });
        failed
    }
}

/// A short write is no error.
fn errno_of(failure: Failure) -> Result<(), Errno> {
    match failure {
        Failure::Io => Err(Errno::EIO),
        Failure::NoSpace => Err(Errno::ENOSPC),
        Failure::ShortWrite => Ok(()),
        Failure::Unsupported => Err(Errno::EOPNOTSUPP),
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn answer_entry(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&NO_TIME, &attributes, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn answer_attributes(reply: ReplyAttr, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.attr(&NO_TIME, &attributes),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for FileSystem {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(reply, self.look_up(parent, name));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer_attributes(reply, self.attributes(inode.0));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.map_or(Ok(()), |length| self.resize_to(inode, length, false));
        answer_attributes(reply, resized.and_then(|()| self.attributes(inode.0)));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        answer_entry(reply, self.create_node(parent, name, true));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.create_node(parent, name, false) {
            Ok(attributes) => reply.created(&NO_TIME, &attributes, GENERATION, FileHandle(0), AS_IT_COMES),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(parent, name, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(parent, name, true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.change(Operation::Rename, |state| {
            if parent != new_parent || !flags.is_empty() {
                return Err(Errno::EXDEV);
            }
            state.tree.child(parent.0, name).ok_or(Errno::ENOENT)?;
            let event = Event::Rename {
                parent: parent.0,
                from: name.to_owned(),
                to: new_name.to_owned(),
            };
            Ok((event, ()))
        });
        answer(reply, renamed);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), AS_IT_COMES);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk.state().tree.file(inode.0) {
            Some(file) => reply.data(&file.now.read(offset, size.into())),
            None => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_bytes(inode, offset, data, flags.0 & O_DSYNC != 0) {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // There is nothing to do when a file is closed, and the system never asks again after this answer. If it
        // did, a process that is killed while it has a file of its own disk open would wait for itself.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.sync(inode, Operation::Sync));
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.sync(inode, Operation::SyncDirectory));
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.disk.state();
        let Some(directory) = state.tree.directory(inode.0) else {
            return reply.error(Errno::ENOTDIR);
        };
        for ((name, child), next) in directory.now.iter().zip(1..) {
            let kind = match state.tree.node(*child) {
                Some(Node::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if next > offset && reply.add(INodeNo(*child), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let files = u64::from(u32::MAX);
        reply.statfs(
            FREE_BLOCKS,
            FREE_BLOCKS,
            FREE_BLOCKS,
            files,
            files,
            BLOCK_BYTES,
            255,
            BLOCK_BYTES,
        );
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let result = match mode {
            0 => self.resize_to(inode, offset + length, true),
            // Room alone: nothing that could be lost.
            KEEP_SIZE => Ok(()),
            _ => Err(Errno::EOPNOTSUPP),
        };
        answer(reply, result);
    }
}

//! The state of a disk: for every file and directory what applications see, what is durable, and the
//! changes in between.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use crate::content::Content;

/// The number of a file or directory. A number is never used again.
pub type Inode = u64;

/// The top directory.
pub(crate) const ROOT: Inode = 1;

/// One change to a disk, or a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A file or a directory was created.
    Create {
        /// The directory that it is in.
        parent: Inode,
        /// Its name.
        name: OsString,
        /// What it is known by from here on.
        inode: Inode,
        /// Whether it is a directory.
        is_directory: bool,
    },
    /// Bytes were written to a file.
    Write {
        /// The file.
        inode: Inode,
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Arc<[u8]>,
    },
    /// A file was cut or made longer.
    Resize {
        /// The file.
        inode: Inode,
        /// Its new length in bytes.
        length: u64,
    },
    /// A name in a directory was replaced by another one.
    Rename {
        /// The directory.
        parent: Inode,
        /// The name that goes.
        from: OsString,
        /// The name that comes, or whose file is replaced.
        to: OsString,
    },
    /// A name was removed from a directory.
    Remove {
        /// The directory.
        parent: Inode,
        /// The name.
        name: OsString,
    },
    /// A file or directory was synced.
    Sync {
        /// The file or directory.
        inode: Inode,
    },
    /// A sync failed: what it should have made durable never will be.
    SyncFailed {
        /// The file or directory.
        inode: Inode,
    },
}

/// A change to a file that is not durable yet.
#[derive(Clone, Debug)]
pub(crate) enum FileChange {
    Write { offset: u64, data: Arc<[u8]> },
    Resize { length: u64 },
}

/// A change to a directory that is not durable yet.
#[derive(Clone, Debug)]
pub(crate) enum NameChange {
    Put { name: OsString, inode: Inode },
    Rename { from: OsString, to: OsString },
    Remove { name: OsString },
}

impl NameChange {
    /// The names that it touches.
    pub(crate) fn names(&self) -> impl Iterator<Item = &OsStr> {
        let (one, other) = match self {
            Self::Put { name, .. } | Self::Remove { name } => (name, None),
            Self::Rename { from, to } => (from, Some(to)),
        };
        std::iter::once(one).chain(other).map(OsString::as_os_str)
    }

    pub(crate) fn apply(&self, names: &mut Names) {
        match self {
            Self::Put { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename { from, to } => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

/// What is in a directory.
pub(crate) type Names = BTreeMap<OsString, Inode>;

/// A change that is not durable yet, with the number of the event that made it.
#[derive(Clone, Debug)]
pub(crate) struct Pending<C> {
    pub(crate) number: u64,
    pub(crate) change: C,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    pub(crate) now: Content,
    pub(crate) durable: Content,
    pub(crate) pending: Vec<Pending<FileChange>>,
}

impl File {
    /// How far the durable file reaches that no pending change cut away, in bytes.
    pub(crate) fn untouched_length(&self) -> u64 {
        let lengths = self.pending.iter().map(|pending| match pending.change {
            FileChange::Resize { length } => length,
            FileChange::Write { .. } => u64::MAX,
        });
        lengths.fold(self.durable.length(), u64::min)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    pub(crate) now: Names,
    pub(crate) durable: Names,
    pub(crate) pending: Vec<Pending<NameChange>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(File),
    Directory(Directory),
}

/// A whole file system.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<Inode, Node>,
    /// How many events there have been.
    events: u64,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]),
            events: 0,
        }
    }

    pub(crate) fn node(&self, inode: Inode) -> Option<&Node> {
        self.nodes.get(&inode)
    }

    pub(crate) fn directory(&self, inode: Inode) -> Option<&Directory> {
        match self.node(inode)? {
            Node::Directory(directory) => Some(directory),
            Node::File(_) => None,
        }
    }

    pub(crate) fn file(&self, inode: Inode) -> Option<&File> {
        match self.node(inode)? {
            Node::File(file) => Some(file),
            Node::Directory(_) => None,
        }
    }

    pub(crate) fn child(&self, parent: Inode, name: &OsStr) -> Option<Inode> {
        self.directory(parent)?.now.get(name).copied()
    }

    /// A number for the next file or directory.
    pub(crate) fn next_inode(&self) -> Inode {
        self.nodes.last_key_value().map_or(ROOT, |(last, _)| last + 1)
    }

    /// Every change that is not durable, as event numbers. In no order.
    pub(crate) fn pending_numbers(&self) -> impl Iterator<Item = u64> {
        self.nodes.values().flat_map(|node| {
            let numbers: Vec<u64> = match node {
                Node::File(file) => file.pending.iter().map(|pending| pending.number).collect(),
                Node::Directory(directory) => {
                    directory.pending.iter().map(|pending| pending.number).collect()
                }
            };
            numbers
        })
    }

    /// Carries out an event. One about something that does not exist changes nothing.
    pub(crate) fn apply(&mut self, event: &Event) {
        let number = self.events;
        self.events += 1;
        match event {
            Event::Create {
                parent,
                name,
                inode,
                is_directory,
            } => {
                let node = if *is_directory {
                    Node::Directory(Directory::default())
                } else {
                    Node::File(File::default())
                };
                self.nodes.insert(*inode, node);
                let (name, inode) = (name.clone(), *inode);
                self.change_names(*parent, number, NameChange::Put { name, inode });
            }
            Event::Rename { parent, from, to } => {
                let (from, to) = (from.clone(), to.clone());
                self.change_names(*parent, number, NameChange::Rename { from, to });
            }
            Event::Remove { parent, name } => {
                let name = name.clone();
                self.change_names(*parent, number, NameChange::Remove { name });
            }
            Event::Write { inode, offset, data } => {
                let (offset, data) = (*offset, Arc::clone(data));
                self.change_file(*inode, number, FileChange::Write { offset, data });
            }
            Event::Resize { inode, length } => {
                self.change_file(*inode, number, FileChange::Resize { length: *length });
            }
            Event::Sync { inode } => self.sync(*inode),
            Event::SyncFailed { inode } => self.forget_pending(*inode),
        }
    }

    /// Makes `content` what a file holds, durably.
    pub(crate) fn fill(&mut self, inode: Inode, content: &Content) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode) {
            file.now = content.clone();
            file.durable = content.clone();
            file.pending.clear();
        }
    }

    fn change_names(&mut self, parent: Inode, number: u64, change: NameChange) {
        if let Some(Node::Directory(directory)) = self.nodes.get_mut(&parent) {
            change.apply(&mut directory.now);
            directory.pending.push(Pending { number, change });
        }
    }

    fn change_file(&mut self, inode: Inode, number: u64, change: FileChange) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode) {
            match &change {
                FileChange::Write { offset, data } => file.now.write(*offset, data),
                FileChange::Resize { length } => file.now.resize(*length),
            }
            file.pending.push(Pending { number, change });
        }
    }

    fn sync(&mut self, inode: Inode) {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => {
                // Only the pages that were touched: a page that an earlier sync dropped stays lost elsewhere.
                for Pending { change, .. } in file.pending.drain(..) {
                    match change {
                        FileChange::Write { offset, data } => {
                            let length = data.len() as u64;
                            file.now.copy_pages_to(&mut file.durable, offset, length);
                        }
                        FileChange::Resize { length } => file.durable.resize(length),
                    }
                }
                file.durable.resize(file.now.length());
            }
            Some(Node::Directory(directory)) => {
                directory.pending.clear();
                directory.durable.clone_from(&directory.now);
            }
            None => {}
        }
    }

    fn forget_pending(&mut self, inode: Inode) {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => file.pending.clear(),
            Some(Node::Directory(directory)) => directory.pending.clear(),
            None => {}
        }
    }
}

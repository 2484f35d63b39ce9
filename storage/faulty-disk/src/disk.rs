//! The disk: a tree, what happened to it, and the faults that it has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fault::{Fault, Faults, Operation};
use crate::image::Image;
use crate::mount::{Mount, Unavailable};
use crate::survival::{Chooser, Survival};
use crate::tree::{Event, Inode, ROOT, Tree};

/// A disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tree: Tree,
    pub(crate) faults: Faults,
    /// How many operations of each kind there were.
    operations: BTreeMap<Operation, u64>,
    recording: Option<Recording>,
}

#[derive(Debug)]
struct Recording {
    start: Tree,
    events: Vec<Event>,
}

impl State {
    /// Counts an operation that is about to be carried out; how it fails, if it does.
    pub(crate) fn begin(&mut self, operation: Operation) -> Option<crate::fault::Failure> {
        *self.operations.entry(operation).or_default() += 1;
        self.faults.strike(operation)
    }

    pub(crate) fn apply(&mut self, event: Event) {
        self.tree.apply(&event);
        if let Some(recording) = &mut self.recording {
            recording.events.push(event);
        }
    }
}

impl Disk {
    /// An empty disk.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a disk is something that one makes on purpose"
    )]
    pub fn new() -> Self {
        Self::with(Tree::new())
    }

    /// A disk that holds `image`, all of it durable.
    #[must_use]
    pub fn holding(image: &Image) -> Self {
        Self::with(tree_of(image))
    }

    fn with(tree: Tree) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                tree,
                faults: Faults::default(),
                operations: BTreeMap::new(),
                recording: None,
            })),
        }
    }

    /// The same disk, with every event kept from here on.
    #[must_use]
    pub fn recording(self) -> Self {
        {
            let mut state = self.state();
            state.recording = Some(Recording {
                start: state.tree.clone(),
                events: Vec::new(),
            });
        }
        self
    }

    /// Mounts it in a temporary directory of its own.
    ///
    /// # Errors
    ///
    /// When this process may not, or the system has no FUSE: tests print that and pass.
    pub fn mount(&self) -> Result<Mount, Unavailable> {
        Mount::in_temporary_directory(self)
    }

    /// Mounts it on `path`, an empty directory.
    ///
    /// # Errors
    ///
    /// As [`mount`](Self::mount).
    pub fn mount_on(&self, path: &Path) -> Result<Mount, Unavailable> {
        Mount::on(self, path)
    }

    /// What applications see. This is also what a killed program leaves.
    #[must_use]
    pub fn image(&self) -> Image {
        self.after_power_loss(Survival::Everything)
    }

    /// What would be there if the power failed now.
    #[must_use]
    pub fn after_power_loss(&self, survival: Survival) -> Image {
        after_power_loss(&self.state().tree, survival)
    }

    /// Makes operations fail from here on.
    pub fn arm(&self, fault: Fault) {
        self.state().faults.arm(fault);
    }

    /// Ends the fault.
    pub fn disarm(&self) {
        self.state().faults.disarm();
    }

    /// How many operations have failed since the last [`arm`](Self::arm).
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.state().faults.failed
    }

    /// How many operations of a kind there have been.
    #[must_use]
    pub fn operations(&self, operation: Operation) -> u64 {
        self.state().operations.get(&operation).copied().unwrap_or(0)
    }

    /// How many events have been recorded.
    #[must_use]
    pub fn recorded(&self) -> usize {
        self.state()
            .recording
            .as_ref()
            .map_or(0, |recording| recording.events.len())
    }

    /// Goes through what was recorded again, from the start of the recording.
    #[must_use]
    pub fn replay(&self) -> Replay {
        let state = self.state();
        let (tree, events) = match &state.recording {
            Some(recording) => (recording.start.clone(), recording.events.clone()),
            None => (state.tree.clone(), Vec::new()),
        };
        Replay {
            tree,
            events,
            next: 0,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Each change to the state is one call that does not panic in its middle.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A recording, being gone through. It stands before an event or at the end.
#[derive(Clone, Debug)]
pub struct Replay {
    tree: Tree,
    events: Vec<Event>,
    next: usize,
}

impl Replay {
    /// How many events lie behind.
    #[must_use]
    pub fn position(&self) -> usize {
        self.next
    }

    /// How many events there are.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// Carries out the next event, if there is one, and returns it.
    pub fn step(&mut self) -> Option<&Event> {
        let event = self.events.get(self.next)?;
        self.tree.apply(event);
        self.next += 1;
        Some(event)
    }

    /// Carries out events until `position` of them lie behind.
    pub fn step_to(&mut self, position: usize) {
        while self.next < position && self.step().is_some() {}
    }

    /// What would be there if the power failed here.
    #[must_use]
    pub fn after_power_loss(&self, survival: Survival) -> Image {
        after_power_loss(&self.tree, survival)
    }

    /// A disk on which the program was killed here: nothing is lost yet, and what was not synced still is not.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk::with(self.tree.clone())
    }
}

fn after_power_loss(tree: &Tree, survival: Survival) -> Image {
    Image::of(tree, &Chooser::new(survival, tree))
}

fn tree_of(image: &Image) -> Tree {
    let mut tree = Tree::new();
    let mut inodes: BTreeMap<PathBuf, Inode> = BTreeMap::from([(PathBuf::new(), ROOT)]);
    for (path, content) in image.entries() {
        let parent = path.parent().and_then(|parent| inodes.get(parent));
        let (Some(parent), Some(name)) = (parent.copied(), path.file_name()) else {
            continue;
        };
        let inode = tree.next_inode();
        tree.apply(&Event::Create {
            parent,
            name: name.to_owned(),
            inode,
            is_directory: content.is_none(),
        });
        match content {
            None => {
                inodes.insert(path.to_path_buf(), inode);
            }
            Some(content) => tree.fill(inode, content),
        }
        tree.apply(&Event::Sync { inode: parent });
    }
    tree
}

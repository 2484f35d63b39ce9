//! What is on a disk at one moment, without a notion of what is durable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::content::{Content, PAGE_BYTES};
use crate::survival::Chooser;
use crate::tree::{Inode, Node, ROOT, Tree};

/// The files and directories of a disk, by path from its top. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    /// `None` stands for a directory.
    entries: BTreeMap<PathBuf, Option<Content>>,
}

impl Image {
    /// What is in the directory `dir` of a real disk.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says.
    pub fn read_from(dir: &Path) -> io::Result<Self> {
        let mut image = Self::default();
        image.read_directory(dir, Path::new(""))?;
        Ok(image)
    }

    fn read_directory(&mut self, dir: &Path, below: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.entries.insert(path.clone(), None);
                self.read_directory(dir, &path)?;
            } else {
                self.put(&path, Content::of(&fs::read(entry.path())?));
            }
        }
        Ok(())
    }

    /// Writes everything into `dir`, which is created if it is missing. Nothing is removed or synced.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says.
    pub fn write_to(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        // A directory sorts before what is in it.
        for (path, content) in &self.entries {
            match content {
                None => fs::create_dir_all(dir.join(path))?,
                Some(content) => write_file(&dir.join(path), content)?,
            }
        }
        Ok(())
    }

    /// How many files and directories there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The paths of all files, in order.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &Content)> {
        let entries = self.entries.iter();
        entries.filter_map(|(path, content)| Some((path.as_path(), content.as_ref()?)))
    }

    /// The paths of all directories, in order; the top is not among them.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        let entries = self.entries.iter().filter(|(_, content)| content.is_none());
        entries.map(|(path, _)| path.as_path())
    }

    /// The bytes of one file.
    #[must_use]
    pub fn file(&self, path: &Path) -> Option<&Content> {
        self.entries.get(path)?.as_ref()
    }

    /// Puts a file in place, or replaces it. Its directory must be there.
    pub fn put(&mut self, path: &Path, content: Content) {
        self.entries.insert(path.to_path_buf(), Some(content));
    }

    /// Removes a file, or a directory with all that is in it.
    pub fn remove(&mut self, path: &Path) {
        self.entries.retain(|other, _| !other.starts_with(path));
    }

    /// Puts what `other` has at `path` in place: a file, or a directory with all that is in it.
    pub fn put_all(&mut self, other: &Self, path: &Path) {
        let entries = other.entries.iter().filter(|(other, _)| other.starts_with(path));
        self.entries
            .extend(entries.map(|(path, content)| (path.clone(), content.clone())));
    }

    /// What is below the directory `path`.
    #[must_use]
    pub fn below(&self, path: &Path) -> Self {
        let inside = self.entries.iter().filter_map(|(other, content)| {
            let rest = other.strip_prefix(path).ok()?;
            (rest != Path::new("")).then(|| (rest.to_path_buf(), content.clone()))
        });
        Self {
            entries: inside.collect(),
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Path, Option<&Content>)> {
        let entries = self.entries.iter();
        entries.map(|(path, content)| (path.as_path(), content.as_ref()))
    }

    /// What the power loss leaves of `tree`.
    pub(crate) fn of(tree: &Tree, chooser: &Chooser) -> Self {
        let mut image = Self::default();
        image.add_directory(tree, chooser, ROOT, Path::new(""));
        image
    }

    fn add_directory(&mut self, tree: &Tree, chooser: &Chooser, inode: Inode, path: &Path) {
        let Some(directory) = tree.directory(inode) else {
            return;
        };
        for (name, child) in chooser.names(inode, directory) {
            let path = path.join(name);
            match tree.node(child) {
                Some(Node::File(file)) => self.put(&path, chooser.content(child, file)),
                Some(Node::Directory(_)) => {
                    self.entries.insert(path.clone(), None);
                    self.add_directory(tree, chooser, child, &path);
                }
                None => {}
            }
        }
    }
}

fn write_file(path: &Path, content: &Content) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(content.length())?;
    for (start, page) in content.pages() {
        let count = (content.length() - start).min(PAGE_BYTES);
        let count = usize::try_from(count).expect("at most a page");
        file.write_all_at(&page[..count], start)?;
    }
    Ok(())
}

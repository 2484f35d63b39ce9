//! The directory of `deploy up`: whose it is, what is in it, and who uses it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::arguments::UpArguments;
use crate::cluster_file::{self, ClusterFile, FILE_NAME, MARK};
use crate::error::Error;
use crate::local::new_cluster_id;
use crate::made::MadeDirectories;
use crate::node_process::node_dir;

/// What is taken for a new cluster unless the user says otherwise.
const DEFAULT_NODES: u16 = 3;
const DEFAULT_BASE_PORT: u16 = 7100;

/// The files and folders that a node's folder may hold.
const NODE_ENTRIES: [&str; 3] = ["data", "log", "pid"];

/// A cluster's directory, in use by this process alone until it is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    file: ClusterFile,
    is_new: bool,
    _lock: File,
    /// Go with this value unless a cluster is in them by then.
    _made: MadeDirectories,
}

impl Directory {
    /// Takes the directory that `arguments` name: the cluster that lives there, or a new one where there is none
    /// (or where `--fresh` says to throw it away, which is not done when `try_out` refuses the new one).
    pub(crate) fn open(
        arguments: &UpArguments,
        try_out: impl FnOnce(&ClusterFile, &Path) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let made = MadeDirectories::create(&arguments.dir)?;
        let path = arguments
            .dir
            .canonicalize()
            .map_err(Error::system(format!("find {}", arguments.dir.display())))?;
        if arguments.fresh {
            let old = Old::look_through(&path)?;
            try_out(&new_file(&path, arguments)?, &path)?;
            old.delete()?;
        }
        if path.join(FILE_NAME).exists() {
            Self::existing(path, arguments, made)
        } else {
            Self::new(path, arguments, made)
        }
    }

    /// The absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration.
    pub(crate) fn file(&self) -> &ClusterFile {
        &self.file
    }

    /// Takes back what [`Directory::open`] wrote, if the cluster was to begin here and now and nothing came of it:
    /// the next attempt is free to choose other ports.
    pub(crate) fn discard_if_new(&self) {
        if self.is_new {
            // A file that cannot be removed is told by the next attempt.
            let _ = fs::remove_file(self.path.join(FILE_NAME));
        }
    }

    /// Whether the cluster begins here and now.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    fn new(path: PathBuf, arguments: &UpArguments, made: MadeDirectories) -> Result<Self, Error> {
        let file = new_file(&path, arguments)?;
        let file_path = path.join(FILE_NAME);
        let write_refused = || Error::system(format!("write {}", file_path.display()));
        let mut written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&file_path)
            .map_err(write_refused())?;
        lock(&written, &path)?;
        written
            .write_all(file.render(&new_cluster_id()).as_bytes())
            .map_err(write_refused())?;
        Ok(Self {
            path,
            file,
            is_new: true,
            _lock: written,
            _made: made,
        })
    }

    fn existing(path: PathBuf, arguments: &UpArguments, made: MadeDirectories) -> Result<Self, Error> {
        let file_path = path.join(FILE_NAME);
        let handle = open_to_lock(&file_path)?;
        lock(&handle, &path)?;
        let text =
            fs::read_to_string(&file_path).map_err(Error::system(format!("read {}", file_path.display())))?;
        let file = ClusterFile::parse(&text, &file_path)?;
        refuse_contradiction(&file, arguments, &file_path)?;
        refuse_moved(&file, &path)?;
        Ok(Self {
            path,
            file,
            is_new: false,
            _lock: handle,
            _made: made,
        })
    }
}

/// The configuration of a new cluster in `path`.
fn new_file(path: &Path, arguments: &UpArguments) -> Result<ClusterFile, Error> {
    let count = arguments.nodes.unwrap_or(DEFAULT_NODES);
    let base_port = arguments.base_port.unwrap_or(DEFAULT_BASE_PORT);
    let nodes = cluster_file::nodes_from_base_port(count, base_port)?;
    ClusterFile::new(path, nodes, arguments.snapshot_log_bytes)
}

/// Opens the file whose lock stands for the directory's.
fn open_to_lock(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(Error::system(format!("open {}", path.display())))
}

/// The lock lasts as long as the handle, so it needs no cleaning up whatever happens to this process.
fn lock(handle: &File, dir: &Path) -> Result<(), Error> {
    match handle.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::DirectoryInUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::system(format!("lock {}", dir.display()))(source)),
    }
}

/// An option that the file does not agree with is an error: neither may win in silence.
fn refuse_contradiction(file: &ClusterFile, arguments: &UpArguments, path: &Path) -> Result<(), Error> {
    let count = file.nodes.len();
    let contradiction = if arguments.nodes.is_some_and(|nodes| usize::from(nodes) != count) {
        Some(format!("--nodes: it has {count}"))
    } else if let Some(base_port) = arguments.base_port
        && cluster_file::nodes_from_base_port(u16::try_from(count).unwrap_or(u16::MAX), base_port)?
            != file.nodes
    {
        Some(format!(
            "--base-port: its nodes serve clients on {}",
            file.endpoints()
        ))
    } else if arguments
        .snapshot_log_bytes
        .is_some_and(|bytes| Some(bytes) != file.raft.snapshot_log_bytes)
    {
        Some("--snapshot-log-bytes: it has its own setting".into())
    } else {
        None
    };
    contradiction.map_or(Ok(()), |what| {
        Err(Error::Usage {
            problem: format!("{} contradicts {what}", path.display()),
            remedy: "leave the option out to go on with this cluster, edit the file, choose another --dir, \
                     or add --fresh to delete the cluster and its data and begin anew"
                .into(),
        })
    })
}

/// Data directories are absolute paths, so a directory that was moved or copied would start with the data of
/// the old place, or with none.
fn refuse_moved(file: &ClusterFile, dir: &Path) -> Result<(), Error> {
    for node in &file.nodes {
        let here = node_dir(dir, node.id).join("data");
        let configured = dir.join(file.data_dir_of(node.id));
        if here.exists() && configured.canonicalize().unwrap_or_else(|_| configured.clone()) != here {
            return Err(Error::Usage {
                problem: format!(
                    "{} says that node {}'s data is in {}, but there is data in {}",
                    dir.join(FILE_NAME).display(),
                    node.id,
                    configured.display(),
                    here.display()
                ),
                remedy: "if the directory was moved, set data_dir in the file to the new place".into(),
            });
        }
    }
    Ok(())
}

/// What `--fresh` deletes: cluster.toml and the nodes' folders, and nothing else.
struct Old {
    folders: Vec<PathBuf>,
    /// With the handle by which it is locked; none where no cluster is.
    file: Option<(PathBuf, File)>,
}

impl Old {
    /// Looks for the cluster in `dir` and locks it. Refuses a directory that holds what `up` has not made.
    fn look_through(dir: &Path) -> Result<Self, Error> {
        let file_path = dir.join(FILE_NAME);
        if !file_path.exists() {
            refuse_unless_empty(dir)?;
            return Ok(Self {
                folders: Vec::new(),
                file: None,
            });
        }
        let text =
            fs::read_to_string(&file_path).map_err(Error::system(format!("read {}", file_path.display())))?;
        if !text.starts_with(MARK) {
            let why = format!("{FILE_NAME} does not begin with `{MARK}`");
            return Err(not_ours(dir, &why));
        }
        let handle = open_to_lock(&file_path)?;
        lock(&handle, dir)?;
        Ok(Self {
            folders: node_folders(dir)?,
            file: Some((file_path, handle)),
        })
    }

    fn delete(self) -> Result<(), Error> {
        for folder in &self.folders {
            fs::remove_dir_all(folder).map_err(Error::system(format!("delete {}", folder.display())))?;
        }
        // Last, so that a clearing that was interrupted can be done again.
        self.file.map_or(Ok(()), |(path, _lock)| {
            fs::remove_file(&path).map_err(Error::system(format!("delete {}", path.display())))
        })
    }
}

fn refuse_unless_empty(dir: &Path) -> Result<(), Error> {
    match entries(dir)?.first() {
        None => Ok(()),
        Some(name) => Err(not_ours(dir, &format!("it holds {name:?} and no {FILE_NAME}"))),
    }
}

/// The folders `node-1`, `node-2` … in `dir`, each looked through for files that no node has written.
fn node_folders(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut folders = Vec::new();
    for name in entries(dir)? {
        let is_node = name
            .strip_prefix("node-")
            .is_some_and(|id| id.parse::<u64>().is_ok());
        let folder = dir.join(&name);
        // A symbolic link is not ours either: up makes none.
        if !is_node || !folder.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            continue;
        }
        if let Some(stranger) = entries(&folder)?
            .iter()
            .find(|name| !NODE_ENTRIES.contains(&name.as_str()))
        {
            return Err(not_ours(
                &folder,
                &format!("it holds {stranger:?}, which no node has written"),
            ));
        }
        folders.push(folder);
    }
    Ok(folders)
}

/// The names in `dir`, in order.
fn entries(dir: &Path) -> Result<Vec<String>, Error> {
    let refused = || Error::system(format!("list {}", dir.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(refused())? {
        names.push(
            entry
                .map_err(refused())?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    Ok(names)
}

fn not_ours(dir: &Path, why: &str) -> Error {
    Error::Usage {
        problem: format!("--fresh will not delete {}: {why}", dir.display()),
        remedy: "choose another --dir, or look at what is there and delete it yourself".into(),
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;

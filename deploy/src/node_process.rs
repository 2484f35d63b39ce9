//! One node as a child process.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster_file::FILE_NAME;
use crate::error::{Error, NOT_DONE};

/// How much of a log is shown when its node ended unexpectedly, in bytes.
const LOG_TAIL_BYTES: u64 = 2_000;

/// Where a cluster's directory holds what belongs to node `id`.
pub(crate) fn node_dir(cluster_dir: &Path, id: u64) -> PathBuf {
    cluster_dir.join(format!("node-{id}"))
}

/// A running node, or one that has ended.
///
/// Dropping it kills the process: no node outlives the program that started it.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    id: u64,
    child: Child,
    ended: Option<ExitStatus>,
    pid_file: PathBuf,
    log: PathBuf,
}

impl NodeProcess {
    /// Starts node `id` of the cluster in `cluster_dir` (absolute); its log is appended to `node-ID/log` and its
    /// process id stands in `node-ID/pid` while it runs.
    pub(crate) fn spawn(cluster_dir: &Path, id: u64) -> Result<Self, Error> {
        let dir = node_dir(cluster_dir, id);
        fs::create_dir_all(&dir).map_err(Error::system(format!("create {}", dir.display())))?;
        let (log, pid_file) = (dir.join("log"), dir.join("pid"));
        let child = node_command(cluster_dir, id, open_log(&log)?)?
            .spawn()
            .map_err(Error::system(format!("start node {id}")))?;
        let node = Self {
            id,
            child,
            ended: None,
            pid_file,
            log,
        };
        fs::write(&node.pid_file, format!("{}\n", node.pid()))
            .map_err(Error::system(format!("write {}", node.pid_file.display())))?;
        Ok(node)
    }

    /// The node's id.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it logs.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// How the process ended; `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            // An error would mean that it is no child of ours, and it is: we spawned it and nobody else waits.
            self.ended = self.child.try_wait().ok().flatten();
            if self.ended.is_some() {
                let _ = fs::remove_file(&self.pid_file);
            }
        }
        self.ended
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if self.ended().is_none() {
            // Neither can fail for a child that was not waited for yet; its id cannot have been given away.
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
            let _ = fs::remove_file(&self.pid_file);
        }
    }

    /// Asks it to stop in order (SIGTERM). Does not wait.
    pub(crate) fn ask_to_stop(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Stops it where it is (SIGSTOP) until [`NodeProcess::resume`]. Should this program die before, the system
    /// lets it go on and tells it to end, as it does with every stopped process group that lost its parent.
    pub(crate) fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT) if it was paused.
    pub(crate) fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // Until `ended` has seen the end, the process id is the child's even if it is dead by now.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// The error that tells of a node that ended when it should run.
    pub(crate) fn ended_early(&self, status: ExitStatus) -> Error {
        let log_tail = tail(&self.log).unwrap_or_else(|error| format!("(the log cannot be read: {error})"));
        Error::NodeEnded {
            node: self.id,
            status: status.to_string(),
            log: self.log.clone(),
            log_tail,
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

/// Asks `kv-server` whether the configuration in `cluster_dir` can work for node `id`, and whether a node could run here;
/// its refusal is an error.
pub(crate) fn check_configuration(cluster_dir: &Path, id: u64) -> Result<(), Error> {
    let output = kv_server_command(&[], cluster_dir, id)?
        .arg("--check")
        .stdin(Stdio::null())
        .output()
        .map_err(Error::system("start kv-server to check the configuration"))?;
    if output.status.success() {
        return Ok(());
    }
    let refusal = String::from_utf8_lossy(&output.stderr)
        .trim()
        .trim_start_matches("error: ")
        .to_owned();
    if output.status.code() == Some(i32::from(NOT_DONE)) {
        return Err(Error::NoNodeRuns { refusal });
    }
    Err(Error::Configuration {
        path: cluster_dir.join(FILE_NAME),
        refusal,
    })
}

fn node_command(cluster_dir: &Path, id: u64, log: File) -> Result<Command, Error> {
    let mut command = kv_server_command(&["--until-stdin-closes"], cluster_dir, id)?;
    let log_again = log.try_clone().map_err(Error::system("open the log twice"))?;
    // A process group of its own keeps the terminal's Ctrl-C from the node: `deploy` stops it in order.
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(log_again)
        .stderr(log);
    Ok(command)
}

/// How long a node's allocator keeps free memory, in milliseconds; its own default is 10. It is a tenth less memory for
/// nodes full of data (docs/benchmarks.md#memory). The other files of this crate say the same to the nodes they start.
const PURGE_DELAY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "1");

/// `deploy node OPTIONS -- …`: this very program as `kv-server`.
fn kv_server_command(options: &[&str], cluster_dir: &Path, id: u64) -> Result<Command, Error> {
    let program = env::current_exe().map_err(Error::system("find this program's own file"))?;
    let mut command = Command::new(program);
    command
        .arg("node")
        .args(options)
        .args(["--", "--id", &id.to_string(), "--config"])
        .arg(cluster_dir.join(FILE_NAME))
        .current_dir(cluster_dir);
    // The cluster is what its file says, whatever the user's environment holds for other servers.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("KV_SERVER_") {
            command.env_remove(name);
        }
    }
    if env::var_os(PURGE_DELAY.0).is_none() {
        command.env(PURGE_DELAY.0, PURGE_DELAY.1);
    }
    Ok(command)
}

fn open_log(path: &Path) -> Result<File, Error> {
    let open = OpenOptions::new().create(true).append(true).open(path);
    open.map_err(Error::system(format!("open {}", path.display())))
}

/// The last lines of a log.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // Unless the whole log is shown, the first line may have been cut in two.
    let whole_lines = if start == 0 {
        &text
    } else {
        text.split_once('\n').map_or(&*text, |(_, rest)| rest)
    };
    Ok(whole_lines.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_long_log_begins_with_a_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let lines: String = (0..1_000).map(|number| format!("line {number}\n")).collect();
        fs::write(&path, lines).unwrap();
        let tail = tail(&path).unwrap();
        assert!(tail.starts_with("line "), "{tail}");
        assert!(tail.ends_with("line 999"), "{tail}");
        assert!(tail.len() <= 2_000);
    }

    #[test]
    fn the_tail_of_a_short_log_is_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(tail(&path).unwrap(), "one\ntwo");
    }
}

//! Clusters of etcd, with default settings, and their clients.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clerk::load::{Call, Target};
use etcd_client::{Client, ConnectOptions, KvClient, Txn, TxnOp};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::guard::STOP;
use super::ours::{START_ATTEMPTS, temporary_directory};
use super::system::{CALL_LIMIT, CallError, NODES, START_LIMIT, ended_while_measured};
use crate::error::Error;
use crate::ports;

/// How long `etcd --version` may take.
const VERSION_LIMIT: Duration = Duration::from_secs(5);
/// How long one question for a node's state may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How many keys one transaction may set with default settings, and how many transactions are under way at once.
const MOST_OPERATIONS: u64 = 128;
const TRANSACTIONS_IN_FLIGHT: usize = 8;

/// An installed etcd.
#[derive(Clone, Debug)]
pub(crate) struct Etcd {
    program: PathBuf,
    version: String,
}

impl Etcd {
    /// The first one on PATH that tells its version, or what is in the way.
    pub(crate) async fn find() -> Result<Self, String> {
        let directories = env::var_os("PATH").unwrap_or_default();
        Self::find_in(&directories, VERSION_LIMIT).await
    }

    async fn find_in(directories: &OsStr, limit: Duration) -> Result<Self, String> {
        let mut in_the_way = None;
        let programs = env::split_paths(directories).map(|directory| directory.join("etcd"));
        for program in programs.filter(|program| is_executable(program)) {
            match version_of(&program, limit).await {
                Ok(version) => return Ok(Self { program, version }),
                Err(problem) => in_the_way = in_the_way.or(Some(problem)),
            }
        }
        Err(in_the_way.unwrap_or_else(|| "no etcd is installed: there is none on PATH".into()))
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

/// As a shell finds a program: one that nobody may execute hides none that stands behind it on PATH.
fn is_executable(program: &Path) -> bool {
    fs::metadata(program).is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0)
}

/// What `etcd --version` says. However this ends, and if it is dropped, the process ends too.
async fn version_of(program: &Path, limit: Duration) -> Result<String, String> {
    let cannot_run = |error| format!("{} cannot be run: {error}", program.display());
    let mut child = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot_run)?;
    let mut said = Vec::new();
    let answer = async {
        if let Some(stdout) = child.stdout.as_mut() {
            stdout.read_to_end(&mut said).await?;
        }
        child.wait().await
    };
    let answered = timeout(limit, answer).await;
    if !matches!(answered, Ok(Ok(_))) {
        // Ends it and waits until it is gone.
        let _ = child.kill().await;
    }
    answered
        .map_err(|_| format!("{} --version did not answer", program.display()))?
        .map_err(cannot_run)?;
    String::from_utf8_lossy(&said)
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "))
        .map(|version| version.trim().to_owned())
        .ok_or_else(|| format!("{} does not tell its version", program.display()))
}

/// A running cluster. The nodes come first, so that they are gone before the directory is.
#[derive(Debug)]
pub(crate) struct EtcdCluster {
    nodes: BTreeMap<u64, Node>,
    program: PathBuf,
    path: PathBuf,
    token: String,
    /// For each node its peer port and its client port.
    ports: Vec<u16>,
    _dir: TempDir,
}

impl EtcdCluster {
    /// A fresh one, once it has a leader. As with ours, it is started anew on other ports when a node ends at once.
    pub(crate) async fn start(etcd: &Etcd, under: Option<&Path>) -> Result<Self, Error> {
        let mut attempts = 1;
        loop {
            let mut cluster = Self::spawn(etcd, under)?;
            let began = Instant::now();
            let ended = loop {
                if let Some(ended) = cluster.ended(None) {
                    break ended;
                }
                if cluster.leader().await.is_some() {
                    return Ok(cluster);
                }
                if began.elapsed() > START_LIMIT {
                    return Err(problem(format!(
                        "no leader is there; the log of node 1 ends so: {}",
                        last_line(&cluster.log(1))
                    )));
                }
                sleep(LOOK_EVERY).await;
            };
            if attempts == START_ATTEMPTS {
                return Err(problem(ended));
            }
            attempts += 1;
        }
    }

    fn spawn(etcd: &Etcd, under: Option<&Path>) -> Result<Self, Error> {
        let (dir, path) = temporary_directory(under)?;
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            program: etcd.program.clone(),
            path,
            token: crate::local::new_cluster_id(),
            ports: ports::find_free(2 * usize::try_from(NODES).unwrap_or(usize::MAX))?,
            _dir: dir,
        };
        for id in 1..=NODES {
            cluster.start_node(id)?;
        }
        Ok(cluster)
    }

    /// The first node whose process has ended, in words; but for `gone`, which is to end.
    fn ended(&mut self, gone: Option<u64>) -> Option<String> {
        let mut others = self.nodes.iter_mut().filter(|(id, _)| Some(**id) != gone);
        let id = others.find_map(|(id, node)| node.has_ended().then_some(*id))?;
        let last_line = last_line(&self.log(id));
        Some(format!(
            "node {id} ended unexpectedly; its log ends so: {last_line}"
        ))
    }

    /// An error if a node's process has ended, but for `gone`, which is to end.
    pub(crate) fn check_others_run(&mut self, gone: Option<u64>) -> Result<(), Error> {
        self.ended(gone)
            .map_or(Ok(()), |ended| Err(ended_while_measured("etcd", ended)))
    }

    fn log(&self, id: u64) -> PathBuf {
        self.path.join(format!("log-{id}"))
    }

    /// Starts node `id`, or starts it again; what is left of the old process is ended first.
    pub(crate) fn start_node(&mut self, id: u64) -> Result<(), Error> {
        self.nodes.remove(&id);
        let node = Node::spawn(&self.program, &self.arguments(id), &self.log(id))?;
        self.nodes.insert(id, node);
        Ok(())
    }

    fn arguments(&self, id: u64) -> Vec<String> {
        let members: Vec<String> = (1..=NODES)
            .map(|id| format!("n{id}={}", self.url(id, 0)))
            .collect();
        let data = self.path.join(format!("data-{id}"));
        [
            ("name", format!("n{id}")),
            ("data-dir", data.display().to_string()),
            ("listen-peer-urls", self.url(id, 0)),
            ("initial-advertise-peer-urls", self.url(id, 0)),
            ("listen-client-urls", self.url(id, 1)),
            ("advertise-client-urls", self.url(id, 1)),
            ("initial-cluster", members.join(",")),
            ("initial-cluster-token", self.token.clone()),
        ]
        .map(|(name, value)| format!("--{name}={value}"))
        .to_vec()
    }

    fn url(&self, id: u64, which: usize) -> String {
        let node = usize::try_from(id - 1).unwrap_or(usize::MAX);
        format!("http://127.0.0.1:{}", self.ports[2 * node + which])
    }

    pub(crate) fn pid(&self, id: u64) -> Option<u32> {
        self.nodes.get(&id).map(|node| node.pid)
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        (1..=NODES).map(|id| self.url(id, 1)).collect()
    }

    /// Where the leader serves clients.
    pub(crate) async fn leader_endpoint(&self) -> Option<String> {
        self.leader().await.map(|id| self.url(id, 1))
    }

    /// Ends a node with SIGKILL.
    pub(crate) fn kill(&mut self, id: u64) {
        self.nodes.remove(&id);
    }

    /// Asks a node to stop in order. Does not wait.
    pub(crate) fn ask_to_stop(&mut self, id: u64) {
        if let Some(stdin) = self.nodes.get_mut(&id).and_then(|node| node.guard.stdin.as_mut()) {
            // If the guard is gone, so is the node.
            let _ = stdin.write_all(&[STOP]);
        }
    }

    /// Who leads now, by the word of a majority.
    pub(crate) async fn leader(&self) -> Option<u64> {
        let views = self.views().await;
        let (id, member) = views
            .iter()
            .find(|(_, view)| view.leader == view.member)
            .map(|(id, view)| (*id, view.member))?;
        let followers = views.iter().filter(|(_, view)| view.leader == member).count();
        (followers as u64 > NODES / 2).then_some(id)
    }

    /// Whether every node is up and follows one leader.
    pub(crate) async fn is_whole(&self) -> bool {
        let views = self.views().await;
        let same = |(_, view): &(u64, View)| view.leader != 0 && view.leader == views[0].1.leader;
        views.len() as u64 == NODES && views.iter().all(same)
    }

    async fn views(&self) -> Vec<(u64, View)> {
        let looks = (1..=NODES).map(|id| async move { Some((id, view(&self.url(id, 1)).await?)) });
        join_all(looks).await.into_iter().flatten().collect()
    }
}

/// Whom a member follows.
#[derive(Clone, Copy, Debug)]
struct View {
    member: u64,
    leader: u64,
}

async fn view(endpoint: &str) -> Option<View> {
    let look = async {
        let mut client = Client::connect([endpoint], Some(options())).await.ok()?;
        let status = client.status().await.ok()?;
        Some(View {
            member: status.header()?.member_id(),
            leader: status.leader(),
        })
    };
    timeout(LOOK_LIMIT, look).await.ok().flatten()
}

/// Whether the member at `endpoint` answers that `key` holds `value` (a linearizable read); `None` if it does not answer.
pub(crate) async fn holds(endpoint: &str, key: &str, value: &[u8]) -> Option<bool> {
    let mut client = Client::connect([endpoint], Some(options())).await.ok()?;
    let answer = client.get(key, None).await.ok()?;
    Some(answer.kvs().first().is_some_and(|found| found.value() == value))
}

fn options() -> ConnectOptions {
    ConnectOptions::new()
        .with_timeout(CALL_LIMIT)
        .with_connect_timeout(LOOK_LIMIT)
}

/// The last line of a log, or why it cannot be had.
fn last_line(log: &Path) -> String {
    match fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes)
            .lines()
            .next_back()
            .unwrap_or_default()
            .to_owned(),
        Err(error) => format!("(it cannot be read: {error})"),
    }
}

fn problem(problem: String) -> Error {
    Error::Bench {
        system: "etcd",
        problem,
    }
}

/// One node and its guard. Dropping it ends both.
#[derive(Debug)]
struct Node {
    guard: Child,
    pid: u32,
}

impl Node {
    fn spawn(program: &Path, arguments: &[String], log: &Path) -> Result<Self, Error> {
        let deploy = env::current_exe().map_err(Error::system("find this program's own file"))?;
        let errors = OpenOptions::new().create(true).append(true).open(log);
        let mut command = Command::new(deploy);
        command
            .args(["guard", "--"])
            .arg(program)
            .args(arguments)
            // A process group of its own keeps the terminal's Ctrl-C from it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.map_err(Error::system(format!("open {}", log.display())))?);
        // Default settings, whatever the user's environment holds for other servers.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        let guard = command.spawn().map_err(Error::system("start a guard for etcd"))?;
        let mut node = Self { guard, pid: 0 };
        node.pid = node
            .read_pid()
            .ok_or_else(|| problem(format!("{} cannot be run", program.display())))?;
        Ok(node)
    }

    /// The guard ends when the node has.
    fn has_ended(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(Some(_)))
    }

    fn read_pid(&mut self) -> Option<u32> {
        let mut line = String::new();
        BufReader::new(self.guard.stdout.take()?)
            .read_line(&mut line)
            .ok()?;
        line.trim().parse().ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The guard sees its stdin end, ends the node with SIGKILL, and follows.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// One connection to a cluster.
#[derive(Clone)]
pub(crate) struct EtcdTarget(KvClient);

impl std::fmt::Debug for EtcdTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EtcdTarget")
    }
}

impl EtcdTarget {
    /// A connection that is spread over these nodes.
    pub(crate) async fn connect(endpoints: &[String]) -> Result<Self, Error> {
        let client = Client::connect(endpoints, Some(options())).await;
        client
            .map(|client| Self(client.kv_client()))
            .map_err(|error| problem(format!("no connection to {endpoints:?}: {error}")))
    }
}

impl EtcdTarget {
    /// Sets the keys that loads have, each once, many in a transaction: with a put for each it would take minutes.
    pub(crate) async fn write_all_keys(&self, keys: u64, value_bytes: u32) -> Result<(), CallError> {
        let value = vec![b'v'; value_bytes as usize];
        let put = |number: u64| TxnOp::put(format!("bench/{number:09}"), value.clone(), None);
        let transaction = |first: u64| {
            let numbers = first..keys.min(first + MOST_OPERATIONS);
            let puts: Vec<TxnOp> = numbers.map(put).collect();
            let mut client = self.0.clone();
            async move { client.txn(Txn::new().and_then(puts)).await.map(drop) }
        };
        let firsts = (0..keys).step_by(usize::try_from(MOST_OPERATIONS).unwrap_or(usize::MAX));
        let transactions = stream::iter(firsts)
            .map(transaction)
            .buffer_unordered(TRANSACTIONS_IN_FLIGHT);
        let written: Result<(), _> = transactions.try_collect().await;
        written.map_err(|error| CallError(error.to_string()))
    }
}

impl Target for EtcdTarget {
    type Error = CallError;

    /// Reads are linearizable by default. There is no append.
    async fn call(&self, call: Call) -> Result<(), CallError> {
        let mut client = self.0.clone();
        let outcome = match call {
            Call::Put { key, value } | Call::Append { key, value } => {
                client.put(key, value, None).await.map(drop)
            }
            Call::Get { key } => client.get(key, None).await.map(drop),
        };
        outcome.map_err(|error| CallError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with an `etcd` that is this script.
    fn directory_with(script: &str) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("etcd");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    #[tokio::test]
    async fn an_etcd_that_does_not_tell_its_version_is_passed_over() {
        let silent = directory_with("exit 1");
        let answers = directory_with("echo 'etcd Version: 9.8.7'");
        let path = env::join_paths([Path::new("/nowhere"), silent.path(), answers.path()]).unwrap();
        let found = Etcd::find_in(&path, Duration::from_secs(60)).await.unwrap();
        assert_eq!(
            (found.version(), &found.program),
            ("9.8.7", &answers.path().join("etcd"))
        );
        let alone = Etcd::find_in(silent.path().as_os_str(), Duration::from_secs(60)).await;
        assert!(alone.unwrap_err().ends_with("etcd does not tell its version"));
        let none = Etcd::find_in(OsStr::new("/nowhere"), VERSION_LIMIT).await;
        assert!(none.unwrap_err().contains("there is none on PATH"));
    }

    #[tokio::test]
    async fn an_etcd_that_does_not_answer_is_ended() {
        let hangs = directory_with("exec sleep 600");
        let problem = version_of(&hangs.path().join("etcd"), Duration::from_millis(10)).await;
        assert!(problem.unwrap_err().ends_with("etcd --version did not answer"));
        // Whoever waited for it has taken its end in: no child is left, not even a dead one.
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        assert_eq!(children, "");
    }
}

//! Starts and ends real servers.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rpc::client::{Consistency, KvError, Sequence, SessionId, StatusReply, WriteId};
use rpc::{ConnectOptions, KvConnection};

/// Generous: a loaded machine must not fail a test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A loopback address of its own: no other test, and no outgoing connection, can take a port of it while a
/// server is down.
pub(crate) fn own_address() -> Ipv4Addr {
    let [first, second, third, _] = rand::random::<u32>().to_be_bytes();
    Ipv4Addr::new(127, first, second, third.clamp(2, 254))
}

/// A cluster file with `nodes` nodes on free ports, in a directory of its own.
pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) raft_addrs: Vec<SocketAddr>,
    pub(crate) client_addrs: Vec<SocketAddr>,
}

impl Cluster {
    pub(crate) fn of(nodes: usize) -> Self {
        Self::with_settings(nodes, "")
    }

    /// `settings` stand in the `[raft]` section.
    pub(crate) fn with_settings(nodes: usize, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = own_address();
        // All are bound at once, so that no two are the same.
        let bound: Vec<_> = (0..2 * nodes)
            .map(|_| TcpListener::bind((address, 0)).unwrap())
            .collect();
        let ports: Vec<_> = bound.iter().map(|port| port.local_addr().unwrap()).collect();
        let (raft_addrs, client_addrs) = ports.split_at(nodes);
        let mut text = format!(
            "cluster_id = \"test\"\ndata_dir = \"{}/node-{{id}}\"\n[raft]\n{settings}\n",
            dir.path().display()
        );
        for (number, (raft, client)) in raft_addrs.iter().zip(client_addrs).enumerate() {
            let id = number + 1;
            writeln!(
                text,
                "[[node]]\nid = {id}\nraft_addr = \"{raft}\"\nclient_addr = \"{client}\""
            )
            .unwrap();
        }
        std::fs::write(dir.path().join("cluster.toml"), text).unwrap();
        Self {
            raft_addrs: raft_addrs.to_vec(),
            client_addrs: client_addrs.to_vec(),
            dir,
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("cluster.toml")
    }

    pub(crate) fn data_dir(&self, id: usize) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    /// What lets a node join anew, as messages say it.
    pub(crate) fn join_command(&self, id: usize) -> String {
        format!("kv-server --config {} --id {id} --join", self.file().display())
    }

    pub(crate) fn start(&self, id: usize) -> Server {
        self.start_with(id, &[])
    }

    pub(crate) fn start_with(&self, id: usize, flags: &[&str]) -> Server {
        let mut command = program(&self.file(), id);
        command.args(flags);
        self.spawn(id, command)
    }

    /// Starts a server that may have `files` files and connections open.
    pub(crate) fn start_with_files(&self, id: usize, files: u32) -> Server {
        self.spawn(id, limited(&program(&self.file(), id), &format!("-n {files}")))
    }

    fn spawn(&self, id: usize, mut command: Command) -> Server {
        let log = self.dir.path().join(format!("log-{id}"));
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Server { child, log }
    }

    /// Runs a server that is expected to end by itself.
    pub(crate) fn output(&self, id: usize, flags: &[&str]) -> Output {
        self.output_in(id, flags, &[])
    }

    /// The same with at most `files` files open.
    pub(crate) fn output_with_files(&self, id: usize, files: u32, flags: &[&str]) -> Output {
        limited(program(&self.file(), id).args(flags), &format!("-n {files}"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same with files of at most `blocks`, of 512 or 1,024 bytes each, as the shell has it.
    pub(crate) fn output_with_small_files(&self, id: usize, blocks: u32) -> Output {
        limited(&program(&self.file(), id), &format!("-f {blocks}"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same with these variables in its environment.
    pub(crate) fn output_in(&self, id: usize, flags: &[&str], variables: &[(&str, &str)]) -> Output {
        program(&self.file(), id)
            .args(flags)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

fn program(file: &Path, id: usize) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv-server"));
    command.arg("--config").arg(file).arg("--id").arg(id.to_string());
    for variable in [
        "RUST_LOG",
        "KV_SERVER_CONFIG",
        "KV_SERVER_ID",
        "KV_SERVER_DATA_DIR",
    ] {
        command.env_remove(variable);
    }
    command
}

/// The same command in a process with such a limit: `-n FILES` open, `-f BLOCKS` in a file.
fn limited(command: &Command, limit: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args());
    for (variable, _) in command.get_envs() {
        shell.env_remove(variable);
    }
    shell
}

/// A running server; killed, by its own id, when dropped.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, such as `-STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.wait_for_end()
    }

    /// Waits until the server ends, as it was told or by itself.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        wait_until("the server has ended", || self.child.try_wait().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Asks again until there is an answer.
pub(crate) fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A plain caller of the `Kv` service, which finds the leader by asking everyone.
pub(crate) struct Caller {
    runtime: tokio::runtime::Runtime,
    session: Option<SessionId>,
    sequence: u64,
}

impl Caller {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime,
            session: None,
            sequence: 0,
        }
    }

    fn connect(&self, addr: SocketAddr) -> Option<KvConnection> {
        let options = ConnectOptions {
            connect_timeout: Duration::from_secs(1),
            ..ConnectOptions::default()
        };
        self.runtime
            .block_on(rpc::connect_kv(&addr.to_string(), &options))
            .ok()
    }

    pub(crate) fn status(&self, addr: SocketAddr) -> Option<StatusReply> {
        let connection = self.connect(addr)?;
        self.runtime
            .block_on(connection.client().status(context()))
            .ok()?
            .ok()
    }

    /// Waits for a leader that at least `nodes` servers agree on; where it serves.
    pub(crate) fn leader(&self, cluster: &Cluster, nodes: usize) -> usize {
        wait_until("a leader is known", || {
            let known = cluster
                .client_addrs
                .iter()
                .filter_map(|addr| self.status(*addr))
                .collect::<Vec<_>>();
            let leader = known
                .iter()
                .find(|status| status.leader_id == Some(status.id))?
                .id;
            let agreeing = known
                .iter()
                .filter(|status| status.leader_id == Some(leader))
                .count();
            (agreeing >= nodes).then(|| usize::try_from(leader.get()).unwrap())
        })
    }

    fn open_session(&mut self, connection: &KvConnection) -> Option<SessionId> {
        if self.session.is_none() {
            let opened = self.runtime.block_on(connection.client().open_session(context()));
            self.session = opened.ok()?.ok();
        }
        self.session
    }

    /// Appends exactly once, however often it has to ask.
    pub(crate) fn append(&mut self, cluster: &Cluster, key: &str, value: &str) {
        self.begin_write();
        wait_until("the append is acknowledged", || {
            cluster
                .client_addrs
                .iter()
                .find_map(|addr| self.try_append(*addr, key, value))
        });
    }

    /// The next write has a number of its own.
    pub(crate) fn begin_write(&mut self) {
        self.sequence += 1;
    }

    /// Asks one server to put, as the write that was begun last.
    pub(crate) fn put_at(&mut self, addr: SocketAddr, key: &str, value: &str) -> Option<Result<(), KvError>> {
        let connection = self.connect(addr)?;
        let id = self.write_id(&connection)?;
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let answer = self
            .runtime
            .block_on(connection.client().put(context(), id, key, value));
        Some(answer.ok()?.map(drop))
    }

    /// Puts one value after the other, on one connection, until the server says why not; `None` if it never does.
    pub(crate) fn put_until_refused(&mut self, addr: SocketAddr, key: &str) -> Option<KvError> {
        let connection = self.connect(addr)?;
        loop {
            self.begin_write();
            let id = self.write_id(&connection)?;
            let answer = connection
                .client()
                .put(context(), id, key.to_owned().into(), "v".into());
            if let Err(error) = self.runtime.block_on(answer).ok()? {
                return Some(error);
            }
        }
    }

    /// Deletes exactly once, however often it has to ask.
    pub(crate) fn delete(&mut self, cluster: &Cluster, key: &str) {
        self.begin_write();
        wait_until("the delete is acknowledged", || {
            cluster.client_addrs.iter().find_map(|addr| {
                let connection = self.connect(*addr)?;
                let id = self.write_id(&connection)?;
                let answer = connection.client().delete(context(), id, key.to_owned().into());
                self.runtime.block_on(answer).ok()?.ok()
            })
        });
    }

    fn write_id(&mut self, connection: &KvConnection) -> Option<WriteId> {
        let session = self.open_session(connection)?;
        let sequence = Sequence(self.sequence);
        Some(WriteId {
            session,
            sequence,
            lowest_outstanding: sequence,
        })
    }

    /// Asks one server to append, as the write that was begun last; whether it was acknowledged.
    pub(crate) fn try_append(&mut self, addr: SocketAddr, key: &str, value: &str) -> Option<()> {
        let connection = self.connect(addr)?;
        let id = self.write_id(&connection)?;
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        self.runtime
            .block_on(connection.client().append(context(), id, key, value))
            .ok()?
            .ok()
            .map(drop)
    }

    /// The value at one server, by any consistency.
    pub(crate) fn get_at(
        &self,
        addr: SocketAddr,
        key: &str,
        consistency: Consistency,
    ) -> Option<Result<Option<String>, KvError>> {
        let connection = self.connect(addr)?;
        let reply = connection
            .client()
            .get(context(), key.to_owned().into(), consistency);
        let reply = self.runtime.block_on(reply).ok()?;
        Some(reply.map(|reply| {
            reply
                .found
                .map(|found| String::from_utf8(found.value.to_vec()).unwrap())
        }))
    }

    /// Connects to a server, lets `meanwhile` happen, sends a read by lease, which may have to wait there, lets
    /// `then` happen, and tells the answer, if there is one.
    pub(crate) fn get_by_lease_around(
        &self,
        addr: SocketAddr,
        key: &str,
        meanwhile: impl FnOnce(),
        then: impl FnOnce(),
    ) -> Option<Result<Option<bytes::Bytes>, KvError>> {
        let connection = self.connect(addr)?;
        meanwhile();
        let client = connection.client().clone();
        let key = key.to_owned().into();
        let read = self
            .runtime
            .spawn(async move { client.get(context(), key, Consistency::Lease).await });
        // Lets it leave.
        let leave = async { tokio::time::sleep(Duration::from_millis(50)).await };
        self.runtime.block_on(leave);
        then();
        let reply = self.runtime.block_on(read).unwrap().ok()?;
        Some(reply.map(|reply| reply.found.map(|found| found.value)))
    }

    /// The value, linearizably, from whoever leads.
    pub(crate) fn get(&self, cluster: &Cluster, key: &str) -> Option<String> {
        wait_until("the value can be read", || {
            let asked = cluster.client_addrs.iter();
            asked
                .filter_map(|addr| self.get_at(*addr, key, Consistency::Linearizable))
                .find_map(Result::ok)
        })
    }
}

fn context() -> rpc::Context {
    rpc::context(Duration::from_secs(5))
}

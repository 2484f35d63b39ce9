//! A `deploy` process under test, and waits with a deadline.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The longest wait for anything: far beyond what it takes on a busy machine, so that only a fault gets there.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running `deploy --output json …`, with the lines it printed. It is ended on drop.
#[derive(Debug)]
pub(crate) struct Deploy {
    child: Child,
    lines: Receiver<String>,
}

impl Deploy {
    /// Starts it with a temporary directory of its own.
    pub(crate) fn start(arguments: &[&str], tmp: &Path) -> Self {
        Self::start_with(arguments, tmp, &[])
    }

    /// The same, with these variables in its environment.
    pub(crate) fn start_with(arguments: &[&str], tmp: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deploy"));
        command.envs(environment.iter().copied());
        Self::spawn(command, arguments, tmp, Stdio::piped())
    }

    /// The same, with its lines going to `stdout`.
    pub(crate) fn start_onto(arguments: &[&str], tmp: &Path, stdout: impl Into<Stdio>) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_deploy"));
        Self::spawn(command, arguments, tmp, stdout.into())
    }

    /// The same, in a process that may have `files` files open.
    pub(crate) fn start_with_files(arguments: &[&str], tmp: &Path, files: u32) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_deploy"));
        Self::spawn(command, arguments, tmp, Stdio::piped())
    }

    fn spawn(mut command: Command, arguments: &[&str], tmp: &Path, stdout: Stdio) -> Self {
        let mut child = command
            .args(["--output", "json"])
            .args(arguments)
            .env("TMPDIR", tmp)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                BufReader::new(stdout)
                    .lines()
                    .map_while(Result::ok)
                    .try_for_each(|line| sender.send(line))
            });
        }
        Self { child, lines }
    }

    /// The next object with this `event`; what comes before is passed over.
    pub(crate) fn wait_for(&self, event: &str) -> Value {
        let began = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(began.elapsed());
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|error| panic!("no event {event:?}: {error}"));
            let object: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
            if object["event"] == event {
                return object;
            }
        }
    }

    /// Every line from here to the end.
    pub(crate) fn rest(&self) -> Vec<String> {
        let began = Instant::now();
        std::iter::from_fn(|| {
            self.lines
                .recv_timeout(DEADLINE.saturating_sub(began.elapsed()))
                .ok()
        })
        .collect()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end; the status and what it said on stderr.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let status = eventually("deploy ends", || self.child.try_wait().unwrap());
        let stderr = std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap();
        (status, stderr)
    }
}

impl Drop for Deploy {
    /// Its nodes see their stdin end and follow.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries until there is a result.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether nothing listens on this address.
pub(crate) fn is_free(address: &str) -> bool {
    TcpListener::bind(address).is_ok()
}

/// Sends SIGKILL to a process by its id. One that has ended already is as dead as it was to be: `deploy` may have
/// ended it in answer to the death of another.
pub(crate) fn kill(pid: i32) {
    let killed = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
    assert!(matches!(killed, Ok(()) | Err(Errno::SRCH)), "{killed:?}");
}

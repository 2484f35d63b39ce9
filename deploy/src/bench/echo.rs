//! A process that answers every call at once, to be measured beside a cluster, and the hidden `deploy echo`, which is
//! that process.

use std::env;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use clap::Args;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::system::ended_while_measured;
use crate::error::{Error, NOT_DONE};

/// Arguments of the hidden `deploy echo`.
#[derive(Args, Debug)]
pub(crate) struct EchoArguments {
    /// How many bytes the value has that every key has
    #[arg(long)]
    value_bytes: u32,
}

/// Answers every call on a free port, which it prints, until its stdin ends. All calls are answered by one thread, as
/// those of one node are that reads do not leave.
pub(crate) fn run(arguments: &EchoArguments) -> ExitCode {
    let runtime = Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot serve: {error}");
            ExitCode::from(NOT_DONE)
        }
    }
}

async fn serve(arguments: &EchoArguments) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    let (stop, stopped) = oneshot::channel::<()>();
    // Whoever started it holds the other end of the pipe: this process does not outlive it, however it ends.
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(stop);
    });
    let value_bytes = usize::try_from(arguments.value_bytes).unwrap_or(usize::MAX);
    rpc::echo::serve_echo(listener, value_bytes, async {
        let _ = stopped.await;
    })
    .await
}

/// A running echo. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct EchoServer {
    child: Child,
    address: String,
}

impl EchoServer {
    /// One that answers reads with values of so many bytes.
    pub(crate) fn start(value_bytes: u32) -> Result<Self, Error> {
        let program = env::current_exe().map_err(Error::system("find this program's own file"))?;
        let child = Command::new(program)
            .args(["echo", "--value-bytes", &value_bytes.to_string()])
            // A process group of its own keeps the terminal's Ctrl-C from it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::system("start an echo"))?;
        let mut echo = Self {
            child,
            address: String::new(),
        };
        echo.address = echo.read_address().ok_or_else(|| Error::Bench {
            system: "echo",
            problem: "it does not say where it serves".into(),
        })?;
        Ok(echo)
    }

    fn read_address(&mut self) -> Option<String> {
        let mut line = String::new();
        BufReader::new(self.child.stdout.take()?)
            .read_line(&mut line)
            .ok()?;
        let address = line.trim();
        (!address.is_empty()).then(|| address.to_owned())
    }

    /// Where it serves clients.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error if the process has ended.
    pub(crate) fn check_runs(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(ended_while_measured(
                "echo",
                format!("it ended unexpectedly ({status})"),
            )),
            _ => Ok(()),
        }
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // Neither can fail for a child of ours.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.kill();
    }
}

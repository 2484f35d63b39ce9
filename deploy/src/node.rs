//! Being a node: the hidden `deploy node`, which `demo` and `up` start as child processes.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::thread;

use rustix::process::{Signal, getpid, kill_process};

use crate::arguments::NodeArguments;

/// Runs `kv-server` in this process until it ends.
pub(crate) fn run(node: NodeArguments) -> ExitCode {
    if node.until_stdin_closes {
        thread::spawn(stop_when_stdin_closes);
    }
    let program = OsString::from("kv-server");
    kv_server::run(std::iter::once(program).chain(node.arguments))
}

/// Asks this process to stop in order once stdin has ended.
///
/// The starter holds the other end of the pipe and never writes. The system closes it when the starter
/// ends, however it ends: so even a SIGKILL of `deploy` leaves no node behind.
fn stop_when_stdin_closes() {
    // An error ends it as the end of the stream does: there is no starter to be heard of any more.
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    // It cannot fail: a process may always signal itself.
    let _ = kill_process(getpid(), Signal::TERM);
}

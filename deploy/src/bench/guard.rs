//! The hidden `deploy guard`: runs another program, and ends it when whoever started the guard is gone.
//!
//! Our own nodes watch their stdin themselves. A peer's do not, and must not outlive `deploy` either, however that
//! ends. The guard prints the program's process id. On its stdin, `t` asks the program to stop in order; anything
//! else, and the end of the stream above all, ends it with SIGKILL. The guard ends when the program has, of itself or so.
//!
//! Nor does the program outlive a guard that was killed itself (on Linux): the guard starts `deploy guard` once
//! more, and that process asks the system to be killed when its parent ends, and then becomes the program.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, parent_id};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// How long the program may take to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What asks the program to stop in order.
pub(crate) const STOP: u8 = b't';
/// The exit status when the program could not be run.
const NOT_DONE: u8 = 3;

/// Arguments of the hidden `deploy guard`.
#[derive(Args, Debug)]
pub(crate) struct GuardArguments {
    /// Become the program, to end with the guard that has this process id
    #[arg(long)]
    guarded_by: Option<u32>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    program: Vec<OsString>,
}

/// Runs the program until it is told to end it.
pub(crate) fn run(arguments: &GuardArguments) -> ExitCode {
    let outcome = match arguments.guarded_by {
        Some(guard) => become_program(&arguments.program, guard),
        None => guard(&arguments.program),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot run {:?}: {error}", arguments.program);
            ExitCode::from(NOT_DONE)
        }
    }
}

fn guard(program: &[OsString]) -> io::Result<()> {
    let child = Command::new(env::current_exe()?)
        .args(["guard", "--guarded-by", &std::process::id().to_string(), "--"])
        .args(program)
        .stdin(Stdio::null())
        // What it prints goes where the guard's errors go: the guard's own stdout says its process id.
        .stdout(io::stderr())
        .spawn()?;
    let pid = Pid::from_child(&child);
    let told = writeln!(io::stdout(), "{}", child.id());
    let child = Arc::new(Mutex::new(child));
    let ordered = Arc::clone(&child);
    thread::spawn(move || {
        let mut order = [0];
        let stops = told.is_ok() && matches!(io::stdin().read(&mut order), Ok(1)) && order == [STOP];
        // As long as this is held nobody else waits for the program: its process id stays its own.
        let mut child = ordered.lock().unwrap_or_else(PoisonError::into_inner);
        if stops {
            stop(&mut child);
        }
        let _ = child.kill();
    });
    // Waits without taking the end in, so that the thread never signals a process id that was given away.
    while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        .is_err_and(|error| error == rustix::io::Errno::INTR)
    {}
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    child.wait().map(drop)
}

/// Returns only if it failed.
fn become_program(program: &[OsString], guard: u32) -> io::Result<()> {
    // The signal is for the end of the thread that started this process, which is the guard's main one.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Nobody sends the signal if the guard ended before.
    if parent_id() != guard {
        return Err(io::Error::other("the guard has ended"));
    }
    Err(Command::new(&program[0]).args(&program[1..]).exec())
}

fn stop(child: &mut Child) {
    // Once its end was taken in, its process id may be somebody else's.
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let began = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && began.elapsed() < STOP_LIMIT {
        thread::sleep(LOOK_EVERY);
    }
}

//! Ctrl-C and SIGTERM for a command that has something to tell when it is interrupted.

use std::io;
use std::process::exit;
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::failure::{Failure, Status};

/// Listens from here on: the first signal is told to whoever has the receiver. Any other, and the first one
/// once the receiver is dropped, ends the process at once.
///
/// The listener has a thread of its own, so that it also sees a signal while the output blocks.
pub(crate) fn listen() -> Result<oneshot::Receiver<()>, Failure> {
    let failed = |error: io::Error| Failure::not_done(format!("cannot listen for signals: {error}"));
    let runtime = Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    let listening = {
        let _of_the_listener = runtime.enter();
        Signals::listen()
    };
    let mut signals = match listening {
        Ok(signals) => signals,
        Err(error) => {
            // The caller is within a runtime, where none may be dropped otherwise.
            runtime.shutdown_background();
            return Err(failed(error));
        }
    };
    let (interrupt, interrupted) = oneshot::channel();
    thread::spawn(move || {
        runtime.block_on(async {
            signals.next().await;
            if interrupt.send(()).is_ok() {
                signals.next().await;
            }
        });
        exit(Status::NotDone as i32);
    });
    Ok(interrupted)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn listen() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}

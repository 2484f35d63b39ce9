//! What ends a benchmark before its time. What was measured until then is still worth telling.

use std::future::Future;

use tokio::sync::watch;

use crate::error::Error;
use crate::report;
use crate::signals::StopSignals;

/// Watches for what ends a benchmark: a signal, and a reader of its output that went away.
#[derive(Debug)]
pub(crate) struct Interrupts {
    signalled: watch::Receiver<bool>,
    /// Whether there is something to be measured for even if nobody reads.
    goes_on_unread: bool,
}

impl Interrupts {
    /// Starts to watch; from here on the signals no longer end the process by themselves.
    pub(crate) fn listen(goes_on_unread: bool) -> Result<Self, Error> {
        let mut signals = StopSignals::listen()?;
        let (send, signalled) = watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            send.send_replace(true);
        });
        Ok(Self {
            signalled,
            goes_on_unread,
        })
    }

    /// What comes of `work`; if it is interrupted it is dropped, with its clusters, and that is the error.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut signalled = self.signalled.clone();
        tokio::select! {
            // What was interrupted before it began does not begin.
            biased;
            _ = signalled.wait_for(|signalled| *signalled) => Err(Error::Interrupted),
            () = report::reader_went_away(), if !self.goes_on_unread => Err(Error::Unread),
            outcome = work => outcome,
        }
    }
}

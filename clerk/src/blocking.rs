//! The same clerk without async, for plain threads.

use std::future::Future;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use raft_core::LogIndex;
use rpc::client::{Consistency, GetReply, Member, ScanItem};
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

use crate::builder::ClerkBuilder;
use crate::outcome::{Error, Reason};
use crate::scan::{Page, Scan};
use crate::status::NodeStatus;

/// A [`Clerk`](crate::Clerk) whose calls block the calling thread.
///
/// Its I/O runs on a background thread of its own, shared by its clones and stopped when the last of them is
/// dropped. It is for plain threads only: inside an async runtime every call returns [`Error::NotDone`] with
/// [`Reason::InsideRuntime`], because blocking there would stop the runtime's other tasks.
///
/// ```no_run
/// let clerk = clerk::blocking::Clerk::connect(["127.0.0.1:7102", "127.0.0.1:7112"])?;
/// clerk.put("k", "v")?;
/// assert_eq!(clerk.get("k")?.as_deref(), Some(&b"v"[..]));
/// # Ok::<(), clerk::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Clerk {
    clerk: crate::Clerk,
    background: Arc<Background>,
}

impl Clerk {
    /// As [`Clerk::connect`](crate::Clerk::connect).
    ///
    /// # Errors
    ///
    /// As [`Clerk::connect`](crate::Clerk::connect).
    ///
    /// ```no_run
    /// let clerk = clerk::blocking::Clerk::connect(["127.0.0.1:7102"])?;
    /// # Ok::<(), clerk::Error>(())
    /// ```
    pub fn connect<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, Error> {
        Self::with_settings(crate::Clerk::builder().endpoints(endpoints))
    }

    /// Connects with the settings of a builder.
    ///
    /// # Errors
    ///
    /// As [`ClerkBuilder::connect`].
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// let settings = clerk::Clerk::builder().endpoints(["127.0.0.1:7102"]).timeout(Duration::from_secs(1));
    /// let clerk = clerk::blocking::Clerk::with_settings(settings)?;
    /// # Ok::<(), clerk::Error>(())
    /// ```
    pub fn with_settings(settings: ClerkBuilder) -> Result<Self, Error> {
        let clerk = settings.build()?;
        let background = Background::start().map_err(not_done)?;
        background
            .run(async move {
                clerk.members().await?;
                Ok(clerk)
            })
            .map(|clerk| Self {
                clerk,
                background: Arc::new(background),
            })
    }

    /// As [`Clerk::with_timeout`](crate::Clerk::with_timeout).
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) {
    /// let patient = clerk.with_timeout(std::time::Duration::from_secs(30));
    /// # }
    /// ```
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            clerk: self.clerk.with_timeout(timeout),
            background: Arc::clone(&self.background),
        }
    }

    /// As [`Clerk::timeout`](crate::Clerk::timeout).
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) {
    /// assert_eq!(clerk.timeout().as_secs(), 5);
    /// # }
    /// ```
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.clerk.timeout()
    }

    /// As [`Clerk::put`](crate::Clerk::put).
    ///
    /// # Errors
    ///
    /// As [`Clerk::put`](crate::Clerk::put).
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) -> Result<(), clerk::Error> {
    /// clerk.put("greeting", "hello")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<LogIndex, Error> {
        let (clerk, key, value) = (self.clerk.clone(), owned(key), owned(value));
        self.background.run(async move { clerk.put(key, value).await })
    }

    /// As [`Clerk::append`](crate::Clerk::append).
    ///
    /// # Errors
    ///
    /// As [`Clerk::append`](crate::Clerk::append).
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) -> Result<(), clerk::Error> {
    /// clerk.append("log", "one more line\n")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn append(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<LogIndex, Error> {
        let (clerk, key, value) = (self.clerk.clone(), owned(key), owned(value));
        self.background.run(async move { clerk.append(key, value).await })
    }

    /// As [`Clerk::delete`](crate::Clerk::delete).
    ///
    /// # Errors
    ///
    /// As [`Clerk::delete`](crate::Clerk::delete).
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) -> Result<(), clerk::Error> {
    /// let was_there = clerk.delete("greeting")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let (clerk, key) = (self.clerk.clone(), owned(key));
        self.background.run(async move { clerk.delete(key).await })
    }

    /// As [`Clerk::get`](crate::Clerk::get).
    ///
    /// # Errors
    ///
    /// As [`Clerk::get`](crate::Clerk::get).
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) -> Result<(), clerk::Error> {
    /// let greeting: Option<bytes::Bytes> = clerk.get("greeting")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        let (clerk, key) = (self.clerk.clone(), owned(key));
        self.background.run(async move { clerk.get(key).await })
    }

    /// As [`Clerk::get_with`](crate::Clerk::get_with).
    ///
    /// # Errors
    ///
    /// As [`Clerk::get_with`](crate::Clerk::get_with).
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) -> Result<(), clerk::Error> {
    /// let reply = clerk.get_with("greeting", clerk::Consistency::Stale)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_with(&self, key: impl AsRef<[u8]>, consistency: Consistency) -> Result<GetReply, Error> {
        let (clerk, key) = (self.clerk.clone(), owned(key));
        self.background
            .run(async move { clerk.get_with(key, consistency).await })
    }

    /// As [`Clerk::scan`](crate::Clerk::scan).
    ///
    /// # Errors
    ///
    /// As [`Clerk::scan`](crate::Clerk::scan).
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) -> Result<(), clerk::Error> {
    /// let page = clerk.scan(&clerk::Scan::prefix("user/"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn scan(&self, scan: &Scan) -> Result<Page, Error> {
        let (clerk, scan) = (self.clerk.clone(), scan.clone());
        self.background.run(async move { clerk.scan(&scan).await })
    }

    /// As [`Clerk::scan_all`](crate::Clerk::scan_all).
    ///
    /// # Errors
    ///
    /// As [`Clerk::scan_all`](crate::Clerk::scan_all).
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) -> Result<(), clerk::Error> {
    /// let users = clerk.scan_all(clerk::Scan::prefix("user/"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn scan_all(&self, scan: Scan) -> Result<Vec<ScanItem>, Error> {
        let clerk = self.clerk.clone();
        self.background.run(async move { clerk.scan_all(scan).await })
    }

    /// As [`Clerk::status`](crate::Clerk::status).
    ///
    /// # Errors
    ///
    /// [`Error::NotDone`] when the background thread cannot be used.
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) -> Result<(), clerk::Error> {
    /// let nodes = clerk.status()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Result<Vec<NodeStatus>, Error> {
        let clerk = self.clerk.clone();
        self.background.run(async move { Ok(clerk.status().await) })
    }

    /// As [`Clerk::members`](crate::Clerk::members).
    ///
    /// # Errors
    ///
    /// As [`Clerk::members`](crate::Clerk::members).
    ///
    /// ```no_run
    /// # fn example(clerk: clerk::blocking::Clerk) -> Result<(), clerk::Error> {
    /// let members = clerk.members()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn members(&self) -> Result<Vec<Member>, Error> {
        let clerk = self.clerk.clone();
        self.background.run(async move { clerk.members().await })
    }
}

/// The thread that drives the I/O.
#[derive(Debug)]
struct Background {
    handle: Handle,
    /// Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Background {
    fn start() -> Result<Self, Reason> {
        let failed = |error: std::io::Error| Reason::NoBackground(error.to_string());
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let drive = move || {
            // The sender never sends; the error that it was dropped is the signal.
            let _ = runtime.block_on(stopped);
        };
        std::thread::Builder::new()
            .name("clerk".into())
            .spawn(drive)
            .map_err(failed)?;
        Ok(Self { handle, _stop: stop })
    }

    fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        if Handle::try_current().is_ok() {
            return Err(not_done(Reason::InsideRuntime));
        }
        let began = std::time::Instant::now();
        let (sender, answer) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // The receiver lives until the call has ended.
            let _ = sender.send(call.await);
        });
        // Only a panic ends a call without an answer, and nobody knows how far it had come.
        let gone = |_| Error::OutcomeUnknown {
            after: began.elapsed(),
            reason: Reason::NoBackground("it broke off in the middle of the call".into()),
        };
        answer.recv().map_err(gone).flatten()
    }
}

fn not_done(reason: Reason) -> Error {
    Error::NotDone {
        after: Duration::ZERO,
        reason,
    }
}

fn owned(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

//! The clerk itself: one method an operation.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_core::LogIndex;
use rpc::client::{Consistency, GetReply, Member, ScanItem};
use tokio::time::Instant;

use crate::arguments;
use crate::builder::ClerkBuilder;
use crate::cluster::Cluster;
use crate::connections::Link;
use crate::directory::Want;
use crate::outcome::{Error, Reason};
use crate::scan::{Page, Pages, Scan};
use crate::status::{self, NodeStatus};

/// A client of the cluster: finds the leader, follows it, retries, and makes sure that no write takes effect
/// twice.
///
/// Cloning is cheap; clones share connections and the session, and any number of calls may run at once. The
/// calls need a Tokio runtime with time and I/O enabled.
///
/// ```no_run
/// # async fn example() -> Result<(), clerk::Error> {
/// let clerk = clerk::Clerk::connect(["127.0.0.1:7102", "127.0.0.1:7112"]).await?;
/// clerk.put("k", "v").await?;
/// clerk.append("k", "w").await?;
/// assert_eq!(clerk.get("k").await?.as_deref(), Some(&b"vw"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Clerk {
    cluster: Arc<Cluster>,
    timeout: Duration,
}

impl Clerk {
    pub(crate) fn new(cluster: Cluster, timeout: Duration) -> Self {
        Self {
            cluster: Arc::new(cluster),
            timeout,
        }
    }

    /// Connects with default settings to the cluster that these servers (`host:port`) belong to. One that
    /// lives is enough.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for an endpoint that is not `host:port`; [`Error::NotDone`] when no server
    /// answered within 5 s.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), clerk::Error> {
    /// let clerk = clerk::Clerk::connect(["127.0.0.1:7102", "127.0.0.1:7112"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, Error> {
        Self::builder().endpoints(endpoints).connect().await
    }

    /// Starts from the default settings.
    ///
    /// ```
    /// let clerk = clerk::Clerk::builder().endpoints(["127.0.0.1:7102"]).build()?;
    /// # Ok::<(), clerk::Error>(())
    /// ```
    #[must_use]
    pub fn builder() -> ClerkBuilder {
        ClerkBuilder::default()
    }

    /// The same clerk with another timeout for its calls; connections and session stay shared.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let clerk = clerk::Clerk::builder().endpoints(["127.0.0.1:7102"]).build()?;
    /// let patient = clerk.with_timeout(Duration::from_secs(30));
    /// assert_eq!(patient.timeout(), Duration::from_secs(30));
    /// # Ok::<(), clerk::Error>(())
    /// ```
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            cluster: Arc::clone(&self.cluster),
            timeout,
        }
    }

    /// Within what time each call ends.
    ///
    /// ```
    /// let clerk = clerk::Clerk::builder().endpoints(["127.0.0.1:7102"]).build()?;
    /// assert_eq!(clerk.timeout().as_secs(), 5);
    /// # Ok::<(), clerk::Error>(())
    /// ```
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets `key` to `value`. Returns the write's log index, the key's new version.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; its variant tells whether the write may have taken effect.
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
    /// let version = clerk.put("greeting", "hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<LogIndex, Error> {
        let key = &arguments::key(key.as_ref())?;
        let value = &arguments::value(value.as_ref())?;
        let send = |link: Arc<Link>, context, write| async move {
            link.client()
                .put(context, write, key.clone(), value.clone())
                .await
        };
        self.cluster.write(self.timeout, send).await
    }

    /// Appends `value` to what `key` holds; a missing key counts as empty. Returns the key's new version.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; [`Error::InvalidArgument`] also when the value would be longer than 1 MiB afterwards.
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
    /// clerk.append("log", "one more line\n").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn append(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<LogIndex, Error> {
        let key = &arguments::key(key.as_ref())?;
        let value = &arguments::value(value.as_ref())?;
        let send = |link: Arc<Link>, context, write| async move {
            link.client()
                .append(context, write, key.clone(), value.clone())
                .await
        };
        self.cluster.write(self.timeout, send).await
    }

    /// Removes `key`. Returns whether it was there.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; its variant tells whether the removal may have taken effect.
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
    /// if !clerk.delete("greeting").await? {
    ///     println!("there was no greeting");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = &arguments::key(key.as_ref())?;
        let send = |link: Arc<Link>, context, write| async move {
            link.client().delete(context, write, key.clone()).await
        };
        self.cluster.write(self.timeout, send).await
    }

    /// Reads `key`, seeing every write that finished before this call began. `None` if it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] or [`Error::NotDone`]: a read has no effect.
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
    /// let greeting: Option<bytes::Bytes> = clerk.get("greeting").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        let reply = self.get_with(key, Consistency::Linearizable).await?;
        Ok(reply.found.map(|found| found.value))
    }

    /// Reads `key` as fresh as asked for, and tells the value's version and the state it was read from.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] or [`Error::NotDone`]: a read has no effect.
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
    /// let reply = clerk.get_with("greeting", clerk::Consistency::Stale).await?;
    /// println!("as of log index {}: {:?}", reply.applied_index, reply.found);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_with(&self, key: impl AsRef<[u8]>, consistency: Consistency) -> Result<GetReply, Error> {
        let key = &arguments::key(key.as_ref())?;
        let consistency = self.cluster.read_from.of(consistency);
        let send = |link: Arc<Link>, context| async move {
            link.client().get(context, key.clone(), consistency).await
        };
        self.cluster
            .read(who_may_answer(consistency), self.timeout, send)
            .await
    }

    /// Reads one page of a range, as of one point in time: at most 1,000 items or 1 MiB.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a bound that is longer than a key may be; [`Error::NotDone`].
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
    /// let page = clerk.scan(&clerk::Scan::prefix("user/").limit(10)).await?;
    /// println!("{} users, more: {}", page.items.len(), page.next.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scan(&self, scan: &Scan) -> Result<Page, Error> {
        let began = Instant::now();
        let Some(mut request) = scan.request()? else {
            return Ok(Page {
                items: Vec::new(),
                next: None,
                applied_index: LogIndex::ZERO,
                term: Default::default(),
            });
        };
        request.consistency = self.cluster.read_from.of(request.consistency);
        let (request, who) = (&request, who_may_answer(request.consistency));
        let send =
            |link: Arc<Link>, context| async move { link.client().scan(context, request.clone()).await };
        let reply = self.cluster.read(who, self.timeout, send).await?;
        if reply.more && reply.items.is_empty() {
            let reason = Reason::BadAnswer("an empty page that is not the last");
            return Err(Error::NotDone {
                after: began.elapsed(),
                reason,
            });
        }
        Ok(scan.page(reply))
    }

    /// Reads a range page by page. Nothing is sent before the first page is asked for.
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
    /// let mut pages = clerk.pages(clerk::Scan::prefix("user/"));
    /// while let Some(page) = pages.next_page().await? {
    ///     println!("{} users", page.items.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pages(&self, scan: Scan) -> Pages {
        Pages::new(self.clone(), scan)
    }

    /// Reads a whole range into memory. Each page is one point in time; the range as a whole is not.
    ///
    /// # Errors
    ///
    /// As [`Clerk::scan`].
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
    /// for item in clerk.scan_all(clerk::Scan::prefix("user/")).await? {
    ///     println!("{:?} is {:?}", item.key, item.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scan_all(&self, scan: Scan) -> Result<Vec<ScanItem>, Error> {
        let mut pages = self.pages(scan);
        let mut items = Vec::new();
        while let Some(page) = pages.next_page().await? {
            items.extend(page.items);
        }
        Ok(items)
    }

    /// Asks every server of the cluster for its status, side by side; those that do not answer within the
    /// time of one attempt are listed too, with the reason. In order of their ids.
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) {
    /// let nodes = clerk.status().await;
    /// let alive = nodes.iter().filter(|node| node.status.is_ok()).count();
    /// println!("{alive} of {} servers answer", nodes.len());
    /// # }
    /// ```
    pub async fn status(&self) -> Vec<NodeStatus> {
        status::of_all(&self.cluster, self.timeout).await
    }

    /// The servers of the cluster, as any one of them tells.
    ///
    /// # Errors
    ///
    /// [`Error::NotDone`] when no server answered in time.
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
    /// for member in clerk.members().await? {
    ///     println!("server {} serves clients at {}", member.id, member.client_addr);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        let ask = |link: Arc<Link>, context| async move { link.client().status(context).await };
        let status = self.cluster.read(Want::Anyone, self.timeout, ask).await?;
        self.cluster.connections.learn(&status);
        Ok(status.members)
    }
}

/// Most reads only the leader answers.
fn who_may_answer(consistency: Consistency) -> Want {
    match consistency {
        Consistency::Stale => Want::Anyone,
        Consistency::Anywhere => Want::InTurn,
        Consistency::Linearizable | Consistency::Lease | Consistency::Log => Want::Leader,
    }
}

//! The settings of a clerk.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rpc::limits::MAX_CLUSTER_ID_BYTES;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::clerk::Clerk;
use crate::cluster::Cluster;
use crate::connections::{ConnectSettings, Connections};
use crate::directory::{Directory, ReadFrom};
use crate::outcome::{Error, InvalidArgument};
use crate::retry::RetryPolicy;
use crate::session::SESSION_WINDOW;

/// The longest timeout of a call; longer ones are cut to this.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// How many calls are in flight at most, unless set.
const DEFAULT_MAX_IN_FLIGHT: usize = 256;

/// Settings of a [`Clerk`], each with a sensible default; made by [`Clerk::builder`].
///
/// ```
/// use clerk::Clerk;
/// use std::time::Duration;
///
/// let clerk = Clerk::builder()
///     .endpoints(["10.0.0.1:7102", "10.0.0.2:7102", "10.0.0.3:7102"])
///     .timeout(Duration::from_secs(2))
///     .cluster_id("orders")
///     .build()?;
/// # Ok::<(), clerk::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClerkBuilder {
    endpoints: Vec<String>,
    timeout: Duration,
    connect_timeout: Duration,
    policy: RetryPolicy,
    max_in_flight: usize,
    read_from: ReadFrom,
    cluster_id: Option<String>,
    seed: Option<u64>,
}

impl Default for ClerkBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            policy: RetryPolicy::default(),
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            read_from: ReadFrom::Leader,
            cluster_id: None,
            seed: None,
        }
    }
}

impl ClerkBuilder {
    /// Adds servers of the cluster, each as `host:port`. One that lives is enough to find the rest; up to 64.
    ///
    /// ```
    /// # use clerk::Clerk;
    /// let builder = Clerk::builder().endpoints(["127.0.0.1:7102"]).endpoints(vec!["[::1]:7112".to_owned()]);
    /// # assert!(builder.build().is_ok());
    /// ```
    #[must_use]
    pub fn endpoints<E: AsRef<str>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints
            .extend(endpoints.into_iter().map(|endpoint| endpoint.as_ref().to_owned()));
        self
    }

    /// Within what time each call ends, retries and all: 5 s unless set, at most a day.
    ///
    /// ```
    /// # use clerk::Clerk;
    /// # use std::time::Duration;
    /// let clerk = Clerk::builder().endpoints(["127.0.0.1:7102"]).timeout(Duration::from_millis(500)).build()?;
    /// assert_eq!(clerk.timeout(), Duration::from_millis(500));
    /// # Ok::<(), clerk::Error>(())
    /// ```
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How long one attempt waits for its answer before another server is asked: 1 s unless set. Each
    /// attempt that met silence doubles it for the next one of the same call.
    ///
    /// ```
    /// # use clerk::Clerk;
    /// # use std::time::Duration;
    /// let hasty = Clerk::builder().endpoints(["127.0.0.1:7102"]).try_timeout(Duration::from_millis(200));
    /// # assert!(hasty.build().is_ok());
    /// ```
    #[must_use]
    pub fn try_timeout(mut self, try_timeout: Duration) -> Self {
        self.policy.try_timeout = try_timeout;
        self
    }

    /// How long a server may take to accept a connection and tell its status: 1 s unless set.
    ///
    /// ```
    /// # use clerk::Clerk;
    /// # use std::time::Duration;
    /// let far_away = Clerk::builder().endpoints(["127.0.0.1:7102"]).connect_timeout(Duration::from_secs(3));
    /// # assert!(far_away.build().is_ok());
    /// ```
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            ..self
        }
    }

    /// The pauses between rounds of attempts: any time up to `first` before the second round, the bound
    /// doubling with each round up to `longest`. 20 ms and 500 ms unless set.
    ///
    /// ```
    /// # use clerk::Clerk;
    /// # use std::time::Duration;
    /// let gentle = Clerk::builder()
    ///     .endpoints(["127.0.0.1:7102"])
    ///     .backoff(Duration::from_millis(100), Duration::from_secs(2));
    /// # assert!(gentle.build().is_ok());
    /// ```
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.policy.first_pause = first;
        self.policy.longest_pause = longest;
        self
    }

    /// How many calls of this clerk and its clones may be in flight, 1 to 1,024; further ones wait. 256
    /// unless set.
    ///
    /// ```
    /// # use clerk::Clerk;
    /// let modest = Clerk::builder().endpoints(["127.0.0.1:7102"]).max_in_flight(16);
    /// # assert!(modest.build().is_ok());
    /// assert!(Clerk::builder().endpoints(["127.0.0.1:7102"]).max_in_flight(0).build().is_err());
    /// ```
    #[must_use]
    pub fn max_in_flight(self, max_in_flight: usize) -> Self {
        Self {
            max_in_flight,
            ..self
        }
    }

    /// Who answers linearizable reads. The leader unless set.
    ///
    /// ```
    /// # use clerk::{Clerk, ReadFrom};
    /// let spread = Clerk::builder().endpoints(["127.0.0.1:7102"]).read_from(ReadFrom::Any);
    /// # assert!(spread.build().is_ok());
    /// ```
    #[must_use]
    pub fn read_from(self, read_from: ReadFrom) -> Self {
        Self { read_from, ..self }
    }

    /// Refuses servers of any other cluster. Unless set, the first server that answers decides.
    ///
    /// ```
    /// # use clerk::Clerk;
    /// let careful = Clerk::builder().endpoints(["127.0.0.1:7102"]).cluster_id("orders");
    /// # assert!(careful.build().is_ok());
    /// ```
    #[must_use]
    pub fn cluster_id(self, cluster_id: impl Into<String>) -> Self {
        Self {
            cluster_id: Some(cluster_id.into()),
            ..self
        }
    }

    /// Makes the jitter of the pauses repeatable. Random unless set.
    ///
    /// ```
    /// # use clerk::Clerk;
    /// let repeatable = Clerk::builder().endpoints(["127.0.0.1:7102"]).seed(7);
    /// # assert!(repeatable.build().is_ok());
    /// ```
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self {
            seed: Some(seed),
            ..self
        }
    }

    /// Makes the clerk. Nothing is sent before its first call.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] when an endpoint is not `host:port`, when there is none or more than 64, or
    /// when a setting is out of range.
    ///
    /// ```
    /// # use clerk::Clerk;
    /// let error = Clerk::builder().build().unwrap_err();
    /// assert_eq!(error.to_string(), "no endpoint: give at least one as host:port");
    /// ```
    pub fn build(self) -> Result<Clerk, Error> {
        self.check()?;
        let directory = Arc::new(Mutex::new(Directory::new(&self.endpoints)?));
        let origin = Instant::now();
        let settings = ConnectSettings {
            connect_timeout: self.connect_timeout.min(LONGEST_TIMEOUT),
            cluster_id: self.cluster_id,
        };
        let connections = Arc::new(Connections::new(settings, Arc::clone(&directory), origin));
        let cluster = Cluster {
            directory,
            connections,
            policy: self.policy,
            read_from: self.read_from,
            origin,
            session: Default::default(),
            in_flight: Semaphore::new(self.max_in_flight),
            seed: self.seed.unwrap_or_else(rand::random),
            calls_made: AtomicU64::new(0),
        };
        Ok(Clerk::new(cluster, self.timeout.min(LONGEST_TIMEOUT)))
    }

    /// Makes the clerk and waits until one server has answered, trying all of them within the timeout.
    ///
    /// # Errors
    ///
    /// Those of [`ClerkBuilder::build`]; [`Error::NotDone`] when no server answered in time.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), clerk::Error> {
    /// let clerk = clerk::Clerk::builder().endpoints(["127.0.0.1:7102"]).connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(self) -> Result<Clerk, Error> {
        let clerk = self.build()?;
        clerk.members().await?;
        Ok(clerk)
    }

    fn check(&self) -> Result<(), InvalidArgument> {
        let zero = "must be above zero";
        let settings = [
            ("timeout", self.timeout.is_zero(), zero),
            ("try_timeout", self.policy.try_timeout.is_zero(), zero),
            ("connect_timeout", self.connect_timeout.is_zero(), zero),
            ("max_in_flight", self.max_in_flight == 0, zero),
            (
                "max_in_flight",
                self.max_in_flight as u64 > SESSION_WINDOW,
                "must be at most 1024",
            ),
            (
                "cluster_id",
                self.cluster_id
                    .as_ref()
                    .is_some_and(|id| id.is_empty() || id.len() > MAX_CLUSTER_ID_BYTES),
                "must have 1 to 255 bytes",
            ),
        ];
        match settings.into_iter().find(|(_, wrong, _)| *wrong) {
            Some((setting, _, problem)) => Err(InvalidArgument::Setting { setting, problem }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> ClerkBuilder {
        ClerkBuilder::default().endpoints(["a:1"])
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let cases = [
            (builder().timeout(Duration::ZERO), "timeout must be above zero"),
            (
                builder().try_timeout(Duration::ZERO),
                "try_timeout must be above zero",
            ),
            (
                builder().connect_timeout(Duration::ZERO),
                "connect_timeout must be above zero",
            ),
            (builder().cluster_id(""), "cluster_id must have 1 to 255 bytes"),
            (builder().max_in_flight(0), "max_in_flight must be above zero"),
            (
                builder().max_in_flight(1_025),
                "max_in_flight must be at most 1024",
            ),
        ];
        for (builder, message) in cases {
            assert_eq!(builder.build().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_timeout_beyond_all_clocks_is_cut_to_a_day() {
        let clerk = builder()
            .timeout(Duration::MAX)
            .connect_timeout(Duration::MAX)
            .build()
            .unwrap();
        assert_eq!(clerk.timeout(), LONGEST_TIMEOUT);
    }
}

//! Whom a load is put on.

use std::future::Future;

use bytes::Bytes;
use rpc::client::Consistency;

use super::{MOST_CLIENTS_PER_CONNECTION, PRELOADS_IN_FLIGHT};
use crate::{Clerk, ClerkBuilder, Error};

/// One call of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Set a key.
    Put {
        /// Which.
        key: String,
        /// To what.
        value: Bytes,
    },
    /// Read a key.
    Get {
        /// Which.
        key: String,
    },
    /// Append to a key.
    Append {
        /// Which.
        key: String,
        /// What.
        value: Bytes,
    },
}

/// One connection to the store that is measured. Clones share it.
///
/// ```
/// use clerk::load::{self, Call, Load, Target};
///
/// #[derive(Clone)]
/// struct Nothing;
///
/// impl Target for Nothing {
///     type Error = std::convert::Infallible;
///
///     async fn call(&self, _: Call) -> Result<(), Self::Error> {
///         tokio::task::yield_now().await;
///         Ok(())
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let duration = std::time::Duration::from_millis(20);
/// let load = Load { clients: 2, warm_up: duration, duration, ..Load::default() };
/// assert!(load::run(&[Nothing], &load).await.operations > 0);
/// # });
/// ```
pub trait Target: Clone + Send + Sync + 'static {
    /// Why a call did not succeed.
    type Error: std::error::Error + Send + 'static;

    /// Makes one call and waits for its answer.
    fn call(&self, call: Call) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// A [`Clerk`] as a target, with the consistency of its reads.
#[derive(Clone, Debug)]
pub struct ClerkTarget {
    clerk: Clerk,
    consistency: Consistency,
}

impl ClerkTarget {
    /// As many targets as `connections`, each with a connection and a session of its own, for `clients` in all.
    /// Nothing is sent yet. Reads are linearizable.
    ///
    /// # Errors
    ///
    /// Those of [`ClerkBuilder::build`].
    ///
    /// ```
    /// let settings = clerk::Clerk::builder().endpoints(["127.0.0.1:7102"]);
    /// let targets = clerk::load::ClerkTarget::connect(&settings, 64, 2)?;
    /// assert_eq!(targets.len(), 2);
    /// # Ok::<(), clerk::Error>(())
    /// ```
    pub fn connect(settings: &ClerkBuilder, clients: u32, connections: u32) -> Result<Vec<Self>, Error> {
        let each = clients
            .div_ceil(connections.max(1))
            // The keys that a load reads are written first, and not one after the other for want of clients.
            .clamp(PRELOADS_IN_FLIGHT, MOST_CLIENTS_PER_CONNECTION);
        let settings = settings.clone().max_in_flight(each as usize);
        let target = |_| {
            Ok(Self {
                clerk: settings.clone().build()?,
                consistency: Consistency::Linearizable,
            })
        };
        (0..connections.max(1)).map(target).collect()
    }

    /// The same target with reads of another consistency.
    ///
    /// ```
    /// # let settings = clerk::Clerk::builder().endpoints(["127.0.0.1:7102"]);
    /// let targets = clerk::load::ClerkTarget::connect(&settings, 1, 1)?;
    /// let stale = targets[0].clone().reading(clerk::Consistency::Stale);
    /// # Ok::<(), clerk::Error>(())
    /// ```
    #[must_use]
    pub fn reading(self, consistency: Consistency) -> Self {
        Self { consistency, ..self }
    }

    /// A value that has grown to its limit starts anew.
    async fn append(&self, key: &str, value: &Bytes) -> Result<(), Error> {
        match self.clerk.append(key, value).await {
            Err(Error::InvalidArgument(_)) => self.clerk.put(key, value).await.map(drop),
            outcome => outcome.map(drop),
        }
    }
}

impl Target for ClerkTarget {
    type Error = Error;

    async fn call(&self, call: Call) -> Result<(), Error> {
        match call {
            Call::Put { key, value } => self.clerk.put(key, value).await.map(drop),
            Call::Get { key } => self.clerk.get_with(key, self.consistency).await.map(drop),
            Call::Append { key, value } => self.append(&key, &value).await,
        }
    }
}

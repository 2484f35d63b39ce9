//! Who may be connected: counts connections and picks the one to drop.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::limits::ServerLimits;

/// The connections of one listening port.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    counts: Arc<Mutex<Counts>>,
    max_connections: usize,
    max_connections_per_ip: usize,
    max_handshakes: usize,
}

#[derive(Debug, Default)]
struct Counts {
    /// Connections that have not been admitted yet, oldest first, each with what drops it.
    handshakes: BTreeMap<u64, CancellationToken>,
    next_handshake: u64,
    admitted: usize,
    admitted_per_ip: HashMap<IpAddr, usize>,
}

/// A connection's place among those that have not been admitted. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Handshake {
    admission: Admission,
    number: u64,
    evicted: CancellationToken,
}

/// A connection's place among the admitted. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Admission,
    ip: IpAddr,
}

impl Admission {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        Self {
            counts: Arc::default(),
            max_connections: limits.max_connections,
            max_connections_per_ip: limits.max_connections_per_ip,
            max_handshakes: limits.max_handshakes.max(1),
        }
    }

    /// Takes in a connection that has yet to say hello; drops the oldest such one if there are too many.
    pub(crate) fn begin_handshake(&self) -> Handshake {
        let mut counts = self.lock();
        while counts.handshakes.len() >= self.max_handshakes {
            counts.evict_oldest_handshake();
        }
        let number = counts.next_handshake;
        counts.next_handshake += 1;
        let evicted = CancellationToken::new();
        counts.handshakes.insert(number, evicted.clone());
        drop(counts);
        Handshake {
            admission: self.clone(),
            number,
            evicted,
        }
    }

    /// Makes room when the operating system has none left for another connection.
    pub(crate) fn evict_oldest_handshake(&self) {
        self.lock().evict_oldest_handshake();
    }

    /// Counts a connection from `ip` as admitted; `None` if there are too many.
    pub(crate) fn admit(&self, ip: IpAddr) -> Option<Admitted> {
        // An IPv4 caller on a dual-stack socket is the same caller.
        let ip = ip.to_canonical();
        let mut counts = self.lock();
        let from_ip = counts.admitted_per_ip.get(&ip).copied().unwrap_or(0);
        if counts.admitted >= self.max_connections || from_ip >= self.max_connections_per_ip {
            return None;
        }
        counts.admitted += 1;
        counts.admitted_per_ip.insert(ip, from_ip + 1);
        drop(counts);
        Some(Admitted {
            admission: self.clone(),
            ip,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // No code that holds the lock can leave the counts half changed.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn evict_oldest_handshake(&mut self) {
        if let Some((_, evicted)) = self.handshakes.pop_first() {
            evicted.cancel();
        }
    }
}

impl Handshake {
    /// Runs `exchange` to its end; `None` if the connection was dropped in favour of a newer one.
    pub(crate) async fn run<F: Future>(&self, exchange: F) -> Option<F::Output> {
        self.evicted.run_until_cancelled(exchange).await
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.admission.lock().handshakes.remove(&self.number);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.lock();
        counts.admitted -= 1;
        if let Some(from_ip) = counts.admitted_per_ip.get_mut(&self.ip) {
            *from_ip -= 1;
            if *from_ip == 0 {
                counts.admitted_per_ip.remove(&self.ip);
            }
        }
    }
}

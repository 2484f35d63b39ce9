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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::Admission;
    use crate::limits::ServerLimits;

    fn admission(max_connections: usize, max_connections_per_ip: usize, max_handshakes: usize) -> Admission {
        let limits = ServerLimits::default();
        Admission::new(&ServerLimits {
            max_connections,
            max_connections_per_ip,
            max_handshakes,
            ..limits
        })
    }

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[test]
    fn an_address_has_its_own_cap_below_the_cap_in_all() {
        let admission = admission(3, 2, 1);
        let first = admission.admit(ip(1)).unwrap();
        let _second = admission.admit(ip(1)).unwrap();
        assert!(admission.admit(ip(1)).is_none(), "the cap of the address");
        let _third = admission.admit(ip(2)).unwrap();
        assert!(admission.admit(ip(3)).is_none(), "the cap in all");
        drop(first);
        assert!(admission.admit(ip(1)).is_some());
    }

    #[test]
    fn an_ipv4_caller_on_a_dual_stack_socket_is_the_same_caller() {
        let admission = admission(9, 1, 1);
        let _first = admission.admit(ip(1)).unwrap();
        let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().into();
        assert!(admission.admit(mapped).is_none());
    }

    #[test]
    fn nothing_is_remembered_of_callers_that_have_left() {
        let admission = admission(9, 9, 1);
        let admitted: Vec<_> = (0..9).map(|last| admission.admit(ip(last)).unwrap()).collect();
        assert_eq!(admission.lock().admitted_per_ip.len(), 9);
        drop(admitted);
        assert!(admission.lock().admitted_per_ip.is_empty());
        assert_eq!(admission.lock().admitted, 0);
    }

    #[tokio::test]
    async fn a_handshake_too_many_ends_the_oldest_and_no_other() {
        let admission = admission(9, 9, 2);
        let [first, second, third] = [0; 3].map(|_| admission.begin_handshake());
        assert_eq!(first.run(std::future::pending::<()>()).await, None);
        assert_eq!(second.run(async { 2 }).await, Some(2));
        assert_eq!(third.run(async { 3 }).await, Some(3));
        drop(second);
        let _fourth = admission.begin_handshake();
        assert_eq!(
            third.run(async { 3 }).await,
            Some(3),
            "a place that was given back is free"
        );
    }
}

//! How many files and connections this process may have open, and what a node makes of it.

use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;

use crate::config::Config;

/// What a node opens for itself: its files, threads and ports, those of a snapshot being written included. It takes
/// about 35 at rest.
const OWN: u64 = 64;
/// Connections to and from one peer, and those that replace them.
const EACH_PEER: u64 = 4;
/// With fewer left for clients a node is of no use.
const LEAST_SPARE: u64 = 16;

/// The process may open too few files.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "this process may have {limit} files and connections open, and a node of this cluster needs {least} or more, \
     {wanted} for all connections that its configuration allows\n\
     raise the limit: `ulimit -n {wanted}` in a shell, LimitNOFILE={wanted} in a systemd unit"
)]
pub(crate) struct TooFewDescriptors {
    limit: u64,
    least: u64,
    wanted: u64,
}

/// How many connections there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionRoom {
    /// Of clients.
    pub(crate) clients: usize,
    /// Of clients that have not said hello.
    pub(crate) client_handshakes: usize,
    /// Of peers that have not said hello.
    pub(crate) peer_handshakes: usize,
}

impl ConnectionRoom {
    /// What the configuration and the program's own limits allow.
    fn configured(config: &Config) -> Self {
        Self {
            clients: config.limits.connections,
            client_handshakes: rpc::ServerLimits::default().max_handshakes,
            peer_handshakes: rpc::ServerLimits::for_peers().max_handshakes,
        }
    }

    /// Raises this process's limit as far as it needs and may, and takes what that leaves room for.
    pub(crate) fn secure(config: &Config) -> Result<Self, TooFewDescriptors> {
        let configured = Self::configured(config);
        let own = OWN + EACH_PEER * config.peers().count() as u64;
        let limit = raised_to(own.saturating_add(configured.total()));
        let room = configured.within(limit, own)?;
        if room != configured {
            tracing::warn!(
                "this process may have {limit} files and connections open: {} clients can be connected at a time, not \
                 {}. Raise the limit with ulimit -n or LimitNOFILE",
                room.clients,
                configured.clients
            );
        }
        Ok(room)
    }

    fn total(self) -> u64 {
        (self.clients as u64)
            .saturating_add(self.client_handshakes as u64)
            .saturating_add(self.peer_handshakes as u64)
    }

    /// What of this there is room for where `limit` may be open and the node itself takes `own`.
    fn within(self, limit: u64, own: u64) -> Result<Self, TooFewDescriptors> {
        let wanted = own.saturating_add(self.total());
        if limit >= wanted {
            return Ok(self);
        }
        // Where the configuration allows but a few clients, no more is needed either.
        let least = (own + LEAST_SPARE).min(wanted);
        if limit < least {
            return Err(TooFewDescriptors { limit, least, wanted });
        }
        let spare = usize::try_from(limit - own).unwrap_or(usize::MAX);
        let client_handshakes = self.client_handshakes.min(spare / 4);
        let peer_handshakes = self.peer_handshakes.min(spare / 8);
        Ok(Self {
            clients: self.clients.min(spare - client_handshakes - peer_handshakes),
            client_handshakes,
            peer_handshakes,
        })
    }
}

/// The limit on open files, after it was raised towards `wanted` if it was lower.
fn raised_to(wanted: u64) -> u64 {
    let mut limits = getrlimit(Resource::Nofile);
    let before = limits.current.unwrap_or(u64::MAX);
    if before >= wanted {
        return before;
    }
    let raised = limits.maximum.map_or(wanted, |most| most.min(wanted));
    limits.current = Some(raised);
    match setrlimit(Resource::Nofile, limits) {
        Ok(()) => raised,
        Err(_) => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: ConnectionRoom = ConnectionRoom {
        clients: 512,
        client_handshakes: 128,
        peer_handshakes: 64,
    };

    #[test]
    fn the_connections_fit_in_what_the_node_leaves_of_every_limit() {
        let own = OWN + 2 * EACH_PEER;
        for limit in 0..1_500 {
            match CONFIGURED.within(limit, own) {
                Ok(room) => {
                    assert!(own + room.total() <= limit, "{limit}: {room:?}");
                    assert!(room.clients >= 10 && room.client_handshakes >= 4 && room.peer_handshakes >= 2);
                    assert_eq!(room == CONFIGURED, limit >= own + 704, "{limit}");
                }
                Err(_) => assert!(limit < own + LEAST_SPARE, "{limit}"),
            }
        }
    }

    #[test]
    fn a_refusal_tells_the_limit_and_how_to_raise_it() {
        let refusal = CONFIGURED.within(22, 64).unwrap_err().to_string();
        assert_eq!(
            refusal,
            "this process may have 22 files and connections open, and a node of this cluster needs 80 or more, 768 \
             for all connections that its configuration allows\n\
             raise the limit: `ulimit -n 768` in a shell, LimitNOFILE=768 in a systemd unit"
        );
    }
}

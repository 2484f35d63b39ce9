//! The links between the nodes: a small proxy for each ordered pair, so that a link can be cut.
//!
//! A node is told, in a configuration of its own, that each of its peers serves where the proxy of the link to it
//! listens. A cut link is silent, as a lost cable is, or closes and refuses connections, as a firewall does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::Error;

/// How much of one direction of a connection is under way at most.
const BUFFER_BYTES: usize = 16 * 1024;
/// A node dials a peer a few times at once at most; more connections than this are refused.
const MOST_CONNECTIONS: usize = 64;

/// From which node to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link {
    /// Who dials.
    pub(crate) from: u64,
    /// Who is dialled.
    pub(crate) to: u64,
}

/// What becomes of the bytes on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// They get through.
    Works,
    /// They wait until it works again.
    Silent,
    /// Connections are closed and refused.
    Closed,
}

/// All links of a cluster. Dropping it closes them.
#[derive(Debug)]
pub(crate) struct Links {
    conditions: BTreeMap<Link, watch::Sender<Condition>>,
    addresses: BTreeMap<Link, SocketAddr>,
    /// Held for its drop, which ends the proxies.
    _proxies: JoinSet<()>,
}

impl Links {
    /// Opens a link for each ordered pair of `nodes`, given with the addresses at which they serve their peers and
    /// the ports at which to listen for them, as many as there are pairs.
    pub(crate) async fn open(nodes: &[(u64, SocketAddr)], ports: &[u16]) -> Result<Self, Error> {
        let mut links = Self {
            conditions: BTreeMap::new(),
            addresses: BTreeMap::new(),
            _proxies: JoinSet::new(),
        };
        let pairs = nodes
            .iter()
            .flat_map(|(from, _)| nodes.iter().map(move |to| (*from, *to)))
            .filter(|(from, (to, _))| from != to);
        for ((from, (to, address)), port) in pairs.zip(ports) {
            let link = Link { from, to };
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port))
                .await
                .map_err(Error::system(format!("listen on port {port} for a link")))?;
            let own = listener
                .local_addr()
                .map_err(Error::system("find the address of a link"))?;
            let (sender, condition) = watch::channel(Condition::Works);
            links.conditions.insert(link, sender);
            links.addresses.insert(link, own);
            links._proxies.spawn(serve(listener, address, condition));
        }
        Ok(links)
    }

    /// Where `link` is dialled.
    pub(crate) fn address(&self, link: Link) -> Option<SocketAddr> {
        self.addresses.get(&link).copied()
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = Link> + '_ {
        self.conditions.keys().copied()
    }

    /// Changes what becomes of the bytes on `link`, of connections that are open as of new ones.
    pub(crate) fn set(&self, link: Link, condition: Condition) {
        if let Some(sender) = self.conditions.get(&link) {
            sender.send_replace(condition);
        }
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, condition: watch::Receiver<Condition>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((inbound, _)) if connections.len() < MOST_CONNECTIONS => {
                connections.spawn(carry(inbound, to, condition.clone()));
            }
            // It is closed, or there is none to close.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Carries one connection until one of its ends, or the link, closes it.
async fn carry(inbound: TcpStream, to: SocketAddr, mut condition: watch::Receiver<Condition>) {
    if !passes(&mut condition).await {
        return;
    }
    let Ok(outbound) = TcpStream::connect(to).await else {
        return;
    };
    // Small messages must not wait for each other, as they would not without a proxy.
    let _ = inbound
        .set_nodelay(true)
        .and_then(|()| outbound.set_nodelay(true));
    let ((in_read, in_write), (out_read, out_write)) = (inbound.into_split(), outbound.into_split());
    tokio::select! {
        () = pump(in_read, out_write, condition.clone()) => {}
        () = pump(out_read, in_write, condition.clone()) => {}
        () = closed(condition) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut condition: watch::Receiver<Condition>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !passes(&mut condition).await || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Waits while the link is silent. Whether it works then.
async fn passes(condition: &mut watch::Receiver<Condition>) -> bool {
    let waited = condition
        .wait_for(|condition| *condition != Condition::Silent)
        .await;
    waited.is_ok_and(|condition| *condition == Condition::Works)
}

async fn closed(mut condition: watch::Receiver<Condition>) {
    let _ = condition
        .wait_for(|condition| *condition == Condition::Closed)
        .await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A link from node 1 to a node 2 that is played by the listener.
    async fn link() -> (Links, SocketAddr, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let nodes = [
            (1, listener.local_addr().unwrap()),
            (2, listener.local_addr().unwrap()),
        ];
        let links = Links::open(&nodes, &[0, 0]).await.unwrap();
        let address = links.address(Link { from: 1, to: 2 }).unwrap();
        (links, address, listener)
    }

    async fn connect(address: SocketAddr, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(address).await.unwrap();
        let (far, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        (near, far)
    }

    async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(LIMIT, stream.read_exact(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        bytes
    }

    #[tokio::test]
    async fn bytes_get_through_and_those_on_a_silent_link_wait() {
        let (links, address, listener) = link().await;
        let (mut near, mut far) = connect(address, &listener).await;
        near.write_all(b"there").await.unwrap();
        assert_eq!(read(&mut far, 5).await, b"there");
        links.set(Link { from: 1, to: 2 }, Condition::Silent);
        far.write_all(b"back").await.unwrap();
        let waiting = timeout(Duration::from_millis(50), near.read_u8()).await;
        assert!(waiting.is_err(), "nothing comes through");
        links.set(Link { from: 1, to: 2 }, Condition::Works);
        assert_eq!(read(&mut near, 4).await, b"back");
    }

    #[tokio::test]
    async fn a_closed_link_closes_its_connections_and_refuses_new_ones() {
        let (links, address, listener) = link().await;
        let (mut near, _far) = connect(address, &listener).await;
        links.set(Link { from: 1, to: 2 }, Condition::Closed);
        assert!(!matches!(
            timeout(LIMIT, near.read(&mut [0])).await.unwrap(),
            Ok(1..)
        ));
        let mut next = TcpStream::connect(address).await.unwrap();
        assert!(!matches!(
            timeout(LIMIT, next.read(&mut [0])).await.unwrap(),
            Ok(1..)
        ));
        links.set(Link { from: 1, to: 2 }, Condition::Works);
        let (mut near, mut far) = connect(address, &listener).await;
        near.write_all(b"x").await.unwrap();
        assert_eq!(read(&mut far, 1).await, b"x");
    }
}

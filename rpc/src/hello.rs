//! What two programs say to each other before the first request.
//!
//! The connecting side sends a [`Hello`]: which protocol version it speaks, which service it wants and, so
//! that a wrong address is noticed at once, whom it believes to reach. The server answers with a [`Reply`]: who
//! it is, and either yes or one [`Refusal`]. The format is fixed and does not go through the codec, so that any
//! two versions can tell each other that they do not match.
//!
//! ```text
//! hello   magic "KVRH" | version u16 | service u8 | length u8 | from u64 | to u64 | cluster id
//! reply   magic "KVRA" | version u16 | verdict u8 | length u8 | node u64 | cluster id
//! ```
//!
//! Integers are big-endian, `length` is that of the cluster id in bytes. A client that expects no cluster in
//! particular leaves the cluster id empty; `from` and `to` are 0 from clients.

use std::collections::BTreeSet;
use std::io;

use bytes::{BufMut, BytesMut};
use raft_core::NodeId;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::limits::MAX_CLUSTER_ID_BYTES;

/// The version of everything that travels: hello, frames, services. Both sides must speak the same.
pub const PROTOCOL_VERSION: u16 = 7;

const HELLO_MAGIC: [u8; 4] = *b"KVRH";
const REPLY_MAGIC: [u8; 4] = *b"KVRA";

/// The two services, each on a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// [`Peer`](crate::peer::Peer): servers among each other.
    Peer,
    /// [`Kv`](crate::client::Kv): clients.
    Client,
}

/// What the connecting side says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A server calls another.
    Peer {
        /// The cluster of both.
        cluster_id: String,
        /// The caller.
        from: NodeId,
        /// The server it wants to reach.
        to: NodeId,
    },
    /// A client calls.
    Client {
        /// The cluster it wants to reach, if it minds.
        expected_cluster_id: Option<String>,
    },
}

/// Who a server is, and whom it takes for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerIdentity {
    cluster_id: String,
    node_id: NodeId,
    members: BTreeSet<NodeId>,
}

/// Who answered a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// The name of its cluster.
    pub cluster_id: String,
    /// The server.
    pub node_id: NodeId,
}

/// A server's answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The version that the server speaks.
    pub version: u16,
    /// Who it is.
    pub server: ServerInfo,
    /// `None` for "welcome".
    pub refusal: Option<Refusal>,
}

/// Why a server refused a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The two sides speak different protocol versions. Run the same release on both.
    #[error("it speaks another protocol version: run the same release on both sides")]
    WrongVersion,
    /// The server belongs to another cluster. Check the address and the cluster id.
    #[error("it belongs to another cluster: check the address and the cluster id")]
    WrongCluster,
    /// The server is another node than the one called. Check the addresses in the configuration.
    #[error("it is another node than the one called: check the addresses in the configuration")]
    WrongNode,
    /// The port serves peers and a client called, or the other way round.
    #[error("this port offers the other service: clients call client_addr, servers call raft_addr")]
    WrongService,
    /// The server's configuration has no such peer.
    #[error("its configuration does not list the caller: use the same configuration file on every node")]
    UnknownPeer,
    /// A limit on connections is reached. Try again later, or close some.
    #[error("it has too many connections, in all or from this address: try again later")]
    TooManyConnections,
    /// The server is stopping. Try another, or the same one later.
    #[error("it is shutting down")]
    ShuttingDown,
}

/// Why no hello could be exchanged.
#[derive(Debug, Error)]
pub enum HelloError {
    /// The first bytes are of some other protocol.
    #[error("the other side speaks another protocol")]
    NotOurProtocol,
    /// The magic and version are right, the rest is not.
    #[error("the other side sent a malformed hello: {0}")]
    Malformed(&'static str),
    /// The cluster id cannot be sent.
    #[error("the cluster id has {len_bytes} bytes: it must have 1 to {MAX_CLUSTER_ID_BYTES}")]
    ClusterIdLength {
        /// Its length, in bytes.
        len_bytes: usize,
    },
    /// The connection failed or ended.
    #[error("the connection failed during the hello: {0}")]
    Io(#[from] io::Error),
}

impl ServerIdentity {
    /// The identity of `node_id` in the cluster of `members`, who may call it as peers.
    ///
    /// # Errors
    ///
    /// [`HelloError::ClusterIdLength`] when `cluster_id` is empty or longer than [`MAX_CLUSTER_ID_BYTES`].
    pub fn new(
        cluster_id: impl Into<String>,
        node_id: NodeId,
        members: impl IntoIterator<Item = NodeId>,
    ) -> Result<Self, HelloError> {
        let cluster_id = cluster_id.into();
        check_cluster_id(&cluster_id)?;
        Ok(Self {
            cluster_id,
            node_id,
            members: members.into_iter().collect(),
        })
    }

    /// The name of the cluster.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The server.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Whether a caller with this hello may use `service` here.
    pub(crate) fn judge(&self, hello: &Hello, service: ServiceKind) -> Option<Refusal> {
        if hello.service() != service {
            return Some(Refusal::WrongService);
        }
        match hello {
            Hello::Client {
                expected_cluster_id: Some(id),
            } if *id != self.cluster_id => Some(Refusal::WrongCluster),
            Hello::Client { .. } => None,
            Hello::Peer { cluster_id, .. } if *cluster_id != self.cluster_id => Some(Refusal::WrongCluster),
            Hello::Peer { to, .. } if *to != self.node_id => Some(Refusal::WrongNode),
            Hello::Peer { from, .. } if *from == self.node_id || !self.members.contains(from) => {
                Some(Refusal::UnknownPeer)
            }
            Hello::Peer { .. } => None,
        }
    }

    pub(crate) fn reply(&self, refusal: Option<Refusal>) -> Reply {
        let server = ServerInfo {
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id,
        };
        Reply {
            version: PROTOCOL_VERSION,
            server,
            refusal,
        }
    }
}

/// Refuses a cluster id that no hello can carry.
pub(crate) fn check_cluster_id(cluster_id: &str) -> Result<(), HelloError> {
    match cluster_id.len() {
        1..=MAX_CLUSTER_ID_BYTES => Ok(()),
        len_bytes => Err(HelloError::ClusterIdLength { len_bytes }),
    }
}

impl ServiceKind {
    fn code(self) -> u8 {
        match self {
            Self::Peer => 1,
            Self::Client => 2,
        }
    }
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::WrongVersion,
        Self::WrongCluster,
        Self::WrongNode,
        Self::WrongService,
        Self::UnknownPeer,
        Self::TooManyConnections,
        Self::ShuttingDown,
    ];

    /// The verdict byte. 0 is "welcome".
    fn code(self) -> u8 {
        match self {
            Self::WrongVersion => 1,
            Self::WrongCluster => 2,
            Self::WrongNode => 3,
            Self::WrongService => 4,
            Self::UnknownPeer => 5,
            Self::TooManyConnections => 6,
            Self::ShuttingDown => 7,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }
}

impl Hello {
    /// The service that the caller wants.
    #[must_use]
    pub fn service(&self) -> ServiceKind {
        match self {
            Self::Peer { .. } => ServiceKind::Peer,
            Self::Client { .. } => ServiceKind::Client,
        }
    }

    /// The calling server; [`NodeId::ZERO`] for clients, which have no id.
    #[must_use]
    pub fn caller_id(&self) -> NodeId {
        match self {
            Self::Peer { from, .. } => *from,
            Self::Client { .. } => NodeId::ZERO,
        }
    }

    fn to_bytes(&self) -> Result<BytesMut, HelloError> {
        let (from, to, cluster_id) = match self {
            Self::Peer { cluster_id, from, to } => (from.get(), to.get(), cluster_id.as_str()),
            Self::Client { expected_cluster_id } => {
                (0, 0, expected_cluster_id.as_deref().unwrap_or_default())
            }
        };
        let mut bytes = BytesMut::new();
        bytes.put_slice(&HELLO_MAGIC);
        bytes.put_u16(PROTOCOL_VERSION);
        bytes.put_u8(self.service().code());
        bytes.put_u8(length_byte(cluster_id)?);
        bytes.put_u64(from);
        bytes.put_u64(to);
        bytes.put_slice(cluster_id.as_bytes());
        Ok(bytes)
    }

    /// Sends the hello.
    ///
    /// # Errors
    ///
    /// [`HelloError::ClusterIdLength`], or [`HelloError::Io`] when the connection fails.
    pub async fn write<S: AsyncWrite + Unpin>(&self, io: &mut S) -> Result<(), HelloError> {
        send(io, &self.to_bytes()?).await
    }

    /// Receives a hello; `Ok(None)` if the caller speaks another protocol version.
    ///
    /// # Errors
    ///
    /// [`HelloError`] when the bytes are no hello or the connection ends within it.
    pub async fn read<S: AsyncRead + Unpin>(io: &mut S) -> Result<Option<Self>, HelloError> {
        if read_version(io, HELLO_MAGIC).await? != PROTOCOL_VERSION {
            return Ok(None);
        }
        let service = io.read_u8().await?;
        let cluster_id_bytes = io.read_u8().await?;
        let from = NodeId(io.read_u64().await?);
        let to = NodeId(io.read_u64().await?);
        let cluster_id = read_cluster_id(io, cluster_id_bytes).await?;
        match service {
            1 => Ok(Some(Self::Peer { cluster_id, from, to })),
            2 => {
                let expected_cluster_id = (!cluster_id.is_empty()).then_some(cluster_id);
                Ok(Some(Self::Client { expected_cluster_id }))
            }
            _ => Err(HelloError::Malformed("there is no such service")),
        }
    }
}

impl Reply {
    fn to_bytes(&self) -> Result<BytesMut, HelloError> {
        let mut bytes = BytesMut::new();
        bytes.put_slice(&REPLY_MAGIC);
        bytes.put_u16(self.version);
        bytes.put_u8(self.refusal.map_or(0, Refusal::code));
        bytes.put_u8(length_byte(&self.server.cluster_id)?);
        bytes.put_u64(self.server.node_id.get());
        bytes.put_slice(self.server.cluster_id.as_bytes());
        Ok(bytes)
    }

    /// Sends the reply.
    ///
    /// # Errors
    ///
    /// [`HelloError::ClusterIdLength`], or [`HelloError::Io`] when the connection fails.
    pub async fn write<S: AsyncWrite + Unpin>(&self, io: &mut S) -> Result<(), HelloError> {
        send(io, &self.to_bytes()?).await
    }

    /// Receives a reply. Its first bytes mean the same in every version.
    ///
    /// # Errors
    ///
    /// [`HelloError`] when the bytes are no reply or the connection ends within it.
    pub async fn read<S: AsyncRead + Unpin>(io: &mut S) -> Result<Self, HelloError> {
        let version = read_version(io, REPLY_MAGIC).await?;
        let verdict = io.read_u8().await?;
        let cluster_id_bytes = io.read_u8().await?;
        let node_id = NodeId(io.read_u64().await?);
        let cluster_id = read_cluster_id(io, cluster_id_bytes).await?;
        let refusal = match verdict {
            _ if version != PROTOCOL_VERSION => Some(Refusal::WrongVersion),
            0 => None,
            code => Some(Refusal::from_code(code).ok_or(HelloError::Malformed("there is no such verdict"))?),
        };
        Ok(Self {
            version,
            server: ServerInfo { cluster_id, node_id },
            refusal,
        })
    }
}

/// One write and no more, so that the hello leaves as one packet.
async fn send<S: AsyncWrite + Unpin>(io: &mut S, bytes: &[u8]) -> Result<(), HelloError> {
    io.write_all(bytes).await?;
    Ok(io.flush().await?)
}

async fn read_version<S: AsyncRead + Unpin>(io: &mut S, expected_magic: [u8; 4]) -> Result<u16, HelloError> {
    let mut magic = [0; 4];
    io.read_exact(&mut magic).await?;
    if magic != expected_magic {
        return Err(HelloError::NotOurProtocol);
    }
    Ok(io.read_u16().await?)
}

async fn read_cluster_id<S: AsyncRead + Unpin>(io: &mut S, len_bytes: u8) -> Result<String, HelloError> {
    let mut bytes = vec![0; usize::from(len_bytes)];
    io.read_exact(&mut bytes).await?;
    String::from_utf8(bytes).map_err(|_| HelloError::Malformed("the cluster id is not UTF-8"))
}

fn length_byte(cluster_id: &str) -> Result<u8, HelloError> {
    u8::try_from(cluster_id.len()).map_err(|_| HelloError::ClusterIdLength {
        len_bytes: cluster_id.len(),
    })
}

//! The limits that servers and clients agree on.

use std::time::Duration;

/// The longest key, in bytes. The shortest is 1.
pub const MAX_KEY_BYTES: usize = 4_096;
/// The longest value, in bytes, also after an append.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// The most items in one page of a scan.
pub const MAX_SCAN_ITEMS: usize = 1_000;
/// The most bytes of keys and values in one page of a scan.
pub const MAX_SCAN_BYTES: usize = 1 << 20;
/// The longest frame on the wire, in bytes: the longest value with room for its key and the numbers around.
pub const MAX_FRAME_BYTES: usize = 3 << 19;
/// The longest deadline that a request may carry; longer ones are cut to this.
pub const MAX_DEADLINE: Duration = Duration::from_secs(60);
/// The longest cluster id, in bytes. The shortest is 1.
pub const MAX_CLUSTER_ID_BYTES: usize = 255;
/// How long either side waits for the other's half of the hello.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many requests a client has in flight on one connection before further calls wait, unless its options
/// say otherwise.
pub const DEFAULT_REQUESTS_IN_FLIGHT: usize = 4_096;

/// What one listening port of a server allows. Start from the defaults, or from [`ServerLimits::for_peers`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// The most connections that have said hello. A caller above it is refused
    /// ([`TooManyConnections`](crate::hello::Refusal::TooManyConnections)). Default 512.
    pub max_connections: usize,
    /// The same for connections from one IP address. Default 256.
    pub max_connections_per_ip: usize,
    /// The most connections that have not said hello yet or are being refused. Above it the oldest of them
    /// is dropped: an honest caller says hello within a round trip, so the oldest are the silent ones, and
    /// hundreds of them cannot keep an honest caller out. Default 128.
    pub max_handshakes: usize,
    /// The most requests in flight on one connection. Above it the server stops reading from that
    /// connection until one is answered: nothing is lost and the order stays, which a refusal in the
    /// middle of a pipeline would break. A service that would rather answer "busy" keeps a bound of its own
    /// below this one. Default [`DEFAULT_REQUESTS_IN_FLIGHT`].
    pub max_requests_in_flight: usize,
    /// The same for the bytes of these requests on the wire; one request is always let in. Default 8 MiB.
    pub max_request_bytes_in_flight: usize,
    /// How long a caller may take for its hello. Default [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// A connection without a request for this long is closed; `None` to keep it. Default 5 minutes.
    pub idle_timeout: Option<Duration>,
    /// How long a frame may take from its first to its last byte. Default 10 s.
    pub frame_timeout: Duration,
    /// How long a caller may go without taking a byte of the answers that wait for it. Default 10 s.
    pub write_stall_timeout: Duration,
    /// How long requests in flight may still run when the server is told to stop. Default 2 s.
    pub shutdown_grace: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            max_connections_per_ip: 256,
            max_handshakes: 128,
            max_requests_in_flight: DEFAULT_REQUESTS_IN_FLIGHT,
            max_request_bytes_in_flight: 8 << 20,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            idle_timeout: Some(Duration::from_secs(300)),
            frame_timeout: Duration::from_secs(10),
            write_stall_timeout: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(2),
        }
    }
}

impl ServerLimits {
    /// Limits for the port that serves peers: a handful of callers, each with long messages in flight.
    #[must_use]
    pub fn for_peers() -> Self {
        Self {
            max_connections: 64,
            max_connections_per_ip: 64,
            max_handshakes: 64,
            max_request_bytes_in_flight: 32 << 20,
            ..Self::default()
        }
    }
}

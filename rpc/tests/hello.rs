//! The hello: who is let in, who is refused, and what either side is told.

use std::time::Duration;

use crate::common::{
    CLUSTER, MapService, PATIENCE, Running, begun, closed, connect, greeted, identity, soon, start_kv,
    start_peer, until,
};
use raft_core::NodeId;
use rpc::hello::{Hello, HelloError, PROTOCOL_VERSION, Reply, ServerIdentity};
use rpc::{ConnectError, ConnectOptions, Refusal, ServerLimits, connect_kv, connect_peer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

fn refusal<T: std::fmt::Debug>(result: Result<T, ConnectError>) -> Refusal {
    match result.unwrap_err() {
        ConnectError::HelloRefused { refusal, server, .. } => {
            assert_eq!(
                (server.cluster_id.as_str(), server.node_id),
                (CLUSTER, NodeId(1)),
                "who refused is told"
            );
            refusal
        }
        other => panic!("not a refusal: {other}"),
    }
}

async fn peer_refusal(server: &Running, cluster_id: &str, from: u64, to: u64) -> Refusal {
    let options = ConnectOptions::default();
    refusal(connect_peer(&server.addr(), cluster_id, NodeId(from), NodeId(to), &options).await)
}

fn expecting(cluster_id: &str) -> ConnectOptions {
    ConnectOptions {
        expected_cluster_id: Some(cluster_id.into()),
        ..ConnectOptions::default()
    }
}

#[tokio::test]
async fn a_client_may_name_the_cluster_and_is_refused_by_another() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    assert!(connect_kv(&server.addr(), &expecting(CLUSTER)).await.is_ok());
    assert_eq!(
        refusal(connect_kv(&server.addr(), &expecting("other")).await),
        Refusal::WrongCluster
    );
    server.stop().await;
}

#[tokio::test]
async fn a_peer_is_refused_for_a_wrong_cluster_a_wrong_node_and_an_unknown_or_equal_id() {
    let server = start_peer(ServerLimits::for_peers()).await;
    assert_eq!(peer_refusal(&server, "other", 2, 1).await, Refusal::WrongCluster);
    assert_eq!(peer_refusal(&server, CLUSTER, 2, 3).await, Refusal::WrongNode);
    assert_eq!(peer_refusal(&server, CLUSTER, 4, 1).await, Refusal::UnknownPeer);
    assert_eq!(peer_refusal(&server, CLUSTER, 1, 1).await, Refusal::UnknownPeer);
    server.stop().await;
}

#[tokio::test]
async fn either_port_refuses_the_other_ports_callers() {
    let kv = start_kv(MapService::default(), ServerLimits::default()).await;
    let peer = start_peer(ServerLimits::for_peers()).await;
    assert_eq!(peer_refusal(&kv, CLUSTER, 2, 1).await, Refusal::WrongService);
    let client = connect_kv(&peer.addr(), &ConnectOptions::default()).await;
    assert_eq!(refusal(client), Refusal::WrongService);
    kv.stop().await;
    peer.stop().await;
}

#[tokio::test]
async fn another_protocol_version_is_refused_and_told_ours() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    // Nobody knows how long a hello of another version is: six bytes must do.
    stream
        .write_all(&[&b"KVRH"[..], &(PROTOCOL_VERSION + 1).to_be_bytes()].concat())
        .await
        .unwrap();
    let reply = Reply::read(&mut stream).await.unwrap();
    assert_eq!(
        (reply.version, reply.refusal),
        (PROTOCOL_VERSION, Some(Refusal::WrongVersion))
    );
    closed(stream).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_tells_a_server_of_another_version_whatever_its_verdict_says() {
    let addr = fake_server(b"KVRA\x00\x63\x2a\x03\x00\x00\x00\x00\x00\x00\x00\x09abc").await;
    match connect_kv(&addr, &ConnectOptions::default()).await.unwrap_err() {
        ConnectError::HelloRefused {
            refusal: Refusal::WrongVersion,
            server,
            ..
        } => {
            assert_eq!(server.node_id, NodeId(9));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn connections_above_the_cap_in_all_are_refused_until_one_ends() {
    let limits = ServerLimits {
        max_connections: 2,
        ..ServerLimits::default()
    };
    above_the_cap_refused(limits).await;
}

#[tokio::test]
async fn connections_above_the_cap_of_an_address_are_refused_until_one_ends() {
    let limits = ServerLimits {
        max_connections_per_ip: 2,
        ..ServerLimits::default()
    };
    above_the_cap_refused(limits).await;
}

async fn above_the_cap_refused(limits: ServerLimits) {
    let server = start_kv(MapService::default(), limits).await;
    let first = connect(&server).await;
    let _second = connect(&server).await;
    let third = connect_kv(&server.addr(), &ConnectOptions::default()).await;
    assert_eq!(refusal(third), Refusal::TooManyConnections);
    first.client().status(soon()).await.unwrap().unwrap();

    drop(first);
    let connecting = async {
        while connect_kv(&server.addr(), &ConnectOptions::default())
            .await
            .is_err()
        {}
    };
    tokio::time::timeout(PATIENCE, connecting)
        .await
        .expect("a connection that ended still counts");
    server.stop().await;
}

#[tokio::test]
async fn a_caller_that_has_not_said_hello_when_the_server_stops_is_told_so() {
    let mut server = start_kv(MapService::default(), ServerLimits::default()).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    // A second caller that is through proves that the first was accepted.
    drop(greeted(&server).await);
    server.begin_shutdown();
    assert_eq!(
        Reply::read(&mut silent).await.unwrap().refusal,
        Some(Refusal::ShuttingDown)
    );
    closed(silent).await;
    server.stop().await;
}

#[tokio::test]
async fn a_silent_caller_is_dropped_after_the_handshake_timeout() {
    let limits = ServerLimits {
        handshake_timeout: Duration::from_millis(50),
        ..ServerLimits::default()
    };
    let server = start_kv(MapService::default(), limits).await;
    let silent = TcpStream::connect(server.addr).await.unwrap();
    let mut half = TcpStream::connect(server.addr).await.unwrap();
    half.write_all(&begun(b"KVRH", b"\x02")).await.unwrap();
    closed(silent).await;
    closed(half).await;
    server.stop().await;
}

#[tokio::test]
async fn when_too_many_have_not_said_hello_the_oldest_are_dropped() {
    let limits = ServerLimits {
        max_handshakes: 4,
        ..ServerLimits::default()
    };
    let server = start_kv(MapService::default(), limits).await;
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    let mut silent = silent.into_iter();
    closed(silent.next().unwrap()).await;
    closed(silent.next().unwrap()).await;
    let mut third = silent.next().unwrap();
    Hello::Client {
        expected_cluster_id: None,
    }
    .write(&mut third)
    .await
    .unwrap();
    assert_eq!(
        Reply::read(&mut third).await.unwrap().refusal,
        None,
        "the newer ones are still served"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_client_tells_apart_nobody_there_nobody_answering_and_somebody_else() {
    // An address that nobody else uses, so that nobody takes the port meanwhile.
    let nobody = TcpListener::bind("127.77.3.9:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let refused = connect_kv(&nobody, &ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ConnectOptions {
        handshake_timeout: Duration::from_millis(20),
        ..ConnectOptions::default()
    };
    let timed_out = connect_kv(&silent.local_addr().unwrap().to_string(), &options)
        .await
        .unwrap_err();
    assert!(matches!(timed_out, ConnectError::TimedOut { .. }), "{timed_out}");

    let web = fake_server(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let protocol = connect_kv(&web, &ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(protocol, ConnectError::Protocol { .. }), "{protocol}");

    let verdict_of_the_future = fake_server(begun(b"KVRA", b"\x63\x00\0\0\0\0\0\0\0\x09")).await;
    let protocol = connect_kv(&verdict_of_the_future, &ConnectOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(protocol, ConnectError::Protocol { .. }), "{protocol}");

    let hangs_up = fake_server(b"").await;
    let io = connect_kv(&hangs_up, &ConnectOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(io, ConnectError::Io { .. }), "{io}");
}

/// A server that sends `answer` to whoever calls, reads the hello, and closes.
async fn fake_server(answer: impl Into<Vec<u8>>) -> String {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        Hello::read(&mut stream).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    });
    addr
}

#[tokio::test]
async fn a_cluster_id_that_no_hello_can_carry_is_refused_by_both_sides() {
    for cluster_id in [String::new(), "x".repeat(256)] {
        let identity = ServerIdentity::new(cluster_id.clone(), NodeId(1), []).unwrap_err();
        assert!(
            matches!(identity, HelloError::ClusterIdLength { .. }),
            "{identity}"
        );
        let options = ConnectOptions::default();
        let peer = connect_peer("127.0.0.1:1", &cluster_id, NodeId(1), NodeId(2), &options)
            .await
            .unwrap_err();
        assert!(matches!(peer, ConnectError::InvalidClusterId(_)), "{peer}");
    }
    let longest = "x".repeat(255);
    let hello = Hello::Client {
        expected_cluster_id: Some(longest),
    };
    let mut bytes = Vec::new();
    hello.write(&mut bytes).await.unwrap();
    assert_eq!(Hello::read(&mut &bytes[..]).await.unwrap(), Some(hello));
}

#[tokio::test]
async fn the_bytes_of_hello_and_reply_stay_what_they_are() {
    let mut bytes = Vec::new();
    let hello = Hello::Peer {
        cluster_id: "demo".into(),
        from: NodeId(2),
        to: NodeId(0x0102),
    };
    hello.write(&mut bytes).await.unwrap();
    assert_eq!(
        bytes,
        b"KVRH\x00\x07\x01\x04\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x01\x02demo"
    );

    let mut bytes = Vec::new();
    Hello::Client {
        expected_cluster_id: None,
    }
    .write(&mut bytes)
    .await
    .unwrap();
    assert_eq!(bytes, b"KVRH\x00\x07\x02\x00\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");

    let server = rpc::ServerInfo {
        cluster_id: identity().cluster_id().into(),
        node_id: identity().node_id(),
    };
    for (verdict, refusal) in [
        (0, None),
        (3, Some(Refusal::WrongNode)),
        (7, Some(Refusal::ShuttingDown)),
    ] {
        let reply = Reply {
            version: PROTOCOL_VERSION,
            server: server.clone(),
            refusal,
        };
        let mut bytes = Vec::new();
        reply.write(&mut bytes).await.unwrap();
        let expected = [b"KVRA\x00\x07", &[verdict][..], b"\x04\0\0\0\0\0\0\0\x01test"].concat();
        assert_eq!(bytes, expected);
        assert_eq!(Reply::read(&mut &bytes[..]).await.unwrap(), reply);
    }
}

#[tokio::test]
async fn a_connection_knows_when_it_has_ended() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let connection = connect(&server).await;
    assert!(!connection.is_closed());
    server.stop().await;
    tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
    until("the connection is closed", || connection.is_closed()).await;
    let error = connection.client().status(soon()).await.unwrap_err();
    assert!(rpc::is_disconnect(&error), "{error}");
}

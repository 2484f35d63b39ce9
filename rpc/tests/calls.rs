//! Calls: order, deadlines, sizes, answers that do not fit.

use std::time::{Duration, Instant};

use crate::common::{
    MapService, PATIENCE, connect, frame, get_frame, greeted, read_response, soon, start_kv, until, write_id,
};
use bytes::Bytes;
use futures_util::future::join_all;
use rpc::client::{Consistency, KvResponse};
use rpc::framing::{FailureReason, WireRequest, WireResponse};
use rpc::hello::{Hello, Reply};
use rpc::{ConnectOptions, KvConnection, RpcError, ServerInfo, ServerLimits, connect_kv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

const MANY: usize = 10_000;

fn for_many() -> ServerLimits {
    ServerLimits {
        max_requests_in_flight: MANY,
        ..ServerLimits::default()
    }
}

async fn connect_for_many(addr: &str, request_queue: usize) -> KvConnection {
    let options = ConnectOptions {
        max_requests_in_flight: MANY,
        request_queue,
        ..ConnectOptions::default()
    };
    connect_kv(addr, &options).await.unwrap()
}

fn numbered_keys() -> Vec<Bytes> {
    (0..MANY)
        .map(|number| Bytes::from(format!("!wait {number:05}")))
        .collect()
}

fn assert_in_order(seen: &[Bytes]) {
    assert_eq!(seen.len(), MANY);
    let displaced = numbered_keys()
        .iter()
        .zip(seen)
        .position(|(expected, seen)| expected != seen);
    let around = displaced.map(|at| &seen[at.saturating_sub(2)..(at + 6).min(MANY)]);
    assert_eq!(around, None, "the first request out of order, and its neighbours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_calls_in_flight_start_in_the_order_in_which_they_were_made() {
    let service = MapService::default();
    let server = start_kv(service.clone(), for_many()).await;
    let connection = connect_for_many(&server.addr(), MANY).await;
    let keys = numbered_keys();
    let calls = join_all(
        keys.iter()
            .map(|key| connection.client().get(soon(), key.clone(), Consistency::Stale)),
    );
    let release = async {
        until("all handlers have started", || service.started_count() == MANY).await;
        assert!(
            service.passed.lock().unwrap().is_empty(),
            "all are in flight at once"
        );
        service.gate.add_permits(MANY);
    };
    let (answers, ()) = tokio::join!(calls, release);
    assert!(answers.into_iter().all(|answer| answer.unwrap().is_ok()));
    assert_in_order(&service.started.lock().unwrap());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn handlers_whose_first_act_is_to_await_a_free_resource_get_it_in_order() {
    let service = MapService::default();
    service.gate.add_permits(MANY);
    let server = start_kv(service.clone(), for_many()).await;
    let connection = connect_for_many(&server.addr(), MANY).await;
    let keys = numbered_keys();
    let calls = keys
        .iter()
        .map(|key| connection.client().get(soon(), key.clone(), Consistency::Stale));
    assert!(
        join_all(calls)
            .await
            .into_iter()
            .all(|answer| answer.unwrap().is_ok())
    );
    assert_in_order(&service.passed.lock().unwrap());
    server.stop().await;
}

/// A full queue hands its next place to a caller that waits. Another caller that comes by before that one
/// runs must not find a place of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_wait_for_a_place_in_the_queue_keep_their_order() {
    for request_queue in [1, 2, 7, 100, 4_096] {
        let service = MapService::default();
        service.gate.add_permits(MANY);
        let server = start_kv(service.clone(), for_many()).await;
        let connection = connect_for_many(&server.addr(), request_queue).await;
        let keys = numbered_keys();
        let calls = keys
            .iter()
            .map(|key| connection.client().get(soon(), key.clone(), Consistency::Stale));
        assert!(
            join_all(calls)
                .await
                .into_iter()
                .all(|answer| answer.unwrap().is_ok())
        );
        assert_in_order(&service.started.lock().unwrap());
        server.stop().await;
    }
}

#[tokio::test]
async fn a_frame_may_carry_any_timeout_and_the_server_serves_on() {
    let service = MapService::default();
    let server = start_kv(service.clone(), ServerLimits::default()).await;
    let mut stream = greeted(&server).await;
    for (id, timeout_ms) in [(0, 0), (u64::MAX, u32::MAX), (2, 1), (3, 0)] {
        stream
            .write_all(&get_frame(id, timeout_ms, "!wait"))
            .await
            .unwrap();
    }
    stream
        .write_all(&frame(&WireRequest::<()>::Cancel { id: u64::MAX }))
        .await
        .unwrap();
    stream
        .write_all(&frame(&WireRequest::<()>::Cancel { id: 77 }))
        .await
        .unwrap();
    stream.write_all(&get_frame(4, 30_000, "key")).await.unwrap();
    assert!(matches!(
        read_response(&mut stream).await,
        WireResponse::Answer { id: 4, .. }
    ));
    connect(&server)
        .await
        .client()
        .status(soon())
        .await
        .unwrap()
        .unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_caller_may_set_any_deadline_and_the_connection_lives_on() {
    let service = MapService::default();
    let server = start_kv(service.clone(), ServerLimits::default()).await;
    let connection = connect(&server).await;
    let mut three_years = soon();
    three_years.deadline = Instant::now() + Duration::from_secs(3 * 365 * 24 * 3600);
    let mut past = soon();
    past.deadline = Instant::now();
    let key = Bytes::from_static(b"key");
    for context in [
        three_years,
        rpc::context(Duration::MAX),
        rpc::context(Duration::from_secs(u64::MAX)),
    ] {
        connection
            .client()
            .get(context, key.clone(), Consistency::Stale)
            .await
            .unwrap()
            .unwrap();
    }
    let blocked = Bytes::from_static(b"!wait");
    for context in [
        past,
        rpc::context(Duration::ZERO),
        rpc::context(Duration::from_millis(30)),
    ] {
        let error = connection
            .client()
            .get(context, blocked.clone(), Consistency::Stale)
            .await
            .unwrap_err();
        assert!(matches!(error, RpcError::DeadlineExceeded), "{error}");
    }
    assert!(!connection.is_closed());
    connection.client().status(soon()).await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_call_that_waits_behind_the_cap_ends_at_its_deadline() {
    let service = MapService::default();
    let server = start_kv(service.clone(), ServerLimits::default()).await;
    let options = ConnectOptions {
        max_requests_in_flight: 1,
        request_queue: 1,
        ..ConnectOptions::default()
    };
    let connection = connect_kv(&server.addr(), &options).await.unwrap();
    let key = Bytes::from_static(b"!wait");
    let first = connection.client().get(soon(), key.clone(), Consistency::Stale);
    let rest = async {
        until("the first call has started", || service.started_count() == 1).await;
        let short = || rpc::context(Duration::from_millis(20));
        let calls = (0..5).map(|_| connection.client().get(short(), key.clone(), Consistency::Stale));
        for answer in timeout(PATIENCE / 2, join_all(calls))
            .await
            .expect("a call outlived its deadline")
        {
            assert!(matches!(answer.unwrap_err(), RpcError::DeadlineExceeded));
        }
        service.gate.add_permits(1);
    };
    let (first, ()) = tokio::join!(first, rest);
    first.unwrap().unwrap();
    assert_eq!(service.started_count(), 1, "what nobody waits for is not sent");
    server.stop().await;
}

#[tokio::test]
async fn a_request_over_the_frame_limit_fails_alone() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let connection = connect(&server).await;
    let huge = Bytes::from(vec![0; rpc::limits::MAX_FRAME_BYTES]);
    let error = connection
        .client()
        .put(soon(), write_id(1), Bytes::from_static(b"k"), huge)
        .await
        .unwrap_err();
    assert!(matches!(error, RpcError::Send(_)), "{error}");
    connection.client().status(soon()).await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_answer_over_the_frame_limit_is_an_error_and_the_connection_lives_on() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let connection = connect(&server).await;
    let key = Bytes::from_static(b"!huge");
    match connection
        .client()
        .get(soon(), key, Consistency::Stale)
        .await
        .unwrap_err()
    {
        RpcError::Server(error) => assert_eq!(error.kind, std::io::ErrorKind::FileTooLarge),
        other => panic!("{other}"),
    }
    connection.client().status(soon()).await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_its_connection_and_no_other() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let (unlucky, bystander) = (connect(&server).await, connect(&server).await);
    let key = Bytes::from_static(b"!panic");
    let error = unlucky
        .client()
        .get(soon(), key, Consistency::Stale)
        .await
        .unwrap_err();
    assert!(rpc::is_disconnect(&error), "{error}");
    timeout(PATIENCE, unlucky.closed()).await.unwrap();
    bystander.client().status(soon()).await.unwrap().unwrap();
    connect(&server)
        .await
        .client()
        .status(soon())
        .await
        .unwrap()
        .unwrap();
    server.stop().await;
}

/// A server that welcomes one caller and sends `response` for the first request, whatever it is.
async fn server_that_answers(response: WireResponse<KvResponse>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        Hello::read(&mut stream).await.unwrap();
        let server = ServerInfo {
            cluster_id: "fake".into(),
            node_id: raft_core::NodeId(1),
        };
        Reply {
            version: rpc::hello::PROTOCOL_VERSION,
            server,
            refusal: None,
        }
        .write(&mut stream)
        .await
        .unwrap();
        stream.read_u32().await.unwrap();
        stream.write_all(&frame(&response)).await.unwrap();
        std::future::pending::<()>().await;
    });
    addr
}

#[tokio::test]
async fn an_answer_to_another_method_is_an_error_and_no_panic() {
    let addr = server_that_answers(WireResponse::Answer {
        id: 0,
        message: KvResponse::Delete(Ok(true)),
    })
    .await;
    let connection = connect_kv(&addr, &ConnectOptions::default()).await.unwrap();
    match connection.client().open_session(soon()).await.unwrap_err() {
        RpcError::Server(error) => assert!(error.detail.contains("Delete"), "{error}"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_failure_from_the_server_reaches_the_caller_with_its_reason() {
    let failure = WireResponse::Failure {
        id: 0,
        reason: FailureReason::Busy,
        detail: "full".into(),
    };
    let addr = server_that_answers(failure).await;
    let connection = connect_kv(&addr, &ConnectOptions::default()).await.unwrap();
    match connection.client().open_session(soon()).await.unwrap_err() {
        RpcError::Server(error) => {
            assert_eq!(
                (error.kind, error.detail.as_str()),
                (std::io::ErrorKind::WouldBlock, "full")
            );
        }
        other => panic!("{other}"),
    }
}

//! Stopping a server.

use std::time::Duration;

use crate::common::{
    MapService, PATIENCE, connect, get_frame, greeted, read_response, soon, start_kv, until,
};
use bytes::Bytes;
use rpc::client::Consistency;
use rpc::framing::WireResponse;
use rpc::{ConnectError, ConnectOptions, ServerLimits, connect_kv};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn requests_in_flight_are_answered_and_new_callers_are_not_taken() {
    let service = MapService::default();
    let limits = ServerLimits {
        shutdown_grace: PATIENCE,
        ..ServerLimits::default()
    };
    let mut server = start_kv(service.clone(), limits).await;
    let addr = server.addr();
    let connection = connect(&server).await;
    let idle = connect(&server).await;
    let call = connection
        .client()
        .get(soon(), Bytes::from_static(b"!wait"), Consistency::Stale);
    let stop = async {
        until("the call has started", || service.started_count() == 1).await;
        server.begin_shutdown();
        idle.closed().await;
        let refused = connect_kv(&addr, &ConnectOptions::default()).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
        assert!(!server.task.is_finished());
        service.gate.add_permits(1);
    };
    let (answer, ()) = tokio::join!(call, stop);
    answer.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn answers_arrive_although_the_caller_keeps_sending() {
    let service = MapService::default();
    let mut server = start_kv(service.clone(), ServerLimits::default()).await;
    let mut stream = greeted(&server).await;
    stream.write_all(&get_frame(1, 30_000, "!wait")).await.unwrap();
    until("the call has started", || service.started_count() == 1).await;
    server.begin_shutdown();
    // Not read any more by the server: closing over it would reset the connection and lose the answer.
    let late = get_frame(2, 30_000, "late");
    for _ in 0..100 {
        stream.write_all(&late).await.unwrap();
    }
    service.gate.add_permits(1);
    assert!(matches!(
        read_response(&mut stream).await,
        WireResponse::Answer { id: 1, .. }
    ));
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_does_not_end_delays_the_stop_by_the_grace_and_no_longer() {
    let service = MapService::default();
    let limits = ServerLimits {
        shutdown_grace: Duration::from_millis(50),
        ..ServerLimits::default()
    };
    let server = start_kv(service.clone(), limits).await;
    let connection = connect(&server).await;
    let call = connection
        .client()
        .get(soon(), Bytes::from_static(b"!wait"), Consistency::Stale);
    let stop = async {
        until("the call has started", || service.started_count() == 1).await;
        server.stop().await;
    };
    let (answer, ()) = tokio::join!(call, stop);
    assert!(rpc::is_disconnect(&answer.unwrap_err()));
}

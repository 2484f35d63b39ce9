//! What the buffers of a transport cost.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tarpc::{ClientMessage, Request};
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::framing::{CallerFraming, ServerFraming};
use crate::limits::MAX_FRAME_BYTES;

type Server = Transport<DuplexStream, ServerFraming<Vec<u8>, Vec<u8>>>;
type Caller = Transport<DuplexStream, CallerFraming<Vec<u8>, Vec<u8>>>;

fn pair() -> (Caller, Server) {
    let (near, far) = duplex(16 << 10);
    (
        Transport::new(near, CallerFraming::default()),
        Transport::new(far, ServerFraming::default()),
    )
}

fn request(id: u64, len_bytes: usize) -> ClientMessage<Vec<u8>> {
    let context = crate::connect::context(Duration::from_secs(1));
    ClientMessage::Request(Request {
        context,
        id,
        message: vec![7; len_bytes],
    })
}

#[tokio::test]
async fn an_announced_length_costs_nothing_until_its_bytes_arrive() {
    let (mut caller, mut server) = pair();
    let header = u32::try_from(MAX_FRAME_BYTES).unwrap().to_be_bytes();
    caller.io.write_all(&header).await.unwrap();
    caller.io.write_all(&[0; 100]).await.unwrap();
    assert!(futures_util::poll!(server.next()).is_pending());
    assert_eq!(server.received.len(), 104);
    assert!(
        server.received.capacity() <= 2 * READ_CHUNK_BYTES,
        "{}",
        server.received.capacity()
    );
}

#[tokio::test]
async fn the_memory_of_a_long_frame_is_given_back() {
    let (mut caller, mut server) = pair();
    let (sent, received) = tokio::join!(caller.send(request(1, 1 << 20)), server.next());
    sent.unwrap();
    received.unwrap().unwrap();
    assert!(
        caller.unsent.capacity() <= KEPT_BUFFER_BYTES,
        "{}",
        caller.unsent.capacity()
    );
    assert!(
        server.received.capacity() <= KEPT_BUFFER_BYTES,
        "{}",
        server.received.capacity()
    );
}

#[tokio::test]
async fn frames_are_gathered_up_to_the_backpressure_boundary() {
    let (mut caller, _server) = pair();
    let mut fed = 0;
    while futures_util::poll!(caller.feed(request(fed, 1_000))).is_ready() {
        fed += 1;
    }
    assert_eq!(caller.sent_bytes(), 16 << 10, "what the stream between takes");
    assert!(
        caller.unsent.len() > BACKPRESSURE_BYTES,
        "{}",
        caller.unsent.len()
    );
    assert!(
        caller.unsent.len() < BACKPRESSURE_BYTES + 2_000,
        "{}",
        caller.unsent.len()
    );
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_is_an_error_and_between_frames_it_is_not() {
    let (mut caller, mut server) = pair();
    caller.send(request(1, 10)).await.unwrap();
    drop(caller);
    assert!(server.next().await.unwrap().is_ok());
    assert!(server.next().await.is_none());

    let (mut caller, mut server) = pair();
    caller.io.write_all(&[0, 0]).await.unwrap();
    drop(caller);
    let error = server.next().await.unwrap().unwrap_err();
    assert!(matches!(error, FrameError::Truncated), "{error}");
}

#[tokio::test]
async fn a_deadline_travels_rounded_up_and_cut() {
    let (mut caller, mut server) = pair();
    let mut far = request(1, 0);
    if let ClientMessage::Request(request) = &mut far {
        request.context.deadline = std::time::Instant::now() + Duration::from_secs(1_000_000);
    }
    caller.send(far).await.unwrap();
    let Some(Ok(ClientMessage::Request(received))) = server.next().await else {
        panic!("no request came")
    };
    let remaining = received.context.deadline - std::time::Instant::now();
    assert!(remaining <= crate::limits::MAX_DEADLINE, "{remaining:?}");
    assert!(remaining > crate::limits::MAX_DEADLINE / 2, "{remaining:?}");
}

//! One connection over an in-memory stream, on a clock that stands still unless all tasks wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::codec;
use crate::framing::{WireRequest, WireResponse};
use crate::limits::MAX_FRAME_BYTES;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> ServerLimits {
    ServerLimits {
        idle_timeout: Some(300 * SECOND),
        frame_timeout: 10 * SECOND,
        write_stall_timeout: 20 * SECOND,
        ..ServerLimits::default()
    }
}

struct Served {
    stream: DuplexStream,
    /// The requests that have started.
    started: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Each request waits for a permit and is answered with itself.
    gate: Arc<Semaphore>,
    /// How many handlers exist.
    running: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<Result<Ending, Failure>>,
}

/// Counts down when a handler ends, however it ends.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve_with(limits: ServerLimits, permits: usize) -> Served {
    let (stream, io) = duplex(64 << 10);
    let started = Arc::<Mutex<Vec<_>>>::default();
    let gate = Arc::new(Semaphore::new(permits));
    let running = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let task = {
        let (started, gate, running, stop) = (started.clone(), gate.clone(), running.clone(), stop.clone());
        tokio::spawn(async move {
            let handler = move |_, request: Vec<u8>| {
                let (started, gate, running) = (started.clone(), gate.clone(), running.clone());
                async move {
                    started.lock().unwrap().push(request.clone());
                    running.fetch_add(1, Ordering::SeqCst);
                    let _running = Running(running);
                    gate.acquire().await.unwrap().forget();
                    Ok(request)
                }
            };
            serve(io, handler, &limits, stop).await
        })
    };
    Served {
        stream,
        started,
        gate,
        running,
        stop,
        task,
    }
}

fn frame(id: u64, timeout: Duration, message: &[u8]) -> Vec<u8> {
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap();
    let request = WireRequest::Request {
        id,
        timeout_ms,
        message: message.to_vec(),
    };
    let body = codec::encode(&request, MAX_FRAME_BYTES).unwrap();
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), &body[..]].concat()
}

impl Served {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn answer(&mut self) -> (u64, Vec<u8>) {
        let len = self.stream.read_u32().await.unwrap();
        let mut body = vec![0; len as usize];
        self.stream.read_exact(&mut body).await.unwrap();
        match codec::decode(&body, MAX_FRAME_BYTES).unwrap() {
            WireResponse::Answer { id, message } => (id, message),
            failure => panic!("{failure:?}"),
        }
    }

    fn started(&self) -> usize {
        self.started.lock().unwrap().len()
    }

    /// Ends when the connection does. On the paused clock the time it took is exact.
    async fn ending(self) -> (Ending, Duration) {
        let begin = Instant::now();
        let Self { task, stream, .. } = self;
        let ending = timeout(1_000_000 * SECOND, task)
            .await
            .expect("the connection never ends");
        let ending = ending.unwrap().unwrap();
        drop(stream);
        (ending, begin.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_is_closed_after_the_idle_timeout() {
    let served = serve_with(limits(), 1);
    assert_eq!(
        served.ending().await,
        (Ending::Neglected(Neglect::Request), 300 * SECOND)
    );
}

#[tokio::test(start_paused = true)]
async fn each_request_starts_the_idle_timeout_anew() {
    let mut served = serve_with(limits(), 10);
    for id in 0..3 {
        sleep(299 * SECOND).await;
        served.send(&frame(id, SECOND, b"hello")).await;
        assert_eq!(served.answer().await, (id, b"hello".to_vec()));
    }
    assert_eq!(
        served.ending().await,
        (Ending::Neglected(Neglect::Request), 300 * SECOND)
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_a_request_in_flight_is_not_idle() {
    let mut served = serve_with(
        ServerLimits {
            idle_timeout: Some(5 * SECOND),
            ..limits()
        },
        0,
    );
    served.send(&frame(1, 60 * SECOND, b"slow")).await;
    sleep(30 * SECOND).await;
    served.gate.add_permits(1);
    assert_eq!(served.answer().await.0, 1);
    assert_eq!(
        served.ending().await,
        (Ending::Neglected(Neglect::Request), 5 * SECOND)
    );
}

#[tokio::test(start_paused = true)]
async fn without_an_idle_timeout_a_connection_stays() {
    let mut served = serve_with(
        ServerLimits {
            idle_timeout: None,
            ..limits()
        },
        1,
    );
    sleep(1_000_000 * SECOND).await;
    served.send(&frame(1, SECOND, b"still here")).await;
    assert_eq!(served.answer().await.0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_trickles_in_is_given_up_after_the_frame_timeout() {
    let mut served = serve_with(limits(), 1);
    let bytes = frame(1, SECOND, b"a request that takes its time");
    let begin = Instant::now();
    for byte in bytes {
        if served.stream.write_all(&[byte]).await.is_err() {
            break;
        }
        sleep(SECOND).await;
    }
    let (ending, _) = served.ending().await;
    assert_eq!(ending, Ending::Neglected(Neglect::Frame));
    assert!(begin.elapsed() <= 12 * SECOND, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_arrives_in_time_is_served_and_the_next_has_its_own_time() {
    let mut served = serve_with(limits(), 10);
    for id in 0..4 {
        let bytes = frame(id, SECOND, b"in two parts");
        served.send(&bytes[..3]).await;
        sleep(9 * SECOND).await;
        served.send(&bytes[3..]).await;
        assert_eq!(served.answer().await.0, id);
    }
}

#[tokio::test(start_paused = true)]
async fn time_in_which_the_server_does_not_read_is_not_held_against_a_frame() {
    let mut served = serve_with(
        ServerLimits {
            max_requests_in_flight: 1,
            ..limits()
        },
        0,
    );
    let second = frame(2, 60 * SECOND, b"second");
    served.send(&frame(1, 60 * SECOND, b"first")).await;
    served.send(&second[..5]).await;
    sleep(30 * SECOND).await;
    served.gate.add_permits(2);
    assert_eq!(served.answer().await.0, 1);
    sleep(5 * SECOND).await;
    served.send(&second[5..]).await;
    assert_eq!(served.answer().await.0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_takes_no_answers_is_closed_after_the_write_stall_timeout() {
    let mut served = serve_with(limits(), 1_000);
    let request = frame(1, 60 * SECOND, &vec![1; 60 << 10]);
    served.send(&request).await;
    served.send(&frame(2, 60 * SECOND, &vec![1; 60 << 10])).await;
    let (ending, took) = served.ending().await;
    assert_eq!(ending, Ending::Neglected(Neglect::Answers));
    assert_eq!(took, 20 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_takes_its_answers_slowly_is_served() {
    let mut served = serve_with(limits(), 1_000);
    for id in 0..3 {
        served.send(&frame(id, 60 * SECOND, &vec![1; 60 << 10])).await;
    }
    for id in 0..3 {
        sleep(15 * SECOND).await;
        assert_eq!(served.answer().await.0, id);
    }
}

#[tokio::test(start_paused = true)]
async fn while_answers_are_not_taken_no_more_of_them_pile_up() {
    let mut served = serve_with(limits(), 1_000);
    let (mut answers, mut requests) = tokio::io::split(served.stream);
    let sending = tokio::spawn(async move {
        for id in 0..100 {
            requests
                .write_all(&frame(id, 60 * SECOND, &vec![1; 60 << 10]))
                .await
                .unwrap();
        }
        requests
    });
    sleep(SECOND).await;
    let begun = served.started.lock().unwrap().len();
    assert!(
        begun < 20,
        "{begun} answers of 60 KiB were made for a caller that takes none"
    );
    let mut bytes = vec![0; 100 * ((60 << 10) + 4)];
    answers.read_exact(&mut bytes).await.unwrap();
    assert_eq!(
        served.started.lock().unwrap().len(),
        100,
        "the rest is served once there is room"
    );
    served.stream = answers.unsplit(sending.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_run_than_allowed_and_the_rest_wait_their_turn_in_order() {
    let mut served = serve_with(
        ServerLimits {
            max_requests_in_flight: 3,
            ..limits()
        },
        0,
    );
    let messages: Vec<Vec<u8>> = (0..10).map(|number| vec![number]).collect();
    for (id, message) in (0..).zip(&messages) {
        served.send(&frame(id, 60 * SECOND, message)).await;
    }
    for answered in 0..10 {
        sleep(SECOND).await;
        assert_eq!(served.started(), (answered + 3).min(10));
        served.gate.add_permits(1);
        served.answer().await;
    }
    assert_eq!(*served.started.lock().unwrap(), messages);
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_the_requests_in_flight_are_capped_but_one_is_always_let_in() {
    let mut served = serve_with(
        ServerLimits {
            max_request_bytes_in_flight: 1_000,
            ..limits()
        },
        0,
    );
    for (id, len_bytes) in [(0, 5_000), (1, 600), (2, 600), (3, 600)] {
        served.send(&frame(id, 60 * SECOND, &vec![0; len_bytes])).await;
    }
    for (answered, started) in [(0, 1), (1, 3), (2, 4)] {
        sleep(SECOND).await;
        assert_eq!(served.started(), started, "after {answered} answers");
        served.gate.add_permits(1);
        served.answer().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_deadline_passes_frees_its_place() {
    let mut served = serve_with(
        ServerLimits {
            max_requests_in_flight: 2,
            ..limits()
        },
        0,
    );
    served.send(&frame(1, SECOND, b"short")).await;
    served.send(&frame(2, 2 * SECOND, b"short")).await;
    served.send(&frame(3, 30 * SECOND, b"long")).await;
    // tarpc measures deadlines on the real clock and sleeps on tokio's, which is faster here.
    sleep(5 * SECOND).await;
    assert_eq!(served.started(), 3);
    assert_eq!(
        served.running.load(Ordering::SeqCst),
        1,
        "handlers whose time is over are dropped"
    );
    served.gate.add_permits(1);
    assert_eq!(served.answer().await.0, 3);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_ends_without_an_answer() {
    let mut served = serve_with(limits(), 0);
    served.send(&frame(1, 60 * SECOND, b"first")).await;
    served.send(&frame(2, 60 * SECOND, b"second")).await;
    let cancel = codec::encode(&WireRequest::<Vec<u8>>::Cancel { id: 1 }, MAX_FRAME_BYTES).unwrap();
    served.send(&[&[0, 0, 0, 2], &cancel[..]].concat()).await;
    sleep(SECOND).await;
    assert_eq!(served.running.load(Ordering::SeqCst), 1);
    served.gate.add_permits(2);
    assert_eq!(served.answer().await.0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_requests_in_flight_finish_and_takes_no_more() {
    let mut served = serve_with(limits(), 0);
    served.send(&frame(1, 60 * SECOND, b"in flight")).await;
    sleep(SECOND).await;
    served.stop.cancel();
    sleep(SECOND).await;
    served.send(&frame(2, 60 * SECOND, b"late")).await;
    sleep(SECOND).await;
    assert!(!served.task.is_finished());
    served.gate.add_permits(2);
    assert_eq!(served.answer().await.0, 1);
    assert_eq!(served.started(), 1);
    // On a socket, closing over bytes that nobody read would reset the connection under the answer.
    served
        .stream
        .write_all(b"more")
        .await
        .expect("the server still listens for the caller to close");
    assert_eq!(served.ending().await.0, Ending::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_frame_begun_before_a_stop_does_not_cost_the_requests_in_flight_their_answers() {
    let mut served = serve_with(limits(), 0);
    served.send(&frame(1, 60 * SECOND, b"in flight")).await;
    served.send(&frame(2, 60 * SECOND, b"begun")[..5]).await;
    sleep(SECOND).await;
    served.stop.cancel();
    sleep(30 * SECOND).await;
    served.gate.add_permits(1);
    assert_eq!(served.answer().await.0, 1);
    assert_eq!(served.ending().await.0, Ending::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_only_ends_its_sending_half_gets_its_answers() {
    let mut served = serve_with(limits(), 0);
    served.send(&frame(1, 60 * SECOND, b"last words")).await;
    served.stream.shutdown().await.unwrap();
    sleep(SECOND).await;
    served.gate.add_permits(1);
    assert_eq!(served.answer().await.0, 1);
    assert_eq!(served.ending().await.0, Ending::CallerLeft);
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_lets_other_tasks_run() {
    let served = serve_with(limits(), Semaphore::MAX_PERMITS);
    let (mut answers, mut requests) = tokio::io::split(served.stream);
    tokio::spawn(async move {
        loop {
            let _ = requests.write_all(&frame(1, SECOND, b"again")).await;
        }
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while answers.read(&mut buffer).await.unwrap() > 0 {}
    });
    let turns = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    turns.await;
}

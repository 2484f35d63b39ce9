//! Connections that do not behave, by the hundred, beside one that does.

use std::time::Duration;

use crate::common::{
    MapService, PATIENCE, Running, begun, closed, connect, frame, get_frame, greeted, soon, start_kv,
    write_id,
};
use bytes::Bytes;
use rpc::framing::WireRequest;
use rpc::limits::MAX_FRAME_BYTES;
use rpc::{KvConnection, ServerLimits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

const CROWD: usize = 200;

async fn served_on(server: &Running, old: &KvConnection) {
    let new = connect(server).await;
    for (sequence, connection) in [(1, old), (2, &new)] {
        let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
        let put = connection.client().put(soon(), write_id(sequence), key, value);
        timeout(PATIENCE, put).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn callers_that_send_nothing_or_half_a_hello_do_not_keep_others_out() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let well_behaved = connect(&server).await;
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(&begun(b"KVRH", b"\x02\xff")).await.unwrap();
        }
        crowd.push(stream);
    }
    served_on(&server, &well_behaved).await;
    server.stop().await;
}

#[tokio::test]
async fn garbage_closes_its_own_connection_only() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let well_behaved = connect(&server).await;
    let hellos = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        begun(b"KVRA", b""),
        vec![0; 64],
        vec![0xff; 64],
        begun(b"KVRH", b"\x09\x00\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ];
    for number in 0..CROWD {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(&hellos[number % hellos.len()]).await.unwrap();
        closed(stream).await;
    }
    served_on(&server, &well_behaved).await;
    server.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_no_request_closes_its_own_connection_only() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let well_behaved = connect(&server).await;
    let oversize = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_be_bytes();
    let trailing = {
        let mut bytes = get_frame(1, 1000, "key");
        bytes.push(0);
        let len = u32::try_from(bytes.len() - 4).unwrap();
        bytes[..4].copy_from_slice(&len.to_be_bytes());
        bytes
    };
    // Request, id 1, 1,000 ms, method Get, then a key that claims to be 2^64 - 1 bytes long.
    let body = [&[0, 1, 251, 0xe8, 0x03, 4, 253][..], &[0xff; 8]].concat();
    let claims_too_much = [&u32::try_from(body.len()).unwrap().to_be_bytes(), &body[..]].concat();
    let frames: [&[u8]; 6] = [
        &oversize,
        &[0xff; 4],
        &[0; 4],
        &[0, 0, 0, 1, 9],
        &trailing,
        &claims_too_much,
    ];
    for number in 0..CROWD {
        let mut stream = greeted(&server).await;
        stream.write_all(frames[number % frames.len()]).await.unwrap();
        closed(stream).await;
    }
    served_on(&server, &well_behaved).await;
    server.stop().await;
}

#[tokio::test]
async fn half_frames_are_given_up_and_do_not_disturb_others() {
    let limits = ServerLimits {
        frame_timeout: Duration::from_millis(200),
        ..ServerLimits::default()
    };
    let server = start_kv(MapService::default(), limits).await;
    let well_behaved = connect(&server).await;
    let longest = u32::try_from(MAX_FRAME_BYTES).unwrap().to_be_bytes();
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        let mut stream = greeted(&server).await;
        let half: &[u8] = if number % 2 == 0 { &longest[..2] } else { &longest };
        stream.write_all(half).await.unwrap();
        crowd.push(stream);
    }
    served_on(&server, &well_behaved).await;
    for stream in crowd {
        closed(stream).await;
    }
    served_on(&server, &well_behaved).await;
    server.stop().await;
}

#[tokio::test]
async fn callers_that_vanish_within_a_frame_or_with_requests_in_flight_leave_nothing_behind() {
    let limits = ServerLimits {
        max_connections: 4,
        ..ServerLimits::default()
    };
    let server = start_kv(MapService::default(), limits).await;
    let well_behaved = connect(&server).await;
    for number in 0..CROWD {
        // Above the cap unless the earlier ones are gone.
        let connecting = async {
            loop {
                let mut stream = TcpStream::connect(server.addr).await.unwrap();
                rpc::hello::Hello::Client {
                    expected_cluster_id: None,
                }
                .write(&mut stream)
                .await
                .unwrap();
                if rpc::hello::Reply::read(&mut stream)
                    .await
                    .unwrap()
                    .refusal
                    .is_none()
                {
                    return stream;
                }
            }
        };
        let mut stream = timeout(PATIENCE, connecting)
            .await
            .expect("vanished callers still count");
        let request = get_frame(1, 20, "!wait");
        let sent = if number % 2 == 0 {
            &request[..7]
        } else {
            &request[..]
        };
        stream.write_all(sent).await.unwrap();
    }
    drop(well_behaved);
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_cancellations_and_repeated_ids_does_no_harm() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let well_behaved = connect(&server).await;
    let mut stream = greeted(&server).await;
    let mut flood = Vec::new();
    for id in 0..20_000 {
        flood.extend(frame(&WireRequest::<()>::Cancel { id }));
        flood.extend(get_frame(7, 1_000, "!wait"));
    }
    stream.write_all(&flood).await.unwrap();
    served_on(&server, &well_behaved).await;
    server.stop().await;
}

/// Runs itself again under a limit of open files, and there fills the process up.
#[cfg(unix)]
#[test]
fn running_out_of_file_descriptors_does_not_end_the_server() {
    const INSIDE: &str = "RPC_TEST_FEW_FILES";
    if std::env::var_os(INSIDE).is_some() {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(fill_up());
        return;
    }
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg("hostile::running_out_of_file_descriptors_does_not_end_the_server")
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[cfg(unix)]
async fn fill_up() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let well_behaved = connect(&server).await;
    // The kernel completes these before the server, which shares this thread, gets to accept any.
    let mut crowd = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect(server.addr) {
        crowd.push(stream);
    }
    assert!(crowd.len() > 10, "the limit is lower than the test needs");
    for _ in 0..20 {
        well_behaved.client().status(soon()).await.unwrap().unwrap();
    }
    drop(crowd);
    served_on(&server, &well_behaved).await;
    server.stop().await;
}

//! How many small calls one connection carries: `cargo run --release -p rpc --example throughput`.
//!
//! A server thread and a client thread, each with a runtime of one thread as in `kv-server`, and one
//! connection between them over loopback TCP. Each line keeps another number of calls in flight.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use raft_core::{LogIndex, NodeId, Term};
use rpc::client::{
    Consistency, Found, GetReply, Kv, KvError, ScanReply, ScanRequest, SessionId, StatusReply, WriteId,
};
use rpc::{ConnectOptions, Context, KvClient, ServerIdentity, ServerLimits, connect_kv, serve_kv};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

const RUN: Duration = Duration::from_secs(3);

/// Answers `get` with the key; the rest is not called.
#[derive(Clone)]
struct Echo;

impl Kv for Echo {
    async fn get(self, _: Context, key: Bytes, _: Consistency) -> Result<GetReply, KvError> {
        let found = Some(Found {
            value: key,
            version: LogIndex(1),
        });
        Ok(GetReply {
            found,
            applied_index: LogIndex(1),
            term: Term(1),
        })
    }

    async fn open_session(self, _: Context) -> Result<SessionId, KvError> {
        Err(KvError::ShuttingDown)
    }

    async fn put(self, _: Context, _: WriteId, _: Bytes, _: Bytes) -> Result<LogIndex, KvError> {
        Err(KvError::ShuttingDown)
    }

    async fn append(self, _: Context, _: WriteId, _: Bytes, _: Bytes) -> Result<LogIndex, KvError> {
        Err(KvError::ShuttingDown)
    }

    async fn delete(self, _: Context, _: WriteId, _: Bytes) -> Result<bool, KvError> {
        Err(KvError::ShuttingDown)
    }

    async fn scan(self, _: Context, _: ScanRequest) -> Result<ScanReply, KvError> {
        Err(KvError::ShuttingDown)
    }

    async fn status(self, _: Context) -> Result<StatusReply, KvError> {
        Err(KvError::ShuttingDown)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let server_runtime = one_thread()?;
    let listener = server_runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let addr = listener.local_addr()?.to_string();
    let identity = ServerIdentity::new("bench", NodeId(1), [NodeId(1)])?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = thread::spawn(move || {
        let stopped = async { drop(stopped.await) };
        server_runtime.block_on(serve_kv(
            listener,
            identity,
            ServerLimits::default(),
            Echo,
            stopped,
        ));
    });
    one_thread()?.block_on(measure(&addr))?;
    drop(stop);
    server.join().map_err(|_| "the server panicked")?;
    Ok(())
}

fn one_thread() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

async fn measure(addr: &str) -> Result<(), Box<dyn Error>> {
    let connection = connect_kv(addr, &ConnectOptions::default()).await?;
    for in_flight in [1, 16, 64, 256, 1024] {
        let (calls, elapsed) = keep_in_flight(connection.client(), in_flight).await?;
        println!(
            "{in_flight:>5} in flight: {:>9.0} calls/s",
            f64::from(calls) / elapsed.as_secs_f64()
        );
    }
    Ok(())
}

async fn keep_in_flight(client: &KvClient, in_flight: u32) -> Result<(u32, Duration), Box<dyn Error>> {
    let key = Bytes::from_static(b"a key of 20 bytes...");
    let call = || {
        client.get(
            rpc::context(Duration::from_secs(10)),
            key.clone(),
            Consistency::Linearizable,
        )
    };
    let begin = Instant::now();
    let mut calls: FuturesUnordered<_> = (0..in_flight).map(|_| call()).collect();
    let mut finished = 0;
    while let Some(answer) = calls.next().await {
        answer??;
        finished += 1;
        if begin.elapsed() < RUN {
            calls.push(call());
        }
    }
    Ok((finished, begin.elapsed()))
}

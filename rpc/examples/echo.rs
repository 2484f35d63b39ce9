//! A server that answers every call at once: what the transport alone costs.
//!
//! It speaks the client service ([`rpc::echo`]), so the same client can measure it that measures a cluster, and what
//! remains between the two is the cluster's own:
//!
//! ```sh
//! cargo run --release -p rpc --example echo -- 127.0.0.1:7990
//! clerk --endpoints 127.0.0.1:7990 bench --op get --clients 1                     # in another terminal
//! clerk bench --op get --clients 1 --consistency lease                           # a cluster with raft.lease_reads
//! ```
//!
//! It has one thread, as the part of a node that answers reads has, and ends with Ctrl-C or a signal. For what one
//! connection carries without `clerk` see the example `throughput`.

use std::env;
use std::error::Error;
use std::future::pending;

use rpc::echo::serve_echo;
use tokio::net::TcpListener;

const VALUE_BYTES: usize = 128;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let addr = env::args()
        .nth(1)
        .ok_or("usage: echo ADDRESS, such as 127.0.0.1:7990")?;
    let listener = TcpListener::bind(&addr).await?;
    println!("answers on {}", listener.local_addr()?);
    serve_echo(listener, VALUE_BYTES, pending()).await?;
    Ok(())
}

//! The first program for a new cluster: 500 times, put a number under one key and read it back.
//!
//! ```text
//! cargo run --example put_get_500 -- 127.0.0.1:7102 127.0.0.1:7112 127.0.0.1:7122
//! ```
//!
//! Without arguments the servers are those of `CLERK_ENDPOINTS`, or a local cluster's.

use std::time::Instant;

use clerk::Clerk;

const ROUNDS: u32 = 500;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clerk = Clerk::connect(endpoints()).await?;
    let began = Instant::now();
    for round in 0..ROUNDS {
        clerk.put("x", round.to_string()).await?;
        let value = clerk
            .get("x")
            .await?
            .ok_or("x is not there, though it was just put")?;
        println!("get x: {}", String::from_utf8_lossy(&value));
        if value != round.to_string() {
            return Err(format!("put {round}, got {value:?}").into());
        }
    }
    println!(
        "{ROUNDS} rounds in {:.2?}, every read saw the write before it",
        began.elapsed()
    );
    Ok(())
}

fn endpoints() -> Vec<String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.is_empty() {
        return arguments;
    }
    let endpoints = std::env::var("CLERK_ENDPOINTS");
    let endpoints = endpoints.unwrap_or_else(|_| "127.0.0.1:7102,127.0.0.1:7112,127.0.0.1:7122".into());
    endpoints.split(',').map(str::to_owned).collect()
}

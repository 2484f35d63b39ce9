//! A small app that embeds the clerk: a book of visits, shared by everyone who runs it.
//!
//! ```text
//! cargo run --example visits -- ada garden      # ada visits the garden
//! cargo run --example visits                    # who has been where
//! ```
//!
//! The servers are those of `CLERK_ENDPOINTS`, or a local cluster's.

use clerk::{Clerk, Error, Scan};

/// Who visited which place. Every visit is a line under the place's key.
struct VisitBook {
    clerk: Clerk,
}

impl VisitBook {
    /// Adds a visit. `append` needs no lock and no read before the write: two visitors at one moment are
    /// two lines, and a visit whose answer is lost and which is sent again is still one line.
    async fn visit(&self, visitor: &str, place: &str) -> Result<(), Error> {
        self.clerk
            .append(format!("visits/{place}"), format!("{visitor}\n"))
            .await?;
        Ok(())
    }

    /// Every place with its visitors, in order of their visits.
    async fn all(&self) -> Result<Vec<(String, Vec<String>)>, Error> {
        let places = self.clerk.scan_all(Scan::prefix("visits/")).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(places
            .iter()
            .map(|place| {
                (
                    text(&place.key["visits/".len()..]),
                    text(&place.value).lines().map(Into::into).collect(),
                )
            })
            .collect())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let endpoints = std::env::var("CLERK_ENDPOINTS");
    let endpoints = endpoints.unwrap_or_else(|_| "127.0.0.1:7102,127.0.0.1:7112,127.0.0.1:7122".into());
    let book = VisitBook {
        clerk: Clerk::connect(endpoints.split(',')).await?,
    };

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [visitor, place] = &arguments[..] {
        match book.visit(visitor, place).await {
            Ok(()) => println!("{visitor} was in the {place}"),
            Err(error) if error.is_without_effect() => println!("not written down, come again: {error}"),
            Err(error) => println!("perhaps written down, look before you repeat it: {error}"),
        }
    }
    for (place, visitors) in book.all().await? {
        println!(
            "{place}: {} visits, the last by {}",
            visitors.len(),
            visitors.last().map_or("nobody", |v| v)
        );
    }
    Ok(())
}

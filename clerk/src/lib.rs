//! The client of the replicated key-value store.
//!
//! ```no_run
//! use bytes::Bytes;
//! use clerk::Clerk;
//!
//! # async fn example() -> Result<(), clerk::Error> {
//! let clerk = Clerk::connect(["127.0.0.1:7102", "127.0.0.1:7112"]).await?;
//! clerk.put("k", "v").await?;
//! clerk.append("k", "w").await?;
//! let value: Option<Bytes> = clerk.get("k").await?;
//! assert_eq!(value.as_deref(), Some(&b"vw"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! A [`Clerk`] is given one or more servers of a cluster. It finds the rest and the leader by itself, follows
//! the leader when it changes, and retries until a call's timeout is up. It is cheap to clone, and any number
//! of calls may run at once. [`blocking::Clerk`] is the same for plain threads.
//!
//! # What a call promises
//!
//! Reads and writes are linearizable: a read sees every write that finished before it began. A write takes
//! effect at most once however often it is sent: all its attempts carry one *session* and *sequence number*
//! (Raft thesis §6.3), by which the servers recognise it. When a call does not succeed, the variant of its
//! [`Error`] says what is known:
//!
//! | variant | the call | again? |
//! |---|---|---|
//! | [`Error::InvalidArgument`] | had no effect | never succeeds as it is |
//! | [`Error::NotDone`] | had no effect and will have none | safe |
//! | [`Error::OutcomeUnknown`] | may have taken effect, or still may | look first, unless twice is as good as once |
//! | [`Error::SessionExpired`] | may have taken effect before the session ended | the same |
//!
//! A call whose future is dropped is like one that timed out. In either case the write takes effect before a write is
//! acknowledged that begins afterwards on the same clerk while no write from before it is in flight there, or never.
//!
//! ```
//! use clerk::{Clerk, Error};
//!
//! # async fn example(clerk: Clerk) {
//! match clerk.append("log", "entry\n").await {
//!     Ok(version) => println!("appended; the key is at version {version}"),
//!     Err(error) if error.is_without_effect() => println!("safe to try again: {error}"),
//!     Err(error) => println!("read the log before trying again: {error}"),
//! }
//! # }
//! // Limits are checked before anything is sent:
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! let clerk = Clerk::builder().endpoints(["127.0.0.1:7102"]).build()?;
//! let error = clerk.get("").await.unwrap_err();
//! assert_eq!(error.to_string(), "the key is empty: it must have 1 to 4096 bytes");
//! # Ok::<(), Error>(())
//! # }).unwrap();
//! ```
//!
//! # What it does not do
//!
//! It does not cache, batch calls into transactions, encrypt, or authenticate. A page of a scan is one point in
//! time; a scan of several pages is not. It does not survive its process: a write in flight when the process
//! dies is an unknown outcome to whoever comes next.
//!
//! # Inside
//!
//! The rules are plain structs without sockets and clocks: [`session`] numbers writes, [`retry`] decides what
//! follows a failed attempt. The default feature `cli` builds the `clerk` program; an application that embeds
//! the library turns it off (`default-features = false`) and compiles no command-line crates.
#![forbid(unsafe_code)]

mod arguments;
pub mod blocking;
mod builder;
mod clerk;
mod cluster;
mod connections;
mod directory;
#[cfg(feature = "load")]
pub mod load;
mod lock;
mod outcome;
pub mod retry;
mod scan;
pub mod session;
mod status;
mod writes;

pub use raft_core::{LogIndex, NodeId, Role, Term};
pub use rpc::client::{Consistency, Found, GetReply, KvError, Member, ScanItem, StatusReply};

pub use crate::builder::ClerkBuilder;
pub use crate::clerk::Clerk;
pub use crate::directory::ReadFrom;
pub use crate::outcome::{Error, InvalidArgument, Reason};
pub use crate::scan::{Page, Pages, Scan};
pub use crate::status::NodeStatus;

//! Looks at one node, and at that one only. (A `Clerk` asks whichever node answers best.)

use std::time::Duration;

use bytes::Bytes;
use rpc::client::{Consistency, ScanItem, ScanRequest, StatusReply};
use rpc::{ConnectOptions, KvConnection, connect_kv, context};
use tokio::time::timeout;

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(2);

/// What the node at `address` says of itself; `None` if it does not answer soon.
pub(crate) async fn status(address: &str) -> Option<StatusReply> {
    let look = async {
        let node = connect(address).await?;
        node.client().status(context(LIMIT)).await.ok()?.ok()
    };
    timeout(LIMIT, look).await.ok().flatten()
}

/// Whether the node at `address` answers, as the leader does, that `key` holds `value` (a linearizable read); `None`
/// if it gives no such answer.
pub(crate) async fn holds(address: &str, key: &str, value: &[u8]) -> Option<bool> {
    let node = connect(address).await?;
    let key = Bytes::copy_from_slice(key.as_bytes());
    let get = node.client().get(context(LIMIT), key, Consistency::Linearizable);
    let found = get.await.ok()?.ok()?.found;
    Some(found.is_some_and(|found| found.value == value))
}

/// All that one node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The node had applied the log up to here.
    pub(crate) applied_index: u64,
    /// What it holds, in order of keys.
    pub(crate) items: Vec<ScanItem>,
}

/// What the node at `address` has applied by itself, whoever leads; `None` if it does not answer soon, or
/// applied more while it was read.
pub(crate) async fn contents(address: &str) -> Option<Contents> {
    timeout(LIMIT, read_all(address)).await.ok().flatten()
}

async fn read_all(address: &str) -> Option<Contents> {
    let node = connect(address).await?;
    let mut contents: Option<Contents> = None;
    let mut from = Bytes::new();
    loop {
        let request = ScanRequest {
            from,
            limit: u32::MAX,
            consistency: Consistency::Stale,
            ..ScanRequest::default()
        };
        let page = node.client().scan(context(LIMIT), request).await.ok()?.ok()?;
        let applied_index = page.applied_index.0;
        let so_far = contents.get_or_insert(Contents {
            applied_index,
            items: Vec::new(),
        });
        if so_far.applied_index != applied_index {
            return None;
        }
        so_far.items.extend(page.items);
        match so_far.items.last() {
            Some(last) if page.more => from = just_behind(&last.key),
            _ => return contents,
        }
    }
}

async fn connect(address: &str) -> Option<KvConnection> {
    connect_kv(address, &ConnectOptions::default()).await.ok()
}

/// The lowest key above `key`.
fn just_behind(key: &Bytes) -> Bytes {
    [key, &[0][..]].concat().into()
}

//! Whether all nodes hold the same data.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::local::LocalCluster;
use crate::observe::{self, Contents};

/// How often the nodes are compared while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until every node has applied the log up to the same index and holds the same keys, values and versions.
///
/// # Errors
///
/// What the last difference was, after `limit`.
pub(crate) async fn wait(cluster: &LocalCluster, limit: Duration) -> Result<Contents, String> {
    let began = Instant::now();
    loop {
        let ids = cluster.ids();
        let looks = cluster
            .file()
            .nodes
            .iter()
            .map(|node| observe::contents(&node.client_addr));
        let nodes: Vec<_> = ids.into_iter().zip(join_all(looks).await).collect();
        match difference(&nodes) {
            Ok(agreed) => return Ok(agreed.clone()),
            Err(what) if began.elapsed() >= limit => return Err(what),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// What all hold, or how two of them differ.
fn difference(nodes: &[(u64, Option<Contents>)]) -> Result<&Contents, String> {
    let mut answers = Vec::new();
    for (id, contents) in nodes {
        let contents = contents
            .as_ref()
            .ok_or_else(|| format!("node {id} cannot be read as of one moment"))?;
        answers.push((*id, contents));
    }
    let &(first_id, first) = answers.first().ok_or("there are no nodes")?;
    for (id, contents) in answers {
        if contents.applied_index != first.applied_index {
            return Err(format!(
                "node {first_id} has applied the log up to {}, node {id} up to {}",
                first.applied_index, contents.applied_index
            ));
        }
        if contents.items != first.items {
            return Err(format!(
                "node {first_id} and node {id} differ at {}",
                first_difference(first, contents)
            ));
        }
    }
    Ok(first)
}

/// The first key that is not the same in both.
fn first_difference(one: &Contents, other: &Contents) -> String {
    let differing = one
        .items
        .iter()
        .zip(&other.items)
        .find(|(a, b)| a != b)
        .map(|(a, _)| a);
    let longer = if one.items.len() > other.items.len() {
        one
    } else {
        other
    };
    let beyond = longer.items.get(one.items.len().min(other.items.len()));
    let key = differing
        .or(beyond)
        .map(|item| String::from_utf8_lossy(&item.key).into_owned());
    format!("key {:?}", key.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rpc::client::ScanItem;

    use super::*;

    fn contents(applied_index: u64, pairs: &[(&'static str, &'static str)]) -> Option<Contents> {
        let item = |&(key, value): &(&'static str, &'static str)| ScanItem {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(value.as_bytes()),
            version: Default::default(),
        };
        Some(Contents {
            applied_index,
            items: pairs.iter().map(item).collect(),
        })
    }

    #[test]
    fn nodes_agree_only_when_all_answer_with_the_same_index_and_items() {
        let same = || contents(7, &[("a", "1"), ("b", "2")]);
        assert_eq!(
            difference(&[(1, same()), (2, same()), (3, same())]).unwrap(),
            &same().unwrap()
        );
        let cases = [
            (None, "node 2 cannot be read"),
            (contents(6, &[("a", "1"), ("b", "2")]), "up to 6"),
            (contents(7, &[("a", "1"), ("b", "x")]), "differ at key \"b\""),
            (contents(7, &[("a", "1")]), "differ at key \"b\""),
            (
                contents(7, &[("a", "1"), ("b", "2"), ("c", "3")]),
                "differ at key \"c\"",
            ),
        ];
        for (second, message) in cases {
            let told = difference(&[(1, same()), (2, second), (3, same())]).unwrap_err();
            assert!(told.contains(message), "{told}");
        }
    }
}

//! What is told when the cluster does not take this node, because its data is not what the cluster knows.

use std::path::PathBuf;

use raft_core::{NodeId, Refusal};
use thiserror::Error;

use crate::config::Config;
use crate::shutdown::StopSender;

/// Why the cluster does not take this node, and what to do: [`Refusal`] in the words of an operator.
#[derive(Clone, Debug, Error)]
#[error("{}", self.message())]
pub(crate) struct NotTaken {
    refusal: Refusal,
    id: NodeId,
    data_dir: PathBuf,
    /// The command by which the node joins anew.
    join: String,
}

/// Stops the server when the core says that it must not take part.
#[derive(Clone, Debug)]
pub(crate) struct RefusalReporter {
    id: NodeId,
    data_dir: PathBuf,
    /// The command by which the node joins anew.
    join: String,
    stop: StopSender,
}

impl RefusalReporter {
    /// Reports to `stop`, for the node of this configuration.
    #[must_use]
    pub(crate) fn new(config: &Config, stop: StopSender) -> Self {
        Self {
            id: config.id,
            data_dir: config.data_dir.clone(),
            join: config.join_command(),
            stop,
        }
    }

    /// The core refuses to take part.
    pub(crate) fn report(&self, refusal: Refusal) {
        self.stop.refused(NotTaken {
            refusal,
            id: self.id,
            data_dir: self.data_dir.clone(),
            join: self.join.clone(),
        });
    }
}

impl NotTaken {
    fn message(&self) -> String {
        let (id, dir) = (self.id, self.data_dir.display());
        let join = &self.join;
        match self.refusal {
            Refusal::OtherData { by, .. } => format!(
                "the data directory {dir} was emptied or replaced: node {by} knows node {id} by other data than \
                 this\nwhat node {id} promised the cluster with its lost data it must not promise anew, so it \
                 does not take part; it has acknowledged nothing since\nif the data is still somewhere, put it \
                 back. If it is lost, and a majority of the other nodes runs, let the node join with an empty \
                 directory:\n  {join}"
            ),
            Refusal::OlderCopy {
                by,
                acknowledged,
                last_log_index,
            } => format!(
                "the data directory {dir} is an older copy: node {id} has acknowledged the log up to entry \
                 {acknowledged} to node {by}, and here it ends at entry {last_log_index}\nwhat node {id} promised \
                 since then it would promise anew, so it does not take part; it has acknowledged nothing since\n\
                 if the newer data is still somewhere, put it back. If it is lost, empty the directory and let \
                 the node join:\n  {join}"
            ),
            Refusal::LacksCommitted {
                by,
                committed,
                last_log_index,
            } => format!(
                "node {by} knows log entry {committed} to be committed, and node {id}, which was elected leader, \
                 has the log up to entry {last_log_index}\na majority of the nodes runs on older copies of their \
                 data directories, {dir} among them, so writes that were acknowledged are missing here; node {id} \
                 stops before it overwrites them\nif the newer data is still somewhere, put it back. If it is \
                 lost, copy {dir} elsewhere first. {}. Where one is left, empty {dir} and let the node join:\n  {join}",
                without_majority()
            ),
            Refusal::TwoLeaders { by, term, other } => format!(
                "node {by} leads in term {term}, in which node {other} led, as the data in {dir} shows: a node runs on \
                 an older copy of its data directory, or on an empty one, and has voted twice: so writes that were acknowledged may be \
                 missing at node {by}\nnode {id} stops and leaves its data as it is\nif the newer data of that node is \
                 still somewhere, stop all nodes and put it back. If not, copy {dir} elsewhere, empty it and let node \
                 {id} follow node {by}:\n  {join}"
            ),
            Refusal::LedTwice { by, term } => format!(
                "term {term} was led twice, and node {by}, which leads, has other entries of it than node {id}: a node \
                 runs on an older copy of its data directory, from before it was elected or voted, so writes that were \
                 acknowledged may be missing at node {by}\nnode {id} stops and leaves its data, in {dir}, as it is\nif \
                 the newer data of that node is still somewhere, stop all nodes and put it back. If not, copy {dir} \
                 elsewhere, empty it and let node {id} follow node {by}:\n  {join}"
            ),
            Refusal::OtherHistory { by, index } => format!(
                "node {by} leads with another log entry {index} than the one that was committed and is in {dir}: a \
                 majority that elected it runs on older copies of data directories, so writes that were acknowledged \
                 are missing there\nnode {id} stops and leaves its data as it is\nif the newer data of those nodes is \
                 still somewhere, stop all nodes and put it back. If not, copy {dir} elsewhere first. {}. Where one is \
                 left, empty {dir} and let node {id} follow node {by}:\n  {join}",
                without_majority()
            ),
            Refusal::OtherCluster { by, founder } => format!(
                "node {by} leads another cluster than the one whose data is in {dir}: nodes with empty data \
                 directories were a majority and founded it anew (store {founder}), without this data\nthe two \
                 cannot be one again; node {id} stops and leaves its data as it is\nif this data is to be kept, \
                 copy {dir} elsewhere. To let the node join the new cluster, empty the directory and run:\n  {join}"
            ),
        }
    }
}

/// What to do when too many nodes have stopped. A node that joins is admitted by a majority with data, and only there;
/// and a stop is not kept: among nodes that are started as they are, Raft elects who has the most (§5.4.1).
fn without_majority() -> &'static str {
    "Where no majority of nodes with data is left after such stops, empty none, for none could join: start them all again \
     as they are, and the one copy that has the most leads"
}

#[cfg(test)]
mod tests {
    use raft_core::LogIndex;

    use super::*;

    #[test]
    fn a_node_is_emptied_only_after_it_was_copied_and_only_where_a_majority_is_left() {
        let (by, index) = (NodeId(2), LogIndex(7));
        let lacks = Refusal::LacksCommitted {
            by,
            committed: index,
            last_log_index: LogIndex(6),
        };
        for refusal in [lacks, Refusal::OtherHistory { by, index }] {
            let message = NotTaken {
                refusal,
                id: NodeId(1),
                data_dir: PathBuf::from("data/node-1"),
                join: "kv-server --join".to_owned(),
            }
            .to_string();
            let place = |what: &str| {
                message
                    .find(what)
                    .unwrap_or_else(|| panic!("{what:?}: {message}"))
            };
            let copied = place("copy data/node-1 elsewhere first");
            let not_emptied = place("no majority of nodes with data is left after such stops, empty none");
            assert!(copied < not_emptied, "{message}");
            assert!(not_emptied < place("empty data/node-1"), "{message}");
            assert!(message.ends_with("\n  kv-server --join"), "{message}");
        }
    }
}

//! What three whole nodes cost, with a network and disks in memory: `cargo bench -p kv-server --bench node`.
//!
//! One thread drives the plain structs that the actors are shells of: consensus, group commit, storage, the state
//! machine. Each iteration is one burst of puts, until all three nodes have applied it. What is left out is sockets,
//! encoding, threads and the disk; the rest of a real write's cost is theirs.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use kv_server::command::{Command, Operation};
use kv_server::driver::Driver;
use kv_server::group_commit::GroupCommit;
use kv_server::state_machine::StateMachine;
use raft_core::{Config, Configuration, Envelope, LogIndex, Node, NodeId, Role, Storage as _};
use rpc::client::{Sequence, SessionId, WriteId};
use storage::{Identity, MemoryDisk, MemoryStorage, SnapshotStore};

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 16, 256], sample_count = 50, sample_size = 2)]
fn put_on_three_nodes(bencher: Bencher<'_, '_>, burst: u64) {
    let mut cluster = Cluster::elected();
    let session = cluster.open_session();
    let mut sequence = 0;
    bencher.counter(ItemsCount::new(burst)).bench_local(|| {
        for _ in 0..burst {
            sequence += 1;
            cluster.propose(&put(session, sequence));
        }
        cluster.settle();
    });
    assert!(cluster.agrees());
}

fn put(session: SessionId, sequence: u64) -> Command {
    Command::Write {
        id: WriteId {
            session,
            sequence: Sequence(sequence),
            lowest_outstanding: Sequence(sequence),
        },
        op: Operation::Put {
            key: Bytes::from(format!("bench/{:09}", sequence.wrapping_mul(7_919) % 10_000)),
            value: vec![7; 128].into(),
        },
    }
}

/// One node: what the actors hold, without the actors.
struct Server {
    driver: Driver,
    commit: GroupCommit,
    storage: MemoryStorage,
    snapshots: Arc<dyn SnapshotStore>,
    state: StateMachine,
}

impl Server {
    fn new(id: u64) -> Self {
        let identity = Identity {
            cluster_id: "bench".to_owned(),
            node_id: NodeId(id),
        };
        let voters = Configuration::of_voters([1, 2, 3].map(NodeId));
        let mut storage =
            MemoryStorage::open(&MemoryDisk::new(), &identity, &voters).expect("the disk is empty");
        let restored = storage.restore().expect("the disk is empty");
        let node = Node::new(Config::new(NodeId(id)), restored).expect("the default settings make sense");
        Self {
            driver: Driver::new(node),
            commit: GroupCommit::default(),
            snapshots: storage.snapshots(),
            storage,
            state: StateMachine::new(),
        }
    }

    /// Does all that there is to do, but for the messages, which it gives.
    fn work(&mut self) -> Vec<Envelope> {
        let mut sent = Vec::new();
        while let Some(actions) = self.driver.poll() {
            sent.extend(actions.send);
            if let Some(job) = actions.persist {
                self.commit.push(job);
            }
            let committed = self.commit.commit(&mut self.storage, self.snapshots.as_ref());
            if let Some(committed) = committed.expect("memory takes every write") {
                self.driver.persisted(committed.number);
            }
            if let Some(last) = actions.apply.last() {
                self.state
                    .apply_batch(&actions.apply)
                    .expect("only commands were proposed");
                self.driver.node_mut().applied(last.index);
            }
        }
        sent
    }
}

struct Cluster {
    servers: Vec<Server>,
    network: VecDeque<Envelope>,
}

impl Cluster {
    /// Three nodes that node 1 leads.
    fn elected() -> Self {
        let mut cluster = Self {
            servers: (1..=3).map(Server::new).collect(),
            network: VecDeque::new(),
        };
        while cluster.leader().node().role() != Role::Leader {
            cluster.leader().node_mut().tick_election();
            cluster.settle();
        }
        cluster
    }

    fn leader(&mut self) -> &mut Driver {
        &mut self.servers[0].driver
    }

    fn propose(&mut self, command: &Command) -> LogIndex {
        let proposed = self.leader().node_mut().propose(command.encode());
        proposed.expect("node 1 leads, and what it takes is committed").1
    }

    fn open_session(&mut self) -> SessionId {
        let opened_at = self.propose(&Command::OpenSession { secret: 7 });
        self.settle();
        SessionId { opened_at, secret: 7 }
    }

    /// Delivers until nobody has anything to do; then lets the followers learn what is committed.
    fn settle(&mut self) {
        self.deliver_all();
        if !self.has_applied_all() {
            self.leader().node_mut().tick_heartbeat();
            self.deliver_all();
        }
    }

    fn deliver_all(&mut self) {
        loop {
            for server in &mut self.servers {
                self.network.extend(server.work());
            }
            if self.network.is_empty() {
                return;
            }
            for envelope in std::mem::take(&mut self.network) {
                let to = usize::try_from(envelope.to.get() - 1).expect("there are three");
                self.servers[to].driver.node_mut().step(envelope);
            }
        }
    }

    fn has_applied_all(&self) -> bool {
        let last = self.servers[0].driver.node().status().last_log_index;
        self.servers
            .iter()
            .all(|server| server.state.last_applied() == last)
    }

    /// Whether all have applied everything and hold the same.
    fn agrees(&self) -> bool {
        let hash = self.servers[0].state.state_hash();
        self.has_applied_all()
            && self
                .servers
                .iter()
                .all(|server| server.state.state_hash() == hash)
    }
}

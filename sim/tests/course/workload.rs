//! What most key-value tests of the course have in common.

use sim::cluster::{Cluster, cluster};

/// Clients put, append, delete, get and scan while things go wrong, in rounds. At the end of each, what goes wrong
/// stops, and what they saw must be explained by one copy of the data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) servers: u64,
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    /// The network loses, repeats and delays messages.
    pub(crate) unreliable: bool,
    /// All servers crash at the end of each round.
    pub(crate) crash: bool,
    /// The servers are parted at random, ever anew.
    pub(crate) partitions: bool,
    /// Servers cut snapshots.
    pub(crate) snapshots: bool,
    pub(crate) seed: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            servers: 5,
            clients: 1,
            keys: 3,
            unreliable: false,
            crash: false,
            partitions: false,
            snapshots: false,
            seed: 1,
        }
    }
}

impl Workload {
    /// Runs it, and returns the cluster at its end.
    pub(crate) fn run(self) -> Cluster {
        let mut setup = cluster(self.servers)
            .seeded(self.seed)
            .clients(self.clients)
            .keys(self.keys);
        if self.unreliable {
            setup = setup.unreliable();
        }
        if self.snapshots {
            setup = setup.snapshots_every(800);
        }
        let mut cluster = setup.start();
        cluster.expect_leader();
        for _ in 0..2 {
            self.round(&mut cluster);
        }
        cluster.network_heals().restart_all().expect_leader();
        let before = cluster.operations_of_each();
        cluster.run_ms(4_000);
        let after = cluster.operations_of_each();
        let all_served = before.iter().zip(&after).all(|(before, after)| before < after);
        assert!(
            all_served,
            "operations of each client when all was well again: {before:?}, then {after:?}"
        );
        cluster.expect_agreement().expect_linearizable();
        if self.snapshots {
            assert!(cluster.totals().snapshots_cut > 0);
        }
        cluster
    }

    fn round(self, cluster: &mut Cluster) {
        for _ in 0..3 {
            if self.partitions {
                cluster.split_at_random();
            }
            cluster.run_ms(500);
        }
        cluster.reconnect_all();
        cluster.expect_leader();
        cluster.run_ms(200);
        if self.crash {
            cluster.crash_all().run_ms(300).restart_all().expect_leader();
            cluster.run_ms(300);
        }
    }
}

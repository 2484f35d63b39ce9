//! Snapshots of the state instead of the whole log.

use raft_core::LogIndex;
use sim::cluster::{Cluster, Setup, cluster};

/// A snapshot after every dozen of commands or so.
const SNAPSHOTS_EVERY: u64 = 1_000;

/// Rounds of commands, each of which a follower or the leader misses.
fn rounds(
    setup: Setup,
    miss: impl Fn(&mut Cluster, raft_core::NodeId),
    back: impl Fn(&mut Cluster),
) -> Cluster {
    let mut cluster = setup.snapshots_every(SNAPSHOTS_EVERY).start();
    cluster.expect_leader();
    cluster.agree(2);
    for round in 0..6 {
        let leader = cluster.expect_leader();
        let victim = if round % 3 == 1 {
            leader
        } else {
            cluster.others(&[leader])[round % 2]
        };
        miss(&mut cluster, victim);
        cluster.agree(2);
        for _ in 0..40 {
            if let Some(leader) = cluster.leader() {
                cluster.propose(leader, 24);
            }
        }
        cluster.agree(2);
        back(&mut cluster);
        // A piece of a snapshot that got lost without a sign holds its transfer up for a while.
        cluster.expect_agreement();
    }
    cluster.network_heals().restart_all().expect_agreement();
    assert!(cluster.totals().snapshots_cut > 5);
    cluster
}

/// Nodes cut snapshots as they go, and agree all the same.
#[test]
fn snapshot_basic() {
    let cluster = rounds(cluster(3), |_, _| {}, |_| {});
    assert_eq!(cluster.totals().snapshots_installed, 0, "nobody missed anything");
}

fn cuts(setup: Setup) {
    let cluster = rounds(
        setup,
        |cluster, victim| {
            cluster.cut_off(victim);
        },
        |cluster| {
            cluster.reconnect_all();
        },
    );
    assert!(cluster.totals().snapshots_installed > 0);
}

fn crashes(setup: Setup) {
    let cluster = rounds(
        setup,
        |cluster, victim| {
            cluster.crash(victim);
        },
        |cluster| {
            cluster.restart_all();
        },
    );
    assert!(cluster.totals().snapshots_installed > 0);
}

/// A node that was cut off for long gets a snapshot.
#[test]
fn snapshot_install() {
    cuts(cluster(3));
}

/// The same over a bad network.
#[test]
fn snapshot_install_unreliable() {
    cuts(cluster(3).unreliable());
}

/// A node that was down for long gets a snapshot.
#[test]
fn snapshot_install_crash() {
    crashes(cluster(3));
}

/// The same over a bad network.
#[test]
fn snapshot_install_un_crash() {
    crashes(cluster(3).unreliable());
}

/// All crash again and again, and go on from their snapshots and what is behind them.
#[test]
fn snapshot_all_crash() {
    let mut cluster = cluster(3).snapshots_every(SNAPSHOTS_EVERY).start();
    cluster.expect_leader();
    for _ in 0..5 {
        let leader = cluster.expect_leader();
        for _ in 0..30 {
            cluster.propose(leader, 24);
        }
        let before = cluster.agree(3);
        cluster.crash_all().restart_all();
        assert!(cluster.agree(3) > before);
    }
    cluster.expect_agreement();
    assert!(cluster.totals().snapshots_cut > 5);
}

/// After a crash a node starts from its snapshot, although its log is empty.
#[test]
fn snapshot_init() {
    let mut cluster = cluster(3).snapshots_every(1).start();
    cluster.expect_leader();
    let last = cluster.agree(3);
    cluster.run_ms(500).crash_all().restart_all();
    let nodes = cluster.nodes();
    assert!(
        nodes
            .into_iter()
            .all(|node| cluster.applied(node) > LogIndex::ZERO && cluster.log_bytes(node) < 100)
    );
    let next = cluster.agree(3);
    assert!(next > last);
    cluster.run_ms(500).crash_all().restart_all();
    cluster.agree(3);
    cluster.expect_agreement();
}

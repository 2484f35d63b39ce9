//! The key-value service with snapshots.

use sim::cluster::cluster;

use super::workload::Workload;

const SNAPSHOTS: Workload = Workload {
    servers: 5,
    clients: 1,
    keys: 3,
    unreliable: false,
    crash: false,
    partitions: false,
    snapshots: true,
    seed: 2,
};

/// A node that was away while the others went on for long gets their snapshot, and then serves by itself with
/// one other.
#[test]
fn snapshot_rpc() {
    let mut cluster = cluster(3).snapshots_every(1_000).start();
    let leader = cluster.expect_leader();
    cluster.put("a", "A");
    let away = cluster.others(&[leader])[0];
    cluster.cut_off(away);
    for number in 0..50 {
        let key = number.to_string();
        cluster.put(&key, &key);
    }
    cluster.put("b", "B");
    let behind = cluster.applied(away);
    // The one that was away and one that was not are a majority, which needs all that was acknowledged.
    let other = cluster.others(&[away, leader])[0];
    cluster.reconnect_all().cut_off(leader);
    assert_eq!(
        cluster.expect_new_leader(leader),
        other,
        "node {away} lacks what is committed"
    );
    cluster.put("c", "C").put("d", "D").put("1", "0");
    assert!(cluster.applied(away) > behind);
    assert!(cluster.totals().snapshots_installed > 0);
    cluster.reconnect_all();
    cluster
        .expect_value("a", Some("A"))
        .expect_value("b", Some("B"))
        .expect_value("1", Some("0"));
    cluster
        .expect_value("49", Some("49"))
        .expect_agreement()
        .expect_linearizable();
}

/// The log stays short, and so does the snapshot when the data does.
#[test]
fn snapshot_size() {
    let mut cluster = cluster(3).snapshots_every(2_000).start();
    cluster.expect_leader();
    for _ in 0..100 {
        cluster
            .put("x", "0")
            .expect_value("x", Some("0"))
            .put("x", "1")
            .expect_value("x", Some("1"));
    }
    cluster.run_ms(500);
    for node in cluster.nodes() {
        assert!(
            cluster.log_bytes(node) < 2 * 2_000,
            "the log has {} bytes",
            cluster.log_bytes(node)
        );
        assert!(
            cluster.snapshot_bytes(node) < 500,
            "{} bytes of snapshot",
            cluster.snapshot_bytes(node)
        );
    }
}

/// One client, all servers crash.
#[test]
fn snapshot_recover() {
    Workload {
        crash: true,
        ..SNAPSHOTS
    }
    .run();
}

/// Twenty clients, all servers crash.
#[test]
fn snapshot_recover_many_clients() {
    Workload {
        clients: 20,
        crash: true,
        ..SNAPSHOTS
    }
    .run();
}

/// Many clients, a bad network.
#[test]
fn snapshot_unreliable() {
    Workload {
        clients: 5,
        unreliable: true,
        ..SNAPSHOTS
    }
    .run();
}

/// Many clients, a bad network, all servers crash.
#[test]
fn snapshot_unreliable_recover() {
    Workload {
        clients: 5,
        unreliable: true,
        crash: true,
        ..SNAPSHOTS
    }
    .run();
}

/// Many clients, a bad network, partitions, all servers crash.
#[test]
fn snapshot_unreliable_recover_concurrent_partition() {
    Workload {
        clients: 5,
        unreliable: true,
        crash: true,
        partitions: true,
        ..SNAPSHOTS
    }
    .run();
}

/// Fifteen clients, seven servers, many keys, a bad network, partitions, all servers crash.
#[test]
fn snapshot_unreliable_recover_concurrent_partition_linearizable() {
    let workload = Workload {
        servers: 7,
        clients: 15,
        keys: 15,
        unreliable: true,
        crash: true,
        partitions: true,
        ..SNAPSHOTS
    };
    workload.run();
}

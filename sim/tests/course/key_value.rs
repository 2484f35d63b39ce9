//! The key-value service.

use sim::cluster::{Ending, cluster};

use super::workload::Workload;

/// One client.
#[test]
fn basic() {
    Workload::default().run();
}

/// One client's operations take no longer than a round of messages and disk writes: hundreds a second.
#[test]
fn speed() {
    let mut cluster = cluster(3).start();
    cluster.expect_leader();
    let client = cluster.client();
    cluster.begin_put(client, "k", "");
    cluster.await_ending(client);
    let before = cluster.totals().simulated_us;
    for number in 0..100 {
        cluster.begin_append(client, "k", &format!("{number};"));
        assert_eq!(cluster.await_ending(client), Ending::Done(None));
    }
    // The heartbeat, at 20 a second, is not what moves them.
    let each_us = (cluster.totals().simulated_us - before) / 100;
    assert!(each_us < 50_000 / 3, "{each_us} µs an operation");
}

/// Many clients.
#[test]
fn concurrent() {
    Workload {
        clients: 5,
        ..Workload::default()
    }
    .run();
}

/// Many clients over a bad network.
#[test]
fn unreliable() {
    Workload {
        clients: 5,
        unreliable: true,
        ..Workload::default()
    }
    .run();
}

/// Many clients append to one key over a bad network, and none of it is lost, doubled or out of order.
#[test]
fn unreliable_one_key() {
    Workload {
        servers: 3,
        clients: 5,
        keys: 1,
        unreliable: true,
        ..Workload::default()
    }
    .run();
}

/// The majority makes progress, the minority makes none, and what was asked of the minority is done when the
/// partition ends.
#[test]
fn one_partition() {
    let mut cluster = cluster(5).start();
    let leader = cluster.expect_leader();
    cluster.put("1", "13");
    let other = cluster.others(&[leader])[0];
    cluster.split(&[leader, other]);
    let new_leader = cluster.expect_new_leader(leader);
    assert_ne!(new_leader, other);
    cluster.put("1", "14").expect_value("1", Some("14"));

    let (writer, reader) = (cluster.client_of(leader), cluster.client_of(leader));
    cluster
        .begin_put(writer, "1", "15")
        .begin_get(reader, "1")
        .run_ms(3_000);
    assert_eq!(
        (cluster.ending(writer), cluster.ending(reader)),
        (Ending::Open, Ending::Open)
    );
    cluster.expect_value("1", Some("14")).put("1", "16");

    cluster.reconnect_all();
    cluster.expect_leader();
    // A client that reaches one node only is served when that node leads.
    cluster.await_leadership_of(leader);
    cluster.await_ending(writer);
    cluster.await_ending(reader);
    cluster
        .expect_value("1", Some("15"))
        .expect_agreement()
        .expect_linearizable();
}

/// One client, partitions.
#[test]
fn many_partitions_one_client() {
    Workload {
        partitions: true,
        ..Workload::default()
    }
    .run();
}

/// Many clients, partitions.
#[test]
fn many_partitions_many_clients() {
    Workload {
        clients: 5,
        partitions: true,
        ..Workload::default()
    }
    .run();
}

/// One client, all servers crash.
#[test]
fn persist_one_client() {
    Workload {
        crash: true,
        ..Workload::default()
    }
    .run();
}

/// Many clients, all servers crash.
#[test]
fn persist_concurrent() {
    Workload {
        clients: 5,
        crash: true,
        ..Workload::default()
    }
    .run();
}

/// Many clients, a bad network, all servers crash.
#[test]
fn persist_concurrent_unreliable() {
    Workload {
        clients: 5,
        unreliable: true,
        crash: true,
        ..Workload::default()
    }
    .run();
}

/// Many clients, partitions, all servers crash.
#[test]
fn persist_partition() {
    Workload {
        clients: 5,
        crash: true,
        partitions: true,
        ..Workload::default()
    }
    .run();
}

/// Many clients, a bad network, partitions, all servers crash.
#[test]
fn persist_partition_unreliable() {
    Workload {
        clients: 5,
        unreliable: true,
        crash: true,
        partitions: true,
        ..Workload::default()
    }
    .run();
}

/// Fifteen clients, seven servers, many keys, a bad network, partitions, all servers crash.
#[test]
fn persist_partition_unreliable_linearizable() {
    let workload = Workload {
        servers: 7,
        clients: 15,
        keys: 15,
        unreliable: true,
        crash: true,
        partitions: true,
        ..Workload::default()
    };
    workload.run();
}

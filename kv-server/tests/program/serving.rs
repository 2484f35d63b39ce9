//! What the program keeps: through kills, restarts, catch-up and orderly stops.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rpc::client::{Consistency, KvError};

use crate::support::{Caller, Cluster, DEADLINE, Server, wait_until};

fn start_all(cluster: &Cluster) -> Vec<Server> {
    (1..=cluster.client_addrs.len())
        .map(|id| cluster.start(id))
        .collect()
}

#[test]
fn a_cluster_of_one_serves_and_keeps_what_it_acknowledged_through_a_kill() {
    let cluster = Cluster::of(1);
    let mut server = cluster.start(1);
    let mut caller = Caller::new();
    (0..20).for_each(|number| caller.append(&cluster, "k", &format!("{number},")));
    server.kill();
    let _again = cluster.start(1);
    let expected: String = (0..20).map(|number| format!("{number},")).collect();
    assert_eq!(caller.get(&cluster, "k"), Some(expected));
}

#[test]
fn the_leader_is_killed_and_no_acknowledged_append_is_lost_or_doubled() {
    let cluster = Cluster::of(3);
    let mut servers = start_all(&cluster);
    let mut caller = Caller::new();
    for number in 0..30 {
        caller.append(&cluster, "k", &format!("{number},"));
        if number == 10 {
            let leader = caller.leader(&cluster, 1);
            servers[leader - 1].kill();
        }
    }
    let expected: String = (0..30).map(|number| format!("{number},")).collect();
    assert_eq!(caller.get(&cluster, "k"), Some(expected));
}

#[test]
fn all_servers_are_killed_and_come_back_with_everything() {
    let cluster = Cluster::of(3);
    let mut servers = start_all(&cluster);
    let mut caller = Caller::new();
    (0..10).for_each(|number| caller.append(&cluster, "k", &format!("{number},")));
    servers.iter_mut().for_each(Server::kill);
    let _again = start_all(&cluster);
    let expected: String = (0..10).map(|number| format!("{number},")).collect();
    assert_eq!(caller.get(&cluster, "k"), Some(expected));
}

/// Three servers, of which one is down, and the log of the others is compacted past what it has: who leads, and who
/// is down.
fn one_left_behind(snapshot_log_bytes: u64) -> (Cluster, Vec<Server>, Caller, usize, usize) {
    let settings = format!("snapshot_log_bytes = {snapshot_log_bytes}");
    let cluster = Cluster::with_settings(3, &settings);
    let mut servers = start_all(&cluster);
    let mut caller = Caller::new();
    caller.append(&cluster, "k", "first,");
    let leader = caller.leader(&cluster, 3);
    let absent = leader % 3 + 1;
    servers[absent - 1].kill();
    // More than the log keeps behind a snapshot for followers that are a little behind.
    let value = "x".repeat(1 << 20);
    for number in 0..12 {
        caller.append(&cluster, &format!("large-{number}"), &value);
    }
    (cluster, servers, caller, leader, absent)
}

#[test]
fn a_follower_that_the_log_was_compacted_past_is_brought_up_by_a_snapshot() {
    let (cluster, mut servers, caller, leader, absent) = one_left_behind(65536);
    let addr = cluster.client_addrs[leader - 1];
    let behind = wait_until("the leader has compacted its log", || {
        let status = caller.status(addr)?;
        (status.snapshot_index.get() > 8).then_some(status.snapshot_index)
    });
    servers[absent - 1] = cluster.start(absent);
    let addr = cluster.client_addrs[absent - 1];
    wait_until("the follower has installed a snapshot and caught up", || {
        let status = caller.status(addr)?;
        let value = caller.get_at(addr, "large-11", Consistency::Stale)?.ok()?;
        (status.snapshot_index >= behind && value.is_some()).then_some(())
    });
    assert!(
        servers[absent - 1]
            .log()
            .contains("installs the leader's snapshot")
    );
    let first = caller.get_at(addr, "k", Consistency::Stale).unwrap().unwrap();
    assert_eq!(first.as_deref(), Some("first,"));
}

fn snapshots_of(cluster: &Cluster, id: usize) -> impl Iterator<Item = PathBuf> {
    let files = std::fs::read_dir(cluster.data_dir(id).join("snapshots")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "snapshot"))
}

/// Removes the snapshots of a node as somebody who wants their space.
fn remove_snapshots(cluster: &Cluster, id: usize) {
    let removed = snapshots_of(cluster, id).map(|path| std::fs::remove_file(path).unwrap());
    assert!(removed.count() > 0, "there was none");
}

/// Waits for a snapshot of entries behind `index`, and until it is on record: the disk of a cluster of one has all in
/// order.
fn wait_for_snapshot_behind(index: u64, cluster: &Cluster, caller: &mut Caller) -> u64 {
    let cut = wait_until("it has cut a snapshot", || {
        let status = caller.status(cluster.client_addrs[0])?;
        Some(status.snapshot_index.get()).filter(|cut| *cut > index)
    });
    caller.append(cluster, "k", "v");
    cut
}

#[test]
fn nodes_whose_snapshot_files_were_removed_say_so_once_and_bring_a_follower_up() {
    // Each cuts one snapshot, and what follows is too little for another.
    let (cluster, mut servers, mut caller, _, absent) = one_left_behind(10 << 20);
    let present: Vec<usize> = (1..=3).filter(|id| *id != absent).collect();
    for id in &present {
        wait_until("it has compacted its log", || {
            let status = caller.status(cluster.client_addrs[id - 1])?;
            (status.snapshot_index.get() > 0).then_some(())
        });
    }
    // A snapshot that is removed before it is on record is told in other words. With one node down, a write is
    // acknowledged when both others are that far: they write in order.
    caller.append(&cluster, "k", "last,");
    present.iter().for_each(|id| remove_snapshots(&cluster, *id));
    servers[absent - 1] = cluster.start(absent);
    let addr = cluster.client_addrs[absent - 1];
    wait_until("the follower has caught up", || {
        caller.get_at(addr, "large-11", Consistency::Stale)?.ok()?
    });
    for id in &present {
        // The one is told when it is noticed, the other when it is noticed as the file is to be sent.
        let log = servers[id - 1].log();
        let removed = log.matches(".snapshot was removed while the node ran").count();
        let gone = log.matches(".snapshot is gone").count();
        assert!(
            removed <= 1 && gone <= 1 && removed + gone >= 1,
            "{removed}, {gone}"
        );
    }
}

#[test]
fn a_node_whose_snapshot_file_was_removed_writes_another_one_and_loses_nothing() {
    let cluster = Cluster::with_settings(1, "snapshot_log_bytes = 65536");
    let mut server = cluster.start(1);
    let mut caller = Caller::new();
    let value = "x".repeat(70_000);
    caller.append(&cluster, "large", &value);
    let cut = wait_for_snapshot_behind(0, &cluster, &mut caller);
    remove_snapshots(&cluster, 1);
    wait_for_snapshot_behind(cut, &cluster, &mut caller);
    server.kill();
    let mut server = cluster.start(1);
    assert_eq!(caller.get(&cluster, "k").as_deref(), Some("vv"));
    // Told to stop before it can have noticed.
    remove_snapshots(&cluster, 1);
    let status = server.terminate();
    assert!(status.success(), "{status}");
    let server = cluster.start(1);
    assert_eq!(caller.get(&cluster, "k").as_deref(), Some("vv"));
    assert_eq!(caller.get(&cluster, "large"), Some(value));
    let log = server.log();
    let told = log.matches(".snapshot was removed while the node ran").count();
    assert_eq!(told, 2, "{log}");
}

#[test]
fn a_node_whose_snapshot_files_are_removed_as_they_come_goes_on_and_loses_nothing() {
    let cluster = Cluster::with_settings(1, "snapshot_log_bytes = 65536");
    let mut server = cluster.start(1);
    let mut caller = Caller::new();
    caller.append(&cluster, "k", "first,");
    // It goes when the test ends, also when it fails: who removes the files ends then, too.
    let running = Arc::new(());
    let runs = Arc::downgrade(&running);
    std::thread::scope(|scope| {
        let running = running;
        let removed = scope.spawn(|| {
            let mut removed = 0;
            while runs.strong_count() > 0 {
                let found = snapshots_of(&cluster, 1);
                removed += found.filter(|path| std::fs::remove_file(path).is_ok()).count();
                std::thread::sleep(Duration::from_micros(200));
            }
            removed
        });
        for number in 0..20 {
            caller.append(&cluster, &format!("large-{number}"), &"x".repeat(70_000));
        }
        drop(running);
        assert!(removed.join().unwrap() > 0);
    });
    caller.append(&cluster, "k", "last,");
    wait_until("it has written another one", || snapshots_of(&cluster, 1).next());
    assert!(server.is_running(), "{}", server.log());
    let status = server.terminate();
    assert!(status.success(), "{status}: {}", server.log());
    let _server = cluster.start(1);
    assert_eq!(caller.get(&cluster, "k").as_deref(), Some("first,last,"));
    for number in 0..20 {
        let found = caller.get(&cluster, &format!("large-{number}"));
        assert_eq!(found.map(|found| found.len()), Some(70_000), "{number}");
    }
}

#[test]
fn a_follower_gets_entries_that_the_leader_has_no_longer_in_memory() {
    let cluster = Cluster::of(3);
    let mut servers = start_all(&cluster);
    let mut caller = Caller::new();
    caller.append(&cluster, "k", "first,");
    let absent = caller.leader(&cluster, 3) % 3 + 1;
    servers[absent - 1].kill();
    // More than a node keeps of its log in memory.
    let value = "x".repeat(1 << 20);
    let keys: Vec<String> = (0..14).map(|number| format!("large-{number}")).collect();
    keys.iter().for_each(|key| caller.append(&cluster, key, &value));
    servers[absent - 1] = cluster.start(absent);
    let addr = cluster.client_addrs[absent - 1];
    wait_until("the follower has caught up", || {
        caller.get_at(addr, "large-13", Consistency::Stale)?.ok()?
    });
    for key in &keys {
        let found = caller.get_at(addr, key, Consistency::Stale).unwrap().unwrap();
        assert_eq!(found.map(|found| found.len()), Some(value.len()), "{key}");
    }
    assert_eq!(caller.status(addr).unwrap().snapshot_index.get(), 0);
}

#[test]
fn an_orderly_stop_hands_leadership_over_and_ends_with_status_0() {
    let cluster = Cluster::of(3);
    let mut servers = start_all(&cluster);
    let mut caller = Caller::new();
    caller.append(&cluster, "k", "v");
    let leader = caller.leader(&cluster, 3);
    let stopping = std::time::Instant::now();
    let status = servers[leader - 1].terminate();
    assert!(status.success(), "{status}");
    assert!(stopping.elapsed() < DEADLINE);
    assert!(servers[leader - 1].log().contains("handed leadership to node"));
    caller.append(&cluster, "k", "w");
    assert_eq!(caller.get(&cluster, "k").as_deref(), Some("vw"));
}

/// Whoever waits for a write when the server is told to stop learns what became of it.
#[test]
fn a_server_that_stops_finishes_what_it_has_begun() {
    let cluster = Cluster::of(1);
    let mut server = cluster.start(1);
    Caller::new().append(&cluster, "k", "v");
    let addr = cluster.client_addrs[0];
    let endings: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|number| {
                scope.spawn(move || Caller::new().put_until_refused(addr, &format!("key-{number}")))
            })
            .collect();
        let reader = Caller::new();
        wait_until("all of them write", || {
            let written =
                (0..16).map(|number| reader.get_at(addr, &format!("key-{number}"), Consistency::Stale));
            written.map(|answer| answer?.ok()?).collect::<Option<Vec<_>>>()
        });
        let status = server.terminate();
        assert!(status.success(), "{status}");
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let unknown = endings
        .iter()
        .flatten()
        .filter(|error| **error == KvError::OutcomeUnknown);
    // A disk may take longer than a server has to stop.
    let gave_up = server.log().contains("requests were still waiting");
    assert!(unknown.count() == 0 || gave_up, "{endings:?}");
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_with_one_again_it_is() {
    let cluster = Cluster::of(3);
    let mut servers = start_all(&cluster);
    let mut caller = Caller::new();
    caller.append(&cluster, "k", "v");
    let leader = caller.leader(&cluster, 3);
    let others = [leader % 3 + 1, (leader + 1) % 3 + 1];
    others.iter().for_each(|id| servers[id - 1].kill());
    let addr = cluster.client_addrs[leader - 1];
    wait_until("the leader has noticed that it is alone", || {
        caller.status(addr).filter(|status| status.leader_id.is_none())
    });
    assert!(
        caller
            .get_at(addr, "k", Consistency::Linearizable)
            .unwrap()
            .is_err()
    );
    servers[others[0] - 1] = cluster.start(others[0]);
    caller.append(&cluster, "k", "w");
    assert_eq!(caller.get(&cluster, "k").as_deref(), Some("vw"));
}

#[test]
fn a_leader_that_was_stopped_serves_nothing_from_the_lease_that_it_had() {
    let cluster = Cluster::with_settings(3, "lease_reads = true");
    let servers = start_all(&cluster);
    let mut writer = Caller::new();
    writer.append(&cluster, "k", "old");
    let old = writer.leader(&cluster, 3);
    let old_addr = cluster.client_addrs[old - 1];
    assert_eq!(
        wait_until("the leader serves by lease", || {
            writer.get_at(old_addr, "k", Consistency::Lease)?.ok()
        }),
        Some("old".into())
    );
    let others: Vec<_> = cluster
        .client_addrs
        .iter()
        .filter(|addr| **addr != old_addr)
        .copied()
        .collect();
    let read = Caller::new().get_by_lease_around(
        old_addr,
        "k",
        || {
            servers[old - 1].signal("-STOP");
            writer.begin_write();
            wait_until("another leads and has written", || {
                let mut answers = others.iter().filter_map(|addr| writer.put_at(*addr, "k", "new"));
                answers.find_map(Result::ok)
            });
        },
        || servers[old - 1].signal("-CONT"),
    );
    // No answer at all, or one that sends the reader to the new leader.
    assert!(!matches!(read, Some(Ok(_))), "{read:?}");
}

#[test]
fn any_server_serves_a_linearizable_read_and_none_does_without_a_leader() {
    let cluster = Cluster::of(3);
    let mut servers = start_all(&cluster);
    let mut caller = Caller::new();
    for number in 0..10 {
        caller.append(&cluster, "k", &format!("{number},"));
        let written: String = (0..=number).map(|number| format!("{number},")).collect();
        for addr in &cluster.client_addrs {
            // A follower that has not found its leader yet refuses; one that answers is up to date.
            let read = wait_until("the server serves the read", || {
                caller.get_at(*addr, "k", Consistency::Anywhere)?.ok()
            });
            assert_eq!(read.as_ref(), Some(&written), "{addr}");
        }
    }
    let leader = caller.leader(&cluster, 3);
    let follower = leader % 3 + 1;
    servers[leader % 3].kill();
    servers[leader - 1].kill();
    let alone = cluster.client_addrs[(1..=3).find(|id| ![leader, follower].contains(id)).unwrap() - 1];
    for _ in 0..3 {
        let read = caller.get_at(alone, "k", Consistency::Anywhere);
        assert!(!matches!(read, Some(Ok(_))), "{read:?}");
    }
}

//! Nodes that lost their data: what the cluster makes of them, and how they come back.

use std::path::PathBuf;

use rpc::client::Consistency;

use crate::support::{Caller, Cluster, Server, wait_until};

/// Three servers, of which each has applied a first write.
fn running() -> (Cluster, Vec<Server>, Caller) {
    let cluster = Cluster::of(3);
    let servers: Vec<_> = (1..=3).map(|id| cluster.start(id)).collect();
    let mut caller = Caller::new();
    caller.append(&cluster, "k", "first,");
    (1..=3).for_each(|id| wait_for_first(&cluster, &caller, id));
    (cluster, servers, caller)
}

fn wait_for_first(cluster: &Cluster, caller: &Caller, id: usize) {
    wait_until("the node has applied the first write", || {
        let value = caller.get_at(cluster.client_addrs[id - 1], "k", Consistency::Stale)?;
        value.ok()?.filter(|value| value.starts_with("first,"))
    });
}

fn empty(cluster: &Cluster, id: usize) {
    std::fs::remove_dir_all(cluster.data_dir(id)).unwrap();
}

/// Starts a server that the cluster does not take; what it says last.
fn refused(cluster: &Cluster, id: usize) -> String {
    let mut server = cluster.start(id);
    let status = server.wait_for_end();
    let log = server.log();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(!log.contains("panicked") && !log.contains("\\n"), "{log}");
    log[log.rfind("error: ").unwrap()..].to_owned()
}

#[test]
fn an_emptied_follower_is_refused_and_counts_again_when_it_has_joined() {
    let (cluster, mut servers, mut caller) = running();
    let leader = caller.leader(&cluster, 3);
    let (lost, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    servers[lost - 1].kill();
    empty(&cluster, lost);
    let message = refused(&cluster, lost);
    assert!(
        message.contains(&format!("knows node {lost} by other data")),
        "{message}"
    );
    assert!(message.contains(&cluster.join_command(lost)), "{message}");

    // The very command, on the directory that the refused start left behind.
    servers[lost - 1] = cluster.start_with(lost, &["--join"]);
    wait_until("the node is registered", || {
        servers[lost - 1]
            .log()
            .contains("is registered by its store")
            .then_some(())
    });
    servers[other - 1].kill();
    caller.append(&cluster, "k", "second,");

    // With or without the flag: it has joined.
    for flags in [&["--join"][..], &[]] {
        servers[lost - 1].kill();
        servers[lost - 1] = cluster.start_with(lost, flags);
        caller.append(&cluster, "k", "again,");
    }
    let log = servers[lost - 1].log();
    assert_eq!(log.matches("--join changes nothing").count(), 1, "{log}");
    assert_eq!(
        caller.get(&cluster, "k").as_deref(),
        Some("first,second,again,again,")
    );
}

#[test]
fn an_emptied_node_elects_nobody_while_the_leader_is_down() {
    let (cluster, mut servers, mut caller) = running();
    let leader = caller.leader(&cluster, 3);
    let (lost, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    servers[leader - 1].kill();
    servers[lost - 1].kill();
    empty(&cluster, lost);
    let message = refused(&cluster, lost);
    assert!(
        message.contains(&format!("node {other} knows node {lost}")),
        "{message}"
    );
    wait_until("it believes in no leader", || {
        let status = caller.status(cluster.client_addrs[other - 1])?;
        status.leader_id.is_none().then_some(())
    });
    // Made to join, it does not make a majority of one either.
    servers[lost - 1] = cluster.start_with(lost, &["--join"]);
    wait_until("it is up", || caller.status(cluster.client_addrs[lost - 1]));
    wait_until("it has said that it waits", || {
        let log = servers[lost - 1].log();
        log.contains("waits to join: no leader").then_some(())
    });
    servers[leader - 1] = cluster.start(leader);
    caller.append(&cluster, "k", "second,");
    assert_eq!(caller.get(&cluster, "k").as_deref(), Some("first,second,"));
}

#[test]
fn nodes_of_a_new_cluster_that_all_wait_to_join_say_how_it_is_started() {
    let cluster = Cluster::of(3);
    let mut servers: Vec<_> = (1..=3).map(|id| cluster.start_with(id, &["--join"])).collect();
    for server in &servers {
        wait_until("the node says what to do", || {
            let fix = "stop all nodes, empty their data directories, and start them without --join";
            server.log().contains(fix).then_some(())
        });
    }
    for id in 1..=3 {
        servers[id - 1].kill();
        empty(&cluster, id);
        servers[id - 1] = cluster.start(id);
    }
    Caller::new().append(&cluster, "k", "first,");
}

#[test]
fn a_node_whose_directory_is_removed_while_it_runs_stops() {
    let (cluster, mut servers, mut caller) = running();
    empty(&cluster, 3);
    let status = servers[2].wait_for_end();
    let log = servers[2].log();
    assert!(!status.success(), "{log}");
    assert!(
        log.contains("was removed or replaced while the node ran"),
        "{log}"
    );
    caller.append(&cluster, "k", "second,");
}

/// A link to itself where the directory was, and where a part of it was: nothing is found there, and nothing is said to be
/// missing either.
#[test]
fn a_node_whose_data_is_behind_a_link_to_itself_acknowledges_nothing_more() {
    for part in ["", "journal"] {
        let cluster = Cluster::of(1);
        let mut server = cluster.start(1);
        let mut caller = Caller::new();
        caller.append(&cluster, "k", "first,");
        let (place, aside) = (cluster.data_dir(1).join(part), cluster.dir.path().join("aside"));
        let place = place.components().collect::<PathBuf>();
        std::fs::rename(&place, &aside).unwrap();
        std::os::unix::fs::symlink(place.file_name().unwrap(), &place).unwrap();
        std::fs::remove_dir_all(aside).unwrap();
        caller.begin_write();
        while server.is_running() {
            let acknowledged = caller.try_append(cluster.client_addrs[0], "k", "lost,");
            assert_eq!(acknowledged, None, "{}", server.log());
        }
        assert_eq!(server.wait_for_end().code(), Some(3), "{}", server.log());
    }
}

/// The only node of a cluster, whose file is removed, or replaced by a copy, while it runs. It acknowledges nothing after
/// that; what it says when it has stopped.
fn without_its_file(file: &str, is_replaced: bool) -> (Cluster, Caller, String) {
    let cluster = Cluster::of(1);
    let mut server = cluster.start(1);
    let mut caller = Caller::new();
    caller.append(&cluster, "k", "first,");
    let (path, copy) = (cluster.data_dir(1).join(file), cluster.data_dir(1).join("copy"));
    if is_replaced {
        std::fs::copy(&path, &copy).unwrap();
        std::fs::rename(&copy, &path).unwrap();
    } else {
        std::fs::remove_file(&path).unwrap();
    }
    caller.begin_write();
    while server.is_running() {
        let acknowledged = caller.try_append(cluster.client_addrs[0], "k", "lost,");
        assert_eq!(acknowledged, None, "without {file}: {}", server.log());
    }
    let (status, log) = (server.wait_for_end(), server.log());
    assert_eq!(status.code(), Some(3), "without {file}: {log}");
    let message = log[log.rfind("error: ").unwrap()..].to_owned();
    let named = format!(
        "error: {file} in the data directory {}",
        cluster.data_dir(1).display()
    );
    assert!(message.starts_with(&named), "{message}");
    assert!(
        message.contains("was removed or replaced while the node ran"),
        "{message}"
    );
    (cluster, caller, message)
}

#[test]
fn a_node_whose_data_file_is_removed_or_replaced_acknowledges_nothing_more_and_names_it() {
    for (file, is_replaced) in [
        ("sled/db", false),
        ("journal/0", false),
        ("journal/1", true),
        ("high-water", true),
        ("raft-storage", false),
    ] {
        let (cluster, _, message) = without_its_file(file, is_replaced);
        assert!(message.contains("may not be on its disk any more"), "{message}");
        let advice = format!("start the node with --join:\n  {}\n", cluster.join_command(1));
        assert!(message.ends_with(&advice), "{message}");
    }
}

#[test]
fn a_node_that_lost_only_its_lock_file_says_that_a_plain_start_will_do() {
    let (cluster, caller, message) = without_its_file("raft-storage.lock", false);
    assert!(
        message.ends_with("the data is whole: start the node again\n"),
        "{message}"
    );
    let _server = cluster.start(1);
    let value = caller.get(&cluster, "k").unwrap();
    assert!(value.starts_with("first,"), "{value}");
}

#[test]
fn a_node_that_is_told_to_stop_before_it_notices_that_a_file_is_gone_says_so() {
    let cluster = Cluster::of(1);
    let mut server = cluster.start(1);
    Caller::new().append(&cluster, "k", "first,");
    server.signal("-STOP");
    std::fs::remove_file(cluster.data_dir(1).join("sled/db")).unwrap();
    server.signal("-TERM");
    server.signal("-CONT");
    let status = server.wait_for_end();
    let log = server.log();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("error: sled/db in the data directory"), "{log}");
}

#[test]
fn joining_is_refused_on_a_directory_with_data() {
    let (cluster, mut servers, _) = running();
    servers[0].kill();
    let output = cluster.output(1, &["--join"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("already holds the data of this node"), "{stderr}");
    servers[0] = cluster.start(1);
    wait_for_first(&cluster, &Caller::new(), 1);
}

#[test]
fn a_node_with_data_stops_and_keeps_it_when_the_others_have_founded_another_cluster() {
    let cluster = Cluster::with_settings(3, "snapshot_log_bytes = 65536");
    let mut servers: Vec<_> = (1..=3).map(|id| cluster.start(id)).collect();
    let mut caller = Caller::new();
    for number in 0..4 {
        caller.append(&cluster, &format!("large-{number}"), &"x".repeat(50_000));
    }
    wait_until("the third node has a snapshot", || {
        let status = caller.status(cluster.client_addrs[2])?;
        (status.snapshot_index.get() > 0).then_some(())
    });
    servers.iter_mut().for_each(Server::kill);
    for id in [1, 2] {
        empty(&cluster, id);
        servers[id - 1] = cluster.start(id);
    }
    let mut newcomer = Caller::new();
    newcomer.append(&cluster, "k", "of the new cluster");
    // The second time shows that the first left the data alone.
    for _ in 0..2 {
        let message = refused(&cluster, 3);
        assert!(message.contains("leads another cluster"), "{message}");
        assert!(message.contains("leaves its data as it is"), "{message}");
    }
    assert!((1..=2).all(|id| servers[id - 1].is_running()));
    assert_eq!(newcomer.get(&cluster, "k").as_deref(), Some("of the new cluster"));
}

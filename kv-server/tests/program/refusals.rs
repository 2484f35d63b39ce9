//! What the program refuses, with which exit status and which words.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rpc::client::Consistency;

use crate::support::{Caller, Cluster, wait_until};

fn refusal(cluster: &Cluster, id: usize, flags: &[&str]) -> String {
    let output = cluster.output(id, flags);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let message = stderr
        .lines()
        .skip_while(|line| !line.starts_with("error: "))
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        !message.is_empty(),
        "no line starts with \"error: \" in {stderr:?}"
    );
    assert!(
        !stderr.contains("panicked") && !stderr.contains("backtrace"),
        "{stderr}"
    );
    message
}

#[test]
fn a_good_configuration_passes_the_check_and_touches_nothing() {
    let cluster = Cluster::of(3);
    let output = cluster.output(2, &["--check"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    assert!(!cluster.data_dir(2).exists());
}

#[test]
fn a_node_that_may_open_too_few_files_says_so_and_touches_nothing() {
    let cluster = Cluster::of(1);
    for (limit, flags) in [(22, &[][..]), (16, &[]), (12, &[]), (22, &["--check"])] {
        let output = cluster.output_with_files(1, limit, flags);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(
            stderr.starts_with(&format!("error: this process may have {limit} files")),
            "{stderr}"
        );
        assert!(stderr.contains("LimitNOFILE="), "{stderr}");
        assert!(!cluster.data_dir(1).exists());
    }
}

#[test]
fn a_node_whose_files_may_not_be_long_enough_says_so_and_is_not_ended_by_a_signal() {
    let cluster = Cluster::of(1);
    let output = cluster.output_with_small_files(1, 8);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{}: {stderr}", output.status);
    assert!(stderr.contains("File too large"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_burst_of_connections_leaves_a_node_the_files_that_it_needs() {
    let cluster = Cluster::of(1);
    let server = cluster.start_with_files(1, 80);
    let mut caller = Caller::new();
    caller.append(&cluster, "k", "v");
    let mut burst = Vec::new();
    for _ in 0..200 {
        for addr in [cluster.client_addrs[0], cluster.raft_addrs[0]] {
            burst.push(TcpStream::connect(addr).unwrap());
        }
    }
    caller.append(&cluster, "k", "w");
    let log = server.log();
    assert!(
        log.contains("10 clients can be connected at a time, not 512"),
        "{log}"
    );
    assert!(!log.contains("could not accept"), "{log}");
}

#[test]
fn a_bad_configuration_is_refused_with_its_line_and_the_fix() {
    let cluster = Cluster::with_settings(3, "heartbeat_interval_ms = 300");
    let message = refusal(&cluster, 1, &["--check"]);
    assert!(message.contains("cluster.toml, line 4"), "{message}");
    assert!(message.contains("fix: "), "{message}");
}

#[test]
fn a_bad_value_from_the_environment_is_refused_by_the_name_of_its_variable() {
    let cluster = Cluster::of(1);
    for (variable, flag, value) in [
        (
            "KV_SERVER_HEARTBEAT_INTERVAL_MS",
            "--heartbeat-interval-ms",
            "900",
        ),
        (
            "KV_SERVER_HEARTBEAT_INTERVAL_MS",
            "--heartbeat-interval-ms",
            "often",
        ),
        ("KV_SERVER_ELECTION_TIMEOUT_MS", "--election-timeout-ms", "300"),
        (
            "KV_SERVER_ELECTION_TIMEOUT_MS",
            "--election-timeout-ms",
            "300,300",
        ),
        ("KV_SERVER_LOG_FORMAT", "--log-format", "prose"),
        ("KV_SERVER_LOG", "--log", "info,="),
        ("KV_SERVER_LEASE_READS", "--lease-reads", "perhaps"),
    ] {
        let of_variable = cluster.output_in(1, &["--check"], &[(variable, value)]);
        let of_flag = cluster.output_in(1, &["--check", &format!("{flag}={value}")], &[(variable, value)]);
        for (output, named, other) in [(of_variable, variable, flag), (of_flag, flag, variable)] {
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.starts_with("error: "), "{stderr}");
            assert!(stderr.contains(named) && !stderr.contains(other), "{stderr}");
        }
    }
}

#[test]
fn a_bad_filter_in_rust_log_is_refused_by_that_name() {
    let output = Cluster::of(1).output_in(1, &["--check"], &[("RUST_LOG", "info,=")]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("error: RUST_LOG: "), "{stderr}");
}

#[test]
fn an_unknown_flag_is_refused() {
    let message = refusal(&Cluster::of(1), 1, &["--no-such-flag"]);
    assert!(message.contains("--no-such-flag"), "{message}");
}

#[test]
fn an_id_that_is_not_in_the_file_is_refused() {
    let message = refusal(&Cluster::of(3), 4, &[]);
    assert!(
        message.contains("has no node 4") && message.contains("1, 2, 3"),
        "{message}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let cluster = Cluster::of(1);
    let _taken = std::net::TcpListener::bind(cluster.client_addrs[0]).unwrap();
    let message = refusal(&cluster, 1, &[]);
    assert!(
        message.contains(&cluster.client_addrs[0].to_string()),
        "{message}"
    );
    assert!(message.contains("another program has the port"), "{message}");
}

#[test]
fn a_data_directory_in_use_is_named() {
    let cluster = Cluster::of(2);
    let _running = cluster.start(1);
    wait_until("the first server has its directory", || {
        Caller::new().status(cluster.client_addrs[0]).map(drop)
    });
    let shared = cluster.data_dir(1);
    let message = refusal(&cluster, 2, &["--data-dir", shared.to_str().unwrap()]);
    assert!(message.contains("in use"), "{message}");
    assert!(message.contains(shared.to_str().unwrap()), "{message}");
}

#[test]
fn a_data_directory_of_another_node_or_cluster_is_named() {
    let cluster = Cluster::of(2);
    let mut running = cluster.start(1);
    wait_until("the server is up", || {
        Caller::new().status(cluster.client_addrs[0]).map(drop)
    });
    assert!(running.terminate().success());
    let of_node_1 = cluster.data_dir(1);
    let message = refusal(&cluster, 2, &["--data-dir", of_node_1.to_str().unwrap()]);
    assert!(message.contains("belongs to node 1"), "{message}");

    let text = std::fs::read_to_string(cluster.file()).unwrap();
    std::fs::write(cluster.file(), text.replace("\"test\"", "\"other\"")).unwrap();
    let message = refusal(&cluster, 1, &[]);
    assert!(message.contains("belongs to cluster \"test\""), "{message}");
}

#[test]
fn a_data_directory_that_lost_its_contents_is_refused() {
    let cluster = Cluster::of(1);
    let mut running = cluster.start(1);
    wait_until("the server is up", || {
        Caller::new().status(cluster.client_addrs[0]).map(drop)
    });
    running.kill();
    std::fs::remove_dir_all(cluster.data_dir(1).join("sled")).unwrap();
    let message = refusal(&cluster, 1, &[]);
    assert!(message.contains("was initialised before"), "{message}");
    assert!(
        message.ends_with(&format!("--join:\n  {}", cluster.join_command(1))),
        "{message}"
    );
}

#[test]
fn the_command_to_join_names_the_data_directory_of_the_flag_or_the_environment() {
    let cluster = Cluster::of(1);
    let foreign = cluster.dir.path().join("not a store");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("note"), "mine").unwrap();
    let given = foreign.to_str().unwrap();
    let of_flag = cluster.output(1, &["--data-dir", given]);
    let of_variable = cluster.output_in(1, &[], &[("KV_SERVER_DATA_DIR", given)]);
    for output in [of_flag, of_variable] {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        let told = format!("--id 1 --data-dir '{given}' --join\n");
        assert!(stderr.ends_with(&told), "{stderr}");
    }
}

#[test]
fn other_members_than_the_cluster_was_made_with_are_refused() {
    let cluster = Cluster::of(3);
    let mut running = cluster.start(1);
    wait_until("the server is up", || {
        Caller::new().status(cluster.client_addrs[0]).map(drop)
    });
    running.kill();
    let text = std::fs::read_to_string(cluster.file()).unwrap();
    std::fs::write(cluster.file(), text.replace("id = 3", "id = 4")).unwrap();
    let message = refusal(&cluster, 1, &[]);
    assert!(
        message.contains("nodes 1, 2, 4") && message.contains("nodes 1, 2, 3"),
        "{message}"
    );
}

#[test]
fn garbage_half_frames_and_silence_on_both_ports_leave_the_server_serving() {
    let cluster = Cluster::of(1);
    let server = cluster.start(1);
    let mut caller = Caller::new();
    caller.append(&cluster, "k", "v");
    let mut strangers = Vec::new();
    for addr in [cluster.client_addrs[0], cluster.raft_addrs[0]] {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0, 0, 1], b""] {
            for _ in 0..20 {
                let mut stranger = TcpStream::connect(addr).unwrap();
                // The server may have closed already.
                let _ = stranger.write_all(bytes);
                strangers.push(stranger);
            }
        }
    }
    assert_eq!(caller.get(&cluster, "k").as_deref(), Some("v"));
    drop(strangers);
    assert_eq!(caller.get(&cluster, "k").as_deref(), Some("v"));
    wait_until("the log tells of a refusal", || {
        server.log().contains("refused a connection").then_some(())
    });
}

#[test]
fn a_stranger_who_speaks_another_protocol_is_sent_away() {
    let cluster = Cluster::of(1);
    let _server = cluster.start(1);
    let caller = Caller::new();
    wait_until("the server is up", || {
        caller.status(cluster.client_addrs[0]).map(drop)
    });
    let mut stranger = TcpStream::connect(cluster.raft_addrs[0]).unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stranger.write_all(&[b'x'; 1024]).unwrap();
    let mut answer = Vec::new();
    // Closed, whether in order or by a reset; what must not happen is waiting for ever.
    let ended = stranger.read_to_end(&mut answer);
    assert!(!matches!(ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
}

#[test]
fn a_follower_says_who_leads_and_a_stale_read_is_served_by_anyone() {
    let cluster = Cluster::of(3);
    let _servers: Vec<_> = (1..=3).map(|id| cluster.start(id)).collect();
    let mut caller = Caller::new();
    caller.append(&cluster, "k", "v");
    let leader = caller.leader(&cluster, 3);
    let follower = cluster.client_addrs[leader % 3];
    let refused = caller
        .get_at(follower, "k", Consistency::Linearizable)
        .unwrap()
        .unwrap_err();
    let rpc::client::KvError::NotLeader { leader: Some(named) } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(named.client_addr, cluster.client_addrs[leader - 1].to_string());
    wait_until("the follower has applied the write", || {
        caller
            .get_at(follower, "k", Consistency::Stale)?
            .unwrap()
            .filter(|value| value == "v")
    });
}

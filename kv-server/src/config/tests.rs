use std::io::Write;

use super::*;

/// A file with every setting, on lines that the tests count on.
const FILE: &str = r#"cluster_id = "demo"
data_dir = "data/node-{id}"

[raft]
heartbeat_interval_ms = 50
election_timeout_ms = [300, 600]
snapshot_log_bytes = 1000

[[node]]
id = 1
raft_addr = "127.0.0.1:7101"
client_addr = "127.0.0.1:7102"

[[node]]
id = 2
raft_addr = "127.0.0.1:7111"
client_addr = "127.0.0.1:7112"

[[node]]
id = 3
raft_addr = "127.0.0.1:7121"
client_addr = "127.0.0.1:7122"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("cluster.toml"), 1, &Overrides::default())
}

/// The complete message about [`FILE`] with a piece replaced.
fn refusal(piece: &str, by: &str) -> String {
    assert!(FILE.contains(piece), "{piece}");
    parse(&FILE.replacen(piece, by, 1)).unwrap_err().to_string()
}

fn refusal_of_overrides(overrides: &Overrides) -> String {
    Config::parse(FILE, Path::new("cluster.toml"), 1, overrides)
        .unwrap_err()
        .to_string()
}

#[test]
fn the_file_is_taken_as_it_stands() {
    let config = Config::parse(FILE, Path::new("cluster.toml"), 2, &Overrides::default()).unwrap();
    assert_eq!((config.cluster_id.as_str(), config.id), ("demo", NodeId(2)));
    assert_eq!(config.data_dir, Path::new("data/node-2"));
    assert_eq!(config.raft.snapshot_log_bytes, 1_000);
    assert_eq!(config.this_node().client_addr.to_string(), "127.0.0.1:7112");
    let peers: Vec<_> = config.peers().map(|peer| peer.raft_addr.to_string()).collect();
    assert_eq!(peers, ["127.0.0.1:7101", "127.0.0.1:7121"]);
}

#[test]
fn the_command_to_join_names_a_directory_that_is_not_the_files_and_is_quoted_for_a_shell() {
    let absolute_in_file = FILE.replace("\"data/node-{id}\"", "\"/data/node-{id}\"");
    let command = |file: &str, data_dir: Option<&str>| {
        let overrides = Overrides {
            data_dir: data_dir.map(str::to_owned),
            ..Overrides::default()
        };
        Config::parse(&absolute_in_file, Path::new(file), 2, &overrides)
            .unwrap()
            .join_command()
    };
    assert_eq!(
        command("/etc/cluster.toml", None),
        "kv-server --config /etc/cluster.toml --id 2 --join"
    );
    assert_eq!(
        command("/my files/cluster.toml", Some("/x/it's {id}")),
        r"kv-server --config '/my files/cluster.toml' --id 2 --data-dir '/x/it'\''s 2' --join"
    );
}

#[test]
fn the_command_to_join_means_the_same_in_every_directory() {
    let here = std::env::current_dir().unwrap();
    let at = |path: &str| quoted(&here.join(path));
    let command = |file: &str, data_dir: Option<&str>| {
        let overrides = Overrides {
            data_dir: data_dir.map(str::to_owned),
            ..Overrides::default()
        };
        let config = Config::parse(FILE, Path::new(file), 2, &overrides).unwrap();
        config.join_command()
    };
    let (file, in_file, given) = (at("etc/cluster.toml"), at("data/node-2"), at("other/2"));
    assert_eq!(
        command("etc/cluster.toml", None),
        format!("kv-server --config {file} --id 2 --data-dir {in_file} --join")
    );
    assert_eq!(
        command("/etc/cluster.toml", None),
        format!("kv-server --config /etc/cluster.toml --id 2 --data-dir {in_file} --join")
    );
    assert_eq!(
        command("/etc/cluster.toml", Some("other/{id}")),
        format!("kv-server --config /etc/cluster.toml --id 2 --data-dir {given} --join")
    );
    assert_eq!(
        command("etc/cluster.toml", Some("/other/{id}")),
        format!("kv-server --config {file} --id 2 --data-dir /other/2 --join")
    );
}

#[test]
fn what_the_file_leaves_out_has_a_default() {
    let nodes = &FILE[FILE.find("[[node]]").unwrap()..];
    let config = parse(&format!("cluster_id = 'c'\ndata_dir = 'd'\n{nodes}")).unwrap();
    let raft = RaftConfig {
        heartbeat_interval: Duration::from_millis(50),
        election_timeout_min: Duration::from_millis(300),
        election_timeout_max: Duration::from_millis(600),
        snapshot_log_bytes: 67_108_864,
        max_uncommitted_bytes: 67_108_864,
        max_inflight_bytes: 8_388_608,
        max_inflight_messages: 256,
        lease_reads: false,
    };
    assert_eq!(config.raft, raft);
    let limits = LimitsConfig {
        connections: 512,
        connections_per_address: 256,
        requests_in_flight: 32_768,
        requests_in_flight_per_connection: 4_096,
    };
    assert_eq!(config.limits, limits);
    assert_eq!(
        config.storage,
        StorageConfig {
            cache_bytes: 8_388_608,
            min_free_bytes: None,
            stall_timeout: Duration::from_secs(30),
        }
    );
}

#[test]
fn the_optional_sections_are_read() {
    let more = "[limits]\nconnections = 1\nconnections_per_address = 2\nrequests_in_flight = 3\n\
                requests_in_flight_per_connection = 4\n[storage]\ncache_bytes = 5\nmin_free_bytes = 0\n\
                stall_timeout_ms = 6\n[[node]]";
    let config = parse(&FILE.replacen("[[node]]", more, 1)).unwrap();
    let limits = LimitsConfig {
        connections: 1,
        connections_per_address: 2,
        requests_in_flight: 3,
        requests_in_flight_per_connection: 4,
    };
    let storage = StorageConfig {
        cache_bytes: 5,
        min_free_bytes: Some(0),
        stall_timeout: Duration::from_millis(6),
    };
    assert_eq!((config.limits, config.storage), (limits, storage));
}

#[test]
fn flags_beat_the_file() {
    let overrides = Overrides {
        data_dir: Some("elsewhere/{id}/{id}".into()),
        heartbeat_interval_ms: Some(10),
        from_environment: ["heartbeat_interval_ms".to_owned()].into(),
        election_timeout_ms: Some([20, 30]),
        snapshot_log_bytes: Some(40),
        max_uncommitted_bytes: Some(50),
        max_inflight_bytes: Some(60),
        max_inflight_messages: Some(70),
        lease_reads: Some(true),
        min_free_bytes: Some(80 << 20),
        stall_timeout_ms: Some(90),
    };
    let config = Config::parse(FILE, Path::new("cluster.toml"), 1, &overrides).unwrap();
    let raft = RaftConfig {
        heartbeat_interval: Duration::from_millis(10),
        election_timeout_min: Duration::from_millis(20),
        election_timeout_max: Duration::from_millis(30),
        snapshot_log_bytes: 40,
        max_uncommitted_bytes: 50,
        max_inflight_bytes: 60,
        max_inflight_messages: 70,
        lease_reads: true,
    };
    assert_eq!(
        (config.raft, config.data_dir),
        (raft, PathBuf::from("elsewhere/1/1"))
    );
    let storage = (config.storage.min_free_bytes, config.storage.stall_timeout);
    assert_eq!(storage, (Some(80 << 20), Duration::from_millis(90)));
}

#[test]
fn a_reserve_on_the_disk_that_is_too_small_to_be_one_is_refused() {
    let with = |bytes: u64| {
        let more = format!("[storage]\nmin_free_bytes = {bytes}\n[[node]]");
        parse(&FILE.replacen("[[node]]", &more, 1))
    };
    for bytes in [0, 16 << 20] {
        assert_eq!(with(bytes).unwrap().storage.min_free_bytes, Some(bytes));
    }
    for bytes in [1, 1 << 20, (16 << 20) - 1] {
        let error = with(bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("min_free_bytes is {bytes}")), "{error}");
        assert!(error.contains("set it to 16777216 or more"), "{error}");
    }
}

#[test]
fn one_node_and_an_even_number_of_nodes_are_clusters() {
    for nodes in [1, 2, 4, 7] {
        let text: String = (1..=nodes)
            .map(|id| format!("[[node]]\nid = {id}\nraft_addr = 'n{id}:1'\nclient_addr = 'n{id}:2'\n"))
            .collect();
        let config = parse(&format!("cluster_id = 'c'\ndata_dir = 'd'\n{text}")).unwrap();
        assert_eq!(config.nodes.len(), nodes);
    }
}

#[test]
fn one_node_alone_may_listen_everywhere() {
    let text = "cluster_id='c'\ndata_dir='d'\n[[node]]\nid=1\nraft_addr='0.0.0.0:1'\nclient_addr='[::]:2'\n";
    assert!(parse(text).is_ok());
}

#[test]
fn a_heartbeat_not_below_the_election_timeout_is_refused() {
    assert_eq!(
        refusal("heartbeat_interval_ms = 50", "heartbeat_interval_ms = 300"),
        "cluster.toml, line 5: heartbeat_interval_ms is 300, not below the shortest election timeout, 300\n\
         fix: raise election_timeout_ms or lower heartbeat_interval_ms, so that several heartbeats fit in the \
         shortest election timeout"
    );
    let by_election = refusal(
        "heartbeat_interval_ms = 50\nelection_timeout_ms = [300, 600]",
        "election_timeout_ms = [50, 60]",
    );
    assert!(
        by_election.starts_with("cluster.toml, line 5: heartbeat_interval_ms is 50, not below"),
        "{by_election}"
    );
    let by_flag = refusal_of_overrides(&Overrides {
        heartbeat_interval_ms: Some(400),
        ..Overrides::default()
    });
    assert!(
        by_flag.starts_with("--heartbeat-interval-ms: heartbeat_interval_ms is 400, not below"),
        "{by_flag}"
    );
}

#[test]
fn a_range_of_election_timeouts_that_cannot_be_is_refused() {
    let fix = "fix: give the shortest and the longest, such as [300, 600]";
    assert_eq!(
        refusal("[300, 600]", "[600, 300]"),
        format!("cluster.toml, line 6: election_timeout_ms goes from 600 to 300, which is backwards\n{fix}")
    );
    assert_eq!(
        refusal("[300, 600]", "[0, 600]"),
        format!("cluster.toml, line 6: election_timeout_ms starts at 0\n{fix}")
    );
    assert_eq!(
        refusal("[300, 600]", "[300, 600001]"),
        format!("cluster.toml, line 6: election_timeout_ms goes up to 600001: the limit is 600000\n{fix}")
    );
    assert_eq!(
        refusal("[300, 600]", "[300, 300]"),
        format!(
            "cluster.toml, line 6: election_timeout_ms is always 300: nodes that miss their leader together \
             would all stand for election at once, and split the votes again and again\n{fix}"
        )
    );
    let overrides = Overrides {
        election_timeout_ms: Some([2, 1]),
        ..Overrides::default()
    };
    assert_eq!(
        refusal_of_overrides(&overrides),
        format!("--election-timeout-ms: election_timeout_ms goes from 2 to 1, which is backwards\n{fix}")
    );
}

#[test]
fn two_election_timeouts_are_expected_and_no_other_number_of_them() {
    for (numbers, count) in [("[300]", 1), ("[300, 600, 900]", 3), ("[]", 0)] {
        let refusal = refusal("[300, 600]", numbers);
        let expected =
            format!("two numbers are expected, the shortest and the longest, and there are {count}");
        assert!(
            refusal.starts_with("cluster.toml, line 6: ") && refusal.contains(&expected),
            "{numbers}: {refusal}"
        );
    }
}

#[test]
fn zero_is_refused_for_every_number() {
    assert_eq!(
        refusal("heartbeat_interval_ms = 50", "heartbeat_interval_ms = 0"),
        "cluster.toml, line 5: heartbeat_interval_ms is 0\nfix: set it above 0, or leave it out for the default, 50"
    );
    for (name, default) in [
        ("snapshot_log_bytes", 67_108_864),
        ("max_uncommitted_bytes", 67_108_864),
        ("max_inflight_bytes", 8_388_608),
        ("max_inflight_messages", 256),
    ] {
        assert_eq!(
            refusal("snapshot_log_bytes = 1000", &format!("{name} = 0")),
            format!(
                "cluster.toml, line 7: {name} is 0\nfix: set it above 0, or leave it out for the default, {default}"
            )
        );
    }
    for (section, name, default) in [
        ("limits", "connections", 512),
        ("limits", "connections_per_address", 256),
        ("limits", "requests_in_flight", 32_768),
        ("limits", "requests_in_flight_per_connection", 4_096),
        ("storage", "cache_bytes", 8_388_608),
    ] {
        assert_eq!(
            refusal("[[node]]", &format!("[{section}]\n{name} = 0\n[[node]]")),
            format!(
                "cluster.toml, line 10: {name} is 0\nfix: set it above 0, or leave it out for the default, {default}"
            )
        );
    }
    let overrides = Overrides {
        max_inflight_bytes: Some(0),
        ..Overrides::default()
    };
    assert_eq!(
        refusal_of_overrides(&overrides),
        "--max-inflight-bytes: max_inflight_bytes is 0\nfix: set it above 0, or leave it out for the default, 8388608"
    );
}

#[test]
fn a_bad_value_from_the_environment_is_told_by_its_variable() {
    let overrides = |setting: &str| Overrides {
        from_environment: [setting.to_owned()].into(),
        heartbeat_interval_ms: Some(0),
        ..Overrides::default()
    };
    let by_variable = refusal_of_overrides(&overrides("heartbeat_interval_ms"));
    assert!(
        by_variable.starts_with("KV_SERVER_HEARTBEAT_INTERVAL_MS: heartbeat_interval_ms is 0\nfix: "),
        "{by_variable}"
    );
    let by_flag = refusal_of_overrides(&overrides("election_timeout_ms"));
    assert!(by_flag.starts_with("--heartbeat-interval-ms: "), "{by_flag}");
    let message = refusal_of_overrides(&Overrides {
        data_dir: Some(String::new()),
        ..overrides("data_dir")
    });
    assert!(
        message.starts_with("KV_SERVER_DATA_DIR: data_dir is empty"),
        "{message}"
    );
    let of_id = Overrides {
        from_environment: ["id".to_owned()].into(),
        ..Overrides::default()
    };
    let message = Config::parse(FILE, Path::new("cluster.toml"), 4, &of_id)
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("KV_SERVER_ID: cluster.toml has no node 4"),
        "{message}"
    );
}

#[test]
fn two_nodes_with_one_id_are_refused() {
    assert_eq!(
        refusal("id = 2", "id = 1"),
        "cluster.toml, line 15: two nodes have id 1, first on line 10\nfix: give each node an id of its own"
    );
}

#[test]
fn id_0_is_refused() {
    assert_eq!(
        refusal("id = 1", "id = 0"),
        "cluster.toml, line 10: a node has id 0\nfix: number the nodes from 1"
    );
}

#[test]
fn one_address_used_twice_is_refused() {
    let fix = "fix: give each raft_addr and each client_addr a port of its own";
    assert_eq!(
        refusal("127.0.0.1:7121", "127.0.0.1:7101"),
        format!("cluster.toml, line 21: 127.0.0.1:7101 is used twice, first on line 11\n{fix}")
    );
    assert_eq!(
        refusal("127.0.0.1:7102", "127.0.0.1:7101"),
        format!("cluster.toml, line 12: 127.0.0.1:7101 is used twice, first on line 11\n{fix}")
    );
}

#[test]
fn one_loopback_port_under_two_names_is_used_twice() {
    let fix = "fix: give each raft_addr and each client_addr a port of its own";
    assert_eq!(
        refusal("127.0.0.1:7121", "localhost:7101"),
        format!(
            "cluster.toml, line 21: localhost:7101 is used twice, first on line 11 as 127.0.0.1:7101\n{fix}"
        )
    );
    // What is said of 127.0.0.1 is not said of other addresses of the loopback.
    assert!(parse(&FILE.replacen("127.0.0.1:7121", "127.0.0.2:7101", 1)).is_ok());
    assert!(parse(&FILE.replacen("127.0.0.1:7121", "[::1]:7101", 1)).is_ok());
}

#[test]
fn an_id_that_is_not_in_the_file_is_refused() {
    let error = Config::parse(FILE, Path::new("cluster.toml"), 4, &Overrides::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--id: cluster.toml has no node 4\nfix: use the id of one of its [[node]] sections (1, 2, 3), or add one"
    );
}

#[test]
fn a_cluster_of_no_nodes_is_refused() {
    assert_eq!(
        parse("cluster_id = 'c'\ndata_dir = 'd'\n")
            .unwrap_err()
            .to_string(),
        "cluster.toml: the cluster has no nodes\n\
         fix: add a section [[node]] with id, raft_addr and client_addr for each node"
    );
}

#[test]
fn an_eighth_node_is_refused() {
    let more: String = (4..=8)
        .map(|id| format!("[[node]]\nid = {id}\nraft_addr = 'n{id}:1'\nclient_addr = 'n{id}:2'\n"))
        .collect();
    assert_eq!(
        parse(&format!("{FILE}{more}")).unwrap_err().to_string(),
        "cluster.toml, line 39: the cluster has 8 nodes: the limit is 7\n\
         fix: remove nodes; 3 or 5 are the usual numbers"
    );
}

#[test]
fn a_name_of_the_cluster_that_is_none_is_refused() {
    let fix =
        "fix: name the cluster with 1 to 64 letters, digits, '-', '_' or '.', such as cluster_id = \"demo\"";
    assert_eq!(
        refusal("\"demo\"", "\"\""),
        format!("cluster.toml, line 1: cluster_id is empty\n{fix}")
    );
    assert_eq!(
        refusal("\"demo\"", "\"a b\""),
        format!("cluster.toml, line 1: cluster_id contains ' '\n{fix}")
    );
    let long = format!("\"{}\"", "x".repeat(65));
    assert_eq!(
        refusal("\"demo\"", &long),
        format!("cluster.toml, line 1: cluster_id has 65 bytes\n{fix}")
    );
    assert_eq!(
        refusal("cluster_id = \"demo\"", ""),
        format!("cluster.toml: cluster_id is missing\n{fix}")
    );
    assert!(parse(&FILE.replace("demo", &"x".repeat(64))).is_ok());
}

#[test]
fn a_data_directory_must_be_named() {
    let fix = "fix: say where the node keeps its data, such as data_dir = \"data/node-{id}\"";
    assert_eq!(
        refusal("data_dir = \"data/node-{id}\"", ""),
        format!("cluster.toml: data_dir is missing\n{fix}")
    );
    assert_eq!(
        refusal("data/node-{id}", ""),
        format!("cluster.toml, line 2: data_dir is empty\n{fix}")
    );
    let overrides = Overrides {
        data_dir: Some(String::new()),
        ..Overrides::default()
    };
    assert_eq!(
        refusal_of_overrides(&overrides),
        format!("--data-dir: data_dir is empty\n{fix}")
    );
}

#[test]
fn an_address_that_is_none_is_refused() {
    assert_eq!(
        refusal("127.0.0.1:7101", "127.0.0.1"),
        "cluster.toml, line 11: raft_addr is \"127.0.0.1\": it has no port\n\
         fix: use host:port, such as raft_addr = \"127.0.0.1:7101\""
    );
    assert_eq!(
        refusal("127.0.0.1:7102", "127.0.0.1:70000"),
        "cluster.toml, line 12: client_addr is \"127.0.0.1:70000\": its port is not between 1 and 65535\n\
         fix: use host:port, such as client_addr = \"127.0.0.1:7102\""
    );
}

#[test]
fn an_address_that_others_cannot_dial_is_refused() {
    assert_eq!(
        refusal("127.0.0.1:7101", "0.0.0.0:7101"),
        "cluster.toml, line 11: raft_addr is \"0.0.0.0:7101\", which the other nodes and clients cannot dial\n\
         fix: use the name or the address that they reach it by"
    );
}

#[test]
fn a_node_must_be_whole() {
    assert_eq!(
        refusal("id = 2\n", ""),
        "cluster.toml, line 14: id is missing in this [[node]]\nfix: add one, such as id = 1"
    );
    assert_eq!(
        refusal("client_addr = \"127.0.0.1:7112\"\n", ""),
        "cluster.toml, line 14: client_addr is missing in this [[node]]\n\
         fix: use host:port, such as client_addr = \"127.0.0.1:7102\""
    );
}

#[test]
fn an_unknown_key_is_refused() {
    assert_eq!(
        refusal("heartbeat_interval_ms", "heartbeat_ms"),
        "cluster.toml, line 5: unknown field `heartbeat_ms`, expected one of `heartbeat_interval_ms`, \
         `election_timeout_ms`, `snapshot_log_bytes`, `max_uncommitted_bytes`, `max_inflight_bytes`, \
         `max_inflight_messages`, `lease_reads`\nfix: correct the name or remove the line"
    );
    let section = refusal("[raft]", "[rafts]");
    assert!(
        section.starts_with("cluster.toml, line 4: unknown field `rafts`, expected one of"),
        "{section}"
    );
    let in_node = refusal("id = 3", "id = 3\nrole = 'x'");
    assert!(
        in_node.starts_with("cluster.toml, line 21: unknown field `role`, expected one of"),
        "{in_node}"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_refused() {
    let fix = "fix: correct the line; kv-server --help shows an example";
    assert_eq!(
        refusal("heartbeat_interval_ms = 50", "heartbeat_interval_ms = \"50\""),
        format!("cluster.toml, line 5: invalid type: string \"50\", expected u64\n{fix}")
    );
    assert_eq!(
        refusal("snapshot_log_bytes = 1000", "snapshot_log_bytes = -1"),
        format!("cluster.toml, line 7: invalid value: integer `-1`, expected u64\n{fix}")
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let message = refusal("id = 2", "id = ");
    assert!(message.starts_with("cluster.toml, line 15: "), "{message}");
    assert!(
        message.ends_with("\nfix: correct the line; kv-server --help shows an example"),
        "{message}"
    );
    assert_eq!(message.lines().count(), 2);
}

fn cli(file: &Path) -> Cli {
    Cli {
        join: false,
        config: file.to_owned(),
        id: 1,
        check: false,
        overrides: Overrides::default(),
        log: crate::cli::LogOptions::default(),
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.toml");
    assert_eq!(
        Config::load(&cli(&missing)).unwrap_err().to_string(),
        format!(
            "{}: cannot be read: No such file or directory (os error 2)\n\
             fix: give the path of the cluster file with --config",
            missing.display()
        )
    );
    assert!(Config::load(&cli(directory.path())).is_err());
}

#[test]
fn a_file_is_loaded_unless_it_is_far_too_large() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(FILE.as_bytes()).unwrap();
    let expected = Config {
        file: file.path().to_path_buf(),
        ..parse(FILE).unwrap()
    };
    assert_eq!(Config::load(&cli(file.path())), Ok(expected));
    file.write_all(&vec![b'\n'; 1 << 20]).unwrap();
    let error = Config::load(&cli(file.path())).unwrap_err().to_string();
    assert!(error.contains("is larger than 1 MiB"), "{error}");
}

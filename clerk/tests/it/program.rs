//! The `clerk` program: what it prints and how it ends.

mod bench;

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};

use rpc::client::{BusyReason, Consistency, KvError};
use rpc::hello::PROTOCOL_VERSION;
use serde_json::Value;

use crate::fake::{Cluster, Step, stranger};

fn command(endpoints: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerk"));
    command
        .env("CLERK_ENDPOINTS", endpoints.join(","))
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null());
    command
}

/// Runs the program against the cluster without holding up the cluster's tasks.
async fn run(cluster: &Cluster, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Ended {
    feed(cluster, arguments, Vec::new()).await
}

async fn feed(
    cluster: &Cluster,
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
    stdin: Vec<u8>,
) -> Ended {
    let mut command = command(&cluster.endpoints());
    command.args(arguments.into_iter().map(Into::into));
    tokio::task::spawn_blocking(move || feed_command(command, stdin))
        .await
        .unwrap()
}

fn feed_command(mut command: Command, stdin: Vec<u8>) -> Ended {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // The program may stop reading before the end.
        let _ = input.write_all(&stdin);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ended(output)
}

struct Ended(Output);

impl Ended {
    fn status(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    fn stdout(&self) -> &str {
        std::str::from_utf8(&self.0.stdout).unwrap()
    }

    fn stderr(&self) -> &str {
        std::str::from_utf8(&self.0.stderr).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.0.stdout).unwrap()
    }

    fn json_lines(&self) -> Vec<Value> {
        self.stdout()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[track_caller]
    fn prints(&self, stdout: &str) {
        assert_eq!((self.status(), self.stdout(), self.stderr()), (0, stdout, ""));
    }

    #[track_caller]
    fn fails(&self, status: i32, message: &str) {
        assert_eq!(self.status(), status, "{}", self.stderr());
        assert!(self.stderr().starts_with("error: "), "{}", self.stderr());
        assert!(self.stderr().contains(message), "{}", self.stderr());
        assert!(!self.stderr().contains("panicked"), "{}", self.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn put_append_get_and_delete_do_and_print_what_the_help_says() {
    let cluster = Cluster::start(3).await;
    run(&cluster, ["put", "k", "v"]).await.prints("OK\n");
    run(&cluster, ["append", "k", "w"]).await.prints("OK\n");
    run(&cluster, ["get", "k"]).await.prints("vw\n");
    run(&cluster, ["get", "k", "--raw"]).await.prints("vw");
    run(&cluster, ["put", "negative", "-5"]).await.prints("OK\n");
    run(&cluster, ["put", "--", "-k", "--v"]).await.prints("OK\n");
    run(&cluster, ["get", "--", "-k"]).await.prints("--v\n");
    run(&cluster, ["delete", "k"]).await.prints("deleted\n");
    run(&cluster, ["delete", "k"]).await.fails(1, "key not found: k");
    let missing = run(&cluster, ["get", "k"]).await;
    missing.fails(1, "key not found: k");
    assert_eq!(missing.stdout(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_output_is_one_document_and_nothing_else_on_stdout() {
    let cluster = Cluster::start(3).await;
    let put = run(&cluster, ["--output", "json", "put", "k", "v"]).await;
    assert_eq!(put.json()["ok"], true);
    let get = run(&cluster, ["get", "k", "--output", "json"]).await;
    assert_eq!(
        (&get.json()["key"], &get.json()["value"]),
        (&"k".into(), &"v".into())
    );
    assert_eq!(get.json()["version"], put.json()["version"]);
    assert!(get.json()["applied_index"].is_u64() && get.json()["term"].is_u64());
    assert_eq!(
        run(&cluster, ["delete", "k", "--output", "json"]).await.json()["deleted"],
        true
    );
    let again = run(&cluster, ["delete", "k", "--output", "json"]).await;
    assert_eq!((again.status(), &again.json()["deleted"]), (1, &false.into()));
    let missing = run(&cluster, ["get", "k", "--output", "json"]).await;
    assert_eq!((missing.status(), &missing.json()["value"]), (1, &Value::Null));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_may_be_keys_and_values() {
    use std::os::unix::ffi::OsStrExt;

    let cluster = Cluster::start(1).await;
    let bytes = OsStr::from_bytes(&[0xff, b'k', 0x80]);
    run(&cluster, [OsStr::new("put"), bytes, bytes])
        .await
        .prints("OK\n");
    let raw = run(&cluster, [OsStr::new("get"), OsStr::new("--raw"), bytes]).await;
    assert_eq!(raw.0.stdout, bytes.as_bytes());
    let json = run(&cluster, [OsStr::new("get"), bytes, OsStr::new("--output=json")])
        .await
        .json();
    assert_eq!(
        (&json["key_base64"], &json["value_base64"]),
        (&"/2uA".into(), &"/2uA".into())
    );
    assert!(json.get("key").is_none() && json.get("value").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dash_reads_the_value_from_stdin_byte_for_byte() {
    let cluster = Cluster::start(1).await;
    let value: Vec<u8> = (0..=255).chain([0, 10, 13, 10]).collect();
    feed(&cluster, ["put", "k", "-"], value.clone())
        .await
        .prints("OK\n");
    feed(&cluster, ["append", "k", "-"], value.clone())
        .await
        .prints("OK\n");
    let raw = run(&cluster, ["get", "k", "--raw"]).await;
    assert_eq!(raw.0.stdout, [value.clone(), value].concat());
    feed(&cluster, ["put", "k", "-"], Vec::new()).await.prints("OK\n");
    run(&cluster, ["get", "k"]).await.prints("\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_past_their_limits_end_in_status_2_and_name_the_limit() {
    let cluster = Cluster::start(1).await;
    let long = "k".repeat(4_097);
    run(&cluster, ["put", &long, "v"])
        .await
        .fails(2, "the key has 4097 bytes: the limit is 4096");
    run(&cluster, ["get", ""])
        .await
        .fails(2, "the key is empty: it must have 1 to 4096 bytes");
    let huge = vec![b'v'; (1 << 20) + 1];
    feed(&cluster, ["put", "k", "-"], huge.clone())
        .await
        .fails(2, "the limit is 1048576");
    feed(&cluster, ["put", "k", "-"], huge[1..].to_vec())
        .await
        .prints("OK\n");
    run(&cluster, ["append", "k", "x"])
        .await
        .fails(2, "the value has 1048577 bytes: the limit is 1048576");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_ends_in_status_2_and_help_in_0() {
    let cluster = Cluster::start(1).await;
    let wrong: &[&[&str]] = &[
        &["no-such-command"],
        &["put", "k"],
        &["put", "k", "v", "w"],
        &["--timeout", "5", "status"],
        &["--timeout", "0s", "status"],
        &["--output", "yaml", "status"],
        &["--endpoints", "nowhere", "status"],
        &["--endpoints", "", "status"],
        &["get", "k", "--consistency", "eventual"],
        &["scan", "--prefix", "a", "--from", "b"],
        &["bench", "--clients", "0"],
        &["completions", "tcsh"],
        &["import", "/no/such/file"],
    ];
    for arguments in wrong {
        run(&cluster, *arguments).await.fails(2, "");
    }
    for arguments in [vec!["--help"], vec!["help", "put"], vec!["--version"]] {
        assert_eq!(run(&cluster, arguments).await.status(), 0);
    }
    for command in [
        "put",
        "append",
        "get",
        "delete",
        "scan",
        "status",
        "import",
        "export",
        "bench",
        "completions",
    ] {
        let help = run(&cluster, [command, "--help"]).await;
        assert!(
            help.status() == 0 && help.stdout().contains("Examples:"),
            "{command}"
        );
    }
    assert!(cluster.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_ends_in_status_3_and_what_is_unknown_in_4() {
    let cluster = Cluster::start(3).await;
    cluster.lead(None);
    let hurried = ["--timeout", "300ms"];
    // Enough for the request to be out by then.
    let steady = ["--timeout", "3s"];
    run(&cluster, steady.into_iter().chain(["put", "k", "v"]))
        .await
        .fails(3, "the cluster has no leader");
    run(&cluster, steady.into_iter().chain(["get", "k"]))
        .await
        .fails(3, "not the leader");

    cluster.lead(Some(1));
    cluster.script(
        1,
        std::iter::once(Step::Serve).chain(std::iter::repeat_n(Step::Silence, 1_000)),
    );
    let unknown = run(&cluster, steady.into_iter().chain(["put", "k", "v"])).await;
    unknown.fails(4, "outcome unknown");

    cluster.forget_scripts();
    cluster.script(1, [Step::Serve, Step::ServeThenSay(KvError::OutcomeUnknown)]);
    cluster.script(1, [Step::Refuse(KvError::SessionExpired)]);
    run(&cluster, ["put", "k", "v"])
        .await
        .fails(4, "the session ended");

    for id in 1..=3 {
        cluster.stop(id).await;
    }
    run(&cluster, hurried.into_iter().chain(["put", "k", "v"]))
        .await
        .fails(3, "is the cluster running?");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_asks_for_the_consistency_it_is_told() {
    let cluster = Cluster::start(1).await;
    run(&cluster, ["put", "k", "v"]).await.prints("OK\n");
    cluster.world().seen.clear();
    let levels = [
        ("linearizable", Consistency::Linearizable),
        ("lease", Consistency::Lease),
        ("log", Consistency::Log),
        ("stale", Consistency::Stale),
    ];
    for (name, _) in levels {
        run(&cluster, ["get", "k", "--consistency", name])
            .await
            .prints("v\n");
    }
    run(&cluster, ["get", "k"]).await.prints("v\n");
    let seen: Vec<_> = cluster
        .world()
        .seen
        .iter()
        .filter_map(|seen| seen.consistency)
        .collect();
    let expected: Vec<_> = levels
        .into_iter()
        .map(|(_, level)| level)
        .chain([Consistency::Linearizable])
        .collect();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn scan_prints_a_range_in_order_over_all_pages() {
    let cluster = Cluster::start(3).await;
    cluster.world().page_items = 2;
    for key in ["a/1", "a/2", "a/3", "b/1", "c"] {
        run(&cluster, ["put", key, &key.to_uppercase()])
            .await
            .prints("OK\n");
    }
    run(&cluster, ["scan"])
        .await
        .prints("a/1\tA/1\na/2\tA/2\na/3\tA/3\nb/1\tB/1\nc\tC\n");
    run(&cluster, ["scan", "--prefix", "a/", "--keys-only"])
        .await
        .prints("a/1\na/2\na/3\n");
    run(&cluster, ["scan", "--from", "a/3", "--to", "c"])
        .await
        .prints("a/3\tA/3\nb/1\tB/1\n");
    run(&cluster, ["scan", "--to", "a/2"]).await.prints("a/1\tA/1\n");
    run(&cluster, ["scan", "--limit", "3", "--keys-only"])
        .await
        .prints("a/1\na/2\na/3\n");
    run(&cluster, ["scan", "--limit", "0"]).await.prints("");
    run(&cluster, ["scan", "--from", "z"]).await.prints("");
    let items = run(&cluster, ["scan", "--prefix", "a/", "--output", "json"])
        .await
        .json_lines();
    assert_eq!(items.len(), 3);
    assert_eq!(
        (&items[1]["key"], &items[1]["value"]),
        (&"a/2".into(), &"A/2".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_lists_every_node_and_fails_only_if_none_can_be_reached() {
    let cluster = Cluster::start(3).await;
    cluster.stop(2).await;
    let table = run(&cluster, ["status"]).await;
    assert_eq!(table.status(), 0);
    let rows: Vec<Vec<&str>> = table
        .stdout()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows.iter().skip(1).map(|row| row[2]).collect::<Vec<_>>(),
        ["leader", "unreachable", "follower"]
    );

    let nodes = run(&cluster, ["--output", "json", "status"]).await.json();
    let nodes = nodes.as_array().unwrap();
    assert_eq!(
        nodes
            .iter()
            .map(|node| node["id"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(nodes[0]["role"], "leader");
    assert_eq!(nodes[0]["endpoint"], cluster.endpoint(1));
    let fields = [
        "leader_id",
        "term",
        "commit_index",
        "last_applied",
        "last_log_index",
        "snapshot_index",
        "keys",
        "version",
    ];
    for field in fields {
        assert!(!nodes[0][field].is_null(), "{field}");
        assert!(
            nodes[1].as_object().unwrap().contains_key(field) && nodes[1][field].is_null(),
            "{field}"
        );
    }
    assert_eq!(
        (&nodes[0]["reachable"], &nodes[1]["reachable"]),
        (&true.into(), &false.into())
    );

    cluster.stop(1).await;
    cluster.stop(3).await;
    let none = run(&cluster, ["--output", "json", "status"]).await;
    none.fails(3, "no node can be reached");
    assert_eq!(none.json().as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn export_then_import_reproduces_every_byte() {
    let cluster = Cluster::start(3).await;
    cluster.world().page_items = 50;
    let other = Cluster::start(3).await;
    let keys = (0..=255_u8)
        .map(|byte| vec![b'k', byte, b'"'])
        .chain([vec![0xff; 4_096], "ключ\n\t".into()]);
    let clerk = clerk::Clerk::connect(cluster.endpoints()).await.unwrap();
    for key in keys {
        let value: Vec<u8> = key.iter().rev().chain(&[0, 10, 92]).copied().collect();
        clerk.put(key, value).await.unwrap();
    }
    clerk.put("huge", vec![1; 1 << 20]).await.unwrap();

    let exported = run(&cluster, ["export"]).await;
    assert_eq!(exported.status(), 0);
    assert!(
        exported.stderr().starts_with("exported 259 keys in "),
        "{}",
        exported.stderr()
    );
    assert!(exported.json_lines().iter().all(Value::is_object));
    let imported = feed(&other, ["import", "-"], exported.0.stdout.clone()).await;
    assert!(
        imported.stdout().starts_with("imported 259 keys in "),
        "{}",
        imported.stdout()
    );
    let values = |cluster: &Cluster| -> Vec<_> {
        cluster
            .world()
            .map
            .iter()
            .map(|(key, found)| (key.clone(), found.value.clone()))
            .collect()
    };
    assert!(values(&cluster) == values(&other));

    let summary = feed(
        &other,
        ["import", "-", "--output", "json"],
        exported.0.stdout.clone(),
    )
    .await
    .json();
    assert_eq!(summary["count"], 259);
    assert!(summary["seconds"].is_f64() && summary["rate"].is_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn import_reads_a_file_and_export_writes_one() {
    let cluster = Cluster::start(1).await;
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (
        directory.path().join("from.jsonl"),
        directory.path().join("to.jsonl"),
    );
    std::fs::write(
        &from,
        "{\"key\": \"a\", \"value\": \"1\"}\n\n{\"value\": \"2\", \"key\": \"b\"}",
    )
    .unwrap();
    let imported = run(&cluster, [OsStr::new("import"), from.as_os_str()]).await;
    assert!(
        imported.stdout().starts_with("imported 2 keys in "),
        "{}",
        imported.stdout()
    );
    assert_eq!(imported.stderr(), "");
    let exported = run(
        &cluster,
        [OsStr::new("export"), OsStr::new("--prefix=b"), to.as_os_str()],
    )
    .await;
    assert!(
        exported.stdout().starts_with("exported 1 keys in "),
        "{}",
        exported.stdout()
    );
    assert_eq!(
        std::fs::read_to_string(to).unwrap(),
        "{\"key\":\"b\",\"value\":\"2\"}\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn export_follows_links_and_keeps_the_permissions_of_what_it_replaces() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let cluster = Cluster::start(1).await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    run(&cluster, ["put", "k", "v"]).await.prints("OK\n");
    std::fs::write(at("secret"), "old").unwrap();
    std::fs::set_permissions(at("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("secret", at("link")).unwrap();
    symlink("new", at("dangling")).unwrap();
    std::fs::write(at("secret.partial"), "the user's own").unwrap();
    for (link, target) in [("link", "secret"), ("dangling", "new")] {
        let exported = run(&cluster, [OsStr::new("export"), at(link).as_os_str()]).await;
        assert_eq!(exported.status(), 0, "{}", exported.stderr());
        assert!(at(link).is_symlink());
        let text = std::fs::read_to_string(at(target)).unwrap();
        assert_eq!(text, "{\"key\":\"k\",\"value\":\"v\"}\n");
    }
    let mode = std::fs::metadata(at("secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let own = std::fs::read_to_string(at("secret.partial")).unwrap();
    assert_eq!(own, "the user's own");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn import_does_lines_with_one_key_in_their_order() {
    let cluster = Cluster::start(3).await;
    let lines: String = (0..3_000)
        .map(|n| format!("{{\"key\": \"k{}\", \"value\": \"{n}\"}}\n", n % 3))
        .collect();
    let imported = feed(&cluster, ["import", "-"], lines.into_bytes()).await;
    assert!(
        imported.stdout().starts_with("imported 3000 keys"),
        "{}",
        imported.stderr()
    );
    run(&cluster, ["scan"])
        .await
        .prints("k0\t2997\nk1\t2998\nk2\t2999\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_holds_a_line_back_while_an_earlier_one_with_its_key_is_tried_again() {
    let cluster = Cluster::start(1).await;
    let busy = Step::Refuse(KvError::Busy(BusyReason::UncommittedBytes));
    cluster.script(1, [Step::Serve, busy]);
    let lines = "{\"key\": \"k\", \"value\": \"first\"}\n{\"key\": \"k\", \"value\": \"second\"}\n";
    let imported = feed(&cluster, ["import", "-"], lines.into()).await;
    assert_eq!(imported.status(), 0);
    run(&cluster, ["get", "k"]).await.prints("second\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_stops_at_the_first_bad_line_and_all_lines_before_are_in() {
    let cluster = Cluster::start(3).await;
    for bad in [
        "not json",
        "{\"key\": \"k\"}",
        "{\"key\": \"\", \"value\": \"v\"}",
        "{\"key\": \"\\ud800\", \"value\": \"\"}",
    ] {
        cluster.world().map.clear();
        let mut lines: String = (1..=99)
            .map(|n| format!("{{\"key\": \"k{n}\", \"value\": \"\"}}\n"))
            .collect();
        lines.push_str(bad);
        lines.push_str("\n{\"key\": \"after\", \"value\": \"\"}\n");
        let stopped = feed(&cluster, ["import", "-"], lines.into_bytes()).await;
        stopped.fails(2, "error: line 100: ");
        assert!(
            stopped.stderr().contains("the lines before line 100 are in"),
            "{}",
            stopped.stderr()
        );
        assert!(cluster.world().map.len() >= 99, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn import_refuses_a_line_without_end_before_it_fills_the_memory() {
    let cluster = Cluster::start(1).await;
    let stopped = feed(&cluster, ["import", "-"], vec![b' '; 8 << 20]).await;
    stopped.fails(2, "error: line 1: the line has over");
}

/// Of protocol version 99, whatever its verdict says.
const OF_VERSION_99: &[u8] = b"KVRA\x00\x63\x2a\x03\x00\x00\x00\x00\x00\x00\x00\x09abc";
/// As a port for peers answers a client.
fn peer_port() -> Vec<u8> {
    let verdict = b"\x04\x03\x00\x00\x00\x00\x00\x00\x00\x09abc";
    [b"KVRA".as_slice(), &PROTOCOL_VERSION.to_be_bytes(), verdict].concat()
}
const WEB_SERVER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";

async fn with_endpoints(endpoints: &[String], arguments: &[&str]) -> Ended {
    let mut command = command(endpoints);
    command.args(arguments);
    tokio::task::spawn_blocking(move || feed_command(command, Vec::new()))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_endpoint_is_a_server_of_this_release_it_ends_at_once_and_says_what_is_there() {
    for (answer, told) in [
        (
            OF_VERSION_99,
            format!("protocol version 99 there, {PROTOCOL_VERSION} here"),
        ),
        (peer_port().as_slice(), "clients call client_addr".to_owned()),
        (WEB_SERVER, "is not a server of this kind".to_owned()),
    ] {
        let endpoints = [stranger(answer).await, stranger(answer).await];
        for arguments in [
            ["get", "k", "--timeout", "1h"].as_slice(),
            &["put", "k", "v", "--timeout", "1h"],
        ] {
            let ended = with_endpoints(&endpoints, arguments).await;
            ended.fails(3, &told);
            assert!(
                ended.stderr().contains("client ports (client_addr)"),
                "{}",
                ended.stderr()
            );
            assert!(
                !ended.stderr().contains("is the cluster running"),
                "{}",
                ended.stderr()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_are_no_servers_of_this_release_are_passed_over_for_those_that_are() {
    let cluster = Cluster::start(1).await;
    let mut endpoints = vec![
        stranger(OF_VERSION_99).await,
        stranger(&peer_port()).await,
        stranger(WEB_SERVER).await,
    ];
    endpoints.extend(cluster.endpoints());
    with_endpoints(&endpoints, &["put", "k", "v"])
        .await
        .prints("OK\n");
    with_endpoints(&endpoints, &["get", "k"]).await.prints("v\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_tells_of_no_lines_before_the_first() {
    let cluster = Cluster::start(1).await;
    let first = feed(&cluster, ["import", "-"], b"not json\n".to_vec()).await;
    first.fails(2, "error: line 1: ");
    assert!(!first.stderr().contains("before"), "{}", first.stderr());

    let lines = b"{\"key\": \"k\", \"value\": \"v\"}\nnot json\n".to_vec();
    let second = feed(&cluster, ["import", "-"], lines).await;
    second.fails(2, "error: line 2: ");
    assert!(second.stderr().contains("line 1 is in"), "{}", second.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn import_that_the_cluster_does_not_take_says_how_far_it_got() {
    let cluster = Cluster::start(3).await;
    cluster.lead(None);
    let line = b"{\"key\": \"k\", \"value\": \"v\"}\n".to_vec();
    let stopped = feed(&cluster, ["import", "-", "--timeout", "200ms"], line).await;
    stopped.fails(3, "error: line 1: not done");

    let mut to_nobody = command(&["127.0.0.1:1".to_owned()]);
    to_nobody.args(["import", "-", "--timeout", "200ms"]);
    let stopped = feed_command(to_nobody, b"{\"key\": \"k\", \"value\": \"v\"}\n".to_vec());
    stopped.fails(3, "error: line 1: not done");
    for advice in ["CLERK_ENDPOINTS", "importing the lines again does no harm"] {
        assert!(stopped.stderr().contains(advice), "{}", stopped.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_fails_leaves_nothing_behind_and_the_older_file_as_it_was() {
    let cluster = Cluster::start(3).await;
    cluster.lead(None);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kept.jsonl");
    std::fs::write(&file, "older").unwrap();
    let words = [
        OsStr::new("--timeout=200ms"),
        OsStr::new("export"),
        file.as_os_str(),
    ];
    run(&cluster, words).await.fails(3, "not done");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "older");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_endpoint_is_told_by_where_it_came_from() {
    let bad = ["no port".to_owned()];
    let of_variable = feed_command(
        {
            let mut command = command(&bad);
            command.arg("status");
            command
        },
        Vec::new(),
    );
    of_variable.fails(2, "error: CLERK_ENDPOINTS: ");
    let mut of_flag = command(&bad);
    of_flag.args(["--endpoints", "no port", "status"]);
    let of_flag = feed_command(of_flag, Vec::new());
    assert!(
        !of_flag.stderr().contains("CLERK_ENDPOINTS"),
        "{}",
        of_flag.stderr()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_scripts_for_each_shell() {
    let cluster = Cluster::start(1).await;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&cluster, ["completions", shell]).await;
        assert!(
            script.status() == 0 && script.stdout().contains("clerk"),
            "{shell}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_the_program_quietly() {
    let cluster = Cluster::start(1).await;
    let clerk = clerk::Clerk::connect(cluster.endpoints()).await.unwrap();
    for n in 0..3 {
        clerk.put(format!("k{n}"), vec![b'v'; 1 << 20]).await.unwrap();
    }
    for arguments in [
        vec!["scan"],
        vec!["get", "k0"],
        vec!["export"],
        vec!["scan", "--output", "json"],
    ] {
        let mut command = command(&cluster.endpoints());
        command
            .args(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (status, said) = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let mut first = [0];
            let mut stdout = BufReader::with_capacity(1, child.stdout.take().unwrap());
            stdout.read_exact(&mut first).unwrap();
            drop(stdout);
            let said = BufReader::new(child.stderr.take().unwrap())
                .lines()
                .map(Result::unwrap)
                .collect::<String>();
            (child.wait().unwrap().code(), said)
        })
        .await
        .unwrap();
        assert_eq!((status, said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

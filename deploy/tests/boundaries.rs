//! Which crate may depend on which. `cargo tree` says what is compiled for each, by any path.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say so and fail"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The crates of this workspace.
const OURS: [&str; 9] = [
    "raft-core",
    "skiplist",
    "storage",
    "faulty-disk",
    "rpc",
    "kv-server",
    "clerk",
    "deploy",
    "sim",
];

/// Asks cargo for the names of all that is compiled for `package`, itself left out.
fn compiled_for(package: &str, options: &[&str]) -> BTreeSet<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}", "--package", package])
        .args(options)
        .current_dir(workspace)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    // A line is `name vVERSION (where)`.
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != package).map(str::to_owned).collect()
}

#[track_caller]
fn assert_without(package: &str, options: &[&str], forbidden: &[&str]) {
    let compiled = compiled_for(package, options);
    let found: Vec<_> = forbidden
        .iter()
        .filter(|name| compiled.contains(**name))
        .collect();
    assert!(found.is_empty(), "{package} must not depend on {found:?}");
}

/// The crates of this workspace except `allowed`.
fn ours_except(allowed: &[&str]) -> Vec<&'static str> {
    OURS.into_iter().filter(|name| !allowed.contains(name)).collect()
}

#[test]
fn the_tree_of_this_crate_is_seen() {
    let compiled = compiled_for("deploy", &[]);
    for name in ["clerk", "kv-server", "raft-core", "actix", "sled", "tokio"] {
        assert!(
            compiled.contains(name),
            "{name} is missing: the checks below would see nothing"
        );
    }
}

#[test]
fn raft_core_is_pure() {
    assert_without(
        "raft-core",
        &[],
        &[
            "tokio",
            "actix",
            "actix-rt",
            "tarpc",
            "sled",
            "futures-util",
            "rpc",
        ],
    );
    assert_without("raft-core", &[], &ours_except(&["raft-core"]));
}

#[test]
fn faulty_disk_knows_none_of_ours_and_is_in_no_program() {
    assert_without("faulty-disk", &[], &ours_except(&["faulty-disk"]));
    for package in ours_except(&["faulty-disk"]) {
        assert_without(package, &[], &["faulty-disk", "fuser"]);
    }
}

#[test]
fn skiplist_knows_none_of_ours() {
    assert_without("skiplist", &[], &ours_except(&["skiplist"]));
}

#[test]
fn rpc_knows_neither_servers_nor_clients_nor_disks() {
    assert_without("rpc", &[], &["actix", "actix-rt", "sled"]);
    assert_without("rpc", &[], &ours_except(&["rpc", "raft-core"]));
}

#[test]
fn storage_knows_no_network_and_no_actors() {
    assert_without("storage", &[], &["actix", "actix-rt", "tarpc"]);
    assert_without("storage", &[], &ours_except(&["storage", "raft-core"]));
}

#[test]
fn kv_server_does_not_know_its_client() {
    assert_without("kv-server", &[], &["clerk", "deploy", "sim"]);
}

#[test]
fn clerk_knows_no_server() {
    assert_without("clerk", &[], &["actix", "actix-rt", "sled"]);
    assert_without("clerk", &[], &ours_except(&["clerk", "rpc", "raft-core"]));
}

#[test]
fn an_application_that_embeds_clerk_compiles_nothing_of_its_command_line() {
    let command_line = ["clap", "clap_complete", "indicatif", "hdrhistogram"];
    assert_without("clerk", &["--no-default-features"], &command_line);
}

#[test]
fn deploy_compiles_no_client_of_another_store_unless_asked() {
    assert_without("deploy", &[], &["etcd-client", "tonic", "prost"]);
}

#[test]
fn nothing_depends_on_deploy_or_sim() {
    for package in ours_except(&["deploy", "sim"]) {
        assert_without(package, &[], &["deploy", "sim"]);
    }
}

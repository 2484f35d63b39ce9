//! The configurations that stand beside the unit file, the compose file and the Kubernetes manifest.

use std::path::Path;
use std::process::{Command, Output};

/// What `kv-server --check` says to a shipped file, for one node.
fn check(file: &str, id: u64) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let mut command = Command::new(env!("CARGO_BIN_EXE_deploy"));
    command
        .args(["node", "--", "--check", "--id", &id.to_string(), "--config"])
        .arg(path);
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run deploy: {error}"))
}

#[test]
fn every_shipped_configuration_is_accepted_for_each_of_its_nodes() {
    for file in [
        "systemd/cluster.toml",
        "docker/cluster.toml",
        "kubernetes/cluster.toml",
    ] {
        for id in 1..=3 {
            let output = check(file, id);
            assert!(
                output.status.success(),
                "{file}, node {id}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        assert_eq!(check(file, 4).status.code(), Some(2), "{file} has a node 4");
    }
}

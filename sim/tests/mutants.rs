//! The mutants still fit the tree: each patch says what it breaks, and can be applied.
//!
//! That each of them is caught shows `sim/mutants/run`, which takes too long for here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
}

fn patches() -> Vec<PathBuf> {
    let folder = root().join("sim/mutants");
    let entries = fs::read_dir(folder).expect("the mutants are there");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut patches: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "patch"))
        .collect();
    patches.sort();
    patches
}

#[test]
fn every_mutant_names_the_rule_that_it_breaks_and_the_tests_that_concern_it() {
    let patches = patches();
    assert!(patches.len() >= 20, "only {} mutants", patches.len());
    for path in patches {
        let text = fs::read_to_string(&path).expect("a patch is text");
        let header: Vec<&str> = text
            .lines()
            .take_while(|line| !line.starts_with("--- "))
            .collect();
        for key in ["Rule: ", "Reference: ", "Tests: -p "] {
            assert!(
                header.iter().any(|line| line.starts_with(key)),
                "{} has no line \"{key}…\"",
                path.display()
            );
        }
    }
}

#[test]
fn every_mutant_can_be_applied() {
    if Command::new("git").arg("--version").output().is_err() {
        println!("skipped: there is no git to apply the mutants with");
        return;
    }
    for path in patches() {
        let output = Command::new("git")
            .args(["apply", "--check"])
            .arg(&path)
            .current_dir(root())
            // If the folder is part of a larger repository, that must not matter.
            .env("GIT_CEILING_DIRECTORIES", root().parent().unwrap_or(root()))
            .output()
            .expect("git was there just now");
        assert!(
            output.status.success(),
            "{} does not fit any more; change the tree as it should and write `git diff` into it:\n{}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

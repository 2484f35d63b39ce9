//! What is in the repository fits together: links in its documents lead somewhere, and every test is run.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say so and fail"
)]

use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The files below `directory` whose names end so, but for what is built and what is hidden.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
    found
}

/// What `[...](HERE)` of a document names in the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains(':') && !target.contains(' '))
        .filter_map(|target| target.split('#').next())
        .filter(|path| !path.is_empty())
}

#[test]
fn links_in_documents_lead_somewhere() {
    let documents = files(repository(), "md");
    let mut followed = 0;
    for document in &documents {
        for path in links(&fs::read_to_string(document).unwrap()) {
            let target = document.parent().unwrap().join(path);
            assert!(target.exists(), "{}: {path} is not there", document.display());
            followed += 1;
        }
    }
    assert!(followed > 50, "{followed} links in {} documents", documents.len());
}

/// Where a crate puts its tests into programs of its own choice, a file that nobody names would never be run.
#[test]
fn every_file_of_tests_belongs_to_a_program() {
    let mut checked = 0;
    for manifest in files(repository(), "toml") {
        let (tests, manifest) = (
            manifest.with_file_name("tests"),
            fs::read_to_string(manifest).unwrap(),
        );
        if !manifest.contains("\nautotests = false\n") {
            continue;
        }
        let files = files(&tests, "rs");
        let texts: Vec<_> = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        let main = fs::read_to_string(tests.join("main.rs")).unwrap();
        for file in &files {
            let mut path = file.strip_prefix(&tests).unwrap().with_extension("");
            if path.ends_with("mod") || path.ends_with("main") {
                path.pop();
            }
            let name = path.file_name().unwrap_or("main".as_ref()).to_string_lossy();
            let declares = |text: &str| {
                let declaration = format!("mod {name};");
                text.contains(&format!("/{name}.rs\"]"))
                    || text.lines().any(|line| line.trim().ends_with(&declaration))
            };
            let is_named = match path.components().count() {
                0 => manifest.contains("\npath = \"tests/main.rs\"\n"),
                1 => declares(&main) || manifest.contains(&format!("\nname = \"{name}\"\n")),
                _ => texts.iter().any(|text| declares(text)),
            };
            assert!(is_named, "{} is in no program", file.display());
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked} files");
}

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

/// Where a crate puts its tests into one program, a file that nobody names would never be run.
#[test]
fn every_file_of_tests_belongs_to_a_program() {
    let crates = files(repository(), "toml").into_iter().filter_map(|manifest| {
        let text = fs::read_to_string(&manifest).unwrap();
        text.contains("\nautotests = false\n")
            .then(|| (manifest.parent().unwrap().join("tests"), text))
    });
    let mut checked = 0;
    for (tests, manifest) in crates {
        for file in files(&tests, "rs") {
            let (directory, name) = (
                file.parent().unwrap(),
                file.file_stem().unwrap().to_string_lossy(),
            );
            let is_named = match &*name {
                "main" => manifest.contains("\"tests/main.rs\"") || directory != tests,
                "mod" => true,
                _ => {
                    let parents = [
                        directory.join("main.rs"),
                        directory.join("mod.rs"),
                        directory.with_extension("rs"),
                    ];
                    let declaration = format!("mod {name};");
                    let is_program =
                        directory == tests && manifest.contains(&format!("\nname = \"{name}\"\n"));
                    is_program
                        || parents.iter().any(|parent| {
                            let text = fs::read_to_string(parent).unwrap_or_default();
                            text.lines().any(|line| line.trim().ends_with(&declaration))
                        })
                }
            };
            assert!(is_named, "{} is in no program", file.display());
            checked += 1;
        }
        for directory in fs::read_dir(&tests).unwrap().map(|entry| entry.unwrap().path()) {
            let name = directory.file_name().unwrap().to_string_lossy().into_owned();
            if directory.join("mod.rs").exists() {
                let main = fs::read_to_string(tests.join("main.rs")).unwrap();
                assert!(
                    main.contains(&format!("mod {name};\n")),
                    "{name} is in no program"
                );
            }
        }
    }
    assert!(checked > 30, "{checked} files");
}

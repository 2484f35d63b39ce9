use tempfile::TempDir;

use super::*;

fn arguments(dir: &Path) -> UpArguments {
    UpArguments {
        nodes: None,
        dir: dir.to_owned(),
        base_port: None,
        fresh: false,
        snapshot_log_bytes: None,
    }
}

fn fresh(dir: &Path) -> UpArguments {
    UpArguments {
        fresh: true,
        ..arguments(dir)
    }
}

fn open(arguments: &UpArguments) -> Result<Directory, Error> {
    Directory::open(arguments, |_, _| Ok(()))
}

/// A directory in which a cluster of three has run.
fn used() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    open(&arguments(dir.path())).unwrap();
    for id in 1..=3 {
        let node = node_dir(dir.path(), id);
        fs::create_dir_all(node.join("data")).unwrap();
        fs::write(node.join("log"), "a line\n").unwrap();
        fs::write(node.join("pid"), "1\n").unwrap();
    }
    dir
}

fn refusal(arguments: &UpArguments) -> String {
    let error = open(arguments).unwrap_err();
    assert_eq!(error.exit_status(), 2, "{error}");
    error.to_string()
}

#[test]
fn a_new_directory_gets_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(&arguments(&dir.path().join("not/there/yet"))).unwrap();
    assert!(opened.is_new());
    assert_eq!(
        opened.file().endpoints(),
        "127.0.0.1:7102,127.0.0.1:7112,127.0.0.1:7122"
    );
}

#[test]
fn an_existing_cluster_is_used_again_as_its_edited_file_says() {
    let dir = used();
    let path = dir.path().join(FILE_NAME);
    let edited = fs::read_to_string(&path)
        .unwrap()
        .replace("# snapshot_log_bytes = 67108864", "snapshot_log_bytes = 9");
    fs::write(&path, &edited).unwrap();
    let opened = open(&arguments(dir.path())).unwrap();
    assert!(!opened.is_new());
    assert_eq!(opened.file().raft.snapshot_log_bytes, Some(9));
    assert_eq!(fs::read_to_string(&path).unwrap(), edited);
}

#[test]
fn options_that_agree_with_the_file_are_accepted() {
    let dir = used();
    let agreeing = UpArguments {
        nodes: Some(3),
        base_port: Some(7100),
        ..arguments(dir.path())
    };
    assert!(open(&agreeing).is_ok());
}

#[test]
fn options_that_contradict_the_file_are_refused_by_name() {
    let dir = used();
    let nodes = UpArguments {
        nodes: Some(5),
        ..arguments(dir.path())
    };
    assert!(refusal(&nodes).contains("--nodes"));
    let base_port = UpArguments {
        base_port: Some(9000),
        ..arguments(dir.path())
    };
    assert!(refusal(&base_port).contains("--base-port"));
    let snapshot = UpArguments {
        snapshot_log_bytes: Some(5),
        ..arguments(dir.path())
    };
    assert!(refusal(&snapshot).contains("--snapshot-log-bytes"));
}

#[test]
fn a_directory_in_use_is_refused_to_a_second_user_even_a_fresh_one() {
    let dir = used();
    let first = open(&arguments(dir.path())).unwrap();
    for second in [arguments(dir.path()), fresh(dir.path())] {
        assert!(matches!(open(&second), Err(Error::DirectoryInUse { .. })));
    }
    assert!(node_dir(dir.path(), 1).join("data").exists());
    drop(first);
    assert!(open(&arguments(dir.path())).is_ok());
}

#[test]
fn fresh_deletes_the_cluster_and_leaves_other_files_alone() {
    let dir = used();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let opened = open(&UpArguments {
        nodes: Some(1),
        ..fresh(dir.path())
    })
    .unwrap();
    assert!(opened.is_new());
    assert_eq!(opened.file().nodes.len(), 1);
    assert!(!node_dir(dir.path(), 1).exists());
    assert_eq!(fs::read_to_string(dir.path().join("notes.txt")).unwrap(), "mine");
}

#[test]
fn fresh_deletes_nothing_when_the_new_cluster_cannot_start() {
    let dir = used();
    let refused = Directory::open(&fresh(dir.path()), |_, _| Err(Error::Interrupted));
    assert!(matches!(refused, Err(Error::Interrupted)));
    assert!(node_dir(dir.path(), 1).join("data").exists());
    assert!(open(&arguments(dir.path())).is_ok());
}

#[test]
fn a_directory_that_was_made_for_nothing_goes_again() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("not/there/yet");
    assert!(
        refusal(&UpArguments {
            nodes: Some(9_999),
            ..arguments(&new)
        })
        .contains("port")
    );
    assert!(!dir.path().join("not").exists());
}

#[test]
fn fresh_in_an_empty_directory_begins_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open(&fresh(dir.path())).unwrap().is_new());
}

#[test]
fn fresh_refuses_a_directory_that_up_did_not_make() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    assert!(refusal(&fresh(dir.path())).contains("thesis.tex"));

    fs::write(dir.path().join(FILE_NAME), "cluster_id = \"production\"\n").unwrap();
    assert!(refusal(&fresh(dir.path())).contains("does not begin with"));
    assert!(dir.path().join("thesis.tex").exists());
}

#[test]
fn fresh_deletes_nothing_when_a_node_folder_holds_a_strangers_file() {
    let dir = used();
    fs::write(node_dir(dir.path(), 3).join("backup.tar"), "precious").unwrap();
    assert!(refusal(&fresh(dir.path())).contains("backup.tar"));
    for id in 1..=3 {
        assert!(node_dir(dir.path(), id).join("data").exists());
    }
}

#[test]
fn a_directory_that_was_moved_is_refused_rather_than_started_without_its_data() {
    let dir = used();
    let parent = tempfile::tempdir().unwrap();
    let moved = parent.path().join("moved");
    fs::rename(dir.path(), &moved).unwrap();
    assert!(refusal(&arguments(&moved)).contains("data_dir"));
}

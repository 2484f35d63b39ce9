//! The disk as programs see it, through the operating system.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use faulty_disk::{Disk, Failure, Fault, Mount, Operation, Survival};

/// `None`, with the reason printed, where nothing can be mounted.
fn mounted(disk: &Disk) -> Option<Mount> {
    disk.mount().map_err(|unavailable| println!("{unavailable}")).ok()
}

fn content(disk: &Disk, path: &str, survival: Survival) -> Option<Vec<u8>> {
    Some(disk.after_power_loss(survival).file(Path::new(path))?.bytes())
}

fn fault(operation: Operation, failure: Failure) -> Fault {
    Fault {
        operation: Some(operation),
        after: 0,
        failure,
        lasting: false,
    }
}

#[test]
fn files_and_directories_are_what_was_made_of_them() {
    let disk = Disk::new();
    let Some(mount) = mounted(&disk) else { return };
    let top = mount.path();
    fs::create_dir_all(top.join("a/b")).unwrap();
    let data: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 253) as u8).collect();
    fs::write(top.join("a/b/large"), &data).unwrap();
    assert_eq!(fs::read(top.join("a/b/large")).unwrap(), data);
    fs::rename(top.join("a/b/large"), top.join("a/b/other")).unwrap();
    let file = File::options()
        .read(true)
        .write(true)
        .open(top.join("a/b/other"))
        .unwrap();
    file.set_len(10).unwrap();
    file.write_all_at(b"XY", 4).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
    assert_eq!(fs::read(top.join("a/b/other")).unwrap()[4..6], *b"XY");
    assert_eq!(
        fs::remove_dir(top.join("a")).unwrap_err().kind(),
        ErrorKind::DirectoryNotEmpty
    );
    assert_eq!(
        File::create_new(top.join("a/b/other")).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    fs::remove_dir_all(top.join("a")).unwrap();
    assert!(fs::read_dir(top).unwrap().next().is_none());
}

#[test]
fn a_lock_is_held_until_its_file_is_closed() {
    let disk = Disk::new();
    let Some(mount) = mounted(&disk) else { return };
    let path = mount.path().join("lock");
    let held = File::create(&path).unwrap();
    held.try_lock().unwrap();
    let other = File::open(&path).unwrap();
    assert!(other.try_lock().is_err());
    drop(held);
    other.try_lock().unwrap();
}

#[test]
fn only_what_was_synced_survives_and_a_recording_visits_every_point() {
    let disk = Disk::new().recording();
    let Some(mount) = mounted(&disk) else { return };
    let path = mount.path().join("f");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"one").unwrap();
    file.sync_data().unwrap();
    assert_eq!(content(&disk, "f", Survival::Nothing), None);
    File::open(mount.path()).unwrap().sync_all().unwrap();
    assert_eq!(content(&disk, "f", Survival::Nothing), Some(b"one".to_vec()));
    file.write_all(b"two").unwrap();
    assert_eq!(content(&disk, "f", Survival::Nothing), Some(b"one".to_vec()));
    assert_eq!(
        content(&disk, "f", Survival::Everything),
        Some(b"onetwo".to_vec())
    );

    let mut replay = disk.replay();
    let mut seen = vec![content(&replay.disk(), "f", Survival::Nothing)];
    while replay.step().is_some() {
        seen.push(content(&replay.disk(), "f", Survival::Nothing));
    }
    // Create, write, sync, sync of the directory, write.
    assert_eq!(seen.iter().filter(|state| state.is_none()).count(), 4);
    assert_eq!(seen.len(), 6);
}

#[test]
fn a_file_opened_for_synchronous_writes_is_durable_after_each() {
    use std::os::unix::fs::OpenOptionsExt as _;
    const O_DSYNC: i32 = 0o10000;
    let disk = Disk::new();
    let Some(mount) = mounted(&disk) else { return };
    let mut options = File::options();
    let mut file = options
        .create(true)
        .append(true)
        .custom_flags(O_DSYNC)
        .open(mount.path().join("f"))
        .unwrap();
    File::open(mount.path()).unwrap().sync_all().unwrap();
    file.write_all(b"one").unwrap();
    file.write_all(b"two").unwrap();
    assert_eq!(content(&disk, "f", Survival::Nothing), Some(b"onetwo".to_vec()));
}

#[test]
fn each_operation_fails_when_it_is_told_to_and_works_again_after() {
    let disk = Disk::new();
    let Some(mount) = mounted(&disk) else { return };
    let top = mount.path();
    let directory = || File::open(top).unwrap();
    let file = File::create(top.join("f")).unwrap();
    let attempts: [(Operation, &dyn Fn() -> std::io::Result<()>); 7] = [
        (Operation::Create, &|| File::create_new(top.join("g")).map(drop)),
        (Operation::Write, &|| file.write_all_at(b"bytes", 0)),
        (Operation::Resize, &|| file.set_len(100)),
        (Operation::Sync, &|| file.sync_data()),
        (Operation::SyncDirectory, &|| directory().sync_all()),
        (Operation::Rename, &|| fs::rename(top.join("g"), top.join("h"))),
        (Operation::Remove, &|| fs::remove_file(top.join("h"))),
    ];
    for (operation, attempt) in attempts {
        for (failure, code) in [(Failure::Io, 5), (Failure::NoSpace, 28)] {
            disk.arm(fault(operation, failure));
            assert_eq!(attempt().unwrap_err().raw_os_error(), Some(code), "{operation:?}");
            assert_eq!(disk.failed(), 1);
        }
        attempt().unwrap();
    }
}

#[test]
fn a_short_write_takes_half() {
    let disk = Disk::new();
    let Some(mount) = mounted(&disk) else { return };
    let mut file = File::create(mount.path().join("f")).unwrap();
    disk.arm(fault(Operation::Write, Failure::ShortWrite));
    assert_eq!(file.write(b"12345678").unwrap(), 4);
    assert_eq!(file.write(b"5678").unwrap(), 4);
    assert_eq!(
        content(&disk, "f", Survival::Everything),
        Some(b"12345678".to_vec())
    );
}

#[test]
fn a_mount_goes_when_its_owner_panics_and_when_files_are_open() {
    let disk = Disk::new();
    let Some(mount) = mounted(&disk) else { return };
    let path = mount.path().to_path_buf();
    let open = File::create(path.join("f")).unwrap();
    let panicked = std::thread::spawn(move || {
        let _mount = mount;
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(panicked.join().is_err());
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!table.contains(path.to_str().unwrap()));
    // Nobody waits for a disk that is gone.
    assert!(open.write_all_at(b"late", 0).is_err());
}

#[test]
fn a_disk_can_be_mounted_again_with_what_a_power_loss_left() {
    let disk = Disk::new();
    let Some(mount) = mounted(&disk) else { return };
    let directory = tempfile::tempdir().unwrap();
    fs::write(mount.path().join("f"), b"bytes").unwrap();
    fs::create_dir(mount.path().join("d")).unwrap();
    File::open(mount.path()).unwrap().sync_all().unwrap();
    File::open(mount.path().join("f")).unwrap().sync_all().unwrap();
    fs::write(mount.path().join("d/unsynced"), b"bytes").unwrap();
    drop(mount);
    let left = disk.after_power_loss(Survival::Nothing);
    let again = Disk::holding(&left);
    let mount = again.mount_on(directory.path()).unwrap();
    assert_eq!(fs::read(mount.path().join("f")).unwrap(), b"bytes");
    assert_eq!(fs::read_dir(mount.path().join("d")).unwrap().count(), 0);
    assert_eq!(again.after_power_loss(Survival::Nothing), left);
    let plain = tempfile::tempdir().unwrap();
    left.write_to(plain.path()).unwrap();
    assert_eq!(faulty_disk::Image::read_from(plain.path()).unwrap(), left);
}

//! Disks that fill up: each node has a file system of 64 MiB for itself.
//!
//! Mounting one takes privileges; without them the tests say "skipped" and pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rpc::client::{BusyReason, Consistency, KvError};

use crate::support::{Caller, Cluster, Server, wait_until};

const MIB: usize = 1 << 20;
const DISK_BYTES: u64 = 64 << 20;

/// A small file system; unmounted when dropped, also when the test fails.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: PathBuf) -> Option<Self> {
        fs::create_dir_all(&dir).unwrap();
        let size = format!("size={DISK_BYTES}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "full-disk-test"])
            .arg(&dir)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(dir))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves this many bytes free.
    fn fill_up_to(&self, free_bytes: usize) {
        let taken = usize::try_from(free_bytes_of(&self.0))
            .unwrap()
            .saturating_sub(free_bytes);
        fs::write(self.ballast(), vec![0; taken]).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: it goes even if a server has not quite ended.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn free_bytes_of(dir: &Path) -> u64 {
    let stat = rustix::fs::statvfs(dir).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// Three nodes that run, each on a disk of its own. The servers end before the disks go.
struct SmallCluster {
    servers: Vec<Server>,
    disks: Vec<SmallDisk>,
    cluster: Cluster,
    caller: Caller,
}

impl SmallCluster {
    fn start() -> Option<Self> {
        Self::with_settings("")
    }

    fn with_settings(settings: &str) -> Option<Self> {
        let cluster = Cluster::with_settings(3, settings);
        let disks: Option<Vec<_>> = (1..=3).map(|id| SmallDisk::mount(cluster.data_dir(id))).collect();
        let Some(disks) = disks else {
            eprintln!("skipped: mounting a tmpfs takes privileges that this user does not have");
            return None;
        };
        let servers = (1..=3).map(|id| cluster.start(id)).collect();
        Some(Self {
            servers,
            disks,
            cluster,
            caller: Caller::new(),
        })
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), KvError> {
        self.caller.begin_write();
        wait_until("a leader answers the put", || {
            let mut answers = self.cluster.client_addrs.iter();
            answers.find_map(|addr| match self.caller.put_at(*addr, key, value)? {
                Ok(()) => Some(Ok(())),
                Err(full @ KvError::Busy(BusyReason::DiskFull { .. })) => Some(Err(full)),
                Err(_) => None,
            })
        })
    }

    fn assert_all_run(&mut self) {
        for server in &mut self.servers {
            assert!(server.is_running(), "{}", server.log());
        }
    }
}

#[test]
fn one_full_disk_stops_nobody_and_its_node_comes_back_when_there_is_room() {
    let Some(mut small) = SmallCluster::start() else {
        return;
    };
    small.caller.append(&small.cluster, "k", "before");
    let full = small.caller.leader(&small.cluster, 3) - 1;
    small.disks[full].fill_up_to(MIB);
    wait_until("the full node has told", || {
        small.servers[full].log().contains("is full").then_some(())
    });
    let value = "x".repeat(MIB / 4);
    for number in 0..12 {
        small
            .caller
            .append(&small.cluster, &format!("key-{number}"), &value);
    }
    let leader = small.caller.leader(&small.cluster, 2) - 1;
    assert_ne!(leader, full, "the node with the full disk still leads");
    let at_full = small.cluster.client_addrs[full];
    let stale = small.caller.get_at(at_full, "key-11", Consistency::Stale);
    assert_eq!(stale.unwrap().unwrap(), None, "the full node took entries");
    small.assert_all_run();

    small.disks[full].make_room();
    wait_until("the node has caught up", || {
        small.caller.get_at(at_full, "key-11", Consistency::Stale)?.ok()?
    });
    wait_until("the full node has told that it has room", || {
        let log = small.servers[full].log();
        log.contains("has room again").then_some(())
    });
}

#[test]
fn full_disks_refuse_writes_before_they_are_full_lose_nothing_and_serve_again() {
    let Some(mut small) = SmallCluster::start() else {
        return;
    };
    small.put("first", "value").unwrap();
    small.disks.iter().for_each(|disk| disk.fill_up_to(26 * MIB));

    let value = "x".repeat(MIB / 4);
    let mut acknowledged = Vec::new();
    let refusal = loop {
        let key = format!("key-{:03}", acknowledged.len());
        match small.put(&key, &value) {
            Ok(()) => acknowledged.push(key),
            Err(refusal) => break refusal,
        }
        assert!(acknowledged.len() < 200, "the disks hold more than they can");
    };
    assert!(
        matches!(refusal, KvError::Busy(BusyReason::DiskFull { .. })),
        "{refusal}"
    );
    assert!(!acknowledged.is_empty(), "refused while there was room");
    for disk in &small.disks {
        assert!(free_bytes_of(&disk.0) > 4 << 20, "told too late");
    }
    // Reads go on, and so does what makes room.
    assert_eq!(
        small.caller.get(&small.cluster, "first").as_deref(),
        Some("value")
    );
    small.caller.delete(&small.cluster, "first");
    small.assert_all_run();

    // Even a crash of all on full disks loses nothing, and the nodes start.
    small.servers.iter_mut().for_each(Server::kill);
    small.servers = (1..=3).map(|id| small.cluster.start(id)).collect();
    for key in &acknowledged {
        let found = small.caller.get(&small.cluster, key);
        assert_eq!(found.as_deref(), Some(value.as_str()), "{key}");
    }
    assert_eq!(small.caller.get(&small.cluster, "first"), None);

    small.disks.iter().for_each(SmallDisk::make_room);
    wait_until("the cluster takes writes again", || {
        small.put("last", "value").ok()
    });
    assert_eq!(small.caller.get(&small.cluster, "last").as_deref(), Some("value"));
    small.assert_all_run();
}

/// Puts values until the disks have had no room for another for two seconds; the keys.
fn fill_for_good(small: &mut SmallCluster, value: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut refused_since = None;
    while keys.len() < 200 {
        let key = format!("key-{:03}", keys.len());
        if small.put(&key, value).is_ok() {
            keys.push(key);
            refused_since = None;
        } else if refused_since.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(2) {
            return keys;
        }
    }
    panic!("the disks hold more than they can");
}

#[test]
fn a_node_that_is_started_on_a_full_disk_says_so_and_starts_when_there_is_room() {
    let cluster = Cluster::of(1);
    let Some(disk) = SmallDisk::mount(cluster.data_dir(1)) else {
        eprintln!("skipped: mounting a tmpfs takes privileges that this user does not have");
        return;
    };
    disk.fill_up_to(0);
    // The file that fills the disk is none of a data directory.
    let inside = format!("--data-dir={}", cluster.data_dir(1).join("data").display());
    let output = cluster.output(1, &[&inside]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let message = &stderr[stderr.rfind("error: ").unwrap()..];
    assert!(message.contains("The disk is full: make room on it"), "{stderr}");
    disk.make_room();
    let _server = cluster.start_with(1, &[&inside]);
    Caller::new().append(&cluster, "k", "v");
}

#[test]
fn full_disks_serve_again_once_all_keys_are_deleted() {
    // Little is kept free, so that the snapshots take much of the disks.
    let min_free_bytes = 16 * MIB;
    let Some(mut small) =
        SmallCluster::with_settings(&format!("[storage]\nmin_free_bytes = {min_free_bytes}"))
    else {
        return;
    };
    let value = "x".repeat(MIB / 4);
    let keys = fill_for_good(&mut small, &value);
    // There is room for deletes, and for nothing else before the snapshots have gone.
    small
        .disks
        .iter()
        .for_each(|disk| disk.fill_up_to(min_free_bytes - MIB));
    wait_until("all nodes refuse", || small.put("more", &value).err());
    for key in &keys {
        small.caller.delete(&small.cluster, key);
    }
    wait_until("the cluster takes writes again", || {
        small.put("last", &value).ok()
    });
    assert_eq!(small.caller.get(&small.cluster, "last"), Some(value));
    assert_eq!(small.caller.get(&small.cluster, &keys[0]), None);
    small.assert_all_run();
}

/// Three nodes, of which the third is on a small disk and was left so far behind that it needs a snapshot of 12 MiB, and
/// runs again, with room for 5 MiB.
struct LeftBehind {
    servers: [Server; 2],
    third: Server,
    disk: SmallDisk,
    cluster: Cluster,
    caller: Caller,
}

impl LeftBehind {
    fn start(settings: &str) -> Option<Self> {
        let cluster = Cluster::with_settings(3, settings);
        let Some(disk) = SmallDisk::mount(cluster.data_dir(3)) else {
            eprintln!("skipped: mounting a tmpfs takes privileges that this user does not have");
            return None;
        };
        // The file that fills the disk is none of a data directory.
        let inside = format!("--data-dir={}", cluster.data_dir(3).join("data").display());
        let servers = [cluster.start(1), cluster.start(2)];
        let mut third = cluster.start_with(3, &[&inside]);
        let mut caller = Caller::new();
        caller.append(&cluster, "k", "v");
        caller.leader(&cluster, 3);
        third.kill();
        // More than the log keeps behind a snapshot.
        let value = "x".repeat(MIB);
        for number in 0..12 {
            caller.append(&cluster, &format!("key-{number}"), &value);
        }
        for addr in &cluster.client_addrs[..2] {
            wait_until("the log is compacted far past what the third has", || {
                // What was applied while a snapshot was cut goes into the next one when something more is.
                caller.append(&cluster, "k", "v");
                let status = caller.status(*addr)?;
                (status.snapshot_index.get() > 14).then_some(())
            });
        }
        disk.fill_up_to(5 * MIB);
        let third = cluster.start_with(3, &[&inside]);
        Some(Self {
            servers,
            third,
            disk,
            cluster,
            caller,
        })
    }

    fn wait_until_the_third_says(&self, what: &str) {
        let leaders_say = || {
            let logs = self.servers.iter().map(Server::log);
            logs.map(|log| log.matches("has no room for the").count())
                .sum::<usize>()
        };
        wait_until("both sides have told", || {
            (leaders_say() > 0 && self.third.log().contains(what)).then_some(())
        });
        let tries = |log: &str| log.matches("sends 3 the snapshot").count();
        wait_until("it was tried again", || {
            let mut servers = self.servers.iter();
            servers.any(|server| tries(&server.log()) > 1).then_some(())
        });
    }

    fn make_room_and_wait(&self) {
        self.disk.make_room();
        wait_until("the node has caught up", || {
            let addr = self.cluster.client_addrs[2];
            self.caller.get_at(addr, "key-11", Consistency::Stale)?.ok()?
        });
    }
}

#[test]
fn a_snapshot_that_a_disk_has_no_room_for_is_told_once_on_both_sides_and_installed_when_there_is_room() {
    let Some(behind) = LeftBehind::start("snapshot_log_bytes = 65536") else {
        return;
    };
    behind.wait_until_the_third_says("refuses the snapshot");
    for server in &behind.servers {
        let log = server.log();
        let told: Vec<_> = log
            .split('\n')
            .filter_map(|line| line.split_once("has no room for the"))
            .collect();
        let snapshots: std::collections::BTreeSet<_> = told.iter().map(|(_, which)| which).collect();
        assert_eq!(snapshots.len(), told.len(), "{told:?}");
    }
    behind.make_room_and_wait();
}

#[test]
fn a_received_snapshot_that_fills_the_disk_unexpectedly_is_put_off_and_stops_nobody() {
    // As with a quota, or something else that takes the room meanwhile: the node expects enough.
    let settings = "snapshot_log_bytes = 65536\n[storage]\nmin_free_bytes = 0";
    let Some(mut behind) = LeftBehind::start(settings) else {
        return;
    };
    behind.wait_until_the_third_says("that the leader sends is put off");
    assert!(behind.third.is_running(), "{}", behind.third.log());
    behind.make_room_and_wait();
    let log = behind.third.log();
    assert_eq!(
        log.matches("that the leader sends is put off").count(),
        1,
        "{log}"
    );
}

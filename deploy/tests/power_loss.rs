//! Real nodes whose data directories lie on disks that forget what was not synced.
//!
//! ```text
//! POWER_LOSSES=200 cargo test -p deploy --test power_loss -- --nocapture
//! ```
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say so and fail"
)]

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clerk::Clerk;
use faulty_disk::{Disk, Failure, Fault, Mount, Operation, Survival, Unavailable};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// The longest wait for anything: far beyond what it takes on a busy machine, so that only a fault gets there.
const DEADLINE: Duration = Duration::from_secs(60);

const CLERKS: usize = 3;

fn losses() -> u64 {
    let asked = std::env::var("POWER_LOSSES").ok();
    asked.map_or(4, |text| text.parse().expect("POWER_LOSSES is a number"))
}

/// A loopback address of its own: no other test, and no outgoing connection, can take a port of it while a node
/// is down.
fn own_address() -> Ipv4Addr {
    let [first, second, third, _] = rand::random::<u32>().to_be_bytes();
    Ipv4Addr::new(127, first, second, third.clamp(2, 254))
}

fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A node's process. It is killed, by its own id, when dropped.
struct Node {
    id: usize,
    child: Child,
    log: PathBuf,
}

impl Node {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("node {} has ended ({status}):\n{}", self.id, self.log());
        }
    }

    fn wait(&mut self) -> ExitStatus {
        eventually("the node ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the end of the log of node {}", self.id);
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(15)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// One machine: its disk, and the node on it while the power is on.
struct Machine {
    // Dropped in this order: the node before the disk that it uses.
    node: Option<Node>,
    mount: Option<Mount>,
    disk: Disk,
    path: PathBuf,
}

/// The machines of a cluster.
struct Cluster {
    machines: Vec<Machine>,
    endpoints: Vec<String>,
    dir: TempDir,
}

impl Cluster {
    /// All in the dark yet.
    fn of(size: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = own_address();
        let endpoints: Vec<String> = (1..=size)
            .map(|id| format!("{address}:{}", 7000 + 10 * id + 2))
            .collect();
        let mut text = format!(
            "cluster_id = \"test\"\ndata_dir = \"{}/disk-{{id}}/data\"\n[raft]\nsnapshot_log_bytes = 20000\n",
            dir.path().display()
        );
        for (id, endpoint) in (1..).zip(&endpoints) {
            let raft = format!("{address}:{}", 7000 + 10 * id + 1);
            text += &format!("[[node]]\nid = {id}\nraft_addr = \"{raft}\"\nclient_addr = \"{endpoint}\"\n");
        }
        fs::write(dir.path().join("cluster.toml"), text).unwrap();
        let machines = (1..=size).map(|id| {
            let path = dir.path().join(format!("disk-{id}"));
            fs::create_dir(&path).unwrap();
            Machine {
                node: None,
                mount: None,
                disk: Disk::new(),
                path,
            }
        });
        Self {
            machines: machines.collect(),
            endpoints,
            dir,
        }
    }

    /// Mounts the disks and starts the nodes.
    fn power_on(&mut self) -> Result<(), Unavailable> {
        for machine in &mut self.machines {
            machine.mount = Some(machine.disk.mount_on(&machine.path)?);
        }
        for id in 1..=self.machines.len() {
            self.start(id);
        }
        Ok(())
    }

    fn start(&mut self, id: usize) {
        let log = self.dir.path().join(format!("log-{id}"));
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_deploy"));
        command
            .args([
                "node",
                "--until-stdin-closes",
                "--",
                "--id",
                &id.to_string(),
                "--config",
            ])
            .arg(self.dir.path().join("cluster.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KV_SERVER_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        let child = command.spawn().unwrap();
        self.machines[id - 1].node = Some(Node { id, child, log });
    }

    /// Kills all nodes at once, and leaves of what they had not synced what `survival` says.
    fn lose_power(&mut self, survival: impl Fn(u64) -> Survival) {
        for machine in &mut self.machines {
            let node = machine.node.as_mut().unwrap();
            node.assert_running();
            node.child.kill().unwrap();
        }
        for (number, machine) in (0..).zip(&mut self.machines) {
            machine.node.take().unwrap().child.wait().unwrap();
            machine.mount = None;
            machine.disk = Disk::holding(&machine.disk.after_power_loss(survival(number)));
        }
    }

    fn assert_running(&mut self) {
        for machine in &mut self.machines {
            machine.node.as_mut().unwrap().assert_running();
        }
    }

    fn clerk(&self, seed: u64) -> Clerk {
        let clerk = Clerk::builder()
            .endpoints(&self.endpoints)
            .timeout(DEADLINE)
            .seed(seed);
        clerk
            .backoff(Duration::from_millis(10), Duration::from_millis(100))
            .build()
            .unwrap()
    }
}

/// What one clerk does all the time: append `0;`, `1;`, `2;` … to a key of its own, one after the other.
struct Writer {
    key: String,
    acknowledged: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(runtime: &Runtime, clerk: Clerk, key: String, stop: Arc<AtomicBool>) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (its_key, count) = (key.clone(), Arc::clone(&acknowledged));
        let task = runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let next = count.load(Ordering::Relaxed);
                // A power loss in the middle is not seen here: the clerk asks again, and it must count once.
                clerk.append(&its_key, format!("{next};")).await.unwrap();
                count.store(next + 1, Ordering::Relaxed);
            }
        });
        Self {
            key,
            acknowledged,
            task,
        }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Everything that was acknowledged is there, once and in order, and at most one append more.
    fn check(&self, runtime: &Runtime, cluster: &mut Cluster, when: &str) {
        let acknowledged = self.acknowledged();
        let clerk = cluster.clerk(99).with_timeout(Duration::from_secs(5));
        let value = eventually("the value is read", || {
            cluster.assert_running();
            runtime.block_on(clerk.get(&self.key)).ok()
        });
        let value = String::from_utf8(value.unwrap_or_default().to_vec()).unwrap();
        let found = value.matches(';').count() as u64;
        let expected: String = (0..found).map(|number| format!("{number};")).collect();
        assert_eq!(value, expected, "{when}: {} is not what was appended", self.key);
        assert!(
            found >= acknowledged,
            "{when}: {acknowledged} were acknowledged on {}, {found} are there",
            self.key
        );
    }
}

fn survival(loss: u64, machine: u64) -> Survival {
    let seed = loss * 3 + machine;
    match loss % 4 {
        0 => Survival::Nothing,
        1 => Survival::Scattered { seed },
        2 => Survival::Torn { seed },
        _ => Survival::ScatteredPages { seed },
    }
}

#[test]
fn power_losses_under_load_lose_and_repeat_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::of(3);
    if let Err(unavailable) = cluster.power_on() {
        return println!("{unavailable}");
    }
    let runtime = Runtime::new().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<Writer> = (0..CLERKS)
        .map(|number| {
            let clerk = cluster.clerk(number as u64);
            Writer::start(&runtime, clerk, format!("key-{number}"), Arc::clone(&stop))
        })
        .collect();
    let total = || writers.iter().map(Writer::acknowledged).sum::<u64>();
    for loss in 0..losses() {
        // Anywhere in the work: soon after the start, or with snapshots cut in between.
        let wanted = total() + 1 + (loss * 7919) % 60;
        eventually("appends are acknowledged", || {
            assert!(
                writers.iter().all(|writer| !writer.task.is_finished()),
                "a clerk gave up"
            );
            cluster.assert_running();
            (total() >= wanted).then_some(())
        });
        cluster.lose_power(|machine| survival(loss, machine));
        cluster.power_on().unwrap();
        for writer in &writers {
            writer.check(&runtime, &mut cluster, &format!("after power loss {loss}"));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writers.into_iter().map(|mut writer| {
        runtime.block_on(&mut writer.task).unwrap();
        writer.check(&runtime, &mut cluster, "at the end");
        writer.acknowledged()
    });
    println!(
        "{} power losses, {} appends acknowledged, 0 lost, 0 repeated",
        losses(),
        acknowledged.sum::<u64>()
    );
}

/// Runs a node alone on a disk, has the disk fail under load, and starts it again on the healed disk.
fn fail_and_heal(operation: Operation, failure: Failure, cause: &str) {
    let mut cluster = Cluster::of(1);
    if let Err(unavailable) = cluster.power_on() {
        return println!("{unavailable}");
    }
    let runtime = Runtime::new().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = Writer::start(&runtime, cluster.clerk(1), "key".into(), Arc::clone(&stop));
    eventually("appends are acknowledged", || {
        cluster.assert_running();
        (writer.acknowledged() > 20).then_some(())
    });
    cluster.machines[0].disk.arm(Fault {
        operation: Some(operation),
        after: 3,
        failure,
        lasting: true,
    });
    let node = cluster.machines[0].node.as_mut().unwrap();
    let (status, log) = (node.wait(), node.log());
    assert!(status.code().is_some_and(|code| code != 0), "{status}: {log}");
    let told = log
        .lines()
        .rev()
        .find(|line| line.starts_with("error: "))
        .unwrap_or_else(|| panic!("{log}"));
    let path = cluster.machines[0].path.join("data");
    assert!(
        told.contains(cause) && told.contains(path.to_str().unwrap()),
        "{told}"
    );
    assert!(!log.contains("panicked"), "{log}");

    let acknowledged = writer.acknowledged();
    cluster.machines[0].disk.disarm();
    cluster.start(1);
    writer.check(&runtime, &mut cluster, "on the healed disk");
    eventually("the clerk goes on", || {
        cluster.assert_running();
        (writer.acknowledged() > acknowledged + 5).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    println!("{operation:?} failed: {told}");
}

#[test]
fn a_node_whose_disk_fails_to_sync_stops_in_order_and_comes_back_with_all_it_acknowledged() {
    fail_and_heal(Operation::Sync, Failure::Io, "Input/output error");
}

#[test]
fn a_node_whose_disk_fails_to_write_stops_in_order_and_comes_back_with_all_it_acknowledged() {
    fail_and_heal(Operation::Write, Failure::Io, "Input/output error");
}

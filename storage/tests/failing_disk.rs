//! Each write, sync, creation, rename and removal of a workload fails in turn: with EIO, with ENOSPC, or half
//! done. The store says so, naming cause and path, acknowledges nothing after it, never hangs, and opens again
//! with all that it acknowledged once the disk is well, also when the power fails in between.
//!
//! `STORAGE_FAULT_STRIDE=1 cargo test -p storage --test failing_disk -- --nocapture` has every single operation
//! fail; without it every ninth of each kind does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod scripted;

use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use faulty_disk::{Disk, Failure, Fault, Image, Mount, Operation, Survival};
use raft_core::{LogIndex, Restored, Storage as _, Term};
use scripted::{DEADLINE, Session, a_little_of_everything, append, read_all, vote};
use storage::StorageError;
use storage::conformance::initial_configuration;

fn stride() -> usize {
    let asked = std::env::var("STORAGE_FAULT_STRIDE").ok();
    asked.map_or(9, |text| text.parse().expect("STORAGE_FAULT_STRIDE is a number"))
}

/// What became of a workload on a disk that failed.
#[derive(Debug)]
struct Outcome {
    acknowledged: usize,
    /// Whether a write failed: it may be there or not.
    in_flight: bool,
    error: Option<String>,
    /// What the same store said when it was asked once more, if a write had failed.
    again: Option<String>,
}

/// Names the directory to the process that runs one case.
const CASE_VARIABLE: &str = "STORAGE_FAULT_CASE";

/// A database that hangs would take every other one in the same process with it, so each case is a process.
/// Without the variable there is nothing to do.
#[test]
fn one_case() {
    let Some(node) = std::env::var_os(CASE_VARIABLE) else {
        return;
    };
    let mut session = Session::new(Path::new(&node), Box::new(|| 0));
    let result = a_little_of_everything(&mut session);
    println!("\nacknowledged={}", session.steps().len());
    let Err(error) = result else { return };
    println!("error={error}");
    if session.candidates().len() > 1 {
        println!("again={}", session.store().write(&[vote(70)]).unwrap_err());
    }
}

/// Runs the workload in a process of its own, which must end in time and in order.
fn run(node: &Path, what: &str) -> Outcome {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_case", "--nocapture"])
        .env(CASE_VARIABLE, node)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > DEADLINE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{what}: still not done after {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    assert!(
        status.success(),
        "{what}: {status}: {}",
        String::from_utf8_lossy(&stderr)
    );
    let said = String::from_utf8(stdout).unwrap();
    let line = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::to_owned)
    };
    Outcome {
        acknowledged: line("acknowledged=").unwrap().parse().unwrap(),
        error: line("error="),
        in_flight: line("again=").is_some(),
        again: line("again="),
    }
}

/// What the store holds after each step of the workload.
fn states() -> &'static [Restored] {
    static STATES: OnceLock<Vec<Restored>> = OnceLock::new();
    STATES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut session = Session::new(&dir.path().join("node"), Box::new(|| 0));
        a_little_of_everything(&mut session).unwrap();
        session.steps().iter().map(|step| step.state.clone()).collect()
    })
}

impl Outcome {
    /// All that was acknowledged, and whole or not at all what was under way. The first step, the creation, changes
    /// nothing.
    fn candidates(&self) -> &'static [Restored] {
        let before = self.acknowledged.saturating_sub(1);
        &states()[before..=before + usize::from(self.in_flight)]
    }
}

/// sled can wait for ever after a failed write that one of its own threads made: then the bound on the wait ends
/// it, and the message names what it may be instead of the system's error.
const NO_ANSWER: &str = "the disk does not answer, or a write to it has failed";

/// The same while a store closes: nobody asks it any more, and it gives up after its wait. What sled still has of the
/// directory it keeps until the process ends, and who opens it again in that same process is told so.
const STILL_IN_USE: &str = "is in use by another process";

/// Whether sled has not answered.
fn tells_of_a_hang(message: &str) -> bool {
    message.contains(NO_ANSWER) || message.contains(STILL_IN_USE)
}

/// `top` is where the disk is mounted.
fn assert_told(message: &str, failure: Failure, top: &Path, what: &str) {
    let cause = match failure {
        Failure::Io => "Input/output error",
        Failure::NoSpace | Failure::ShortWrite => "No space left on device",
        Failure::Unsupported => "Operation not supported",
    };
    assert!(
        message.contains(cause) || tells_of_a_hang(message),
        "{what}: the cause is not told: {message}"
    );
    let path = top.to_str().unwrap();
    assert!(message.contains(path), "{what}: the path is not told: {message}");
}

/// Opens what a power loss left. Something else than a candidate is a failure, a refusal is returned.
fn open_image(image: &Image, candidates: &[Restored], what: &str) -> Result<(), StorageError> {
    let dir = tempfile::tempdir().unwrap();
    image.write_to(dir.path()).unwrap();
    let (_, found) = read_all(&dir.path().join("node"))?;
    assert!(
        candidates.contains(&found),
        "{what}, then a power loss: a state that never was acknowledged"
    );
    Ok(())
}

#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    told: usize,
    /// Of those: told only after sled had not answered for as long as the store waits.
    hung: usize,
    /// The operation was one whose failure costs nothing.
    tolerated: usize,
    /// This run of the workload made fewer operations.
    not_reached: usize,
    /// After a failed sync, whose pages the system forgot, the store was refused: see [`Tally::count_refusal`].
    refused_later: usize,
}

fn try_fault(disk: &Disk, mount: &Mount, fault: Fault, tally: &mut Tally) {
    let what = format!("{fault:?}");
    let node = mount.path().join("node");
    disk.arm(fault);
    let outcome = run(&node, &what);
    let failed = disk.failed() > 0;
    disk.disarm();
    tally.cases += 1;
    match &outcome.error {
        None if failed => tally.tolerated += 1,
        None => tally.not_reached += 1,
        Some(error) => {
            tally.told += 1;
            assert_told(error, fault.failure, mount.path(), &what);
            tally.hung += usize::from(tells_of_a_hang(error));
        }
    }
    if outcome.again.is_some() {
        assert_eq!(
            outcome.again, outcome.error,
            "{what}: went on after a failed write"
        );
    }
    for survival in [Survival::Nothing, Survival::Scattered { seed: fault.after }] {
        let image = disk.after_power_loss(survival);
        let opened = open_image(&image, outcome.candidates(), &what);
        tally.count_refusal(fault, opened, &format!("{what}, then {survival:?}"));
    }
    let restarted = restart_and_lose_power(disk, &node, outcome.candidates(), &what);
    tally.count_refusal(
        fault,
        restarted,
        &format!("{what}, then a restart, then a power loss"),
    );
}

impl Tally {
    /// A store may be refused only where the system dropped, after a failed sync, what sled takes for written: sled
    /// cannot know that, and what it wrote before and after does not fit together. That is told, never silent.
    fn count_refusal(&mut self, fault: Fault, opened: Result<(), StorageError>, what: &str) {
        let Err(refusal) = opened else { return };
        let sync_failed = fault.operation == Some(Operation::Sync) && fault.failure == Failure::Io;
        assert!(
            sync_failed && refusal.to_string().contains("must not vote"),
            "{what}: does not open again: {refusal}"
        );
        self.refused_later += 1;
    }
}

/// The disk is well again, and the system still remembers what it could not write; a restarted store takes that for
/// what is on the disk. From then on all of it has to survive, and what is acknowledged after it too, also when the
/// journal is carried into the database and used anew. `Err` with a refusal after a power loss.
fn restart_and_lose_power(
    disk: &Disk,
    node: &Path,
    candidates: &[Restored],
    what: &str,
) -> Result<(), StorageError> {
    let (store, found) = read_all(node)?;
    assert!(
        candidates.contains(&found),
        "{what}: a state that never was acknowledged"
    );
    drop(store);
    let lost = disk.after_power_loss(Survival::Nothing);
    let what = format!("{what}, then a restart");
    open_image(&lost, std::slice::from_ref(&found), &what)?;
    let mut session = Session::continuing(node, Box::new(|| 0), &found);
    session.open("restart").unwrap();
    let last = found.entries.last();
    let next = last
        .map_or(found.snapshot.last_included_index, |entry| entry.index)
        .next()
        .get();
    for index in next..next + 6 {
        session
            .write("append", &[append(60, index, index, 40_000)])
            .unwrap();
    }
    let lost = disk.after_power_loss(Survival::Nothing);
    open_image(&lost, &session.candidates(), &format!("{what} and appends"))
}

/// How many operations of each kind the workload makes; `None` where there is no FUSE.
fn count_operations() -> Option<Vec<(Operation, u64)>> {
    let disk = Disk::new();
    let mount = disk
        .mount()
        .map_err(|unavailable| println!("{unavailable}"))
        .ok()?;
    let outcome = run(&mount.path().join("node"), "no fault");
    assert!(outcome.error.is_none(), "{outcome:?}");
    Some(
        Operation::ALL
            .map(|operation| (operation, disk.operations(operation)))
            .to_vec(),
    )
}

/// Every `stride`th operation of each kind, and the last, fails as `failure`.
fn try_each(failure: Failure, lasting: bool, concerned: impl Fn(Operation) -> bool) {
    let Some(counts) = count_operations() else { return };
    let mut tally = Tally::default();
    for (operation, count) in counts
        .into_iter()
        .filter(|(operation, count)| concerned(*operation) && *count > 0)
    {
        for after in (0..count - 1).step_by(stride()).chain([count - 1]) {
            let fault = Fault {
                operation: Some(operation),
                after,
                failure,
                lasting,
            };
            let disk = Disk::new();
            let mount = disk.mount().unwrap();
            try_fault(&disk, &mount, fault, &mut tally);
        }
    }
    println!("{failure:?}, lasting: {lasting}: {tally:?}");
}

#[test]
fn an_operation_that_fails_once_stops_the_store_and_costs_nothing_that_was_acknowledged() {
    try_each(Failure::Io, false, |_| true);
}

#[test]
fn a_disk_that_dies_stops_the_store_and_costs_nothing_that_was_acknowledged() {
    try_each(Failure::Io, true, |operation| operation != Operation::Remove);
}

#[test]
fn a_full_disk_stops_the_store_and_costs_nothing_that_was_acknowledged() {
    try_each(Failure::NoSpace, true, Operation::takes_space);
}

#[test]
fn a_short_write_is_completed() {
    try_each(Failure::ShortWrite, false, |operation| {
        operation == Operation::Write
    });
}

#[test]
fn a_snapshot_that_cannot_be_written_names_its_file() {
    let disk = Disk::new();
    let mount = match disk.mount() {
        Ok(mount) => mount,
        Err(unavailable) => return println!("{unavailable}"),
    };
    let store = common::open(&mount.path().join("node")).unwrap();
    let mut writer = store
        .snapshots()
        .create(LogIndex(1), Term(1), &initial_configuration())
        .unwrap();
    disk.arm(Fault {
        operation: Some(Operation::Write),
        after: 0,
        failure: Failure::NoSpace,
        lasting: true,
    });
    let error = writer.write_all(&vec![7; 4 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_told(
        &error.to_string(),
        Failure::NoSpace,
        &mount.path().join("node/snapshots"),
        "a snapshot",
    );
    drop(writer);
    disk.disarm();
}

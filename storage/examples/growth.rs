//! How much disk and memory a store takes over a long run.
//!
//! Appends batches of commands, and cuts a snapshot whenever so much of the log was appended, as a node does
//! whose clients overwrite few keys. Prints a table and what was written in all, and draws the table:
//!
//! ```text
//! cargo run --release -p storage --example growth -- APPENDED_MIB SNAPSHOT_LOG_MIB [PLOT.svg [ENTRY_BYTES]]
//! ```
//!
//! A `SNAPSHOT_LOG_MIB` may be a fraction; a plot named `-` is not drawn.
//! The store is in the system's temporary directory; set `TMPDIR` to have it elsewhere.
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::{env, fs};

use raft_core::{Configuration, Entry, LogIndex, NodeId, Payload, Storage as _, Term, Write};
use storage::{Identity, Options, SledStorage};

const MIB: u64 = 1024 * 1024;
const ENTRY_BYTES: usize = 200;
const BATCH_BYTES: usize = 64 * ENTRY_BYTES;
/// What the state machine would write: some 1,000 keys with their values.
const SNAPSHOT_BYTES: usize = 200_000;
/// What a node keeps of its log behind a snapshot, for followers that are a little late.
const RETAINED_BYTES: u64 = 4 * MIB;
const ROWS: u64 = 32;

/// What is appended.
struct Load {
    total_bytes: u64,
    snapshot_log_bytes: f64,
    entry_bytes: usize,
}

/// What the run was at, at one moment.
struct Sample {
    appended: u64,
    sled: u64,
    journal: u64,
    snapshots: u64,
    memory: u64,
}

impl Sample {
    fn disk(&self) -> u64 {
        self.sled + self.journal + self.snapshots
    }

    fn take(dir: &Path, appended: u64) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            appended,
            sled: blocks_in(&dir.join("sled"))?,
            journal: blocks_in(&dir.join("journal"))?,
            snapshots: blocks_in(&dir.join("snapshots"))?,
            memory: resident_bytes()?,
        })
    }

    fn print(&self) {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / MIB as f64);
        let columns = [
            self.appended,
            self.disk(),
            self.sled,
            self.journal,
            self.snapshots,
            self.memory,
        ];
        println!("| {} |", columns.map(mib).join(" | "));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [appended, snapshot_log, rest @ ..] = arguments.as_slice() else {
        return Err("usage: growth APPENDED_MIB SNAPSHOT_LOG_MIB [PLOT.svg [ENTRY_BYTES]]".into());
    };
    let samples = run(&Load {
        total_bytes: appended.parse::<u64>()? * MIB,
        snapshot_log_bytes: snapshot_log.parse::<f64>()? * MIB as f64,
        entry_bytes: rest.get(1).map_or(Ok(ENTRY_BYTES), |bytes| bytes.parse())?,
    })?;
    println!("\nhanded to the system: {} MiB", written_bytes()? / MIB);
    if let Some(plot) = rest.first().filter(|plot| *plot != "-") {
        fs::write(plot, draw(&samples)?)?;
    }
    Ok(())
}

fn run(load: &Load) -> Result<Vec<Sample>, Box<dyn Error>> {
    let entry_bytes = load.entry_bytes as u64;
    let batch_entries = (BATCH_BYTES as u64 / entry_bytes).max(1);
    let dir = tempfile::tempdir()?;
    let identity = Identity {
        cluster_id: "growth".to_owned(),
        node_id: NodeId(1),
    };
    let initial = Configuration::of_voters([NodeId(1)]);
    let mut store = SledStorage::open(dir.path(), &identity, &initial, &Options::default())?;
    println!("| appended MiB | disk MiB | sled | journal | snapshots | resident MiB |");
    println!("|---|---|---|---|---|---|");
    let (mut appended, mut since_snapshot, mut next) = (0, 0, 1);
    let mut samples: Vec<Sample> = Vec::new();
    while appended < load.total_bytes {
        store.write(&[batch(next..next + batch_entries, load.entry_bytes)])?;
        next += batch_entries;
        appended += batch_entries * entry_bytes;
        since_snapshot += batch_entries * entry_bytes;
        if since_snapshot as f64 >= load.snapshot_log_bytes {
            since_snapshot = 0;
            let retained = (RETAINED_BYTES / entry_bytes).min(next - 1);
            compact(&mut store, next - 1, retained, &initial)?;
        }
        if appended >= load.total_bytes / ROWS * (samples.len() as u64 + 1) {
            let sample = Sample::take(dir.path(), appended)?;
            sample.print();
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn batch(indices: Range<u64>, entry_bytes: usize) -> Write {
    let entry = |index| Entry {
        term: Term(1),
        index: LogIndex(index),
        payload: Payload::Command(vec![7; entry_bytes].into()),
    };
    Write::Append(indices.map(entry).collect())
}

fn compact(
    store: &mut SledStorage,
    index: u64,
    retained: u64,
    initial: &Configuration,
) -> Result<(), Box<dyn Error>> {
    let mut writer = store.snapshots().create(LogIndex(index), Term(1), initial)?;
    writer.write_all(&vec![7; SNAPSHOT_BYTES])?;
    let snapshot = writer.finish()?;
    store.write(&[Write::Compact {
        snapshot,
        first_retained: LogIndex(index + 1 - retained),
    }])?;
    Ok(())
}

/// The disk space of the files in a directory, as `du` counts it.
fn blocks_in(dir: &Path) -> Result<u64, Box<dyn Error>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        // sled and the store remove files meanwhile.
        bytes += entry?.metadata().map_or(0, |metadata| metadata.blocks() * 512);
    }
    Ok(bytes)
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// By all writes of this process to files.
fn written_bytes() -> Result<u64, Box<dyn Error>> {
    let counters = fs::read_to_string("/proc/self/io")?;
    let written = counters.lines().find_map(|line| line.strip_prefix("wchar:"));
    Ok(written.ok_or("no wchar")?.trim().parse()?)
}

/// A line in the plot: its name, its colour, and what it shows.
type Line = (&'static str, &'static str, fn(&Sample) -> u64);

/// Disk and memory over what was appended.
fn draw(samples: &[Sample]) -> Result<String, Box<dyn Error>> {
    let (width, height, margin) = (720.0, 300.0, 50.0);
    let series: [Line; 3] = [
        ("disk", "#1f6fb4", Sample::disk),
        ("of which sled", "#7fb2dd", |sample| sample.sled),
        ("resident memory", "#c4552d", |sample| sample.memory),
    ];
    let highest = samples
        .iter()
        .map(|sample| sample.disk().max(sample.memory))
        .max();
    let highest = highest.ok_or("nothing to draw")? as f64;
    let last = samples.last().ok_or("nothing to draw")?.appended as f64;
    let x = |appended: u64| margin + appended as f64 / last * (width - 2.0 * margin);
    let y = |bytes: u64| height - margin - bytes as f64 / highest * (height - 2.0 * margin);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (row, (name, colour, value)) in series.iter().enumerate() {
        let mut points = String::new();
        for sample in samples {
            write!(points, "{:.1},{:.1} ", x(sample.appended), y(value(sample)))?;
        }
        writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>"
        )?;
        let at = 18 + 16 * row;
        writeln!(
            svg,
            "<text x=\"{margin}\" y=\"{at}\" fill=\"{colour}\">{name}</text>"
        )?;
    }
    let floor = height - margin;
    let right = width - margin;
    writeln!(
        svg,
        "<path d=\"M{margin} {margin}V{floor}H{right}\" fill=\"none\" stroke=\"black\"/>"
    )?;
    let mib = |bytes: f64| format!("{:.0} MiB", bytes / MIB as f64);
    writeln!(
        svg,
        "<text x=\"4\" y=\"{}\">{}</text>",
        margin - 4.0,
        mib(highest)
    )?;
    writeln!(
        svg,
        "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{} appended</text>",
        floor + 18.0,
        mib(last)
    )?;
    writeln!(svg, "</svg>")?;
    Ok(svg)
}

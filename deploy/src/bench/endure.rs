//! Whether a cluster ends as fast and as small as it began: a few keys are overwritten for a long time, and the
//! rate, the disk and the memory are told as it goes.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use clerk::load::{self, Load, Outcome};
use serde::Serialize;

use super::arguments::BenchArguments;
use super::interrupts::Interrupts;
use super::measure::{refuse_silence, write_all_keys};
use super::ours::OurCluster;
use super::plot::{self, Curve};
use super::system::{CallError, our_targets};
use super::table::{mib, render};
use super::usage;
use crate::error::Error;
use crate::report::Reporter;

const CLIENTS: u32 = 256;
const VALUE_BYTES: u32 = 128;
const DEFAULT_KEYS: u64 = 1_000;
const DEFAULT_DURATION: Duration = Duration::from_secs(600);
/// In how many equal parts the time is told.
const PARTS: u32 = 20;
const PLOT_NAME: &str = "bench-endure.svg";

/// One part of the time.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename = "part")]
struct Part {
    /// Since the start, at the end of the part.
    #[serde(rename = "seconds", serialize_with = "in_seconds")]
    since: Duration,
    /// Puts since the start.
    puts: u64,
    errors: u64,
    puts_per_second: f64,
    p50_us: u64,
    p99_us: u64,
    longest_gap_us: u64,
    /// Of the largest data directory, as blocks on the disk.
    disk_bytes: u64,
    /// Of the largest node, in RAM; not known everywhere.
    resident_bytes: Option<u64>,
}

impl Part {
    fn cells(&self) -> Vec<String> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "bytes and microseconds stay far below 2^52"
        )]
        let float = |number: u64| number as f64;
        vec![
            format!("{:.1}", self.since.as_secs_f64()),
            self.puts.to_string(),
            format!("{:.0}", self.puts_per_second),
            self.p50_us.to_string(),
            self.p99_us.to_string(),
            format!("{:.1}", float(self.longest_gap_us) / 1e3),
            self.errors.to_string(),
            mib(Some(float(self.disk_bytes))),
            mib(self.resident_bytes.map(float)),
        ]
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  {:.1} s: {} puts, {:.0} a second",
            self.since.as_secs_f64(),
            self.puts,
            self.puts_per_second
        )
    }
}

/// With milliseconds.
fn in_seconds<S: serde::Serializer>(since: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((since.as_secs_f64() * 1e3).round() / 1e3)
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "result")]
struct Finished {
    keys: u64,
    endurance: Vec<Part>,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "SECONDS",
            "PUTS",
            "PUTS/S",
            "P50 µs",
            "P99 µs",
            "LONGEST PAUSE ms",
            "ERRORS",
            "DISK MiB",
            "RAM MiB",
        ];
        let legend = format!(
            "{CLIENTS} clients, {} keys, values of {VALUE_BYTES} B; disk and memory of the largest node",
            self.keys
        );
        f.write_str(&render(
            &headings,
            self.endurance.iter().map(Part::cells),
            &legend,
        ))
    }
}

/// Overwrites the keys, tells each part as it ends, and prints the table, of what was measured if it fails or is
/// interrupted; draws it if plots are wanted.
pub(crate) async fn run(
    arguments: &BenchArguments,
    reporter: Reporter,
    interrupts: &Interrupts,
) -> Result<(), Error> {
    let load = Load {
        clients: CLIENTS,
        keys: arguments.keys_or(DEFAULT_KEYS),
        value_bytes: VALUE_BYTES,
        warm_up: Duration::ZERO,
        duration: arguments.duration.unwrap_or(DEFAULT_DURATION),
        ..Load::default()
    };
    let mut endurance = Vec::new();
    let all = endure(arguments.dir.as_deref(), &load, &mut endurance, reporter);
    let outcome = interrupts.or(all).await;
    let finished = Finished {
        keys: load.keys,
        endurance,
    };
    if outcome.is_ok() || !finished.endurance.is_empty() {
        reporter.tell(&finished);
    }
    outcome?;
    match &arguments.plots {
        Some(dir) => draw(dir, &finished.endurance),
        None => Ok(()),
    }
}

/// Measures the parts. It is no success if a node ended, which is the end of the last part, or not one put was made. A
/// part without a put is one like the others: it shows a pause.
async fn endure(
    dir: Option<&Path>,
    load: &Load,
    parts: &mut Vec<Part>,
    reporter: Reporter,
) -> Result<(), Error> {
    let mut cluster = OurCluster::start(dir).await?;
    let targets = our_targets(&cluster, CLIENTS, load::connections(CLIENTS, None))?;
    write_all_keys("ours", &targets, load).await?;
    let began = Instant::now();
    let mut puts = 0;
    let mut silence = None;
    for number in 1..=PARTS {
        // To begin and to end a part takes time, too: the last one ends when it is due.
        let left = (load.duration * number / PARTS).saturating_sub(began.elapsed());
        if left.is_zero() {
            continue;
        }
        let part = Load {
            duration: left,
            seed: number,
            ..load.clone()
        };
        let outcome = load::run(&targets, &part).await;
        silence = silence.or(refuse_silence("ours", &outcome).err());
        // All that succeeded, those too that were still out when the part was over.
        puts += outcome.begun - outcome.errors;
        let ended = cluster.check_all_run();
        let part = look(&cluster, began.elapsed(), puts, &outcome);
        if let Ok(part) = &part {
            reporter.tell(part);
        }
        // What was measured until then is worth telling.
        let part = part.map(|part| parts.push(part));
        ended.and(part)?;
    }
    silence.filter(|_| puts == 0).map_or(Ok(()), Err)
}

fn look(
    cluster: &OurCluster,
    since: Duration,
    puts: u64,
    outcome: &Outcome<CallError>,
) -> Result<Part, Error> {
    let nodes = cluster.nodes();
    let mut disk_bytes = 0;
    for id in nodes.ids() {
        let dir = nodes.file().data_dir_of(id);
        let bytes = bytes_under(&dir).map_err(Error::system(format!("measure {}", dir.display())))?;
        disk_bytes = disk_bytes.max(bytes);
    }
    let resident = |id| usage::of(nodes.node(id)?.pid()).map(|usage| usage.resident_bytes);
    Ok(Part {
        since,
        puts,
        errors: outcome.errors,
        puts_per_second: outcome.per_second(),
        p50_us: outcome.quantile_us(0.5),
        p99_us: outcome.quantile_us(0.99),
        longest_gap_us: outcome.longest_gap_us,
        disk_bytes,
        resident_bytes: nodes.ids().into_iter().filter_map(resident).max(),
    })
}

/// What the files under `dir` take on the disk. A file that goes away meanwhile takes nothing.
fn bytes_under(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(of) if of.is_dir() => bytes += bytes_under(&entry.path())?,
            Ok(of) => bytes += bytes_on_disk(&of),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(unix)]
fn bytes_on_disk(of: &fs::Metadata) -> u64 {
    /// What `stat` counts in.
    const BLOCK_BYTES: u64 = 512;
    std::os::unix::fs::MetadataExt::blocks(of) * BLOCK_BYTES
}

#[cfg(not(unix))]
fn bytes_on_disk(of: &fs::Metadata) -> u64 {
    of.len()
}

fn draw(dir: &Path, parts: &[Part]) -> Result<(), Error> {
    #[expect(clippy::cast_precision_loss, reason = "bytes stay far below 2^52")]
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let curve = |title: &'static str, number: &dyn Fn(&Part) -> f64| Curve {
        title,
        points: parts
            .iter()
            .map(|part| {
                (
                    u32::try_from(part.since.as_millis()).unwrap_or(u32::MAX),
                    number(part),
                )
            })
            .collect(),
    };
    let curves = [
        curve("puts/s", &|part| part.puts_per_second),
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a few seconds")]
        curve("p99 in ms", &|part| part.p99_us as f64 / 1e3),
        curve("disk of the largest node, MiB", &|part| mib(part.disk_bytes)),
        curve("memory of the largest node, MiB", &|part| {
            mib(part.resident_bytes.unwrap_or(0))
        }),
    ];
    let path = dir.join(PLOT_NAME);
    let title = format!("{CLIENTS} clients overwrite a few keys, by seconds");
    fs::write(&path, plot::draw_curves(&title, &curves, seconds))
        .map_err(Error::system(format!("write {}", path.display())))
}

/// Milliseconds as seconds, to a tenth where there are many.
fn seconds(ms: u32) -> String {
    let seconds = f64::from(ms) / 1e3;
    if seconds < 10.0 {
        seconds.to_string()
    } else {
        ((seconds * 10.0).round() / 10.0).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_less_than_a_second_have_places_of_their_own_in_the_plot() {
        let part = |ms| Part {
            since: Duration::from_millis(ms),
            puts: 1,
            errors: 0,
            puts_per_second: 1.0,
            p50_us: 1,
            p99_us: 1,
            longest_gap_us: 1,
            disk_bytes: 1,
            resident_bytes: None,
        };
        let dir = tempfile::tempdir().unwrap();
        draw(dir.path(), &[part(50), part(100), part(12_345)]).unwrap();
        let svg = fs::read_to_string(dir.path().join(PLOT_NAME)).unwrap();
        for label in [">0.05<", ">0.1<", ">12.3<"] {
            assert_eq!(svg.matches(label).count(), 4, "{label}: {svg}");
        }
    }

    #[test]
    fn files_are_counted_with_those_in_directories_below() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        let empty = bytes_under(dir.path()).unwrap();
        for name in ["a", "below/b"] {
            fs::write(dir.path().join(name), vec![1; 100_000]).unwrap();
        }
        assert!(bytes_under(dir.path()).unwrap() >= empty + 200_000);
    }
}

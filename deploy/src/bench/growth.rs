//! How puts and gets change as a cluster grows: in nodes, in keys, in the size of values, in clients. One of the four
//! grows, and the other three stay where they are.

use std::fmt;
use std::fs;
use std::iter;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::arguments::BenchArguments;
use super::interrupts::Interrupts;
use super::measure::{Measurement, measure};
use super::ours::OurCluster;
use super::plot::{self, Curve};
use super::system::Cluster;
use super::table::{mib, render};
use super::workload::{Calls, Keys, Workload};
use crate::error::Error;
use crate::report::Reporter;

const NODES: [u64; 4] = [1, 3, 5, 7];
const FEWEST_KEYS: u64 = 10_000;
const MORE_KEYS: [u64; 3] = [100_000, 1_000_000, 10_000_000];
const MOST_KEYS: u64 = 1_000_000;
const VALUE_BYTES: [u32; 6] = [16, 128, 1_024, 4_096, 16_384, 65_536];
const CLIENTS: [u32; 6] = [1, 4, 16, 64, 256, 1_024];
/// All values together have at most so many bytes while the size of values grows.
const MOST_BYTES: u64 = 64 << 20;
const PLOT_NAME: &str = "bench-growth.svg";

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Dimension {
    Nodes,
    Keys,
    ValueBytes,
    Clients,
}

impl Dimension {
    const ALL: [Self; 4] = [Self::Nodes, Self::Keys, Self::ValueBytes, Self::Clients];

    fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Keys => "keys",
            Self::ValueBytes => "bytes in a value",
            Self::Clients => "clients",
        }
    }

    fn titles(self) -> [&'static str; 2] {
        match self {
            Self::Nodes => ["puts/s by nodes", "gets/s by nodes"],
            Self::Keys => ["puts/s by keys", "gets/s by keys"],
            Self::ValueBytes => ["puts/s by bytes in a value", "gets/s by bytes in a value"],
            Self::Clients => ["puts/s by clients", "gets/s by clients"],
        }
    }

    /// From small to large.
    fn points(self, most_keys: u64) -> Vec<Point> {
        let usual = Point::default();
        match self {
            Self::Nodes => NODES.map(|nodes| Point { nodes, ..usual }).to_vec(),
            // The fewest are measured in any case: fewer still where no more are wanted.
            Self::Keys => iter::once(most_keys.min(FEWEST_KEYS))
                .chain(MORE_KEYS.into_iter().filter(|keys| *keys <= most_keys))
                .map(|keys| Point { keys, ..usual })
                .collect(),
            Self::ValueBytes => VALUE_BYTES
                .map(|value_bytes| Point {
                    value_bytes,
                    keys: usual.keys.min(MOST_BYTES / u64::from(value_bytes)),
                    ..usual
                })
                .to_vec(),
            Self::Clients => CLIENTS.map(|clients| Point { clients, ..usual }).to_vec(),
        }
    }

    fn of(self, point: &Point) -> u32 {
        match self {
            Self::Nodes => u32::try_from(point.nodes).unwrap_or(u32::MAX),
            Self::Keys => u32::try_from(point.keys).unwrap_or(u32::MAX),
            Self::ValueBytes => point.value_bytes,
            Self::Clients => point.clients,
        }
    }
}

/// What a cluster is and what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Point {
    nodes: u64,
    keys: u64,
    value_bytes: u32,
    clients: u32,
}

impl Default for Point {
    fn default() -> Self {
        Self {
            nodes: 3,
            keys: FEWEST_KEYS,
            value_bytes: 128,
            clients: 64,
        }
    }
}

impl Point {
    fn workload(self, calls: Calls) -> Workload {
        Workload {
            calls,
            clients: self.clients,
            value_bytes: self.value_bytes,
            keys: Keys::Uniform,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename = "grown")]
struct Grown {
    grows: Dimension,
    #[serde(flatten)]
    point: Point,
    puts: Measurement,
    gets: Measurement,
}

impl fmt::Display for Grown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  {} {}: {:.0} puts/s, {:.0} gets/s",
            self.grows.of(&self.point),
            self.grows.name(),
            self.puts.ops_per_second,
            self.gets.ops_per_second
        )
    }
}

impl Grown {
    /// Of the largest node, after the gets or after the puts.
    fn largest_resident_bytes(&self) -> Option<u64> {
        let both = [&self.gets, &self.puts].map(Measurement::largest_resident_bytes);
        both.into_iter().flatten().max()
    }

    fn cells(&self, is_first: bool) -> Vec<String> {
        let grows = if is_first { self.grows.name() } else { "" };
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory stay far below 2^52")]
        let resident = self.largest_resident_bytes().map(|bytes| bytes as f64);
        vec![
            grows.to_owned(),
            self.grows.of(&self.point).to_string(),
            format!("{:.0}", self.puts.ops_per_second),
            self.puts.p99_us.to_string(),
            format!("{:.0}", self.gets.ops_per_second),
            self.gets.p99_us.to_string(),
            mib(resident),
            (self.puts.errors + self.gets.errors).to_string(),
        ]
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "result")]
struct Finished {
    seconds_each: f64,
    growth: Vec<Grown>,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "GROWS",
            "TO",
            "PUTS/S",
            "PUT P99 µs",
            "GETS/S",
            "GET P99 µs",
            "RSS MiB",
            "ERRORS",
        ];
        let mut last = None;
        let rows = self
            .growth
            .iter()
            .map(|grown| grown.cells(last.replace(grown.grows) != Some(grown.grows)));
        let usual = Point::default();
        let legend = format!(
            "{} s each; what does not grow: {} nodes, {} keys (of large values as many as have {} MiB in all), \
             values of {} B, {} clients;\nmemory of the largest node",
            self.seconds_each,
            usual.nodes,
            usual.keys,
            MOST_BYTES >> 20,
            usual.value_bytes,
            usual.clients
        );
        f.write_str(&render(&headings, rows, &legend))
    }
}

/// Measures every point on a fresh cluster, tells each as it is done, and prints the table, of what was measured if one
/// fails or is interrupted; draws it if plots are wanted.
pub(crate) async fn run(
    arguments: &BenchArguments,
    reporter: Reporter,
    interrupts: &Interrupts,
) -> Result<(), Error> {
    let mut growth = Vec::new();
    let outcome = interrupts.or(grow(arguments, &mut growth, reporter)).await;
    let finished = Finished {
        seconds_each: arguments.duration().as_secs_f64(),
        growth,
    };
    if outcome.is_ok() || !finished.growth.is_empty() {
        reporter.tell(&finished);
    }
    outcome?;
    match &arguments.plots {
        Some(dir) => draw(dir, &finished.growth),
        None => Ok(()),
    }
}

async fn grow(arguments: &BenchArguments, growth: &mut Vec<Grown>, reporter: Reporter) -> Result<(), Error> {
    for grows in Dimension::ALL {
        for point in grows.points(arguments.keys_or(MOST_KEYS)) {
            let [puts, gets] = measure_both(arguments.dir.as_deref(), point, arguments.duration()).await?;
            let grown = Grown {
                grows,
                point,
                puts,
                gets,
            };
            reporter.tell(&grown);
            growth.push(grown);
        }
    }
    Ok(())
}

async fn measure_both(
    dir: Option<&Path>,
    point: Point,
    duration: Duration,
) -> Result<[Measurement; 2], Error> {
    let mut cluster = Cluster::Ours(OurCluster::start_of(dir, point.nodes).await?);
    let gets = measure(&mut cluster, point.workload(Calls::Get), point.keys, duration).await?;
    let puts = measure(&mut cluster, point.workload(Calls::Put), point.keys, duration).await?;
    Ok([puts, gets])
}

fn draw(dir: &Path, growth: &[Grown]) -> Result<(), Error> {
    let mut curves = Vec::new();
    for grows in Dimension::ALL {
        let of = |number: fn(&Grown) -> f64| {
            let points = growth.iter().filter(|grown| grown.grows == grows);
            points
                .map(|grown| (grows.of(&grown.point), number(grown)))
                .collect()
        };
        let [puts, gets] = grows.titles();
        curves.push(Curve {
            title: puts,
            points: of(|grown| grown.puts.ops_per_second),
        });
        curves.push(Curve {
            title: gets,
            points: of(|grown| grown.gets.ops_per_second),
        });
    }
    let path = dir.join(PLOT_NAME);
    fs::write(
        &path,
        plot::draw_curves("puts and gets as a cluster grows", &curves, |at| at.to_string()),
    )
    .map_err(Error::system(format!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dimension_grows_at_a_time_and_the_keys_no_further_than_wanted() {
        assert_eq!(Dimension::Keys.points(100_000).len(), 2);
        for grows in [Dimension::Nodes, Dimension::Clients] {
            let points = grows.points(MOST_KEYS);
            assert!(points.iter().all(|point| point.keys == Point::default().keys));
            assert!(points.is_sorted_by_key(|point| grows.of(point)));
        }
    }

    #[test]
    fn memory_is_that_after_the_gets_or_after_the_puts_whichever_is_more() {
        let grown = |gets: [u64; 2], puts: [u64; 2]| Grown {
            grows: Dimension::Nodes,
            point: Point::default(),
            puts: Measurement::with_resident_bytes(&puts),
            gets: Measurement::with_resident_bytes(&gets),
        };
        assert_eq!(grown([5, 7], [9, 6]).largest_resident_bytes(), Some(9));
        assert_eq!(grown([5, 7], [6, 6]).largest_resident_bytes(), Some(7));
    }

    #[test]
    fn few_keys_are_a_point_of_their_own() {
        let keys = |most| {
            Dimension::Keys
                .points(most)
                .iter()
                .map(|point| point.keys)
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(1_000), [1_000]);
        assert_eq!(keys(99_999), [10_000]);
        assert_eq!(keys(100_000), [10_000, 100_000]);
    }

    #[test]
    fn large_values_have_fewer_keys() {
        let points = Dimension::ValueBytes.points(MOST_KEYS);
        assert!(
            points
                .iter()
                .all(|point| point.keys * u64::from(point.value_bytes) <= MOST_BYTES)
        );
    }
}

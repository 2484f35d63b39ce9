//! Plots of the workloads, as SVG: one file for each size of values and choice of keys.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::ValueEnum as _;

use super::result::Row;
use super::workload::{Calls, Keys};
use crate::error::Error;

const PANEL_WIDTH: f64 = 420.0;
const PANEL_HEIGHT: f64 = 230.0;
/// Around the plotted area of a panel.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 45.0;
/// Above the panels.
const HEAD: f64 = 40.0;
const GRID_LINES: u32 = 4;
/// Under a panel; where there are more points, some have none.
const MOST_LABELS: usize = 10;
/// Of ours and of the peer: told apart with any sight, on white and on black.
const COLOURS: [&str; 2] = ["#0072b2", "#d55e00"];

/// Whether plots can be written to `dir`, which is there: better known before anything is measured.
pub(crate) fn check_directory(dir: &Path) -> Result<(), Error> {
    let file = tempfile::tempfile_in(dir);
    file.map(drop)
        .map_err(Error::system(format!("write plots to {}", dir.display())))
}

/// Writes every plot of `rows` to `dir`.
pub(crate) fn write_all(dir: &Path, rows: &[Row]) -> Result<(), Error> {
    let mut done: Vec<(u32, Keys)> = Vec::new();
    for row in rows {
        let kind = (row.workload.value_bytes, row.workload.keys);
        if done.contains(&kind) {
            continue;
        }
        done.push(kind);
        let (value_bytes, keys) = kind;
        let name = format!("bench-{value_bytes}B-{}.svg", keys.name());
        let path = dir.join(name);
        fs::write(&path, draw(rows, value_bytes, keys))
            .map_err(Error::system(format!("write {}", path.display())))?;
    }
    Ok(())
}

/// One number over time.
pub(crate) struct Curve {
    pub(crate) title: &'static str,
    /// In order.
    pub(crate) points: Vec<(u32, f64)>,
}

/// What stands under a point.
type Label = fn(u32) -> String;

/// One plot with a panel for each curve, two beside each other; `label` tells a point's place on the axis.
pub(crate) fn draw_curves(title: &str, curves: &[Curve], label: Label) -> String {
    let mut body = String::new();
    let mut y = HEAD;
    for row in curves.chunks(2) {
        for (x, curve) in [0.0, PANEL_WIDTH].into_iter().zip(row) {
            let series = Series {
                system: "",
                points: curve.points.clone(),
            };
            panel(&mut body, (x, y), curve.title, &[series], label);
        }
        y += PANEL_HEIGHT;
    }
    document(2.0 * PANEL_WIDTH, y, title, &body)
}

/// One number of one system for each number of clients.
struct Series<'a> {
    system: &'a str,
    points: Vec<(u32, f64)>,
}

/// One plot: throughput and latency of each kind of calls, by the number of clients.
fn draw(rows: &[Row], value_bytes: u32, keys: Keys) -> String {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.workload.value_bytes == value_bytes && row.workload.keys == keys)
        .collect();
    let present = |calls: &Calls| rows.iter().any(|row| row.workload.calls == *calls);
    let calls: Vec<Calls> = Calls::value_variants().iter().copied().filter(present).collect();
    let mut body = String::new();
    let mut y = HEAD;
    for calls in &calls {
        let of = |number: fn(&Row) -> f64| series(&rows, *calls, number);
        panel(
            &mut body,
            (0.0, y),
            &format!("{}: operations/s", calls.name()),
            &of(|row| row.medians.ops_per_second),
            |clients| clients.to_string(),
        );
        let latency = of(|row| row.medians.p99_us / 1e3);
        panel(
            &mut body,
            (PANEL_WIDTH, y),
            &format!("{}: p99 in ms", calls.name()),
            &latency,
            |clients| clients.to_string(),
        );
        y += PANEL_HEIGHT;
    }
    let title = format!(
        "values of {value_bytes} B, {} keys, by the number of clients",
        keys.name()
    );
    document(2.0 * PANEL_WIDTH, y, &title, &body)
}

fn document(width: f64, height: f64, title: &str, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"25\" font-size=\"15\">{title}</text>\n{body}</svg>\n"
    )
}

fn series<'a>(rows: &[&'a Row], calls: Calls, number: fn(&Row) -> f64) -> Vec<Series<'a>> {
    let mut all: Vec<Series<'a>> = Vec::new();
    for row in rows.iter().filter(|row| row.workload.calls == calls) {
        let point = (row.workload.clients, number(row));
        match all.iter_mut().find(|series| series.system == row.system) {
            Some(series) => series.points.push(point),
            None => all.push(Series {
                system: row.system,
                points: vec![point],
            }),
        }
    }
    all
}

/// Draws one panel with its upper left corner at `origin`.
fn panel(svg: &mut String, origin: (f64, f64), title: &str, series: &[Series<'_>], label: Label) {
    let (x, y) = origin;
    let mut places: Vec<u32> = series
        .iter()
        .flat_map(|one| one.points.iter().map(|point| point.0))
        .collect();
    places.sort_unstable();
    places.dedup();
    let highest = series
        .iter()
        .flat_map(|one| one.points.iter().map(|point| point.1))
        .fold(0.0, f64::max);
    let axes = Axes {
        left: x + LEFT,
        right: x + PANEL_WIDTH - RIGHT,
        top: y + TOP,
        bottom: y + PANEL_HEIGHT - BOTTOM,
        places,
        label,
        highest: nice_above(highest),
    };
    text(svg, (axes.left, y + TOP - 14.0), "start", title, "black");
    axes.draw(svg);
    for (number, one) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        axes.line(svg, one, colour);
        #[expect(clippy::cast_precision_loss, reason = "there are two")]
        let right = axes.right - 60.0 * (series.len() - 1 - number) as f64;
        text(svg, (right, y + TOP - 14.0), "end", one.system, colour);
    }
}

/// Where a panel's points are.
struct Axes {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// In order; they stand at equal distances.
    places: Vec<u32>,
    label: Label,
    highest: f64,
}

impl Axes {
    fn x(&self, at: u32) -> f64 {
        let place = self.places.iter().position(|one| *one == at).unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "there are a few")]
        let share = (place as f64 + 0.5) / self.places.len() as f64;
        self.left + share * (self.right - self.left)
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - value / self.highest * (self.bottom - self.top)
    }

    fn draw(&self, svg: &mut String) {
        for line in 0..=GRID_LINES {
            let value = self.highest * f64::from(line) / f64::from(GRID_LINES);
            let y = self.y(value);
            let (left, right) = (self.left, self.right);
            // Writing into a String cannot fail, here and below.
            let _ = writeln!(svg, "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#ddd\"/>");
            text(svg, (left - 6.0, y + 4.0), "end", &short(value), "black");
        }
        for at in self
            .places
            .iter()
            .step_by(self.places.len().div_ceil(MOST_LABELS).max(1))
        {
            text(
                svg,
                (self.x(*at), self.bottom + 18.0),
                "middle",
                &(self.label)(*at),
                "black",
            );
        }
    }

    fn line(&self, svg: &mut String, series: &Series<'_>, colour: &str) {
        let at = |point: &(u32, f64)| format!("{:.1},{:.1}", self.x(point.0), self.y(point.1));
        let points: Vec<String> = series.points.iter().map(at).collect();
        let points = points.join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        for point in &series.points {
            let (x, y) = (self.x(point.0), self.y(point.1));
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
            );
        }
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str, colour: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
    );
}

/// The next of 1, 2, 4, 6, 8 times a power of ten that is not below `value`.
fn nice_above(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps
        .into_iter()
        .map(|step| step * power)
        .find(|nice| *nice >= value)
        .unwrap_or(10.0 * power)
}

/// A number as it stands on an axis: 12000 as 12k.
fn short(value: f64) -> String {
    let text = if value >= 1e3 {
        format!("{:.2}k", value / 1e3)
    } else {
        format!("{value:.2}")
    };
    match text.strip_suffix('k') {
        Some(number) => format!("{}k", number.trim_end_matches('0').trim_end_matches('.')),
        None => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::Medians;
    use super::super::workload::Workload;
    use super::*;

    fn row(system: &'static str, clients: u32, ops_per_second: f64) -> Row {
        Row {
            workload: Workload {
                calls: Calls::Put,
                clients,
                value_bytes: 128,
                keys: Keys::Uniform,
            },
            system,
            medians: Medians {
                ops_per_second,
                p50_us: 1.0,
                p99_us: 2_000.0,
                p999_us: 3_000.0,
                longest_gap_us: 1.0,
                server_cpu_us_per_op: None,
                client_cpu_us_per_op: None,
                resident_bytes: None,
                nodes_resident_bytes: Vec::new(),
                errors: 0,
            },
            ratio: None,
            p99_ratio: None,
            cpu_ratio: None,
        }
    }

    #[test]
    fn a_plot_has_a_line_a_system_with_a_point_for_each_number_of_clients() {
        let rows = [
            row("ours", 1, 900.0),
            row("etcd", 1, 300.0),
            row("ours", 64, 9_000.0),
            row("etcd", 64, 4_000.0),
        ];
        let svg = draw(&rows, 128, Keys::Uniform);
        assert_eq!(svg.matches("<polyline").count(), 4, "two systems in two panels");
        assert_eq!(svg.matches("<circle").count(), 8);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn each_curve_has_a_panel_and_few_of_many_points_are_labelled() {
        let curve = |title| Curve {
            title,
            points: (1..=20).map(|at| (at, f64::from(at))).collect(),
        };
        let svg = draw_curves("three", &[curve("one"), curve("two"), curve("three")], |at| {
            at.to_string()
        });
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert_eq!(svg.matches("text-anchor=\"middle\"").count(), 3 * 10);
    }

    #[test]
    fn a_curve_without_points_has_an_empty_panel() {
        let empty = Curve {
            title: "empty",
            points: Vec::new(),
        };
        let svg = draw_curves("nothing", &[empty], |at| at.to_string());
        assert!(svg.contains(">empty</text>") && !svg.contains("<circle"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_directory_that_takes_no_file_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_directory(dir.path()).is_ok());
        assert!(
            fs::read_dir(dir.path()).unwrap().next().is_none(),
            "something was left"
        );
        assert!(check_directory(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn each_size_and_choice_of_keys_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = row("ours", 1, 900.0);
        other.workload.keys = Keys::Zipf;
        write_all(dir.path(), &[row("ours", 1, 900.0), other]).unwrap();
        for name in ["bench-128B-uniform.svg", "bench-128B-zipf.svg"] {
            assert!(dir.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, nice) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (31_000.0, 40_000.0),
            (0.7, 0.8),
            (9.5, 10.0),
        ] {
            assert!(
                (nice_above(value) - nice).abs() < 1e-9,
                "{value}: {}",
                nice_above(value)
            );
        }
        assert_eq!(
            ["0", "1.5", "10k", "2.5k"],
            [0.0, 1.5, 10_000.0, 2_500.0]
                .map(short)
                .each_ref()
                .map(String::as_str)
        );
    }
}

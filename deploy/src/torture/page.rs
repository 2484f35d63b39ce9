//! The report as a page: the operations of each second, the faults on the same time line, and the numbers.

use std::fmt::Write as _;

use sim::linearizability::Operation;

use super::events::Summary;
use super::faults::Done;
use super::judgement::{Counts, Judgement};
use super::time_line::by_interval;

const WIDTH: f64 = 1_000.0;
const BARS_HEIGHT: f64 = 160.0;
const ROW_HEIGHT: usize = 22;
const NARROWEST_BAR: f64 = 2.0;
const MICROS_PER_SECOND: u64 = 1_000_000;

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:1100px;color:#222}\
svg{width:100%;height:auto;border:1px solid #ddd}svg text{font:11px system-ui,sans-serif;fill:#444}\
.ok{fill:#74c476}.unknown{fill:#807dba}.failed{fill:#bdbdbd}.fault{fill:#fb6a4a}.gap{fill:#fee0d2}\
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ddd;padding:.2em .6em;text-align:left}\
td.number{text-align:right}.good{color:#006d2c}.bad{color:#a50f15}";

/// All that the page shows.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) summary: &'a Summary,
    pub(crate) judgement: &'a Judgement,
    pub(crate) operations: &'a [Operation],
    pub(crate) faults: &'a [Done],
    pub(crate) nodes: &'a [u64],
    pub(crate) flaws: &'a [String],
}

/// The report as one page of HTML without script.
pub(crate) fn render(run: &Run<'_>) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let class = if run.summary.holds() { "good" } else { "bad" };
    let _ = write!(
        page,
        "<title>Torture</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1 class=\"{class}\">{}</h1>\n<pre>{}</pre>\n",
        run.summary.headline(),
        escape(&run.summary.to_string())
    );
    for flaw in run.flaws {
        let _ = writeln!(page, "<pre class=\"bad\">{}</pre>", escape(flaw));
    }
    if run.judgement.window.is_some() {
        page.push_str("<p><a href=\"window.html\">The operations that show the violation</a></p>\n");
    }
    page.push_str(
        "<h2>Operations a second, and faults</h2>\n<p>Green: acknowledged. Violet: of unknown outcome. \
         Grey: failed without effect. Red: faults, a row for each node. Pale: the longest gap.</p>\n",
    );
    draw(&mut page, run);
    table(&mut page, run);
    page.push_str("</body>\n</html>\n");
    page
}

/// Places on the drawing.
struct Scale {
    length_us: u64,
}

#[expect(clippy::cast_precision_loss, reason = "places on a drawing need not be exact")]
impl Scale {
    fn x(&self, at_us: u64) -> f64 {
        at_us as f64 / self.length_us as f64 * WIDTH
    }

    fn width(&self, from_us: u64, to_us: u64) -> f64 {
        (self.x(to_us) - self.x(from_us)).max(NARROWEST_BAR)
    }

    fn height(count: u64, most: u64) -> f64 {
        count as f64 / most.max(1) as f64 * BARS_HEIGHT
    }
}

fn draw(page: &mut String, run: &Run<'_>) {
    let seconds = by_interval(run.operations, MICROS_PER_SECOND);
    let scale = Scale {
        length_us: (seconds.len() as u64).max(1) * MICROS_PER_SECOND,
    };
    let height = BARS_HEIGHT + (ROW_HEIGHT * (run.nodes.len() + 1)) as f64;
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    let (from_us, to_us) = run.judgement.longest_gap_us;
    let _ = writeln!(
        page,
        "<rect class=\"gap\" x=\"{:.1}\" y=\"0\" width=\"{:.1}\" height=\"{BARS_HEIGHT}\"/>",
        scale.x(from_us),
        scale.width(from_us, to_us)
    );
    draw_bars(page, &seconds, &scale);
    for (row, node) in run.nodes.iter().enumerate() {
        draw_faults(page, run.faults, *node, row, &scale);
    }
    let _ = writeln!(
        page,
        "<text x=\"4\" y=\"{y}\">0 s</text><text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{} s</text>\n</svg>",
        seconds.len(),
        y = height - 6.0
    );
}

fn draw_bars(page: &mut String, seconds: &[Counts], scale: &Scale) {
    let all = |counts: &Counts| counts.acknowledged + counts.unknown + counts.failed;
    let most = seconds.iter().map(all).max().unwrap_or(0);
    let width = scale.width(0, MICROS_PER_SECOND) * 0.9;
    for (second, counts) in seconds.iter().enumerate() {
        let x = scale.x(second as u64 * MICROS_PER_SECOND);
        let mut y = BARS_HEIGHT;
        let parts = [
            ("ok", counts.acknowledged),
            ("unknown", counts.unknown),
            ("failed", counts.failed),
        ];
        for (class, count) in parts.into_iter().filter(|(_, count)| *count > 0) {
            let height = Scale::height(count, most);
            y -= height;
            let _ = writeln!(
                page,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
                 <title>second {second}: {count} {class}</title></rect>"
            );
        }
    }
    let _ = writeln!(page, "<text x=\"4\" y=\"12\">{most} operations/s</text>");
}

fn draw_faults(page: &mut String, faults: &[Done], node: u64, row: usize, scale: &Scale) {
    let y = BARS_HEIGHT + (row * ROW_HEIGHT) as f64;
    let _ = writeln!(
        page,
        "<line x1=\"0\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#eee\"/>\
         <text x=\"4\" y=\"{}\">node {node}</text>",
        y + 15.0
    );
    for fault in faults.iter().filter(|fault| fault.nodes.contains(&node)) {
        let _ = writeln!(
            page,
            "<rect class=\"fault\" x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{}\"><title>{}</title></rect>",
            scale.x(fault.from_us),
            y + 3.0,
            scale.width(fault.from_us, fault.to_us),
            ROW_HEIGHT - 6,
            escape(&fault.what)
        );
    }
}

fn table(page: &mut String, run: &Run<'_>) {
    page.push_str(
        "<h2>Outcomes</h2>\n<table>\n<tr><th>operation</th><th>acknowledged</th><th>failed</th><th>unknown</th></tr>\n",
    );
    for (name, counts) in &run.judgement.counts {
        let _ = writeln!(
            page,
            "<tr><td>{name}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            counts.acknowledged, counts.failed, counts.unknown
        );
    }
    page.push_str(
        "</table>\n<h2>Faults</h2>\n<table>\n<tr><th>from (ms)</th><th>to (ms)</th><th>what</th></tr>\n",
    );
    for fault in run.faults {
        let _ = writeln!(
            page,
            "<tr><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td></tr>",
            fault.from_us / 1_000,
            fault.to_us / 1_000,
            escape(&fault.what)
        );
    }
    page.push_str("</table>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

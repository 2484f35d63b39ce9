//! A window as a page to look at: a lane for each client, a bar for each operation, and a table below. It needs
//! no script and no other file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::history::{Operation, Outcome};
use super::text::{describe, headline, show};
use super::window::{Shown, Window};

const WIDTH: f64 = 1_000.0;
const NAMES_WIDTH: f64 = 90.0;
const ROW_HEIGHT: usize = 26;
/// Of a window that nobody had the time to make smaller, so many operations are drawn.
const MOST_BARS: usize = 500;
const NARROWEST_BAR: f64 = 3.0;
/// About as wide as a character of the bars' text.
const CHARACTER_WIDTH: f64 = 6.5;

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:1100px;color:#222}\
svg{width:100%;height:auto;border:1px solid #ddd}\
svg text{font:11px system-ui,sans-serif;fill:#222}\
.write{fill:#9ecae1}.read{fill:#a1d99b}.unknown{fill:#dadaeb;stroke:#807dba;stroke-dasharray:4 3}\
.origin{opacity:.55}.offending{fill:#fb6a4a;stroke:#a50f15;stroke-width:2}\
table{border-collapse:collapse;margin-top:1em}td,th{border:1px solid #ddd;padding:.2em .6em;text-align:left;\
overflow-wrap:anywhere}tr.offending td{background:#fee0d2}tr.origin td{color:#777}";

/// A window as one page of HTML.
#[must_use]
pub fn to_html(window: &Window) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let title = escape(&headline(window));
    let _ = write!(
        page,
        "<title>Not linearizable</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Not linearizable</h1>\n<p>{title}.</p>\n\
         <p>The smallest window that shows it has {} of {} operations. Each bar is an operation from its start to \
         its end; it took effect somewhere in between. Red: cannot be explained. Green: reads. Blue: writes. \
         Dashed: of unknown outcome, it may take effect at any time after its start. Pale: it only tells where a \
         value came from.</p>\n",
        window.operations.len(),
        window.out_of
    );
    list_remarks(&mut page, &window.remarks);
    let (cut, left_out) = window.cut(MOST_BARS);
    if left_out > 0 {
        let _ = writeln!(page, "<p>{left_out} others are not shown.</p>");
    }
    draw(&mut page, &cut);
    table(&mut page, &cut);
    page.push_str("</body>\n</html>\n");
    page
}

fn list_remarks(page: &mut String, remarks: &[String]) {
    if remarks.is_empty() {
        return;
    }
    page.push_str("<ul>\n");
    for remark in remarks {
        let _ = writeln!(page, "<li>{}</li>", escape(remark));
    }
    page.push_str("</ul>\n");
}

/// Which rows the operations of each client are drawn in: one, or more where they overlap.
fn rows(window: &Window) -> (Vec<usize>, Vec<(u64, usize)>) {
    let mut by_client: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (place, shown) in window.operations.iter().enumerate() {
        by_client.entry(shown.operation.client).or_default().push(place);
    }
    let (mut rows, mut names) = (vec![0; window.operations.len()], Vec::new());
    let mut next_row = 0;
    for (client, places) in by_client {
        names.push((client, next_row));
        let mut free_at: Vec<u64> = Vec::new();
        for place in places {
            let Operation { start_us, .. } = window.operations[place].operation;
            let row = free_at
                .iter()
                .position(|&free| free < start_us)
                .unwrap_or_else(|| {
                    free_at.push(0);
                    free_at.len() - 1
                });
            free_at[row] = end_of(&window.operations[place], u64::MAX);
            rows[place] = next_row + row;
        }
        next_row += free_at.len();
    }
    (rows, names)
}

fn end_of(shown: &Shown, open_end_us: u64) -> u64 {
    if shown.operation.outcome == Outcome::Unknown {
        open_end_us
    } else {
        shown.operation.end_us
    }
}

#[expect(clippy::cast_precision_loss, reason = "places on a drawing need not be exact")]
fn draw(page: &mut String, window: &Window) {
    let (rows, names) = rows(window);
    let starts = window.operations.iter().map(|shown| shown.operation.start_us);
    let first_us = starts.min().unwrap_or(0);
    let ends = window.operations.iter().map(|shown| shown.operation.end_us);
    let last_us = ends.max().unwrap_or(0).max(first_us.saturating_add(1));
    let x = |at_us: u64| {
        let share = (at_us.min(last_us) - first_us) as f64 / (last_us - first_us).max(1) as f64;
        NAMES_WIDTH + share * (WIDTH - NAMES_WIDTH)
    };
    let height = (rows.iter().max().map_or(0, |row| row + 1) + 1) * ROW_HEIGHT;
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    for (client, row) in names {
        let y = row * ROW_HEIGHT;
        let _ = writeln!(
            page,
            "<line x1=\"0\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#eee\"/>"
        );
        let _ = writeln!(page, "<text x=\"6\" y=\"{}\">client {client}</text>", y + 17);
    }
    for (shown, row) in window.operations.iter().zip(rows) {
        let (left, right) = (x(shown.operation.start_us), x(end_of(shown, last_us)));
        let (width, y) = ((right - left).max(NARROWEST_BAR), row * ROW_HEIGHT + 3);
        let label = describe(&shown.operation);
        let _ = writeln!(
            page,
            "<rect class=\"{}\" x=\"{left:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" rx=\"3\">\
             <title>{}</title></rect>",
            classes(shown, window),
            ROW_HEIGHT - 6,
            escape(&label)
        );
        if label.chars().count() as f64 * CHARACTER_WIDTH < width {
            let _ = writeln!(
                page,
                "<text x=\"{:.1}\" y=\"{}\">{}</text>",
                left + 4.0,
                y + 14,
                escape(&label)
            );
        }
    }
    let (left, y) = (NAMES_WIDTH, height - 8);
    let _ = writeln!(
        page,
        "<text x=\"{left}\" y=\"{y}\">{first_us} us</text>\n\
         <text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{last_us} us</text>\n</svg>"
    );
}

fn classes(shown: &Shown, window: &Window) -> String {
    let kind = match (&shown.operation.outcome, shown.operation.action.is_write()) {
        _ if shown.place == window.offending => "offending",
        (Outcome::Unknown, _) => "unknown",
        (_, true) => "write",
        (_, false) => "read",
    };
    let origin = if shown.is_needed { "" } else { " origin" };
    format!("{kind}{origin}")
}

fn table(page: &mut String, window: &Window) {
    page.push_str("<table>\n<tr><th>operation</th><th>client</th><th>start (us)</th><th>end (us)</th><th>what</th></tr>\n");
    for (key, value) in &window.initial {
        let what = format!("{} = {}", show(key), show(value));
        let _ = writeln!(
            page,
            "<tr class=\"origin\"><td></td><td></td><td colspan=\"2\">before all</td><td>{}</td></tr>",
            escape(&what)
        );
    }
    for shown in &window.operations {
        let operation = &shown.operation;
        let end = if operation.outcome == Outcome::Unknown {
            "never known".to_owned()
        } else {
            operation.end_us.to_string()
        };
        let _ = writeln!(
            page,
            "<tr class=\"{}\"><td>{}</td><td>{}</td><td>{}</td><td>{end}</td><td>{}</td></tr>",
            classes(shown, window),
            shown.place + 1,
            operation.client,
            operation.start_us,
            escape(&describe(operation))
        );
    }
    page.push_str("</table>\n");
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

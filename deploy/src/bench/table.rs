//! Tables for the terminal.

use std::iter;

/// Rows of cells under their headings, between empty lines, and what is to be said of all of them: the first two
/// columns to the left, the others, which are numbers, to the right.
pub(crate) fn render(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>, legend: &str) -> String {
    let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let lines: Vec<Vec<String>> = iter::once(headings).chain(rows).collect();
    format!("\n{}\n\n{legend}", align(&lines))
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let cell = |column: usize, cell: &String| {
        let width = widths[column];
        if column < 2 {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    };
    let line = |line: &Vec<String>| {
        let cells: Vec<String> = line.iter().enumerate().map(|(at, text)| cell(at, text)).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: Option<f64>) -> String {
    known(bytes, |bytes| format!("{:.0}", bytes / f64::from(1 << 20)))
}

/// A number, or a dash where it is not known.
pub(crate) fn known(number: Option<f64>, text: impl FnOnce(f64) -> String) -> String {
    number.map_or_else(|| "-".to_owned(), text)
}

/// How many rounds the rows are of, in words; `None` where none is of more than one. Some have fewer if the last round was
/// broken off.
pub(crate) fn of_several_rounds(rows: impl Iterator<Item = usize> + Clone) -> Option<String> {
    let (fewest, most) = (rows.clone().min()?, rows.max()?);
    match (fewest, most) {
        (_, ..=1) => None,
        _ if fewest == most => Some(format!("{most} rounds")),
        _ => Some(format!("{fewest} to {most} rounds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_to_the_left_and_numbers_to_the_right() {
        let line = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [line(["put", "ours", "1000"]), line(["", "x", "7"])];
        assert_eq!(
            render(&["WHAT", "WHO", "N"], rows, "N: how many"),
            "\nWHAT  WHO      N\nput   ours  1000\n      x        7\n\nN: how many"
        );
    }

    #[test]
    fn rows_of_several_rounds_are_told_as_such() {
        for (rows, told) in [
            (&[][..], None),
            (&[1, 1], None),
            (&[3, 3], Some("3 rounds")),
            (&[3, 1], Some("1 to 3 rounds")),
        ] {
            assert_eq!(
                of_several_rounds(rows.iter().copied()).as_deref(),
                told,
                "{rows:?}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        assert_eq!(
            (mib(None), mib(Some(3_145_728.0))),
            ("-".to_owned(), "3".to_owned())
        );
    }
}

//! Durations as people write them.

use std::time::Duration;

/// Longer ones are a slip of the pen.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses `500ms`, `5s`, `1m`, `1.5h`, `1m30s`: numbers with units, more than nothing, at most a day.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, behind) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, behind) = split(behind, |c| c.is_alphabetic());
        let number: f64 = number.parse().map_err(|_| not_a_duration(text))?;
        let seconds = number * seconds_per(unit).ok_or_else(|| not_a_duration(text))?;
        let part = Duration::try_from_secs_f64(seconds).map_err(|_| not_a_duration(text))?;
        total = total.saturating_add(part);
        rest = behind;
    }
    if total.is_zero() {
        return Err("it must be above zero, such as 500ms, 5s or 1m".into());
    }
    if total > LONGEST {
        return Err("it must be at most 24h".into());
    }
    Ok(total)
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

fn seconds_per(unit: &str) -> Option<f64> {
    match unit {
        "us" | "µs" => Some(1e-6),
        "ms" => Some(1e-3),
        "s" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3_600.0),
        _ => None,
    }
}

fn not_a_duration(text: &str) -> String {
    if text.trim().parse::<f64>().is_ok() {
        return format!("the unit is missing: write {0}s or {0}ms", text.trim());
    }
    "write a number and a unit (us, ms, s, m, h), such as 500ms, 5s or 1m".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_durations() {
        let cases = [
            ("500ms", Duration::from_millis(500)),
            ("5s", Duration::from_secs(5)),
            ("1m", Duration::from_secs(60)),
            ("1.5s", Duration::from_millis(1_500)),
            ("1m30s", Duration::from_secs(90)),
            ("24h", Duration::from_secs(86_400)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_word_on_what_to_write() {
        assert_eq!(parse("5"), Err("the unit is missing: write 5s or 5ms".into()));
        for text in [
            "",
            "0s",
            "s",
            "-1s",
            "5x",
            "5 s",
            "1e99h",
            "25h",
            "5s5",
            "..s",
            "∞s",
            "99999999999999999999h",
        ] {
            assert!(parse(text).is_err(), "{text:?} was taken");
        }
    }
}

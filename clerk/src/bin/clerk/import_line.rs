//! One line of what `import` reads.

use std::fmt::Display;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The key and the value that stand in `line`; or what is wrong with it.
pub(crate) fn parse(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    #[derive(Deserialize)]
    struct Line {
        key: Option<String>,
        key_base64: Option<String>,
        value: Option<String>,
        value_base64: Option<String>,
    }
    let refused =
        |why: &dyn Display| format!("not an object such as {{\"key\": \"k\", \"value\": \"v\"}}: {why}");
    // The decoder would take the members of an array for those of an object.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(refused(&"it does not begin with a brace"));
    }
    let parsed: Line = serde_json::from_slice(line).map_err(|error| refused(&error))?;
    let key = either("key", parsed.key, parsed.key_base64)?;
    let value = either("value", parsed.value, parsed.value_base64)?;
    Ok((key, value))
}

fn either(name: &str, text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => STANDARD
            .decode(base64)
            .map_err(|error| format!("{name}_base64 is not base 64: {error}")),
        (None, None) => Err(format!("the {name} is missing: give {name} or {name}_base64")),
        (Some(_), Some(_)) => Err(format!("{name} and {name}_base64 stand in one line: give one")),
    }
}

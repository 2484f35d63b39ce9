//! Histories as files: JSON lines, one operation a line. `sim/docs/history.md` describes them.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::error::Category;
use serde_json::{Map, Value, json};

use super::history::{Action, History, HistoryError, Operation, Outcome};
use super::strict::Strict;
use super::text::show;

/// Some times what the largest page of a scan takes.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// A history file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("the history cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is no operation.
    #[error("line {line} of the history: {what}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The operations make no sense.
    #[error("the history makes no sense: {0}")]
    History(#[from] HistoryError),
}

/// Reads a history. Empty lines are left out.
///
/// # Errors
/// It cannot be read, a line is no operation (unknown fields included), the initial value of a key is told twice, or the
/// operations make no sense.
pub fn read(mut input: impl BufRead) -> Result<History, FileError> {
    let (mut operations, mut initial) = (Vec::new(), BTreeMap::new());
    for line in 1.. {
        let Some(text) = read_line(&mut input, line)? else {
            break;
        };
        if text.trim_ascii().is_empty() {
            continue;
        }
        let parsed = parse(&text).map_err(|what| FileError::Line { line, what })?;
        match parsed {
            Parsed::Operation(operation) => operations.push(operation),
            Parsed::Initial(key, value) => {
                if let Some(earlier) = initial.insert(key, value) {
                    let earlier = show(&earlier);
                    let what = format!("an earlier line says that the key had {earlier} before everything");
                    return Err(FileError::Line { line, what });
                }
            }
        }
    }
    Ok(History::with_initial(initial, operations)?)
}

fn read_line(input: &mut impl BufRead, line: usize) -> Result<Option<Vec<u8>>, FileError> {
    let mut text = Vec::new();
    input.take(MAX_LINE_BYTES).read_until(b'\n', &mut text)?;
    if text.len() as u64 == MAX_LINE_BYTES {
        return Err(FileError::Line {
            line,
            what: format!("it is longer than {MAX_LINE_BYTES} bytes"),
        });
    }
    Ok((!text.is_empty()).then_some(text))
}

/// Writes a history so that [`read`] reads the same.
///
/// # Errors
/// It cannot be written.
pub fn write(history: &History, mut output: impl Write) -> io::Result<()> {
    for (key, value) in history.initial() {
        writeln!(output, "{}", initial_to_json(key, value))?;
    }
    for operation in history.operations() {
        writeln!(output, "{}", to_json(operation))?;
    }
    output.flush()
}

/// What was there before all operations, as it stands in a history file.
#[must_use]
pub fn initial_to_json(key: &Bytes, value: &Bytes) -> Value {
    let mut fields = Map::new();
    fields.insert("op".into(), "initial".into());
    put_bytes(&mut fields, "key", key);
    put_bytes(&mut fields, "value", value);
    Value::Object(fields)
}

/// An operation as it stands in a history file.
#[must_use]
pub fn to_json(operation: &Operation) -> Value {
    let mut fields = Map::new();
    fields.insert("client".into(), operation.client.into());
    fields.insert("op".into(), operation.action.name().into());
    match &operation.action {
        Action::Put { key, value } | Action::Append { key, value } => {
            put_bytes(&mut fields, "key", key);
            put_bytes(&mut fields, "value", value);
        }
        Action::Delete { key } | Action::Get { key } => put_bytes(&mut fields, "key", key),
        Action::Scan { from, to } => {
            put_bytes(&mut fields, "from", from);
            if let Some(to) = to {
                put_bytes(&mut fields, "to", to);
            }
        }
    }
    fields.insert("start_us".into(), operation.start_us.into());
    fields.insert("end_us".into(), operation.end_us.into());
    put_outcome(&mut fields, &operation.outcome);
    Value::Object(fields)
}

fn put_outcome(fields: &mut Map<String, Value>, outcome: &Outcome) {
    let name = match outcome {
        Outcome::Failed => "failed",
        Outcome::Unknown => "unknown",
        _ => "ok",
    };
    fields.insert("outcome".into(), name.into());
    match outcome {
        Outcome::Value(None) => {
            fields.insert("value".into(), Value::Null);
        }
        Outcome::Value(Some(value)) => put_bytes(fields, "value", value),
        Outcome::Deleted { existed } => {
            fields.insert("existed".into(), (*existed).into());
        }
        Outcome::Page { items, more } => {
            let items = items.iter().map(|(key, value)| {
                let mut item = Map::new();
                put_bytes(&mut item, "key", key);
                put_bytes(&mut item, "value", value);
                Value::Object(item)
            });
            fields.insert("items".into(), items.collect());
            fields.insert("more".into(), json!(more));
        }
        Outcome::Done | Outcome::Failed | Outcome::Unknown => {}
    }
}

fn put_bytes(fields: &mut Map<String, Value>, name: &str, bytes: &Bytes) {
    match std::str::from_utf8(bytes) {
        Ok(text) => fields.insert(name.into(), text.into()),
        Err(_) => fields.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

enum Parsed {
    Operation(Operation),
    Initial(Bytes, Bytes),
}

fn parse(text: &[u8]) -> Result<Parsed, String> {
    let Strict(value) = serde_json::from_slice(text).map_err(|error| match error.classify() {
        Category::Data => error.to_string(),
        _ => format!("it is no JSON: {error}"),
    })?;
    let mut fields = Fields::of(value)?;
    let op = fields.text("op")?;
    let parsed = if op == "initial" {
        Parsed::Initial(fields.bytes("key")?, fields.bytes("value")?)
    } else {
        Parsed::Operation(parse_operation(&op, &mut fields)?)
    };
    fields.end()?;
    Ok(parsed)
}

fn parse_operation(op: &str, fields: &mut Fields) -> Result<Operation, String> {
    let action = match op {
        "put" | "append" => {
            let (key, value) = (fields.bytes("key")?, fields.bytes("value")?);
            if op == "put" {
                Action::Put { key, value }
            } else {
                Action::Append { key, value }
            }
        }
        "delete" => Action::Delete {
            key: fields.bytes("key")?,
        },
        "get" => Action::Get {
            key: fields.bytes("key")?,
        },
        "scan" => Action::Scan {
            from: fields.optional_bytes("from")?.flatten().unwrap_or_default(),
            to: fields.optional_bytes("to")?.flatten(),
        },
        other => {
            return Err(format!(
                "`op` is {other:?}: it must be put, append, delete, get, scan or initial"
            ));
        }
    };
    let client = fields.number("client")?;
    let start_us = fields.number("start_us")?;
    let outcome = match fields.text("outcome")?.as_str() {
        "ok" => parse_answer(&action, fields)?,
        "failed" => Outcome::Failed,
        "unknown" => Outcome::Unknown,
        other => {
            return Err(format!(
                "`outcome` is {other:?}: it must be ok, failed or unknown"
            ));
        }
    };
    // Whose outcome is unknown may not have ended.
    let end_us = match outcome {
        Outcome::Unknown if !fields.has("end_us") => start_us,
        _ => fields.number("end_us")?,
    };
    Ok(Operation {
        client,
        action,
        start_us,
        end_us,
        outcome,
    })
}

fn parse_answer(action: &Action, fields: &mut Fields) -> Result<Outcome, String> {
    Ok(match action {
        Action::Put { .. } | Action::Append { .. } => Outcome::Done,
        Action::Delete { .. } => match fields.take("existed") {
            None => Outcome::Done,
            Some(Value::Bool(existed)) => Outcome::Deleted { existed },
            Some(_) => return Err("`existed` must be true or false".into()),
        },
        Action::Get { .. } => Outcome::Value(
            fields
                .optional_bytes("value")?
                .ok_or("`value` is missing: what a get did not find is null")?,
        ),
        Action::Scan { .. } => {
            let Some(Value::Array(items)) = fields.take("items") else {
                return Err("`items` must be a list".into());
            };
            let more = match fields.take("more") {
                None => false,
                Some(Value::Bool(more)) => more,
                Some(_) => return Err("`more` must be true or false".into()),
            };
            let items = items.into_iter().map(parse_item).collect::<Result<_, _>>()?;
            Outcome::Page { items, more }
        }
    })
}

fn parse_item(item: Value) -> Result<(Bytes, Bytes), String> {
    let mut fields = Fields::of(item)?;
    let item = (fields.bytes("key")?, fields.bytes("value")?);
    fields.end()?;
    Ok(item)
}

/// The fields of an object that have not been looked at.
struct Fields(Map<String, Value>);

impl Fields {
    fn of(value: Value) -> Result<Self, String> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err("an object is expected".into()),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    fn text(&mut self, name: &str) -> Result<String, String> {
        match self.take(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("`{name}` must be text")),
            None => Err(format!("`{name}` is missing")),
        }
    }

    fn number(&mut self, name: &str) -> Result<u64, String> {
        let value = self.take(name).ok_or(format!("`{name}` is missing"))?;
        value.as_u64().ok_or(format!("`{name}` must be a whole number"))
    }

    fn bytes(&mut self, name: &str) -> Result<Bytes, String> {
        self.optional_bytes(name)?
            .flatten()
            .ok_or(format!("`{name}` is missing"))
    }

    /// Bytes as text or in base64: `None` if the field is not there, and `Some(None)` if it is null.
    fn optional_bytes(&mut self, name: &str) -> Result<Option<Option<Bytes>>, String> {
        let encoded_name = format!("{name}_base64");
        match (self.take(name), self.take(&encoded_name)) {
            (None, None) => Ok(None),
            (Some(Value::Null), None) => Ok(Some(None)),
            (Some(Value::String(text)), None) => Ok(Some(Some(text.into()))),
            (None, Some(Value::String(encoded))) => {
                let decoded = STANDARD.decode(encoded);
                let bytes = decoded.map_err(|error| format!("`{encoded_name}` is no base64: {error}"))?;
                Ok(Some(Some(bytes.into())))
            }
            (Some(_), Some(_)) => Err(format!("there are both `{name}` and `{encoded_name}`")),
            _ => Err(format!("`{name}` must be text")),
        }
    }

    fn end(self) -> Result<(), String> {
        match self.0.keys().next() {
            Some(name) => Err(format!("`{name}` is not expected here")),
            None => Ok(()),
        }
    }
}

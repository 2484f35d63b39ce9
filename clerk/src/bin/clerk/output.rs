//! What goes to stdout: values, JSON, tables.

use std::io::{self, BufWriter, StdoutLock, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clerk::{Error, GetReply, NodeStatus, ScanItem};
use serde::Serialize;

/// Buffered stdout. It is flushed by hand, because a drop would hide a failure.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Writes one JSON document and a newline.
pub(crate) fn json_line(out: &mut impl Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, document)?;
    out.write_all(b"\n")
}

/// Prints one JSON document on stdout.
pub(crate) fn print_json(document: &impl Serialize) -> io::Result<()> {
    let mut out = stdout();
    json_line(&mut out, document)?;
    out.flush()
}

/// Prints one line on stdout.
pub(crate) fn print_line(line: &str) -> io::Result<()> {
    let mut out = stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

/// A key, and perhaps its value, as JSON fields: as text if it is UTF-8, else in base 64 under another name.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Entry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl<'a> Entry<'a> {
    pub(crate) fn key(key: &'a [u8]) -> Self {
        let (key, key_base64) = text_or_base64(key);
        Self {
            key,
            key_base64,
            ..Self::default()
        }
    }

    pub(crate) fn with_value(self, value: &'a [u8]) -> Self {
        let (value, value_base64) = text_or_base64(value);
        Self {
            value,
            value_base64,
            ..self
        }
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// The answer to `get`, as JSON.
pub(crate) fn get_json(out: &mut impl Write, key: &[u8], reply: &GetReply) -> io::Result<()> {
    #[derive(Serialize)]
    struct Present<'a> {
        #[serde(flatten)]
        entry: Entry<'a>,
        version: u64,
        applied_index: u64,
        term: u64,
    }
    #[derive(Serialize)]
    struct Absent<'a> {
        #[serde(flatten)]
        entry: Entry<'a>,
        value: (),
        version: (),
        applied_index: u64,
        term: u64,
    }
    let entry = Entry::key(key);
    let (applied_index, term) = (reply.applied_index.get(), reply.term.get());
    match &reply.found {
        Some(found) => {
            let entry = entry.with_value(&found.value);
            json_line(
                out,
                &Present {
                    entry,
                    version: found.version.get(),
                    applied_index,
                    term,
                },
            )
        }
        None => json_line(
            out,
            &Absent {
                entry,
                value: (),
                version: (),
                applied_index,
                term,
            },
        ),
    }
}

/// An item of a scan, as a JSON line.
pub(crate) fn item_json(out: &mut impl Write, item: &ScanItem, keys_only: bool) -> io::Result<()> {
    #[derive(Serialize)]
    struct Item<'a> {
        #[serde(flatten)]
        entry: Entry<'a>,
        version: u64,
    }
    let entry = Entry::key(&item.key);
    let entry = if keys_only {
        entry
    } else {
        entry.with_value(&item.value)
    };
    json_line(
        out,
        &Item {
            entry,
            version: item.version.get(),
        },
    )
}

/// An item of a scan, as `key<TAB>value`, bytes as they are.
pub(crate) fn item_text(out: &mut impl Write, item: &ScanItem, keys_only: bool) -> io::Result<()> {
    out.write_all(&item.key)?;
    if !keys_only {
        out.write_all(b"\t")?;
        out.write_all(&item.value)?;
    }
    out.write_all(b"\n")
}

/// One node's row of `status`. What is not known is null.
#[derive(Debug, Serialize)]
pub(crate) struct NodeRow {
    id: Option<u64>,
    endpoint: String,
    reachable: bool,
    role: Option<&'static str>,
    leader_id: Option<u64>,
    term: Option<u64>,
    commit_index: Option<u64>,
    last_applied: Option<u64>,
    last_log_index: Option<u64>,
    snapshot_index: Option<u64>,
    keys: Option<u64>,
    sessions: Option<u64>,
    version: Option<String>,
    error: Option<String>,
}

impl NodeRow {
    pub(crate) fn new(node: &NodeStatus) -> Self {
        let status = node.status.as_ref().ok();
        Self {
            id: node.id.map(|id| id.get()),
            endpoint: node.endpoint.clone(),
            reachable: status.is_some(),
            role: status.map(|status| status.role.as_str()),
            leader_id: status.and_then(|status| status.leader_id).map(|id| id.get()),
            term: status.map(|status| status.term.get()),
            commit_index: status.map(|status| status.commit_index.get()),
            last_applied: status.map(|status| status.last_applied.get()),
            last_log_index: status.map(|status| status.last_log_index.get()),
            snapshot_index: status.map(|status| status.snapshot_index.get()),
            keys: status.map(|status| status.keys),
            sessions: status.map(|status| status.sessions),
            version: status.map(|status| status.version.clone()),
            error: node.status.as_ref().err().map(ToString::to_string),
        }
    }

    fn cells(&self) -> Vec<String> {
        let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        vec![
            number(self.id),
            self.endpoint.clone(),
            self.role.unwrap_or("unreachable").to_owned(),
            number(self.leader_id),
            number(self.term),
            number(self.commit_index),
            number(self.last_applied),
            number(self.last_log_index),
            number(self.snapshot_index),
            number(self.keys),
            self.version.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

const STATUS_HEADINGS: [&str; 11] = [
    "ID", "ENDPOINT", "ROLE", "LEADER", "TERM", "COMMIT", "APPLIED", "LAST LOG", "SNAPSHOT", "KEYS",
    "VERSION",
];

/// The table of `status`.
pub(crate) fn status_table(rows: &[NodeRow]) -> String {
    let mut lines = vec![STATUS_HEADINGS.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(NodeRow::cells));
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..STATUS_HEADINGS.len()).map(width).collect();
    let mut table = String::new();
    for line in &lines {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        table.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        table.push('\n');
    }
    table
}

/// A line for each node that told no status, with the reason: it may be down, or it may have refused.
pub(crate) fn why_unreachable(nodes: &[NodeStatus]) -> String {
    let errors = nodes.iter().filter_map(|node| node.status.as_ref().err());
    errors
        .map(|error| match error {
            Error::NotDone { reason, .. } => format!("unreachable: {reason}\n"),
            other => format!("unreachable: {other}\n"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clerk::{Found, LogIndex, NodeId, Reason, Term};

    use super::*;

    fn printed(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn reply(value: Option<&'static [u8]>) -> GetReply {
        let found = value.map(|value| Found {
            value: value.into(),
            version: LogIndex(7),
        });
        GetReply {
            found,
            applied_index: LogIndex(9),
            term: Term(2),
        }
    }

    #[test]
    fn get_prints_text_as_text_and_bytes_in_base_64() {
        assert_eq!(
            printed(|out| get_json(out, b"k", &reply(Some(b"v\n")))),
            "{\"key\":\"k\",\"value\":\"v\\n\",\"version\":7,\"applied_index\":9,\"term\":2}\n"
        );
        assert_eq!(
            printed(|out| get_json(out, &[0xff], &reply(Some(&[0x80])))),
            "{\"key_base64\":\"/w==\",\"value_base64\":\"gA==\",\"version\":7,\"applied_index\":9,\"term\":2}\n"
        );
        assert_eq!(
            printed(|out| get_json(out, b"k", &reply(None))),
            "{\"key\":\"k\",\"value\":null,\"version\":null,\"applied_index\":9,\"term\":2}\n"
        );
    }

    #[test]
    fn scan_items_are_lines_with_or_without_their_values() {
        let item = ScanItem {
            key: "k".into(),
            value: "v".into(),
            version: LogIndex(3),
        };
        assert_eq!(printed(|out| item_text(out, &item, false)), "k\tv\n");
        assert_eq!(printed(|out| item_text(out, &item, true)), "k\n");
        assert_eq!(
            printed(|out| item_json(out, &item, false)),
            "{\"key\":\"k\",\"value\":\"v\",\"version\":3}\n"
        );
        assert_eq!(
            printed(|out| item_json(out, &item, true)),
            "{\"key\":\"k\",\"version\":3}\n"
        );
    }

    #[test]
    fn an_unreachable_node_stands_in_the_table_and_as_nulls() {
        let error = Error::NotDone {
            after: std::time::Duration::ZERO,
            reason: Reason::NoTime,
        };
        let node = NodeStatus {
            endpoint: "a:1".into(),
            id: Some(NodeId(3)),
            status: Err(error),
        };
        assert_eq!(
            why_unreachable(std::slice::from_ref(&node)),
            "unreachable: no time was left for an attempt\n"
        );
        let row = NodeRow::new(&node);
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["reachable"], false);
        assert_eq!(json["id"], 3);
        assert!(json["role"].is_null() && json["term"].is_null());
        let table = status_table(&[row]);
        assert_eq!(
            table.lines().nth(1).unwrap().split_whitespace().nth(2),
            Some("unreachable")
        );
    }
}

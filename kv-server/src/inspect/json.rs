//! What was found, as one JSON document.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use storage::inspect::{Inspection, JournalReport, RecordReport, SnapshotReport};

use super::Shown;

/// Prints `found`, and the entries if they are wanted.
pub(super) fn print(out: &mut impl Write, found: &Inspection, entries: bool) -> io::Result<()> {
    let mut document = json!({
        "data_dir": found.path.display().to_string(),
        "whole": found.is_whole(),
        "refusal": found.refusal,
        "problems": problems(found),
        "cluster_id": found.identity.as_ref().map(|owner| &owner.cluster_id),
        "node_id": found.identity.as_ref().map(|owner| owner.node_id),
        "creation_finished": !found.unfinished,
        "hard_state": found.hard_state.map(|state| json!({
            "current_term": state.current_term,
            "voted_for": state.voted_for,
        })),
        "snapshot": found.snapshot.as_ref().map(snapshot),
        "left_over_snapshots": found.left_over.iter().map(|(name, size_bytes)| json!({
            "name": name,
            "size_bytes": size_bytes,
        })).collect::<Vec<_>>(),
        "log": found.log.map(|(first, last)| json!({ "first_index": first, "last_index": last })),
        "last_batch": found.last_batch,
        "high_water": found.high_water,
        "journal": found.journal.iter().map(journal).collect::<Vec<_>>(),
        "records": found.records.iter().map(record).collect::<Vec<_>>(),
    });
    if entries {
        document["entries"] = found
            .entries
            .iter()
            .map(|entry| shown(&Shown::of(entry)))
            .collect();
    }
    serde_json::to_writer(&mut *out, &document)?;
    writeln!(out)
}

/// All that is wrong, the refusal first: also what stands at a record, a file of the journal or the snapshot.
fn problems(found: &Inspection) -> Vec<String> {
    let snapshot = found
        .snapshot
        .as_ref()
        .and_then(|snapshot| snapshot.problem.clone());
    let journal = found.journal.iter().filter_map(|file| file.problem.clone());
    let records = found
        .records
        .iter()
        .filter_map(|record| Some(format!("{}: {}", record.key, record.problem.as_ref()?)));
    let all = found.refusal.iter().chain(&found.problems).cloned();
    let mut problems = Vec::new();
    for problem in all.chain(snapshot).chain(journal).chain(records) {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems
}

fn snapshot(snapshot: &SnapshotReport) -> Value {
    json!({
        "last_included_index": snapshot.meta.last_included_index,
        "last_included_term": snapshot.meta.last_included_term,
        "size_bytes": snapshot.meta.size_bytes,
        "checksum": format!("{:08x}", snapshot.meta.checksum),
        "members": snapshot.meta.configuration.members(),
        "ok": snapshot.problem.is_none(),
        "problem": snapshot.problem,
    })
}

fn journal(file: &JournalReport) -> Value {
    let content = file.content.as_ref();
    json!({
        "name": file.name,
        "generation": content.map(|content| content.generation),
        "first_batch": content.map(|content| content.batches.0),
        "last_batch": content.map(|content| content.batches.1),
        "used_bytes": content.map(|content| content.used_bytes),
        "size_bytes": content.map(|content| content.size_bytes),
        "torn": content.map(|content| content.torn),
        "spent": content.map(|content| content.spent),
        "ok": file.problem.is_none(),
        "problem": file.problem,
    })
}

fn record(record: &RecordReport) -> Value {
    json!({
        "key": record.key,
        "first_index": record.indexes.map(|(first, _)| first),
        "last_index": record.indexes.map(|(_, last)| last),
        "serial": record.serial,
        "size_bytes": record.bytes,
        "ok": record.problem.is_none(),
        "problem": record.problem,
    })
}

/// A key that is not UTF-8 stands as `key_base64`.
fn shown(shown: &Shown<'_>) -> Value {
    let mut value = json!({
        "index": shown.entry.index,
        "term": shown.entry.term,
        "kind": shown.kind,
        "size_bytes": shown.entry.size_bytes(),
    });
    if let Some(key) = &shown.key {
        match std::str::from_utf8(key) {
            Ok(key) => value["key"] = key.into(),
            Err(_) => value["key_base64"] = STANDARD.encode(key).into(),
        }
        value["key_bytes"] = key.len().into();
    }
    if let Some(bytes) = shown.value_bytes {
        value["value_bytes"] = bytes.into();
    }
    value
}

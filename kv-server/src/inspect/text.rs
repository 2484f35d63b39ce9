//! What was found, for people.

use std::io::{self, Write};

use storage::inspect::{Inspection, JournalReport, RecordReport};

use super::Shown;

/// Prints `found`, and the entries if they are wanted.
pub(super) fn print(out: &mut impl Write, found: &Inspection, entries: bool) -> io::Result<()> {
    print_summary(out, found)?;
    writeln!(out, "\nrecords ({})", found.records.len())?;
    found
        .records
        .iter()
        .try_for_each(|record| print_record(out, record))?;
    if entries {
        print_entries(out, found)?;
    }
    print_verdict(out, found)
}

fn print_summary(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    writeln!(out, "directory   {}", found.path.display())?;
    match &found.identity {
        Some(owner) => writeln!(
            out,
            "identity    node {} of cluster {:?}",
            owner.node_id, owner.cluster_id
        )?,
        None => writeln!(out, "identity    cannot be read")?,
    }
    if found.unfinished {
        return writeln!(out, "creation    not finished: nothing was ever acknowledged");
    }
    match &found.hard_state {
        Some(state) => match state.voted_for {
            Some(candidate) => writeln!(
                out,
                "hard state  term {}, voted for {candidate}",
                state.current_term
            )?,
            None => writeln!(out, "hard state  term {}, no vote", state.current_term)?,
        },
        None => writeln!(out, "hard state  cannot be read")?,
    }
    match &found.snapshot {
        None => writeln!(out, "snapshot    its record cannot be read")?,
        Some(snapshot) if snapshot.meta.size_bytes == 0 => writeln!(out, "snapshot    none yet")?,
        Some(snapshot) => writeln!(
            out,
            "snapshot    index {}, term {}, {} bytes, checksum {:08x}: {}",
            snapshot.meta.last_included_index,
            snapshot.meta.last_included_term,
            snapshot.meta.size_bytes,
            snapshot.meta.checksum,
            snapshot.problem.as_deref().unwrap_or("ok")
        )?,
    }
    for (name, bytes) in &found.left_over {
        writeln!(out, "left over   snapshots/{name}, {bytes} bytes")?;
    }
    match found.log {
        None => writeln!(out, "log         its range cannot be read")?,
        Some((first, last)) if first > last => writeln!(out, "log         empty behind {last}")?,
        Some((first, last)) => writeln!(out, "log         {first} to {last}")?,
    }
    print_journal(out, &found.journal)?;
    let number = |batch: Option<u64>| batch.map_or_else(|| "unknown".to_owned(), |batch| batch.to_string());
    writeln!(
        out,
        "high water  batch {} was acknowledged, the store holds {}",
        number(found.high_water),
        number(found.last_batch)
    )
}

fn print_journal(out: &mut impl Write, files: &[JournalReport]) -> io::Result<()> {
    for file in files {
        write!(out, "journal/{}   ", file.name)?;
        if let Some(content) = &file.content {
            let (first, last) = content.batches;
            match last < first {
                true => write!(out, "no batch yet")?,
                false => write!(out, "batches {first} to {last}")?,
            }
            let (used, size) = (content.used_bytes, content.size_bytes);
            write!(out, ", use {}, {used} of {size} bytes: ", content.generation)?;
            if content.spent && first <= last {
                write!(out, "spent, the database has all of it; else ")?;
            }
            if content.torn {
                write!(out, "a torn record at the end, never acknowledged; else ")?;
            }
        }
        writeln!(out, "{}", file.problem.as_deref().unwrap_or("ok"))?;
    }
    Ok(())
}

fn print_record(out: &mut impl Write, record: &RecordReport) -> io::Result<()> {
    let serial = record
        .serial
        .map_or_else(|| "-".to_owned(), |serial| serial.to_string());
    let entries = match record.indexes {
        Some((first, last)) => format!("{first}..{last}"),
        None => "-".to_owned(),
    };
    let verdict = record.problem.as_deref().unwrap_or("ok");
    writeln!(
        out,
        "  {:<16} entries {entries:<16} serial {serial:<8} {:>6} bytes  {verdict}",
        record.key, record.bytes
    )
}

fn print_entries(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    writeln!(out, "\nentries ({})", found.entries.len())?;
    for entry in &found.entries {
        let shown = Shown::of(entry);
        write!(out, "  {} term {} {}", entry.index, entry.term, shown.kind)?;
        if let Some(key) = &shown.key {
            write!(out, " \"{}\" ({} bytes)", key.escape_ascii(), key.len())?;
        }
        if let Some(bytes) = shown.value_bytes {
            write!(out, ", value {bytes} bytes")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn print_verdict(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    writeln!(out)?;
    for problem in &found.problems {
        writeln!(out, "problem     {problem}")?;
    }
    let bad_records = found
        .records
        .iter()
        .filter(|record| record.problem.is_some())
        .count();
    if bad_records > 0 {
        writeln!(
            out,
            "problem     {bad_records} of {} records",
            found.records.len()
        )?;
    }
    match &found.refusal {
        Some(refusal) => writeln!(
            out,
            "verdict     damaged: a node would not start from this: {refusal}"
        ),
        None if found.is_whole() => writeln!(out, "verdict     whole"),
        None => writeln!(out, "verdict     damaged, though a node would start from this"),
    }
}

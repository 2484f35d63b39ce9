//! One function a command.

use std::ffi::OsString;
use std::io::{self, Read, Write};

use clerk::{Clerk, Consistency, LogIndex, Scan};
use rpc::limits::MAX_VALUE_BYTES;
use serde::Serialize;

use crate::arguments::{Format, Range};
use crate::failure::{Failure, Status};
use crate::is_json;
use crate::output::{self, NodeRow};

pub(crate) async fn put(
    clerk: &Clerk,
    format: Format,
    key: OsString,
    value: OsString,
) -> Result<Status, Failure> {
    let (key, value) = (bytes(key)?, value_or_stdin(value)?);
    let version = clerk.put(key, value).await?;
    written(format, version).map_err(Failure::after_the_write)
}

pub(crate) async fn append(
    clerk: &Clerk,
    format: Format,
    key: OsString,
    value: OsString,
) -> Result<Status, Failure> {
    let (key, value) = (bytes(key)?, value_or_stdin(value)?);
    let version = clerk.append(key, value).await?;
    written(format, version).map_err(Failure::after_the_write)
}

fn written(format: Format, version: LogIndex) -> Result<Status, Failure> {
    #[derive(Serialize)]
    struct Written {
        ok: bool,
        version: u64,
    }
    if is_json(format) {
        output::print_json(&Written {
            ok: true,
            version: version.get(),
        })?;
    } else {
        output::print_line("OK")?;
    }
    Ok(Status::Done)
}

pub(crate) async fn get(
    clerk: &Clerk,
    format: Format,
    key: OsString,
    consistency: Consistency,
    raw: bool,
) -> Result<Status, Failure> {
    let key = bytes(key)?;
    let reply = clerk.get_with(&key, consistency).await?;
    let mut out = output::stdout();
    if is_json(format) {
        output::get_json(&mut out, &key, &reply)?;
    } else if let Some(found) = &reply.found {
        out.write_all(&found.value)?;
        out.write_all(if raw { b"" } else { b"\n" })?;
    }
    out.flush()?;
    match reply.found {
        Some(_) => Ok(Status::Done),
        None => Err(not_found(&key)),
    }
}

pub(crate) async fn delete(clerk: &Clerk, format: Format, key: OsString) -> Result<Status, Failure> {
    #[derive(Serialize)]
    struct Deleted {
        deleted: bool,
    }
    let key = bytes(key)?;
    let deleted = clerk.delete(&key).await?;
    if is_json(format) {
        output::print_json(&Deleted { deleted }).map_err(|error| Failure::from(error).after_the_write())?;
    } else if deleted {
        output::print_line("deleted").map_err(|error| Failure::from(error).after_the_write())?;
    }
    if deleted {
        Ok(Status::Done)
    } else {
        Err(not_found(&key))
    }
}

fn not_found(key: &[u8]) -> Failure {
    Failure::no(format!("key not found: {}", key.escape_ascii()))
}

pub(crate) async fn scan(clerk: &Clerk, format: Format, range: Range) -> Result<Status, Failure> {
    let keys_only = range.keys_only;
    let mut pages = clerk.pages(scan_of(range)?);
    let mut out = output::stdout();
    while let Some(page) = pages.next_page().await? {
        for item in &page.items {
            if is_json(format) {
                output::item_json(&mut out, item, keys_only)?;
            } else {
                output::item_text(&mut out, item, keys_only)?;
            }
        }
        out.flush()?;
    }
    Ok(Status::Done)
}

fn scan_of(range: Range) -> Result<Scan, Failure> {
    let mut scan = match range.prefix {
        Some(prefix) => Scan::prefix(bytes(prefix)?),
        None => Scan::starting_at(bytes(range.from.unwrap_or_default())?),
    };
    if let Some(to) = range.to {
        scan = scan.ending_before(bytes(to)?);
    }
    if let Some(limit) = range.limit {
        scan = scan.limit(limit);
    }
    if range.keys_only {
        scan = scan.keys_only();
    }
    Ok(scan.consistency(range.consistency.into()))
}

pub(crate) async fn status(clerk: &Clerk, format: Format) -> Result<Status, Failure> {
    let nodes = clerk.status().await;
    let rows: Vec<NodeRow> = nodes.iter().map(NodeRow::new).collect();
    if is_json(format) {
        output::print_json(&rows)?;
    } else {
        output::print_line(output::status_table(&rows).trim_end())?;
        if nodes.iter().any(|node| node.status.is_ok()) {
            // Where stderr is closed, the table is there still.
            let _ = io::stderr().write_all(output::why_unreachable(&nodes).as_bytes());
        }
    }
    match nodes.into_iter().map(|node| node.status).collect::<Vec<_>>() {
        all if all.iter().any(Result::is_ok) => Ok(Status::Done),
        none => Err(none.into_iter().find_map(Result::err).map_or_else(
            || Failure::not_done("no node is known"),
            |error| Failure::from(error).at("no node can be reached"),
        )),
    }
}

/// The argument `-` stands for stdin, read to its end but not much beyond the limit.
fn value_or_stdin(value: OsString) -> Result<Vec<u8>, Failure> {
    if value != "-" {
        return bytes(value);
    }
    let mut read = Vec::new();
    let most = MAX_VALUE_BYTES as u64 + 1;
    io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut read)
        .map_err(|error| Failure::usage(format!("stdin could not be read: {error}")))?;
    if read.len() > MAX_VALUE_BYTES {
        return Err(Failure::usage(format!(
            "the value has over {MAX_VALUE_BYTES} bytes: the limit is {MAX_VALUE_BYTES}"
        )));
    }
    Ok(read)
}

/// An argument's bytes. On Unix that is whatever was typed; elsewhere arguments are text.
pub(crate) fn bytes(argument: OsString) -> Result<Vec<u8>, Failure> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        Ok(argument.into_vec())
    }
    #[cfg(not(unix))]
    argument
        .into_string()
        .map(String::into_bytes)
        .map_err(|_| Failure::usage("an argument is not text: use `-` and stdin for other bytes"))
}

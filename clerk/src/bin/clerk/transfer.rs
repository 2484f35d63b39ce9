//! `import` and `export`: keys and values as JSON lines.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clerk::{Clerk, Error, Scan};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rpc::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::task::{JoinError, JoinSet};

use crate::arguments::Format;
use crate::commands::bytes;
use crate::failure::{Failure, Status, about_the_cluster};
use crate::import_line;
use crate::is_json;
use crate::output::{self, Entry};

/// How many puts are in flight at once.
const PUTS_IN_FLIGHT: usize = 64;
/// No further put is begun while the values of those in flight have so many bytes: what is in flight has to come
/// through within the timeout of a put, on slow disks too.
const BYTES_IN_FLIGHT: usize = 4 << 20;
/// The longest line: the longest key and value with every byte written as `\u0000`, and room for the rest.
const MAX_LINE_BYTES: usize = 6 * (MAX_KEY_BYTES + MAX_VALUE_BYTES) + 4_096;

/// Puts every line of `file` into the store.
pub(crate) async fn import(clerk: &Clerk, format: Format, file: &Path) -> Result<Status, Failure> {
    let mut lines = Lines::open(file).await?;
    let bar = lines.progress();
    let began = Instant::now();
    let mut importer = Importer::new(clerk.clone());
    let outcome = importer.import_all(&mut lines, &bar).await;
    // What is in flight is let end, so that what is said of the lines is true.
    let outcome = importer.finish(outcome).await;
    bar.finish_and_clear();
    outcome?;
    let summary = Summary::new(importer.done, began.elapsed());
    summary.print(&mut output::stdout(), format, "imported")?;
    Ok(Status::Done)
}

/// Writes the keys that begin with `prefix`, and their values, as `import` reads them.
pub(crate) async fn export(
    clerk: &Clerk,
    format: Format,
    prefix: OsString,
    file: &Path,
) -> Result<Status, Failure> {
    let to_stdout = file == Path::new("-");
    let mut partial = None;
    let mut out: Box<dyn Write> = if to_stdout {
        Box::new(output::stdout())
    } else {
        let created = if is_special(file) {
            File::create(file).map_err(|error| cannot("create", file, &error))?
        } else {
            let (own, created) = Partial::create(end_of_links(file))?;
            partial = Some(own);
            created
        };
        Box::new(BufWriter::with_capacity(64 << 10, created))
    };
    let bar = progress_bar(None);
    let began = Instant::now();
    let mut count = 0;
    let mut pages = clerk.pages(Scan::prefix(bytes(prefix)?));
    while let Some(page) = pages.next_page().await? {
        for item in &page.items {
            output::json_line(&mut out, &Entry::key(&item.key).with_value(&item.value))?;
        }
        out.flush()?;
        count += page.items.len() as u64;
        bar.set_position(count);
    }
    bar.finish_and_clear();
    drop(out);
    if let Some(partial) = partial {
        partial.complete()?;
    }
    let summary = Summary::new(count, began.elapsed());
    if to_stdout {
        summary.print(&mut io::stderr().lock(), format, "exported")?;
    } else {
        summary.print(&mut output::stdout(), format, "exported")?;
    }
    Ok(Status::Done)
}

/// A pipe, a terminal, `/dev/null`: written to directly. A regular file is replaced only when the export is
/// complete, so that one that fails does not cost an older one.
fn is_special(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| !metadata.is_file())
}

/// A file that is not complete yet. It goes with this value, unless it has got another name by then.
struct Partial {
    path: PathBuf,
    /// The file that it is to replace.
    target: PathBuf,
}

impl Partial {
    /// Creates it beside `target`, under a name that nothing has, with the permissions of what it is to replace: a
    /// file that was not for everyone's eyes stays so.
    fn create(target: PathBuf) -> Result<(Self, File), Failure> {
        let path = target.with_file_name(format!("clerk-export-{:016x}.partial", rand::random::<u64>()));
        let created = File::create_new(&path).map_err(|error| cannot("create", &path, &error))?;
        let partial = Self { path, target };
        if let Ok(replaced) = std::fs::metadata(&partial.target) {
            let set = created.set_permissions(replaced.permissions());
            set.map_err(|error| cannot("set the permissions of", &partial.path, &error))?;
        }
        Ok((partial, created))
    }

    fn complete(self) -> Result<(), Failure> {
        std::fs::rename(&self.path, &self.target).map_err(|error| cannot("replace", &self.target, &error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The file that `file` names, which need not be there yet, through any symbolic link.
fn end_of_links(file: &Path) -> PathBuf {
    let target = file.canonicalize().ok().or_else(|| {
        let link = std::fs::read_link(file).ok()?;
        Some(file.parent()?.join(link))
    });
    target.unwrap_or_else(|| file.to_owned())
}

/// What import and export print in the end.
#[derive(Debug, Serialize)]
struct Summary {
    count: u64,
    seconds: f64,
    rate: f64,
}

impl Summary {
    fn new(count: u64, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
        Self {
            count,
            seconds,
            rate: if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            },
        }
    }

    fn print(&self, out: &mut impl Write, format: Format, verb: &str) -> io::Result<()> {
        if is_json(format) {
            output::json_line(out, self)?;
        } else {
            let Self { count, seconds, rate } = self;
            writeln!(
                out,
                "{verb} {count} keys in {seconds:.2} seconds, {rate:.0} keys/s"
            )?;
        }
        out.flush()
    }
}

/// The lines of a file or of stdin, with their numbers and a bound on their length.
struct Lines {
    input: Box<dyn AsyncBufRead + Unpin>,
    name: String,
    size_bytes: Option<u64>,
    read_bytes: u64,
    number: u64,
}

impl Lines {
    async fn open(file: &Path) -> Result<Self, Failure> {
        if file == Path::new("-") {
            let input = Box::new(BufReader::new(tokio::io::stdin()));
            return Ok(Self {
                input,
                name: "stdin".into(),
                size_bytes: None,
                read_bytes: 0,
                number: 0,
            });
        }
        let opened = tokio::fs::File::open(file)
            .await
            .map_err(|error| cannot("open", file, &error))?;
        let size_bytes = opened
            .metadata()
            .await
            .ok()
            .filter(|about| about.is_file())
            .map(|about| about.len());
        let input = Box::new(BufReader::with_capacity(64 << 10, opened));
        Ok(Self {
            input,
            name: file.display().to_string(),
            size_bytes,
            read_bytes: 0,
            number: 0,
        })
    }

    fn progress(&self) -> ProgressBar {
        progress_bar(self.size_bytes)
    }

    /// The next line that is not blank; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            self.number += 1;
            match self.read_line().await? {
                None => return Ok(None),
                Some(line) if line.iter().all(u8::is_ascii_whitespace) => {}
                Some(line) => return Ok(Some(line)),
            }
        }
    }

    async fn read_line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut line = Vec::new();
        loop {
            let read = self.input.fill_buf().await;
            let chunk =
                read.map_err(|error| Failure::usage(format!("{} could not be read: {error}", self.name)))?;
            if chunk.is_empty() {
                return Ok((!line.is_empty()).then_some(line));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if line.len() + part.len() > MAX_LINE_BYTES {
                let message =
                    format!("the line has over {MAX_LINE_BYTES} bytes, more than any key and value");
                return Err(Failure::usage(message));
            }
            line.extend_from_slice(part);
            let taken = part.len() + usize::from(end.is_some());
            self.input.consume(taken);
            self.read_bytes += taken as u64;
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }
}

/// How a put ended: its line, its key, its outcome.
type Ended = (u64, Vec<u8>, Result<(), Error>);

/// The puts in flight. Two lines with one key are done one after the other, in the order of the file.
struct Importer {
    clerk: Clerk,
    puts: JoinSet<Ended>,
    /// Their keys, and how many bytes their values have.
    in_flight: HashMap<Vec<u8>, usize>,
    done: u64,
    /// The first line that failed, why, and what to do about the cluster.
    failed: Option<(u64, Failure, Option<&'static str>)>,
}

impl Importer {
    fn new(clerk: Clerk) -> Self {
        Self {
            clerk,
            puts: JoinSet::new(),
            in_flight: HashMap::new(),
            done: 0,
            failed: None,
        }
    }

    /// Begins a put for every line, until one fails. An error is of the line at which reading stopped.
    async fn import_all(&mut self, lines: &mut Lines, bar: &ProgressBar) -> Result<(), (u64, Failure)> {
        loop {
            let line = lines.next().await.map_err(|failure| (lines.number, failure))?;
            let Some(line) = line else { return Ok(()) };
            let (key, value) = parse_line(&line).map_err(|failure| (lines.number, failure))?;
            while self.is_full() || self.in_flight.contains_key(&key) {
                self.reap().await;
            }
            while self.puts.try_join_next().map(|ended| self.note(ended)).is_some() {}
            if self.failed.is_some() {
                return Ok(());
            }
            self.put(lines.number, key, value);
            bar.set_position(if lines.size_bytes.is_some() {
                lines.read_bytes
            } else {
                self.done
            });
        }
    }

    fn is_full(&self) -> bool {
        self.puts.len() >= PUTS_IN_FLIGHT || self.in_flight.values().sum::<usize>() >= BYTES_IN_FLIGHT
    }

    fn put(&mut self, number: u64, key: Vec<u8>, value: Vec<u8>) {
        self.in_flight.insert(key.clone(), value.len());
        let clerk = self.clerk.clone();
        self.puts.spawn(async move {
            let outcome = clerk.put(&key, value).await.map(drop);
            (number, key, outcome)
        });
    }

    async fn reap(&mut self) {
        if let Some(ended) = self.puts.join_next().await {
            self.note(ended);
        }
    }

    fn note(&mut self, ended: Result<Ended, JoinError>) {
        let (number, failure, advice) = match ended {
            Ok((number, key, outcome)) => {
                self.in_flight.remove(&key);
                match outcome {
                    Ok(()) => {
                        self.done += 1;
                        return;
                    }
                    Err(error) => {
                        let advice = about_the_cluster(&error);
                        (number, error.into(), advice)
                    }
                }
            }
            Err(error) => (0, Failure::not_done(format!("a put broke off: {error}")), None),
        };
        self.fail(number, failure, advice);
    }

    fn fail(&mut self, number: u64, failure: Failure, advice: Option<&'static str>) {
        if self.failed.as_ref().is_none_or(|(first, ..)| number < *first) {
            self.failed = Some((number, failure, advice));
        }
    }

    /// Waits for the puts in flight. All lines before the one that the failure names are in.
    async fn finish(&mut self, outcome: Result<(), (u64, Failure)>) -> Result<(), Failure> {
        while !self.puts.is_empty() {
            self.reap().await;
        }
        if let Err((number, failure)) = outcome {
            self.fail(number, failure, None);
        }
        match self.failed.take() {
            None => Ok(()),
            Some((number, failure, advice)) => {
                let advice = advice.map(|advice| format!("{advice}\n  ")).unwrap_or_default();
                let hint = advice + &how_far_it_got(number);
                Err(failure.at(&format!("line {number}")).with_hint(hint))
            }
        }
    }
}

/// What is in when the import stopped at line `failed`, the first that is not in for certain.
fn how_far_it_got(failed: u64) -> String {
    match failed {
        // 0: it cannot be told which line it was.
        0 | 1 => "importing the lines again does no harm".to_owned(),
        2 => "line 1 is in; importing it again does no harm".to_owned(),
        _ => format!("the lines before line {failed} are in; importing them again does no harm"),
    }
}

fn parse_line(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    import_line::parse(line).map_err(Failure::usage)
}

/// A bar of bytes where the whole is known, else a count; hidden unless stderr is a terminal. It has no
/// colours, so `NO_COLOR` asks for nothing more.
fn progress_bar(whole_bytes: Option<u64>) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let (template, bar) = match whole_bytes {
        Some(whole) => (
            "{bar:40} {bytes} of {total_bytes} in {elapsed}",
            ProgressBar::with_draw_target(Some(whole), target),
        ),
        None => (
            "{spinner} {pos} keys in {elapsed}",
            ProgressBar::with_draw_target(None, target),
        ),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn cannot(verb: &str, file: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("cannot {verb} {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_export_writes_import_reads_byte_for_byte(
            key in proptest::collection::vec(any::<u8>(), 1..40),
            value in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut line = Vec::new();
            output::json_line(&mut line, &Entry::key(&key).with_value(&value)).unwrap();
            prop_assert_eq!(parse_line(&line).unwrap(), (key, value));
        }
    }

    #[test]
    fn the_longest_key_and_value_fit_in_a_line_however_they_are_written() {
        let (key, value) = (vec![1; MAX_KEY_BYTES], vec![1; MAX_VALUE_BYTES]);
        let mut line = Vec::new();
        output::json_line(&mut line, &Entry::key(&key).with_value(&value)).unwrap();
        assert!(line.len() > 6 * MAX_VALUE_BYTES && line.len() <= MAX_LINE_BYTES);
    }

    #[test]
    fn lines_that_are_not_one_key_and_one_value_are_refused() {
        for line in [
            "",
            "[]",
            "{}",
            "{\"key\": \"k\"}",
            "{\"value\": \"v\"}",
            "{\"key\": 1, \"value\": \"v\"}",
            "{\"key\": \"k\", \"value\": \"v\", \"value\": \"w\"}",
            "{\"key\": \"k\", \"value\": \"v\", \"value_base64\": \"dg==\"}",
            "{\"key\": \"k\", \"value_base64\": \"*\"}",
            "{\"key\": \"k\", \"value\": \"v\"} x",
        ] {
            let failure = parse_line(line.as_bytes()).unwrap_err();
            assert_eq!(failure.status(), Status::Usage, "{line}");
        }
        // More fields are no harm: the lines that scan prints can be imported.
        assert!(parse_line(b"{\"key\": \"k\", \"value\": \"v\", \"version\": 3}").is_ok());
    }
}

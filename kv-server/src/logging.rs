//! The log of a node: one line an event on stderr, each with the node's id.
//!
//! The id is written by the formatter, not taken from a span: spans belong to a thread or a task, and the
//! lines of all of them must carry it.

use std::fmt;
use std::io::IsTerminal;

use raft_core::NodeId;
use thiserror::Error;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::{LogFormat, LogOptions};

const DEFAULT_FILTER: &str = "info";
/// tarpc tells every request at `info`, and at `error` every deadline that passed, which is a caller's affair.
const QUIET_TARPC: &str = "tarpc=off";

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter says nothing that can be understood.
    #[error(
        "{origin}: the log filter {filter:?} is not valid: {reason}\nfix: use levels and targets, such as info,raft_core=debug"
    )]
    Filter {
        /// The flag or the variable that it comes from.
        origin: &'static str,
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A word that is almost a level, and would be taken for a target, of which nothing ever logs.
    #[error(
        "{origin}: {word:?} in the log filter is no level\nfix: the levels are off, error, warn, info, debug and trace; for \
         a target of this name, write {word}=LEVEL"
    )]
    Level {
        /// The flag or the variable that it comes from.
        origin: &'static str,
        /// The word.
        word: String,
    },
    /// The process logs already.
    #[error("logging is set up already: call this once in a process")]
    AlreadySetUp,
}

/// Logs everything of this process to stderr, as the node `id`.
///
/// The filter is the one in `options`, else `RUST_LOG`, else `info`; tarpc is left out unless the
/// filter names it. Colours are for terminals, and not for them either when `NO_COLOR` is set.
///
/// # Errors
///
/// When the filter is not valid, or the process has a log already.
pub fn init(options: &LogOptions, id: NodeId) -> Result<(), LogError> {
    let filter = chosen_filter(options)?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_coloured = std::io::stderr().is_terminal() && !no_color;
    let subscriber = subscriber(filter, options.log_format, id, is_coloured, std::io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySetUp)
}

/// Says whether [`init`] would take these options, and changes nothing.
///
/// # Errors
///
/// When the filter is not valid.
pub fn check(options: &LogOptions) -> Result<(), LogError> {
    chosen_filter(options).map(drop)
}

fn chosen_filter(options: &LogOptions) -> Result<EnvFilter, LogError> {
    let rust_log = std::env::var("RUST_LOG").ok();
    filter(options.log.as_deref(), rust_log.as_deref())
}

/// Where the filter of the options comes from: the flag beats the variable.
fn origin_of_log() -> &'static str {
    const VARIABLE: &str = "KV_SERVER_LOG";
    let is_the_flag = |word: std::ffi::OsString| {
        let word = word.to_string_lossy();
        word.split('=').next() == Some("--log")
    };
    if std::env::var_os(VARIABLE).is_none() || std::env::args_os().any(is_the_flag) {
        "--log"
    } else {
        VARIABLE
    }
}

fn filter(asked_for: Option<&str>, rust_log: Option<&str>) -> Result<EnvFilter, LogError> {
    let origins = [(asked_for, origin_of_log()), (rust_log, "RUST_LOG")];
    let given = origins
        .into_iter()
        .filter_map(|(filter, origin)| Some((filter?, origin)))
        .find(|(filter, _)| !filter.trim().is_empty());
    let (given, origin) = given.unwrap_or((DEFAULT_FILTER, "the default"));
    if let Some(word) = given
        .split(',')
        .map(str::trim)
        .find(|word| is_almost_a_level(word))
    {
        let word = word.to_owned();
        return Err(LogError::Level { origin, word });
    }
    let names_tarpc = given
        .split(',')
        .any(|directive| directive.trim().starts_with("tarpc"));
    let filter = if names_tarpc {
        given.to_owned()
    } else {
        format!("{given},{QUIET_TARPC}")
    };
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LogError::Filter {
            origin,
            filter: given.to_owned(),
            reason: error.to_string(),
        })
}

/// Whether a word alone, which may be a level or a target, is a level that was misspelt.
fn is_almost_a_level(word: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let word = word.to_lowercase();
    let distances = LEVELS.map(|level| (strsim::levenshtein(&word, level), level.len()));
    let is_level = distances.iter().any(|(edits, _)| *edits == 0);
    let is_near = distances.iter().any(|(edits, length)| edits * 2 <= *length);
    word == "warning" || !is_level && is_near
}

fn subscriber<W>(
    filter: EnvFilter,
    format: LogFormat,
    id: NodeId,
    is_coloured: bool,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(is_coloured)
        // A reader of stderr that goes away must not take the node with it: the report of the failed
        // write would go to stderr as well, and panic there.
        .log_internal_errors(false);
    // The lines are put together in strings, which do not know by themselves whether colours are wanted.
    let format_line = Format::default().with_ansi(is_coloured);
    match format {
        LogFormat::Text => Box::new(
            builder
                .event_format(TextLine {
                    id,
                    rest: format_line.without_time(),
                })
                .finish(),
        ),
        LogFormat::Json => {
            let rest = format_line.json().with_current_span(false).with_span_list(false);
            Box::new(
                builder
                    .fmt_fields(JsonFields::new())
                    .event_format(JsonLine { id, rest })
                    .finish(),
            )
        }
    }
}

/// `TIME node=ID LEVEL TARGET: MESSAGE FIELDS`
struct TextLine {
    id: NodeId,
    rest: Format<Full, ()>,
}

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut rest = String::with_capacity(256);
        self.rest.format_event(context, Writer::new(&mut rest), event)?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, " node={} ", self.id)?;
        // A line break in a message would let its sender forge a line of the log.
        let one_line = rest
            .trim_end_matches('\n')
            .replace('\r', "\\r")
            .replace('\n', "\\n");
        writeln!(writer, "{one_line}")
    }
}

/// `{"node":ID,"timestamp":…,"level":…,"fields":{"message":…,…},"target":…}`
struct JsonLine {
    id: NodeId,
    rest: Format<Json>,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut object = String::with_capacity(256);
        self.rest.format_event(context, Writer::new(&mut object), event)?;
        let members = object.strip_prefix('{').ok_or(fmt::Error)?;
        write!(writer, "{{\"node\":{},{members}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::dispatcher::{self, Dispatch};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged by `log` under a filter.
    fn logged(
        format: LogFormat,
        asked_for: Option<&str>,
        is_coloured: bool,
        log: impl FnOnce(),
    ) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let filter = filter(asked_for, None).unwrap();
        let subscriber = subscriber(filter, format, NodeId(7), is_coloured, move || writer.clone());
        dispatcher::with_default(&Dispatch::new(subscriber), log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn log_from_another_thread() {
        let dispatch = dispatcher::get_default(Clone::clone);
        let in_a_thread = move || dispatcher::with_default(&dispatch, || tracing::info!("there"));
        std::thread::spawn(in_a_thread).join().unwrap();
    }

    #[test]
    fn a_line_of_text_carries_the_node_on_every_thread() {
        let lines = logged(LogFormat::Text, None, false, || {
            tracing::info!(term = 3, "here");
            log_from_another_thread();
        });
        let [here, there] = &lines[..] else {
            panic!("{lines:?}")
        };
        let (time, rest) = here.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
        assert_eq!(rest, "node=7  INFO kv_server::logging::tests: here term=3");
        assert!(
            there.ends_with("node=7  INFO kv_server::logging::tests: there"),
            "{there}"
        );
    }

    #[test]
    fn a_line_of_json_carries_the_node_on_every_thread() {
        let lines = logged(LogFormat::Json, None, true, || {
            tracing::info!(term = 3, text = "a \"b\"\n\u{1b}[0m", "here");
            log_from_another_thread();
        });
        let [here, there] = &lines[..] else {
            panic!("{lines:?}")
        };
        assert!(here.starts_with(r#"{"node":7,"timestamp":""#), "{here}");
        let fields = r#"Z","level":"INFO","fields":{"message":"here","term":3,"text":"a \"b\"\n\u001b[0m"},"#;
        assert!(here.contains(fields), "{here}");
        assert!(
            here.ends_with(r#""target":"kv_server::logging::tests"}"#),
            "{here}"
        );
        assert!(there.starts_with(r#"{"node":7,"#), "{there}");
    }

    #[test]
    fn one_event_is_one_line_whatever_its_message_holds() {
        let forged = "x\n2026-01-01T00:00:00Z node=1 INFO forged";
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = logged(format, None, false, || tracing::info!(key = forged, "{forged}"));
            assert_eq!(lines.len(), 1, "{lines:?}");
        }
    }

    #[test]
    fn colours_are_only_for_those_who_asked() {
        let log = || tracing::info!(term = 3, "here");
        assert!(logged(LogFormat::Text, None, true, log)[0].contains('\u{1b}'));
        assert!(!logged(LogFormat::Text, None, false, log)[0].contains('\u{1b}'));
    }

    fn targets_logged(asked_for: Option<&str>) -> Vec<String> {
        let lines = logged(LogFormat::Text, asked_for, false, || {
            tracing::info!(target: "tarpc::server", "tarpc-info");
            tracing::warn!(target: "tarpc::server", "tarpc-warn");
            tracing::debug!(target: "raft_core", "core-debug");
            tracing::info!(target: "raft_core", "core-info");
        });
        lines
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn tarpc_is_quiet_unless_it_is_named() {
        assert_eq!(targets_logged(None), ["core-info"]);
        assert_eq!(
            targets_logged(Some("info,raft_core=debug")),
            ["core-debug", "core-info"]
        );
        assert_eq!(
            targets_logged(Some("warn,tarpc=info")),
            ["tarpc-info", "tarpc-warn"]
        );
        assert_eq!(
            targets_logged(Some("off,tarpc::server=info")),
            ["tarpc-info", "tarpc-warn"]
        );
    }

    #[test]
    fn the_option_beats_the_environment_which_beats_the_default() {
        let shown = |asked_for, rust_log| filter(asked_for, rust_log).unwrap().to_string();
        assert_eq!(shown(Some("debug"), Some("error")), "tarpc=off,debug");
        assert_eq!(shown(None, Some("error")), "tarpc=off,error");
        assert_eq!(shown(None, None), "tarpc=off,info");
        assert_eq!(shown(Some(" "), Some("")), "tarpc=off,info");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        let error = filter(Some("info,raft_core=loud"), None).unwrap_err().to_string();
        assert!(
            error.contains(": the log filter \"info,raft_core=loud\" is not valid: "),
            "{error}"
        );
        assert!(
            error.ends_with("\nfix: use levels and targets, such as info,raft_core=debug"),
            "{error}"
        );
        let error = filter(Some(""), Some("raft_core=loud")).unwrap_err().to_string();
        assert!(error.starts_with("RUST_LOG: the log filter"), "{error}");
    }

    #[test]
    fn a_misspelt_level_is_refused_and_a_target_is_taken() {
        for word in ["inof", "infos", "wran", "warning", "debg", "eror", "Tarce", "of"] {
            let error = filter(Some(&format!("raft_core=debug, {word}")), None).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains(&format!("{word:?} in the log filter is no level")),
                "{error}"
            );
            assert!(
                error.contains("off, error, warn, info, debug and trace"),
                "{error}"
            );
        }
        for word in [
            "INFO",
            "off",
            "Warn",
            "raft_core",
            "kv_server",
            "rpc",
            "storage",
            "sled",
            "mio",
            "tokio",
            "h2",
        ] {
            assert!(filter(Some(word), None).is_ok(), "{word}");
        }
        assert!(filter(Some("inof=debug"), None).is_ok());
    }

    #[test]
    fn a_broken_pipe_is_survived() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::BrokenPipe))
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let filter = filter(None, None).unwrap();
        let subscriber = subscriber(filter, LogFormat::Text, NodeId(1), false, || Broken);
        dispatcher::with_default(&Dispatch::new(subscriber), || tracing::info!("lost"));
    }
}

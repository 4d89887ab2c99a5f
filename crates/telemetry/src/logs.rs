//! Structured logs: what is written, in which form.
//!
//! Levels are filtered by target prefix (`info,volley_server=debug`), not by regular expressions over fields, so that
//! no regular expression engine comes along.

use std::io::{self, IsTerminal};
use tracing::Subscriber;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt};
use tracing_subscriber::reload;

/// What is logged where nothing else is configured: everything from the level `info` up.
pub const DEFAULT_FILTER: &str = "info";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for a person, in colour on a terminal.
    Human,
    /// One JSON object a line: `timestamp` (RFC 3339, UTC), `level`, `target`, `message`, the event's own fields beside
    /// them, and under `spans` the fields of the spans around it, outermost first, among them `request_id`.
    Json,
}

/// The filter cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A word alone that is no level: most likely one that is misspelt, which would silence everything else.
    #[error(
        "log filter {filter:?}: {word:?} is no level; write off, error, warn, info, debug or trace, or target=level"
    )]
    NotALevel {
        /// The whole filter.
        filter: String,
        /// The part of it that is wrong.
        word: String,
    },
    /// A part that is not of the form `target=level`.
    #[error("log filter {filter:?}: expected a level or target=level, separated by commas")]
    Malformed {
        /// The whole filter.
        filter: String,
        /// What the parser said.
        source: ParseError,
    },
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The process logs already, to whoever came first.
    #[error("a log subscriber is already installed in this process")]
    AlreadySet(#[source] SetGlobalDefaultError),
}

impl LogError {
    /// Whether logging works all the same, through a subscriber that was installed before.
    #[must_use]
    pub fn is_already_set(&self) -> bool {
        matches!(self, Self::AlreadySet(_))
    }
}

/// Changes what is logged while the process runs.
#[derive(Clone)]
pub struct Filter(reload::Handle<Targets, Lines>);

impl Filter {
    /// Logs by `filter` from now on.
    ///
    /// # Errors
    ///
    /// If `filter` cannot be read; then nothing changes.
    pub fn set(&self, filter: &str) -> Result<(), FilterError> {
        let targets = targets(filter)?;
        // Fails only when the subscriber is gone, and with it whatever the filter could change.
        let _ = self.0.reload(targets);
        Ok(())
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}

/// Logs what the process does from now on to standard error, so that standard output stays the program's own.
///
/// # Errors
///
/// If `filter` cannot be read, or the process has a subscriber already.
pub fn init(format: LogFormat, filter: &str) -> Result<Filter, LogError> {
    let (subscriber, filter) = subscriber(format, filter, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(LogError::AlreadySet)?;
    Ok(filter)
}

/// Whether `filter` can be read.
///
/// # Errors
///
/// [`FilterError`] says which part of it cannot.
pub fn check_filter(filter: &str) -> Result<(), FilterError> {
    targets(filter).map(drop)
}

/// Where lines are written, before they are filtered.
type Lines = Layered<Box<dyn Layer<Registry> + Send + Sync>, Registry>;

/// A subscriber that writes to `writer`, to be installed by the caller, and what changes its filter.
///
/// # Errors
///
/// If `filter` cannot be read.
pub fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, Filter), FilterError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (targets, handle) = reload::Layer::new(targets(filter)?);
    let lines = fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Human => Box::new(lines.with_ansi(io::stderr().is_terminal())),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_current_span(false).with_span_list(true)),
    };
    Ok((Registry::default().with(lines).with(targets), Filter(handle)))
}

fn targets(filter: &str) -> Result<Targets, FilterError> {
    let parts: Vec<&str> = filter.split(',').map(str::trim).collect();
    for word in parts.iter().filter(|part| !part.contains('=')) {
        // The parser takes nothing at all for the level error.
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(FilterError::NotALevel { filter: filter.to_owned(), word: (*word).to_owned() });
        }
    }
    parts.join(",").parse().map_err(|source| FilterError::Malformed { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused_by_name() {
        let error = targets("volley_server=debug,inof").expect_err("inof is no level").to_string();
        assert!(error.contains("\"inof\" is no level"), "{error}");
        assert!(targets("volley_server=inof").is_err());
        assert!(targets("").is_err());
    }

    #[test]
    fn a_filter_can_change_while_the_process_logs_and_a_bad_one_changes_nothing() {
        let (subscriber, filter) = subscriber(LogFormat::Json, "info", io::sink).expect("a filter");
        tracing::subscriber::with_default(subscriber, || {
            assert!(!tracing::enabled!(tracing::Level::DEBUG));
            filter.set("debug").expect("a filter");
            assert!(tracing::enabled!(tracing::Level::DEBUG));
            filter.set("loud").expect_err("no level");
            assert!(tracing::enabled!(tracing::Level::DEBUG));
        });
    }

    #[test]
    fn a_filter_takes_levels_and_targets() {
        let targets = targets("warn, volley_server=debug,hyper=off").expect("a filter");
        assert!(targets.would_enable("volley_server::pipeline", &tracing::Level::DEBUG));
        assert!(!targets.would_enable("volley_cache", &tracing::Level::INFO));
        assert!(!targets.would_enable("hyper", &tracing::Level::ERROR));
    }
}

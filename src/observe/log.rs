//! The log: a line per event relevant to an operator, on standard error.
//!
//! `[log]` in the configuration sets filter and format; the environment variables `ONCEGATE_LOG`
//! and `ONCEGATE_LOG_FORMAT` win over the file. Keys, credentials and bodies are never logged; a
//! record appears as its id, a digest.

use std::env;
use std::io::IsTerminal as _;
use std::str::FromStr as _;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

pub use super::line::LogFormat;

use super::format::LineFormat;
use super::writer;

/// The variable of the filter.
const FILTER_VARIABLE: &str = "ONCEGATE_LOG";
/// The variable of the format.
const FORMAT_VARIABLE: &str = "ONCEGATE_LOG_FORMAT";

/// Replaces the filter of the running log.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Starts the log with this filter and format, unless the environment names others. A second start
/// changes nothing.
///
/// # Errors
/// A line about a variable of the environment with a wrong value.
pub fn start(level: &str, format: LogFormat) -> Result<(), String> {
    let filter = match variable(FILTER_VARIABLE) {
        Some(text) => filter(&text).map_err(|what| format!("{FILTER_VARIABLE}: {what}"))?,
        None => filter(level)?,
    };
    let lines = LineFormat { format: format_or(format)?, color: color() };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer::Queue)
        // The option would report a failed write to standard error on standard error, and panic: a
        // full disk or a stopped log collector would end calls.
        .log_internal_errors(false)
        .event_format(lines)
        .with_filter_reloading();
    let handle = subscriber.reload_handle();
    // The only error is a second start of logging, which is harmless.
    if tracing::subscriber::set_global_default(subscriber.finish()).is_ok() {
        let set = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        let _ = SET_FILTER.set(Box::new(set));
        writer::start(lines);
    }
    Ok(())
}

/// Writes the lines that wait, and ends the log; waits for a second at most.
pub fn finish() {
    writer::finish();
}

/// Replaces the filter of the running log, unless the environment names one, which wins.
///
/// # Errors
/// When `level` is no filter.
pub fn set_level(level: &str) -> Result<(), String> {
    if variable(FILTER_VARIABLE).is_some() {
        return Ok(());
    }
    let filter = filter(level)?;
    SET_FILTER.get().map_or(Ok(()), |set| set(filter))
}

/// The format to write in: the environment's, or else this one.
///
/// # Errors
/// When the variable's value is no format.
pub fn format_or(configured: LogFormat) -> Result<LogFormat, String> {
    let Some(name) = variable(FORMAT_VARIABLE) else { return Ok(configured) };
    LogFormat::named(&name).ok_or_else(|| {
        format!("{FORMAT_VARIABLE}: \"{name}\" is no format of the log; use text or json")
    })
}

/// True when standard error takes colors: a terminal, and nobody has set `NO_COLOR`.
fn color() -> bool {
    std::io::stderr().is_terminal() && variable("NO_COLOR").is_none()
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads a filter: a level, or directives in the syntax of tracing-subscriber.
///
/// # Errors
/// The reason, and what to write. The library takes any word without a level for the name of a
/// module, so that a misspelled level would silence the log; such a word is refused here.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, String> {
    let bare = |part: &&str| !part.contains(['=', '[']) && !part.contains("::");
    // The library has numbers for levels, and takes nothing for one.
    let is_level = |word: &str| {
        let is_named = !word.is_empty() && word.parse::<u8>().is_err();
        is_named && LevelFilter::from_str(word).is_ok()
    };
    for word in text.split(',').map(str::trim).filter(bare) {
        if !is_level(word) {
            return Err(format!(
                "\"{word}\" is no level of the log; use error, warn, info, debug or trace, or a \
                 filter such as \"info,oncegate::store=debug\""
            ));
        }
    }
    // The library takes a blank for a part of a name.
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    EnvFilter::try_new(directives.join(",")).map_err(|error| {
        format!(
            "\"{text}\" is no filter of the log ({error}); write for example \
             \"info,oncegate::store=debug\""
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_directives() {
        for (text, is_filter) in [
            ("error", true),
            ("warn", true),
            ("INFO", true),
            ("debug", true),
            ("trace", true),
            ("off", true),
            ("info,oncegate::store=debug", true),
            ("warn, oncegate::proxy=trace", true),
            ("oncegate::store", true),
            ("oncegate=debug", true),
            ("verbose", false),
            ("inof", false),
            ("info,debgu", false),
            ("oncegate::store=loud", false),
            ("info,", false),
            ("", false),
            ("3", false),
        ] {
            let read = filter(text);
            assert_eq!(read.is_ok(), is_filter, "{text}: {:?}", read.err());
        }
    }

    #[test]
    fn a_format_has_a_name() {
        assert_eq!(LogFormat::named("text"), Some(LogFormat::Text));
        assert_eq!(LogFormat::named("json"), Some(LogFormat::Json));
        assert_eq!(LogFormat::named("JSON"), None);
    }
}

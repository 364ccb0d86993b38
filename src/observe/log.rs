//! The log: a line per event relevant to an operator, on standard error.
//!
//! `ONCEGATE_LOG` sets the filter, in tracing-subscriber's syntax (default: `info`; `error` for the
//! demo, with its deliberate faults); `ONCEGATE_LOG_FORMAT=json` writes a JSON object per line.
//! Keys, credentials and bodies are never logged; a record appears as the first 8 hex digits of its
//! digest.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging, with the filter `unset` when the environment has none. An invalid filter is
/// reported and replaced by `info`.
pub fn start(unset: &str) {
    let filter = std::env::var("ONCEGATE_LOG").unwrap_or_else(|_| unset.to_owned());
    let (filter, wrong) = match EnvFilter::try_new(&filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error.to_string())),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // The option would report a failed write to standard error on standard error, and panic: a
        // full disk or a stopped log collector would end calls.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let json = std::env::var("ONCEGATE_LOG_FORMAT").is_ok_and(|format| format == "json");
    // The only error is a second start of logging, which is harmless.
    let _ = if json { subscriber.json().try_init() } else { subscriber.try_init() };
    if let Some(error) = wrong {
        tracing::warn!(error, "ONCEGATE_LOG cannot be read; showing info and above");
    }
}

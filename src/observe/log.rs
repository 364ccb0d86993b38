//! The log: one line for each thing an operator may want to know, on standard error.
//!
//! `ONCEGATE_LOG` sets what is shown, in tracing-subscriber's filter syntax (when unset: `info`; `error` for the demo, whose faults are meant);
//! `ONCEGATE_LOG_FORMAT=json` writes one JSON object a line. Keys, credentials and bodies are never
//! logged; a record appears as the first 8 hex digits of its digest.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging, with the filter `unset` when the environment has none. A filter that cannot be
/// read is reported and replaced by `info`.
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
        // It would report a line that could not be written on standard error, where writing just
        // failed, and panic: a full disk or a log collector that ended would end calls.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let json = std::env::var("ONCEGATE_LOG_FORMAT").is_ok_and(|format| format == "json");
    // The one error is that logging was started already, which is what was wanted.
    let _ = if json { subscriber.json().try_init() } else { subscriber.try_init() };
    if let Some(error) = wrong {
        tracing::warn!(error, "ONCEGATE_LOG cannot be read; showing info and above");
    }
}

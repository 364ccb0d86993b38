//! Output for operators about a running process.
//!
//! `log` starts the log, `format` turns events into lines, `line` is their form, and `writer`
//! brings them to standard error. `exchange` holds the fields that the lines of an exchange have in
//! common, `access` is the line of a request, and `repeated` counts conditions that would fill the
//! log. `metrics` counts requests, `traffic` keeps the counts of the last day, and `traces` turns
//! sampled exchanges into spans.

pub(crate) mod access;
pub(crate) mod exchange;
mod format;
pub(crate) mod line;
pub mod log;
pub(crate) mod metrics;
pub(crate) mod repeated;
pub(crate) mod request_id;
pub(crate) mod traces;
pub(crate) mod traffic;
mod writer;

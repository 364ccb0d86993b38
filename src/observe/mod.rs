//! Output for operators about a running process: `log` starts the log, `line` is the form of its
//! lines, `repeated` counts conditions that would fill it, and `metrics` counts requests.

pub(crate) mod access;
pub(crate) mod exchange;
pub(crate) mod line;
pub mod log;
pub(crate) mod metrics;
pub(crate) mod repeated;
mod writer;

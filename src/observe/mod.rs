//! Output for operators about a running process.

pub mod log;
pub(crate) mod metrics;

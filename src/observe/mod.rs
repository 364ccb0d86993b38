//! Output that tells operators about a running process.

pub mod log;

//! Connections as streams of bytes, for clients, backends and operators alike.

pub(crate) mod coalesce;
pub mod tls;
pub(crate) mod write_timeout;

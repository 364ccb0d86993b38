//! Connections as streams of bytes: accepting them, and what every listener does to them.
//!
//! The proxy, the upstream client and the operator's listener build on it; the protocol on a
//! connection is left to them.

pub(crate) mod accept;
pub(crate) mod coalesce;
pub(crate) mod listen;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod write_timeout;

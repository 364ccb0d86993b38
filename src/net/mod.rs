//! Connections as byte streams: accepting, and the behavior common to all listeners.
//!
//! Used by the proxy, the upstream client and the operator's listener; the protocol on a connection
//! is theirs.

pub(crate) mod accept;
pub(crate) mod coalesce;
pub(crate) mod http2_frames;
pub(crate) mod listen;
pub(crate) mod proxy_protocol;
pub(crate) mod small_reads;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod tls_server;
pub(crate) mod watched;
pub(crate) mod write_timeout;

//! The data path: from an accepted connection to an answered request.
//!
//! `server` accepts connections and drains, `exchange` handles one request from start to finish,
//! and `request::forward` is the half of a keyed request beyond the reach of a client's disconnect.
//! The rules themselves are in `idempotency`.

mod access;
mod answer;
mod batch;
mod batch_cache;
mod batch_locks;
mod body_end;
pub(crate) mod budget;
mod buffered;
pub(crate) mod callers;
mod capture;
mod choice;
mod client_head;
mod collect;
mod cors;
mod error_format;
mod exchange;
pub(crate) mod headers;
mod incoming;
mod inflight;
mod kept;
mod key_headers;
mod key_room;
mod observe_mode;
mod other_callers;
mod passthrough;
mod peer;
mod rate;
mod replay_memory;
pub(crate) mod reply;
mod request;
pub(crate) mod request_id;
mod resolved;
mod responder;
mod rewrite;
mod routes;
pub(crate) mod routing;
mod server;
mod state;
mod successor;
mod wellknown;

pub(crate) use server::{serve, serve_http2, serve_socket};
pub(crate) use state::Gateway;

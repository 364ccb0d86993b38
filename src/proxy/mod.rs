//! The data path: from an accepted connection to an answered request.
//!
//! `server` accepts and drains, `exchange` takes one request from start to finish, `forward` is the
//! half of it that a client's disconnect cannot cancel. What the rules say is in `idempotency`.

mod answer;
mod batch;
mod batch_cache;
mod batch_locks;
pub(crate) mod budget;
mod buffered;
mod collect;
mod exchange;
pub(crate) mod headers;
mod incoming;
mod inflight;
mod passthrough;
mod peer;
pub(crate) mod reply;
mod request;
mod responder;
mod rewrite;
mod routes;
pub(crate) mod routing;
mod server;
mod state;
mod wellknown;

pub(crate) use server::serve;
pub(crate) use state::Gateway;

//! The data path: from an accepted connection to an answered request.
//!
//! `server` accepts and drains, `exchange` takes one request from start to finish, `forward` is the
//! half of it that a client's disconnect cannot cancel. What the rules say is in `idempotency`.

mod answer;
mod batch;
pub(crate) mod budget;
mod collect;
mod exchange;
pub(crate) mod headers;
mod incoming;
mod passthrough;
pub(crate) mod reply;
mod request;
mod responder;
mod rewrite;
pub(crate) mod routes;
mod server;
mod state;
mod wellknown;

use std::sync::Arc;

use crate::places::Places;
use crate::shutdown::Tasks;
pub(crate) use state::Gateway;

/// Accepts on all `listeners` until the shutdown starts; `background` runs the accepting.
pub(crate) fn serve(
    gateway: &Arc<Gateway>,
    listeners: Vec<tokio::net::TcpListener>,
    background: &Tasks,
    shutdown: &crate::shutdown::Shutdown,
) {
    let connections = Places::new(gateway.config.server.limits.connections);
    for listener in listeners {
        let accepting =
            server::accept(gateway.clone(), listener, connections.clone(), shutdown.clone());
        background.spawn(accepting);
    }
}

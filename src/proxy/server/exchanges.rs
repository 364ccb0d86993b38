//! The common part of HTTP/1.1 and HTTP/2 connections: when a client is dismissed, and the access
//! log's entry of an exchange.

use std::sync::Arc;

use http::Method;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::observe::exchange::ExchangeSpan;
use crate::proxy::access::AccessEntry;
use crate::proxy::peer::Peer;
use crate::proxy::routing::Routing;
use crate::proxy::state::Gateway;

/// Waits for a reload after which the client's connection would not be accepted any more: its
/// certificate's authority is gone, or connections are encrypted now.
pub(super) async fn dismissed(gateway: &Gateway, peer: &Peer, mut reloads: watch::Receiver<u64>) {
    loop {
        // The sender lives as long as the gateway.
        if reloads.changed().await.is_err() || !peer.is_admitted(gateway.routing().tls.as_deref()) {
            return;
        }
    }
}

/// The entry of the access log for an exchange that begins now; `None`: there is no access log.
pub(super) fn access_entry(
    routing: &Routing,
    peer: &Peer,
    span: &Arc<ExchangeSpan>,
    method: &Method,
) -> Option<AccessEntry> {
    routing.access.map(|format| AccessEntry {
        format,
        span: span.clone(),
        method: method.clone(),
        client: peer.ip(),
        started: Instant::now(),
    })
}

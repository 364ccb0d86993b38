//! The operator's listener: `/healthz` (alive), `/readyz` (the store can make claims durable and
//! the gateway is not draining), `/metrics`, and, for callers with the token, the records API and
//! the operator's page.
//!
//! `connections` keeps clients from keeping probes out; `health` answers probes, `metrics` scrapes,
//! `unknown` counts unknown outcomes, `records` is the records API with `stats`, `page` is the page
//! with its `session`s, `error` holds the refusals of probes and the API. The effect of a decision
//! on a record is defined in `idempotency::settle`.

mod connections;
mod error;
mod health;
mod metrics;
mod page;
mod records;
mod session;
mod state;
mod stats;
mod unknown;

pub(crate) use self::health::READY_WORD;
pub(crate) use self::state::{AdminState, ServedGateway};

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use self::connections::{ACCEPTED, Connections};
use crate::limit::Limit;
use crate::net::accept::accept;
use crate::net::listen::ListenSocket;
use crate::net::write_timeout::write_timeout;
use crate::shutdown::Shutdown;

/// Time limit for a request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for a write to a client that reads nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the operator's listener, also while the gateway drains, so that probes see the drain;
/// `ending` tells of its announcement.
pub(crate) async fn serve(state: Arc<AdminState>, listener: ListenSocket, ending: Shutdown) {
    let (accepted, open) = (Arc::new(Limit::new(ACCEPTED)), Arc::new(Connections::default()));
    // A drain does not wait for these connections.
    let tasks = TaskTracker::new();
    accept(listener, accepted, tasks, Bytes::new, move |stream, client| {
        let place = open.begin();
        async move {
            // Without an address all clients share one limit of wrong tokens.
            let client = client.unwrap_or(IpAddr::from([0; 4]));
            place.run(serve_one(&state, stream, client, &ending)).await;
        }
    })
    .await;
}

/// Answers probes before the store is open, one for each connection, until the returned future is
/// dropped: a connection that outlives the wait must not hear of it for ever.
pub(crate) async fn serve_starting(listener: ListenSocket) {
    let (accepted, open) = (Arc::new(Limit::new(ACCEPTED)), Arc::new(Connections::default()));
    accept(listener, accepted, TaskTracker::new(), Bytes::new, move |stream, _| {
        let place = open.begin();
        async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, Infallible>(health::starting(&request))
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .half_close(true)
                .serve_connection(TokioIo::new(write_timeout(stream, WRITE_TIMEOUT)), service);
            place
                .run(async {
                    if let Err(error) = served.await {
                        tracing::debug!(%error, "an admin connection ended early");
                    }
                })
                .await;
        }
    })
    .await;
}

async fn serve_one<S>(state: &Arc<AdminState>, stream: S, client: IpAddr, ending: &Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let service = service_fn(|request: Request<Incoming>| async move {
        let response = match request.uri().path() {
            path if path.starts_with(records::PATH) => records::answer(state, request).await,
            metrics::PATH => metrics::answer(state, &request).await,
            path if page::is_page(path) => page::answer(state, request, client).await,
            _ => health::answer(&*state.store, &request, ending.started()),
        };
        Ok::<_, Infallible>(response)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // Who has asked and closed its sending side is still served.
        .half_close(true)
        .serve_connection(TokioIo::new(write_timeout(stream, WRITE_TIMEOUT)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

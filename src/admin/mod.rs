//! The operator's listener: `/healthz` (alive), `/readyz` (the store can make claims durable and the
//! gateway is not draining), and the records API, for whoever has the token.
//!
//! `health` answers probes, `records` is the records API, `error` the refusals of both. What a decision makes of a record is in `idempotency::settle`.

mod error;
mod health;
mod records;
mod state;

pub use self::state::AdminState;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::net::write_timeout::PatientIo;
use crate::places::Places;
use crate::shutdown::{Shutdown, Tasks};

/// Connections at once: a few probes and a person.
const CONNECTIONS: usize = 64;
/// For a request head to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a write waits for a client that takes nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long accepting rests after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the operator's listener. It goes on while the gateway drains, so that a probe can see it.
pub async fn serve(state: Arc<AdminState>, listener: TcpListener, shutdown: Shutdown) {
    let connections = Places::new(CONNECTIONS);
    let tasks = Tasks::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(place) = connections.take() else { continue };
        let (state, shutdown) = (state.clone(), shutdown.clone());
        tasks.spawn(async move {
            serve_one(&state, stream, &shutdown).await;
            drop(place);
        });
    }
}

async fn serve_one(state: &Arc<AdminState>, stream: TcpStream, shutdown: &Shutdown) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let response = match request.uri().path().starts_with(records::PATH) {
            true => records::answer(state, request).await,
            false => health::answer(&*state.store, &request, shutdown.started()),
        };
        Ok::<_, Infallible>(response)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // Who has asked and closed its sending side is still served.
        .half_close(true)
        .serve_connection(TokioIo::new(PatientIo::new(stream, WRITE_TIMEOUT)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

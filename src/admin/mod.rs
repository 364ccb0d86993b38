//! The operator's listener: `/healthz` (alive), `/readyz` (the store can make claims durable and the
//! gateway is not draining), and the records API, for whoever has the token.
//!
//! `api` guards and routes, `query` and `list` find records, `shown` writes them down, `decide` makes
//! an operator's decisions durable, `response` checks what is to be replayed, `trouble` is what goes
//! wrong. What a decision makes of a record is in `idempotency::settle`.

mod api;
mod decide;
mod list;
mod query;
mod response;
mod shown;
mod trouble;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{Body, full};
use crate::config::{Config, Mode, defaults};
use crate::net::write_timeout::PatientIo;
use crate::places::Places;
use crate::shutdown::{Shutdown, Tasks};
use crate::store::Store;
use crate::store::cache::Hot;

/// Connections at once: a few probes and a person.
const CONNECTIONS: usize = 64;
/// For a request head to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a write waits for a client that takes nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long accepting rests after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Requests to the records API that are worked on at once; the next ones wait. Each may hold as much
/// as a page of records takes.
const AT_ONCE: usize = 4;
/// Bytes of a resolve's body beside its response.
const BESIDES: u64 = 64 << 10;

/// What the records API works with.
#[derive(Debug)]
pub struct Office {
    store: Arc<dyn Store>,
    hot: Arc<Hot>,
    config: Config,
    /// The digest of the token.
    token: Option<[u8; 32]>,
    turns: Arc<Semaphore>,
    /// What a drain waits for: a decision that has begun is carried to its end.
    tasks: Tasks,
    /// Bytes of the largest answer that any route keeps.
    most_stored: u64,
    /// Bytes of the largest body that is read.
    most_body: u64,
}

impl Office {
    /// For the gateway with this configuration, store, memory and work to drain.
    pub fn new(config: Config, store: Arc<dyn Store>, hot: Arc<Hot>, tasks: Tasks) -> Self {
        let most = config.routes.iter().filter_map(|route| match &route.mode {
            Mode::Request(mode) => Some(mode.record.max_stored_body),
            Mode::Items(_) | Mode::Off => None,
        });
        let most_stored = most.max().unwrap_or(defaults::MAX_STORED_BODY);
        let token = config.admin.token.as_ref();
        let token = token.map(|token| Sha256::digest(token.expose().as_bytes()).into());
        // Twice: Base64 is a third larger, and text has its escapes.
        let most_body = most_stored.saturating_mul(2).saturating_add(BESIDES);
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { store, hot, config, token, turns, tasks, most_stored, most_body }
    }

    /// Waits for a turn.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.turns.clone().acquire_owned().await.ok()
    }
}

/// Serves the operator's listener. It goes on while the gateway drains, so that a probe can see it.
pub async fn serve(office: Arc<Office>, listener: TcpListener, shutdown: Shutdown) {
    let connections = Places::new(CONNECTIONS);
    let tasks = Tasks::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(place) = connections.take() else { continue };
        let (office, shutdown) = (office.clone(), shutdown.clone());
        tasks.spawn(async move {
            serve_one(&office, stream, &shutdown).await;
            drop(place);
        });
    }
}

async fn serve_one(office: &Arc<Office>, stream: TcpStream, shutdown: &Shutdown) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let response = match request.uri().path().starts_with(api::PATH) {
            true => api::answer(office, request).await,
            false => answer(&*office.store, &request, shutdown.started()),
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

fn answer(store: &dyn Store, request: &Request<Incoming>, draining: bool) -> Response<Body> {
    let read = request.method() == Method::GET || request.method() == Method::HEAD;
    match request.uri().path() {
        "/healthz" | "/readyz" if !read => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "read this with GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" if draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/readyz" => match store.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "there is /healthz, /readyz and /api/records\n"),
    }
}

fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

//! The operator's listener: `/healthz` (alive) and `/readyz` (the store can make claims durable and
//! the gateway is not draining).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::body::{Body, full};
use crate::places::Places;
use crate::shutdown::{Shutdown, Tasks};
use crate::store::Store;

/// Connections at once: a few probes and a person.
const CONNECTIONS: usize = 64;
/// For a request head to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long accepting rests after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the operator's listener. It goes on while the gateway drains, so that a probe can see it.
pub async fn serve(store: Arc<dyn Store>, listener: TcpListener, shutdown: Shutdown) {
    let connections = Places::new(CONNECTIONS);
    let tasks = Tasks::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(place) = connections.take() else { continue };
        let (store, shutdown) = (store.clone(), shutdown.clone());
        tasks.spawn(async move {
            serve_one(&*store, stream, &shutdown).await;
            drop(place);
        });
    }
}

async fn serve_one(store: &dyn Store, stream: TcpStream, shutdown: &Shutdown) {
    let service = service_fn(|request| async move {
        Ok::<_, Infallible>(answer(store, &request, shutdown.started()))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
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
        _ => text(StatusCode::NOT_FOUND, "there is /healthz and /readyz\n"),
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

//! `/healthz` (alive) and `/readyz` (the store can make claims durable, and the gateway is not
//! draining).

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::body::{Body, full};
use crate::store::Store;

/// First word of the body of `/readyz`, by which `oncegate health` recognizes the gateway.
pub(crate) const READY_WORD: &str = "oncegate";

pub(super) fn answer(
    store: &dyn Store,
    request: &Request<Incoming>,
    draining: bool,
) -> Response<Body> {
    let read = request.method() == Method::GET || request.method() == Method::HEAD;
    match request.uri().path() {
        "/healthz" | "/readyz" if !read => only_get(),
        "/healthz" => match store.failure() {
            None => text(StatusCode::OK, "alive\n"),
            Some(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        },
        "/readyz" if draining => readiness(Err("is draining")),
        "/readyz" => match store.ready() {
            Ok(()) => readiness(Ok(())),
            Err(error) => readiness(Err(&format!("is not ready: {error}"))),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there is /healthz, /readyz, /metrics, /api/records and the page at /\n",
        ),
    }
}

/// The answer to another method.
pub(super) fn only_get() -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "read this with GET\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// The answer of a process that waits for its store.
pub(super) fn starting(request: &Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "alive\n"),
        _ => readiness(Err("is starting: the store is not open yet")),
    }
}

/// The answer of `/readyz`; without readiness, the predicate that says why.
fn readiness(ready: Result<(), &str>) -> Response<Body> {
    match ready {
        Ok(()) => text(StatusCode::OK, format!("{READY_WORD} is ready\n")),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{READY_WORD} {why}\n")),
    }
}

pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

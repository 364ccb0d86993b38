//! `/metrics`: the metrics in Prometheus text or OpenMetrics.

use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::health;
use super::state::AdminState;
use crate::body::Body;
use crate::observe::metrics::Exposition;

/// Path of the metrics.
pub(super) const PATH: &str = "/metrics";

/// Answers a scrape.
pub(super) async fn answer(state: &AdminState, request: &Request<Incoming>) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return health::only_get();
    }
    let form = Exposition::accepted(request.headers().get_all(ACCEPT).iter());
    let unknown = state.unknown.figures(&state.store).await;
    let figures = state.gateway.figures();
    let written = state.metrics.write(form, &figures, unknown, state.store.now());
    let Ok(written) = written else {
        return health::text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n");
    };
    let mut response = health::text(StatusCode::OK, written);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

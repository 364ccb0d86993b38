//! Forwarded messages: the request to the backend and the answer to the client, rebuilt from the
//! received head.

use http::{HeaderName, HeaderValue, Method, Request, StatusCode, request, response};

use super::headers::{self, Forwarding};
use super::peer::ClientAddress;
use super::request_id;
use super::routing::Route;
use crate::observe::exchange;
use crate::observe::exchange::traceparent;
use crate::observe::traces::TRACEPARENT;

/// Builds the request for the backend of `route`: the target byte for byte, as a backend may verify
/// a signature over it. `keyed`: the answer will be stored.
pub(crate) fn to_backend<B>(
    route: &Route,
    head: request::Parts,
    client: ClientAddress,
    body: B,
    keyed: bool,
) -> Request<B> {
    let forwarding = Forwarding {
        client,
        version: head.version,
        request_id: request_id::for_upstream(
            &exchange::request_id(),
            &head.headers,
            route.has_key_in_request_id,
            &route.hidden_keys,
        ),
        hidden: &route.hidden_keys,
        keyed,
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.headers_mut() = headers::upstream_headers(head.headers, &forwarding);
    if let Some(context) = traceparent() {
        request.headers_mut().insert(TRACEPARENT, context);
    }
    request
}

/// Turns a backend's head into the client's. `replayed`: the marker reserved for the gateway.
pub(crate) fn to_client(
    head: &mut response::Parts,
    method: &Method,
    replayed: Option<&HeaderName>,
) {
    let keep_length = *method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    let backend = std::mem::take(&mut head.headers);
    head.headers = headers::downstream_headers(backend, replayed, keep_length, head.version, now);
    head.version = http::Version::HTTP_11;
}

fn now() -> HeaderValue {
    let date = crate::clock::now().to_http_date();
    HeaderValue::try_from(date).unwrap_or_else(|_| HeaderValue::from_static(""))
}

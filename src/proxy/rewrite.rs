//! The request to the backend, rebuilt from the received head.

use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, Request, request};

use super::headers::{self, Forwarding};
use super::peer::ClientAddress;
use super::request_id;
use super::routing::Route;
use crate::observe::exchange;
use crate::observe::exchange::traceparent;
use crate::observe::traces::TRACEPARENT;

/// Headers describing the exact bytes of a body.
const ABOUT_BYTES: [HeaderName; 8] = [
    ETAG,
    LAST_MODIFIED,
    ACCEPT_RANGES,
    CONTENT_ENCODING,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Removes the headers valid only for the unchanged body.
pub(crate) fn forget_bytes(headers: &mut HeaderMap) {
    for name in &ABOUT_BYTES {
        headers.remove(name);
    }
}

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
        request_id: exchange::with_request_id(|id| {
            let hidden = &route.hidden_keys;
            request_id::for_upstream(id, &head.headers, route.has_key_in_request_id, hidden)
        }),
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

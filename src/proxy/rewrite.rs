//! The messages that go on: a request to the backend and an answer to the client, built anew from
//! what came in.

use std::net::IpAddr;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, request, response};

use super::headers::path::normalize_path;
use super::headers::{self, Forwarding};
use super::routing::Route;

/// The request for the backend of `route`. `keyed` says that its answer will be kept.
pub(crate) fn to_backend<B>(
    route: &Route,
    head: request::Parts,
    peer: IpAddr,
    body: B,
    keyed: bool,
) -> Request<B> {
    let forwarding = Forwarding {
        client: peer,
        secure: false,
        request_id: crate::nonce::uuid(),
        key: route.hidden_key.as_ref(),
        keyed,
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = target(head.uri);
    *request.headers_mut() = headers::upstream_headers(head.headers, &forwarding);
    request
}

/// The target with the path in the spelling that the route and the fingerprint saw.
fn target(uri: Uri) -> Uri {
    use std::borrow::Cow;
    if !uri.path().as_bytes().contains(&b'%') {
        // A path without escapes has one spelling only.
        return uri;
    }
    let Ok(Cow::Owned(path)) = normalize_path(uri.path()) else { return uri };
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    // What was a valid target with escapes is one without them.
    PathAndQuery::try_from(text).map_or(uri, Uri::from)
}

/// Makes a backend's head the client's. `replayed` is the marker that only the gateway may set.
pub(crate) fn to_client(
    head: &mut response::Parts,
    method: &Method,
    replayed: Option<&HeaderName>,
) {
    let keep_length = *method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    let backend = std::mem::take(&mut head.headers);
    head.headers = headers::downstream_headers(backend, replayed, keep_length, now);
    head.version = http::Version::HTTP_11;
}

fn now() -> HeaderValue {
    let date = crate::clock::now().to_http_date();
    HeaderValue::try_from(date).unwrap_or_else(|_| HeaderValue::from_static(""))
}

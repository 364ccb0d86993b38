//! Forwarded messages: the request to the backend and the answer to the client, rebuilt from the
//! received head.

use std::net::IpAddr;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, request, response};

use super::headers::path::normalize_path;
use super::headers::{self, Forwarding};
use super::routing::Route;

/// Builds the request for the backend of `route`. `keyed`: the answer will be stored.
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
        hidden: &route.hidden_keys,
        keyed,
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = target(head.uri);
    *request.headers_mut() = headers::upstream_headers(head.headers, &forwarding);
    request
}

/// The target with its path in the normalized spelling of the route and the fingerprint.
fn target(uri: Uri) -> Uri {
    use std::borrow::Cow;
    if !uri.path().as_bytes().contains(&b'%') {
        // A path without escapes has a single spelling.
        return uri;
    }
    let Ok(Cow::Owned(path)) = normalize_path(uri.path()) else { return uri };
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    // A valid target stays valid when its escapes are normalized.
    PathAndQuery::try_from(text).map_or(uri, Uri::from)
}

/// Turns a backend's head into the client's. `replayed`: the marker reserved for the gateway.
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

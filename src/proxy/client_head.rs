//! The head of an answer to the client, rebuilt from the backend's.

use http::{HeaderName, HeaderValue, Method, StatusCode, response};

use super::headers;

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

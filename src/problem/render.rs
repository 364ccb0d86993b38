//! The HTTP response of a problem.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, response};
use hyper::ext::ReasonPhrase;

use super::dialect::Dialect;
use super::disposition::{ERROR_HEADER, STATUS};
use super::document::{Occurrence, Problem};
use crate::body::{Body, full};

/// Link to the published contract.
const CONTRACT_LINK: &str = "</.well-known/idempotency>; rel=\"describedby\"";

/// Header with the id of the exchange.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Problem {
    /// The response to the given occurrence of the problem.
    pub fn respond(&self, dialect: Dialect, occurrence: &Occurrence) -> Response<Body> {
        let (head, body) = self.render(dialect, occurrence);
        Response::from_parts(head, full(body))
    }

    /// The response's head, without framing, and its body.
    pub fn render(&self, dialect: Dialect, occurrence: &Occurrence) -> (response::Parts, Bytes) {
        let (status, media_type, body) = dialect.render(self, occurrence);
        let mut response = Response::new(());
        // Many clients show the status line and nothing else of a refusal.
        let reason = ReasonPhrase::from_static(self.slug.title().as_bytes());
        response.extensions_mut().insert(reason);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.slug.as_str()));
        headers.insert(LINK, HeaderValue::from_static(CONTRACT_LINK));
        if let Some(id) = &occurrence.request_id {
            headers.insert(REQUEST_ID, id.clone());
            if let Some(name) = dialect.request_id_header() {
                headers.insert(name, id.clone());
            }
        }
        if let Some(disposition) = self.disposition {
            headers.insert(STATUS, disposition.header());
        }
        if let Some(delay) = self.retry_after {
            // Whole seconds, rounded up: a client that waits this long does not come too early.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        (response.into_parts().0, Bytes::from(body))
    }
}

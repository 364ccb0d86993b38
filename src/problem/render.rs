//! The HTTP response of a problem.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderValue, Response, response};

use super::dialect::Dialect;
use super::disposition::{ERROR_HEADER, STATUS};
use super::document::Problem;
use crate::body::{Body, full};

/// Link to the published contract.
const CONTRACT_LINK: &str = "</.well-known/idempotency>; rel=\"describedby\"";

impl Problem {
    /// The response; `instance` names the request in response and log.
    pub fn respond(&self, dialect: Dialect, instance: uuid::Uuid) -> Response<Body> {
        let (head, body) = self.render(dialect, instance);
        Response::from_parts(head, full(body))
    }

    /// The response's head, without framing, and its body.
    pub fn render(&self, dialect: Dialect, instance: uuid::Uuid) -> (response::Parts, Bytes) {
        let (status, media_type, body) = dialect.render(self, instance);
        let mut response = Response::new(());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.slug.as_str()));
        headers.insert(LINK, HeaderValue::from_static(CONTRACT_LINK));
        if let Some(disposition) = self.disposition {
            headers.insert(STATUS, disposition.header());
        }
        if let Some(delay) = self.retry_after {
            // Whole seconds, rounded up: a client that waits this long does not come too early.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(allow) = &self.allow {
            headers.insert(ALLOW, allow.clone());
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        (response.into_parts().0, Bytes::from(body))
    }
}

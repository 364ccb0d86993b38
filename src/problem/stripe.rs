//! Answers in the manner of Stripe's API, as its client libraries read them.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::disposition::{Disposition, ERROR_HEADER, STATUS};
use super::slug::Slug;

/// Tells Stripe's libraries whether to send again, whatever the status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");
/// The libraries show the id in this header with every error.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Member `type` of an error; the libraries choose the class of their exception by it.
pub(super) fn error_type(slug: Slug) -> &'static str {
    match slug {
        Slug::KeyReused | Slug::RequestInProgress | Slug::SuspectedDuplicate => "idempotency_error",
        Slug::KeyMissing
        | Slug::KeyInvalid
        | Slug::KeyExpired
        | Slug::BodyInvalid
        | Slug::TooManyItems
        | Slug::DuplicateItem
        | Slug::QuantityInvalid
        | Slug::BodyTooLarge
        | Slug::HeadTooLarge
        | Slug::UriTooLong
        | Slug::RequestInvalid
        | Slug::CallerUnknown
        | Slug::NoRoute
        | Slug::MethodNotAllowed
        | Slug::NotFound => "invalid_request_error",
        Slug::UpstreamUnreachable
        | Slug::OutcomeUnknown
        | Slug::ResponseNotRetained
        | Slug::Reversed
        | Slug::StoreUnavailable
        | Slug::Overloaded
        | Slug::QuotaExceeded
        | Slug::AuthorizationUnavailable
        | Slug::RequestTimeout
        | Slug::UpstreamFailed => "api_error",
    }
}

/// Adds `Stripe-Should-Retry` to an answer. Left to themselves the libraries repeat every 409 and
/// 5xx, also where no repetition can bring another answer.
pub(super) fn mark(status: StatusCode, headers: &mut HeaderMap) {
    if let Some(should) = should_retry(status, headers) {
        let value = if should { "true" } else { "false" };
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(value));
    }
}

/// Tells if a repetition helps; `None`: the backend's answer speaks for itself.
fn should_retry(status: StatusCode, headers: &HeaderMap) -> Option<bool> {
    let disposition = headers.get(STATUS).map(HeaderValue::as_bytes);
    let is = |other: Disposition| disposition == Some(other.as_str().as_bytes());
    if is(Disposition::NotExecuted) || is(Disposition::InProgress) {
        return Some(true);
    }
    if is(Disposition::Unknown) || is(Disposition::Unrecorded) {
        return Some(false);
    }
    if headers.contains_key(ERROR_HEADER) {
        // The gateway refused, and nothing was sent.
        return Some(headers.contains_key(http::header::RETRY_AFTER));
    }
    let is_kept = is(Disposition::Replayed) || is(Disposition::Recovered);
    (is_kept && status.is_server_error()).then_some(false)
}

//! The answers the gateway makes itself: the catalog of problems and how they are
//! written, as RFC 9457 problem details or in a backend's own envelope (`dialect`).

mod dialect;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode, response};

pub use dialect::Dialect;

use crate::body::{Body, full};

/// Tells a gateway's own answer from the backend's.
pub const ERROR_HEADER: &str = "idempotency-error";
/// Says what the gateway did with the request.
pub const STATUS_HEADER: &str = "idempotency-status";

/// [`STATUS_HEADER`] as a name: to insert by a text costs reading the text each time.
pub const STATUS: HeaderName = HeaderName::from_static(STATUS_HEADER);

/// What the gateway did with a request: the value of `Idempotency-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// This request was the one that ran, and its outcome is durable.
    Executed,
    /// Answered from the record.
    Replayed,
    /// The same, for the first time since somebody settled what was unknown.
    Recovered,
    /// Another request with this key is running.
    InProgress,
    /// Refused; nothing was sent for it.
    Rejected,
    /// The backend has certainly not acted; the claim is released.
    NotExecuted,
    /// Nobody knows whether the backend acted.
    Unknown,
    /// Ran, but the outcome could not be stored.
    Unrecorded,
    /// No key, on a route where that is allowed.
    Bypassed,
}

impl Disposition {
    /// The header's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Replayed => "replayed",
            Self::Recovered => "recovered",
            Self::InProgress => "in-progress",
            Self::Rejected => "rejected",
            Self::NotExecuted => "not-executed",
            Self::Unknown => "unknown",
            Self::Unrecorded => "unrecorded",
            Self::Bypassed => "bypassed",
        }
    }

    /// The header's value, ready to insert.
    pub const fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

/// The kinds of answers the gateway makes itself. The slug is part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slug {
    /// A key is required and there is none.
    KeyMissing,
    /// The key cannot be accepted.
    KeyInvalid,
    /// The key belongs to another request.
    KeyReused,
    /// A call with this key is running.
    RequestInProgress,
    /// The backend could not be reached; nothing was written.
    UpstreamUnreachable,
    /// Nobody knows whether the backend acted.
    OutcomeUnknown,
    /// The answer's retention has ended.
    KeyExpired,
    /// The answer was too large to keep.
    ResponseNotRetained,
    /// The store cannot make a claim durable.
    StoreUnavailable,
    /// A limit of the gateway is reached.
    Overloaded,
    /// A limit of this tenant is reached.
    QuotaExceeded,
    /// The request's body is over the limit.
    BodyTooLarge,
    /// The request's head is over the limit.
    HeadTooLarge,
    /// The request's target is over the limit.
    UriTooLong,
    /// The body is not the batch that this address takes.
    BodyInvalid,
    /// A batch has more items than are accepted.
    TooManyItems,
    /// Two items of a batch have one id.
    DuplicateItem,
    /// The quantity of an item is not one.
    QuantityInvalid,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The request is not one that can be forwarded safely.
    RequestInvalid,
    /// Nothing is configured for this path.
    NoRoute,
    /// The path is configured, but not for this method.
    MethodNotAllowed,
    /// On a route without keys: the backend's answer failed or took too long.
    UpstreamFailed,
    /// On the gateway's own pages: no such record for this caller.
    NotFound,
}

/// Every slug, for the published contract.
pub const SLUGS: [Slug; 24] = [
    Slug::KeyMissing,
    Slug::KeyInvalid,
    Slug::KeyReused,
    Slug::RequestInProgress,
    Slug::UpstreamUnreachable,
    Slug::OutcomeUnknown,
    Slug::KeyExpired,
    Slug::ResponseNotRetained,
    Slug::StoreUnavailable,
    Slug::Overloaded,
    Slug::QuotaExceeded,
    Slug::BodyTooLarge,
    Slug::HeadTooLarge,
    Slug::UriTooLong,
    Slug::BodyInvalid,
    Slug::TooManyItems,
    Slug::DuplicateItem,
    Slug::QuantityInvalid,
    Slug::RequestTimeout,
    Slug::RequestInvalid,
    Slug::NoRoute,
    Slug::MethodNotAllowed,
    Slug::UpstreamFailed,
    Slug::NotFound,
];

impl Slug {
    /// The name clients match on.
    pub const fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// The short title of RFC 9457.
    pub const fn title(self) -> &'static str {
        self.entry().1
    }

    /// The status the problem has unless the situation says otherwise.
    pub const fn status(self) -> StatusCode {
        self.entry().2
    }

    /// Whether the same request with the same key may be sent again and get another answer.
    pub const fn retryable(self) -> bool {
        self.entry().3
    }

    const fn entry(self) -> (&'static str, &'static str, StatusCode, bool) {
        use StatusCode as S;
        match self {
            Self::KeyMissing => ("key-missing", "Idempotency key missing", S::BAD_REQUEST, false),
            Self::KeyInvalid => ("key-invalid", "Idempotency key invalid", S::BAD_REQUEST, false),
            Self::KeyReused => (
                "key-reused",
                "Idempotency key used for another request",
                S::UNPROCESSABLE_ENTITY,
                false,
            ),
            Self::RequestInProgress => {
                ("request-in-progress", "Request in progress", S::CONFLICT, true)
            }
            Self::UpstreamUnreachable => {
                ("upstream-unreachable", "Backend unreachable", S::BAD_GATEWAY, true)
            }
            Self::OutcomeUnknown => ("outcome-unknown", "Outcome unknown", S::BAD_GATEWAY, true),
            Self::KeyExpired => ("key-expired", "Idempotency key expired", S::GONE, false),
            Self::ResponseNotRetained => {
                ("response-not-retained", "Answer not retained", S::CONFLICT, false)
            }
            Self::StoreUnavailable => {
                ("store-unavailable", "Store unavailable", S::SERVICE_UNAVAILABLE, true)
            }
            Self::Overloaded => ("overloaded", "Overloaded", S::SERVICE_UNAVAILABLE, true),
            Self::QuotaExceeded => ("quota-exceeded", "Quota exceeded", S::TOO_MANY_REQUESTS, true),
            Self::BodyTooLarge => ("body-too-large", "Body too large", S::PAYLOAD_TOO_LARGE, false),
            Self::HeadTooLarge => {
                ("head-too-large", "Headers too large", S::REQUEST_HEADER_FIELDS_TOO_LARGE, false)
            }
            Self::UriTooLong => ("uri-too-long", "URI too long", S::URI_TOO_LONG, false),
            Self::BodyInvalid => ("body-invalid", "Body invalid", S::BAD_REQUEST, false),
            Self::TooManyItems => ("too-many-items", "Too many items", S::PAYLOAD_TOO_LARGE, false),
            Self::DuplicateItem => ("duplicate-item", "Item id used twice", S::BAD_REQUEST, false),
            Self::QuantityInvalid => {
                ("quantity-invalid", "Quantity invalid", S::BAD_REQUEST, false)
            }
            Self::RequestTimeout => {
                ("request-timeout", "Request timeout", S::REQUEST_TIMEOUT, true)
            }
            Self::RequestInvalid => ("request-invalid", "Request invalid", S::BAD_REQUEST, false),
            Self::NoRoute => ("no-route", "No such route", S::NOT_FOUND, false),
            Self::MethodNotAllowed => {
                ("method-not-allowed", "Method not allowed", S::METHOD_NOT_ALLOWED, false)
            }
            Self::UpstreamFailed => ("upstream-failed", "Backend failed", S::BAD_GATEWAY, false),
            Self::NotFound => ("not-found", "Not found", S::NOT_FOUND, false),
        }
    }
}

/// One answer of the gateway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which kind.
    pub slug: Slug,
    /// The status; [`Slug::status`] unless the situation says otherwise.
    pub status: StatusCode,
    /// What `Idempotency-Status` says; `None` where no key is involved.
    pub disposition: Option<Disposition>,
    /// One plain sentence a cashier could read.
    pub detail: Cow<'static, str>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The methods a path is configured for.
    pub allow: Option<HeaderValue>,
    /// Further members of the problem document.
    pub members: Vec<(&'static str, serde_json::Value)>,
    /// Whether the connection must end because the request was not read to its end.
    pub close: bool,
}

impl Problem {
    /// A refusal: nothing was sent.
    pub fn new(slug: Slug, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            slug,
            status: slug.status(),
            disposition: Some(Disposition::Rejected),
            detail: detail.into(),
            retry_after: None,
            allow: None,
            members: Vec::new(),
            close: false,
        }
    }

    /// With another status.
    #[must_use]
    pub fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// With another disposition.
    #[must_use]
    pub fn disposition(self, disposition: impl Into<Option<Disposition>>) -> Self {
        Self { disposition: disposition.into(), ..self }
    }

    /// With `Retry-After`.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// With `Connection: close`: the rest of the request was not read.
    #[must_use]
    pub fn close(self) -> Self {
        Self { close: true, ..self }
    }

    /// With a further member of the problem document.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// The response; `instance` names this request, here and in the log.
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

/// Where the contract is published.
const CONTRACT_LINK: &str = "</.well-known/idempotency>; rel=\"describedby\"";

//! The catalog of problems: name, title, status and whether a retry may help.

use http::StatusCode;

/// The kinds of the gateway's own answers. The slug is part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slug {
    /// A required key is missing.
    KeyMissing,
    /// The key cannot be accepted.
    KeyInvalid,
    /// The key belongs to another request.
    KeyReused,
    /// A call with this key is running.
    RequestInProgress,
    /// The backend could not be reached; nothing was written.
    UpstreamUnreachable,
    /// The outcome of the call is unknown.
    OutcomeUnknown,
    /// The answer's retention has ended.
    KeyExpired,
    /// The answer was too large to keep.
    ResponseNotRetained,
    /// The request was undone because its answer was lost.
    Reversed,
    /// The store cannot make a claim durable.
    StoreUnavailable,
    /// An earlier key of the caller names the same subject.
    SuspectedDuplicate,
    /// A limit of the gateway is reached.
    Overloaded,
    /// A limit of this tenant is reached.
    QuotaExceeded,
    /// Nothing names the caller, or two names contradict each other.
    CallerUnknown,
    /// Callers cannot be named or asked about at present.
    AuthorizationUnavailable,
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
    /// On the gateway's own pages: the caller has no such record.
    NotFound,
}

/// Every slug, for the published contract.
pub const SLUGS: [Slug; 28] = [
    Slug::KeyMissing,
    Slug::KeyInvalid,
    Slug::KeyReused,
    Slug::RequestInProgress,
    Slug::UpstreamUnreachable,
    Slug::OutcomeUnknown,
    Slug::KeyExpired,
    Slug::ResponseNotRetained,
    Slug::Reversed,
    Slug::StoreUnavailable,
    Slug::SuspectedDuplicate,
    Slug::Overloaded,
    Slug::QuotaExceeded,
    Slug::CallerUnknown,
    Slug::AuthorizationUnavailable,
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
    /// Name of the problem, for clients to match on.
    pub const fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// The short title of RFC 9457.
    pub const fn title(self) -> &'static str {
        self.entry().1
    }

    /// Default status of the problem.
    pub const fn status(self) -> StatusCode {
        self.entry().2
    }

    /// Reports whether a retry of the same request with the same key may get another answer.
    pub const fn retryable(self) -> bool {
        self.entry().3
    }

    /// Every status that the situations of this problem have, in problem details.
    pub const fn statuses(self) -> &'static [StatusCode] {
        use StatusCode as S;
        match self {
            Self::RequestInProgress => &[S::CONFLICT, S::GATEWAY_TIMEOUT],
            Self::OutcomeUnknown => &[S::BAD_GATEWAY, S::GATEWAY_TIMEOUT, S::CONFLICT],
            Self::UpstreamFailed => &[S::BAD_GATEWAY, S::GATEWAY_TIMEOUT],
            Self::RequestInvalid => &[
                S::BAD_REQUEST,
                S::EXPECTATION_FAILED,
                S::HTTP_VERSION_NOT_SUPPORTED,
                S::LOOP_DETECTED,
            ],
            Self::KeyMissing
            | Self::KeyInvalid
            | Self::BodyInvalid
            | Self::DuplicateItem
            | Self::QuantityInvalid => &[S::BAD_REQUEST],
            Self::KeyReused => &[S::UNPROCESSABLE_ENTITY],
            Self::UpstreamUnreachable => &[S::BAD_GATEWAY],
            Self::KeyExpired => &[S::GONE],
            Self::ResponseNotRetained | Self::Reversed | Self::SuspectedDuplicate => &[S::CONFLICT],
            Self::StoreUnavailable | Self::AuthorizationUnavailable | Self::Overloaded => {
                &[S::SERVICE_UNAVAILABLE]
            }
            Self::CallerUnknown => &[S::UNAUTHORIZED],
            Self::QuotaExceeded => &[S::TOO_MANY_REQUESTS],
            Self::BodyTooLarge | Self::TooManyItems => &[S::PAYLOAD_TOO_LARGE],
            Self::HeadTooLarge => &[S::REQUEST_HEADER_FIELDS_TOO_LARGE],
            Self::UriTooLong => &[S::URI_TOO_LONG],
            Self::RequestTimeout => &[S::REQUEST_TIMEOUT],
            Self::NoRoute | Self::NotFound => &[S::NOT_FOUND],
            Self::MethodNotAllowed => &[S::METHOD_NOT_ALLOWED],
        }
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
            Self::OutcomeUnknown => ("outcome-unknown", "Outcome unknown", S::BAD_GATEWAY, false),
            Self::KeyExpired => ("key-expired", "Idempotency key expired", S::GONE, false),
            Self::ResponseNotRetained => {
                ("response-not-retained", "Answer not retained", S::CONFLICT, false)
            }
            Self::Reversed => ("reversed", "Request reversed", S::CONFLICT, false),
            Self::StoreUnavailable => {
                ("store-unavailable", "Store unavailable", S::SERVICE_UNAVAILABLE, true)
            }
            Self::SuspectedDuplicate => {
                ("suspected-duplicate", "Suspected duplicate", S::CONFLICT, false)
            }
            Self::Overloaded => ("overloaded", "Overloaded", S::SERVICE_UNAVAILABLE, true),
            Self::QuotaExceeded => ("quota-exceeded", "Quota exceeded", S::TOO_MANY_REQUESTS, true),
            Self::CallerUnknown => ("caller-unknown", "Caller unknown", S::UNAUTHORIZED, false),
            Self::AuthorizationUnavailable => (
                "authorization-unavailable",
                "Authorization unavailable",
                S::SERVICE_UNAVAILABLE,
                true,
            ),
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

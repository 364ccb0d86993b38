//! The headers of the contract, and the values of `Idempotency-Status`.

use http::{HeaderName, HeaderValue};

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

//! The headers of the contract, and the values of `Idempotency-Status`.

use http::{HeaderName, HeaderValue};

/// The header that distinguishes the gateway's own answers from the backend's.
pub const ERROR_HEADER: &str = "idempotency-error";
/// The header with the [`Disposition`] of the request.
pub const STATUS_HEADER: &str = "idempotency-status";

/// [`STATUS_HEADER`] as a name: to insert by a text costs reading the text each time.
pub const STATUS: HeaderName = HeaderName::from_static(STATUS_HEADER);

/// The gateway's handling of a request: the value of `Idempotency-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The request was executed, and its outcome is durable.
    Executed,
    /// Answered from the record.
    Replayed,
    /// Answered from the record, for the first time since an operator settled the unknown
    /// outcome.
    Recovered,
    /// A request with this key is running.
    InProgress,
    /// Refused; nothing was sent for it.
    Rejected,
    /// The backend has certainly not acted; the claim is released.
    NotExecuted,
    /// The backend accepted the request and has not decided.
    Pending,
    /// The outcome of the call is unknown.
    Unknown,
    /// Executed, but the outcome could not be stored.
    Unrecorded,
    /// Forwarded without a key, on a route that allows requests without keys.
    Bypassed,
}

/// Every disposition, for the labels of metrics.
pub const DISPOSITIONS: [Disposition; 10] = [
    Disposition::Executed,
    Disposition::Replayed,
    Disposition::Recovered,
    Disposition::InProgress,
    Disposition::Rejected,
    Disposition::NotExecuted,
    Disposition::Pending,
    Disposition::Unknown,
    Disposition::Unrecorded,
    Disposition::Bypassed,
];

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
            Self::Pending => "pending",
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

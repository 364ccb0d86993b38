//! Reply: the outcome of a keyed request, shared by all waiting clients, and its rendering as a
//! response.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::headers::EXPIRES_HEADER;
use crate::body::{Body, full};
use crate::clock::Timestamp;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::StoredResponse;
use crate::problem::{Disposition, ERROR_HEADER, Problem, STATUS, Slug};

/// Header with the end of the answer's retention.
const EXPIRES: HeaderName = HeaderName::from_static(EXPIRES_HEADER);

/// Outcome of a keyed request, shared by all waiting clients.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A final answer, durable.
    Final {
        /// The answer.
        response: Arc<StoredResponse>,
        /// End of the retention; `None`: kept for ever.
        expires: Option<Timestamp>,
        /// True if an operator settled the record and no client has received the answer yet.
        recovered: bool,
    },
    /// A final answer too large to keep.
    NotRetained {
        /// Status of the answer.
        status: u16,
        /// Time of the outcome.
        completed: Timestamp,
    },
    /// The backend's answer asserting non-execution. The claim is released.
    Released(Arc<StoredResponse>),
    /// The backend's answer, after a failed attempt to store it.
    Unrecorded(Arc<StoredResponse>),
    /// The request ended without a backend answer fit for the client.
    Refused(Problem),
    /// The outcome is unknown: the backend may or may not have acted.
    Unknown,
    /// The outcome is unknown, and a step that may settle it comes after this time.
    Unsettled(Duration),
    /// The backend accepted the request and has not decided: its last answer.
    Pending {
        /// The answer.
        response: Arc<StoredResponse>,
        /// Time until a step that may settle the outcome.
        retry_after: Option<Duration>,
    },
    /// The request is in flight in another process, or was in an earlier run of this process.
    InProgress,
    /// The request's task ended without a reply.
    Abandoned,
}

/// Default of `Retry-After`.
pub(crate) const RETRY_LATER: Duration = Duration::from_secs(5);

impl Reply {
    /// The value of `Idempotency-Expires`, where the answer is kept and not for ever.
    pub(crate) fn expires_header(&self) -> Option<String> {
        match self {
            Self::Final { expires, .. } => expires.map(Timestamp::to_http_date),
            Self::NotRetained { .. }
            | Self::Released(_)
            | Self::Unrecorded(_)
            | Self::Refused(_)
            | Self::Unknown
            | Self::Unsettled(_)
            | Self::Pending { .. }
            | Self::InProgress
            | Self::Abandoned => None,
        }
    }

    /// The reply for clients after the first.
    #[must_use]
    pub(crate) fn for_duplicates(self) -> Self {
        match self {
            Self::Final { response, expires, .. } => {
                Self::Final { response, expires, recovered: false }
            }
            reply => reply,
        }
    }

    /// The response for a duplicate, or for the first client after a settlement.
    pub(crate) fn replay(self, replayed_header: &HeaderName) -> Result<Response<Body>, Problem> {
        match self {
            Self::Final { response, expires, recovered: false } => {
                let headers = replay_headers(&response, expires, replayed_header);
                Ok(with_headers(&response, headers))
            }
            Self::Final { response, expires, recovered: true } => {
                let mut headers = marked_headers(&response, Disposition::Recovered);
                insert_expires(&mut headers, expires.map(Timestamp::to_http_date));
                Ok(with_headers(&response, headers))
            }
            Self::Released(response) => Ok(marked(&response, Disposition::NotExecuted)),
            Self::Unrecorded(response) => Ok(marked(&response, Disposition::Unrecorded)),
            Self::NotRetained { status, completed } => Err(not_retained(status, completed)),
            Self::Refused(problem) => Err(problem),
            Self::Unknown | Self::Abandoned => Err(still_unknown()),
            Self::Unsettled(delay) => Err(still_unsettled(delay)),
            Self::Pending { response, retry_after } => Ok(pending(&response, retry_after)),
            Self::InProgress => Err(in_progress()),
        }
    }
}

/// The headers of a stored answer, as sent to a duplicate.
pub(crate) fn replay_headers(
    stored: &StoredResponse,
    expires: Option<Timestamp>,
    replayed_header: &HeaderName,
) -> HeaderMap {
    let mut headers = marked_headers(stored, Disposition::Replayed);
    headers.insert(replayed_header.clone(), HeaderValue::from_static("true"));
    insert_expires(&mut headers, expires.map(Timestamp::to_http_date));
    headers
}

/// Adds `Idempotency-Expires`, when there is an end.
pub(crate) fn insert_expires(headers: &mut HeaderMap, expires: Option<String>) {
    if let Some(expires) = expires
        && let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(expires))
    {
        headers.insert(EXPIRES, value);
    }
}

fn marked(stored: &StoredResponse, disposition: Disposition) -> Response<Body> {
    with_headers(stored, marked_headers(stored, disposition))
}

/// A response of the stored status and body with the given headers.
pub(crate) fn with_headers(stored: &StoredResponse, headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(full(stored.body.clone()));
    // A stored status was valid when stored; an invalid one means damage behind the checksum.
    *response.status_mut() =
        StatusCode::from_u16(stored.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

fn marked_headers(stored: &StoredResponse, disposition: Disposition) -> HeaderMap {
    let mut headers = header_map(&stored.headers, 4);
    headers.insert(STATUS, disposition.header());
    headers
}

/// The stored header lines as a map with room for `more`.
fn header_map(lines: &[(HeaderName, HeaderValue)], more: usize) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(lines.len() + more);
    for (name, value) in lines {
        headers.append(name, value.clone());
    }
    headers
}

/// `Retry-After` for a call in flight. Constant: the gateway itself waits for the call, so a client
/// loses nothing by asking soon, and one that obeys a long delay would miss its own deadline.
const IN_PROGRESS_RETRY: Duration = Duration::from_secs(1);

/// The request is in flight.
pub(crate) fn in_progress() -> Problem {
    Problem::new(
        Slug::RequestInProgress,
        "This request is still being worked on. Please wait a moment and try again.",
    )
    .disposition(Disposition::InProgress)
    .retry_after(IN_PROGRESS_RETRY)
}

/// A retry of a request whose outcome is unknown. Without `Retry-After`: no retry succeeds before a
/// person has settled the outcome, and clients that obey the header would only wait.
pub(crate) fn still_unknown() -> Problem {
    Problem::new(
        Slug::OutcomeUnknown,
        "It is not known whether this request was carried out. Do not repeat it under a new key; \
         ask for it to be checked.",
    )
    .status(StatusCode::CONFLICT)
    .disposition(Disposition::Unknown)
}

/// A retry of a request whose outcome is unknown, and may be settled by a later retry.
pub(crate) fn still_unsettled(delay: Duration) -> Problem {
    Problem::new(
        Slug::OutcomeUnknown,
        "It is not known yet whether this request was carried out. Do not repeat it under a new \
         key; ask again with the same key after a moment.",
    )
    .status(StatusCode::CONFLICT)
    .disposition(Disposition::Unknown)
    .retry_after(delay)
}

/// The last answer of an accepted and undecided request.
fn pending(stored: &StoredResponse, retry_after: Option<Duration>) -> Response<Body> {
    let mut headers = marked_headers(stored, Disposition::Pending);
    insert_retry_after(&mut headers, retry_after);
    with_headers(stored, headers)
}

/// Adds `Retry-After` in whole seconds, when there is a time.
pub(crate) fn insert_retry_after(headers: &mut HeaderMap, retry_after: Option<Duration>) {
    if let Some(delay) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
    }
}

/// Adds the headers of an answer with unknown items.
pub(crate) fn insert_unknown(headers: &mut HeaderMap) {
    headers.insert(ERROR_HEADER, HeaderValue::from_static(Slug::OutcomeUnknown.as_str()));
}

/// The first answer of a request with an unknown outcome; `retry_after`: the time until a retry may
/// settle the outcome.
pub(crate) fn first_unknown(reason: UnknownReason, retry_after: Option<Duration>) -> Problem {
    let problem = outcome_unknown(reason);
    match retry_after {
        Some(delay) => problem.retry_after(delay),
        None => problem,
    }
}

/// The first answer of a request with an unknown outcome. The status is 504 after a timeout.
pub(crate) fn outcome_unknown(reason: UnknownReason) -> Problem {
    let (status, why) = match reason {
        UnknownReason::Timeout => {
            (StatusCode::GATEWAY_TIMEOUT, "The service did not answer in time")
        }
        UnknownReason::Truncated | UnknownReason::BadResponse | UnknownReason::Upgraded => {
            (StatusCode::BAD_GATEWAY, "The answer arrived and could not be read")
        }
        UnknownReason::ConnectionLost
        | UnknownReason::ProcessEnded
        | UnknownReason::NotRecorded
        | UnknownReason::Pending(_)
        | UnknownReason::AlreadyDone(_)
        | UnknownReason::Status(_) => (StatusCode::BAD_GATEWAY, "The answer was lost"),
    };
    let detail = format!(
        "{why}, so it is not known whether this request was carried out. Do not repeat it under a \
         new key; ask again with the same key and credentials, or ask for it to be checked."
    );
    Problem::new(Slug::OutcomeUnknown, detail).status(status).disposition(Disposition::Unknown)
}

/// A retry of a request whose answer was too large to keep.
fn not_retained(status: u16, completed: Timestamp) -> Problem {
    Problem::new(
        Slug::ResponseNotRetained,
        "This request was carried out, but its answer was too large to keep. It will not be \
         carried out again.",
    )
    .member("original_status", status)
    .member("completed_at", crate::clock::rfc3339(completed))
}

/// The key belongs to a different request.
pub(crate) fn reused(differing: Vec<String>) -> Problem {
    let detail: Cow<'static, str> = if differing.is_empty() {
        "This key was already used for a different request. Use a new key for a new request.".into()
    } else {
        format!(
            "This key was already used for a different request (different: {}). Use a new key for \
             a new request.",
            differing.join(", ")
        )
        .into()
    };
    let problem = Problem::new(Slug::KeyReused, detail);
    if differing.is_empty() { problem } else { problem.member("differing", differing) }
}

/// The answer's retention has ended.
pub(crate) fn expired() -> Problem {
    Problem::new(
        Slug::KeyExpired,
        "This request was carried out a while ago and its answer is no longer kept. It will not \
         be carried out again.",
    )
}

/// The store cannot make a claim durable.
pub(crate) fn store_unavailable() -> Problem {
    Problem::new(
        Slug::StoreUnavailable,
        "The request was not sent because it cannot be recorded safely right now. Please try \
         again shortly.",
    )
    .retry_after(RETRY_LATER)
}

//! Refusals of operators' requests: problem details (RFC 9457).

use std::borrow::Cow;

use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use crate::body::{Body, full};
use crate::idempotency::settle::SettlementError;
use crate::problem::rfc9457::{self, ProblemMembers};
use crate::store::StoreError;

/// A refusal.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    /// Name of the problem, for programs to match on.
    pub(super) code: &'static str,
    /// Cause and remedy.
    pub(super) detail: Cow<'static, str>,
    /// Allowed methods.
    pub(super) allow: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, detail: detail.into(), allow: None }
    }

    /// 400.
    pub(super) fn invalid(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 409.
    pub(super) fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 405.
    pub(super) fn method(allow: &'static str) -> Self {
        let detail = format!("this address takes {allow}");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self { allow: Some(allow), ..Self::new(status, "method-not-allowed", detail) }
    }

    /// 404.
    pub(super) fn no_record() -> Self {
        let detail = "there is no record with this id; it may have been forgotten, or its claim \
                      released. List the records with GET /api/records";
        Self::new(StatusCode::NOT_FOUND, "record-not-found", detail)
    }

    /// The store failed during a read.
    pub(super) fn unread(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store-unavailable",
                format!("{error}; try again when /readyz says ready"),
            ),
            StoreError::Corrupt { .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "record-corrupt",
                format!("{error}; its key is refused. Run `oncegate store verify`"),
            ),
        }
    }

    /// The store failed during a decision.
    pub(super) fn unsure(error: &StoreError) -> Self {
        let detail =
            format!("{error}; the decision may have been recorded or not: show the record");
        Self { detail: detail.into(), ..Self::unread(error) }
    }

    /// The decision's task ended early, by a defect of the gateway.
    pub(super) fn broken() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the decision broke off and may have been recorded or not: show the record; the log \
             says what went wrong",
        )
    }

    /// The decision does not fit the record.
    pub(super) fn misfit(error: SettlementError) -> Self {
        match error {
            SettlementError::InFlight => Self::conflict(
                "in-flight",
                "a call is in flight for this record; wait for its outcome and look again",
            ),
            SettlementError::Unknown => Self::conflict(
                "unknown",
                "the outcome of this record is unknown; settle it first with \
                 POST /api/records/{id}/resolve",
            ),
            SettlementError::Known => Self::conflict(
                "not-unknown",
                "the outcome of this record is known, by its own answer or somebody's decision; \
                 only what is unknown can be settled",
            ),
            SettlementError::NoAnswer => Self::conflict(
                "no-answer",
                "there is no answer to purge: the key was released and is free",
            ),
            SettlementError::NotFinal => Self::conflict(
                "not-final",
                "only a final record can be reopened; this one has no answer, or is an item of a \
                 batch",
            ),
            SettlementError::Kind => Self::invalid(
                "wrong-kind",
                "`response` is for requests and `units` for items of batches, and both only with \
                 \"as\":\"executed\"; leave out what does not fit this record",
            ),
            SettlementError::Units { unknown } => Self::invalid(
                "units-invalid",
                format!(
                    "`units` says how many of the {unknown} unknown units were issued, 1 to \
                     {unknown}; when none was, settle it as \"not-executed\""
                ),
            ),
        }
    }

    /// The response. `close`: the request was not read to its end.
    pub(super) fn respond(&self, close: bool) -> Response<Body> {
        let instance = crate::nonce::uuid();
        let status = self.status.as_u16();
        // Not logged by default: callers without a token could fill the log.
        let problem = self.code;
        tracing::debug!(
            http.status = status, problem, %instance,
            "refused a request to the admin API"
        );
        let members = ProblemMembers {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status,
            detail: &self.detail,
            code: self.code,
        };
        let document = rfc9457::document(&members, instance);
        let mut response = Response::new(full(document.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(rfc9457::MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

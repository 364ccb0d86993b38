//! The written form of a problem: problem details (RFC 9457), or the envelope of a backend's own
//! errors.

use http::StatusCode;
use serde_json::json;

use super::document::Problem;
use super::rfc9457::{self, ProblemMembers};
use super::slug::Slug;

/// The form of the gateway's own errors; a profile has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// RFC 9457 `application/problem+json`.
    #[default]
    Problem,
    /// Stripe's envelope, `type` always `idempotency_error`.
    Stripe,
    /// RedeemSG's envelope, with its own statuses and codes (its guide, "Idempotency").
    RedeemSg,
}

impl Dialect {
    pub(super) fn render(
        self,
        problem: &Problem,
        instance: uuid::Uuid,
    ) -> (StatusCode, &'static str, String) {
        match self {
            Self::Problem => {
                let body = problem_document(problem, instance);
                (problem.status, rfc9457::MEDIA_TYPE, body)
            }
            Self::Stripe => {
                let error = json!({
                    "code": problem.slug.as_str(),
                    "message": problem.detail,
                    "type": "idempotency_error",
                });
                (problem.status, "application/json", json!({ "error": error }).to_string())
            }
            Self::RedeemSg => {
                let (status, code, kind) = redeemsg(problem);
                let error = json!({ "code": code, "message": problem.detail, "type": kind });
                (status, "application/json", json!({ "error": error }).to_string())
            }
        }
    }
}

fn problem_document(problem: &Problem, instance: uuid::Uuid) -> String {
    let slug = problem.slug.as_str();
    let members = ProblemMembers {
        kind: &format!("/.well-known/idempotency#{slug}"),
        title: problem.slug.title(),
        status: problem.status,
        detail: &problem.detail,
        code: slug,
    };
    let mut document = rfc9457::document(&members, instance);
    document["retryable"] = problem.retry_after.is_some().into();
    for (name, value) in &problem.members {
        document[*name] = value.clone();
    }
    document.to_string()
}

/// Status, code and type as RedeemSG's guide words them.
fn redeemsg(problem: &Problem) -> (StatusCode, &'static str, &'static str) {
    let slug = problem.slug;
    match slug {
        Slug::RequestInProgress => {
            (StatusCode::CONFLICT, "idempotent_request_in_progress", "idempotency_error")
        }
        Slug::KeyReused => (StatusCode::CONFLICT, slug.as_str(), "idempotency_error"),
        Slug::KeyMissing
        | Slug::KeyInvalid
        | Slug::BodyInvalid
        | Slug::TooManyItems
        | Slug::DuplicateItem
        | Slug::QuantityInvalid => (problem.status, slug.as_str(), "invalid_request_error"),
        Slug::UpstreamUnreachable
        | Slug::OutcomeUnknown
        | Slug::KeyExpired
        | Slug::ResponseNotRetained
        | Slug::StoreUnavailable
        | Slug::Overloaded
        | Slug::QuotaExceeded
        | Slug::BodyTooLarge
        | Slug::HeadTooLarge
        | Slug::UriTooLong
        | Slug::RequestTimeout
        | Slug::RequestInvalid
        | Slug::NoRoute
        | Slug::MethodNotAllowed
        | Slug::UpstreamFailed
        | Slug::NotFound => (problem.status, slug.as_str(), "api_error"),
    }
}

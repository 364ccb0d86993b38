//! The written form of a problem: problem details (RFC 9457), or the envelope of a backend's own
//! errors.

use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::json;

use super::document::{Occurrence, Problem};
use super::rfc9457::{self, ProblemMembers};
use super::slug::Slug;
use super::{redeemsg, stripe};

/// Media type of the envelopes.
const JSON: &str = "application/json";

/// The form of the gateway's own errors; a profile has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// RFC 9457 `application/problem+json`.
    #[default]
    Problem,
    /// Stripe's envelope, with the headers that its libraries read.
    Stripe,
    /// RedeemSG's envelope, with its own statuses and codes.
    RedeemSg,
}

impl Dialect {
    /// The dialect's name in the published contract and in `oncegate check`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Problem => "problem+json",
            Self::Stripe => "stripe",
            Self::RedeemSg => "redeemsg",
        }
    }

    /// The status of a problem whose status is `usual` elsewhere.
    pub const fn status(self, slug: Slug, usual: StatusCode) -> StatusCode {
        match (self, slug) {
            (Self::Stripe, Slug::KeyReused) => StatusCode::BAD_REQUEST,
            (Self::RedeemSg, Slug::KeyReused)
            | (Self::RedeemSg | Self::Stripe, Slug::RequestInProgress) => StatusCode::CONFLICT,
            _ => usual,
        }
    }

    /// Status, media type and body of a problem.
    pub(super) fn render(
        self,
        problem: &Problem,
        occurrence: &Occurrence,
    ) -> (StatusCode, &'static str, String) {
        let slug = problem.slug;
        let status = self.status(slug, problem.status);
        if let Some((other, body)) = problem.wording.as_deref() {
            return (other.unwrap_or(status), JSON, body.clone());
        }
        let (code, kind) = match self {
            Self::Problem => {
                let body = problem_document(problem, occurrence);
                return (status, rfc9457::MEDIA_TYPE, body);
            }
            Self::Stripe => (slug.as_str(), stripe::error_type(slug)),
            Self::RedeemSg => redeemsg::code_and_type(slug),
        };
        let error = json!({ "code": code, "message": problem.detail, "type": kind });
        (status, JSON, json!({ "error": error }).to_string())
    }

    /// The header in which clients of the dialect look for the id of the request.
    pub(super) const fn request_id_header(self) -> Option<HeaderName> {
        match self {
            Self::Problem | Self::RedeemSg => None,
            Self::Stripe => Some(stripe::REQUEST_ID),
        }
    }

    /// Adds the headers by which clients of the dialect decide to send again, to an answer of the
    /// gateway or of the backend.
    pub fn mark(self, status: StatusCode, headers: &mut HeaderMap) {
        match self {
            Self::Problem | Self::RedeemSg => {}
            Self::Stripe => stripe::mark(status, headers),
        }
    }
}

fn problem_document(problem: &Problem, occurrence: &Occurrence) -> String {
    let slug = problem.slug.as_str();
    let members = ProblemMembers {
        kind: &format!("/.well-known/idempotency#{slug}"),
        title: problem.slug.title(),
        status: problem.status,
        detail: &problem.detail,
        code: slug,
    };
    let mut document = rfc9457::document(&members, occurrence.instance);
    if let Some(id) = &occurrence.request_id {
        document["request_id"] = String::from_utf8_lossy(id.as_bytes()).into();
    }
    document["retryable"] = problem.retry_after.is_some().into();
    for (name, value) in &problem.members {
        document[*name] = value.clone();
    }
    document.to_string()
}

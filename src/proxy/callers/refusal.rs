//! Refusals of callers, and their answers.

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::body::{Body, full};
use crate::problem::{Disposition, Problem, STATUS, Slug};
use crate::proxy::answer::AnswerResult;
use crate::proxy::reply::RETRY_LATER;

/// The answer to a request whose caller is refused.
#[derive(Debug)]
pub(crate) enum CallerRefusal {
    /// The gateway's own.
    Problem(Problem),
    /// That of the authorization service.
    Answer(Box<RefusedAnswer>),
}

impl CallerRefusal {
    /// Returns true if the caller could not be checked, rather than being refused.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.slug == Slug::AuthorizationUnavailable)
    }

    /// The answer to the client.
    pub(crate) fn into_answer(self) -> AnswerResult {
        let refused = match self {
            Self::Problem(problem) => return Err(problem),
            Self::Answer(refused) => *refused,
        };
        let mut response: Response<Body> = Response::new(full(refused.body));
        *response.status_mut() = refused.status;
        *response.headers_mut() = refused.headers;
        response.headers_mut().insert(STATUS, Disposition::Rejected.header());
        Ok(response)
    }
}

/// A refusal by the service, as it came.
#[derive(Debug, Clone)]
pub(crate) struct RefusedAnswer {
    pub(crate) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) fn contradiction() -> CallerRefusal {
    unknown("The credentials of this request belong to different callers. Nothing was sent.")
}

pub(super) fn unknown(detail: &'static str) -> CallerRefusal {
    let problem = Problem::new(Slug::CallerUnknown, detail).close();
    CallerRefusal::Problem(problem.header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
}

/// The answer while callers cannot be named: nothing is let through.
pub(super) fn unavailable() -> CallerRefusal {
    let problem = Problem::new(
        Slug::AuthorizationUnavailable,
        "It cannot be checked at present who sends this request. Nothing was sent; please try \
         again shortly.",
    );
    CallerRefusal::Problem(problem.retry_after(RETRY_LATER).close())
}

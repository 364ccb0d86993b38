//! The result of an exchange, the log line of a refusal, and the wait for a request's first answer.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error_format::{ErrorFormat, ShownRequest};
use super::reply;
use crate::body::Body;
use crate::idempotency::outcome::UnknownReason;
use crate::observe::exchange;
use crate::observe::repeated::Repeated;
use crate::observe::request_id::RequestId;
use crate::problem::{Dialect, Disposition, Occurrence, Problem, STATUS, Slug};

/// Time after which a caller may try a new key again: stored keys go with their retention.
const KEYS_LATER: Duration = Duration::from_secs(60);

/// Answer to a request: the backend's, or a problem of the gateway's own.
pub(crate) type AnswerResult = Result<Response<Body>, Problem>;

/// The condition behind refusals that come in numbers.
fn lasting(slug: Slug) -> Option<&'static Repeated> {
    static AWAY: Repeated = Repeated::new("requests are refused: store-unavailable");
    static FULL: Repeated = Repeated::new("requests are refused: overloaded");
    static QUOTA: Repeated = Repeated::new("requests are refused: quota-exceeded");
    match slug {
        Slug::StoreUnavailable => Some(&AWAY),
        Slug::Overloaded => Some(&FULL),
        Slug::QuotaExceeded => Some(&QUOTA),
        _ => None,
    }
}

/// Renders a problem as a response and logs the refusal. No other code does either.
pub(crate) fn report(
    problem: &Problem,
    errors: Option<&ErrorFormat>,
    request: Option<&ShownRequest>,
) -> Response<Body> {
    let instance = crate::nonce::uuid();
    exchange::note(|span| span.set_instance(instance));
    let occurrence =
        Occurrence { instance, request_id: Some(exchange::with_request_id(RequestId::header)) };
    let dialect = errors.map_or(Dialect::Problem, |errors| errors.dialect);
    let response = match errors {
        Some(errors) => {
            let mut response = errors.restated(problem).respond(dialect, &occurrence);
            errors.replace(problem, request, &mut response);
            response
        }
        None => problem.respond(dialect, &occurrence),
    };
    let (sent, slug) = (response.status(), problem.slug.as_str());
    let status = sent.as_u16();
    if let Some(condition) = lasting(problem.slug) {
        if let Some(times) = condition.occur() {
            tracing::warn!(status, problem = slug, times, %instance, "requests are refused");
        }
    } else if sent.is_server_error() {
        tracing::warn!(status, problem = slug, %instance, "refused");
    } else {
        tracing::info!(status, problem = slug, %instance, "refused");
    }
    response
}

/// Returns true for the refusal of a duplicate, without a call to the backend. A different request
/// under the same key is no duplicate.
pub(crate) fn is_duplicate(problem: &Problem) -> bool {
    match problem.slug {
        Slug::KeyExpired | Slug::ResponseNotRetained => true,
        // The first request gets another status with the same slug.
        Slug::OutcomeUnknown | Slug::RequestInProgress => problem.status == StatusCode::CONFLICT,
        _ => false,
    }
}

/// Returns true for the outcome of a duplicate that was answered from its record.
pub(crate) fn is_replay(outcome: &str) -> bool {
    [Disposition::Replayed, Disposition::Recovered].iter().any(|replay| replay.as_str() == outcome)
}

/// Returns true for an answer that was given without a call to the backend because the request is a
/// duplicate.
pub(crate) fn is_prevented(answered: &AnswerResult) -> bool {
    match answered {
        Ok(response) => {
            let outcome = response.headers().get(STATUS).and_then(|value| value.to_str().ok());
            outcome.is_some_and(is_replay)
        }
        Err(problem) => is_duplicate(problem),
    }
}

/// Waits for the answer to the request started by this client. The request continues after the
/// wait.
pub(crate) async fn first_answer(
    answered: oneshot::Receiver<AnswerResult>,
    within: Option<Duration>,
) -> AnswerResult {
    let lost = || reply::outcome_unknown(UnknownReason::ProcessEnded);
    let Some(within) = within else {
        return answered.await.unwrap_or_else(|_| Err(lost()));
    };
    match timeout(within, answered).await {
        Ok(answer) => answer.unwrap_or_else(|_| Err(lost())),
        Err(_) => Err(reply::in_progress().status(StatusCode::GATEWAY_TIMEOUT)),
    }
}

pub(crate) fn too_many_claims() -> Problem {
    Problem::new(
        Slug::Overloaded,
        "Too many requests are being worked on. Nothing was sent; please try again shortly.",
    )
    .retry_after(reply::RETRY_LATER)
}

/// The refusal of a new key of a caller that has as many as it may have.
pub(crate) fn too_many_keys() -> Problem {
    Problem::new(
        Slug::QuotaExceeded,
        "You have as many stored requests as you may have, so no new one is accepted. Nothing was \
         sent; please try again later.",
    )
    .retry_after(KEYS_LATER)
}

pub(crate) fn quota_exceeded() -> Problem {
    Problem::new(
        Slug::QuotaExceeded,
        "Too many of your requests are being worked on. Nothing was sent; please try again \
         shortly.",
    )
    .retry_after(reply::RETRY_LATER)
}

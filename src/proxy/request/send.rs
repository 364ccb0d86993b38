//! Sending of a claimed request, and the records of what came of it.

use std::sync::Arc;

use http::{HeaderName, Request, StatusCode};

use super::claim::Claimed;
use super::existing::unknown_reply;
use crate::body::full;
use crate::failpoint::{self, Point};
use crate::idempotency::Answer as Kept;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::StoredResponse;
use crate::problem::Disposition;
use crate::proxy::client_head;
use crate::proxy::collect::{self, CollectLimits, Collected};
use crate::proxy::reply;
use crate::proxy::responder::Responder;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::upstream::{SendError, SendFailure};

/// Outcome of sending.
pub(crate) enum SendOutcome {
    /// Provably no byte of the request was written.
    NotSent(String),
    /// The request was written at least in part, without a complete answer.
    Lost(UnknownReason, String),
    /// A complete answer, or an answer too large to buffer.
    Answered(Collected),
}

/// Rules for sending a request and reading its answer.
pub(crate) struct SendRules<'a> {
    pub(crate) route: &'a Route,
    /// Bytes of the largest answer to hold.
    pub(crate) most: u64,
    /// The replay marker, reserved for the gateway.
    pub(crate) replayed_header: &'a HeaderName,
    /// [`Store::epoch`](crate::store::Store::epoch) at the time of the claim.
    pub(crate) epoch: Option<u64>,
}

/// Sends the request once and reads the answer.
pub(crate) async fn send(
    gateway: &Gateway,
    sending: &SendRules<'_>,
    request: Request<bytes::Bytes>,
    mut reservation: crate::proxy::budget::Reservation,
) -> SendOutcome {
    let method = request.method().clone();
    // The lease may end while a connection is made; other processes then treat the request as lost.
    let may = || match gateway.store.epoch() == sending.epoch {
        true => Ok(()),
        false => Err("the lease on the store ended before it could be sent".to_owned()),
    };
    let response = match sending.route.upstream.send_if(request.map(full), &may).await {
        Ok(response) => response,
        Err(SendError::NotSent { reason }) => return SendOutcome::NotSent(reason),
        Err(SendError::Unknown { failure, detail }) => {
            let reason = match failure {
                SendFailure::BadResponse => UnknownReason::BadResponse,
                SendFailure::Reset | SendFailure::Closed | SendFailure::RequestBody => {
                    UnknownReason::ConnectionLost
                }
            };
            return SendOutcome::Lost(reason, detail);
        }
    };
    failpoint::point(Point::AfterDispatch);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return SendOutcome::Lost(UnknownReason::Upgraded, "the backend answered 101".to_owned());
    }
    let limits = CollectLimits { most: sending.most, idle: sending.route.timeout };
    let (mut head, body) = response.into_parts();
    client_head::to_client(&mut head, &method, Some(sending.replayed_header));
    match collect::collect(head, body, &limits, &mut reservation).await {
        Ok(answer) => SendOutcome::Answered(answer.holding(reservation)),
        Err(error) => SendOutcome::Lost(UnknownReason::Truncated, error.to_string()),
    }
}

/// Records an unknown outcome, with the answer that arrived, and plans its settlement.
pub(crate) async fn lose(
    route: &Route,
    claimed: &mut Claimed,
    (reason, detail): (UnknownReason, &str),
    answer: Option<Arc<StoredResponse>>,
) {
    match reason {
        UnknownReason::Pending(status) => {
            tracing::info!(record = %claimed.id(), status, "accepted, and not decided yet");
        }
        reason => {
            tracing::warn!(record = %claimed.id(), ?reason, detail, "the outcome is unknown");
        }
    }
    claimed.lose(reason, answer).await;
    if let Some(settle) = &route.settle {
        claimed.plan(settle);
    }
}

/// An answer that decides nothing; `None` where it would take the place of the backend's last
/// answer to an accepted request.
pub(super) fn unless_pending(
    reason: UnknownReason,
    answer: Option<Arc<StoredResponse>>,
) -> Option<Arc<StoredResponse>> {
    answer.filter(|_| !matches!(reason, UnknownReason::Pending(_)))
}

/// Replies with an answer of the backend that decides nothing, once its record is durable.
pub(super) fn respond_undecided(
    route: &Route,
    claimed: &Claimed,
    (disposition, answer): (Disposition, Collected),
    responder: Responder,
) {
    let retry_after = claimed.retry_after(route);
    let mut live = answer.respond(disposition, None);
    if disposition == Disposition::Pending {
        reply::insert_retry_after(live.headers_mut(), retry_after);
    }
    responder.respond(unknown_reply(claimed.record(), retry_after), Some(Ok(live)));
}

/// The answer as a record keeps it.
pub(crate) fn kept(stored: Option<&Arc<StoredResponse>>, answer: &Collected) -> Kept {
    match stored {
        Some(response) => Kept::Kept(response.clone()),
        None => Kept::NotRetained { status: answer.status().as_u16() },
    }
}

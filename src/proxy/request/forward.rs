//! The half of an exchange that a client's disconnect cannot cancel: claim, send, read the whole
//! answer, record the outcome, tell everybody.
//!
//! It runs in a task of its own. Between the durable claim and the durable outcome the record is in
//! the hands of [`Claimed`], whose drop records "unknown" when nothing else was recorded.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Request, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::claim::{Claimed, Settled};
use super::read::KeyedRequest;
use crate::body::full;
use crate::config::RequestMode;
use crate::failpoint::{self, Point};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::outcome::Verdict;
use crate::idempotency::record::StoredResponse;
use crate::idempotency::{Answer as Kept, Fingerprint};
use crate::problem::{Disposition, Problem, Slug};
use crate::proxy::collect::{self, CollectLimits, Collected};
use crate::proxy::inflight::Share;
use crate::proxy::reply::{self, Reply};
use crate::proxy::responder::Responder;
use crate::proxy::rewrite;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::upstream::SendError;

/// A request that is ready to be claimed and sent.
pub(crate) struct Call {
    pub(crate) gateway: Arc<Gateway>,
    /// The route that the request began with, and the rules of the route.
    pub(crate) route: Arc<Route>,
    pub(crate) mode: Arc<RequestMode>,
    pub(crate) wanted: CallInput,
    /// Its place among the claims at once.
    pub(crate) permit: OwnedSemaphorePermit,
    /// Its share of the tenant's quota.
    pub(crate) share: Option<Share>,
}

/// A request to send, and the contents of its record.
pub(crate) struct CallInput {
    pub(crate) intake: Box<KeyedRequest>,
    pub(crate) fingerprint: Fingerprint,
    /// Digest of the business id that the body names.
    pub(crate) subject: Option<[u8; 16]>,
    /// Until when it may wait for what other processes are sending.
    pub(crate) until: Instant,
}

/// Outcome of sending.
pub(crate) enum SendOutcome {
    /// Provably nothing was written.
    NotSent(String),
    /// Something was written, and no whole answer came.
    Lost(UnknownReason, String),
    /// A whole answer, or one too large to hold.
    Answered(Collected),
}

/// Rules of sending a request and reading its answer.
pub(crate) struct SendRules<'a> {
    pub(crate) route: &'a Route,
    /// Bytes of the largest answer to hold.
    pub(crate) most: u64,
    /// The marker that only the gateway may set.
    pub(crate) replayed_header: &'a HeaderName,
    /// Value of [`Store::life`](crate::store::Store::life) at the claim.
    pub(crate) life: Option<u64>,
}

/// Claims, sends, records and tells.
pub(crate) async fn run(call: Call, conclusion: Responder) {
    let Call { gateway, route, mode, wanted, permit, share } = call;
    let CallInput { intake, fingerprint, subject, until } = wanted;
    let KeyedRequest { id, key, tenant, whole, .. } = *intake;
    let (request, reservation) = whole.into_request(&route, true);
    failpoint::point(Point::BeforeClaim);
    let life = gateway.store.life();
    if life.is_none() {
        // The claim would be refused as well; so there is certainly none to take back.
        return conclusion.refuse(reply::store_unavailable());
    }
    let retention = mode.record.retention;
    let draft =
        super::claim::ClaimDraft { route: &route, tenant, key, subject, fingerprint, retention };
    let mut claimed = match Claimed::claim(&gateway, id, draft, until).await {
        Ok(claimed) => claimed,
        Err(told) => return conclusion.tell(told, None),
    };
    failpoint::point(Point::AfterClaim);
    if gateway.store.life() != life {
        // Others may take this process for dead, and the call for one that was lost.
        Box::pin(claimed.release()).await;
        return conclusion.refuse(reply::store_unavailable());
    }
    conclusion.claimed();
    let patience = route.timeout;
    let sending = SendRules {
        route: &route,
        most: mode.record.max_stored_body,
        replayed_header: &mode.duplicates.replayed_header,
        life,
    };
    // In a scope of its own: what follows takes the same place in the task, which is moved when it
    // starts. What happens seldom is boxed for the same reason.
    let end = {
        let mut backend = pin!(send(&gateway, &sending, request, reservation));
        match timeout(patience, backend.as_mut()).await {
            Ok(end) => end,
            Err(_) => {
                Box::pin(timed_out(&mut claimed, conclusion)).await;
                let end = timeout(patience, backend).await.ok();
                Box::pin(late(&mut claimed, &mode, end)).await;
                return;
            }
        }
    };
    failpoint::point(Point::AfterAnswer);
    match end {
        SendOutcome::NotSent(reason) => Box::pin(not_sent(&mut claimed, &reason, conclusion)).await,
        SendOutcome::Lost(reason, detail) => {
            Box::pin(lose(&mut claimed, reason, &detail)).await;
            let problem = reply::outcome_unknown(StatusCode::BAD_GATEWAY);
            conclusion.tell(Reply::Unknown, Some(Err(problem)));
        }
        SendOutcome::Answered(answer) => answered(&mut claimed, &mode, answer, conclusion).await,
    }
    drop((permit, share));
}

/// Sends the request once and reads the answer.
pub(crate) async fn send(
    gateway: &Gateway,
    sending: &SendRules<'_>,
    request: Request<bytes::Bytes>,
    mut reservation: crate::proxy::budget::Reservation,
) -> SendOutcome {
    let method = request.method().clone();
    // A lease may end while a connection is made; then others take this call for lost.
    let may = || match gateway.store.life() == sending.life {
        true => Ok(()),
        false => Err("the lease on the store ended before it could be sent".to_owned()),
    };
    let response = match sending.route.upstream.send_if(request.map(full), &may).await {
        Ok(response) => response,
        Err(SendError::NotSent { reason }) => return SendOutcome::NotSent(reason),
        Err(SendError::Unknown { detail, .. }) => {
            return SendOutcome::Lost(UnknownReason::ConnectionLost, detail);
        }
    };
    failpoint::point(Point::AfterDispatch);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return SendOutcome::Lost(UnknownReason::Upgraded, "the backend answered 101".to_owned());
    }
    let limits = CollectLimits { most: sending.most, idle: sending.route.timeout };
    let (mut head, body) = response.into_parts();
    rewrite::to_client(&mut head, &method, Some(sending.replayed_header));
    match collect::collect(head, body, &limits, &mut reservation).await {
        Ok(answer) => SendOutcome::Answered(answer.holding(reservation)),
        Err(error) => SendOutcome::Lost(UnknownReason::Truncated, error.to_string()),
    }
}

/// Nothing was written: the claim is released, and the same key may be tried again.
async fn not_sent(claimed: &mut Claimed, reason: &str, conclusion: Responder) {
    tracing::warn!(record = ?claimed.id(), reason, "the backend could not be reached");
    // When the release cannot be stored the record stays in flight and becomes unknown at the next
    // start. The answer is true all the same: this request was not carried out.
    claimed.release().await;
    conclusion.tell(Reply::Refused(unreachable()), None);
}

/// Nothing was written to the backend, and the claim is released.
pub(crate) fn unreachable() -> Problem {
    Problem::new(
        Slug::UpstreamUnreachable,
        "The service could not be reached and the request was not carried out. Please try again.",
    )
    .disposition(Disposition::NotExecuted)
    .retry_after(Duration::from_secs(1))
}

/// Records that nobody knows the outcome, and tells.
async fn timed_out(claimed: &mut Claimed, conclusion: Responder) {
    lose(claimed, UnknownReason::Timeout, "the upstream timeout ran out").await;
    let problem = reply::outcome_unknown(StatusCode::GATEWAY_TIMEOUT);
    conclusion.tell(Reply::Unknown, Some(Err(problem)));
}

async fn lose(claimed: &mut Claimed, reason: UnknownReason, detail: &str) {
    tracing::warn!(record = ?claimed.id(), ?reason, detail, "the outcome is unknown");
    claimed.lose(reason).await;
}

/// A whole answer, or as much of it as may be held: records what it means, then tells.
async fn answered(
    claimed: &mut Claimed,
    mode: &RequestMode,
    answer: Collected,
    conclusion: Responder,
) {
    let status = answer.status();
    match mode.outcome.verdict(status.as_u16()) {
        Verdict::Released => {
            let stored = answer.stored();
            Box::pin(claimed.release()).await;
            failpoint::point(Point::AfterCompletion);
            let live = answer.respond(Disposition::NotExecuted, None);
            let told = stored.map_or_else(released_unkept, Reply::Released);
            conclusion.tell(told, Some(Ok(live)));
        }
        Verdict::Unknown => {
            let reason = UnknownReason::Status(status.as_u16());
            Box::pin(lose(claimed, reason, "the backend's status")).await;
            failpoint::point(Point::AfterCompletion);
            let live = answer.respond(Disposition::Unknown, None);
            conclusion.tell(Reply::Unknown, Some(Ok(live)));
        }
        Verdict::Final => complete(claimed, answer, conclusion).await,
    }
}

/// Records the final answer, durably, and only then tells anybody.
async fn complete(claimed: &mut Claimed, answer: Collected, conclusion: Responder) {
    let stored = answer.stored();
    let settled = claimed.complete(kept(stored.as_ref(), &answer)).await;
    failpoint::point(Point::AfterCompletion);
    match settled {
        Settled::Recorded { expires, completed } => {
            let told = match stored {
                Some(response) => Reply::Final { response, expires, recovered: false },
                None => Reply::NotRetained { status: answer.status().as_u16(), completed },
            };
            let until = told.expires_header();
            conclusion.tell(told, Some(Ok(answer.respond(Disposition::Executed, until))));
        }
        Settled::NotRecorded => {
            let told = stored.map_or(Reply::Unknown, Reply::Unrecorded);
            conclusion.tell(told, Some(Ok(answer.respond(Disposition::Unrecorded, None))));
        }
        Settled::Otherwise(winner) => {
            let told = Box::pin(claimed.otherwise(winner)).await;
            conclusion.tell(told, None);
        }
    }
}

/// After the timeout the client has been told and the record is unknown; what the same attempt
/// still brings is the truth and settles it. `None`: nothing came in a second timeout's time.
async fn late(claimed: &mut Claimed, mode: &RequestMode, end: Option<SendOutcome>) {
    match end {
        None | Some(SendOutcome::Lost(..)) => {}
        Some(SendOutcome::NotSent(_)) => claimed.release().await,
        Some(SendOutcome::Answered(answer)) => match mode.outcome.verdict(answer.status().as_u16())
        {
            Verdict::Unknown => {}
            Verdict::Released => claimed.release().await,
            Verdict::Final => {
                let stored = answer.stored();
                let settled = claimed.complete(kept(stored.as_ref(), &answer)).await;
                if let Settled::Recorded { .. } = settled {
                    tracing::info!(record = ?claimed.id(), "a late answer settled the outcome");
                }
            }
        },
    }
}

fn kept(stored: Option<&Arc<StoredResponse>>, answer: &Collected) -> Kept {
    match stored {
        Some(response) => Kept::Kept(response.clone()),
        None => Kept::NotRetained { status: answer.status().as_u16() },
    }
}

/// The backend did not execute, and its answer was too large to share with the duplicates.
fn released_unkept() -> Reply {
    Reply::Refused(
        Problem::new(
            Slug::UpstreamUnreachable,
            "The service did not carry out the request. Please try again.",
        )
        .disposition(Disposition::NotExecuted),
    )
}

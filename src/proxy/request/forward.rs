//! The half of an exchange beyond the reach of a client's disconnect: claim, send, read the whole
//! answer, record the outcome, reply.
//!
//! `run` is a task of its own. Between the durable claim and the durable outcome the record belongs
//! to [`Claimed`]; a drop without a recorded outcome records "unknown".

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
use crate::upstream::{SendError, SendFailure};

/// A request ready to be claimed and sent.
pub(crate) struct Call {
    pub(crate) gateway: Arc<Gateway>,
    /// The request's route and the rules of the route.
    pub(crate) route: Arc<Route>,
    pub(crate) mode: Arc<RequestMode>,
    pub(crate) input: CallInput,
    /// Permit for a claim in flight.
    pub(crate) permit: OwnedSemaphorePermit,
    /// Share of the tenant's quota.
    pub(crate) share: Option<Share>,
}

/// A request to send, and the contents of its record.
pub(crate) struct CallInput {
    pub(crate) request: Box<KeyedRequest>,
    pub(crate) fingerprint: Fingerprint,
    /// Digest of the business id in the body.
    pub(crate) subject: Option<[u8; 16]>,
    /// Deadline for waiting on the same request in another process.
    pub(crate) until: Instant,
}

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
    /// [`Store::life`](crate::store::Store::life) at the time of the claim.
    pub(crate) life: Option<u64>,
}

/// Claims, sends, records the outcome and replies.
pub(crate) async fn run(call: Call, responder: Responder) {
    let Call { gateway, route, mode, input, permit, share } = call;
    let CallInput { request, fingerprint, subject, until } = input;
    let KeyedRequest { id, key, tenant, buffered, .. } = *request;
    let head = &buffered.head;
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let [method, target, name] = [head.method.as_str(), target, key.as_str()].map(str::as_bytes);
    let parts = [method, target, name, &buffered.body];
    let without_caller = gateway.callers.digest(&route, &head.headers, &parts);
    let (request, reservation) = buffered.into_request(&route, true);
    failpoint::point(Point::BeforeClaim);
    let life = gateway.store.life();
    if life.is_none() {
        // Without a lease the claim would be refused as well, so no claim has to be withdrawn.
        return responder.refuse(reply::store_unavailable());
    }
    let retention = mode.record.retention;
    let draft =
        super::claim::ClaimDraft { route: &route, tenant, key, subject, fingerprint, retention };
    let mut claimed = match Claimed::claim(&gateway, id, draft, until).await {
        Ok(claimed) => claimed,
        Err(reply) => return responder.respond(reply, None),
    };
    failpoint::point(Point::AfterClaim);
    if gateway.store.life() != life {
        // Between claim and dispatch the lease ended. Another process may already have declared
        // this process dead and the request lost.
        Box::pin(claimed.release()).await;
        return responder.refuse(reply::store_unavailable());
    }
    responder.claimed();
    gateway.callers.claimed(without_caller, tenant, &route);
    let time_limit = route.timeout;
    let sending = SendRules {
        route: &route,
        most: mode.record.max_stored_body,
        replayed_header: &mode.duplicates.replayed_header,
        life,
    };
    // A scope for the future of `send`: later futures reuse its memory in the task, and the task is
    // moved when spawned. Rare branches are boxed for the same reason.
    let end = {
        let mut backend = pin!(send(&gateway, &sending, request, reservation));
        match timeout(time_limit, backend.as_mut()).await {
            Ok(end) => end,
            Err(_) => {
                Box::pin(timed_out(&mut claimed, responder)).await;
                let end = timeout(time_limit, backend).await.ok();
                Box::pin(settle_late(&mut claimed, &mode, end)).await;
                return;
            }
        }
    };
    failpoint::point(Point::AfterAnswer);
    match end {
        SendOutcome::NotSent(reason) => Box::pin(not_sent(&mut claimed, &reason, responder)).await,
        SendOutcome::Lost(reason, detail) => {
            Box::pin(lose(&mut claimed, reason, &detail)).await;
            let problem = reply::outcome_unknown(reason);
            responder.respond(Reply::Unknown, Some(Err(problem)));
        }
        SendOutcome::Answered(answer) => answered(&mut claimed, &mode, answer, responder).await,
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
    // The lease may end while a connection is made; other processes then treat the request as lost.
    let may = || match gateway.store.life() == sending.life {
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
    rewrite::to_client(&mut head, &method, Some(sending.replayed_header));
    match collect::collect(head, body, &limits, &mut reservation).await {
        Ok(answer) => SendOutcome::Answered(answer.holding(reservation)),
        Err(error) => SendOutcome::Lost(UnknownReason::Truncated, error.to_string()),
    }
}

/// Releases the claim of an unsent request; the same key may be used for a retry.
async fn not_sent(claimed: &mut Claimed, reason: &str, responder: Responder) {
    tracing::warn!(record = ?claimed.id(), reason, "the backend could not be reached");
    // If the release cannot be stored, the record stays in flight and becomes unknown at the next
    // start. The answer is true regardless: the request was not carried out.
    claimed.release().await;
    responder.respond(Reply::Refused(unreachable()), None);
}

/// The request was not written to the backend, and the claim is released.
pub(crate) fn unreachable() -> Problem {
    Problem::new(
        Slug::UpstreamUnreachable,
        "The service could not be reached and the request was not carried out. Please try again.",
    )
    .disposition(Disposition::NotExecuted)
    .retry_after(Duration::from_secs(1))
}

/// Records an unknown outcome and replies.
async fn timed_out(claimed: &mut Claimed, responder: Responder) {
    lose(claimed, UnknownReason::Timeout, "the upstream timeout ran out").await;
    let problem = reply::outcome_unknown(UnknownReason::Timeout);
    responder.respond(Reply::Unknown, Some(Err(problem)));
}

async fn lose(claimed: &mut Claimed, reason: UnknownReason, detail: &str) {
    tracing::warn!(record = ?claimed.id(), ?reason, detail, "the outcome is unknown");
    claimed.lose(reason).await;
}

/// Records the verdict on an answer, then replies. The answer is complete, or streaming if too
/// large to buffer.
async fn answered(
    claimed: &mut Claimed,
    mode: &RequestMode,
    answer: Collected,
    responder: Responder,
) {
    let judgement = answer.judge(&mode.outcome);
    match judgement.verdict {
        Verdict::Released => {
            let stored = answer.stored();
            Box::pin(claimed.release()).await;
            failpoint::point(Point::AfterCompletion);
            let live = answer.respond(Disposition::NotExecuted, None);
            let reply = stored.map_or_else(released_unkept, Reply::Released);
            responder.respond(reply, Some(Ok(live)));
        }
        Verdict::Unknown => {
            let reason = UnknownReason::Status(answer.status().as_u16());
            Box::pin(lose(claimed, reason, &judgement.basis.to_string())).await;
            failpoint::point(Point::AfterCompletion);
            let live = answer.respond(Disposition::Unknown, None);
            responder.respond(Reply::Unknown, Some(Ok(live)));
        }
        Verdict::Final => complete(claimed, answer, responder).await,
    }
}

/// Records the final answer durably, then replies.
async fn complete(claimed: &mut Claimed, answer: Collected, responder: Responder) {
    let stored = answer.stored();
    let settled = claimed.complete(kept(stored.as_ref(), &answer)).await;
    failpoint::point(Point::AfterCompletion);
    match settled {
        Settled::Recorded { expires, completed } => {
            let reply = match stored {
                Some(response) => Reply::Final { response, expires, recovered: false },
                None => Reply::NotRetained { status: answer.status().as_u16(), completed },
            };
            let until = reply.expires_header();
            responder.respond(reply, Some(Ok(answer.respond(Disposition::Executed, until))));
        }
        Settled::NotRecorded => {
            let reply = stored.map_or(Reply::Unknown, Reply::Unrecorded);
            responder.respond(reply, Some(Ok(answer.respond(Disposition::Unrecorded, None))));
        }
        Settled::Otherwise(winner) => {
            let reply = Box::pin(claimed.otherwise(winner)).await;
            responder.respond(reply, None);
        }
    }
}

/// Settles a record after the timeout, with the late end of the same attempt. The client already
/// has the reply "unknown", yet the attempt's real outcome is authoritative. `None`: still no
/// answer after a second timeout.
async fn settle_late(claimed: &mut Claimed, mode: &RequestMode, end: Option<SendOutcome>) {
    match end {
        None | Some(SendOutcome::Lost(..)) => {}
        Some(SendOutcome::NotSent(_)) => claimed.release().await,
        Some(SendOutcome::Answered(answer)) => match answer.judge(&mode.outcome).verdict {
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

/// The backend did not execute the request, and its answer was too large to share with duplicates.
fn released_unkept() -> Reply {
    Reply::Refused(
        Problem::new(
            Slug::UpstreamUnreachable,
            "The service did not carry out the request. Please try again.",
        )
        .disposition(Disposition::NotExecuted)
        .retry_after(Duration::from_secs(1)),
    )
}

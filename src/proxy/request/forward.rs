//! The half of an exchange beyond the reach of a client's disconnect: claim, send, read the whole
//! answer, record the outcome, reply.
//!
//! `run` is a task of its own. Between the durable claim and the durable outcome the record belongs
//! to [`Claimed`]; a drop without a recorded outcome records "unknown".

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::already_done;
use super::claim::{ClaimRefusal, Claimed, Settled};
use super::draft::ClaimDraft;
use super::existing::unknown_reply;
use super::late;
use super::read::KeyedRequest;
use super::repeat::{self, Repeat};
use super::send::{SendOutcome, SendRules, kept, lose, respond_undecided, send};
use super::unsettled::{self, RetriedClaim, Unsettled};
use crate::config::RequestMode;
use crate::failpoint::{self, Point};
use crate::idempotency::Fingerprint;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::outcome::Verdict;
use crate::idempotency::settling::KeptValue;
use crate::problem::{Disposition, Problem, Slug};
use crate::proxy::collect::Collected;
use crate::proxy::inflight::Share;
use crate::proxy::reply::{self, Reply};
use crate::proxy::responder::Responder;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;

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
    /// The values that the settlement of a lost answer needs; `None`: the route needs no data.
    pub(crate) values: Option<Vec<KeptValue>>,
    /// Deadline for waiting on the same request in another process.
    pub(crate) until: Instant,
}

/// Claims, sends, records the outcome and replies.
pub(crate) async fn run(call: Call, responder: Responder) {
    let Call { gateway, route, mode, input, permit, share } = call;
    let CallInput { request, fingerprint, subject, values, until } = input;
    let KeyedRequest { id, key, tenant, caller, buffered, .. } = *request;
    let head = &buffered.head;
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let [method, target, name] = [head.method.as_str(), target, key.as_str()].map(str::as_bytes);
    let parts = [method, target, name, &buffered.body];
    let without_caller = gateway.callers.digest(&route, &head.headers, &parts);
    let (request, reservation) = buffered.into_request(&route, true);
    failpoint::point(Point::BeforeClaim);
    let epoch = gateway.store.epoch();
    if epoch.is_none() {
        // Without a lease the claim would be refused as well, so no claim has to be withdrawn.
        return responder.refuse(reply::store_unavailable());
    }
    let draft = ClaimDraft { route: &route, tenant, caller, key, subject, fingerprint, values };
    let record = draft.into_record(&gateway);
    // The values of the request in its record, until its call has ended.
    let mut values = gateway.budget.reserve();
    values.hold(record.body_bytes() as u64);
    let retention = mode.record.retention;
    let claim = Claimed::claim(&gateway, id, record.clone(), (&route, retention), until).await;
    let mut claimed = match claim {
        Ok(claimed) => claimed,
        Err(ClaimRefusal::Reply(reply)) => return responder.respond(reply, None),
        Err(ClaimRefusal::Unknown(unknown)) => {
            let claiming = RetriedClaim { gateway: &gateway, route: &route, id, record, retention };
            let unsettled = Box::pin(unsettled::settle(&claiming, unknown, &request, until));
            match unsettled.await {
                Unsettled::Reply(reply) => return responder.respond(reply, None),
                Unsettled::Claimed(claimed) => *claimed,
                Unsettled::Resend { claimed, reason, rules, body } => {
                    let (route, mode, claimed) = (&*route, &*mode, *claimed);
                    let repeat = Repeat { route, mode, rules, claimed, reason, epoch };
                    let sent = (request, body, reservation);
                    Box::pin(repeat::run(&gateway, repeat, sent, responder)).await;
                    return drop((permit, share));
                }
            }
        }
    };
    failpoint::point(Point::AfterClaim);
    if gateway.store.epoch() != epoch {
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
        epoch,
    };
    // A scope for the future of `send`: later futures reuse its memory in the task, and the task is
    // moved when spawned. Rare branches are boxed for the same reason.
    let end = {
        let mut backend = pin!(send(&gateway, &sending, request, reservation));
        match timeout(time_limit, backend.as_mut()).await {
            Ok(end) => end,
            Err(_) => {
                Box::pin(timed_out(&route, &mut claimed, responder)).await;
                let end = timeout(time_limit, backend).await.ok();
                Box::pin(late::settle(&route, &mut claimed, &mode, end)).await;
                return;
            }
        }
    };
    failpoint::point(Point::AfterAnswer);
    match end {
        SendOutcome::NotSent(reason) => Box::pin(not_sent(&mut claimed, &reason, responder)).await,
        SendOutcome::Lost(reason, detail) => {
            Box::pin(lose(&route, &mut claimed, (reason, &detail), None)).await;
            respond_lost(&route, &claimed, reason, responder);
        }
        SendOutcome::Answered(answer) => {
            answered(&route, &mut claimed, &mode, answer, responder).await;
        }
    }
    drop((permit, share, values));
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
async fn timed_out(route: &Route, claimed: &mut Claimed, responder: Responder) {
    let lost = (UnknownReason::Timeout, "the upstream timeout ran out");
    lose(route, claimed, lost, None).await;
    respond_lost(route, claimed, UnknownReason::Timeout, responder);
}

/// Replies that the answer was lost. Duplicates read the same as later retries, the time included
/// after which a retry may settle the outcome.
fn respond_lost(route: &Route, claimed: &Claimed, reason: UnknownReason, responder: Responder) {
    let retry_after = claimed.retry_after(route);
    let problem = reply::first_unknown(reason, retry_after);
    responder.respond(unknown_reply(claimed.record(), retry_after), Some(Err(problem)));
}

/// Records the verdict on an answer, then replies. The answer is complete, or streaming if too
/// large to buffer.
async fn answered(
    route: &Route,
    claimed: &mut Claimed,
    mode: &RequestMode,
    answer: Collected,
    responder: Responder,
) {
    if let Some(rules) = already_done::rules(route, claimed, &answer) {
        let reason = UnknownReason::AlreadyDone(answer.status().as_u16());
        let call = (route, claimed);
        Box::pin(already_done::answered(call, &rules, (reason, answer), responder)).await;
        return;
    }
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
            let (detail, arrived) = (judgement.basis.to_string(), answer.stored());
            Box::pin(lose(route, claimed, (reason, &detail), arrived)).await;
            failpoint::point(Point::AfterCompletion);
            respond_undecided(route, claimed, (Disposition::Unknown, answer), responder);
        }
        Verdict::Pending => {
            let reason = UnknownReason::Pending(answer.status().as_u16());
            Box::pin(lose(route, claimed, (reason, ""), answer.stored())).await;
            failpoint::point(Point::AfterCompletion);
            respond_undecided(route, claimed, (Disposition::Pending, answer), responder);
        }
        Verdict::Final => complete(claimed, answer, responder).await,
    }
}

/// Records the final answer durably, then replies.
async fn complete(claimed: &mut Claimed, answer: Collected, responder: Responder) {
    let stored = answer.stored();
    let settled = claimed.complete(kept(stored.as_ref(), &answer), None).await;
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
            let status = answer.status();
            claimed
                .contradict(format!("the call was answered with {status}"), status.as_u16() < 400);
            let reply = Box::pin(claimed.otherwise(winner)).await;
            responder.respond(reply, None);
        }
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

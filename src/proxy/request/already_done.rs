//! Refusals because an earlier attempt of the same key was executed after all: of a repetition, or
//! of a call whose key a probe or an operator had freed.
//!
//! Such a refusal is no failure of the request. With `then = "succeed"` it settles the request as
//! executed; with `then = "hold"` the outcome is unknown, and the policy of the route goes on.

use std::sync::Arc;

use super::claim::{Claimed, Settled};
use super::existing::unknown_reply;
use super::send::{self, unless_pending};
use crate::config::{AlreadyDone, AlreadyDoneRules};
use crate::idempotency::Answer;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::StoredResponse;
use crate::proxy::collect::Collected;
use crate::proxy::reply::Reply;
use crate::proxy::responder::Responder;
use crate::proxy::routing::Route;
use crate::settle::rules::author;
use crate::settle::settled_response;
use crate::settle::values::RecordValues;

/// The author and the reason of a settlement by such a refusal.
const NOTE: (&str, &str) = ("already-done", "the backend refused a later attempt as already done");

/// The rules by which an answer refuses a call whose key had an earlier attempt with a lost answer;
/// `None`: the answer is no such refusal.
pub(super) fn rules(
    route: &Route,
    claimed: &Claimed,
    answer: &Collected,
) -> Option<AlreadyDoneRules> {
    let rules = route.settle.as_ref()?.plan.policy.already_done()?;
    let record = claimed.record();
    let is_later = record.is_resent() || record.was_freed();
    (is_later && answer.matches(&rules.matchers)).then(|| rules.clone())
}

/// Records such a refusal durably, then replies. `reason`: that of the outcome where it stays
/// unknown.
pub(super) async fn answered(
    (route, claimed): (&Route, &mut Claimed),
    rules: &AlreadyDoneRules,
    (reason, answer): (UnknownReason, Collected),
    responder: Responder,
) {
    match rules.then {
        AlreadyDone::Hold => {
            let refusal = unless_pending(reason, answer.stored());
            send::lose(route, claimed, (reason, NOTE.1), refusal).await;
            let retry_after = match reason {
                UnknownReason::AlreadyDone(_) => claimed.retry_after(route),
                _ => None,
            };
            responder.respond(unknown_reply(claimed.record(), retry_after), None);
        }
        AlreadyDone::Succeed => {
            let response = response(claimed, rules, &answer);
            recovered((route, claimed), response, NOTE, responder).await;
        }
    }
}

/// The response of the request that was executed by an earlier attempt.
pub(super) fn response(
    claimed: &Claimed,
    rules: &AlreadyDoneRules,
    answer: &Collected,
) -> Arc<StoredResponse> {
    let row = answer.stored().map(|stored| stored.body.clone());
    let row = row.as_deref().and_then(|body| std::str::from_utf8(body).ok());
    let now = claimed.gateway.store.now();
    settled_response(rules.response.as_ref(), &RecordValues { record: claimed.record(), row, now })
}

/// Records the settled response durably, then replies.
pub(super) async fn recovered(
    (route, claimed): (&Route, &mut Claimed),
    response: Arc<StoredResponse>,
    (by, why): (&'static str, &str),
    responder: Responder,
) {
    let kept = Answer::Kept(response.clone());
    let reply = match claimed.complete(kept, Some(author(by, why))).await {
        Settled::Recorded { expires, .. } => {
            claimed.gateway.settler.report(claimed.id(), &route.name, by, "executed");
            Reply::Final { response, expires, recovered: true }
        }
        Settled::NotRecorded => Reply::Unrecorded(response),
        Settled::Otherwise(winner) => Box::pin(claimed.otherwise(winner)).await,
    };
    responder.respond(reply, None);
}

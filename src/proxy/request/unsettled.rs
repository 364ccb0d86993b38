//! Requests for a key whose outcome is unknown: the policy of the route may settle the record, or
//! allow the request to be sent again.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use tokio::time::Instant;

use super::claim::{ClaimRefusal, Claimed};
use super::existing::unknown_reply;
use super::repeat::{self, Repetition};
use crate::config::{ResendRules, UnknownPolicy};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::retention::Retention;
use crate::idempotency::{Record, RecordId, State};
use crate::proxy::reply::Reply;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::settle::{LEAST_DELAY, Retried, whole_seconds};

/// Looks at the record after a step, at most.
const MAX_LOOKS: usize = 4;

/// A request that claims a key whose outcome is unknown.
pub(super) struct RetriedClaim<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) route: &'a Route,
    pub(super) id: RecordId,
    /// The record of the claim.
    pub(super) record: Arc<Record>,
    pub(super) retention: Retention,
}

/// The result of a retry for an unknown record.
pub(super) enum Unsettled {
    /// The reply to the retry.
    Reply(Reply),
    /// The key was freed, and the claim is durable.
    Claimed(Box<Claimed>),
    /// The request is to be sent again, under this claim.
    Resend {
        /// The claim.
        claimed: Box<Claimed>,
        /// The reason why the outcome was unknown.
        reason: UnknownReason,
        /// The rules of the repetition.
        rules: Box<ResendRules>,
        /// The body with the marks of a repetition.
        body: Bytes,
    },
}

/// Settles the record of an unknown outcome as far as the policy's times allow, at most until
/// `until`, and looks again.
pub(super) async fn settle(
    claiming: &RetriedClaim<'_>,
    mut unknown: Box<Record>,
    request: &Request<Bytes>,
    until: Instant,
) -> Unsettled {
    let RetriedClaim { gateway, route, id, record, retention } = claiming;
    let Some(settle) = &route.settle else {
        return Unsettled::Reply(unknown_reply(&unknown, None));
    };
    for _ in 0..MAX_LOOKS {
        match gateway.settler.retry((*id, settle.clone()), request.headers(), until).await {
            Retried::Changed => {}
            Retried::Held => return Unsettled::Reply(unknown_reply(&unknown, None)),
            Retried::Later(delay) => {
                return Unsettled::Reply(unknown_reply(&unknown, Some(whole_seconds(delay))));
            }
            Retried::Resend(next, replacing) => {
                let State::Unknown { reason, .. } = unknown.state else { break };
                let UnknownPolicy::Resend(rules) = &*settle.plan.policy else { break };
                let Some(body) = repeat::marked(request.body(), &rules.mark) else {
                    let call = (*id, &**settle);
                    gateway.settler.not_repeatable(call, &unknown, repeat::NO_MARK).await;
                    return Unsettled::Reply(unknown_reply(&unknown, None));
                };
                let change = (*next, replacing);
                match repeat::claim(gateway, *id, change, *retention, reason).await {
                    Repetition::Claimed(claimed) => {
                        let rules = rules.clone();
                        return Unsettled::Resend { claimed, reason, rules, body };
                    }
                    Repetition::Refused(reply) => return Unsettled::Reply(reply),
                    Repetition::Lost => {}
                }
            }
        }
        let claim = Claimed::claim(gateway, *id, record.clone(), (route, *retention), until);
        match claim.await {
            Ok(claimed) => return Unsettled::Claimed(Box::new(claimed)),
            Err(ClaimRefusal::Reply(reply)) => return Unsettled::Reply(reply),
            Err(ClaimRefusal::Unknown(record)) => unknown = record,
        }
    }
    Unsettled::Reply(unknown_reply(&unknown, Some(LEAST_DELAY)))
}
